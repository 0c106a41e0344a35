"""Clicks on an image -> a mask, out of trees, colours and edges together: no network, no weights.

Each click is read as the worst mistake of the mask that was shown (evidence.py). What the mask had
right stays: a click on the object adds to it, one beside it takes away. What earlier clicks passed
over is no deeper a mistake than theirs were. The mask that follows has, of all that keep what was
right, the least energy: the sum over cells, minus their log-odds where they are object,

    MISTAKE * mistake + SHOWN * shown + COLOURS * colours,

and over neighbours of which one is object, SMOOTHNESS / distance * how alike they are. It is cut on
cells of two pixels, exactly, and enlarged along the edges of the image.

A click less than a cell from where the mask is right moves the mask's border alone (touch_ups.py).
Of images longer than MAX_SIDE a smaller one is seen, and the found object from near by (views.py).

Star convexity (classics/star.py), the trees' posterior of all clicks at once (merge_trees.py), the
colours of the mask shown, and cells of one pixel were tried as well, and brought nothing beside the
rest (results/fused).
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from mis_jax.datasets import images
from mis_jax.features import descriptor
from mis_jax.predictors import evidence, touch_ups, views
from mis_jax.predictors.classics.graph_cut import LENGTHS, SCALE
from mis_jax.predictors.classics.maxflow import INFINITE, Grid
from mis_jax.predictors.click_list import THRESHOLD, ClickListPredictor
from mis_jax.predictors.clicks import Click
from mis_jax.predictors.evidence import Answered, Channels, Ground
from mis_jax.predictors.zoom_in import Roi, crop
from mis_jax.proposals import snap

# Chosen on every fifth development region, by clicks in the deepest point and by random ones.
MAX_SIDE = 512  # pixels; longer images are shrunk to it, by their area
MISTAKE = 1.5
SHOWN = 2.0
COLOURS = 0.7
FIRST_COLOURS = 0.3  # at the first click: those of one spot say little
LEAST_DEPTH = 4.0  # pixels; not everyone begins with the worst mistake
SMOOTHNESS = 18.75  # cost of a border between equals
SNAP_SIDE = 1280  # longer images are snapped at it and the mask enlarged, for quick answers


# The clicks, the last of them not answered yet, and what they say -> bool, or probabilities float32
# within 0..1, of each cell [h, w].
Answer = Callable[[Sequence[Answered], Channels], np.ndarray]


class FusedPredictor(ClickListPredictor):
    """Answers clicks on one image with a mask; used as `mis_jax.Predictor` is.

    The answer depends on the order of the clicks, as each is about the mask before it.
    """

    @property
    def settings(self) -> dict:
        """All that the masks depend on, for the record."""
        return {
            "descriptor": descriptor.NAME,
            "max_side": MAX_SIDE,
            "views": list(views.SETTINGS),
            "evidence": list(evidence.SETTINGS),
            "weights": [MISTAKE, SHOWN, COLOURS, FIRST_COLOURS, SMOOTHNESS, LEAST_DEPTH],
            "snap_side": SNAP_SIDE,
        }

    def _prepare(self, image: np.ndarray) -> None:
        """Makes the trees of an image that is seen whole; those of others wait for a click."""

        @functools.lru_cache(maxsize=4)
        def look(roi: Roi) -> View:
            return View(crop(image, roi), roi, self._answers)

        self._look = look
        self._steps: list[Step] = []
        if not views.in_parts(self._shape, MAX_SIDE):
            look(views.first_look(self._shape, (), MAX_SIDE))

    def _answers(self, ground: Ground) -> Answer:
        """What answers the evidence of clicks on an image."""
        grid = borders(ground)
        return lambda answered, channels: cut(channels, grid)

    def _answer(self, clicks: tuple[Click, ...]) -> np.ndarray:
        before = zip(self._steps, clicks[:-1], strict=False)
        same = itertools.takewhile(lambda pair: pair[0].click == pair[1], before)
        del self._steps[sum(1 for _ in same) :]
        probs = np.zeros(self._shape, np.float32)
        for click in clicks[len(self._steps) :]:
            probs = self._respond(click)
        return probs

    def _respond(self, click: Click) -> np.ndarray:
        """Answers one more click: probability of the object, float32 [H, W]."""
        shown = self._shown()
        view = self._look(views.first_look(self._shape, [*self._clicked(), click], MAX_SIDE))
        radius = touch_ups.radius(shown, click, view.cell)
        if radius or shown[int(click.row), int(click.col)] == click.positive:
            probs, depth = shown.astype(np.float32), radius
        else:
            probs, depth = self._solve(view, click, shown)
        touches = [(step.click, step.radius) for step in self._steps]
        for touched, within in [*touches, (click, radius)]:
            touch_ups.touch_up(probs, touched, within or 0.5)
        self._steps.append(Step(click, depth, radius, np.packbits(probs > THRESHOLD)))
        return probs

    def _solve(self, view: "View", click: Click, shown: np.ndarray) -> tuple[np.ndarray, float]:
        """The cut that answers a click, float32 [H, W], and the depth of the click."""
        found, depth = view.answer(self._steps, click, shown)
        near = views.inside([*self._clicked(), click], view.roi)
        closer = views.second_look(view.shape, found, near, MAX_SIDE)
        if closer is not None and views.inside(near[-1:], closer):  # else the click is elsewhere
            view = self._look(views.within(closer, view.roi))
            found, depth = view.answer(self._steps, click, shown)
        probs = shown.astype(np.float32)
        crop(probs, view.roi)[...] = view.enlarged(found)
        return probs, depth

    def _clicked(self) -> list[Click]:
        return [step.click for step in self._steps]

    def _shown(self) -> np.ndarray:
        """The mask that the next click answers, bool [H, W]."""
        if not self._steps:
            return np.zeros(self._shape, bool)
        bits = np.unpackbits(self._steps[-1].mask, count=self._shape[0] * self._shape[1])
        return bits.reshape(self._shape).view(bool)


class Step(NamedTuple):
    """A click that was answered."""

    click: Click
    depth: float  # of `Answered`, in pixels of the image
    radius: float  # of a touch-up, pixels; 0 if it is none
    mask: np.ndarray  # the answer, a bit a pixel


def passed_over(steps: Sequence[Step], click: Click, width: int) -> float:
    """How deep a mistake at a click may be, as other clicks came first: pixels, or infinite.

    It is the least depth of the clicks that answered masks with this place as wrong as the last.

    Args:
        steps: before the click.
        click: in pixels of the image.
        width: of the image, pixels.
    """
    byte, bit = divmod(int(click.row) * width + int(click.col), 8)
    shown = [False, *(bool(step.mask[byte] >> (7 - bit) & 1) for step in steps)]
    least = np.inf
    for had, step in zip(shown[-2::-1], steps[::-1], strict=True):
        if had == click.positive:
            break
        least = min(least, step.depth or np.inf)  # without a depth nothing was wrong
    return least


class View:
    """A part of an image, at as many pixels as it is seen.

    Args:
        image: uint8 [H, W, 3], the part.
        roi: which part it is.
        answers: makes of the evidence's ground what answers clicks on it.
    """

    def __init__(self, image: np.ndarray, roi: Roi, answers: Callable[[Ground], Answer]) -> None:
        self.shape, self.roi = (image.shape[0], image.shape[1]), roi
        sides = [views.longest(image.shape, side) for side in (SNAP_SIDE, MAX_SIDE)]
        self._to_snap = images.shrink(image, sides[0])
        self._ground = Ground.of(images.shrink(image, sides[1]))
        self._ask = answers(self._ground)
        self.cell = evidence.CELL * views.shrinkage(image.shape, MAX_SIDE)  # pixels of the image

    def answer(
        self, steps: Sequence[Step], click: Click, shown: np.ndarray
    ) -> tuple[np.ndarray, float]:
        """Answers a click within the part.

        Args:
            steps: the clicks before.
            click: in pixels of the image, within the part.
            shown: bool [H, W] of the image, the mask before.

        Returns:
            Probability of the object in the part, float32, of a resolution of its own; and the
            depth of the click, pixels of the image.
        """
        part = 255 * crop(shown, self.roi).view(np.uint8)
        size = self._ground.grid[::-1]
        cells = cv2.resize(part, size, interpolation=cv2.INTER_AREA) > 127
        larger = self.cell / evidence.CELL
        clicks = [(step.click, step.depth) for step in steps]
        *before, (last, _) = self._inside([*clicks, (click, np.inf)])
        answered = [Answered(c, depth / larger) for c, depth in before]
        most = passed_over(steps, click, shown.shape[1]) / larger
        answered.append(heard(self._ground, last, cells, most))
        channels = evidence.channels(self._ground, answered, cells)
        found = self._ask(answered, channels)
        return snap(self._to_snap, found), answered[-1].depth * larger

    def enlarged(self, found: np.ndarray) -> np.ndarray:
        """What `answer` gave, at all pixels of the part: float32 [H, W]."""
        return cv2.resize(found, self.shape[::-1], interpolation=cv2.INTER_LINEAR)

    def _inside(self, clicks: Sequence[tuple[Click, float]]) -> list[tuple[Click, float]]:
        """The clicks within the part, in pixels as it is seen, and their depths as they are."""
        down, right = (s / p for s, p in zip(self._ground.shape, self.shape, strict=True))
        top, bottom, left, end = self.roi
        return [
            (Click((c.row - top) * down, (c.col - left) * right, c.positive), depth)
            for c, depth in clicks
            if top <= c.row < bottom + 1 and left <= c.col < end + 1
        ]


def heard(ground: Ground, click: Click, shown: np.ndarray, most: float) -> Answered:
    """A click with its depth in what the mask shown, bool [h, w], has wrong.

    Args:
        ground: of the image.
        click: in pixels of it.
        shown: cells of the mask that the click answers.
        most: depth that it has at most, as `passed_over` gives it, pixels of the ground.
    """
    return Answered(click, min(evidence.depth(ground, shown, click), max(most, LEAST_DEPTH)))


def borders(ground: Ground) -> Grid:
    """The cells of an image, with the cost of a border between any two neighbours."""
    return Grid(np.rint(SCALE * SMOOTHNESS * ground.links / LENGTHS).astype(np.int32))


def cut(channels: Channels, grid: Grid) -> np.ndarray:
    """The mask of least energy that keeps what is certain: bool [h, w].

    Args:
        channels: of the evidence.
        grid: with the costs of borders between neighbours, in 1 / SCALE.
    """
    colours = COLOURS if channels.shown.any() else FIRST_COLOURS
    odds = MISTAKE * channels.mistake + SHOWN * channels.shown + colours * channels.colours
    costs = np.rint(SCALE * odds).astype(np.int32)
    missed, taken = np.maximum(costs, 0), np.maximum(-costs, 0)
    missed[channels.certain >= 0] = taken[channels.certain >= 0] = 0
    missed[channels.certain == 1] = taken[channels.certain == 0] = INFINITE
    return grid.cut(missed, taken)[1]
