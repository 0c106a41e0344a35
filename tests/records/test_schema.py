"""Records and their shards: exact round trips, strictness, atomicity."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgpack
import numpy as np
import pytest
from array_record.python.array_record_data_source import ArrayRecordDataSource
from damage import damaged
from hypothesis import given, settings
from hypothesis import strategies as st

from mis_jax.errors import InputError
from mis_jax.proposals.tree import Tree
from mis_jax.records import schema


def make_tree(height: int, width: int, seed: int = 0) -> Tree:
    """Merges any two regions, as long as the result is a tree."""
    rng = np.random.default_rng(seed)
    n = height * width
    roots, merges = list(range(n)), []
    for node in range(n, 2 * n - 1):
        merges.append([roots.pop(rng.integers(len(roots))) for _ in range(2)])
        roots.append(node)
    return Tree(np.array(merges, np.int32).reshape(n - 1, 2), np.ones(n - 1), (height, width))


def make_record(name: str = "a.png", seed: int = 0) -> schema.Record:
    image = np.random.default_rng(seed).bytes(300)
    return schema.Record(name, image, 40, 56, make_tree(5, 7, seed))


def write(folder, shard: int, shards: int, payloads: list[bytes]) -> str:
    path = folder / schema.shard_name(shard, shards)
    with schema.ShardWriter(path) as writer:
        for payload in payloads:
            writer.write(payload)
        writer.commit()
    return str(path)


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(max_size=99),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 99),
)
def test_round_trip(name, image, height, width, seed):
    tree = make_tree(height, width, seed)
    data = schema.encode(schema.Record(name, image, 8 * height, 8 * width, tree))
    back = schema.decode(data)
    assert (back.id, back.image) == (name, image)
    assert (back.height, back.width, back.tree.grid) == (8 * height, 8 * width, tree.grid)
    np.testing.assert_array_equal(back.tree.merges, tree.merges)
    assert schema.encode(back) == data


def test_every_truncation_and_addition_is_refused():
    data = schema.encode(make_record())
    for length in range(len(data)):
        with pytest.raises(InputError):
            schema.decode(data[:length])
    with pytest.raises(InputError):
        schema.decode(data + b"\0")


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"height": 0},
        {"width": "56"},
        {"height": True},
        {"image": "text"},
        {"id": b"a"},
        {"tree": b"nothing"},
        {"version": None},
        {"version": [1]},
    ],
)
def test_odd_fields_are_refused(change):
    fields = msgpack.unpackb(schema.encode(make_record()))
    with pytest.raises(InputError):
        schema.decode(msgpack.packb(fields | change))


def test_missing_fields_and_other_values_are_refused():
    fields = msgpack.unpackb(schema.encode(make_record()))
    for name in fields:
        with pytest.raises(InputError):
            schema.decode(msgpack.packb({k: v for k, v in fields.items() if k != name}))
    for value in (None, 3, [1], "text"):
        with pytest.raises(InputError):
            schema.decode(msgpack.packb(value))


def test_an_unknown_version_is_named():
    fields = msgpack.unpackb(schema.encode(make_record()))
    with pytest.raises(InputError, match=r"version 7.*version 1"):
        schema.decode(msgpack.packb(fields | {"version": 7, "new": 0}))


def test_shards_are_read_in_order(tmp_path):
    names = [f"{i}.png" for i in range(5)]
    data = [schema.encode(make_record(n, i)) for i, n in enumerate(names)]
    paths = [write(tmp_path, 2, 3, data[4:]), write(tmp_path, 0, 3, data[:4])]
    with pytest.raises(InputError, match="2 of 3 shards; finish with: mis-jax propose IMAGES"):
        schema.shard_files(tmp_path)
    paths.append(write(tmp_path, 1, 3, []))
    assert schema.shard_files(tmp_path) == sorted(paths)
    assert [schema.encode(r) for r in schema.read_records(tmp_path)] == data
    source = ArrayRecordDataSource(schema.shard_files(tmp_path))  # as the loader reads them
    assert [source[i] for i in range(len(source))] == data
    notes = [schema.note_path(path) for path in paths]
    assert sorted(tmp_path.iterdir()) == sorted([*map(Path, paths), *notes])


def test_folders_without_records(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        schema.shard_files(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no records; make them: mis-jax propose IMAGES"):
        schema.shard_files(tmp_path)
    index = {"version": 1, "shards": 4, "images": 9, "digest": "", "settings": {}}
    schema.begin(tmp_path, index | {"source": "photos"})
    with pytest.raises(InputError, match="0 of 4 shards; finish with: mis-jax propose photos --re"):
        schema.shard_files(tmp_path)


def test_two_runs_in_one_folder_are_refused(tmp_path):
    write(tmp_path, 0, 1, [])
    write(tmp_path, 0, 2, [])
    with pytest.raises(InputError, match="mixes"):
        schema.shard_files(tmp_path)


def test_shards_of_a_folder_that_has_grown_are_one_run_s(tmp_path):
    paths = [write(tmp_path, 0, 1, [b"a"]), write(tmp_path, 1, 3, [b"b"])]
    with pytest.raises(InputError, match="mixes"):
        schema.shard_files(tmp_path)
    paths.append(write(tmp_path, 2, 3, [b"c"]))
    assert schema.shard_files(tmp_path) == paths
    index = {"shards": 3, "plan": {Path(path).name: [] for path in paths}}
    (tmp_path / schema.INDEX).write_text(json.dumps(index))
    assert schema.shard_files(tmp_path) == paths
    write(tmp_path, 2, 4, [b"d"])
    with pytest.raises(InputError, match="mixes"):
        schema.shard_files(tmp_path)


def test_the_fingerprint_is_of_the_records_and_their_order(tmp_path):
    def made(name, *shards):
        (tmp_path / name).mkdir()
        paths = [write(tmp_path / name, i, len(shards), data) for i, data in enumerate(shards)]
        return schema.fingerprint(paths), paths

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
    assert schema.fingerprint(paths) == schema.fingerprint(
        made("same", [b"a", b"other"], [b"c"])[1]
    )
    write(tmp_path / "one", 0, 2, [b"a", b"b"])
    for path in paths:  # as older ones are
        schema.note_path(path).unlink()
    assert schema.fingerprint(paths) == one
    Path(paths[1]).write_bytes(b"")
    with pytest.raises(InputError, match=r"00001-of-00002.*damaged"):
        schema.fingerprint(paths)


FEW = """
import resource, sys
from mis_jax.records.schema import open_shard
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
            schema.open_shard(path).read_all()
    elif damage != "payload":
        os.truncate(path, 0 if damage == "empty" else 150_000)
    with pytest.raises(InputError, match=r"trees-00000-of-00001\.array_record.*delete"):
        list(schema.read_records(tmp_path))


def test_500_damaged_shards(tmp_path):
    """Either all of the records, or a sentence that names the shard."""
    records = [schema.encode(make_record(f"{k}.png", k)) for k in range(5)]
    path = Path(write(tmp_path, 0, 1, records))
    whole, rng, said = path.read_bytes(), np.random.default_rng(0), []
    for _ in range(500):
        path.write_bytes(damaged(whole, rng, len(whole)))
        try:
            assert [schema.encode(record) for record in schema.read_records(tmp_path)] == records
        except InputError as error:
            said.append(str(error))
    assert 100 < len(said) < 450
    assert all(str(path) in text for text in said)


def test_nothing_appears_without_commit(tmp_path):
    path = tmp_path / schema.shard_name(0, 1)

    def fail():
        with schema.ShardWriter(path) as writer:
            writer.write(b"one")
            assert not path.exists()
            raise KeyError("something else")

    with pytest.raises(KeyError):
        fail()
    assert not os.listdir(tmp_path)


def test_commit_clears_what_killed_runs_left(tmp_path):
    name, other = schema.shard_name(0, 2), schema.shard_name(1, 2)
    (tmp_path / f"{name}.0123abcd.partial").write_bytes(b"half")
    (tmp_path / f"{other}.0123abcd.partial").write_bytes(b"of another process")
    (tmp_path / f"{Path(name).stem}.json.0123abcd.partial").write_bytes(b"half")
    path = write(tmp_path, 0, 2, [b"one"])
    note = schema.note_path(path).name
    assert sorted(os.listdir(tmp_path)) == [name, note, f"{other}.0123abcd.partial"]


def test_folders_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        write(tmp_path / "none", 0, 1, [b"one"])
    assert error.value.filename == str(tmp_path / "none" / schema.shard_name(0, 1))


FULL = """
import os, resource, sys
from mis_jax.records.schema import ShardWriter
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
    path = str(tmp_path / schema.shard_name(0, 1))
    run = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True)
    assert run.stdout == f"File too large {path}\n", run.stderr
    assert not os.listdir(tmp_path)


def test_begin_says_what_differs(tmp_path):
    index = {"version": 1, "shards": 2, "images": 9, "digest": "d", "source": "here"}
    index["settings"] = {"extractor": "e", "max_side": 512}
    schema.begin(tmp_path / "new", index)
    assert schema.read_index(tmp_path / "new") == index
    schema.begin(tmp_path / "new", index | {"source": "moved"})
    for change, said in [
        ({"images": 8}, "images was 9 and is 8"),
        ({"version": 2}, "version was 1 and is 2"),
        ({"settings": {"extractor": "f", "max_side": 512}}, "extractor was e and is f"),
        ({"settings": {"extractor": "e", "max_side": 99}}, "max_side was 512 and is 99"),
        ({"digest": "x"}, "as many images"),
    ]:
        with pytest.raises(InputError, match=f"{said}.*another --records folder"):
            schema.begin(tmp_path / "new", index | change)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"shards": "two"}'])
def test_a_damaged_index_is_named(text, tmp_path):
    (tmp_path / schema.INDEX).write_text(text)
    with pytest.raises(InputError, match=r"propose\.json is damaged"):
        schema.read_index(tmp_path)
