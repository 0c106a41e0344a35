"""input.py: the stream over real shards in a temporary folder."""

import dataclasses
import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import grain
import numpy as np
import pytest

from mis_jax import config
from mis_jax.errors import InputError
from mis_jax.proposals import tree
from mis_jax.records import schema, store
from mis_jax.training import empty_targets, input

COUNT = 11  # records, in shards of 6 and 5
PATCH = 8


def make_record(number):
    """An image whose red and green name the patch of every pixel; patches of 8 pixels."""
    rng = np.random.default_rng(number)
    h, w = rng.integers(6, 11, 2)
    rows, cols = np.mgrid[: h * PATCH, : w * PATCH] // PATCH
    image = np.stack([20 * rows + 15, 20 * cols + 15, np.full_like(rows, number)], -1)
    encoded = cv2.imencode(".png", image[..., ::-1].astype(np.uint8))[1].tobytes()
    grown = tree.build_tree(rng.normal(size=(h, w, 3)).astype(np.float32))
    return schema.Record(f"{number}.png", encoded, int(h * PATCH), int(w * PATCH), grown)


def write_shards(folder, items):
    half = (len(items) + 1) // 2
    for shard, part in enumerate((items[:half], items[half:])):
        with store.ShardWriter(folder / store.shard_name(shard, 2)) as writer:
            for item in part:
                writer.write(schema.encode(item))
            writer.commit()
    return store.shard_files(folder)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("records"), [make_record(i) for i in range(COUNT)])


def make_stream(files, **changes):
    fields = {
        **config.data(),
        "max_points": 24,
        "gamma": 0.8,
        "seed": 0,
        "batch_size": 4,
        "crop": 64,
        "threads": 0,
        **changes,
    }
    del fields["targets"]  # of the evidence network
    return input.train_stream(files, **fields)


def take(files, count, **changes):
    stream = make_stream(files, **changes)
    try:
        return [next(stream) for _ in range(count)]
    finally:
        stream.close()


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_elements(files):
    for batch in take(files, 3):
        assert {k: (v.dtype.name, v.shape) for k, v in batch.items()} == {
            "image": ("uint8", (4, 64, 64, 3)),
            "mask": ("uint8", (4, 64, 64)),
            "points": ("float32", (4, 48, 3)),
            "index": ("int32", (4,)),
        }
        assert set(np.unique(batch["mask"])) == {0, 1}


def test_clicks_lie_on_and_off_the_mask(files):
    seen = 0
    for batch in take(files, 10):
        for mask, points in zip(batch["mask"], batch["points"], strict=True):
            for row, (y, x, order) in enumerate(points):
                if order == 100:
                    assert mask[int(y), int(x)] == (row < 24)
                    seen += 1
    assert seen > 200


def test_image_and_mask_show_the_same_patches(files):
    """Wherever the crop shows the plain colour of a patch, the mask is that patch's, everywhere."""
    still = {"brightness_contrast": 0.0, "rgb_shift": 0.0}
    stream = make_stream(files, **still)
    for batch in (next(stream) for _ in range(8)):
        for image, mask, index in zip(batch["image"], batch["mask"], batch["index"], strict=True):
            inner = np.ptp(np.stack([np.roll(image, s, a) for s in (-1, 1) for a in (0, 1)]), 0)
            plain = ((image[..., 2] == index) & ~inner.any(-1))[1:-1, 1:-1]
            if not index:  # its blue is that of the outside
                plain &= image[1:-1, 1:-1, 0] > 0
            colours = image[1:-1, 1:-1][plain].astype(int)
            values = mask[1:-1, 1:-1][plain]
            for patch in np.unique(colours[:, 0] * 256 + colours[:, 1]):
                assert len(set(values[colours[:, 0] * 256 + colours[:, 1] == patch])) == 1
            assert not mask[(image == 0).all(-1) & ~inner.any(-1)].any()


def test_a_small_part_of_a_large_image_is_proposed_where_areas_are_the_crop_s(tmp_path):
    """200 patches that all differ: a crop of 3 x 3 of them, a patch of which is a ninth."""
    image = np.zeros((10 * PATCH, 20 * PATCH, 3), np.uint8)
    encoded = cv2.imencode(".png", image)[1].tobytes()
    grown = tree.build_tree(np.random.default_rng(0).normal(size=(10, 20, 3)).astype(np.float32))
    files = write_shards(tmp_path, [schema.Record("cells", encoded, 80, 160, grown)])
    still = {"flip": 0.0, "rotate90": 0.0, "shift_scale_rotate": 0.0, "scale": (1.0, 1.0)}
    still |= {"crop": 3 * PATCH, "min_object_area": 1, "batch_size": 50}
    (batch,) = take(files, 1, area_of="crop", **still)
    shares = batch["mask"].mean((1, 2))
    assert (shares > 0.05).all()
    assert (shares < 1).all()
    assert (shares < 0.2).mean() > 0.2
    (batch,) = take(files, 1, area_of="image", keep_background=0.0, **still)
    assert (batch["mask"].mean((1, 2)) == 1).mean() > 0.05  # regions larger than the crop


def test_every_epoch_shows_every_record_once_in_its_own_order(files):
    indices = np.concatenate([b["index"] for b in take(files, COUNT, batch_size=2)])
    first, second = indices.reshape(2, COUNT)
    assert sorted(first) == sorted(second) == list(range(COUNT))
    assert (first != second).any()


def test_an_image_is_cropped_anew_in_the_next_epoch(files):
    batches = take(files, 2, batch_size=COUNT)
    a, b = (batch["points"][np.argsort(batch["index"])] for batch in batches)
    assert (a != b).any((1, 2)).all()


def test_seeds_make_the_stream(files):
    assert_equal(take(files, 2)[1], take(files, 2)[1])
    assert (take(files, 1)[0]["points"] != take(files, 1, seed=1)[0]["points"]).any()


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_do_not_matter(files, threads):
    alone = take(files, 6)
    together = take(files, 6, threads=threads)
    for a, b in zip(alone, together, strict=True):
        assert_equal(a, b)


def test_hosts_share_the_samples_of_one(files):
    whole = take(files, 5)
    for count in (2, 4):
        parts = [take(files, 5, shard=(host, count), threads=2) for host in range(count)]
        for step, batch in enumerate(whole):
            hosts = [part[step] for part in parts]
            merged = {
                k: np.stack([h[k] for h in hosts], 1).reshape(v.shape) for k, v in batch.items()
            }
            assert_equal(batch, merged)


def test_state_is_one_integer_and_resumes_on_other_hosts(files):
    stream = make_stream(files, threads=2)
    for _ in range(3):
        next(stream)
    state = stream.get_state()
    assert list(state.values()) == [12]
    expected = next(stream)
    stream.close()
    halves = []
    for host in range(2):
        half = make_stream(files, shard=(host, 2))
        half.set_state(state)
        halves.append(next(half))
    merged = {k: np.stack([h[k] for h in halves], 1).reshape(v.shape) for k, v in expected.items()}
    assert_equal(expected, merged)


def test_every_state_of_a_stream_resumes(files):
    stream, batches, states = make_stream(files, threads=2), [], []
    for _ in range(5):
        states.append(stream.get_state())
        batches.append(next(stream))
    for state, batch in reversed(list(zip(states, batches, strict=True))):
        stream.set_state(state)
        assert_equal(batch, next(stream))
    stream.close()


def test_small_remains_become_an_empty_target(files):
    for batch in take(files, 3, min_object_area=64 * 64):
        whole = batch["mask"].all((1, 2))
        assert not batch["mask"][~whole].any()
        assert (batch["points"][~whole, :24] == -1).all()


def test_source_names_its_records(files):
    source = input.Source(files)
    assert len(source) == COUNT
    for index in (0, 5, 6, COUNT - 1):
        item = source[index]
        assert (item.index, item.record.id) == (index, f"{index}.png")
    assert source[6].where == f"record 0 of {files[1]}"
    assert source[5].where == f"record 5 of {files[0]}"


def test_grain_can_index_the_source(files):
    ds = grain.MapDataset.source(input.Source(files)).map(lambda item: item.record.id)
    assert list(ds) == [f"{i}.png" for i in range(COUNT)]


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("image", [b"", b"no image", "another size"])
def test_a_bad_image_is_named(tmp_path, image, threads):
    items = [make_record(i) for i in range(3)]
    if image == "another size":
        items[2] = dataclasses.replace(items[2], height=items[2].height + 8)
    else:
        items[2] = dataclasses.replace(items[2], image=image)
    files = write_shards(tmp_path, items)
    with pytest.raises(InputError, match=r"record 0 of .*00001-of-00002.*its image"):
        take(files, 3, threads=threads)


@pytest.mark.parametrize("threads", [0, 2])
def test_a_damaged_record_is_named(tmp_path, threads):
    files = write_shards(tmp_path, [make_record(i) for i in range(4)])
    data = bytearray(Path(files[1]).read_bytes())
    data[400] ^= 255  # within the first of its two records
    Path(files[1]).write_bytes(data)
    with pytest.raises(InputError, match=r"record 0 of .*00001-of-00002.* is damaged"):
        take(files, 2, threads=threads)


def test_a_cut_shard_is_named(tmp_path):
    files = write_shards(tmp_path, [make_record(i) for i in range(4)])
    data = Path(files[1]).read_bytes()
    Path(files[1]).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="00001-of-00002"):
        make_stream(files)


def write_many(folder, count: int) -> list[str]:
    """Shards of one record each."""
    folder.mkdir(exist_ok=True)
    for shard in range(count):
        with store.ShardWriter(folder / store.shard_name(shard, count)) as writer:
            writer.write(schema.encode(make_record(shard)))
            writer.commit()
    return store.shard_files(folder)


def opened(folder) -> list[str]:
    """The files of a folder that this process has open."""
    links = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    files = [os.readlink(link) for link in links if os.path.lexists(link)]
    return [file for file in files if file.startswith(str(folder))]


def test_few_shards_are_open_and_threads_share_them(tmp_path, monkeypatch):
    files = write_many(tmp_path, 12)
    alone = take(files, 6)
    monkeypatch.setattr(input, "OPEN", 3)
    gc.collect()  # the readers of the stream above
    source = input.Source(files)
    order = np.random.default_rng(0).integers(0, 12, 400)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: source[i].record.id, order))
    assert found == [f"{i}.png" for i in order]
    assert len(opened(tmp_path)) == 3
    for a, b in zip(alone, take(files, 6, threads=4), strict=True):
        assert_equal(a, b)


LIMITED = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from mis_jax.records import schema, store
from mis_jax.training import empty_targets, input
source = input.Source(store.shard_files(sys.argv[1]))
with ThreadPoolExecutor(8) as pool:
    ids = list(pool.map(lambda i: source[i % len(source)].record.id, range(3 * len(source))))
assert ids == 3 * [f"{i}.png" for i in range(len(source))], ids
assert [record.id for record in store.read_records(sys.argv[1])] == ids[: len(source)]
held = []
try:
    while True:
        held.append(open(sys.argv[0]))
except OSError:
    pass
try:
    [source[i] for i in range(len(source))]
except ValueError as error:
    print(error)
"""


def test_more_shards_than_the_process_may_open(tmp_path):
    """And where others leave none, that is said, not that the records are damaged."""
    write_many(tmp_path / "records", 110)
    script = tmp_path / "script.py"
    script.write_text(LIMITED)
    words = [sys.executable, script, tmp_path / "records"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert "Too many open files" in run.stdout, run.stderr
    assert "may open 64: raise that with ulimit -n" in run.stdout
    assert "damaged" not in run.stdout


# ---- empty targets


def write_photos(folder, *sides: int) -> list[str]:
    """Records of noise, square, of patches of 4 pixels."""
    records = []
    for number, side in enumerate(sides):
        rng = np.random.default_rng(number)
        image = rng.integers(0, 256, (side, side, 3), np.uint8)
        encoded = cv2.imencode(".png", image)[1].tobytes()
        features = rng.normal(size=(side // 4, side // 4, 3)).astype(np.float32)
        records.append(schema.Record(f"{side}.png", encoded, side, side, tree.build_tree(features)))
    folder.mkdir()
    return write_shards(folder, records)


def test_targets_that_are_looked_at_are_those_of_the_stream(files, monkeypatch):
    seen = []
    monkeypatch.setattr(
        input.empty_targets, "describe", lambda targets, *_: seen.extend(targets) or "a line"
    )
    said = []
    make_stream(files, say=said.append).close()
    assert said == ["a line"]
    assert len(seen) == 256
    batches = take(files, 64)  # of 4
    pixels = np.concatenate([batch["mask"].sum((1, 2)) for batch in batches])
    names = [f"{i}.png" for batch in batches for i in batch["index"]]
    assert [t.pixels for t in seen] == pixels.tolist()
    assert [t.id for t in seen] == names
    sizes = {item.id: (item.height, item.width) for item in map(make_record, range(COUNT))}
    assert all(t.size == sizes[t.id] for t in seen)


def test_small_photos_are_named_before_training(tmp_path):
    """The share is that of the stream; 80 pixels are 14 % of a photo of 24 pixels a side."""
    files = write_photos(tmp_path / "small", 24, 24, 200, 200)
    said = []
    make_stream(files, say=said.append, crop=256).close()
    masks = np.concatenate([b["mask"] for b in take(files, 64, crop=256)])
    share = (~masks.any((1, 2))).mean()
    assert 0.05 < share < 0.5
    (line,) = said
    assert line.startswith(f"{share:.0%} of the first 256 targets are empty, their objects")
    assert "min_object_area=80 pixels in the crop, mostly of images under 64 pixels, such" in line
    assert (
        "such as 24.png (24 x 24 pixels): leave these images out, enlarge them, or lower it" in line
    )
    make_stream(write_photos(tmp_path / "large", 200, 256), say=said.append, crop=256).close()
    assert len(said) == 1


def test_nothing_but_empty_targets_ends_the_run(tmp_path):
    files = write_photos(tmp_path / "photos", 24, 32)
    with pytest.raises(InputError, match=r"100% of the first 256 targets .*min_object_area=9999"):
        make_stream(files, min_object_area=9999, say=print)


def test_crops_that_are_empty_by_intention_are_not_reported():
    looked = [empty_targets.Target("a", (99, 99), pixels) for pixels in [0] * 30 + [500] * 70]
    assert empty_targets.describe(looked, 80, 0.3) == ""
    assert "30% of the first 100" in empty_targets.describe(looked, 80, 0.29)
    assert empty_targets.describe(looked[29:], 80, 0.02) == ""  # one of 71
    assert "mostly of images under" not in empty_targets.describe(looked, 80, 0.0)


def test_what_cannot_be_shared_is_told(files):
    with pytest.raises(InputError, match=r"batch_size 4.*3 hosts"):
        make_stream(files, shard=(0, 3))
    with pytest.raises(InputError, match="no records"):
        make_stream([])
