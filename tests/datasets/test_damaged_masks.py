"""planes, masks: damaged and absurd files end in a sentence, before there is room for them."""

import contextlib
import io
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from mis_jax.datasets import masks, published
from mis_jax.datasets.planes import read_plane
from mis_jax.datasets.reading import Reading
from mis_jax.errors import InputError

HALF = Reading(masks=frozenset({"half"}))


def encoded(pixels, kind, **how):
    buffer = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(buffer, kind, **how)
    return buffer.getvalue()


def kinds():
    """A file of every kind that the readers tell apart."""
    grey = np.zeros((30, 40), np.uint8)
    grey[5:20, 7:30] = 255
    palette = Image.fromarray(grey // 255)
    palette.putpalette([9, 9, 0, 200, 0, 0])
    colour = np.dstack([grey, 0 * grey, grey])
    tiffs = {}
    for name, pixels in (
        ("deep", np.dstack([grey.astype(np.uint16)] * 3)),
        ("double", grey.astype(float)),
        ("tiled", np.tile(grey, (3, 3))),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(
            buffer, pixels, compression="zlib", tile=(16, 16) if name == "tiled" else None
        )
        tiffs[name] = buffer.getvalue()
    return {
        "palette.png": encoded(palette, "PNG"), "palette.gif": encoded(palette, "GIF"),
        "palette.tif": encoded(palette, "TIFF"), "palette.bmp": encoded(palette, "BMP"),
        "grey.png": encoded(grey, "PNG"), "bits.png": encoded(grey > 0, "PNG"),
        "bits.tif": encoded(grey > 0, "TIFF"),
        "lzw.tif": encoded(grey, "TIFF", compression="tiff_lzw"),
        "deep.png": encoded(grey.astype(np.uint16) * 3, "PNG"),
        "colours.png": cv2.imencode(".png", colour.astype(np.uint16))[1].tobytes(),
        "alpha.png": encoded(np.dstack([colour, grey]), "PNG"),
        "grey.jpg": encoded(grey, "JPEG"), "grey.webp": encoded(colour, "WEBP"),
        **{f"{name}.tif": data for name, data in tiffs.items()},
    }  # fmt: skip


def damaged(data, rng):
    """Bytes cut off, changed, added or left out."""
    data = bytearray(data)
    at = int(rng.integers(len(data)))
    how = rng.integers(5)
    if how == 0:
        return bytes(data[:at])
    if how == 1:
        for place in rng.integers(len(data), size=rng.integers(1, 9)):
            data[place] ^= int(rng.integers(1, 256))
    elif how == 2:  # in the header
        for place in rng.integers(min(64, len(data)), size=3):
            data[place] = int(rng.integers(256))
    elif how == 3:
        del data[at : at + int(rng.integers(1, 20))]
    else:
        data[at:at] = rng.bytes(int(rng.integers(1, 20)))
    return bytes(data)


def every_reading(path):
    """How many of the ways to read a mask gave one; the others have named the file."""
    ways = [lambda: masks.read_mask(path, Reading()), lambda: masks.read_mask(path, HALF),
            lambda: masks.read_id(path, next(iter(masks.list_ids(path).values()))),
            lambda: published.read_grabcut(path, Reading())]  # fmt: skip
    read = 0
    for way in ways:
        try:
            mask = way()
        except InputError as error:
            if str(path) not in str(error):
                raise
            continue
        read += 1
        assert mask.pixels.dtype == np.int32
        assert mask.pixels.ndim == 2
        assert set(np.unique(mask.pixels)) <= {-1, 0, 1}
    return read


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_end_in_sentences(tmp_path):
    files = kinds()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert every_reading(tmp_path / name) > 0, name
    rng = np.random.default_rng(0)
    for number in range(500):
        name = list(files)[number % len(files)]
        path = tmp_path / f"{number}-{name}"
        path.write_bytes(damaged(files[name], rng))
        every_reading(path)


def test_a_png_with_any_byte_changed_is_refused_or_the_same(tmp_path):
    """Its checksums see to it, which Pillow leaves out; a chunk that is not asked for may go."""
    whole = kinds()["grey.png"]
    path = tmp_path / "a.png"
    path.write_bytes(whole)
    truth = masks.read_mask(path, Reading()).pixels
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        with contextlib.suppress(InputError):
            np.testing.assert_array_equal(masks.read_mask(path, Reading()).pixels, truth)


@pytest.mark.filterwarnings("ignore")
def test_files_that_are_cut_off_are_refused_or_whole(tmp_path):
    for name, data in kinds().items():
        path = tmp_path / name
        path.write_bytes(data)
        whole = read_plane(path).pixels
        for part in (0.3, 0.5, 0.7, 0.9, 0.97):
            path.write_bytes(data[: int(part * len(data))])
            with contextlib.suppress(InputError):
                found = read_plane(path).pixels
                np.testing.assert_array_equal(found, whole, err_msg=f"{name} {part}")


def png_header(width, height, bits=8, colours=0):
    data = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body
        data += struct.pack(">I", zlib.crc32(kind + body))
    return data


def tiff_header(width, height, dtype, samples):
    buffer = io.BytesIO()
    pixels = np.zeros((8, 8, samples)[: 2 if samples == 1 else 3], dtype)
    tifffile.imwrite(buffer, pixels, metadata=None)
    data = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tags = [file.pages[0].tags[code] for code in (256, 257, 278)]
    for tag, value in zip(tags, (width, height, height), strict=True):
        struct.pack_into("<H" if tag.dtype == 3 else "<I", data, tag.valueoffset, value)
    return bytes(data)


@pytest.mark.filterwarnings("ignore")
def test_headers_of_absurd_sizes_are_refused_before_there_is_room_for_them(tmp_path):
    files = {"a.png": png_header(60_000, 60_000), "b.png": png_header(60_000, 60_000, 16, 2),
             "c.png": png_header(2**31 - 1, 2**31 - 1, 1), "d.png": png_header(60_000, 60_000, 1),
             "e.tif": tiff_header(60_000, 60_000, np.uint8, 1),
             "f.tif": tiff_header(60_000, 60_000, np.uint16, 3),
             "h.tif": tiff_header(60_000, 60_000, np.float64, 1)}  # fmt: skip
    bitmap = bytearray(encoded(np.zeros((4, 4), np.uint8), "BMP"))
    bitmap[18:26] = struct.pack("<ii", 60_000, 60_000)
    files["g.bmp"] = bytes(bitmap)
    for name, data in files.items():
        path = tmp_path / name
        path.write_bytes(data)
        tracemalloc.start()
        assert every_reading(path) == 0, name
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 50e6, name
    with pytest.raises(InputError, match=r"a\.png cannot be read; it has too many pixels"):
        masks.read_mask(tmp_path / "a.png", Reading())


def test_no_byte_of_a_deflated_strip_changes_its_mask(tmp_path):
    grey = np.asarray(Image.open(io.BytesIO(kinds()["grey.png"])))
    data = encoded(grey, "TIFF", compression="tiff_adobe_deflate")
    picture = Image.open(io.BytesIO(data))
    start, length = picture.tag_v2[273][0], picture.tag_v2[279][0]
    path, refused = tmp_path / "a.tif", 0
    for at in range(start, start + length):
        path.write_bytes(data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :])
        try:
            np.testing.assert_array_equal(masks.read_mask(path, HALF).pixels, grey > 0)
        except InputError:
            refused += 1
    assert refused > 0.9 * length


def test_a_damaged_jpeg_is_no_mask(tmp_path):
    path, data = tmp_path / "a.jpg", kinds()["grey.jpg"]
    path.write_bytes(data[:-40] + data[-2:])
    with pytest.raises(
        InputError, match=r"the mask .*a\.jpg cannot be read: truncated or damaged \("
    ):
        masks.read_mask(path, HALF)
