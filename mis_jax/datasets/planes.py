"""The values of a mask file with their meaning kept: indices of a palette, greys, or colours."""

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from mis_jax.datasets import jpeg, png, tiff
from mis_jax.datasets.orientation import as_stored
from mis_jax.errors import InputError

_LOSSY = {"JPEG": "a JPEG", "MPO": "a JPEG", "JPEG2000": "a JPEG", "AVIF": "an AVIF"}
_NEAR = 16  # levels between the channels of a grey that was stored with losses
_FLAT = 32  # colours; a palette of more is of a photo
_ORIENTATION, _BITS, _WHITE_IS_0, _SOFTWARE, _SAMPLE_FORMAT = 274, 258, 262, 305, 339  # TIFF tags
_NO_DATA, _NO_PAGE = 42113, 1 | 4  # GDAL's tag; bits of a page's kind: reduced, a mask
_DEEP = {1: np.uint32, 2: np.int32}  # of 32 bits by their sample format
_PNG_BITS, _PNG_COLOURS = 24, 25  # bytes of a PNG's header
_GREY_BITS = {2: 85, 4: 17}  # bits -> what Pillow multiplies such greys with
_MOST = 1 << 27  # pixels of a file that tifffile reads


class Plane(NamedTuple):
    """One value a pixel.

    Attributes:
        pixels: [H, W] as stored, bool, integers or floating-point numbers; of kind "colour" uint64
            65536 R + 256 G + B, or the same in steps of 16 bits.
        kind: "grey", "palette" or "colour".
        most: the greatest value that a pixel could have.
        palette: uint8 [N, 3], of kind "palette".
        alpha: [H, W], 0 where it is transparent, if that differs between pixels.
        orientation: the file's own EXIF tag, 1 to 8, not yet applied.
        lossy: the kind of a file that keeps values but nearly, such as "a JPEG"; else empty.
        no_data: bool [H, W], where the value is the one that GDAL calls no data, other than 0.
    """

    pixels: np.ndarray
    kind: str
    most: int
    palette: np.ndarray | None = None
    alpha: np.ndarray | None = None
    orientation: int = 1
    lossy: str = ""
    no_data: np.ndarray | None = None


def read_plane(path: Path) -> Plane:
    """The values of a mask file. Greys that are stored as RGB are greys.

    Raises:
        InputError: names the file that cannot be read, is damaged, or has several pages.
    """
    try:
        data = path.read_bytes()
        if png.is_png(data):
            png.check(data, "cannot be read")
        if jpeg.is_jpeg(data):
            jpeg.check(data, "cannot be read")
        plane = _guarded(lambda: _by_pillow(data))
        plane = plane or _guarded(lambda: _by_tifffile(data)) or _unknown()
        if not plane.pixels.size:
            raise InputError("cannot be read: it has no pixels")
        return plane
    except InputError as error:
        raise InputError(f"the mask {path} {error}") from error
    except OSError as error:
        raise InputError(f"the mask {path} cannot be read ({error.strerror})") from error


def check_file(path: Path) -> None:
    """For decoders that would make room for whatever a damaged file says that it holds.

    Raises:
        InputError: the header or a chunk of a PNG is damaged, or there are too many pixels.
    """
    try:
        Image.open(path).verify()
    except Image.DecompressionBombError as error:
        raise InputError(f"the mask {path} cannot be read; {_too_many(error)}") from error
    except Exception as error:
        raise InputError(f"the mask {path} cannot be read; save it as PNG") from error


def values(pixels: np.ndarray) -> np.ndarray:
    """The different values of an array, ascending: `np.unique`, fast for small integers."""
    if pixels.dtype.kind in "bui" and pixels.size and pixels.min() >= 0 and pixels.max() < 1 << 16:
        return np.flatnonzero(np.bincount(pixels.ravel())).astype(pixels.dtype)
    return np.unique(pixels)


def _guarded(read: Callable[[], Plane | None]) -> Plane | None:
    """What `read` gives; None where it does not know the kind of file."""
    try:
        return read()
    except InputError:
        raise
    except (UnidentifiedImageError, tifffile.TiffFileError):
        return None
    except Image.DecompressionBombError as error:
        raise InputError(f"cannot be read; {_too_many(error)}") from error
    except Exception as error:  # the decoders raise all kinds for damaged data
        raise InputError(f"cannot be read; save it as PNG ({error})") from error


def _unknown() -> Plane:
    raise InputError("cannot be read; save it as PNG")


def _by_pillow(data: bytes) -> Plane | None:
    picture = Image.open(io.BytesIO(data))
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format == "TIFF":
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            frames = _full_pages(file)
    if frames > 1:
        raise InputError(_pages(frames))
    bits = _bits(picture, data)
    orientation = picture.getexif().get(_ORIENTATION, 1)
    if bits > 8 and picture.format == "TIFF" and picture.mode in ("RGB", "RGBA"):
        return None  # Pillow has the high bytes only, of PNG as well
    if picture.format == "TIFF" and not _covered(picture):
        raise InputError("cannot be read: it is cut off; save it as PNG")
    if "deflate" in str(picture.info.get("compression")):
        _check_sums(data)
    white = _white(picture)
    picture.load()
    lossy = _lossy(picture, data)
    if bits > 8 and picture.format == "PNG" and data[_PNG_COLOURS] != 0:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert pixels is not None  # Pillow has read it
        plane = _channels(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])
    elif _is_cut_out(picture):
        plane = _channels(np.asarray(picture.convert("RGBA")))
    elif picture.mode == "P":
        palette = np.asarray(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
        plane = Plane(np.asarray(picture), "palette", 255, palette)
    else:
        plane = _channels(_array(picture, bits), _NEAR if lossy else 0)
        if picture.mode == "L" and bits in _GREY_BITS:
            plane = plane._replace(most=2**bits - 1)
        if white and plane.kind == "grey":  # which Pillow has stretched to all bits
            greys = np.rint(plane.pixels * (white / plane.most)).astype(plane.pixels.dtype)
            plane = plane._replace(pixels=greys, most=white)
    if picture.format == "TIFF":  # which Pillow has turned already
        plane = plane._replace(pixels=as_stored(plane.pixels, orientation))
        plane = _with_no_data(plane, picture.tag_v2.get(_NO_DATA))  # type: ignore[attr-defined]
        if plane.alpha is not None:
            plane = plane._replace(alpha=as_stored(plane.alpha, orientation))
    return plane._replace(orientation=orientation, lossy=lossy)


def _white(picture: Image.Image) -> int:
    """The greatest value that a PGM of other than 8 or 16 bits says it has; else 0."""
    tiles = picture.tile  # type: ignore[attr-defined]
    return int(tiles[0].args[1]) if tiles and tiles[0].codec_name.startswith("ppm") else 0


def _lossy(picture: Image.Image, data: bytes) -> str:
    """What `Plane.lossy` is of an opened picture."""
    if picture.format == "WEBP":
        return "" if b"VP8L" in data[:1024] else "a WebP"
    if picture.info.get("compression") == "jpeg":  # of a TIFF
        return "a JPEG"
    return _LOSSY.get(picture.format or "", "")


def _is_cut_out(picture: Image.Image) -> bool:
    """Whether a picture has a transparent colour or index, and more others than a mask has."""
    if "transparency" not in picture.info or picture.mode not in ("P", "RGB"):
        return False
    return picture.getcolors(_FLAT) is None


def _check_sums(data: bytes) -> None:
    """Raises where the checksums of deflated strips, which libtiff leaves out, do not fit."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        file.pages[0].asarray()


def _covered(picture: Image.Image) -> bool:
    """Whether the strips or tiles of a TIFF reach its last row and column."""
    tiles = [tile[1] for tile in picture.tile]  # type: ignore[attr-defined]
    right, bottom = (max(tile[k] for tile in tiles) for k in (2, 3))
    return (right, bottom) == picture.size or (bottom, right) == picture.size


def _bits(picture: Image.Image, data: bytes) -> int:
    """Bits of a value."""
    if picture.format == "PNG":
        return data[_PNG_BITS]
    bits = picture.tag_v2.get(_BITS, 1) if picture.format == "TIFF" else 8  # type: ignore[attr-defined]
    return max(bits) if isinstance(bits, tuple) else bits


def _array(picture: Image.Image, bits: int) -> np.ndarray:
    """The values of an opened picture, of the type that the file has."""
    tags = picture.tag_v2 if picture.format == "TIFF" else {}  # type: ignore[attr-defined]
    pixels = np.asarray(picture)
    if picture.mode == "1":
        # tifffile writes the bits as they are and calls 0 white, so Pillow inverts them.
        as_they_are = tags.get(_WHITE_IS_0) == 0 and "tifffile" in str(tags.get(_SOFTWARE, ""))
        return ~pixels if as_they_are else pixels
    if picture.mode == "L" and bits in _GREY_BITS:
        return pixels // _GREY_BITS[bits]
    if picture.mode == "L" and tags.get(_SAMPLE_FORMAT) == (2,):
        return pixels.view(np.int8)
    if picture.mode == "I" and bits == 32:
        return pixels.view(_DEEP[tags.get(_SAMPLE_FORMAT, (1,))[0]])
    if picture.mode == "I":
        return pixels.astype(np.uint16 if pixels.min() >= 0 else np.int16)
    if picture.mode in ("LA", "PA", "RGB", "RGBA", "L", "F") or picture.mode.startswith("I;16"):
        return np.asarray(picture.convert("RGBA")) if picture.mode == "PA" else pixels
    raise InputError(f"cannot be read: its colours are {picture.mode}; save it as PNG")


def _by_tifffile(data: bytes) -> Plane:
    """TIFF files of kinds that Pillow does not know: 16 bits a channel, 64-bit numbers, ..."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it cannot read, it raises
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        if (count := _full_pages(file)) > 1:
            raise InputError(_pages(count))
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        if max(page.size, page.tilewidth * page.tilelength) > _MOST:
            raise InputError(f"cannot be read; {page.size} values are too many")
        pixels, axes = page.asarray(), page.axes
        tag, no_data = page.tags.get(_ORIENTATION), page.tags.get(_NO_DATA)
    if axes == "SYX":
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] > 4:
        raise InputError(f"cannot be read: it is an array of {list(pixels.shape)}; save it as PNG")
    plane = _channels(pixels)._replace(orientation=tag.value if tag else 1)
    return _with_no_data(plane, no_data.value if no_data else None)


def _full_pages(file: tifffile.TiffFile) -> int:
    """The pages of a TIFF that are no overviews or masks of others."""
    kinds = [page.keyframe.subfiletype for page in tiff.pages(file) if page.keyframe]
    return sum(not kind & _NO_PAGE for kind in kinds)


def _with_no_data(plane: Plane, said: str | None) -> Plane:
    """A plane with its `no_data` by the words of GDAL's tag."""
    try:
        value = float(said or 0)
    except ValueError:
        return plane
    if plane.kind != "grey" or value == 0:
        return plane
    there = np.isnan(plane.pixels) if np.isnan(value) else plane.pixels == value
    return plane._replace(no_data=there) if there.any() else plane


def _channels(pixels: np.ndarray, near: int = 0) -> Plane:
    """The plane of grey values [H, W], or [H, W, C] of grey or RGB with or without alpha.

    Colours whose channels are at most `near` levels apart are greys.
    """
    alpha = None
    if pixels.ndim == 3:
        if pixels.shape[2] in (2, 4):
            pixels, last = pixels[..., :-1], pixels[..., -1]
            alpha = last if (last != last[:1, :1]).any() else None
        first = pixels[..., 0]
        if all((first == pixels[..., k]).all() for k in range(1, pixels.shape[2])):
            pixels = first
        elif near and (np.ptp(pixels.astype(np.int16), axis=2) <= near).all():
            pixels = pixels[..., 1]  # green, which is nearest to the brightness
    greatest = most(pixels.dtype)
    if pixels.ndim == 2:
        return Plane(np.ascontiguousarray(pixels), "grey", greatest, alpha=alpha)
    if pixels.dtype.kind != "u" or pixels.dtype.itemsize > 2:
        raise InputError(f"cannot be read: it has {pixels.dtype} values in colours; save it as PNG")
    step = 8 * pixels.dtype.itemsize
    r, g, b = (pixels[..., k].astype(np.uint64) for k in range(3))
    return Plane((r << (2 * step)) | (g << step) | b, "colour", greatest, alpha=alpha)


def most(dtype: np.dtype) -> int:
    """The greatest value of a type; of floating-point numbers 1, as probabilities have it."""
    return 1 if dtype.kind in "bf" else int(np.iinfo(dtype).max)


def _too_many(error: Exception) -> str:
    return f"it has too many pixels ({str(error).partition(',')[0]})"


def _pages(count: int) -> str:
    return f"has {count} pages; save each object's as a file, NAME_0.png, NAME_1.png"
