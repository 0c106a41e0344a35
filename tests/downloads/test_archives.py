"""Evaluation sets from archives that a loopback server sends: good ones, and all kinds of bad."""

import dataclasses
import hashlib
import http.server
import io
import shutil
import tarfile
import threading
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from mis_jax import cli
from mis_jax.datasets import benchmarks
from mis_jax.downloads import archives
from mis_jax.downloads.fetch import File
from mis_jax.errors import InputError

PNG = cv2.imencode(".png", np.full((18, 20, 3), 255, np.uint8))[1].tobytes()
JPG = cv2.imencode(".jpg", np.full((18, 20, 3), 90, np.uint8))[1].tobytes()
GRABCUT = {f"GrabCut/data_GT/{n}.jpg": JPG for n in "abc"}
GRABCUT |= {f"GrabCut/boundary_GT/{n}.bmp": PNG for n in "abc"}


def labels():
    inst = np.empty((1, 1), [(f, object) for f in ("Segmentation", "Boundaries", "Categories")])
    inst[0, 0] = (np.eye(18, 20, dtype=np.uint8), np.zeros(2), np.zeros(2))
    file = io.BytesIO()
    scipy.io.savemat(file, {"GTinst": inst})
    return file.getvalue()


SBD = {f"benchmark_RELEASE/dataset/img/{n}.jpg": JPG for n in ("2008_2", "2008_1", "2008_9")}
SBD |= {f"benchmark_RELEASE/dataset/inst/{n}.mat": labels() for n in ("2008_2", "2008_1")}
SBD |= {"benchmark_RELEASE/dataset/val.txt": b"2008_2\n2008_1\n"}
SBD |= {"benchmark_RELEASE/dataset/train.txt": b"2008_9\n"}
OTHERS = {"benchmark_RELEASE/README": b"?", "benchmark_RELEASE/dataset/cls/2008_2.mat": b"?"}


def zipped(files, links=()):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            if name in links:
                info.external_attr = 0o120777 << 16
            archive.writestr(info, content)
    return data.getvalue()


def tarred(files, links=()):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if name in links:
                info.type, info.linkname, info.size = links[name], "/etc/passwd", 0
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files[path]`, or only half of it where the path starts with /half."""

    def do_GET(self):
        self.server.requests.append((self.path, self.headers["Range"]))
        body = self.server.files.get(self.path)
        if body is None:
            return self.send_error(404)
        start = int((self.headers["Range"] or "bytes=0-")[6:-1])
        if start and start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = len(body) // 2 if self.path.startswith("/half") else None
        self.wfile.write(body[start:end])

    def log_message(self, *_): ...


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("MIS_JAX_CACHE", str(tmp_path / "cache"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.requests = {}, []
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def publish(server, monkeypatch, tmp_path):
    """Makes set `name` of `pairs` pairs come from archives at the given paths."""

    def make(name, pairs, archives_at, digest=""):
        url = f"http://127.0.0.1:{server.server_port}"
        server.files = archives_at
        files = tuple(File(url + path, digest) for path in archives_at)
        source = dataclasses.replace(archives.SETS[name], files=files, pairs=pairs)
        monkeypatch.setitem(archives.SETS, name, source)
        return tmp_path / "cache" / name

    return make


def left(folder):
    """What lies in the cache folder beside the lock."""
    return sorted(p.name for p in folder.parent.iterdir() if p.suffix != ".lock")


def test_a_set_is_downloaded_once_and_can_be_opened(server, publish, capfd):
    folder = publish("grabcut", 3, {"/GrabCut.zip": zipped(GRABCUT)})
    with pytest.raises(InputError, match=r"mis-jax download grabcut fetches it"):
        benchmarks.default_folder("GrabCut")
    assert archives.find("grabcut") is None
    assert archives.download("grabcut") == folder == archives.find("grabcut")
    assert benchmarks.default_folder("GrabCut") == folder
    opened = benchmarks.open_benchmark("GrabCut", folder)
    assert [s.id for s in opened] == ["a", "b", "c"]
    assert left(folder) == ["grabcut"]
    assert "verified by its 3 images with their masks" in capfd.readouterr().err
    assert archives.download("grabcut") == folder
    assert len(server.requests) == 1


def test_sbd(server, publish):
    data = tarred({**OTHERS, **SBD}, {"benchmark_RELEASE/README": tarfile.SYMTYPE})
    digest = f"md5:{hashlib.md5(data).hexdigest()}"
    folder = publish("sbd", 2, {"/benchmark.tgz": data}, digest)
    assert archives.download("sbd") == folder
    assert sorted(p.name for p in folder.iterdir()) == ["img", "inst", "train.txt", "val.txt"]
    assert [s.id for s in benchmarks.open_benchmark("sbd", folder)] == ["2008_2_1", "2008_1_1"]
    assert left(folder) == ["sbd"]


@pytest.mark.parametrize("root", ["", "DAVIS345/", "a/b/"])
def test_the_folders_may_lie_anywhere(publish, root):
    files = {f"{root}img/0.jpg": JPG, f"{root}gt/0.png": PNG, f"__MACOSX/{root}img/._0.jpg": b"?"}
    files |= {f"{root}img/.DS_Store": b"?"}
    files |= {f"{root}old/img/1.jpg": b"?", f"{root}old/gt/1.png": b"?"}
    folder = publish("davis", 1, {"/DAVIS.zip": zipped(files)})
    archives.download("davis")
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*")) == [
        "gt/0.png",
        "img/0.jpg",
    ]


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]


BAD = {
    "a page": (b"<html>sign in first</html>", "no archive that can be read"),
    "nothing": (b"", "no archive that can be read"),
    "a cut-off end": (zipped(GRABCUT)[:-30], "no archive that can be read"),
    "damaged": (flipped(zipped(GRABCUT), len(zipped(GRABCUT)) // 2), "no archive that can be read"),
    "a missing mask": (
        zipped({k: v for k, v in GRABCUT.items() if k != "GrabCut/boundary_GT/b.bmp"}),
        "it has 2 images with masks, not 3",
    ),
    "other folders": (
        zipped({k.replace("data_GT", "images"): v for k, v in GRABCUT.items()}),
        "no data_GT, boundary_GT together",
    ),
    "a way out": (zipped({**GRABCUT, "../../evil.jpg": JPG}), "leads out of it"),
    "a hidden way out": (zipped({**GRABCUT, "GrabCut/data_GT/../../../e.jpg": JPG}), "leads out"),
    "an absolute path": (zipped({**GRABCUT, "/tmp/evil.jpg": JPG}), "leads out of it"),
    "a drive": (zipped({**GRABCUT, "C:/evil.jpg": JPG}), "leads out of it"),
    "a backslash": (zipped({**GRABCUT, "..\\evil.jpg": JPG}), "leads out of it"),
    "a link": (zipped(GRABCUT, ["GrabCut/data_GT/a.jpg"]), "is a link"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_wrong_archive_is_refused_and_removed(publish, what, tmp_path):
    data, message = BAD[what]
    before = {p for p in tmp_path.rglob("*") if "cache" not in p.parts}
    folder = publish("grabcut", 3, {"/GrabCut.zip": data})
    with pytest.raises(InputError, match=message) as error:
        archives.download("grabcut")
    assert f"put it at {folder.parent / 'GrabCut.zip'} and run mis-jax" in str(error.value)
    assert left(folder) == []
    assert {p for p in tmp_path.rglob("*") if "cache" not in p.parts} == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tarred(SBD)[:-200], "no archive that can be read"),
        (lambda: tarred({**SBD, "../evil": b""}), "leads out of it"),
        (lambda: tarred(SBD, {next(iter(SBD)): tarfile.SYMTYPE}), "is a link or no plain file"),
        (lambda: tarred(SBD, {next(iter(SBD)): tarfile.LNKTYPE}), "is a link or no plain file"),
        (lambda: tarred(SBD, {next(iter(SBD)): tarfile.FIFOTYPE}), "is a link or no plain file"),
        (lambda: tarred({k: v for k, v in SBD.items() if "2008_1.j" not in k}), "has 1 images"),
    ],
)
def test_a_wrong_tar_is_refused(publish, make, message):
    folder = publish("sbd", 2, {"/benchmark.tgz": make()})
    with pytest.raises(InputError, match=message):
        archives.download("sbd")
    assert left(folder) == []


def test_two_members_of_a_name_and_too_much_are_refused(publish, monkeypatch):
    data = io.BytesIO(zipped(GRABCUT))
    with zipfile.ZipFile(data, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("GrabCut/data_GT/a.jpg", JPG)
    publish("grabcut", 3, {"/GrabCut.zip": data.getvalue()})
    with pytest.raises(InputError, match="two members"):
        archives.download("grabcut")
    monkeypatch.setattr(archives, "MOST_BYTES", 1000)
    publish("grabcut", 3, {"/GrabCut.zip": zipped(GRABCUT)})
    with pytest.raises(InputError, match="unpacks to more than"):
        archives.download("grabcut")


def test_another_digest_is_refused_and_a_mirror_used(server, publish):
    data = zipped(GRABCUT)
    digest = f"md5:{hashlib.md5(data).hexdigest()}"
    other = zipped({**GRABCUT, "GrabCut/x": b""})
    folder = publish("grabcut", 3, {"/GrabCut.zip": other, "/missing": None, "/2": data}, digest)
    assert archives.download("grabcut") == folder
    assert server.requests == [("/GrabCut.zip", None), ("/missing", None), ("/2", None)]
    assert left(folder) == ["grabcut"]


def test_a_killed_download_goes_on(server, publish):
    data = zipped(GRABCUT)
    folder = publish("grabcut", 3, {"/half/GrabCut.zip": data})
    with pytest.raises(InputError, match=f"ended after {len(data) // 2} of {len(data)} bytes"):
        archives.download("grabcut")
    assert left(folder) == ["GrabCut.zip.part"]
    publish("grabcut", 3, {"/GrabCut.zip": data})
    assert archives.download("grabcut") == folder
    assert server.requests[-1] == ("/GrabCut.zip", f"bytes={len(data) // 2}-")
    assert left(folder) == ["grabcut"]


def test_what_was_killed_while_it_unpacked_is_unpacked_again(server, publish):
    folder = publish("grabcut", 3, {"/GrabCut.zip": zipped(GRABCUT)})
    rest = folder.with_name(".grabcut.partial") / "data_GT"
    rest.mkdir(parents=True)
    (rest / "z.jpg").write_bytes(JPG)
    folder.with_name("GrabCut.zip").write_bytes(zipped(GRABCUT))
    assert archives.download("grabcut") == folder
    assert server.requests == []
    assert sorted(p.name for p in (folder / "data_GT").iterdir()) == ["a.jpg", "b.jpg", "c.jpg"]
    assert left(folder) == ["GrabCut.zip", "grabcut"]


@pytest.mark.parametrize("killed", ["_check", "rename"])
def test_nothing_is_half_installed(server, publish, monkeypatch, killed):
    folder = publish("grabcut", 3, {"/GrabCut.zip": zipped(GRABCUT)})

    def kill(*_):
        assert not folder.exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(archives if killed == "_check" else Path, killed, kill)
        with pytest.raises(KeyboardInterrupt):
            archives.download("grabcut")
    assert left(folder) == ["GrabCut.zip"]  # verified, and used the next time
    assert archives.download("grabcut") == folder
    assert len(server.requests) == 1


def test_an_archive_put_there_by_hand_is_used_offline(server, publish):
    folder = publish("grabcut", 3, {"/GrabCut.zip": zipped(GRABCUT)})
    url = archives.SETS["grabcut"].files[0].url
    server.shutdown()
    server.server_close()
    archive = folder.with_name("GrabCut.zip")
    with pytest.raises(InputError, match=f"fetch {url} by hand, put it at {archive} and"):
        archives.download("grabcut")
    archive.write_bytes(b"something else")
    with pytest.raises(InputError, match=r"GrabCut\.zip is no archive of grabcut .*; remove it"):
        archives.download("grabcut")
    assert left(folder) == ["GrabCut.zip"]  # it is the user's
    archive.write_bytes(zipped(GRABCUT))
    publish("grabcut", 3, {"/GrabCut.zip": b""}, "md5:0")
    with pytest.raises(InputError, match=r"no archive of grabcut \(its md5 is .*; remove it"):
        archives.download("grabcut")
    publish("grabcut", 3, {"/GrabCut.zip": b""})
    assert archives.download("grabcut") == folder
    assert left(folder) == ["GrabCut.zip", "grabcut"]


def test_a_folder_that_lost_files_is_said_and_left_alone(publish):
    folder = publish("grabcut", 3, {"/GrabCut.zip": zipped(GRABCUT)})
    archives.download("grabcut")
    (folder / "data_GT" / "b.jpg").unlink()
    with pytest.raises(InputError, match=r"not the whole set grabcut \(it has 2 images"):
        archives.download("grabcut")
    assert (folder / "data_GT" / "a.jpg").is_file()
    shutil.rmtree(folder / "boundary_GT")
    with pytest.raises(InputError, match=r"no folder boundary_GT, which .*; it has data_GT"):
        archives.download("grabcut")


def test_a_cache_that_is_a_file_is_said(publish, tmp_path):
    publish("grabcut", 3, {"/GrabCut.zip": zipped(GRABCUT)})
    (tmp_path / "cache").write_text("")
    with pytest.raises(InputError, match="set MIS_JAX_CACHE to another folder"):
        archives.download("grabcut")


def test_command(publish, capsys, tmp_path):
    folder = publish("grabcut", 3, {"/GrabCut.zip": zipped(GRABCUT)})
    assert cli.command(["download", "grabcut"]) == 0
    line = f"grabcut: --datasets grabcut={folder} (no licence stated)\n"
    assert capsys.readouterr().out == line
    assert cli.command(["download"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert "there" in next(x for x in listed if x.strip().startswith("grabcut"))
    assert "there" not in next(x for x in listed if x.strip().startswith("davis"))
    other = tmp_path / "other"
    assert cli.command(["download", "grabcut", str(other)]) == 0
    assert f"grabcut={other / 'grabcut'} (" in capsys.readouterr().out
    assert len(benchmarks.open_benchmark("grabcut", other / "grabcut")) == 3


def test_known_sets():
    """Every set that has an expected size can be downloaded, over https first."""
    assert list(archives.SETS) == list(benchmarks.EXPECTED)
    for name, source in archives.SETS.items():
        assert source.files[0].url.startswith("https://")
        assert source.pairs == {**benchmarks.EXPECTED, "sbd": 2857}[name]
    with pytest.raises(InputError, match="mine=FOLDER"):
        benchmarks.default_folder("mine")
