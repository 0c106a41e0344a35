"""Clicks on an image -> a mask, out of trees, colours and edges together: no network, no weights.

Each click is read as the worst mistake of the mask that was shown (evidence.py), and the mask that
follows is the one of least energy: the sum over cells, minus their log-odds where they are object,

    MISTAKE * mistake + SHOWN * shown + COLOURS * colours,

and over neighbours of which one is object, as in `classics.graph_cut`. So a click changes what it
is about, and little else. It is cut on cells of two pixels, and follows edges within them.

A click less than a cell from where the mask is right moves the mask's border alone (touch_ups.py).
Of images longer than MAX_SIDE a smaller one is seen, and the found object from near by (views.py).
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from mis_jax.datasets import images
from mis_jax.features import descriptor
from mis_jax.predictors import evidence, touch_ups, views
from mis_jax.predictors.classics.graph_cut import LENGTHS, SCALE
from mis_jax.predictors.classics.maxflow import INFINITE, min_cut
from mis_jax.predictors.click_list import THRESHOLD, ClickListPredictor
from mis_jax.predictors.clicks import Click
from mis_jax.predictors.evidence import Answered, Channels, Ground
from mis_jax.predictors.zoom_in import Roi, crop
from mis_jax.proposals import snap

# Chosen on every fifth development region, by clicks in the deepest point and by random ones.
MAX_SIDE = 512  # pixels; longer images are shrunk to it, by their area
MISTAKE = 2.0
SHOWN = 3.0
COLOURS = 0.7
MONO = 0
FIRST_COLOURS = 0.3  # at the first click: those of one spot say little
SMOOTHNESS = 18.75  # cost of a border where there is no contrast
SNAP_SIDE = 1280  # longer images are snapped at it and the mask enlarged, for quick answers


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
            "weights": [MISTAKE, SHOWN, COLOURS, FIRST_COLOURS, SMOOTHNESS],
            "evidence": list(evidence.SETTINGS),
            "snap_side": SNAP_SIDE,
        }

    def _prepare(self, image: np.ndarray) -> None:
        """Makes the trees of an image that is seen whole; those of others wait for a click."""

        @functools.lru_cache(maxsize=4)
        def look(roi: Roi) -> View:
            return View(crop(image, roi), roi)

        self._look = look
        self._steps: list[_Step] = []
        if not views.in_parts(self._shape, MAX_SIDE):
            look(views.first_look(self._shape, (), MAX_SIDE))

    def _answer(self, clicks: tuple[Click, ...]) -> np.ndarray:
        pairs = zip(self._steps, clicks[:-1], strict=False)
        del self._steps[sum(1 for _ in itertools.takewhile(lambda p: p[0].click == p[1], pairs)) :]
        for click in clicks[len(self._steps) :]:
            probs = self._respond(click)
        return probs

    def _respond(self, click: Click) -> np.ndarray:
        """Answers one more click: probability of the object, float32 [H, W]."""
        shown = self._shown()
        clicks = [step.click for step in self._steps] + [click]
        view = self._look(views.first_look(self._shape, clicks, MAX_SIDE))
        radius = touch_ups.radius(shown, click, view.cell)
        if radius or shown[int(click.row), int(click.col)] == click.positive:
            probs, depth = shown.astype(np.float32), radius
        else:
            probs, depth = self._solve(view, click, shown)
        self._steps.append(_Step(click, depth, radius, probs[:0]))
        for step in self._steps:
            touch_ups.touch_up(probs, step.click, step.radius or 0.5)
        self._steps[-1] = _Step(click, depth, radius, np.packbits(probs > THRESHOLD))
        return probs

    def _solve(self, view: "View", click: Click, shown: np.ndarray) -> tuple[np.ndarray, float]:
        """The cut that answers a click, float32 [H, W], and the click's depth."""
        found, depth = view.answer(self._steps, click, shown)
        near = views.inside([step.click for step in self._steps] + [click], view.roi)
        closer = views.second_look(view.shape, found, near, MAX_SIDE)
        if closer is not None:
            view = self._look(views.within(closer, view.roi))
            found, depth = view.answer(self._steps, click, shown)
        probs = shown.astype(np.float32)
        crop(probs, view.roi)[...] = view.enlarged(found)
        return probs, depth

    def _shown(self) -> np.ndarray:
        """The mask that the next click answers, bool [H, W]."""
        if not self._steps:
            return np.zeros(self._shape, bool)
        bits = np.unpackbits(self._steps[-1].mask, count=self._shape[0] * self._shape[1])
        return bits.reshape(self._shape).view(bool)


class _Step(NamedTuple):
    """A click, and what it did."""

    click: Click
    depth: float  # of `Answered`, in pixels of the image
    radius: float  # of a touch-up, pixels; 0 if it is none
    mask: np.ndarray  # its bits


class View:
    """A part of an image, as large as it is looked at.

    Args:
      image: uint8 [H, W, 3], the part.
      roi: which it is.
    """

    def __init__(self, image: np.ndarray, roi: Roi) -> None:
        self.shape, self.roi = image.shape[:2], roi
        sides = [views.longest(image.shape, side) for side in (SNAP_SIDE, MAX_SIDE)]
        self._to_snap = images.shrink(image, sides[0])
        self.ground = Ground.of(images.shrink(image, sides[1]))
        self.cell = evidence.STRIDES[0] * views.shrinkage(image.shape, MAX_SIDE)  # pixels
        self._borders = np.rint(SCALE * SMOOTHNESS * self.ground.links / LENGTHS).astype(np.int32)

    def answer(
        self, steps: Sequence[_Step], click: Click, shown: np.ndarray
    ) -> tuple[np.ndarray, float]:
        """The cut that answers a click within the part, and the click's depth.

        Args:
          steps: of the clicks before.
          click: in pixels of the image.
          shown: bool [H, W] of the image.

        Returns:
          float32, of a resolution of its own; pixels of the image.
        """
        h, w = self.ground.grid
        part = crop(shown, self.roi).view(np.uint8)
        cells = cv2.resize(255 * part, (w, h), interpolation=cv2.INTER_AREA) > 127
        shrunk = evidence.STRIDES[0] / self.cell
        answered = [Answered(c, d * shrunk) for c, d in self._inside(steps)]
        (last, _), = self._inside([_Step(click, 0.0, 0.0, shown)])
        depth = evidence.depth(self.ground, cells, last)
        found = evidence.channels(self.ground, [*answered, Answered(last, depth)], cells)
        if MONO == 2:
            found = found._replace(seeds=np.where(cells == click.positive, np.int8(click.positive), found.seeds))
        new = cut(found, self._borders)
        out = snap(self._to_snap, new)
        if MONO == 1 and part.any():
            new = np.maximum(new, cells) if click.positive else np.minimum(new, cells)
            out = snap(self._to_snap, new.astype(np.float32))
        if MONO == 2 and part.any():
            s0 = cv2.resize(part, out.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(np.float32)
            out = out
        return out, depth / shrunk

    def enlarged(self, found: np.ndarray) -> np.ndarray:
        """What `answer` gave, at all pixels of the part: float32 [H, W]."""
        return cv2.resize(found, self.shape[::-1], interpolation=cv2.INTER_LINEAR)

    def _inside(self, steps: Sequence[_Step]) -> list[tuple[Click, float]]:
        """Clicks within the part, in pixels of the ground's image, and their depths in the image's."""
        down, right = (s / p for s, p in zip(self.ground.shape, self.shape, strict=True))
        top, bottom, left, end = self.roi
        return [
            (Click((c.row - top) * down, (c.col - left) * right, c.positive), depth)
            for c, depth, *_ in steps
            if top <= c.row < bottom + 1 and left <= c.col < end + 1
        ]


def cut(found: Channels, borders: np.ndarray) -> np.ndarray:
    """The mask of least energy, float32 [h, w] of 0 and 1; borders int32 [h, w, 8] as of min_cut."""
    first = not found.shown.any()
    odds = MISTAKE * found.mistake + SHOWN * found.shown
    odds += (FIRST_COLOURS if first else COLOURS) * found.colours
    costs = np.rint(SCALE * odds).astype(np.int32)
    missed, taken = np.maximum(costs, 0), np.maximum(-costs, 0)
    missed[found.seeds >= 0] = taken[found.seeds >= 0] = 0
    missed[found.seeds == 1] = taken[found.seeds == 0] = INFINITE
    return min_cut(missed, taken, borders)[1].astype(np.float32)
