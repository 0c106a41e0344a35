"""The saved list of SBD's labels is as good as reading them, or not used."""

import json
import os

import numpy as np
import pytest
import scipy.io

from mis_jax.datasets import sbd
from mis_jax.errors import InputError


def write(path, values):
    inst = np.empty((1, 1), [(f, object) for f in ("Segmentation", "Boundaries", "Categories")])
    inst[0, 0] = (np.array(values, np.uint8), np.zeros(2), np.zeros(2))
    scipy.io.savemat(path, {"GTinst": inst}, do_compression=True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three files, and a cache folder that takes what was written just now."""
    monkeypatch.setenv("MIS_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sbd, "SETTLED", 0)
    monkeypatch.setattr(sbd, "WORTH_SAVING", 1)
    inst = tmp_path / "inst"
    inst.mkdir()
    write(inst / "b.mat", [[0, 5], [2, 2]])
    write(inst / "a.mat", [[0, 0], [0, 0]])
    write(inst / "c.mat", [[255, 1], [1, 1]])
    return inst


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that were read."""
    names, read = [], sbd.segmentation

    def spy(path):
        names.append(path.stem)
        return read(path)

    monkeypatch.setattr(sbd, "segmentation", spy)
    return names


NAMES = ["b", "a", "c"]
LABELS = {"b": [2, 5], "a": [], "c": [1, 255]}


def saved(folder):
    (cache,) = (folder.parent / "cache").iterdir()
    return cache


def test_labels_are_read_once(folder, reads):
    for _ in range(2):
        found, skipped = sbd.list_labels(folder, NAMES)
        assert (found, list(found), skipped) == (LABELS, NAMES, {})
    assert reads == NAMES
    assert sorted(p.name for p in folder.iterdir()) == ["a.mat", "b.mat", "c.mat"]
    found, _ = sbd.list_labels(folder, ["c", "b", "c"])
    assert list(found.items()) == [("c", [1, 255]), ("b", [2, 5])]
    assert reads == NAMES


def test_a_file_that_changed_is_read_again(folder, reads):
    sbd.list_labels(folder, NAMES)
    stat = (folder / "b.mat").stat()
    write(folder / "b.mat", [[0, 6], [3, 3]])
    os.utime(folder / "b.mat", ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as rsync does
    assert (folder / "b.mat").stat().st_size == stat.st_size
    found, _ = sbd.list_labels(folder, NAMES)
    assert found == {**LABELS, "b": [3, 6]}
    assert reads == [*NAMES, "b"]
    (folder / "a.mat").unlink()
    found, skipped = sbd.list_labels(folder, NAMES)
    assert (list(found), list(skipped)) == (["b", "c"], ["a"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-5],
        lambda text: text.replace("[2, 5]", "[2, 4]"),
        lambda text: json.dumps({**json.loads(text), "digest": "0"}),
        lambda text: "[]",
        lambda text: '{"digest": 1, "entries": {"a": 3}}',
        lambda text: "\udcff",
    ],
)
def test_a_damaged_list_is_not_trusted(folder, reads, damage):
    sbd.list_labels(folder, NAMES)
    cache = saved(folder)
    text = damage(cache.read_text())
    cache.write_bytes(text.encode(errors="surrogateescape"))
    found, _ = sbd.list_labels(folder, NAMES)
    assert found == LABELS
    assert reads == NAMES * 2
    sbd.list_labels(folder, NAMES)
    assert reads == NAMES * 2


def test_fresh_files_few_files_and_a_closed_cache_are_not_saved(folder, monkeypatch):
    monkeypatch.setattr(sbd, "WORTH_SAVING", 4)
    sbd.list_labels(folder, NAMES)
    assert not (folder.parent / "cache").exists()
    monkeypatch.setattr(sbd, "WORTH_SAVING", 1)
    (folder.parent / "cache").write_text("a file")
    assert sbd.list_labels(folder, NAMES)[0] == LABELS
    (folder.parent / "cache").unlink()
    monkeypatch.setattr(sbd, "SETTLED", 3600 * 10**9)
    sbd.list_labels(folder, NAMES)
    assert json.loads(saved(folder).read_text())["entries"] == {}


def test_files_that_are_none(folder):
    (folder / "x.mat").write_bytes(b"no such thing")
    scipy.io.savemat(folder / "y.mat", {"GTinst": np.zeros(3)})
    scipy.io.savemat(folder / "z.mat", {"GTcls": np.zeros(3)})
    _, skipped = sbd.list_labels(folder, ["x", "b", "y", "z", "w"])
    assert list(skipped) == ["x", "y", "z", "w"]
    assert all("SBD instance file" in reason for reason in skipped.values())
    with pytest.raises(InputError, match=r"y\.mat"):
        sbd.segmentation(folder / "y.mat")


def test_names_that_no_file_can_have(folder):
    names = ["x" * 300, "x\0", "b"]
    found, skipped = sbd.list_labels(folder, names)
    assert found == {"b": [2, 5]}
    assert all("not a readable SBD instance file" in skipped[name] for name in names[:2])
