"""A merge tree -> how strong the border between any two neighbouring patches is.

It is the ultrametric contour map of the tree (Arbelaez, 2006): two neighbours are as far apart as
the costliest merge on the way to the smallest region that holds both.
"""

import numpy as np
from numba import njit

from mis_jax.proposals.tree import Tree


def contours(tree: Tree) -> np.ndarray:
    """float32 [h, w, 2]: the cost that joined each patch to the one at its right, and below it.

    In units of the tree's mean cost; 0 where there is no such neighbour.
    """
    mean = float(tree.costs.mean()) if len(tree.costs) and tree.costs.any() else 1.0
    return _contours(tree.merges, tree.costs, *tree.grid) / np.float32(mean)


@njit(nogil=True, cache=True)
def _contours(merges: np.ndarray, costs: np.ndarray, height: int, width: int) -> np.ndarray:
    """Of each merge the smaller part's patches look for neighbours in the larger: O(n log n)."""
    n = height * width
    out = np.zeros((height, width, 2), np.float32)
    region = np.arange(n)  # the node that each patch is in by now
    following = np.full(n, -1)  # the next patch of the same region
    first, last = np.arange(2 * n - 1), np.arange(2 * n - 1)
    area, highest = np.ones(2 * n - 1, np.int64), np.zeros(2 * n - 1, np.float32)
    label = np.arange(2 * n - 1)  # what the patches of a node call it
    for m in range(n - 1):
        node, small, large = n + m, merges[m, 0], merges[m, 1]
        if area[small] > area[large]:
            small, large = large, small
        highest[node] = max(costs[m], highest[small], highest[large])
        p = first[small]
        while p != -1:
            row, col = p // width, p % width
            if col + 1 < width and region[p + 1] == label[large]:
                out[row, col, 0] = highest[node]
            if col > 0 and region[p - 1] == label[large]:
                out[row, col - 1, 0] = highest[node]
            if row + 1 < height and region[p + width] == label[large]:
                out[row, col, 1] = highest[node]
            if row > 0 and region[p - width] == label[large]:
                out[row - 1, col, 1] = highest[node]
            p = following[p]
        p = first[small]
        while p != -1:
            region[p] = label[large]
            p = following[p]
        following[last[large]] = first[small]
        first[node], last[node] = first[large], last[small]
        area[node], label[node] = area[small] + area[large], label[large]
    return out
