"""Downloads from a loopback server that behaves as servers do."""

import hashlib
import http.server
import threading

import numpy as np
import pytest
from safetensors.numpy import save

from mis_jax import download
from mis_jax.errors import InputError

FILE = save({"w": np.random.default_rng(0).normal(size=300_000).astype("f")})


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
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def known(server, monkeypatch, tmp_path):
    """Makes `dino-vits8` come from the given ways; returns the cache folder's file."""
    monkeypatch.setenv("MIS_JAX_CACHE", str(tmp_path / "cache"))

    def make(*ways, digest=""):
        url = f"http://127.0.0.1:{server.server_port}"
        files = tuple((f"{url}/{way}/file.{i}.pth", digest) for i, way in enumerate(ways))
        monkeypatch.setitem(download.KNOWN, "dino-vits8", download.Source("Apache-2.0", files))
        return tmp_path / "cache" / "dino-vits8.pth"

    return make


def digest(data=FILE, kind="sha256"):
    return f"{kind}:{hashlib.new(kind, data).hexdigest()}"


@pytest.mark.parametrize("published", ["", digest(), digest(kind="md5")[:10]])
def test_download(server, known, capfd, published):
    path = known("good", digest=published)
    assert download.find("dino-vits8") is None
    assert download.download("dino-vits8") == path == download.find("dino-vits8")
    assert path.read_bytes() == FILE
    assert not path.with_name("dino-vits8.pth.part").exists()
    assert "Apache-2.0" in capfd.readouterr().err
    assert download.download("dino-vits8") == path
    assert server.requests == [("good", None)]  # the second call needed no network


@pytest.mark.parametrize("way", ["good", "whole"])
@pytest.mark.parametrize("have", [1, 500_000, len(FILE)])
def test_resume(server, known, way, have):
    """`whole` is a server that ignores Range."""
    path = known(way, digest=digest())
    path.parent.mkdir()
    path.with_name("dino-vits8.pth.part").write_bytes(FILE[:have])
    assert download.download("dino-vits8").read_bytes() == FILE
    assert server.requests == [(way, f"bytes={have}-")]


def test_truncated_body_is_kept_as_part_and_resumed(known):
    path = known("truncated")
    with pytest.raises(InputError, match=f"ended after {len(FILE) // 2} of {len(FILE)} bytes"):
        download.download("dino-vits8")
    assert not path.exists()
    known("good")
    assert download.download("dino-vits8").read_bytes() == FILE


@pytest.mark.parametrize(
    ("way", "published", "message"),
    [("good", digest(b"other"), "its sha256 is"), ("page", "", "damaged")],
)
def test_wrong_file_is_refused(known, way, published, message):
    path = known(way, digest=published)
    with pytest.raises(InputError, match=message):
        download.download("dino-vits8")
    assert [p.name for p in path.parent.iterdir()] == ["dino-vits8.lock"]


def test_mirror(server, known):
    path = known("missing", "page", "good")
    assert download.download("dino-vits8") == path
    assert [way for way, _ in server.requests] == ["missing", "page", "good"]


def test_offline_says_what_to_fetch_and_where_to_put_it(server, known):
    path = known("good")
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError) as error:
        download.download("dino-vits8")
    url = download.KNOWN["dino-vits8"].files[0][0]
    assert f"fetch {url} by hand and put it at {path}." in str(error.value)


def test_unknown_name():
    with pytest.raises(InputError, match="dino-vits16"):
        download.download("dino-vits9")


def test_known_files():
    """Names of the cache are told apart, and what may not be used commercially says so."""
    for name, source in download.KNOWN.items():
        assert source.licence == ("CC-BY-NC-4.0" if name.startswith("mae") else "Apache-2.0")
        assert all(url.startswith("https://") for url, _ in source.files)
    urls = [url for source in download.KNOWN.values() for url, _ in source.files]
    assert len(set(urls)) == len(urls) == 14
