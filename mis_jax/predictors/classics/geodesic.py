"""Geodesic segmentation (Bai and Sapiro, ICCV 2007 and IJCV 2009): the nearer seeds win.

Distances are along paths over which the colours' likelihood changes least. The matting of the
border that may follow there is left out: a mask is asked for.
"""

import heapq
from typing import ClassVar

import numpy as np
from numba import njit

from mis_jax.predictors.classics.colours import object_likelihood
from mis_jax.predictors.classics.graph_cut import LENGTHS, differences
from mis_jax.predictors.classics.maxflow import NEIGHBOURS
from mis_jax.predictors.classics.seeds import SeedPredictor, with_frame

STEPS = np.array(NEIGHBOURS)


class GeodesicPredictor(SeedPredictor):
    """A pixel is the object's if a path from the object's seeds is shorter than any from others.

    The length of a step is the change of `object_likelihood`, and `length` a pixel, which decides
    where that does not change. Before the first negative click the frame is background's seeds.
    """

    length: ClassVar[float] = 1e-3
    constants = ("length",)

    def _look(self, image: np.ndarray) -> None:
        self._colours = image.astype(np.float32) / 255

    def _label(self, seeds: np.ndarray) -> np.ndarray:
        framed = with_frame(seeds)
        likely = object_likelihood(self._colours, framed)
        costs = differences(likely[..., None]) + np.float32(self.length) * LENGTHS
        background = seeds if (seeds == 0).any() else framed
        inner, outer = (shortest_paths(costs, where)[0] for where in (seeds == 1, background == 0))
        with np.errstate(divide="ignore"):  # at the background's seeds
            return 1 / (1 + inner / outer)


@njit(nogil=True, cache=True)
def shortest_paths(costs: np.ndarray, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shortest path from the sources to each pixel, by Dijkstra's algorithm.

    Args:
        costs: float32 [h, w, 8] above 0, of the step from a pixel to each of its `NEIGHBOURS`.
        sources: bool [h, w].

    Returns:
        Its length, float32 [h, w], infinite without sources; and the direction to the pixel before,
        int8 [h, w], -1 at sources.
    """
    height, width = sources.shape
    distance = np.full(height * width, np.inf, np.float32)
    parent = np.full(height * width, -1, np.int8)
    done = np.zeros(height * width, np.bool_)
    heap = [(np.float32(0), p) for p in range(height * width) if sources[p // width, p % width]]
    for _, p in heap:
        distance[p] = 0
    while len(heap) > 0:
        near, p = heapq.heappop(heap)
        if done[p]:
            continue
        done[p] = True
        row, col = p // width, p % width
        for d in range(8):
            r, c = row + STEPS[d, 0], col + STEPS[d, 1]
            if r < 0 or r >= height or c < 0 or c >= width:
                continue
            q, far = r * width + c, near + costs[row, col, d]
            if far < distance[q]:
                distance[q] = far
                parent[q] = 7 - d
                heapq.heappush(heap, (far, q))
    return distance.reshape(height, width), parent.reshape(height, width)
