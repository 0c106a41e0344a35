"""The simulated user: where the next click goes, how good the mask is, clicks until it is good.

The protocol is that of the published numbers (`isegm/inference` of SimpleClick's code): each click
goes to the deepest point of the larger error, until the IoU is reached or 20 clicks are spent.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import cv2
import numpy as np
from numba import njit

from mis_jax.datasets import Sample
from mis_jax.predictors import zoom_in

MISSED, SURPLUS = 1, 2  # kinds of errors


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
    (missed, *where), (surplus, *elsewhere) = _deepest_errors(truth, mask, clicked)
    return (*where, True) if missed > surplus else (*elsewhere, False)


class RandomClicker:
    """A user who clicks the right error, but not its middle: `next_click` with chance.

    The click falls on any pixel of the error that is more than half as deep as its deepest one, all
    alike: the rule that places clicks in training (`get_next_points`, isegm/engine/trainer.py).
    """

    def __init__(self, *seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def __call__(
        self, truth: np.ndarray, mask: np.ndarray, clicked: Sequence[tuple[int, int]]
    ) -> tuple[int, int, bool]:
        """As `next_click`."""
        (missed, *_), (surplus, *_) = _deepest_errors(truth, mask, clicked)
        positive, depth = missed > surplus, max(missed, surplus)
        if not depth:
            return 0, 0, False
        error = (truth == 1) & ~mask if positive else (truth == 0) & mask
        box = zoom_in.bounds(error)
        assert box is not None  # the error has a deepest pixel
        inside = np.pad(zoom_in.crop(error, box), 1).view(np.uint8)
        distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        deep = 4 * np.rint(distance * distance) > depth  # OpenCV's own are off by rounding
        for row, col in clicked:
            if box[0] <= row <= box[1] and box[2] <= col <= box[3]:
                deep[row - box[0], col - box[2]] = False
        rows, cols = np.nonzero(deep)
        k = self._rng.integers(len(rows))
        return int(rows[k]) + box[0], int(cols[k]) + box[2], positive


def _deepest_errors(truth: np.ndarray, mask: np.ndarray, clicked: Sequence) -> list[tuple]:
    """(squared depth, row, col) of the deepest pixel of the missed object and of the surplus.

    The depth of a pixel is its distance to the nearest one that is no such error, or is outside the
    image. (0, 0, 0) where there is no error that has not been clicked.
    """
    errors, boxes = _errors(truth, mask)
    free = np.ones(truth.shape, np.bool_)
    if clicked:
        free[tuple(np.transpose(clicked))] = False
    found = []
    for kind, box in zip((MISSED, SURPLUS), boxes.tolist(), strict=True):
        part = (slice(box[0], box[1] + 1), slice(box[2], box[3] + 1))
        depth, row, col = _deepest(errors[part], free[part], kind)
        found.append((depth, row + box[0], col + box[2]) if depth else (0, 0, 0))
    return found


@njit(nogil=True, cache=True)
def _errors(truth: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is wrong at each pixel, uint8 [H, W], and the inclusive box around each kind [2, 4]."""
    height, width = truth.shape
    errors = np.empty((height, width), np.uint8)
    boxes = np.array([[height, -1, width, -1]] * 2)
    for row in range(height):
        for col in range(width):
            missed = (truth[row, col] == 1) & ~mask[row, col]
            surplus = (truth[row, col] == 0) & mask[row, col]
            errors[row, col] = MISSED * missed + SURPLUS * surplus
        for col in range(width):
            if errors[row, col]:
                box = boxes[errors[row, col] - 1]
                box[0] = min(box[0], row)
                box[1] = row
                box[2] = min(box[2], col)
                box[3] = max(box[3], col)
    return errors, boxes


@njit(nogil=True, cache=True)
def _deepest(errors: np.ndarray, free: np.ndarray, kind: int) -> tuple[int, int, int]:
    """(squared depth, row, col) of the deepest free pixel of a kind; depth 0 if there is none.

    errors is the part of an image around all pixels of the kind, so that what lies outside is none.
    A pixel's depth is at most its distance along its column, along its row, and that of a pixel
    before it in the row plus the way from there. It is worked out only where all these are more
    than the deepest so far.
    """
    height, width = errors.shape
    steep = np.zeros((height + 2, width), np.int32)  # distance along the column
    for row in range(height):
        for col in range(width):
            steep[row + 1, col] = (steep[row, col] + 1) * (errors[row, col] == kind)
    for row in range(height, 0, -1):
        for col in range(width):
            steep[row, col] = min(steep[row, col], steep[row + 1, col] + 1)
    best, best_row, best_col = 0, 0, 0
    end = np.empty(width, np.int32)  # of the run of the kind in the row
    for row in range(height):
        line = steep[row + 1]
        last = width
        for col in range(width - 1, -1, -1):
            if line[col] == 0:
                last = col
            end[col] = last
        start, seen, known = -1, 0, np.inf  # known: depth at column `seen`
        for col in range(width):
            if line[col] == 0:
                start, known = col, np.inf
                continue
            bound = min(line[col], col - start, end[col] - col)
            if bound * bound <= best or (known + col - seen) ** 2 < best + 0.5:
                continue
            depth = _depth(line, col, bound)
            seen, known = col, np.sqrt(depth)
            if depth > best and free[row, col]:
                best, best_row, best_col = depth, row, col
    return best, best_row, best_col


@njit(nogil=True, cache=True)
def _depth(line: np.ndarray, col: int, bound: int) -> int:
    """Squared distance from a column of a row to the nearest pixel that is none of the kind.

    line holds the distances along the columns, int32 [W]; the distance is at most `bound`.
    """
    depth, k = bound * bound, 1
    while k * k < depth:  # within the bound, so within the row
        depth = min(depth, k * k + line[col - k] ** 2, k * k + line[col + k] ** 2)
        k += 1
    return depth


def iou(truth: np.ndarray, mask: np.ndarray) -> float:
    """Intersection over union of bool [H, W] and the object of int32 [H, W], -1 not counted.

    1 where both are empty.
    """
    both, either = _overlap(truth, mask)
    return both / either if either else 1.0


@njit(nogil=True, cache=True)
def _overlap(truth: np.ndarray, mask: np.ndarray) -> tuple[int, int]:
    """Number of pixels in both and in either of object and mask."""
    both = either = 0
    for row in range(truth.shape[0]):
        for col in range(truth.shape[1]):
            there, found = truth[row, col] == 1, mask[row, col] & (truth[row, col] != -1)
            both += there & found
            either += there | found
    return both, either


def rounds(
    predictor: ClickPredictor,
    sample: Sample,
    target: float,
    max_clicks: int,
    choose: Callable[..., tuple[int, int, bool]] = next_click,
) -> Iterator[Round]:
    """Clicks on one object until `target` IoU or `max_clicks`, at least one.

    `choose` is `next_click`, or something of its shape.
    """
    predictor.set_image(sample.image)
    mask = np.zeros(sample.mask.shape, bool)
    clicked: list[tuple[int, int]] = []
    for _ in range(max_clicks):
        row, col, positive = choose(sample.mask, mask, clicked)
        clicked.append((row, col))
        mask = predictor.click(x=col, y=row, positive=positive)
        reached = iou(sample.mask, mask)
        yield Round(row, col, positive, mask, reached)
        if reached >= target:
            return
