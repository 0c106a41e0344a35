"""Downloads from a loopback server that behaves as servers do."""

import dataclasses
import hashlib
import http.server
import threading

import jax
import numpy as np
import pytest
from safetensors.numpy import save

from mis_jax import cli
from mis_jax.downloads import archives, fetch, weights
from mis_jax.downloads.weights import download_weights, find_weights
from mis_jax.errors import InputError
from mis_jax.models import porting, vit

NAME = "dino-vits8"
TINY = vit.Variant(dim=128, depth=1, heads=2, patch=8, grid=4)
TENSORS = porting.unport(jax.tree.map(lambda x: np.ones(x.shape, "f"), vit.abstract(TINY)[1]))
FILE = save(TENSORS)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `FILE` in the ways servers do; the first part of the path says which."""

    def do_GET(self):
        way = self.path.split("/")[1]
        self.server.requests.append((way, self.headers["Range"]))
        start, body = 0, FILE
        if way == "missing":
            return self.send_error(404)
        if way == "page":
            body = b"<html>sign in first</html>"
        if self.headers["Range"] and way != "whole":
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : len(body) // 2 if way == "truncated" else None])

    def log_message(self, *_): ...


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def known(server, monkeypatch, tmp_path):
    """Makes `dino-vits8` come from the given ways; returns the cache folder's file."""
    monkeypatch.setenv("MIS_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(vit.VARIANTS, NAME, TINY)

    def make(*ways, digest="", size=0):
        url = f"http://127.0.0.1:{server.server_port}"
        files = tuple(
            fetch.File(f"{url}/{way}/file.{i}.pth", digest, size) for i, way in enumerate(ways)
        )
        monkeypatch.setitem(weights.KNOWN, NAME, weights.Source("Apache-2.0", files))
        return tmp_path / "cache" / f"{NAME}.pth"

    return make


def digest(data=FILE, kind="sha256"):
    return f"{kind}:{hashlib.new(kind, data).hexdigest()}"


@pytest.mark.parametrize("published", ["", digest(), digest(kind="md5")[:10]])
def test_download(server, known, capfd, published):
    path = known("good", digest=published)
    assert find_weights(NAME) is None
    assert download_weights(NAME) == path == find_weights(NAME)
    assert path.read_bytes() == FILE
    assert not path.with_name(f"{NAME}.pth.part").exists()
    said = capfd.readouterr().err
    assert "Apache-2.0" in said
    by = f"its {published.replace(':', ' (')}), " if published else ""
    assert f"{NAME}: verified by {by}the names and shapes of its tensors" in said
    assert download_weights(NAME) == path
    assert server.requests == [("good", None)]  # the second call needed no network


@pytest.mark.parametrize("way", ["good", "whole"])
@pytest.mark.parametrize("have", [1, 500_000, len(FILE)])
def test_resume(server, known, way, have):
    """`whole` is a server that ignores Range."""
    path = known(way, digest=digest())
    path.parent.mkdir()
    path.with_name(f"{NAME}.pth.part").write_bytes(FILE[:have])
    assert download_weights(NAME).read_bytes() == FILE
    assert server.requests == [(way, f"bytes={have}-")]


def test_truncated_body_is_kept_as_part_and_resumed(known):
    path = known("truncated")
    with pytest.raises(InputError, match=f"ended after {len(FILE) // 2} of {len(FILE)} bytes"):
        download_weights(NAME)
    assert not path.exists()
    known("good")
    assert download_weights(NAME).read_bytes() == FILE


@pytest.mark.parametrize(
    ("way", "published", "message"),
    [
        ("good", {"digest": digest(b"other")}, "its sha256 is"),
        ("good", {"size": len(FILE) + 1}, f"it has {len(FILE)} bytes, not {len(FILE) + 1}"),
        ("page", {}, "damaged"),
    ],
)
def test_wrong_file_is_refused(known, way, published, message):
    path = known(way, **published)
    with pytest.raises(InputError, match=message):
        download_weights(NAME)
    assert [p.name for p in path.parent.iterdir()] == [f"{NAME}.lock"]


def test_mirror(server, known):
    path = known("missing", "page", "good")
    assert download_weights(NAME) == path
    assert [way for way, _ in server.requests] == ["missing", "page", "good"]


def test_offline_says_what_to_fetch_and_where_to_put_it(server, known):
    path = known("good")
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError) as error:
        download_weights(NAME)
    url = weights.KNOWN[NAME].files[0].url
    assert f"fetch {url} by hand and put it at {path}." in str(error.value)


def test_unknown_name():
    with pytest.raises(InputError, match="dino-vits16"):
        download_weights("dino-vits9")


def test_weights_of_another_model_are_refused(known, monkeypatch):
    path = known("good")
    other = dataclasses.replace(TINY, depth=2, patch=16)
    monkeypatch.setitem(vit.VARIANTS, NAME, other)
    with pytest.raises(InputError, match=r"missing: blocks\.1.*another shape: patch_embed"):
        download_weights(NAME)
    assert not path.exists()


def test_known_files():
    """What may not be used commercially says so, and every name is of a model we have."""
    assert set(weights.KNOWN) == set(vit.VARIANTS)
    for name, source in weights.KNOWN.items():
        free = name.startswith("dino")
        assert source.licence == ("Apache-2.0" if free else "CC-BY-NC-4.0")
        assert all(file.url.startswith("https://") for file in source.files)
    urls = [file.url for source in weights.KNOWN.values() for file in source.files]
    assert len(set(urls)) == len(urls) == 24


def test_command(known, capsys):
    path = known("good")
    assert cli.command(["download"]) == 0
    listed = capsys.readouterr().out
    assert str(path.parent) in listed
    assert all(name in listed for name in (*weights.KNOWN, *archives.SETS))
    assert "there" not in listed.split(NAME, 1)[1].splitlines()[0]
    assert cli.command(["download", NAME]) == 0
    assert f"{NAME}: {path} (licence Apache-2.0)" in capsys.readouterr().out
    assert cli.command(["download"]) == 0
    assert "there" in capsys.readouterr().out.split(NAME, 1)[1].splitlines()[0]
    assert cli.command(["download", "dino-vits9"]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in ("dino-vits16", "grabcut", "sbd"))


def test_command_into_a_folder(known, capsys, tmp_path):
    known("good")
    other = tmp_path / "other"
    assert cli.command(["download", NAME, str(other)]) == 0
    assert f"{NAME}: {other / NAME}.pth" in capsys.readouterr().out
    assert (other / f"{NAME}.pth").read_bytes() == FILE
    assert find_weights(NAME) is None
    assert cli.command(["download", str(other)]) == 0
    listed = capsys.readouterr().out
    assert str(other) in listed
    assert "there" in listed.split(NAME, 1)[1].splitlines()[0]
