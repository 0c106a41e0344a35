"""Image files of every kind -> their bands: who reads which, and what is odd about a file.

JPEG by libjpeg-turbo (jpeg.py), TIFF by tifffile (tiff.py), PNG, JPEG 2000 and PPM of 16 bits with
all of them; everything else by Pillow. Damage is named where a kind lets it show: by checksums
(PNG, most of TIFF's compressions), by data that do not add up (JPEG), by data that end too early
(all). In BMP, PPM, GIF, WebP, AVIF and uncompressed TIFF bytes that changed cannot be told.
"""

import io
import re
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from mis_jax.datasets import jpeg, png, tiff
from mis_jax.datasets.bands import Bands
from mis_jax.datasets.finding import FORMATS
from mis_jax.datasets.pictures import MAX_PIXELS
from mis_jax.errors import InputError

FRAMES = "several frames, of which the first is taken"
_ORIENTATION = 0x0112  # EXIF tag
_GAP = rb"(?:\s|#[^\n]*\n)+"
_PPM = re.compile(rb"P[56]" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)\s")
_SIZ = b"\xff\x4f\xff\x51"  # start of JPEG 2000's code stream


class Opened(NamedTuple):
    """What is in a file.

    Attributes:
      bands: its values, as stored.
      kind: Pillow's word for it.
      plain: whether every decoder sees it the same: an upright JPEG or PNG of 8 bits, grey or RGB.
    """

    bands: Bands
    kind: str
    plain: bool = False

    @property
    def said(self) -> str:
        """The kind, and how deep it is if not of 8 bits: "PNG of 16 bits"."""
        values = self.bands.values.dtype
        if values.kind == "f":
            return f"{self.kind} of floating-point numbers"
        return self.kind if values.itemsize == 1 else f"{self.kind} of {8 * values.itemsize} bits"


def read(data: bytes, name: str) -> Opened:
    """What is in an image file.

    Raises:
      InputError: names the file, and why it cannot be read.
    """
    if not data:
        raise InputError(f"{name}: the file is empty")
    if tiff.is_tiff(data):
        found = tiff.read(data, name)
        if found is not None:
            return Opened(found, "TIFF")
    chunks = png.check(data, name) if png.is_png(data) else {}
    try:
        with Image.open(io.BytesIO(data), formats=_readable()) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise InputError(f"{name}: more than {MAX_PIXELS} pixels; shrink it")
            return _opened(picture, data, name, chunks)
    except InputError:
        raise
    except UnidentifiedImageError:
        if jpeg.is_jpeg(data):
            jpeg.check(data, name)
        reason = "not an image of a kind that can be read; convert it to JPEG or PNG"
        raise InputError(f"{name}: {reason}") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: more than {MAX_PIXELS} pixels; shrink it") from error
    except Exception as error:  # the decoders raise all kinds for damaged data
        raise InputError(f"{name}: truncated or damaged ({error})") from error


def _readable() -> list[str]:
    Image.init()
    return [kind for kind in FORMATS if kind in Image.OPEN]


def _opened(picture: Image.Image, data: bytes, name: str, chunks: dict) -> Opened:
    kind = picture.format or ""
    orientation = _orientation(picture)
    several = getattr(picture, "n_frames", 1) > 1
    plain, found = False, None
    if kind in ("JPEG", "MPO"):
        pixels = jpeg.decode(data, name)
        found = None if pixels is None else Bands(pixels, 8, 3)
        plain = found is not None
    elif kind == "PNG":
        if chunks[b"IHDR"][8] == 16:
            found = png.deep(data, chunks, name)
        plain = chunks[b"IHDR"][8] == 8 and chunks[b"IHDR"][9] in (0, 2) and b"tRNS" not in chunks
    elif kind == "JPEG2000":
        found = _deep_jpeg2000(data)
    elif kind == "PPM":
        found = _deep_ppm(data)
    found = found or _by_pillow(picture, name)
    notes = ((tiff.PAGES if kind == "TIFF" else FRAMES),) if several else ()
    found = found._replace(orientation=orientation, notes=notes)
    return Opened(found, kind, plain and orientation == 1 and not several)


def _orientation(picture: Image.Image) -> int:
    try:
        found = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # unreadable EXIF data does not make the picture unreadable
        return 1
    return found if found in range(1, 9) else 1


def _by_pillow(picture: Image.Image, name: str) -> Bands:
    """Whatever Pillow makes of it: 8 bits, or grey of more."""
    picture.load()
    mode = picture.mode
    if mode.startswith("I;16"):
        return Bands(np.asarray(picture).astype(np.uint16)[..., None], 16, 1)
    if mode in ("I", "F"):
        return Bands(np.asarray(picture)[..., None], 0, 1)
    if picture.has_transparency_data:
        return Bands(np.asarray(picture.convert("RGBA")), 8, 3, alpha=3)
    try:
        picture = picture if mode in ("L", "RGB") else picture.convert("RGB")
    except ValueError as error:
        raise InputError(f"{name}: colours of mode {mode} cannot be read") from error
    pixels = np.atleast_3d(np.asarray(picture))
    return Bands(pixels, 8, pixels.shape[-1])


def _deep_jpeg2000(data: bytes) -> Bands | None:
    """A JPEG 2000 file of 9 to 16 bits."""
    at = data.find(_SIZ)
    bits = (data[at + 42] & 0x7F) + 1 if 0 <= at < len(data) - 42 else 0
    if not 8 < bits <= 16 or data[at + 42] & 0x80:  # signed
        return None
    import imagecodecs

    values = np.atleast_3d(imagecodecs.jpeg2k_decode(data))
    colours = 3 if values.shape[-1] >= 3 else 1
    return Bands(values, bits, colours, alpha=colours if values.shape[-1] > colours else None)


def _deep_ppm(data: bytes) -> Bands | None:
    """A PGM or PPM file whose white is above 255, scaled to 16 bits unless it fills its own."""
    header = _PPM.match(data[:4096])
    if header is None or int(header[3]) < 256:
        return None
    width, height, white = (int(header[k]) for k in (1, 2, 3))
    colours = 3 if data[1:2] == b"6" else 1
    values = np.frombuffer(data, ">u2", width * height * colours, header.end())
    bits = white.bit_length()
    if white + 1 != 1 << bits:
        values, bits = (values.astype(np.uint32) * 65535 // white).clip(0, 65535), 16
    return Bands(values.astype(np.uint16).reshape(height, width, colours), bits, colours)
