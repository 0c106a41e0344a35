"""The simulated user: where the next click goes, how good the mask is, clicks until it is good.

The protocol is that of the published numbers (`isegm/inference` of SimpleClick's code): each click
goes to the deepest point of the larger error, until the IoU is reached or 20 clicks are spent.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

import cv2
import numpy as np

from mis_jax.benchmarks import Sample
from mis_jax.predictor import bounds, crop


class ClickPredictor(Protocol):
    """What can be evaluated: `mis_jax.Predictor` and anything of its shape."""

    def set_image(self, image: np.ndarray) -> None:
        """Starts on an image, uint8 RGB [H, W, 3]."""

    def click(self, x: float, y: float, positive: bool = True) -> np.ndarray:
        """Adds a click and returns the mask, bool [H, W]."""


@dataclasses.dataclass(frozen=True)
class Round:
    """One click, the mask it was answered with (bool [H, W]) and the IoU of that."""

    row: int
    col: int
    positive: bool
    mask: np.ndarray
    iou: float


def next_click(
    truth: np.ndarray, mask: np.ndarray, clicked: Sequence[tuple[int, int]]
) -> tuple[int, int, bool]:
    """The simulated user's next click (row, col, positive).

    It lies at the pixel of an error farthest from where the mask is right, missed object before
    (strictly deeper than) surplus; of equal ones the first in reading order. A perfect mask gives a
    negative click at (0, 0).

    Args:
        truth: int32 [H, W], 1 object, 0 background, -1 not counted.
        mask: bool [H, W].
        clicked: (row, col) of the clicks so far, which are not clicked again.
    """
    missed, where = _deepest((truth == 1) & ~mask, clicked)
    surplus, elsewhere = _deepest((truth == 0) & mask, clicked)
    return (*where, True) if missed > surplus else (*elsewhere, False)


def _deepest(region: np.ndarray, clicked: Sequence[tuple[int, int]]) -> tuple[int, tuple[int, int]]:
    """The squared distance of the region's deepest pixel to anything else, and that pixel.

    Outside the image is outside the region. Distances are measured within the region's bounding
    box, beyond which no pixel is nearer than one on its rim, and squared, because OpenCV's own are
    off by rounding, which would decide ties.
    """
    box = bounds(region)
    if box is None:
        return 0, (0, 0)
    padded = np.pad(crop(region, box), 1).view(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    squared = np.rint(distance * distance)
    for row, col in clicked:
        if box[0] <= row <= box[1] and box[2] <= col <= box[3]:
            squared[row - box[0], col - box[2]] = 0
    row, col = np.unravel_index(np.argmax(squared), squared.shape)
    depth = int(squared[row, col])
    return depth, (int(row) + box[0], int(col) + box[2]) if depth else (0, 0)


def iou(truth: np.ndarray, mask: np.ndarray) -> float:
    """Intersection over union of bool [H, W] and the object of int32 [H, W], -1 not counted.

    1 where both are empty.
    """
    found, there = mask & (truth != -1), truth == 1
    union = np.count_nonzero(found | there)
    return np.count_nonzero(found & there) / union if union else 1.0


def rounds(
    predictor: ClickPredictor, sample: Sample, target: float, max_clicks: int
) -> Iterator[Round]:
    """Clicks on one object until `target` IoU or `max_clicks`, at least one."""
    predictor.set_image(sample.image)
    mask, clicked = np.zeros(sample.mask.shape, bool), []
    for _ in range(max_clicks):
        row, col, positive = next_click(sample.mask, mask, clicked)
        clicked.append((row, col))
        mask = predictor.click(x=col, y=row, positive=positive)
        reached = iou(sample.mask, mask)
        yield Round(row, col, positive, mask, reached)
        if reached >= target:
            return
