"""Where in an image a predictor without a network looks, and at how many pixels.

Images are shrunk by their area, so that a long scan keeps its width, and only as far as the longer
side of a usual photo needs. A scan longer than three times its width is seen in parts around the
positive clicks. What is found in an image that had to be shrunk by more than a half is looked at
again from near by.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from mis_jax.predictors.clicks import Click
from mis_jax.predictors.zoom_in import EXPANSION, Roi, bounds

# Chosen on made-up scans with a bar. That a second look helps was seen on the development regions,
# with the size of the trees' images taken for a quarter of what it is.
USUAL = 1.5  # longer side over shorter; images up to it are shrunk by their longer side alone
LONG = 3.0  # beyond, an image is seen in parts
PART = 2.0  # length over width of such a part
CLOSER = 2.0  # times the resolution, for which it is worth to look again
SETTINGS = (USUAL, LONG, PART, CLOSER)  # for the record
QUANTUM = 16  # cells of the first look, to which the second is rounded: near clicks share it


def longest(shape: Sequence[int], side: int) -> int:
    """The longest side to shrink an image to: `side`, or more where it is longer than 3 : 2.

    Its area is then that of a photo of `side` pixels and 3 : 2.

    Args:
        shape: (H, W, ...) of the image, pixels.
        side: pixels.
    """
    ratio = max(shape[:2]) / min(shape[:2])
    return max(side, int(side * np.sqrt(ratio / USUAL)))


def shrinkage(shape: Sequence[int], side: int) -> float:
    """How many pixels of an image become one, along a side, where it is shrunk to `longest`."""
    return max(max(shape[:2]) / longest(shape, side), 1.0)


def in_parts(shape: tuple[int, int], side: int) -> bool:
    """Whether an image is so long that it is seen in parts; see `first_look`."""
    return max(shape) > max(LONG * min(shape), side)


def first_look(shape: tuple[int, int], clicks: Sequence[Click], side: int) -> Roi:
    """The whole image; of one longer than 3 : 1, the part that holds the positive clicks.

    A part is about twice as long as wide, and at least about `side` pixels long. Where clicks are
    far from each other, it reaches from one to the other. It depends on no order of the clicks.

    Args:
        shape: (H, W), pixels.
        clicks: at least one for an image in parts; negative ones count where there are no others.
        side: pixels.
    """
    if not in_parts(shape, side):
        return 0, shape[0] - 1, 0, shape[1] - 1
    part = int(max(PART * min(shape), side))
    axis = int(np.argmax(shape))
    places = [(c.row, c.col)[axis] for c in clicks if c.positive]
    places = places or [(c.row, c.col)[axis] for c in clicks]
    step, around = part // 4, 3 * part // 8
    first = int(np.floor((min(places) - around) / step)) * step
    last = int(np.ceil((max(places) + around) / step)) * step
    first, last = max(first, 0), min(last, shape[axis]) - 1
    return (first, last, 0, shape[1] - 1) if axis == 0 else (0, shape[0] - 1, first, last)


def second_look(
    shape: tuple[int, int], probs: np.ndarray, clicks: Sequence[Click], side: int
) -> Roi | None:
    """The part of an image around what was found in it, None where it shows little more.

    Args:
        shape: (H, W), pixels.
        probs: float32 [h, w], of any resolution: what was found in the image at a first look.
        clicks: in pixels of it.
        side: pixels, for `longest`.
    """
    shrunk = shrinkage(shape, side)
    if shrunk < CLOSER:
        return None
    found = (probs > 0.5).astype(np.uint8)
    down, right = found.shape[0] / shape[0], found.shape[1] / shape[1]
    clicked = [(int(c.row * down), int(c.col * right)) for c in clicks if c.positive]
    if not clicked:
        return None
    places = tuple(np.transpose(clicked))
    found[places] = 1
    _, parts = cv2.connectedComponents(found)
    box = bounds(np.isin(parts, parts[places]))
    assert box is not None  # the clicked places are in it
    step, ends = QUANTUM * shrunk, []
    for low, high, scale, size in ((*box[:2], down, shape[0]), (*box[2:], right, shape[1])):
        low, high = low / scale, (high + 1) / scale
        reach = max(EXPANSION * (high - low), side) / 2
        low, high = (low + high) / 2 - reach, (low + high) / 2 + reach
        ends += [max(int(np.floor(low / step) * step), 0)]
        ends += [min(int(np.ceil(high / step) * step), size) - 1]
    sides = ends[1] - ends[0] + 1, ends[3] - ends[2] + 1
    if shrunk < CLOSER * shrinkage(sides, side):
        return None
    return ends[0], ends[1], ends[2], ends[3]


def inside(clicks: Sequence[Click], roi: Roi) -> tuple[Click, ...]:
    """The clicks that lie in a region of the image, in pixels of it."""
    return tuple(
        Click(c.row - roi[0], c.col - roi[2], c.positive)
        for c in clicks
        if roi[0] <= c.row < roi[1] + 1 and roi[2] <= c.col < roi[3] + 1
    )


def within(part: Roi, roi: Roi) -> Roi:
    """A region of a region, as one of the image."""
    return part[0] + roi[0], part[1] + roi[0], part[2] + roi[2], part[3] + roi[2]
