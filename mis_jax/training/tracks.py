"""Objects that are clicked on while the evidence network learns, each by its own errors.

A track follows one object of an image after the other, as a user would: it clicks deep in the worst
error of the mask that the network gave last, asks the evidence (predictors/evidence.py) with the
code that answers in use, and takes the next object when this one is done.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mis_jax.evaluation import clicker
from mis_jax.predictors import Click, Grid, evidence, fused, maps

CELL = evidence.CELL
DONE = 0.95  # IoU at which the next object's turn comes
MOST = 20  # and the clicks after which it does anyhow
EXACT = 0.7  # probability of a click in the deepest point; else within half of that depth


class Place(NamedTuple):
    """An image that is clicked on."""

    ground: evidence.Ground
    grid: Grid
    picture: np.ndarray  # of `maps.picture`

    @classmethod
    def of(cls, image: np.ndarray) -> "Place":
        """That of an image, uint8 RGB [H, W, 3]."""
        ground = evidence.Ground.of(image)
        return cls(ground, fused.borders(ground), maps.picture(ground))


class Asked(NamedTuple):
    """What the network is asked with, and what it ought to say."""

    said: np.ndarray  # of `maps.said`
    points: np.ndarray  # of `maps.points`
    target: np.ndarray  # uint8 [h, w], 0..255, share of each cell


class Seen(NamedTuple):
    """How good an answer was."""

    clicks: int  # of the object so far
    iou: float
    without: float  # IoU of the evidence's own answer to the same clicks


class Track:
    """One object after the other.

    Args:
        place: the image.
        targets: uint8 [h, w], 0..255, shares of the cells, without end.
        rng: of the clicks.
    """

    def __init__(
        self, place: Place, targets: Iterator[np.ndarray], rng: np.random.Generator
    ) -> None:
        self._place, self._targets, self._rng = place, targets, rng
        self._begin()

    def _begin(self) -> None:
        self._target = next(self._targets)
        self._object = self._target > 127
        self._shown = np.zeros(self._object.shape, bool)
        self._answered: list[evidence.Answered] = []
        self._steps: list[fused.Step] = []

    def ask(self) -> Asked:
        """Clicks on the worst error of the mask shown."""
        click = deepest_error(self._shown, self._object, self._rng)
        ground, grid, _ = self._place
        most = fused.passed_over(self._steps, click, ground.grid[1]) * CELL
        there = Click((click.row + 0.5) * CELL, (click.col + 0.5) * CELL, click.positive)
        heard = fused.heard(ground, there, self._shown, most)
        self._answered.append(heard)
        self._steps.append(fused.Step(click, heard.depth / CELL, 0.0, np.zeros(0, np.uint8)))
        channels = evidence.channels(ground, self._answered, self._shown)
        answer = fused.cut(channels, grid)
        self._without = clicker.iou(self._object, answer)
        said = maps.said(channels, answer)
        return Asked(said, maps.points(ground, self._answered), self._target)

    def see(self, mask: np.ndarray) -> Seen:
        """Takes the network's answer, bool [h, w]."""
        clicks, iou = len(self._steps), clicker.iou(self._object, mask)
        seen = Seen(clicks, iou, self._without)
        self._shown = mask
        self._steps[-1] = self._steps[-1]._replace(mask=np.packbits(mask))
        if iou >= DONE or clicks >= MOST:
            self._begin()
        return seen


def deepest_error(shown: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> Click:
    """A click, in cells, on the deeper one of the two errors of a mask, bool [h, w] both.

    In its deepest cell, or, as real users are not exact, anywhere at half of that depth or more.
    """
    missed, surplus = (evidence.depths(x) for x in (target & ~shown, shown & ~target))
    positive = bool(missed.max() >= surplus.max())
    away = missed if positive else surplus
    least = away.max() if rng.random() < EXACT else away.max() / 2
    places = np.flatnonzero(away.ravel() >= least)
    row, col = divmod(int(places[rng.integers(len(places))]), shown.shape[1])
    return Click(row, col, positive)
