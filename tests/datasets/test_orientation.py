"""orientation: masks drawn before and after the EXIF rotation, against Pillow's own turning."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mis_jax.datasets import orientation
from mis_jax.datasets.benchmarks import open_benchmark
from mis_jax.datasets.images import Picture
from mis_jax.datasets.reading import Reading

STORED = np.arange(6, dtype=np.int32).reshape(2, 3)


def turned_by_pillow(stored, tag):
    picture = Image.fromarray(stored.astype(np.uint8))
    picture.getexif()[0x0112] = tag
    return np.asarray(ImageOps.exif_transpose(picture)).astype(stored.dtype)


@pytest.mark.parametrize("tag", range(1, 9))
def test_pixels_are_turned_as_pillow_turns_them(tag):
    np.testing.assert_array_equal(orientation.upright(STORED, tag), turned_by_pillow(STORED, tag))


@pytest.mark.parametrize("tag", range(1, 9))
def test_a_mask_that_fits_only_the_stored_photo_is_turned_along(tag):
    upright = turned_by_pillow(STORED, tag)
    picture = Picture(np.stack([upright] * 3, -1).astype(np.uint8), tag, ("odd",))
    found = orientation.aligned(picture, STORED, Reading())
    if tag == 1:
        assert found.notes == ("odd",)
    elif tag > 4:
        np.testing.assert_array_equal(found.mask, upright)
        assert found.notes == ("odd", orientation.TURNED)
    else:
        np.testing.assert_array_equal(found.mask, STORED)
        assert found.notes == ("odd", orientation.OPEN)
    drawn = orientation.aligned(picture, upright, Reading())
    np.testing.assert_array_equal(drawn.mask, upright)
    assert orientation.TURNED not in drawn.notes


@pytest.mark.parametrize("tag", range(2, 9))
@pytest.mark.parametrize("word", ["stored", "upright"])
def test_where_both_fit_the_user_says_which(tag, word):
    square = np.arange(9, dtype=np.int32).reshape(3, 3)
    upright = turned_by_pillow(square, tag)
    picture = Picture(np.stack([upright] * 3, -1).astype(np.uint8), tag)
    found = orientation.aligned(picture, square, Reading(masks=frozenset({word})))
    np.testing.assert_array_equal(found.mask, upright if word == "stored" else square)
    assert found.notes == ((orientation.TURNED,) if word == "stored" else ())


def test_a_mask_of_another_size_is_left_for_the_check_of_sizes():
    picture = Picture(np.zeros((5, 4, 3), np.uint8), 6)
    assert orientation.aligned(picture, STORED, Reading()).mask.shape == STORED.shape


# ---- files, through open_benchmark

SIZES = [(20, 32), (24, 24)]


def tagged(pixels, path, tag):
    """Writes pixels as stored, with an EXIF tag, or without one for 1."""
    path.parent.mkdir(exist_ok=True)
    picture = Image.fromarray(pixels)
    if tag != 1:
        picture.getexif()[0x0112] = tag
    picture.save(path, exif=picture.getexif())


def corners(shape):
    """A mask that no turn leaves as it is."""
    mask = np.zeros(shape, np.uint8)
    mask[:5, :9] = mask[-3:, :2] = 255
    return mask


def read(folder, *words):
    benchmark = open_benchmark("mine", folder, Reading(masks=frozenset(words)))
    (sample,) = benchmark
    return sample, benchmark.notes.get("a", ())


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("size", SIZES)
def test_masks_of_turned_photos_in_files(tmp_path, suffix, size):
    """A mask on the stored pixels or on the seen ones comes out on the seen ones, or is noted."""
    for tag in range(1, 9):
        stored = corners(size)
        seen = turned_by_pillow(stored, tag)
        tagged(np.dstack([stored] * 3), tmp_path / "images" / f"a.{suffix}", tag)
        for drawn, pixels in (("stored", stored), ("upright", seen)):
            tagged(pixels, tmp_path / "masks" / "a.png", 1)
            sample, notes = read(tmp_path)
            assert sample.image.shape[:2] == seen.shape
            if tag == 1 or (tag > 4 and size[0] != size[1]):
                np.testing.assert_array_equal(sample.mask, seen > 0)
                assert notes == ((orientation.TURNED,) if tag > 1 and drawn == "stored" else ())
            else:
                np.testing.assert_array_equal(sample.mask, pixels > 0)
                assert notes == (orientation.OPEN,)
            sample, _ = read(tmp_path, drawn)
            np.testing.assert_array_equal(sample.mask, seen > 0)
            close = np.abs(sample.image[..., 0].astype(int) - 255 * sample.mask) < 120
            assert close.mean() > 0.98  # photo and mask are of one picture


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("photo_tag", [1, 6])
def test_masks_with_a_tag_of_their_own(tmp_path, suffix, size, photo_tag):
    """A tool that copies the photo's tag, or writes one: as every viewer shows the mask."""
    for tag in range(2, 9):
        seen = corners(size)
        photo = orientation.as_stored(np.dstack([seen] * 3), photo_tag)
        tagged(photo, tmp_path / "images" / "a.png", photo_tag)
        tagged(orientation.as_stored(seen, tag), tmp_path / "masks" / f"a.{suffix}", tag)
        sample, notes = read(tmp_path)
        np.testing.assert_array_equal(sample.mask, seen > 0)
        assert notes == (orientation.OWN,)
        if tag > 4 and size[0] != size[1]:  # the tag was kept, but the pixels were turned
            tagged(seen, tmp_path / "masks" / f"a.{suffix}", tag)
            sample, notes = read(tmp_path)
            np.testing.assert_array_equal(sample.mask, seen > 0)
            assert notes == (orientation.NOT_OWN,)


def test_the_user_is_heard_before_a_tag_of_the_masks_own(tmp_path):
    stored = corners((20, 32))
    tagged(np.dstack([stored] * 3), tmp_path / "images" / "a.png", 3)
    tagged(stored, tmp_path / "masks" / "a.png", 2)
    np.testing.assert_array_equal(read(tmp_path, "stored")[0].mask, stored[::-1, ::-1] > 0)
    np.testing.assert_array_equal(read(tmp_path, "upright")[0].mask, stored > 0)


@given(
    tag=st.integers(1, 8), height=st.integers(1, 5), width=st.integers(1, 5), seed=st.integers(0, 9)
)
def test_as_stored_undoes_upright(tag, height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    np.testing.assert_array_equal(turned_by_pillow(orientation.as_stored(pixels, tag), tag), pixels)
    back = orientation.as_stored(orientation.upright(pixels, tag), tag)
    np.testing.assert_array_equal(back, pixels)
