"""input.py: the stream over real shards in a temporary folder."""

import dataclasses
from pathlib import Path

import cv2
import grain
import numpy as np
import pytest

from mis_jax import config
from mis_jax.errors import InputError
from mis_jax.proposals import tree
from mis_jax.records import schema
from mis_jax.training import input

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
        with schema.ShardWriter(folder / schema.shard_name(shard, 2)) as writer:
            for item in part:
                writer.write(schema.encode(item))
            writer.commit()
    return schema.shard_files(folder)


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


def test_what_cannot_be_shared_is_told(files):
    with pytest.raises(InputError, match=r"batch_size 4.*3 hosts"):
        make_stream(files, shard=(0, 3))
    with pytest.raises(InputError, match="no records"):
        make_stream([])
