"""Graph cut (Boykov and Jolly, ICCV 2001): the mask whose colours fit and whose border is cheap.

With the energy of Gulshan et al. (CVPR 2010), who compare it with their own method: colours by
mixtures of Gaussians, borders by contrast.
"""

from typing import ClassVar

import numpy as np

from mis_jax.predictors.classics.colours import object_likelihood
from mis_jax.predictors.classics.maxflow import INFINITE, NEIGHBOURS, min_cut
from mis_jax.predictors.classics.seeds import SeedPredictor, with_frame

LENGTHS = np.array([np.hypot(*step) for step in NEIGHBOURS], np.float32)  # of steps, pixels
SCALE = 50  # costs are rounded to integers at 1 / SCALE


class GraphCutPredictor(SeedPredictor):
    """The mask of least energy, with all the seeds: the sum of the costs of

        a pixel of the object, -log `object_likelihood`, and of another, -log (1 - that),
        neighbours of which one is, smoothness / distance *
            exp(-|difference of colours|^2 / (contrast * mean of that over the image)).

    The frame is part of the background's colours, but no pixel of it is a seed.
    """

    smoothness: ClassVar[float] = 150.0
    contrast: ClassVar[float] = 0.5
    constants: ClassVar[tuple[str, ...]] = ("smoothness", "contrast")

    def _look(self, image: np.ndarray) -> None:
        self._colours = image.astype(np.float32) / 255
        self._arcs = border_costs(self._colours, self.smoothness, self.contrast)

    def _label(self, seeds: np.ndarray) -> np.ndarray:
        return min_cut(*self._terminals(seeds), self._arcs)[1].astype(np.float32)

    def _terminals(self, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What it costs that a pixel is not the object's, and that it is: int32 [h, w] each."""
        likely = object_likelihood(self._colours, with_frame(seeds))
        missed, taken = (np.rint(-SCALE * np.log(p)).astype(np.int32) for p in (1 - likely, likely))
        missed[seeds >= 0] = taken[seeds >= 0] = 0
        missed[seeds == 1] = taken[seeds == 0] = INFINITE
        return missed, taken


def border_costs(colours: np.ndarray, smoothness: float, contrast: float) -> np.ndarray:
    """What a border between neighbours costs: int32 [h, w, 8], in 1 / SCALE."""
    return np.rint(SCALE * smoothness * likeness(colours, contrast) / LENGTHS).astype(np.int32)


def likeness(colours: np.ndarray, contrast: float) -> np.ndarray:
    """How alike neighbours are: float32 [h, w, 8] in 0..1, of colours float32 [h, w, 3].

    exp(-|difference|^2 / (contrast * mean of that over the image)).
    """
    squared = differences(colours) ** 2
    squared /= max(contrast * squared.mean(), 1e-12)
    return np.exp(-squared)


def differences(values: np.ndarray) -> np.ndarray:
    """Distance between each pixel's values, float32 [h, w, C], and its neighbours': [h, w, 8].

    It is 0 where there is no neighbour.
    """
    height, width = values.shape[:2]
    found = np.zeros((height, width, 8), np.float32)
    for d, (row, col) in enumerate(NEIGHBOURS[4:], 4):  # the others are these backwards
        here = np.s_[: height - row, max(0, -col) : width - max(0, col)]
        there = np.s_[row:, max(0, col) : width + min(0, col)]
        change = np.sqrt(((values[here] - values[there]) ** 2).sum(2))
        found[here][..., d] = change
        found[there][..., 7 - d] = change
    return found
