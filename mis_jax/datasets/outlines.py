"""Outlines of COCO's annotations (polygons, run lengths) -> masks, to the pixel of pycocotools."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mis_jax.datasets.reading import Notes
from mis_jax.errors import InputError

CUT = "its outline leaves the photo, and was cut off at the border"
MOST = 1e5  # coordinates beyond are no pixels
LONGEST = 2e6  # pixels around a polygon; more is damage, and would take all memory
_BEYOND = 2  # pixels beyond the border that are no mistake
_SCALE = 5.0  # steps a pixel of the outlines, as pycocotools has it
_BITS = 60  # of a number in a compact string; no image has so many pixels


def decode(outline: Any, height: int, width: int) -> np.ndarray:
    """A `segmentation` of COCO's: bool [height, width], true on the object.

    Args:
        outline: polygons [[x, y, x, y, ...], ...] in pixels, whose union it is; one polygon
            [x, y, x, y, ...], as VIA has it; or {"size": [height, width], "counts": runs down the
            columns, or their compact string}.

    Raises:
        InputError: it is neither, or does not fit.
    """
    if isinstance(outline, dict):
        if runs_size(outline) != (height, width):
            raise InputError(f"its annotation is of {outline.get('size')}, not {[height, width]}")
        counts = outline.get("counts")
        return runs_mask(
            string_runs(counts) if isinstance(counts, str | bytes) else counts, height, width
        )
    mask = np.zeros((height, width), bool)
    for polygon in polygons(outline):
        mask |= polygon_mask(polygon, height, width)
    return mask


def polygons(outline: Any) -> list[np.ndarray]:
    """The polygons of an outline that is no dict: float64 [N, 2] each, (x, y) in pixels.

    Raises:
        InputError: there are none, or they are no numbers within reason.
    """
    if _is_polygon(outline):
        outline = [outline]
    if not (isinstance(outline, list) and outline and all(map(_is_polygon, outline))):
        raise InputError("its annotation is neither polygons nor run lengths")
    if not any(len(polygon) >= 6 for polygon in outline):
        raise InputError("its annotation has no polygon of three points")
    return [np.array(polygon, np.float64).reshape(-1, 2) for polygon in outline]


def check_points(parts: Sequence[np.ndarray], height: int, width: int) -> Notes:
    """`CUT`, if points (x, y) of an outline, float64 [N, 2] each, lie outside of the image.

    Raises:
        InputError: they are fractions of the image's size, no pixels.
    """
    points = np.concatenate(parts)
    least, greatest = points.min(0), points.max(0)
    if least.min() >= 0 and greatest.max() <= 1 and (points != np.round(points)).any():
        raise InputError(
            "its annotation has coordinates from 0 to 1, which are no pixels; multiply them by the "
            "image's width and height"
        )
    beyond = (least < -_BEYOND).any() or (greatest > (width + _BEYOND, height + _BEYOND)).any()
    return (CUT,) if beyond else ()


def runs_size(outline: dict) -> tuple[int, int] | None:
    """(height, width) that run lengths are of; None where they do not say."""
    size = outline.get("size")
    if not isinstance(size, list | tuple) or len(size) != 2:
        return None
    height, width = map(whole, size)
    return (height, width) if height and width else None


def whole(value: Any) -> int | None:
    """640, 640.0 and "640" are 640; None where it is no number of pixels."""
    try:
        number = float(value) if type(value) in (int, float, str) else 0.0
    except (ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() and 0 < number <= MOST else None


def string_runs(text: str | bytes) -> list[int]:
    """Run lengths from COCO's compact string: 5 bits a character, differences from the third on.

    Raises:
        InputError: the string is cut off or has other characters.
    """
    runs: list[int] = []
    value, bits = 0, 0
    for code in text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text:
        if not 48 <= code < 112:
            raise InputError(f"its annotation has {chr(code)!r} in the string of its runs")
        code -= 48
        if bits > _BITS:
            raise InputError("its annotation has a run in its string that no image has pixels for")
        value |= (code & 31) << bits
        bits += 5
        if not code & 32:  # the last of this number; its fifth bit is the sign
            value -= (code & 16) << (bits - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, bits = 0, 0
    if bits:
        raise InputError("its annotation has a string of runs that is cut off")
    return runs


def runs_mask(runs: Any, height: int, width: int) -> np.ndarray:
    """Run lengths down the columns, the first of background: bool [height, width].

    Raises:
        InputError: they are no numbers of pixels, or not as many as the image has.
    """
    counts = isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)
    if not counts or sum(runs) != height * width:
        raise InputError(f"its annotation has runs that do not add up to {width} x {height} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def polygon_mask(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels inside a polygon, as `rleFrPoly` of pycocotools' maskApi.c has them.

    The outline is traced in fifths of a pixel; where it crosses the middle of a column, the column
    changes between inside and outside from there on down.

    Args:
        points: float64 [N, 2], (x, y) in pixels.

    Returns:
        bool [height, width].

    Raises:
        InputError: it is longer than any outline in an image.
    """
    corners = (_SCALE * points + 0.5).astype(np.int64)  # towards zero, as C rounds
    around = np.abs(corners - np.roll(corners, -1, 0)).max(1).sum() / _SCALE
    if around > LONGEST:
        raise InputError(f"its annotation has a polygon of {around:,.0f} pixels around")
    steps = [_line(*pair) for pair in zip(corners, np.roll(corners, -1, 0), strict=True)]
    u, v = np.concatenate(steps, axis=1)
    x = (np.where(u[1:] < u[:-1], u[1:], u[1:] - 1) + 0.5) / _SCALE - 0.5
    y = (np.minimum(v[1:], v[:-1]) + 0.5) / _SCALE - 0.5
    crosses = (u[1:] != u[:-1]) & (np.floor(x) == x) & (x >= 0) & (x <= width - 1)
    x, y = x[crosses], np.ceil(np.clip(y[crosses], 0, height))
    changes = np.bincount((x * height + y).astype(np.int64), minlength=height * width + 1)
    inside = np.cumsum(changes[: height * width]) % 2 == 1
    return inside.reshape(width, height).T


def _line(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Every step of a line, in order: int64 [2, n], (x, y)."""
    (dx, dy), steep = np.abs(end - start), False
    if dx < dy:
        start, end, dx, dy, steep = start[::-1], end[::-1], dy, dx, True
    backwards = start[0] > end[0]
    if backwards:
        start, end = end, start
    along = np.arange(dx + 1)
    slope = (end[1] - start[1]) / dx if dx else 0.0
    line = np.stack([start[0] + along, (start[1] + slope * along + 0.5).astype(np.int64)])
    line = line[::-1] if steep else line
    return line[:, ::-1] if backwards else line


def _is_polygon(polygon: Any) -> bool:
    """An even number of coordinates, at least one point, all of them finite and within reason."""
    if not isinstance(polygon, list) or not polygon or len(polygon) % 2:
        return False
    return all(type(v) in (int, float) and abs(v) <= MOST for v in polygon)
