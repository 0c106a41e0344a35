"""Geodesic segmentation (Bai and Sapiro, IJCV 2009): the nearer seeds, across likelihoods."""

import heapq
from typing import ClassVar

import numpy as np
from numba import njit

from mis_jax.classics.colours import object_likelihood
from mis_jax.classics.graph_cut import differences
from mis_jax.classics.maxflow import NEIGHBOURS
from mis_jax.classics.seeds import SeedPredictor, with_frame


class GeodesicPredictor(SeedPredictor):
    length: ClassVar[float] = 1e-3
    frame: ClassVar[str] = "until"
    constants = ("length", "frame")

    def _prepare(self, image: np.ndarray) -> None:
        self._colours = image.astype(np.float32) / 255

    def _answer(self, seeds: np.ndarray) -> np.ndarray:
        no_neg = not (seeds == 0).any()
        modelled = with_frame(seeds) if no_neg or self.frame == "always" else seeds
        if no_neg:
            seeds = modelled
        likely = object_likelihood(self._colours, modelled)
        far = np.array([np.hypot(*s) for s in NEIGHBOURS], np.float32)
        costs = differences(likely[..., None]) + np.float32(self.length) * far
        steps = np.array(NEIGHBOURS)
        near = [shortest_paths(costs, seeds == label, steps)[0] for label in (0, 1)]
        return near[0] / (near[0] + near[1])


@njit(nogil=True, cache=True)
def shortest_paths(costs, sources, steps):
    height, width = sources.shape
    n = height * width
    distance = np.full(n, np.inf, np.float32)
    parent = np.full(n, -1, np.int8)
    done = np.zeros(n, np.bool_)
    heap = [(np.float32(0), 0)]
    heap.pop()
    for p in range(n):
        if sources[p // width, p % width]:
            distance[p] = 0
            heap.append((np.float32(0), p))
    while len(heap) > 0:
        near, p = heapq.heappop(heap)
        if done[p]:
            continue
        done[p] = True
        row, col = p // width, p % width
        for d in range(8):
            r, c = row + steps[d, 0], col + steps[d, 1]
            if r < 0 or r >= height or c < 0 or c >= width:
                continue
            q = r * width + c
            far = near + costs[row, col, d]
            if far < distance[q]:
                distance[q] = far
                parent[q] = 7 - d
                heapq.heappush(heap, (far, q))
    return distance.reshape(height, width), parent.reshape(height, width)
