"""Bottom-up merging: Ward's method on a 4-connected grid of patch features (Algorithm 1).

Each region owns its edges to older regions, and one key stands for it in a tournament: the cost of
the cheapest of these. As older regions can only disappear, a key is never too high, and one that is
too low is mended when it wins. Nothing is allocated while merging: a region keeps all it has in the
place of one of its patches, and its list of edges is made of its parts' lists.
"""

import numpy as np
from numba import njit

from mis_jax import ward_exact
from mis_jax.errors import InputError

# Columns of `regions`, int32 [n, 8]: half a cache line for each region.
NODE = 0  # its number in the tree, or NONE where it was merged into a region of another place
HEAD = 1  # first cell of its list of edges
STAMP = 2  # the last node whose list it was put in
NEAREST, NEAREST_NODE = 3, 4  # place and node at the other end of its cheapest edge
SIZE = 5  # float32: its number of patches

# Columns of `cells`, int32 [2 edges, 2]. Edge e has the cells 2e and 2e + 1 in the lists of its
# two ends, so that cell >> 1 is the edge, and cell ^ 1 its other cell.
PLACE = 0  # of the region at the other end, or NONE for an edge that was dropped
NEXT = 1  # cell of the list

NONE = np.int32(-1)
NO_KEY = np.int64(2**63 - 1)


def ward_merges(
    features: np.ndarray,
    height: int,
    width: int,
    *,
    exact: bool = False,
    overwrite: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Merges the two connected regions of least cost until one is left (Algorithm 1, Eqs. 3-4).

    Every cost is computed from the centers of both regions, in float32. The regions are those of
    the published code wherever two costs that compete differ by more than rounding, about 1e-6 of
    their size. Costs closer than that are decided by the order in which the processor adds the
    channels: alike on processors of one kind, whatever the number of threads. Equal costs are
    decided by the places of the regions.

    Memory beside the features: about 110n bytes, and unless `overwrite` a copy of them. One thread;
    the GIL is released.

    Args:
      features: float32 [n, C], finite, one row per patch in row-major order.
      height: rows of the grid.
      width: columns of the grid; n = height * width.
      exact: bit for bit the tree of the published code, ties and the order of merges included
        (`ward_exact`), in two to three times the time.
      overwrite: centers may take the place of the features, which saves their copy.

    Returns:
      merges int32 [n - 1, 2]: row m holds the two children of node n + m, the lower number first.
      Nodes 0..n-1 are the patches, node 2n - 2 is the root. And costs float32 [n - 1]: what each
      merge adds to the squared error (Eq. 4).

    Raises:
      InputError: features of another shape, or not finite in float32, or so large that costs are
        not.
    """
    if height < 1 or width < 1:
        raise InputError(f"A grid of {height}x{width} patches is empty; it needs at least 1x1.")
    shape = np.shape(features)
    if len(shape) != 2 or shape[0] != height * width or shape[1] < 1:
        raise InputError(
            f"The features have shape {list(shape)}, but a grid of {height}x{width} patches needs "
            f"[{height * width}, C] with C >= 1."
        )
    if overwrite:
        centers = np.require(features, np.float32, ["C", "W"])
    else:
        centers = np.array(features, np.float32, order="C")
    if (exact or len(centers) == 1) and not np.isfinite(centers).all():
        raise InputError(_not_finite(centers, width))
    merges, costs = (ward_exact.merge if exact else _merge)(centers, height, width)
    if not np.isfinite(costs).all():
        raise InputError(_not_finite(centers, width))
    return merges, costs


def _not_finite(features: np.ndarray, width: int) -> str:
    wrong = ~np.isfinite(features).all(axis=1)
    if not wrong.any():
        return "The features hold values too large to square and add; scale them down."
    row = int(np.argmax(wrong))
    return (
        f"The features hold NaN or infinity, first in patch {row} (row {row // width}, column "
        f"{row % width} of the grid); check the image and the feature extractor's weights."
    )


@njit(nogil=True, cache=True)
def _merge(centers: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The merging loop; `centers` [n, C] is overwritten.

    Where some cost between patches is not finite, nothing is, and all costs returned are NaN.
    """
    n = height * width
    merges, costs = np.empty((n - 1, 2), np.int32), np.empty(n - 1, np.float32)
    regions, cells, edge_costs = _grid_lists(centers, height, width)
    if not np.isfinite(edge_costs).all():
        costs[:] = np.nan
        return merges, costs
    keys = _first_keys(regions, cells, edge_costs)
    for node in range(n, 2 * n - 1):
        place = _place(keys[1])
        other = regions[place, NEAREST]
        while regions[other, NODE] != regions[place, NEAREST_NODE]:  # it is gone: a key too low
            _play(keys, place, _cheapest(place, regions, cells, edge_costs))
            place = _place(keys[1])
            other = regions[place, NEAREST]
        merges[node - n, 0], merges[node - n, 1] = regions[other, NODE], regions[place, NODE]
        costs[node - n] = np.int32(keys[1] >> 32).view(np.float32)
        _join_centers(centers, regions, other, place)
        key = _join_lists(node, other, place, regions, cells, edge_costs, centers)
        _play(keys, place, NO_KEY)
        _play(keys, other, key)
    return merges, costs


@njit(nogil=True, cache=True)
def _grid_lists(
    centers: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`regions` and `cells` of the patches, whose places are their nodes, and costs of edges."""
    n = height * width
    regions = np.full((n, 8), NONE)
    costs = np.empty(2 * n - height - width, np.float32)
    cells = np.empty((2 * len(costs), 2), np.int32)
    edge = 0
    for node in range(n):
        regions[node, NODE] = node
        regions.view(np.float32)[node, SIZE] = np.float32(1)
        for other, exists in (
            (node + 1, node % width + 1 < width),
            (node + width, node + width < n),
        ):
            if exists:
                cell, twin = 2 * edge, 2 * edge + 1
                cells[cell, PLACE], cells[cell, NEXT] = other, regions[node, HEAD]
                cells[twin, PLACE], cells[twin, NEXT] = node, regions[other, HEAD]
                regions[node, HEAD], regions[other, HEAD] = cell, twin
                costs[edge] = np.float32(0.5) * _squared_distance(centers, node, other)
                edge += 1
    return regions, cells, costs


@njit(nogil=True, cache=True)
def _first_keys(regions: np.ndarray, cells: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """The tournament: keys[n + place] are the regions', keys[i] is the less of its two below."""
    n = len(regions)
    keys = np.empty(2 * n, np.int64)
    for place in range(n):
        keys[n + place] = _cheapest(place, regions, cells, costs)
    for i in range(n - 1, 0, -1):
        keys[i] = min(keys[2 * i], keys[2 * i + 1])
    return keys


@njit(nogil=True, cache=True)
def _play(keys: np.ndarray, place: int, key: int) -> None:
    """Gives a region another key."""
    i = (len(keys) >> 1) + place
    keys[i] = key
    while i > 1:
        key = min(key, keys[i ^ 1])
        i >>= 1
        if keys[i] == key:
            break
        keys[i] = key


@njit(nogil=True, cache=True)
def _cheapest(place: int, regions: np.ndarray, cells: np.ndarray, costs: np.ndarray) -> int:
    """Finds a region's cheapest edge to an older one; its key."""
    node = regions[place, NODE]
    best, least = NONE, np.float32(np.inf)
    cell = regions[place, HEAD]
    while cell >= 0:
        other, cost = cells[cell, PLACE], costs[cell >> 1]
        if other >= 0 and regions[other, NODE] < node and (best < 0 or cost < least):
            best, least = other, cost
        cell = cells[cell, NEXT]
    if best < 0:
        return NO_KEY
    regions[place, NEAREST], regions[place, NEAREST_NODE] = best, regions[best, NODE]
    return _key(least, place)


@njit(nogil=True, cache=True)
def _join_lists(
    node: int,
    place: int,
    gone: int,
    regions: np.ndarray,
    cells: np.ndarray,
    costs: np.ndarray,
    centers: np.ndarray,
) -> int:
    """Makes `node` of the regions in `place` and `gone`, whose centers are joined; its key.

    It is newer than all its neighbours, and so owns all its edges, which get their costs here. Of
    two edges to the same neighbour the second is dropped.
    """
    best, least, last = NONE, np.float32(np.inf), NONE
    for part in (place, gone):
        cell = regions[part, HEAD]
        while cell >= 0:
            other, following = cells[cell, PLACE], cells[cell, NEXT]
            if other >= 0 and other != place and other != gone:
                if regions[other, STAMP] == node:
                    cells[cell ^ 1, PLACE] = NONE
                else:
                    regions[other, STAMP] = node
                    cells[cell ^ 1, PLACE] = place
                    cost = _cost(centers, regions, place, other)
                    costs[cell >> 1] = cost
                    if best < 0 or cost < least:
                        best, least = other, cost
                    if last < 0:
                        regions[place, HEAD] = cell
                    else:
                        cells[last, NEXT] = cell
                    last = cell
            cell = following
    regions[place, NODE], regions[gone, NODE] = node, NONE
    if last < 0:
        regions[place, HEAD] = NONE
        return NO_KEY
    cells[last, NEXT] = NONE
    regions[place, NEAREST], regions[place, NEAREST_NODE] = best, regions[best, NODE]
    return _key(least, place)


@njit(nogil=True, cache=True)
def _cost(centers: np.ndarray, regions: np.ndarray, a: int, b: int) -> float:
    """Increase of the squared error by joining two regions (Eq. 4), float32."""
    sizes = regions.view(np.float32)
    size_a, size_b = sizes[a, SIZE], sizes[b, SIZE]
    return size_a * size_b / (size_a + size_b) * _squared_distance(centers, a, b)


# Only here may the compiler change the order of additions, to add several channels at once.
@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _squared_distance(centers: np.ndarray, a: int, b: int) -> float:
    total = np.float32(0)
    for c in range(centers.shape[1]):
        difference = centers[a, c] - centers[b, c]
        total += difference * difference
    return total


@njit(nogil=True, cache=True)
def _join_centers(centers: np.ndarray, regions: np.ndarray, a: int, b: int) -> None:
    """Puts center (Eq. 3, float32) and size of the joined region into place `a`."""
    sizes = regions.view(np.float32)
    size = sizes[a, SIZE] + sizes[b, SIZE]
    weight_a, weight_b = sizes[a, SIZE] / size, sizes[b, SIZE] / size
    for c in range(centers.shape[1]):
        centers[a, c] = centers[a, c] * weight_a + centers[b, c] * weight_b
    sizes[a, SIZE] = size


@njit(nogil=True, cache=True)
def _key(cost: float, place: int) -> int:
    """The bits of a float32 cost >= 0, which order as the costs do, above the place."""
    return (np.int64(np.float32(cost).view(np.int32)) << 32) | np.int64(place)


@njit(nogil=True, cache=True)
def _place(key: int) -> int:
    return np.int32(key & 0xFFFFFFFF)
