"""Graph cut (Boykov and Jolly, ICCV 2001): colours of the seeds against cheap borders."""

from typing import ClassVar

import numpy as np

from mis_jax.classics.colours import object_likelihood
from mis_jax.classics.maxflow import INFINITE, NEIGHBOURS, min_cut
from mis_jax.classics.seeds import SeedPredictor, with_frame

SCALE = 50  # costs are rounded to integers at 1 / SCALE


class GraphCutPredictor(SeedPredictor):
    """The mask of least energy: each pixel's colour cost, and `smoothness` along its border."""

    smoothness: ClassVar[float] = 150.0
    contrast: ClassVar[float] = 0.5
    frame: ClassVar[str] = "colour"
    constants = ("smoothness", "contrast", "frame")

    def _prepare(self, image: np.ndarray) -> None:
        self._colours = image.astype(np.float32) / 255
        self._arcs = border_costs(self._colours, self.smoothness, self.contrast)

    def _answer(self, seeds: np.ndarray) -> np.ndarray:
        source, sink = self._terminals(seeds)
        return min_cut(source, sink, self._arcs)[1].astype(np.float32)

    def _terminals(self, seeds):
        no_neg = not (seeds == 0).any()
        modelled = with_frame(seeds) if no_neg or self.frame == "always" else seeds
        if self.frame == "hard" and no_neg:
            seeds = modelled
        likely = object_likelihood(self._colours, modelled)
        source = np.rint(-SCALE * np.log(1 - likely)).astype(np.int32)
        sink = np.rint(-SCALE * np.log(likely)).astype(np.int32)
        source[seeds == 1], sink[seeds == 1] = INFINITE, 0
        source[seeds == 0], sink[seeds == 0] = 0, INFINITE
        return source, sink


def border_costs(colours: np.ndarray, smoothness: float, contrast: float) -> np.ndarray:
    """What a border between neighbours costs: int32 [h, w, 8], in 1 / SCALE.

    smoothness * exp(-|difference of colours|^2 / (contrast * mean of that)) / distance.
    """
    squared = differences(colours) ** 2
    mean = squared.mean()
    decay = 1 / (contrast * mean) if mean > 0 else 0.0
    far = np.array([np.hypot(*step) for step in NEIGHBOURS])
    return np.rint(SCALE * smoothness * np.exp(-decay * squared) / far).astype(np.int32)


def differences(colours: np.ndarray) -> np.ndarray:
    """Distance between the colours of each pixel and its neighbours: [h, w, 8], 0 beyond."""
    height, width = colours.shape[:2]
    found = np.zeros((height, width, 8), np.float32)
    for d, (row, col) in enumerate(NEIGHBOURS[4:], 4):
        top, left = np.s_[: height - row], np.s_[max(0, -col) : width - max(0, col)]
        below, beside = np.s_[row:], np.s_[max(0, col) : width + min(0, col)]
        change = np.linalg.norm(colours[top, left] - colours[below, beside], axis=2)
        found[top, left, d] = change
        found[below, beside, 7 - d] = change
    return found
