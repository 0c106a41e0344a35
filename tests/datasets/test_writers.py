"""Whoever writes an image, however deep and in whatever orientation, it is read as it was meant."""

import struct
import zlib

import imagecodecs
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import UPRIGHT, encoded, picture, png, saved, tiff
from PIL import Image

from mis_jax.datasets import depth, images

ORIENTATION = 274
DEPTHS = ("8", "10", "12", "14", "16", "signed", "0 to 1", "any")  # bits, or kinds of numbers
LOSSY = ("Pillow, JPEG", "Pillow, AVIF")


def values_of(levels, kind):
    """What is stored for 8-bit levels."""
    if kind.isdigit():
        bits = int(kind)
        stored = levels.astype(np.uint16)
        return levels if bits == 8 else stored * 257 if bits == 16 else stored << (bits - 8)
    if kind == "signed":
        return levels.astype(np.int16) * 30 - 1000
    return levels.astype(np.float32) * (np.float32(1 / 255) if kind == "0 to 1" else 7)


def meant(levels, kind):
    """Levels that are to be seen, and the notes: the rule of depth.py in plain NumPy."""
    if kind in ("8", "16", "0 to 1"):
        return levels, ()
    values = values_of(levels, kind).astype(np.float64)
    low, high = np.percentile(values, [0.1, 99.9])
    seen = np.round(np.clip((values - low) / (high - low), 0, 1) * 255)
    return seen, (depth.LITTLE if kind.isdigit() else depth.OPEN,)


def exif(tag):
    found = Image.Exif()
    found[ORIENTATION] = tag
    return found


def with_exif(data, tag):
    """A PNG with the chunk eXIf, which OpenCV and imagecodecs do not write."""
    body = exif(tag).tobytes().removeprefix(b"Exif\0\0")
    crc = struct.pack(">I", zlib.crc32(b"eXIf" + body))
    at = data.index(b"IDAT") - 4
    return data[:at] + struct.pack(">I", len(body)) + b"eXIf" + body + crc + data[at:]


def by_tifffile(values, tag):
    photometric = "rgb" if values.ndim == 3 else "minisblack"
    tags = [(ORIENTATION, 3, 1, tag, True)]
    return tiff(values, photometric=photometric, compression="zlib", extratags=tags)


def by_pillow(kind):
    how = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    how["AVIF"] = {"quality": 95}
    return lambda values, tag: encoded(values, kind, exif=exif(tag), **how.get(kind, {}))


WRITERS = {  # name -> file of values and tag
    "Pillow, PNG": by_pillow("PNG"),
    "Pillow, TIFF": by_pillow("TIFF"),
    "Pillow, WebP": by_pillow("WEBP"),
    "Pillow, JPEG": by_pillow("JPEG"),
    "Pillow, AVIF": by_pillow("AVIF"),
    "OpenCV, PNG": lambda values, tag: with_exif(png(values), tag),
    "imagecodecs, PNG": lambda values, tag: with_exif(imagecodecs.png_encode(values), tag),
    "tifffile": by_tifffile,
}


def writes(writer, kind, colours):
    """Whether a writer has this."""
    if writer == "tifffile":
        return True
    if writer == "Pillow, TIFF":
        return kind == "8" or colours == 1
    if writer.endswith("PNG"):
        deep = kind.isdigit()
        return kind == "8" or (deep and (colours == 1 or not writer.startswith("Pillow")))
    return kind == "8"


KINDS = [
    (writer, kind, colours)
    for writer in WRITERS
    for kind in DEPTHS
    for colours in (1, 3)
    if writes(writer, kind, colours)
]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(KINDS), st.integers(1, 8), st.integers(0, 99))
def test_writers_depths_and_orientations(tmp_path_factory, what, tag, seed):
    writer, kind, colours = what
    levels = picture(37, 52, seed, colours)
    levels[0, 0], levels[0, 1] = 0, 255
    levels = levels[..., 0] if colours == 1 else levels
    data = WRITERS[writer](values_of(levels, kind), tag)
    seen, notes = meant(levels, kind)
    expected = UPRIGHT[tag](np.broadcast_to(np.atleast_3d(seen), (37, 52, 3)))
    found = images.read_picture(data)
    away = np.abs(found.pixels - expected.astype(float))
    assert away.mean() < 4 if writer in LOSSY else away.max() == 0
    assert (found.orientation, found.notes) == (tag, notes)
    kept = images.prepare(saved(tmp_path_factory.getbasetemp() / "photo", data), 0)
    apart = np.abs(images.decode(kept.encoded).astype(float) - found.pixels)
    assert apart.mean() < 4 if writer == "Pillow, JPEG" else apart.max() == 0
    assert (kept.orientation, kept.notes, kept.size) == (tag, notes, found.pixels.shape[1::-1])
