"""Star convexity (Gulshan et al., CVPR 2010): graph cut whose mask is a star around each click.

With a pixel, the mask holds the whole path to it from the nearest seed of the object: a shortest
one, which avoids edges (GSC), or the straight one (ESC). Paths are laid anew at every click.
"""

import abc
from typing import ClassVar

import numpy as np
import scipy.ndimage

from mis_jax.predictors.classics.geodesic import shortest_paths
from mis_jax.predictors.classics.graph_cut import LENGTHS, GraphCutPredictor, differences
from mis_jax.predictors.classics.maxflow import INFINITE, min_cut


class StarPredictor(GraphCutPredictor):
    """Graph cut in which no pixel may be object without the next one on its path."""

    def _label(self, seeds: np.ndarray) -> np.ndarray:
        parent = self._parents(seeds == 1)
        arcs = self._arcs.copy()
        rows, cols = np.nonzero(parent >= 0)
        arcs[rows, cols, parent[rows, cols]] = INFINITE
        return min_cut(*self._terminals(seeds), arcs)[1].astype(np.float32)

    @abc.abstractmethod
    def _parents(self, centres: np.ndarray) -> np.ndarray:
        """Direction of `NEIGHBOURS` to the next pixel on the path: int8 [h, w], -1 at centres."""


class GeodesicStarPredictor(StarPredictor):
    """GSC. The length of a step between pixels is

        sqrt((1 - geodesic) * distance^2 + geodesic * |difference of colours|^2),

    with differences in units of their root mean square over the image.
    """

    geodesic: ClassVar[float] = 0.3
    constants = (*GraphCutPredictor.constants, "geodesic")

    def _look(self, image: np.ndarray) -> None:
        super()._look(image)
        squared = differences(self._colours) ** 2
        squared /= max(squared.mean(), np.float32(1e-12))
        lengths = (1 - self.geodesic) * LENGTHS**2 + self.geodesic * squared
        self._lengths = np.sqrt(lengths, dtype=np.float32)

    def _parents(self, centres: np.ndarray) -> np.ndarray:
        return shortest_paths(self._lengths, centres)[1]


class EuclideanStarPredictor(StarPredictor):
    """ESC: straight paths."""

    def _parents(self, centres: np.ndarray) -> np.ndarray:
        return ray_parents(centres)


def ray_parents(centres: np.ndarray) -> np.ndarray:
    """Direction of `NEIGHBOURS` towards the nearest centre: int8 [h, w], -1 at centres.

    It is that of the pixel nearest to the line, one on along its longer side, so that every step
    comes closer to a centre.
    """
    nearest = scipy.ndimage.distance_transform_edt(
        ~centres, return_distances=False, return_indices=True
    )
    line = nearest - np.indices(centres.shape)
    row, col = np.rint(line / np.maximum(abs(line).max(0), 1)).astype(np.int8)
    square = 3 * (row + 1) + col + 1  # of 3 x 3, in reading order; the middle is no direction
    return np.where(centres, -1, square - (square > 4)).astype(np.int8)
