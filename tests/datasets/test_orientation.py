"""orientation: masks drawn before and after the EXIF rotation, against Pillow's own turning."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from mis_jax.datasets import orientation
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
