"""Geodesic and Euclidean star convexity (Gulshan et al., CVPR 2010)."""

from typing import ClassVar

import numpy as np
import scipy.ndimage

from mis_jax.classics.geodesic import shortest_paths
from mis_jax.classics.graph_cut import GraphCutPredictor, differences
from mis_jax.classics.maxflow import INFINITE, NEIGHBOURS, min_cut


class StarPredictor(GraphCutPredictor):
    geodesic: ClassVar[float | None] = 0.3
    norm: ClassVar[str] = "mean"
    constants = (*GraphCutPredictor.constants, "geodesic", "norm")

    def _prepare(self, image):
        super()._prepare(image)
        if self.geodesic is not None:
            squared = differences(self._colours) ** 2
            if self.norm == "mean":
                squared /= max(squared.mean(), 1e-12)
            elif self.norm == "255":
                squared *= 255**2
            far = np.array([np.hypot(*s) for s in NEIGHBOURS], np.float32)
            self._lengths = np.sqrt((1 - self.geodesic) * far**2 + self.geodesic * squared).astype(np.float32)

    def _answer(self, seeds):
        source, sink = self._terminals(seeds)
        parent = self._parents(seeds == 1)
        arcs = self._arcs.copy()
        rows, cols = np.nonzero(parent >= 0)
        arcs[rows, cols, parent[rows, cols]] = INFINITE
        return min_cut(source, sink, arcs)[1].astype(np.float32)

    def _parents(self, centres):
        if self.geodesic is None:
            return ray_parents(centres)
        return shortest_paths(self._lengths, centres, np.array(NEIGHBOURS))[1]


def ray_parents(centres):
    where = scipy.ndimage.distance_transform_edt(~centres, return_distances=False, return_indices=True)
    rows, cols = np.indices(centres.shape)
    dy, dx = where[0] - rows, where[1] - cols
    m = np.maximum(np.maximum(abs(dy), abs(dx)), 1)
    sy, sx = np.rint(dy / m).astype(int), np.rint(dx / m).astype(int)
    d = 3 * (sy + 1) + sx + 1
    d = np.where(d > 4, d - 1, d)
    return np.where(centres, -1, d).astype(np.int8)


class GeodesicStarPredictor(StarPredictor):
    geodesic = 0.3


class EuclideanStarPredictor(StarPredictor):
    geodesic = None
