"""Random walks (Grady, PAMI 2006): whose seeds a walker from each pixel meets first."""

import functools
from typing import ClassVar

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import splu

from mis_jax.classics.seeds import SeedPredictor, with_frame

LEAF = 9  # pixels that nested dissection no longer parts


class RandomWalkPredictor(SeedPredictor):
    """Each pixel's probability that a random walk from it meets the object's seeds first.

    The walker takes the link between pixels i and j, above or beside each other, in proportion to
    exp(-beta * |difference of colours|^2 / largest of that) + least.
    """

    beta: ClassVar[float] = 90.0
    least: ClassVar[float] = 1e-5
    normal: ClassVar[str] = "max"
    frame: ClassVar[str] = "until"
    constants = ("beta", "least")

    def _prepare(self, image: np.ndarray) -> None:
        self._laplacian = laplacian(
            image.astype(np.float32) / 255, self.beta, self.least, self.normal
        )

    def _answer(self, seeds: np.ndarray) -> np.ndarray:
        if not (seeds == 0).any():
            seeds = with_frame(seeds)
        return walk(self._laplacian, seeds).astype(np.float32)


def laplacian(colours, beta, least, normal="max"):
    """Of the pixels' graph, its rows and columns in the order of `dissection`: [n, n]."""
    height, width = colours.shape[:2]
    n = height * width
    place = np.empty(n, np.int64)
    place[dissection(height, width)] = np.arange(n)
    place = place.reshape(height, width)
    right = ((colours[:, 1:] - colours[:, :-1]) ** 2).sum(2, dtype=np.float64)
    down = ((colours[1:] - colours[:-1]) ** 2).sum(2, dtype=np.float64)
    squared = np.concatenate([right.ravel(), down.ravel()])
    if normal == "max":
        squared /= max(squared.max(initial=0), 1e-12)
    else:
        squared /= max(squared.mean(), 1e-12)
    weights = np.exp(-beta * squared) + least
    ends = np.concatenate([place[:, :-1].ravel(), place[:-1].ravel()])
    others = np.concatenate([place[:, 1:].ravel(), place[1:].ravel()])
    pairs = (np.concatenate([ends, others]), np.concatenate([others, ends]))
    links = scipy.sparse.csr_array((np.tile(weights, 2), pairs), shape=(n, n))
    return (scipy.sparse.diags_array(links.sum(1)) - links).tocsr()


def walk(matrix, seeds: np.ndarray) -> np.ndarray:
    order = dissection(*seeds.shape)
    labels = seeds.ravel()[order]
    unknown = labels < 0
    found = labels.astype(np.float64)
    if unknown.any():
        rows = matrix[unknown]
        inside = rows[:, unknown].tocsc()
        factors = splu(inside, "NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        found[unknown] = factors.solve(-(rows[:, ~unknown] @ found[~unknown]))
    out = np.empty(seeds.size)
    out[order] = found
    return out.reshape(seeds.shape)


@functools.lru_cache(maxsize=8)
def dissection(height: int, width: int) -> np.ndarray:
    """The pixels of a grid, each half before the row or column that parts them: int64 [n]."""
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
    return np.concatenate(parts)
