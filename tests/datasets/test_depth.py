"""Values of more than 8 bits -> 8, against the rule in plain NumPy, in every file they come in."""

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from image_files import encoded, picture, png, saved, tiff
from PIL import Image

from mis_jax.config import check, default
from mis_jax.datasets import depth, images
from mis_jax.datasets.reading import Reading
from mis_jax.errors import InputError


def stretched(values, low, high):
    """Linear in double precision."""
    part = (np.asarray(values, np.float64) - low) / (high - low)
    return np.round(np.clip(part, 0, 1) * 255)


def percentiles(values):
    return np.percentile(np.asarray(values, np.float64), [0.1, 99.9])


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_give_their_high_byte(suffix, channels):
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30, channels), dtype=np.uint16)
    deep[0, 0], deep[0, 1] = 0, 65535
    options = [] if suffix == ".png" else [cv2.IMWRITE_TIFF_COMPRESSION, 1]
    data = cv2.imencode(suffix, deep[..., ::-1], options)[1].tobytes()
    image, _, notes = images.read_picture(data)
    np.testing.assert_array_equal(image, np.broadcast_to(deep // 256, image.shape))
    assert np.abs(image - deep / 257).max() < 1  # the exact scaling
    assert notes == ()


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [png, tiff])
def test_fewer_bits_in_16_show_all_their_levels(bits, channels, kind, tmp_path):
    """12 bits were two grey levels once."""
    deep = (picture(bands=channels).astype(np.uint16) << (bits - 8)).squeeze()
    options = {"photometric": "rgb" if channels == 3 else "minisblack"} if kind is tiff else {}
    path = saved(tmp_path / "a.img", kind(deep, **options))
    image, _, notes = images.read_picture(path)
    expected = stretched(np.atleast_3d(deep), *percentiles(deep))
    np.testing.assert_array_equal(image, np.broadcast_to(expected, image.shape))
    assert len(np.unique(image)) > 200
    assert notes == (depth.LITTLE,)
    stored, pixels, notes, *_ = images.prepare(path, 0)
    np.testing.assert_array_equal(pixels, image)
    np.testing.assert_array_equal(images.decode(stored), image)
    assert notes == (depth.LITTLE,)


def test_bits_that_the_file_names_are_their_own_range():
    deep = picture()[..., 0].astype(np.uint16) * 16
    image, _, notes = images.read_picture(tiff(deep, bitspersample=12))
    np.testing.assert_array_equal(image[..., 0], picture()[..., 0])
    assert notes == ()


def test_a_narrow_band_of_16_bits_is_stretched():
    """Temperatures in hundredths of a kelvin lie far from black, and near each other."""
    kelvin = (27315 + 10 * picture()[..., 0].astype(int)).astype(np.uint16)
    image, _, notes = images.read_picture(png(kelvin))
    np.testing.assert_array_equal(image[..., 0], stretched(kelvin, *percentiles(kelvin)))
    assert notes == (depth.LITTLE,)


def test_hues_are_kept():
    deep = (picture() // np.array([1, 2, 4], np.uint8)).astype(np.uint16)
    image = images.read_image(tiff(deep, photometric="rgb"))
    np.testing.assert_array_equal(image, stretched(deep, *percentiles(deep)))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32, np.float32, np.float64])
def test_values_without_a_fixed_white_are_stretched(dtype):
    ramp = np.arange(20 * 30).reshape(20, 30)
    values = (ramp * 30 + 7).astype(dtype)
    image, _, notes = images.read_picture(tiff(values))
    np.testing.assert_array_equal(image[..., 0], stretched(values, *percentiles(values)))
    assert notes == (depth.OPEN,)
    assert images.read_image(tiff(np.full((20, 30), 7, dtype))).max() == 0


def test_rare_values_far_off_do_not_matter():
    values = picture(200, 200)[..., 0].astype(np.float32)
    values[0, :20] = 1e6  # hot pixels
    image = images.read_image(tiff(values))[..., 0]
    assert np.abs(image[1:] - picture(200, 200)[1:, :, 0].astype(float)).max() <= 3


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_from_0_to_1_white_is_1(dtype):
    values = (picture() / 255).astype(dtype)
    image, _, notes = images.read_picture(tiff(values, photometric="rgb"))
    assert np.abs(image - picture().astype(float)).max() <= (dtype is np.float16)
    assert notes == ()
    dark = (picture() / 2550).astype(np.float32)
    image, _, notes = images.read_picture(tiff(dark, photometric="rgb"))
    np.testing.assert_array_equal(image, stretched(dark, *percentiles(dark)))
    assert notes == (depth.LITTLE,)


HOLES = [np.nan, np.inf, -np.inf, 3.4e38, -3.4028234663852886e38, 1e20, -9999]


@pytest.mark.parametrize("hole", HOLES)
@pytest.mark.parametrize("part", [1, 600])
def test_pixels_without_data_are_black_and_spoil_no_other(hole, part):
    """One of -9999 or 3.4e38 left three grey levels once, and a NaN was an error."""
    values = picture()[..., 0].astype(np.float32) * 3 - 100
    values.flat[7 : 7 + part] = hole
    image, _, notes = images.read_picture(tiff(values))
    there = np.ones(values.shape, bool)
    there.flat[7 : 7 + part] = False
    expected = np.where(there, stretched(values, *percentiles(values[there])), 0)
    np.testing.assert_array_equal(image[..., 0], np.nan_to_num(expected))
    assert notes == (depth.OPEN, depth.NO_DATA)


def test_a_usual_value_for_no_data_that_lies_among_others_is_a_value():
    values = np.linspace(-15000, 3000, 600).reshape(20, 30).round()
    values[0, 0] = -9999
    image, _, notes = images.read_picture(tiff(values.astype(np.float32)))
    np.testing.assert_array_equal(image[..., 0], stretched(values, *percentiles(values)))
    assert notes == (depth.OPEN,)


def test_a_usual_value_for_no_data_in_int16_of_reflectance():
    """Landsat's surface reflectance reaches 16000, further from 0 than its -9999."""
    values = (picture()[..., 0].astype(int) * 50 - 200).astype(np.int16)
    values[:9] = -9999
    image, _, notes = images.read_picture(tiff(values))
    expected = stretched(values[9:], *percentiles(values[9:]))
    np.testing.assert_array_equal(image[9:, :, 0], expected)
    assert image[:9].max() == 0
    assert notes == (depth.OPEN, depth.NO_DATA)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32])
def test_overflow_and_fill_far_above_all_others_have_no_part_in_the_range(dtype):
    """A frame of 65535 around 12 bits left 12 levels once, and nothing was said."""
    values = picture()[..., 0].astype(dtype) * 16
    values[:9] = np.iinfo(dtype).max
    image, _, notes = images.read_picture(tiff(values))
    expected = stretched(values[9:], *percentiles(values[9:]))
    np.testing.assert_array_equal(image[9:, :, 0], expected)
    assert image[:9].min() == 255
    assert notes == (depth.LITTLE if dtype == np.uint16 else depth.OPEN,)


def test_two_values_of_16_bits_are_black_and_white():
    values = np.where(picture()[..., 0] > 99, 65535, 0).astype(np.uint16)
    image, _, notes = images.read_picture(png(values))
    np.testing.assert_array_equal(image[..., 0], values >> 8)
    assert notes == ()


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_the_value_for_no_data_of_gdal(dtype):
    values = picture()[..., 0].astype(dtype) * 10
    values[:9] = 30000
    tags = [(42113, 2, 0, "30000", True)]
    image, _, notes = images.read_picture(tiff(values, extratags=tags))
    np.testing.assert_array_equal(image[9:, :, 0], stretched(values[9:], *percentiles(values[9:])))
    assert image[:9].max() == 0
    assert notes[-1] == depth.NO_DATA


def test_no_data_at_all_is_refused():
    for values in (np.full((20, 30), np.nan, np.float32), np.full((20, 30), -9999, np.int16)):
        with pytest.raises(InputError, match="no pixel has a value"):
            images.read_image(tiff(values))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_zero_is_white_where_the_file_says_so(dtype):
    grey = picture()[..., 0]
    values = {np.uint8: grey, np.uint16: grey.astype(np.uint16) * 257, np.float32: grey / 255}
    data = tiff(values[dtype].astype(dtype), photometric="miniswhite")
    np.testing.assert_array_equal(images.read_image(data)[..., 1], 255 - grey)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_the_range_that_the_user_gives(dtype, tmp_path):
    values = picture()[..., 0].astype(dtype) * 20 + 5
    reading = Reading(range=(100, 4095))
    path = saved(tmp_path / "a.tif", tiff(values))
    image, _, notes = images.read_picture(path, reading)
    np.testing.assert_array_equal(image[..., 0], stretched(values, 100, 4095))
    assert notes == ()
    np.testing.assert_array_equal(images.prepare(path, 0, reading).image, image)
    plain = encoded(picture(), "PNG")  # of 8 bits
    np.testing.assert_array_equal(images.read_picture(plain, reading).pixels, picture())


def test_16_bit_alpha():
    deep = np.full((20, 30, 4), 65535, np.uint16)
    deep[..., :3] = 256 * 77
    deep[:10, :, 3] = 0
    image = images.read_image(png(deep))
    assert (image[:10] == 255).all()
    assert (image[10:] == 77).all()


def test_what_is_transparent_has_no_part_in_the_range():
    deep = np.dstack([picture().astype(np.uint16) << 4, np.full((40, 56), 65535, np.uint16)])
    deep[:9, :, :3], deep[:9, :, 3] = 65535, 0
    image = images.read_image(png(deep))
    np.testing.assert_array_equal(
        image[9:], stretched(deep[9:, :, :3], *percentiles(deep[9:, :, :3]))
    )
    assert (image[:9] == 255).all()


@pytest.mark.parametrize("white", [255, 1000, 1023, 4095, 65535])
def test_portable_pixmaps_say_what_white_is(white):
    values = np.round(picture() / 255 * white).astype(">u2" if white > 255 else np.uint8)
    for kind, stored in [(6, values), (5, values[..., :1])]:
        data = b"P%d\n# made here\n56 40\n%d\n" % (kind, white) + stored.tobytes()
        image, _, notes = images.read_picture(data)
        assert np.abs(image - stored.astype(float) / white * 255).max() < 1.01
        assert notes == ()
        with pytest.raises(InputError, match="truncated or damaged"):
            images.read_picture(data[:-3])


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_2000_of_more_than_8_bits(bits, channels):
    imagecodecs = pytest.importorskip("imagecodecs")
    deep = (picture(bands=channels).astype(np.uint16) << (bits - 8)).squeeze()
    data = imagecodecs.jpeg2k_encode(deep, level=0, bitspersample=bits, codecformat="jp2")
    image, _, notes = images.read_picture(data)
    np.testing.assert_array_equal(image, np.broadcast_to(picture(bands=channels), image.shape))
    assert notes == ()


DTYPES = [np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64]


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from(DTYPES), st.sampled_from([1, 3]))
def test_any_values_follow_the_rule(data, dtype, channels):
    kind = np.dtype(dtype)
    bounds = np.iinfo(kind) if kind.kind != "f" else np.iinfo(np.int32)
    numbers = st.integers(max(bounds.min, -70000), min(bounds.max, 70000))
    least, most = sorted((data.draw(numbers), data.draw(numbers)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = rng.uniform(least, most, (23, 17, channels)).astype(kind)
    assume(values.min() not in depth._USUAL)  # for no data
    image, notes = depth.eight_bits(values, 16 if kind == np.uint16 else 0, "x")
    low, high = percentiles(values)
    full = 65535 if kind == np.uint16 else 1
    fixed = kind == np.uint16 or (kind.kind == "f" and values.min() >= 0 and values.max() <= 1)
    flat = values.min() == values.max()
    if fixed and ((high > full / 4 and high - low > full / 16) or flat):
        expected = values >> 8 if kind == np.uint16 else stretched(values, 0, 1)
        assert notes == ()
    else:
        low, high = (low, high) if high > low else (values.min(), values.max() + flat)
        expected = stretched(values, low, high)
        assert notes == (depth.LITTLE if fixed else depth.OPEN,)
    np.testing.assert_array_equal(image, expected)


@settings(deadline=None, max_examples=60)
@given(arrays.arrays(np.float32, (5, 6, 1), elements=st.floats(width=32)))
def test_any_floating_point_values_have_levels_or_are_refused(values):
    finite = (np.abs(values) <= 1e19).all(-1)
    try:
        image, notes = depth.eight_bits(values, 0, "x")
    except InputError:
        assert not finite.any() or set(np.unique(values[finite])) <= set(depth._USUAL)
        return
    assert image.dtype == np.uint8
    assert (image[~finite] == 0).all()
    assert (depth.NO_DATA in notes) or finite.all()


def test_large_images_are_sampled_evenly():
    values = np.arange(1500 * 1000, dtype=np.float64).reshape(1500, 1000, 1)
    image, _ = depth.eight_bits(values, 0, "x")
    assert np.abs(image - stretched(values, *percentiles(values))).max() <= 1


def test_pillow_writes_the_same():
    values = np.arange(600, dtype=np.int32).reshape(20, 30) * 1000 - 5
    image = images.read_image(encoded(Image.fromarray(values), "TIFF"))
    np.testing.assert_array_equal(image[..., 0], stretched(values, *percentiles(values)))


@pytest.mark.parametrize(
    "said",
    [{"range": r} for r in ((1, 0), (0,), (0, "x"), (0, np.inf), (0, np.nan), (True, 2))]
    + [{"bands": b} for b in ((0, 1), (1.5,), (-1,), (True,), ("x",))],
)
def test_senseless_ranges_and_bands_are_named(said):
    (name,) = said
    with pytest.raises(InputError, match=rf"config\.images\.{name} is \(.*; it has to be"):
        Reading(**said)
    config = default()
    config.images[name] = said[name]
    check(config)  # leaves it to the better sentence
