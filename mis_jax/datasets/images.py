"""Image files: finding them, reading the common kinds as RGB, and the bytes a record keeps.

What becomes of values of more than 8 bits is in depth.py, of bands in bands.py, and how damage is
told in kinds.py.
"""

import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mis_jax.datasets import bands, jpeg, kinds
from mis_jax.datasets.finding import SUFFIXES, find_images, ignored_files, image_ids
from mis_jax.datasets.pictures import MIN_SIDE, Picture, is_blank, shrink
from mis_jax.datasets.reading import Notes, Reading
from mis_jax.errors import InputError

__all__ = [
    "MIN_SIDE",
    "SUFFIXES",
    "Picture",
    "Prepared",
    "decode",
    "find_images",
    "ignored_files",
    "image_ids",
    "is_blank",
    "prepare",
    "read_file",
    "read_image",
    "read_picture",
    "shrink",
]


class Prepared(NamedTuple):
    """What a record keeps of an image file, and what was read.

    Attributes:
      encoded: bytes of a JPEG or PNG.
      image: uint8 [H, W, 3] RGB, `decode(encoded)`.
      notes: what was odd about the file.
      kind: such as "JPEG", "TIFF of 16 bits".
      size: width and height in pixels, upright, before it was shrunk.
      orientation: the EXIF tag that was applied.
    """

    encoded: bytes
    image: np.ndarray
    notes: Notes = ()
    kind: str = ""
    size: tuple[int, int] = (0, 0)
    orientation: int = 1


def read_image(source: str | Path | bytes) -> np.ndarray:
    """The image of a file, or of its bytes, as it is meant to be seen: uint8 [H, W, 3] RGB.

    Grey, palette and CMYK become RGB, transparency is laid over white, the EXIF rotation is
    applied, and of several frames or pages the first is taken. Values of more than 8 bits become 8
    by the rule of depth.py.

    Raises:
      InputError: names the file and why it cannot be read: missing, empty, truncated, no image.
    """
    return read_picture(source).pixels


def read_picture(source: str | Path | bytes, reading: Reading | None = None) -> Picture:
    """`read_image`, and what else there is to say of the file.

    Args:
      source: a file, or its bytes.
      reading: the values and bands to take, where the user says so.
    """
    name = "the image" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else read_file(source)
    return bands.picture(kinds.read(data, name).bands, reading or Reading(), name)


def prepare(
    path: str | Path, max_side: int, reading: Reading | None = None, data: bytes | None = None
) -> Prepared:
    """The bytes that a record keeps of an image file, and what they decode to.

    An upright 8-bit RGB or grey JPEG or PNG of at most `max_side` pixels (0: any size) is kept byte
    for byte. Others are read by `read_picture`, shrunk by area averaging, and stored as JPEG of
    quality 95 if they were JPEG, else as PNG.

    Args:
      path: the file.
      max_side: pixels.
      reading: as `read_picture` takes it.
      data: the bytes of the file, if they have been read.

    Raises:
      InputError: names the file and why it cannot be used.
    """
    name, reading = str(path), reading or Reading()
    data = read_file(path) if data is None else data
    opened = kinds.read(data, name)
    image, orientation, notes = bands.picture(opened.bands, reading, name)
    size = image.shape[1], image.shape[0]
    if not opened.plain or reading.bands or 0 < max_side < max(image.shape):
        image = shrink(image, max_side)
        lossy = opened.kind in ("JPEG", "MPO")
        data = _encode(image, ".jpg" if lossy else ".png")
        image = decode(data, name) if lossy else image
    if min(image.shape[:2]) < MIN_SIDE:
        height, width = image.shape[:2]
        raise InputError(f"{name}: too small: {width}x{height} pixels, at least {MIN_SIDE} a side")
    return Prepared(data, image, notes, opened.said, size, orientation)


def decode(encoded: bytes, name: str = "the stored image") -> np.ndarray:
    """Decodes the bytes of a record: uint8 [H, W, 3] RGB, rotation tags ignored.

    Raises:
      InputError: if they are no image that OpenCV reads.
    """
    if jpeg.is_jpeg(encoded):
        pixels = jpeg.lenient(encoded)
        if pixels is not None:
            return pixels
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"{name}: cannot be decoded ({error.err})") from error
    if image is None:
        raise InputError(f"{name}: cannot be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_file(path: str | Path) -> bytes:
    """The bytes of a file; `InputError` that names it if it cannot be read."""
    if not os.path.isfile(path):  # a device or pipe would block for ever
        raise InputError(f"{path}: {'not a file' if os.path.lexists(path) else 'does not exist'}")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _encode(image: np.ndarray, suffix: str) -> bytes:
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix == ".jpg" else []
    return cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)[1].tobytes()
