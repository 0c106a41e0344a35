"""Labelled objects of an image: their bytes, records, draws, and SBD's rule."""

import struct
import zlib

import numpy as np
import pytest

from mis_jax.datasets import objects
from mis_jax.datasets.objects import Objects
from mis_jax.errors import InputError
from mis_jax.records import schema


def some_objects(kind="u1", seed=0):
    """Labels 0, 1, 3 and 300 or 200 in blocks of 8 x 8 pixels."""
    values = np.array([0, 1, 3, 300 if kind == "u2" else 200], kind)
    return Objects(np.random.default_rng(seed).choice(values, (5, 7)).repeat(8, 0).repeat(8, 1))


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_a_record_of_objects_comes_back(kind):
    labels = some_objects(kind)
    data = schema.encode(schema.Record("a", b"image", 40, 56, labels))
    back = schema.decode(data)
    assert (back.id, back.image, back.height, back.width) == ("a", b"image", 40, 56)
    assert back.tree.labels.dtype == labels.labels.dtype
    np.testing.assert_array_equal(back.tree.labels, labels.labels)
    assert schema.encode(back) == data


def test_damaged_objects_are_refused():
    data = some_objects().to_bytes()
    for length in range(len(data)):
        with pytest.raises(InputError, match="damaged"):
            Objects.from_bytes(data[:length])
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(InputError, match="damaged"):
            Objects.from_bytes(bytes(changed))
    for labels in (np.zeros((4, 4), "u1"), np.ones((4, 4), "i4"), np.ones(4, "u1")):
        with pytest.raises(InputError, match="labels"):
            Objects(labels)


def test_objects_are_drawn_alike_unless_too_small():
    labels = np.zeros((10, 10), np.uint8)
    labels[0, :2], labels[1, :4], labels[2:8] = 5, 7, 9  # 2, 4 and 60 % of the image
    rng, found = np.random.default_rng(0), Objects(labels)
    draw = lambda **limits: [found.sample(rng, **limits) for _ in range(600)]  # noqa: E731
    counts = np.bincount(draw(), minlength=10)
    assert counts.sum() == counts[[5, 7, 9]].sum()
    assert (counts[[5, 7, 9]] > 150).all()
    assert set(draw(min_area=0.02)) == {7, 9}  # at most this is too small
    assert set(draw(min_area=0.9)) == {5, 7, 9}  # all are
    seen = np.zeros((10, 10), int)
    seen[0], seen[9] = 3, 1
    assert set(draw(weights=seen.ravel())) == {5}
    assert set(draw(weights=np.zeros(100, int))) == {5, 7, 9}
    np.testing.assert_array_equal(found.mask(7), labels == 7)


def test_objects_that_fill_little_of_their_box_are_none():
    labels = np.zeros((100, 100), np.uint8)
    labels[:50, 0] = labels[0, :50] = 1  # 99 of 2500 pixels
    labels[60:72, 60:62] = 2
    labels[90:, 0] = labels[99, :20] = 3  # 29 of 200 pixels
    assert set(np.unique(objects.without_buggy(labels))) == {0, 2, 3}
    assert set(np.unique(objects.without_buggy(labels, 0.2))) == {0, 2}
    exact = np.zeros((10, 10), np.uint8)
    exact[0, :4] = exact[9, 6:] = 1  # exactly 0.08
    assert objects.without_buggy(exact).any()
    exact[0, 1] = 0
    assert not objects.without_buggy(exact).any()


def overlapping(seed, count, shape=(30, 40)):
    """Masks of boxes, any of which may overlap."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, *shape), bool)
    for mask in masks:
        y, x = rng.integers(0, shape[0] - 1), rng.integers(0, shape[1] - 1)
        mask[y : y + rng.integers(1, 12), x : x + rng.integers(1, 12)] = True
    return masks


@pytest.mark.parametrize(("seed", "count"), [(0, 1), (1, 7), (2, 40), (3, 300)])
def test_objects_that_overlap_are_kept_whole(seed, count):
    truth = overlapping(seed, count)
    found = Objects.of(truth)
    assert (found.grid, found.count) == ((30, 40), count)
    assert found.labels.dtype == (np.uint8 if count < 256 else np.uint16)
    for label, mask in enumerate(truth, 1):
        np.testing.assert_array_equal(found.mask(label), mask)
    record = schema.Record("a", b"image", 30, 40, found)
    back = schema.decode(schema.encode(record))
    np.testing.assert_array_equal(back.tree.labels, found.labels)
    assert back.tree.labels.dtype == found.labels.dtype
    deepest = truth.sum(0).max()
    assert deepest <= len(found.labels.reshape(-1, 30, 40)) <= count


def test_objects_apart_are_one_map():
    """As they always were, byte for byte."""
    masks = np.zeros((3, 8, 9), bool)
    masks[0, :2], masks[1, 4, 3:], masks[2, 7] = True, True, True
    found = Objects.of(masks)
    labels = masks[0] + 2 * masks[1].astype(np.uint8) + 3 * masks[2].astype(np.uint8)
    np.testing.assert_array_equal(found.labels, labels)
    body = zlib.compress(labels.tobytes(), 6)
    header = struct.pack("<4sBIII", b"MOBJ", 1, 8, 9, 0)
    checksum = zlib.crc32(body, zlib.crc32(header))
    assert found.to_bytes() == header[:-4] + struct.pack("<I", checksum) + body
    np.testing.assert_array_equal(Objects.from_bytes(found.to_bytes()).labels, labels)


def test_layers_are_drawn_alike_and_by_their_share_of_the_image():
    masks = np.zeros((3, 10, 10), bool)
    masks[0, :2], masks[1, 1:7], masks[2] = True, True, True  # 20, 60 and 100 %
    rng, found = np.random.default_rng(0), Objects.of(masks)
    assert found.labels.ndim == 3
    draw = lambda **limits: [found.sample(rng, **limits) for _ in range(600)]  # noqa: E731
    assert (np.bincount(draw())[1:] > 150).all()
    assert set(draw(min_area=0.2)) == {2, 3}
    assert set(draw(min_area=0.6)) == {3}
    assert set(draw(min_area=1.0)) == {1, 2, 3}
    seen = np.zeros((10, 10))
    seen[0] = 2.5
    assert set(draw(weights=seen.ravel())) == {1, 3}


def test_no_masks_are_no_objects():
    for masks in ([], [np.zeros((4, 4), bool)]):
        with pytest.raises(InputError):
            Objects.of(masks)
    with pytest.raises(InputError, match="labels"):
        Objects(np.zeros((2, 4, 4), np.uint8))


def test_damaged_layers_are_refused():
    data = Objects.of(overlapping(2, 40)).to_bytes()
    for place in range(0, len(data), 3):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(InputError, match="damaged"):
            Objects.from_bytes(bytes(changed))
