"""ZoomIn: the region of the image that the network sees, and clicks and masks in and out of it.

The protocol is that of SimpleClick's evaluation (`isegm/inference/transforms/zoom_in.py` of its
code), number for number: the region moves only when a positive click falls outside or the mask has
outgrown it.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from mis_jax.predictors.clicks import Click
from mis_jax.predictors.torch_arithmetic import resize_align_corners

POINT_ROWS = 24  # of each kind; more clicks than that take the next multiple
ZOOM_THRESHOLD = 0.5  # probability above which ZoomIn sees the object, whatever the mask's is
EXPANSION = 1.4
MIN_CROP = 200  # pixels
RECOMPUTE_IOU = 0.5

Roi = tuple[int, int, int, int]  # first row, last row, first column, last column, all inclusive


@dataclasses.dataclass(frozen=True)
class Answer:
    """What is known after some clicks: the region the network saw and its probabilities there.

    `probs` is float32 [S, S] of the square the region was stretched to; with `roi` None it is the
    whole image [H, W], as before the first click.
    """

    clicks: tuple[Click, ...]
    roi: Roi | None
    probs: np.ndarray


def next_roi(roi: Roi | None, probs: np.ndarray, clicks: Sequence[Click]) -> Roi:
    """ZoomIn's region for the next pass.

    Args:
        roi: the region of the pass before, None at the first.
        probs: float32 [H, W], the probabilities so far.
        clicks: all of them, the new ones included.
    """
    height, width = probs.shape
    candidate = (0, height - 1, 0, width - 1)
    box = bounds(probs > ZOOM_THRESHOLD)
    if box:
        inside = [(int(c.row), int(c.col)) for c in clicks if c.positive]
        rows, cols = [r for r, _ in inside], [c for _, c in inside]
        rows, cols = [box[0], box[1], *rows], [box[2], box[3], *cols]
        box = expand_bbox((min(rows), max(rows), min(cols), max(cols)))
        candidate = clamp_bbox(box, height, width)
    if roi and not _leaves(roi, clicks) and bbox_iou(candidate, roi) >= RECOMPUTE_IOU:
        return roi
    return candidate


def bounds(mask: np.ndarray) -> Roi | None:
    """The smallest region that holds every True of [H, W], None where there is none."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    cols = np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]), int(cols[0]), int(cols[-1])


def _leaves(roi: Roi, clicks: Sequence[Click]) -> bool:
    """Whether a positive click lies outside; the last row and column count as outside.

    `>=` on inclusive bounds is an oddity of the published code that its numbers come with.
    """
    return any(
        c.positive and (c.row < roi[0] or c.row >= roi[1] or c.col < roi[2] or c.col >= roi[3])
        for c in clicks
    )


def expand_bbox(box: Roi) -> Roi:
    """The box 1.4 times larger around its centre, at least 200 pixels a side."""
    ends = []
    for first, last in (box[:2], box[2:]):
        centre = 0.5 * (first + last)
        extent = max(EXPANSION * (last - first + 1), MIN_CROP)
        ends += [round(centre - 0.5 * extent), round(centre + 0.5 * extent)]
    top, bottom, left, right = ends
    return top, bottom, left, right


def clamp_bbox(box: Roi, height: int, width: int) -> Roi:
    """The part of the box inside an image of height x width."""
    return max(0, box[0]), min(height - 1, box[1]), max(0, box[2]), min(width - 1, box[3])


def bbox_iou(a: Roi, b: Roi) -> float:
    """The product of the IoUs of the rows and of the columns, each over their common hull."""
    rows = _segment_iou(a[:2], b[:2])
    return rows * _segment_iou(a[2:], b[2:])


def _segment_iou(a: tuple[int, int], b: tuple[int, int]) -> float:
    inner = max(0, min(a[1], b[1]) - max(a[0], b[0]) + 1)
    return inner / max(1e-6, max(a[1], b[1]) - min(a[0], b[0]) + 1)


def crop(x: np.ndarray, roi: Roi) -> np.ndarray:
    """The inclusive region of [H, W, ...], as a view."""
    return x[roi[0] : roi[1] + 1, roi[2] : roi[3] + 1]


def zoomed_points(clicks: Sequence[Click], roi: Roi, size: int) -> np.ndarray:
    """Points float64 [2n, 3] of the clicks in the region stretched to size x size.

    Coordinates are not rounded and may lie outside the square. n is a multiple of 24, so that
    a compiled network meets one shape.
    """
    height, width = roi[1] - roi[0] + 1, roi[3] - roi[2] + 1
    kinds: list[list[tuple[float, float, int]]] = [[], []]
    for order, c in enumerate(clicks):
        row, col = size * (c.row - roi[0]) / height, size * (c.col - roi[2]) / width
        kinds[not c.positive].append((row, col, order))
    n = POINT_ROWS * max(1, math.ceil(max(map(len, kinds)) / POINT_ROWS))
    points = np.full((2, n, 3), -1.0)
    for half, rows in zip(points, kinds, strict=True):
        if rows:
            half[: len(rows)] = rows
    return points.reshape(2 * n, 3)


def mirror_points(points: np.ndarray, size: int) -> np.ndarray:
    """The points [2n, 3] of `zoomed_points` on the mirror image."""
    mirrored, real = points.copy(), points[:, 2] >= 0
    mirrored[real, 1] = size - points[real, 1] - 1
    return mirrored


def restore(answer: Answer, shape: tuple[int, int]) -> np.ndarray:
    """Probabilities float32 [H, W] of the whole image; 0 outside the region."""
    if answer.roi is None:
        return answer.probs
    top, bottom, left, right = answer.roi
    probs = resize_align_corners(answer.probs, bottom - top + 1, right - left + 1)
    full = np.zeros(shape, np.float32)
    full[top : bottom + 1, left : right + 1] = probs
    return full
