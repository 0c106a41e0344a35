"""The first clicks of a training sample, as RITM draws them (Sofiiuk et al. 2021).

Follows `MultiPointSampler` of isegm/data/points_sampler.py (SimpleClick) with the parameters of
the MIS experiment: one object per sample, so "other objects" are its background too.
"""

import functools
import math
from collections.abc import Sequence

import cv2
import numpy as np
from numba import njit

ORDER = 100  # what the model is told of every click that was placed at random
ERODE = 0.9  # probability of keeping positive clicks off the object's edge
ERODE_PIXELS = 3
MIN_ERODED = 10  # an eroded object of at most this many pixels is used whole
NEAR = 0.5  # probability of a negative click close to the object: strategy "border"
NEAR_RATIO = 0.1  # how close, of the square root of the object's area


def sample_clicks(
    mask: np.ndarray,
    rng: np.random.Generator,
    *,
    max_points: int = 24,
    gamma: float = 0.8,
    min_area: int = 1,
) -> np.ndarray:
    """Draws clicks on the object of `mask`, uint8 or bool [H, W] of 0 and 1.

    There are 1 + k positive clicks, k in 0..max_points - 1, and k negative ones, k in
    0..max_points, with P(k) proportional to gamma**k. An object of fewer than `min_area` pixels is
    none: then every click is negative and anywhere off it. Returns float32 [2 * max_points, 3],
    rows (row, col, order), positive clicks first, each half filled up with rows of -1.
    """
    mask = mask.view(np.uint8)
    area = cv2.countNonZero(mask)
    box = cv2.boundingRect(mask)
    points = np.full((2, max_points, 3), -1, np.float32)
    if area >= max(min_area, 1):
        count = 1 + _draw_count(max_points - 1, gamma, rng)
        _write(points[0], _positives(mask, box, count, rng))
    count = _draw_count(max_points, gamma, rng)
    near = (rng.random(count) < NEAR) & (area >= max(min_area, 1))
    _write(points[1], _negatives(mask, box, area, near, rng))
    return points.reshape(-1, 3)


def _positives(
    mask: np.ndarray, box: Sequence[int], count: int, rng: np.random.Generator
) -> np.ndarray:
    top, left, part = _around(mask, box, ERODE_PIXELS)
    if rng.random() < ERODE:
        eroded = cv2.erode(part, _square(ERODE_PIXELS))  # what is outside the image counts as 1
        if cv2.countNonZero(eroded) > MIN_ERODED:
            part = eroded
    return _pick(part, 1, top, left, rng.random(count))


def _negatives(
    mask: np.ndarray, box: Sequence[int], area: int, near: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A pixel off the object for each of `near`, bool [n]; a click without room is left out."""
    u = rng.random(len(near))
    pixels = np.full((len(near), 2), -1, np.int32)
    pixels[~near] = _pick(mask, 0, 0, 0, u[~near])
    if near.any():
        radius = math.ceil(NEAR_RATIO * math.sqrt(area))
        top, left, part = _around(mask, box, radius)
        border = cv2.subtract(cv2.dilate(part, _square(radius)), part)
        pixels[near] = _pick(border, 1, top, left, u[near])
    return pixels[pixels[:, 0] >= 0]


def _around(mask: np.ndarray, box: Sequence[int], margin: int) -> tuple[int, int, np.ndarray]:
    """First row and column, and pixels, of the part of a mask within a margin around a box."""
    x, y, width, height = box
    top, left = max(y - margin, 0), max(x - margin, 0)
    part = mask[top : y + height + margin, left : x + width + margin]
    return top, left, np.ascontiguousarray(part)


def _write(rows: np.ndarray, pixels: np.ndarray) -> None:
    rows[: len(pixels), :2] = pixels
    rows[: len(pixels), 2] = ORDER


def _draw_count(largest: int, gamma: float, rng: np.random.Generator) -> int:
    return int(np.searchsorted(_cumulative(largest, gamma), rng.random(), side="right"))


@functools.lru_cache
def _cumulative(largest: int, gamma: float) -> np.ndarray:
    """P(count <= k) for k in 0..largest, float64, where P(count = k) ~ gamma**k."""
    cumulative = np.cumsum(gamma ** np.arange(largest + 1.0))
    return cumulative / cumulative[-1]


@functools.lru_cache
def _square(radius: int) -> np.ndarray:
    """The neighbourhood that `radius` rounds of 3 x 3 reach."""
    return np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)


@njit(nogil=True, cache=True)
def _pick(region: np.ndarray, value: int, top: int, left: int, u: np.ndarray) -> np.ndarray:
    """A uniform pixel where region == value for each u in [0, 1): int32 [n, 2], -1 if none is.

    (top, left) is where the region begins.
    """
    height, width = region.shape
    below = np.zeros(height + 1, np.int64)  # pixels of the region above each row
    for row in range(height):
        total = 0
        for col in range(width):
            total += region[row, col] == value
        below[row + 1] = below[row] + total
    pixels = np.full((len(u), 2), -1, np.int32)
    if below[height] == 0:
        return pixels
    for i in range(len(u)):
        rank = int(u[i] * below[height])
        row = int(np.searchsorted(below, rank, side="right")) - 1
        rank -= below[row]
        col = 0
        while rank > 0 or region[row, col] != value:
            rank -= region[row, col] == value
            col += 1
        pixels[i] = top + row, left + col
    return pixels
