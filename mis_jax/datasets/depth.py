"""Values of more than 8 bits -> 8, by one rule for records, evaluation, predictors and annotator.

Integers of 9 to 16 bits whose values use their range give their high byte, and so do those of a
floating-point file within 0 to 1, where 1 is white. Their range is used if the 99.9 percentile
lies above a quarter of it, and the percentiles 0.1 and 99.9 are more than a 16th of it apart, which
is 16 of the 256 levels. 12 or 14 bits stored in 16 fail the first, temperatures the second.

All others, integers of 32 bits or with a sign, and other floating-point values, have no white to
know of. Both are stretched linearly from percentile 0.1 to 99.9 of all bands together, which keeps
hues; `config.images.range` says in their place what is black and what is white.

What is not finite, or beyond 1e19, or the value that the file names for no data (GDAL's tag), or
one of the usual ones (-9999, -32768, ...) far below all others, is left out and drawn black. The
greatest value of an integer type far above all others, which is overflow or a fill, has no part in
the range, and is drawn white.
"""

import numpy as np

from mis_jax.datasets.reading import Notes
from mis_jax.errors import InputError

LITTLE = (
    "its values use little of their range and are stretched from percentile 0.1 to 99.9; "
    "config.images.range fixes it"
)
OPEN = (
    "its values have no known white and are stretched from percentile 0.1 to 99.9; "
    "config.images.range fixes it"
)
NO_DATA = "pixels without data, drawn black"
Range = tuple[float, float]
_TOP, _SPAN = 1 / 4, 1 / 16  # of the range that values have to use
_HUGE = 1e19  # what is meant to be no number, such as 1e20 and 3.4e38
_USUAL = (-999.0, -9999.0, -32767.0, -32768.0, -99999.0, -999999.0)  # for "no data"
_FAR = 1 / 4  # of the span of all others, which "no data" and overflow lie off them
_SAMPLE = 1 << 20  # pixels that percentiles are taken of, evenly spread over larger images
_CHUNK = 1 << 20  # pixels that are computed at once


def eight_bits(
    values: np.ndarray,
    bits: int,
    name: str,
    *,
    there: np.ndarray | None = None,
    nodata: float | None = None,
    range: Range | None = None,
    inverted: bool = False,
) -> tuple[np.ndarray, Notes]:
    """Levels uint8 [H, W, C] of values, and what was odd about them.

    Args:
        values: integers or floating-point [H, W, C].
        bits: of unsigned integers that have a white, 1 to 16; 0: there is no fixed white.
        name: of the file.
        there: bool [H, W], pixels that count; None: all.
        nodata: the value of the file for no data.
        range: black and white, where the user says so; not used for 8 bits and fewer.
        inverted: whether black and white change places.

    Raises:
        InputError: no pixel has data.
    """
    if 0 < bits <= 8:
        levels = values.astype(np.uint8)
        if bits < 8:
            levels = (levels * 255.0 / ((1 << bits) - 1)).clip(0, 255).astype(np.uint8)
        return (255 - levels if inverted else levels), ()
    data = _data(values, nodata)
    counted = data if there is None else data & there
    if not counted.any():
        raise InputError(f"{name}: no pixel has a value that is finite and not that for no data")
    black, white, notes = _range(values, bits, counted, range)
    levels = _levels(values, black, white, bits)
    if inverted:
        levels = 255 - levels
    if not data.all():
        levels[~data] = 0
        notes = (*notes, NO_DATA)
    return levels, notes


def _data(values: np.ndarray, nodata: float | None) -> np.ndarray:
    """bool [H, W], pixels whose bands all have a value."""
    good = np.ones(values.shape[:2], bool)
    for band in np.moveaxis(values, -1, 0):
        if band.dtype.kind == "f":
            good &= np.abs(band) <= min(_HUGE, float(np.finfo(band.dtype).max))  # false of NaN
        if nodata is not None:
            with np.errstate(over="ignore"):
                good &= band != nodata
    if values.dtype.kind in "if" and good.any():
        chosen = values[good]
        least = float(chosen.min())
        if least in _USUAL:
            others = chosen[chosen != least].astype(np.float64)
            if not len(others) or others.min() - least > _FAR * np.ptp(others):
                good &= (values != least).all(-1)
    return good


def _range(
    values: np.ndarray, bits: int, counted: np.ndarray, range: Range | None
) -> tuple[float, float, Notes]:
    """What is black and what is white."""
    if range is not None:
        return *range, ()
    chosen = values.reshape(-1, values.shape[-1])
    if not counted.all():
        chosen = values[counted]
    chosen = _without_overflow(chosen[:: 1 + (len(chosen) - 1) // _SAMPLE])
    least, most = float(chosen.min()), float(chosen.max())
    low, high = (float(q) for q in np.percentile(chosen, (0.1, 99.9)))
    unit = values.dtype.kind == "f" and least >= 0 and most <= 1
    full = float((1 << bits) - 1) if bits else 1.0
    used = high > _TOP * full and high - low > _SPAN * full
    if (bits or unit) and (used or least == most):
        return 0.0, full, ()
    if high <= low:
        low, high = least, most
    return low, high, (LITTLE if bits or unit else OPEN,)


def _without_overflow(values: np.ndarray) -> np.ndarray:
    """Values [N, C] without the greatest of their integer type, where that lies far above all."""
    if values.dtype.kind == "f":
        return values
    overflow = values == np.iinfo(values.dtype).max
    if not overflow.any() or overflow.all():
        return values
    others = values[~overflow].astype(np.float64)
    far = np.iinfo(values.dtype).max - others.max() > _FAR * np.ptp(others)
    return others[:, None] if far else values


def _levels(values: np.ndarray, black: float, white: float, bits: int) -> np.ndarray:
    """Levels uint8: the high byte of integers of the whole range, else linear and rounded."""
    if bits and (black, white) == (0, (1 << bits) - 1):
        return (values >> (bits - 8)).astype(np.uint8)
    if values.dtype == np.uint16:  # a table is faster
        return np.take(_linear(np.arange(65536), black, white), values, mode="clip")
    levels = np.empty(values.shape, np.uint8)
    rows = max(1, _CHUNK // values[0].size)
    for at in range(0, len(values), rows):
        levels[at : at + rows] = _linear(values[at : at + rows], black, white)
    return levels


def _linear(values: np.ndarray, black: float, white: float) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        part = (values.astype(np.float64) - black) / ((white - black) or 1.0)
        return np.nan_to_num(np.round(part.clip(0, 1) * 255)).astype(np.uint8)
