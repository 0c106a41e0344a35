"""Image files: finding them, reading the common kinds as RGB, and the bytes a record keeps."""

import collections
import glob
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mis_jax.datasets.reading import Notes, Reading
from mis_jax.errors import InputError

# What a photo can be: no PDF, EPS or other documents that Pillow would take as well.
_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset(s for s, kind in Image.registered_extensions().items() if kind in _FORMATS)
SUFFIXES |= {".avif", ".heic", ".heif"}  # images as well, and named where they cannot be read
MIN_SIDE = 16  # pixels; nothing can be learnt from a smaller image
_ORIENTATION = 0x0112  # EXIF tag
_BLANK = 8  # levels of 255 between the least and the greatest value; JPEG turns grey into 2 or 3


class Picture(NamedTuple):
    """An image as it is meant to be seen, and how it came to be so.

    Attributes:
      pixels: uint8 [H, W, 3] RGB.
      orientation: the EXIF tag that was applied, 1 to 8; 1: as stored.
      notes: what was odd about the file.
    """

    pixels: np.ndarray
    orientation: int = 1
    notes: Notes = ()


class Prepared(NamedTuple):
    """What a record keeps of an image file, what that decodes to, and what was odd about it."""

    encoded: bytes
    image: np.ndarray  # uint8 [H, W, 3] RGB, `decode(encoded)`
    notes: Notes = ()


def find_images(source: str | Path) -> list[Path]:
    """Paths of the images that `source` names, sorted, each once.

    Args:
      source: a folder (searched recursively for the usual suffixes, hidden files left out), a .txt
        file of one path a line (relative ones from the folder of the list), a glob pattern
        (`**` crosses folders), or one image file. Lists and patterns take whatever they name.

    Raises:
      InputError: where a path does not exist, or no image is found.
    """
    path = Path(source)
    if path.is_dir():
        found = [p for p in _walk(path) if p.suffix.lower() in SUFFIXES]
        remedy = f"the folder is searched for {' '.join(sorted(SUFFIXES))}"
    elif path.is_file() and path.suffix.lower() == ".txt":
        found = _read_list(path)
        remedy = "give it one image path a line"
    elif path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"{source} is neither a folder, an image nor a .txt list of images.")
        found, remedy = [path], ""
    elif glob.has_magic(str(source)):
        found = [Path(p) for p in glob.glob(str(source), recursive=True) if os.path.isfile(p)]
        remedy = "quote the pattern, and use ** to cross folders"
    else:
        raise InputError(f"{source} does not exist; give a folder, a .txt list or a glob pattern.")
    if not found:
        raise InputError(f"{source} names no image; {remedy}.")
    return sorted(set(found))


def ignored_files(source: str | Path) -> dict[str, int]:
    """How many files of a folder `find_images` left out, by suffix; empty unless it is a folder."""
    if not Path(source).is_dir():
        return {}
    found = (p.suffix.lower() for p in _walk(Path(source)))
    counts = collections.Counter(s or "no suffix" for s in found if s not in SUFFIXES)
    return dict(sorted(counts.items()))


def image_ids(source: str | Path, paths: list[Path]) -> list[str]:
    """Unique names of images: the posix path below the folder `source`, or below what all share."""
    absolute = [os.path.abspath(p) for p in paths]
    shared = {os.path.dirname(p) for p in absolute}
    root = os.path.abspath(source) if Path(source).is_dir() else os.path.commonpath(shared)
    names = (Path(p).relative_to(root).as_posix() for p in absolute)
    return [os.fsencode(n).decode("utf-8", "backslashreplace") for n in names]


def read_image(source: str | Path | bytes) -> np.ndarray:
    """The image of a file, or of its bytes, as it is meant to be seen: uint8 [H, W, 3] RGB.

    Grey, palette and CMYK become RGB, transparency is laid over white, the EXIF rotation is
    applied, and of several frames the first is taken. 16-bit values give their high byte; 32-bit
    and floating-point ones, which have no fixed white, are stretched from their least to their
    greatest.

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
    picture = _load(source, name)
    return Picture(np.asarray(_upright(picture, name)), _orientation(picture))


def prepare(path: str | Path, max_side: int, reading: Reading | None = None) -> Prepared:
    """The bytes that a record keeps of an image file, and what they decode to.

    An upright 8-bit RGB or grey JPEG or PNG of at most `max_side` pixels (0: any size) is kept byte
    for byte. Others are read by `read_image`, shrunk by area averaging, and stored as JPEG of
    quality 95 if they were JPEG, else as PNG.

    Args:
      path: the file.
      max_side: pixels.
      reading: as `read_picture` takes it.

    Raises:
      InputError: names the file and why it cannot be used.
    """
    name = str(path)
    data = _read(path)
    picture = _load(data, name)
    if not _storable(picture, data) or 0 < max_side < max(picture.size):
        suffix = ".jpg" if picture.format in ("JPEG", "MPO") else ".png"
        data = _encode(shrink(np.asarray(_upright(picture, name)), max_side), suffix)
    image = decode(data, name)
    if min(image.shape[:2]) < MIN_SIDE:
        height, width = image.shape[:2]
        raise InputError(f"{name}: too small: {width}x{height} pixels, at least {MIN_SIDE} a side")
    return Prepared(data, image)


def decode(encoded: bytes, name: str = "the stored image") -> np.ndarray:
    """Decodes the bytes of a record: uint8 [H, W, 3] RGB, rotation tags ignored.

    Raises:
      InputError: if they are no image that OpenCV reads.
    """
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"{name}: cannot be decoded ({error.err})") from error
    if image is None:
        raise InputError(f"{name}: cannot be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def shrink(image: np.ndarray, max_side: int) -> np.ndarray:
    """uint8 [H, W, 3] of at most `max_side` pixels a side, by area averaging; 0: any size."""
    height, width = image.shape[:2]
    longest = max(height, width)
    if not 0 < max_side < longest:
        return image
    size = [max(1, round(side * max_side / longest)) for side in (width, height)]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def is_blank(image: np.ndarray) -> bool:
    """Whether uint8 [H, W, C] shows nothing: no channel's values are over 8 levels apart.

    A frame of one colour stays so as JPEG, a fading sky does not become so.
    """

    def flat(part: np.ndarray) -> bool:
        values = part.reshape(-1, part.shape[-1])
        return bool((values.max(0).astype(int) - values.min(0) <= _BLANK).all())

    return flat(image[::16, ::16]) and flat(image)  # a few pixels tell most


def _walk(folder: Path) -> Iterator[Path]:
    """The files below a folder; links to folders are followed, each folder is entered once."""
    seen = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield from (Path(here, f) for f in files if not f.startswith("."))


def _read_list(path: Path) -> list[Path]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text; give it one image path a line.") from None
    found = [path.parent / line.strip() for line in lines if line.strip()]
    missing = [p for p in found if not p.is_file()]
    if missing:
        raise InputError(
            f"{path} names {len(missing)} of {len(found)} files that do not exist, the first is "
            f"{missing[0]}; correct the list (its relative paths start at {path.parent})."
        )
    return found


def _read(path: str | Path) -> bytes:
    if not os.path.isfile(path):  # a device or pipe would block for ever
        raise InputError(f"{path}: {'not a file' if os.path.lexists(path) else 'does not exist'}")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _load(source: str | Path | bytes, name: str) -> Image.Image:
    """The decoded first frame, not yet rotated or converted."""
    data = source if isinstance(source, bytes) else _read(source)
    if not data:
        raise InputError(f"{name}: the file is empty")
    try:
        picture = Image.open(io.BytesIO(data), formats=[f for f in _FORMATS if f in Image.OPEN])
        picture.load()
    except UnidentifiedImageError:
        reason = "not an image of a kind that can be read; convert it to JPEG or PNG"
        raise InputError(f"{name}: {reason}") from None
    except Image.DecompressionBombError as error:
        assert Image.MAX_IMAGE_PIXELS is not None  # else there is no such error
        limit = 2 * Image.MAX_IMAGE_PIXELS
        raise InputError(f"{name}: more than {limit} pixels; shrink it") from error
    except Exception as error:  # the decoders raise all kinds for damaged data
        raise InputError(f"{name}: truncated or damaged ({error})") from error
    return picture


def _orientation(picture: Image.Image) -> int:
    try:
        return picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # unreadable EXIF data does not make the picture unreadable
        return 1


def _upright(picture: Image.Image, name: str) -> Image.Image:
    try:
        rgb = _to_rgb(picture)
    except ValueError as error:
        raise InputError(f"{name}: colours of mode {picture.mode} cannot be read") from error
    rgb.info.clear()
    rgb.getexif()[_ORIENTATION] = _orientation(picture)
    return ImageOps.exif_transpose(rgb)


def _to_rgb(picture: Image.Image) -> Image.Image:
    deep = picture.mode == "I" and picture.format in ("PNG", "PPM")
    if deep or picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        values = np.asarray(picture, np.float64)
        low, high = values.min(), values.max()
        if not np.isfinite(high - low):
            raise ValueError("values that are not finite")
        grey = (values - low) / (high - low or 1.0) * 255
        return Image.fromarray(np.round(grey).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture.convert("RGB")


def _storable(picture: Image.Image, data: bytes) -> bool:
    """Whether the bytes of the file are seen the same by every decoder."""
    plain = picture.mode in ("L", "RGB") and not picture.has_transparency_data
    if not plain or _orientation(picture) != 1 or getattr(picture, "n_frames", 1) > 1:
        return False
    eight_bit = picture.format == "PNG" and data[24] == 8  # the bit depth in the PNG header
    return picture.format in ("JPEG", "MPO") or eight_bit


def _encode(image: np.ndarray, suffix: str) -> bytes:
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix == ".jpg" else []
    return cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)[1].tobytes()
