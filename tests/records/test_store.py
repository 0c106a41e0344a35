"""Shards of records: order, damage, atomicity, what a folder says of itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_data_source import ArrayRecordDataSource
from damage import damaged
from random_trees import random_tree

from mis_jax.errors import InputError
from mis_jax.records import schema, store


def make_record(name: str = "a.png", seed: int = 0) -> schema.Record:
    image = np.random.default_rng(seed).bytes(300)
    return schema.Record(name, image, 40, 56, random_tree(seed, 5, 7))


def write(folder, shard: int, shards: int, payloads: list[bytes]) -> str:
    path = folder / store.shard_name(shard, shards)
    with store.ShardWriter(path) as writer:
        for payload in payloads:
            writer.write(payload)
        writer.commit()
    return str(path)


def test_shards_are_read_in_order(tmp_path):
    names = [f"{i}.png" for i in range(5)]
    data = [schema.encode(make_record(n, i)) for i, n in enumerate(names)]
    paths = [write(tmp_path, 2, 3, data[4:]), write(tmp_path, 0, 3, data[:4])]
    with pytest.raises(InputError, match="2 of 3 shards; finish with: mis-jax propose IMAGES"):
        store.shard_files(tmp_path)
    paths.append(write(tmp_path, 1, 3, []))
    assert store.shard_files(tmp_path) == sorted(paths)
    assert [schema.encode(r) for r in store.read_records(tmp_path)] == data
    source = ArrayRecordDataSource(store.shard_files(tmp_path))  # as the loader reads them
    assert [source[i] for i in range(len(source))] == data
    notes = [store.note_path(path) for path in paths]
    assert sorted(tmp_path.iterdir()) == sorted([*map(Path, paths), *notes])


def test_folders_without_records(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        store.shard_files(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no records; make them: mis-jax propose IMAGES"):
        store.shard_files(tmp_path)
    index = {"version": 1, "shards": 4, "images": 9, "digest": "", "settings": {}}
    store.begin(tmp_path, index | {"source": "photos"})
    with pytest.raises(InputError, match="0 of 4 shards; finish with: mis-jax propose photos --re"):
        store.shard_files(tmp_path)


def test_two_runs_in_one_folder_are_refused(tmp_path):
    write(tmp_path, 0, 1, [])
    write(tmp_path, 0, 2, [])
    with pytest.raises(InputError, match="mixes"):
        store.shard_files(tmp_path)


def test_shards_of_a_folder_that_has_grown_are_one_run_s(tmp_path):
    paths = [write(tmp_path, 0, 1, [b"a"]), write(tmp_path, 1, 3, [b"b"])]
    with pytest.raises(InputError, match="mixes"):
        store.shard_files(tmp_path)
    paths.append(write(tmp_path, 2, 3, [b"c"]))
    assert store.shard_files(tmp_path) == paths
    index = {"shards": 3, "plan": {Path(path).name: [] for path in paths}}
    (tmp_path / store.INDEX).write_text(json.dumps(index))
    assert store.shard_files(tmp_path) == paths
    write(tmp_path, 2, 4, [b"d"])
    with pytest.raises(InputError, match="mixes"):
        store.shard_files(tmp_path)


def test_the_fingerprint_is_of_the_records_and_their_order(tmp_path):
    def made(name, *shards):
        (tmp_path / name).mkdir()
        paths = [write(tmp_path / name, i, len(shards), data) for i, data in enumerate(shards)]
        return store.fingerprint(paths), paths

    one, paths = made("one", [b"a", b"b"], [b"c"])
    assert made("again", [b"a", b"b"], [b"c"])[0] == one
    others = [
        made("order", [b"b", b"a"], [b"c"])[0],
        made("shards", [b"c"], [b"a", b"b"])[0],
        made("cut", [b"ab"], [b"c"])[0],
        made("less", [b"a", b"b"], [])[0],
        made("other", [b"a", b"B"], [b"c"])[0],
    ]
    assert len({one, *others}) == 6
    _, elsewhere = made("elsewhere", [b"a", b"other"], [b"c"])
    Path(elsewhere[0]).rename(paths[0])  # without the file beside it
    assert store.fingerprint(paths) == store.fingerprint(made("same", [b"a", b"other"], [b"c"])[1])
    write(tmp_path / "one", 0, 2, [b"a", b"b"])
    for path in paths:  # as older ones are
        store.note_path(path).unlink()
    assert store.fingerprint(paths) == one
    Path(paths[1]).write_bytes(b"")
    with pytest.raises(InputError, match=r"00001-of-00002.*damaged"):
        store.fingerprint(paths)


FEW = """
import resource, sys
from mis_jax.records.store import open_shard
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
kept = []
try:
    for _ in range(99):
        kept.append(open_shard(sys.argv[1]))
except ValueError as error:
    print(type(error).__name__, error)
"""


def test_too_many_open_files_are_no_damage(tmp_path):
    path = write(tmp_path, 0, 1, [b"one"])
    run = subprocess.run([sys.executable, "-c", FEW, path], capture_output=True, text=True)
    assert run.stdout == (
        f"InputError {path} cannot be opened (Too many open files); this process may open 64: "
        "raise that with ulimit -n.\n"
    ), run.stderr


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "payload"])
def test_damaged_shards_are_named(damage, tmp_path):
    data = [np.random.default_rng(i).bytes(50_000) for i in range(4)]
    path = write(tmp_path, 0, 1, [b"nothing"] if damage == "payload" else data)
    whole = bytearray(Path(path).read_bytes())
    if damage == "flip":
        whole[120_000] ^= 1
        Path(path).write_bytes(whole)
        with pytest.raises(RuntimeError):  # or the test flips a byte that does not count
            store.open_shard(path).read_all()
    elif damage != "payload":
        os.truncate(path, 0 if damage == "empty" else 150_000)
    with pytest.raises(InputError, match=r"trees-00000-of-00001\.array_record.*delete"):
        list(store.read_records(tmp_path))


def test_500_damaged_shards(tmp_path):
    """Either all of the records, or a sentence that names the shard."""
    records = [schema.encode(make_record(f"{k}.png", k)) for k in range(5)]
    path = Path(write(tmp_path, 0, 1, records))
    whole, rng, said = path.read_bytes(), np.random.default_rng(0), []
    for _ in range(500):
        path.write_bytes(damaged(whole, rng, len(whole)))
        try:
            assert [schema.encode(record) for record in store.read_records(tmp_path)] == records
        except InputError as error:
            said.append(str(error))
    assert 100 < len(said) < 450
    assert all(str(path) in text for text in said)


def test_nothing_appears_without_commit(tmp_path):
    path = tmp_path / store.shard_name(0, 1)

    def fail():
        with store.ShardWriter(path) as writer:
            writer.write(b"one")
            assert not path.exists()
            raise KeyError("something else")

    with pytest.raises(KeyError):
        fail()
    assert not os.listdir(tmp_path)


def test_commit_clears_what_killed_runs_left(tmp_path):
    name, other = store.shard_name(0, 2), store.shard_name(1, 2)
    (tmp_path / f"{name}.0123abcd.partial").write_bytes(b"half")
    (tmp_path / f"{other}.0123abcd.partial").write_bytes(b"of another process")
    (tmp_path / f"{Path(name).stem}.json.0123abcd.partial").write_bytes(b"half")
    path = write(tmp_path, 0, 2, [b"one"])
    note = store.note_path(path).name
    assert sorted(os.listdir(tmp_path)) == [name, note, f"{other}.0123abcd.partial"]


def test_folders_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        write(tmp_path / "none", 0, 1, [b"one"])
    assert error.value.filename == str(tmp_path / "none" / store.shard_name(0, 1))


FULL = """
import os, resource, sys
from mis_jax.records.store import ShardWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    with ShardWriter(sys.argv[1]) as writer:
        for _ in range(9):
            writer.write(os.urandom(100_000))
        writer.commit()
except OSError as error:
    print(error.strerror, error.filename)
"""


def test_a_full_disk_is_an_os_error_and_leaves_nothing(tmp_path):
    path = str(tmp_path / store.shard_name(0, 1))
    run = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True)
    assert run.stdout == f"File too large {path}\n", run.stderr
    assert not os.listdir(tmp_path)


def test_begin_says_what_differs(tmp_path):
    index = {"version": 1, "shards": 2, "images": 9, "digest": "d", "source": "here"}
    index["settings"] = {"extractor": "e", "max_side": 512}
    store.begin(tmp_path / "new", index)
    assert store.read_index(tmp_path / "new") == index
    store.begin(tmp_path / "new", index | {"source": "moved"})
    for change, said in [
        ({"images": 8}, "images was 9 and is 8"),
        ({"version": 2}, "version was 1 and is 2"),
        ({"settings": {"extractor": "f", "max_side": 512}}, "extractor was e and is f"),
        ({"settings": {"extractor": "e", "max_side": 99}}, "max_side was 512 and is 99"),
        ({"digest": "x"}, "as many images"),
    ]:
        with pytest.raises(InputError, match=f"{said}.*another --records folder"):
            store.begin(tmp_path / "new", index | change)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"shards": "two"}'])
def test_a_damaged_index_is_named(text, tmp_path):
    (tmp_path / store.INDEX).write_text(text)
    with pytest.raises(InputError, match=r"propose\.json is damaged"):
        store.read_index(tmp_path)
