"""What the five methods share: clicks become seeds, seeds become a mask."""

import abc
from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np

from mis_jax.datasets import images
from mis_jax.predictors import views
from mis_jax.predictors.click_list import ClickListPredictor
from mis_jax.predictors.clicks import Click
from mis_jax.predictors.zoom_in import Roi, crop

MAX_SIDE = 512  # pixels; longer images are shrunk to it (views.py) and the mask enlarged, for speed


class SeedPredictor(ClickListPredictor):
    """Answers clicks on one image with a mask; used as `mis_jax.Predictor` is.

    Every click makes seeds of the pixels within `radius`. None of the methods is defined without
    seeds of the background, so until there is a negative click the frame of the image, its
    outermost pixels, stands for them; each method says how. A frame belongs to the background more
    often than not, and to colours its mistakes do little. Without a positive click the mask is
    empty. The answer depends on the clicks only, not on their order, unless two are equally near to
    a pixel: then the later counts.
    """

    radius: ClassVar[int] = 8  # pixels
    constants: ClassVar[tuple[str, ...]] = ()  # the attributes that the masks depend on, further

    @property
    def settings(self) -> dict:
        """All that the masks depend on, for the record."""
        names = ("radius", *self.constants)
        seen = {"max_side": MAX_SIDE, "views": list(views.SETTINGS)}
        return seen | {name: getattr(self, name) for name in names}

    def _prepare(self, image: np.ndarray) -> None:
        self._roi: Roi | None = None
        if not views.in_parts(self._shape, MAX_SIDE):
            self._see(views.first_look(self._shape, (), MAX_SIDE))

    def _see(self, roi: Roi) -> None:
        """Looks at a part of the image, if it is not what it saw last."""
        if roi != self._roi:
            assert self._image is not None  # or there would be no clicks
            part = crop(self._image, roi)
            self._small = images.shrink(part, views.longest(part.shape, MAX_SIDE))
            self._look(self._small)
            self._roi = roi

    def _answer(self, clicks: tuple[Click, ...]) -> np.ndarray:
        found = np.zeros(self._shape, np.float32)
        if not any(c.positive for c in clicks):
            return found
        roi = views.first_look(self._shape, clicks, MAX_SIDE)
        self._see(roi)
        part, (h, w) = crop(found, roi), self._small.shape[:2]
        height, width = part.shape
        near = views.inside(clicks, roi)
        scaled = [(c.row * h / height, c.col * w / width, c.positive) for c in near]
        seeds = seed_map(scaled, (h, w), self.radius)
        probs = self._label(seeds) if (seeds < 0).any() else seeds.astype(np.float32)
        if (h, w) != (height, width):
            probs = cv2.resize(probs, (width, height), interpolation=cv2.INTER_LINEAR)
        part[...] = probs
        return found

    @abc.abstractmethod
    def _look(self, image: np.ndarray) -> None:
        """Computes what depends on the image only, uint8 [h, w, 3]."""

    @abc.abstractmethod
    def _label(self, seeds: np.ndarray) -> np.ndarray:
        """Probability of the object, float32 [h, w], for int8 [h, w] of `seed_map`."""


def seed_map(
    clicks: Sequence[tuple[float, float, bool]],
    shape: tuple[int, int],
    radius: float | Sequence[float],
) -> np.ndarray:
    """The seeds of clicks (row, col, positive): int8 [h, w], 1 object, 0 background, -1 unknown.

    They are discs of one radius, or of one for each click. Where discs overlap, a pixel is the
    nearest click's, and of equally near ones the last's, so every clicked pixel has the label of
    its click.
    """
    seeds = np.full(shape, -1, np.int8)
    nearest = np.full(shape, np.inf)
    rows, cols = np.ogrid[: shape[0], : shape[1]]
    radii = np.broadcast_to(radius, len(clicks)).tolist()
    for (row, col, positive), reach in zip(clicks, radii, strict=True):
        most = int(reach)
        top, left = max(int(row) - most, 0), max(int(col) - most, 0)
        part = np.s_[top : int(row) + most + 1, left : int(col) + most + 1]
        away = (rows[part[0]] - int(row)) ** 2 + (cols[:, part[1]] - int(col)) ** 2
        closer = (away <= reach**2) & (away <= nearest[part])
        nearest[part][closer] = away[closer]
        seeds[part][closer] = positive
    return seeds


def with_frame(seeds: np.ndarray) -> np.ndarray:
    """The seeds, and the outermost pixels as background where they are not seeds: int8 [h, w]."""
    framed = seeds.copy()
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        framed[edge][seeds[edge] < 0] = 0
    return framed
