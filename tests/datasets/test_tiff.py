"""TIFF files as tifffile, libtiff (by Pillow and OpenCV) and others write them."""

import io
import struct
import tracemalloc

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import UPRIGHT, circle, encoded, picture, saved, tiff
from PIL import Image

from mis_jax.datasets import bands, depth, images, masks
from mis_jax.datasets.reading import Reading
from mis_jax.errors import InputError

ORIENTATION = 274


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.sampled_from(["minisblack", "miniswhite", "rgb"]),
    st.booleans(),
    st.sampled_from([None, "lzw", "zlib", "zstd", "packbits", "lzma"]),
    st.booleans(),
    st.sampled_from([{}, {"tile": (16, 32)}, {"rowsperstrip": 7}]),
    st.integers(1, 8),
    st.integers(0, 2),
    st.sampled_from(["<", ">"]),
    st.booleans(),
)
def test_every_combination_is_read_as_it_was_written(
    dtype, photometric, planar, compression, predictor, parts, tag, extra, order, big
):
    """Depth, photometric, planar or not, compression, tiles or strips, orientation, more bands."""
    colours = 3 if photometric == "rgb" else 1
    extra = min(extra, 1) if colours == 1 else extra  # three would be colours
    levels = picture(37, 45, bands=colours + extra)
    levels[0, 0], levels[0, 1] = 0, 255
    values = {np.uint8: levels, np.uint16: levels.astype(np.uint16) * 257}.get(dtype, levels / 255)
    values = values.astype(dtype)
    several = colours + extra > 1
    values = values if several else values[..., 0]
    data = tiff(
        np.moveaxis(values, -1, 0) if planar and several else values,
        photometric=photometric,
        planarconfig=("separate" if planar else "contig") if several else None,
        compression=compression,
        predictor=predictor and compression in ("lzw", "zlib", "zstd", "lzma"),
        extrasamples=["unspecified"] * extra,
        byteorder=order,
        bigtiff=big,
        extratags=[(ORIENTATION, 3, 1, tag, True)],
        **parts,
    )
    found = images.read_picture(data)
    expected = levels[..., :colours]
    if photometric == "miniswhite":
        expected = 255 - expected
    expected = UPRIGHT[tag](np.broadcast_to(expected, (37, 45, 3)))
    np.testing.assert_array_equal(found.pixels, expected)
    assert found.orientation == tag
    left = bands.FIRST_OF_GREY if colours == 1 else bands.FIRST_OF_COLOURS
    assert found.notes == ((left,) if extra else ())


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize(
    ("mode", "compression"),
    [
        ("L", "raw"),
        ("RGB", "raw"),
        ("RGB", "tiff_lzw"),
        ("P", "tiff_lzw"),
        ("1", "raw"),
        ("1", "group4"),
        ("CMYK", "tiff_adobe_deflate"),
    ],
)
def test_as_pillow_reads_it(tag, mode, compression):
    image = Image.fromarray(picture())
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    data = encoded(image, "TIFF", compression=compression, tiffinfo={ORIENTATION: tag})
    expected = UPRIGHT[tag](np.asarray(image.convert("RGB")))
    found = images.read_picture(data)
    assert np.abs(found.pixels - expected.astype(float)).max() <= (mode == "CMYK")
    assert (found.orientation, found.notes) == (tag, ())


@pytest.mark.parametrize("mode", ["RGB", "YCbCr", "L"])
def test_jpeg_inside(mode):
    image = Image.fromarray(picture()).convert(mode)
    data = encoded(image, "TIFF", compression="jpeg", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.abs(images.read_image(data) - expected.astype(float)).max() <= 2
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        at, count = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    harmed = data[: at + count // 2] + bytes(count - count // 2 - 2) + data[at + count - 2 :]
    with pytest.raises(InputError, match="truncated or damaged"):
        images.read_image(harmed)


def test_ycbcr_without_jpeg():
    image = Image.fromarray(picture()).convert("YCbCr")
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(images.read_image(encoded(image, "TIFF")), expected)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_fewer_than_8_bits(bits):
    values = picture()[..., 0] >> (8 - bits)
    image = images.read_image(tiff(values, bitspersample=bits))
    np.testing.assert_array_equal(image[..., 0], values * (255 // (2**bits - 1)))


def test_a_colour_map_filled_with_8_bits():
    """libtiff takes such maps for what they were meant to be."""
    index = picture()[..., 0] >> 4
    colours = np.random.default_rng(0).integers(0, 256, (3, 256), dtype=np.uint16)
    data = tiff(index, photometric="palette", colormap=colours)
    np.testing.assert_array_equal(images.read_image(data), colours.T[index])
    data = tiff(index, photometric="palette", colormap=colours * 257)
    np.testing.assert_array_equal(images.read_image(data), colours.T[index])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_deep_inks(dtype):
    ink = 255 - np.dstack([picture(), np.full((40, 56), 255, np.uint8)])
    deep = ink.astype(dtype) * (257 if dtype == np.uint16 else 1)
    np.testing.assert_array_equal(images.read_image(tiff(deep, photometric="separated")), picture())


@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha", "unspecified"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_near_infrared_is_no_transparency_whatever_it_is_tagged(kind, dtype):
    """Tagged as alpha, it washed photos to white once."""
    levels = picture(bands=4, seed=3)
    values = levels.astype(dtype) * (257 if dtype == np.uint16 else 1)
    found = images.read_picture(tiff(values, photometric="rgb", extrasamples=[kind]))
    np.testing.assert_array_equal(found.pixels, levels[..., :3])
    assert found.notes == ((bands.FIRST_OF_COLOURS if kind == "unspecified" else bands.TAGGED),)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparency_lies_over_white(dtype):
    alpha = np.where(np.arange(56) < 20, 0, 255)[None].repeat(40, 0)
    alpha[:, 20:22] = 51, 204  # a soft edge
    levels = np.dstack([picture(), alpha]).astype(np.uint8)
    factor = 257 if dtype == np.uint16 else 1
    cover = alpha[..., None] / 255
    for kind, seen in [("unassalpha", picture() * cover), ("assocalpha", picture() * cover)]:
        stored = levels.astype(np.float64)
        if kind == "assocalpha":
            stored[..., :3] = seen
        data = tiff((stored * factor).astype(dtype), photometric="rgb", extrasamples=[kind])
        found = images.read_picture(data)
        assert np.abs(found.pixels - (seen + 255 * (1 - cover))).max() <= 2
        assert found.notes == ()


def test_transparency_that_hides_everything_is_left_out():
    levels = np.dstack([picture(), np.zeros((40, 56), np.uint8)])
    for data in (
        tiff(levels, photometric="rgb", extrasamples=["unassalpha"]),
        encoded(levels, "PNG"),
    ):
        found = images.read_picture(data)
        np.testing.assert_array_equal(found.pixels, picture())
        assert found.notes == (bands.HIDDEN,)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_bands_without_colours(planar, count):
    values = picture(bands=count)
    data = tiff(
        np.moveaxis(values, -1, 0) if planar == "separate" else values,
        photometric="minisblack",
        planarconfig=planar,
    )
    found = images.read_picture(data)
    if count == 2:
        expected, notes = values[..., :1], (bands.FIRST_OF_GREY,)
    else:
        expected, notes = values[..., :3], (bands.NAMELESS, bands.FIRST_OF_COLOURS)[: count - 2]
    np.testing.assert_array_equal(found.pixels, np.broadcast_to(expected, (40, 56, 3)))
    assert found.notes == notes
    found = images.read_picture(data, Reading(bands=(1,)))
    np.testing.assert_array_equal(found.pixels, values[..., [1, 1, 1]])
    assert found.notes == ()
    if count == 7:
        found = images.read_picture(data, Reading(bands=(6, 3, 1)))
        np.testing.assert_array_equal(found.pixels, values[..., [6, 3, 1]])
    with pytest.raises(InputError, match=rf"has {count} bands.*config\.images\.bands"):
        images.read_picture(data, Reading(bands=(count,)))


def test_pages():
    stack = np.stack([picture(), 255 - picture()])
    found = images.read_picture(tiff(stack, photometric="rgb"))
    np.testing.assert_array_equal(found.pixels, picture())
    assert found.notes == ("several pages, of which the first is taken",)
    pillow = [Image.fromarray(page) for page in stack]
    data = encoded(pillow[0], "TIFF", save_all=True, append_images=pillow[1:])
    np.testing.assert_array_equal(images.read_image(data), picture())
    assert images.read_picture(data).notes == found.notes
    grey = stack[..., 0]
    for options in ({"imagej": True}, {"truncate": True}):  # one directory, many pages
        found = images.read_picture(tiff(grey, photometric="minisblack", **options))
        np.testing.assert_array_equal(found.pixels[..., 0], grey[0])
        assert found.notes == ("several pages, of which the first is taken",)


def test_overviews_thumbnails_and_masks_are_no_pages():
    half = picture()[::2, ::2]
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        file.write(half, photometric="rgb", subfiletype=1)
        file.write(picture(), photometric="rgb", subifds=1, tile=(16, 16))
        file.write(half, photometric="rgb", subfiletype=1, tile=(16, 16))
        file.write(picture()[..., 0] > 9, subfiletype=4)
    found = images.read_picture(stream.getvalue())
    np.testing.assert_array_equal(found.pixels, picture())
    assert found.notes == ()


def test_colours_and_values_that_cannot_be_read_are_named():
    with pytest.raises(InputError, match=r"colours of kind CFA cannot be read; convert"):
        images.read_image(tiff(picture()[..., 0], photometric="cfa"))
    with pytest.raises(InputError, match=r"values of type complex64 cannot be read"):
        images.read_image(tiff(picture()[..., 0].astype(np.complex64)))


def patched(data: bytes, **tags: int) -> bytes:
    """The file with other values in its tags."""
    codes = {"width": 256, "length": 257, "offset": 273, "bytes": 279, "tile": 324, "size": 325}
    changed = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        for name, value in tags.items():
            tag = file.pages[0].tags[codes[name]]
            kind = {3: "<H", 4: "<I"}[int(tag.dtype)]
            struct.pack_into(kind, changed, tag.valueoffset, value)
    return bytes(changed)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_headers_that_promise_too_much(compression):
    data = tiff(picture(), photometric="rgb", compression=compression)
    tracemalloc.start()
    with pytest.raises(InputError, match="more than 178956970 pixels"):
        images.read_image(patched(data, width=65535, length=65535))
    with pytest.raises(InputError, match="truncated or damaged"):
        images.read_image(patched(data, offset=len(data) - 9))
    with pytest.raises(InputError, match="no data"):
        images.read_image(patched(data, bytes=0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
    with pytest.raises(InputError, match="truncated or damaged"):
        images.read_image(patched(data, width=2000, length=2000))


def test_parts_that_were_never_written():
    data = patched(tiff(picture(48, 64), photometric="rgb", tile=(16, 64)), tile=0, size=0)
    found = images.read_picture(data)
    assert (found.pixels[:16] == 0).all()
    np.testing.assert_array_equal(found.pixels[16:], picture(48, 64)[16:])
    assert found.notes == ("parts of it that were never written, drawn black",)


def test_the_rule_of_depths_holds_for_what_records_keep(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(picture().astype(np.uint16) * 16, photometric="rgb"))
    stored, pixels, notes, *_ = images.prepare(path, 0)
    assert Image.open(io.BytesIO(stored)).format == "PNG"
    np.testing.assert_array_equal(images.decode(stored), images.read_image(path))
    np.testing.assert_array_equal(images.decode(stored), pixels)
    assert notes == (depth.LITTLE,)


@pytest.mark.parametrize("back_to", range(3))
def test_pages_in_a_circle_have_an_end(back_to, tmp_path):
    """tifffile goes round for ever."""
    with pytest.raises(InputError, match=r"truncated or damaged .*in a circle"):
        images.read_image(circle(1, back_to))
    assert images.read_picture(circle(0, back_to)).notes == (
        "several pages, of which the first is taken",
    )
    for kind in (0, 1):
        path = saved(tmp_path / f"{kind}.tif", circle(kind, back_to))
        with pytest.raises(InputError, match=r"\.tif (cannot be read|has \d+ pages)"):
            masks.read_mask(path, Reading())
