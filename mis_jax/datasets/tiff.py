"""TIFF files by tifffile: any depth, planar or not, many bands, pages, overviews and masks.

The first page that is neither an overview nor a mask is taken. A file is refused where its data
lie beyond its end, do not fill their strips or tiles, or, of JPEG in it, do not add up.
"""

import collections
import io
import logging
from collections.abc import Iterator

import numpy as np

from mis_jax.datasets import jpeg
from mis_jax.datasets.bands import Bands
from mis_jax.datasets.pictures import MAX_PIXELS
from mis_jax.errors import InputError

PAGES = "several pages, of which the first is taken"
SPARSE = "parts of it that were never written, drawn black"
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_WHITE_IS_ZERO, _GREY, _RGB, _PALETTE, _MASK_ONLY, _CMYK, _YCBCR = range(7)
_JPEG = 7
# Bytes that one byte can become, by compression: none, LZW, Deflate, PackBits; or more than any
# picture worth seeing does.
_MOST = {1: 1, 5: 2800, 8: 1040, 32946: 1040, 32773: 64}
_MOST_ELSE = 10_000
_NODATA = 42113  # GDAL's tag
_ORIENTATION = 274


def is_tiff(data: bytes) -> bool:
    """Whether these are the first bytes of a TIFF file."""
    return data[:4] in _MAGIC


def read(data: bytes, name: str) -> Bands | None:
    """What is in a TIFF file; None: kinds that libtiff reads and tifffile does not, such as fax.

    Raises:
        InputError: names the file, and its damage or colours.
    """
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it cannot read, it raises
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            return _read(file, data, name)
    except InputError:
        raise
    except Exception as error:  # it raises all kinds for damaged data
        raise InputError(f"{name}: truncated or damaged ({error})") from error


def _read(file, data: bytes, name: str) -> Bands | None:
    import tifffile

    page, several = _first(file)
    if page.compression not in tifffile.TIFF.DECOMPRESSORS:
        return None
    if page.photometric == _YCBCR and page.compression != _JPEG:
        return None
    if page.photometric not in range(7):
        colours = getattr(page.photometric, "name", page.photometric)
        raise InputError(f"{name}: colours of kind {colours} cannot be read; convert it to RGB")
    if page.imagewidth * page.imagelength > MAX_PIXELS or page.nbytes > 8 * MAX_PIXELS:
        raise InputError(f"{name}: more than {MAX_PIXELS} pixels; shrink it")
    if page.dtype is None or page.dtype.kind not in "uifb":
        raise InputError(f"{name}: values of type {page.dtype} cannot be read; write real numbers")
    if not isinstance(page.bitspersample, int):
        raise InputError(f"{name}: bands of {page.bitspersample} bits cannot be read together")
    notes = (PAGES,) if several else ()
    if _check_segments(page, data, name):
        notes = (*notes, SPARSE)
    values = page.asarray(squeeze=False, maxworkers=1).reshape(page.shaped)[:, 0]
    values = np.moveaxis(values, 0, 2).reshape(*values.shape[1:3], -1)
    found = _bands(page, values)
    if found.values.shape[-1] < found.colours:
        raise InputError(f"{name}: truncated or damaged (it lacks bands of its colours)")
    return found._replace(notes=notes)


def pages(file) -> Iterator:
    """The pages of a `tifffile.TiffFile`; ValueError where one leads back to another."""
    seen = set()
    for page in file.pages:
        if page.offset in seen:
            raise ValueError("its pages go round in a circle")
        seen.add(page.offset)
        yield page


def _first(file) -> tuple:
    """The page to take, and whether there are others of its kind."""
    full = []
    if file.is_imagej or file.is_shaped:
        collections.deque(pages(file), 0)  # `series` goes through all of them
    for page in pages(file):
        if not page.keyframe.subfiletype & (_REDUCED | _MASK):
            full.append(page)
        if len(full) == 2:
            break
    page = (full or [file.pages[0]])[0].aspage()
    several = len(full) > 1 or page.imagedepth > 1
    if file.is_imagej or file.is_shaped:  # one directory may stand for many pages
        several |= file.series[0].size > page.size
    return page, several


def _check_segments(page, data: bytes, name: str) -> bool:
    """Whether strips or tiles were never written; raises where they lie beyond the file."""
    tables = page.jpegtables
    for at, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if at + count > len(data):
            raise InputError(f"{name}: truncated or damaged (its data lie beyond its end)")
        if page.compression == _JPEG and count:
            part = data[at : at + count]
            jpeg.check(tables[:-2] + part[2:] if tables else part, name)
    written = sum(bool(count) for count in page.databytecounts)
    if not written:
        raise InputError(f"{name}: it has no data; write it anew")
    most = sum(page.databytecounts) * _MOST.get(int(page.compression), _MOST_ELSE)
    stored = page.size * page.bitspersample // 8
    if stored * written // len(page.databytecounts) > most:
        raise InputError(f"{name}: truncated or damaged (its data are too few)")
    return written < len(page.databytecounts)


def _bands(page, values: np.ndarray) -> Bands:
    bits = page.bitspersample
    known = values.dtype.kind in "ub" and bits <= 16
    colours, extras = (3 if page.photometric in (_RGB, _YCBCR) else 1), list(page.extrasamples)
    if page.photometric == _PALETTE:
        values, bits, colours = _palette(page, values), 8, 3
    elif page.photometric == _CMYK:
        values, bits, colours = _cmyk(values, bits), 8, 3
    if len(extras) != values.shape[-1] - colours:  # it does not say what the others are
        extras = []
    alpha = next((colours + k for k, kind in enumerate(extras) if kind in (1, 2)), None)
    tag = page.tags.valueof(_ORIENTATION)
    return Bands(
        values.astype(np.uint8) if values.dtype == bool else values,
        bits if known else 0,
        colours,
        alpha,
        doubtful=True,
        premultiplied=alpha is not None and extras[alpha - colours] == 1,
        inverted=page.photometric == _WHITE_IS_ZERO,
        nodata=_number(page.tags.valueof(_NODATA)),
        orientation=tag if tag in range(1, 9) else 1,
    )


def _number(text: object) -> float | None:
    try:
        return float(str(text).strip("\0 "))
    except ValueError:
        return None


def _palette(page, values: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3 + n] of indices into the colour map."""
    colours = np.asarray(page.colormap)
    if colours.max() > 255:  # some writers fill 8 of the 16 bits
        colours = colours >> 8
    found = colours.T.astype(np.uint8)[values[..., 0]]
    return np.concatenate([found, values[..., 1:].astype(np.uint8)], -1)


def _cmyk(values: np.ndarray, bits: int) -> np.ndarray:
    """uint8 [H, W, 3 + n] of inks, without a colour profile."""
    levels = (values >> (bits - 8)).astype(np.uint8)
    ink = 255 - levels[..., :4].astype(np.uint16)
    colours = (ink[..., :3] * ink[..., 3:] + 127) // 255
    return np.concatenate([colours.astype(np.uint8), levels[..., 4:]], -1)
