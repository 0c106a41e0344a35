"""Damaged files of every kind: named, or the picture they were; nothing else and no other error."""

import random
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from image_files import encoded, picture, png, saved, tiff
from PIL import Image

from mis_jax.datasets import images
from mis_jax.errors import InputError

DEEP = picture(64, 80).astype(np.uint16) * 257


def files() -> dict[str, bytes]:
    """A file of each kind, 64 x 80 pixels."""
    image = Image.fromarray(picture(64, 80))
    return {
        "PNG": encoded(image, "PNG"),
        "PNG, 16 bits": png(DEEP),
        "TIFF, Deflate": tiff(DEEP, photometric="rgb", compression="zlib", metadata=None),
        "JPEG": encoded(image, "JPEG"),
        "TIFF": tiff(DEEP, photometric="rgb", metadata=None),
        "TIFF, LZW": tiff(DEEP, photometric="rgb", compression="lzw", metadata=None),
        "WebP": encoded(image, "WEBP", lossless=True),
        "GIF": encoded(image.quantize(64), "GIF"),
        "BMP": encoded(image, "BMP"),
        "PPM": encoded(image, "PPM"),
        "JPEG 2000": encoded(image, "JPEG2000"),
    }


FILES = files()
WAYS = ["cut", "flipped", "zeroed", "swapped", "header"]
CHECKED = ("PNG", "PNG, 16 bits")  # every byte that matters lies under a checksum


def harmed(data: bytes, way: str, rng: random.Random) -> bytes:
    """The file, damaged in one of five ways."""
    changed, last = bytearray(data), len(data) - 1
    if way == "cut":
        return data[: rng.randrange(1, last)]
    if way == "flipped":
        for _ in range(rng.randrange(1, 4)):
            changed[rng.randrange(last)] ^= rng.randrange(1, 256)
    elif way == "header":
        changed[rng.randrange(min(120, last))] ^= rng.randrange(1, 256)
    else:
        size = max(1, len(data) // 16)
        at = rng.randrange(len(data) - 2 * size)
        other = bytes(size) if way == "zeroed" else data[at + size : at + 2 * size]
        changed[at : at + size] = other
        if way == "swapped":
            changed[at + size : at + 2 * size] = data[at : at + size]
    return bytes(changed)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.filterwarnings("ignore")  # of Pillow, about what it goes on to read or refuse
def test_damage_is_an_input_error_or_does_not_show(kind, capfd):
    """Fifty of a kind. Where no checksum tells, bytes that changed can pass as another picture."""
    rng = random.Random(kind)
    whole = images.read_image(FILES[kind]).astype(int)
    tracemalloc.start()
    for k in range(50):
        way = WAYS[k % len(WAYS)]
        try:
            found = images.read_image(harmed(FILES[kind], way, rng))
        except InputError as error:
            reason = str(error)
            assert reason.startswith("the image: ")
            continue
        if kind in CHECKED or way == "cut":
            assert found.shape == whole.shape
            assert (np.abs(found - whole).max(2) > 2).mean() < 0.05
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", [k for k in FILES if k != "GIF"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.98])
def test_files_that_end_early_are_refused(kind, part, tmp_path):
    data = FILES[kind]
    path = saved(tmp_path / "cut.img", data[: int(len(data) * part)])
    with pytest.raises(InputError, match=r"cut\.img: truncated or damaged"):
        images.read_image(path)


def chunk(kind: bytes, body: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum


@pytest.mark.parametrize("kind", CHECKED)
def test_every_checksum_of_a_png_is_looked_at(kind):
    """Pillow passes over that of the pixels."""
    data = FILES[kind]
    at = data.index(b"IDAT")
    length = int.from_bytes(data[at - 4 : at], "big")
    for place in (at + 4 + length, at + 4 + length // 2):
        other = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(InputError, match="checksum of IDAT"):
            images.read_image(other)
    with pytest.raises(InputError, match="before IEND"):
        images.read_image(data[: data.index(b"IEND") - 4])
    with pytest.raises(InputError, match="checksum of tEXt"):
        images.read_image(data[: at - 4] + chunk(b"tEXt", b"x")[:-1] + b"?" + data[at - 4 :])
    np.testing.assert_array_equal(images.read_image(data + b"more"), picture(64, 80))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_of_16_bits(channels):
    deep = DEEP[..., :channels] | 1  # odd
    deep[:9] = 257 * 5 - 1
    data = png(deep)
    at = data.index(b"IDAT") - 4
    keyed = data[:at] + chunk(b"tRNS", struct.pack(">H", 257 * 5 - 1) * channels) + data[at:]
    image = images.read_image(keyed)
    assert (image[:9] == 255).all()
    expected = np.broadcast_to(picture(64, 80)[..., :channels], (64, 80, 3))
    np.testing.assert_array_equal(image[9:], expected[9:])


def huge() -> dict[str, bytes]:
    """Small files whose headers promise 100,000 x 60,000 pixels."""
    size = struct.pack(">II", 100_000, 60_000)
    header = size + b"\x08\x02\0\0\0"
    data = FILES["PNG"]
    jpeg = bytearray(FILES["JPEG"])
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65_500, 65_500)
    bitmap = bytearray(FILES["BMP"])
    bitmap[18:26] = struct.pack("<ii", 100_000, 60_000)
    return {
        "PNG": data[:8] + chunk(b"IHDR", header) + data[33:],
        "JPEG": bytes(jpeg),
        "BMP": bytes(bitmap),
        "PPM": b"P6 100000 60000 255\n" + bytes(999),
        "PPM, 16 bits": b"P6 100000 60000 65535\n" + bytes(999),
    }


@pytest.mark.parametrize("kind", huge())
def test_more_pixels_than_there_is_memory_for(kind):
    tracemalloc.start()
    with pytest.raises(InputError, match="the image: more than 178956970 pixels; shrink it"):
        images.read_image(huge()[kind])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
