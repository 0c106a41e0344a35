"""Random walks (Grady, PAMI 2006): whose seeds a walker from each pixel meets first."""

import functools
from typing import ClassVar

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import splu

from mis_jax.predictors.classics.seeds import SeedPredictor, with_frame

LEAF = 9  # pixels that nested dissection no longer parts


class RandomWalkPredictor(SeedPredictor):
    """Each pixel's probability that a random walk from it meets the object's seeds first.

    The walker takes the link between pixels i and j, above or beside each other, in proportion to
    exp(-beta * |difference of colours|^2 / largest of that) + least.

    Before the first negative click the frame is background's seeds.
    """

    beta: ClassVar[float] = 300.0
    least: ClassVar[float] = 1e-5
    constants = ("beta", "least")

    def _look(self, image: np.ndarray) -> None:
        self._laplacian = laplacian(image, self.beta, self.least)

    def _label(self, seeds: np.ndarray) -> np.ndarray:
        if not (seeds == 0).any():
            seeds = with_frame(seeds)
        return walk(self._laplacian, seeds).astype(np.float32)


def laplacian(image: np.ndarray, beta: float, least: float) -> scipy.sparse.csr_array:
    """That of the graph of the pixels of an image, uint8 [h, w, 3].

    Float64 [h w, h w]; its rows and columns are in the order of `dissection`.
    """
    height, width = image.shape[:2]
    place = np.empty(height * width, np.int64)
    place[dissection(height, width)] = np.arange(height * width)
    place = place.reshape(height, width)
    here = np.concatenate([place[:, :-1].ravel(), place[:-1].ravel()])
    there = np.concatenate([place[:, 1:].ravel(), place[1:].ravel()])
    values = image.astype(np.int64)
    steps = [np.diff(values, axis=axis).reshape(-1, 3) for axis in (1, 0)]
    squared = (np.concatenate(steps) ** 2).sum(1)
    weights = np.exp(-beta * squared / max(squared.max(initial=0), 1)) + least
    ends = np.concatenate([here, there]), np.concatenate([there, here])
    links = scipy.sparse.csr_array((np.tile(weights, 2), ends), shape=(place.size, place.size))
    return (scipy.sparse.diags_array(links.sum(1)) - links).tocsr()


def walk(matrix: scipy.sparse.csr_array, seeds: np.ndarray) -> np.ndarray:
    """Solves the walker's equations for the pixels that are no seeds: float64 [h, w] in 0..1.

    Args:
        matrix: of `laplacian`.
        seeds: int8 [h, w] of `seed_map`, with at least one seed.
    """
    order = dissection(*seeds.shape)
    labels = seeds.ravel()[order].astype(np.float64)
    unknown = labels < 0
    rows = matrix[unknown]
    factors = splu(  # in the order as it is: few entries fill up, at any pivots
        rows[:, unknown].tocsc(),
        "NATURAL",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    labels[unknown] = factors.solve(-(rows[:, ~unknown] @ labels[~unknown]))
    found = np.empty(seeds.size)
    found[order] = labels
    return found.reshape(seeds.shape)


@functools.lru_cache(maxsize=8)
def dissection(height: int, width: int) -> np.ndarray:
    """The pixels of a grid, each half before the row or column that parts them: int64 [n].

    Nested dissection (George, 1973): in this order elimination fills up few entries.
    """
    parts = []

    def part(pixels: np.ndarray) -> None:
        if pixels.size <= LEAF:
            parts.append(pixels.ravel())
            return
        across = pixels if pixels.shape[0] >= pixels.shape[1] else pixels.T
        middle = len(across) // 2
        part(across[:middle])
        part(across[middle + 1 :])
        parts.append(across[middle])

    part(np.arange(height * width).reshape(height, width))
    order = np.concatenate(parts)
    order.flags.writeable = False  # it is shared
    return order
