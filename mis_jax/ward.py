"""Bottom-up merging: Ward's method on a 4-connected grid of patch features (Algorithm 1).

Each region owns its edges to older regions, and one key stands for it in a tournament: the cost of
the cheapest of these. As older regions can only disappear, a key is never too high, and one that is
too low is mended when it wins. A region keeps all it has in the place of one of its patches, and
its list of edges in one piece. Lists name places, and from a place whose region was merged into
another one it is followed there. Large grids wait for memory, so all neighbours are fetched before
the first of them is needed, and so is the pair that will probably be merged next.
"""

import numpy as np
from numba import njit

from mis_jax import ward_exact
from mis_jax.errors import InputError
from mis_jax.prefetch import prefetch

# Columns of `regions`, int32 [n, 8]: half a cache line for each region.
NODE = 0  # its number in the tree, or NONE where it was merged into a region of another place
START, COUNT = 1, 2  # of its list, a part of `others` and `costs`: an entry for each of its edges
STAMP = 3  # the last node whose list it was put in
NEAREST, NEAREST_NODE = 4, 5  # place and node at the other end of its cheapest edge
INTO = 4  # once it is merged into a region of another place: that place
SIZE = 6  # float32: its number of patches

NONE = np.int32(-1)
NO_KEY = np.int64(2**63 - 1)
FETCHED = 32  # entries of a list whose regions are fetched ahead; most lists are shorter


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

    Memory beside the features: about 190n bytes, and unless `overwrite` a copy of them. One thread;
    the GIL is released.

    Args:
      features: float32 [n, C], finite, one row per patch in row-major order.
      height: rows of the grid.
      width: columns of the grid; n = height * width.
      exact: bit for bit the tree of the published code, ties and the order of merges included
        (`ward_exact`), in about three times the time.
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
    merges, merge_costs = np.empty((n - 1, 2), np.int32), np.empty(n - 1, np.float32)
    regions, others, costs, used = _grid_lists(centers, height, width)
    if not np.isfinite(costs[:used]).all():
        merge_costs[:] = np.nan
        return merges, merge_costs
    sizes = regions.view(np.float32)
    keys = _first_keys(regions, others, costs)
    for node in range(n, 2 * n - 1):
        place = _place(keys[1])
        gone = regions[place, NEAREST]
        while regions[gone, NODE] != regions[place, NEAREST_NODE]:  # merged before: a key too low
            _play(keys, place, _cheapest(place, regions, others, costs))
            place = _place(keys[1])
            gone = regions[place, NEAREST]
        # The nearest region is the older, and so the lower node.
        merges[node - n, 0], merges[node - n, 1] = regions[gone, NODE], regions[place, NODE]
        merge_costs[node - n] = np.int32(keys[1] >> 32).view(np.float32)
        following = _runner_up(keys, place)
        prefetch(regions, following, 0)
        if sizes[place, SIZE] < sizes[gone, SIZE]:
            place, gone = gone, place  # the smaller one moves, so that no chain of moves gets long
        if used + regions[place, COUNT] + regions[gone, COUNT] > len(others):
            others, costs, used = _compacted(regions, others, costs)
        _fetch(place, regions, others, centers)
        _fetch(gone, regions, others, centers)
        _join_centers(centers, regions, place, gone)
        key = _join_lists(node, place, gone, regions, others, costs, used, centers)
        used += regions[place, COUNT]
        _fetch_pair(following, regions, others, centers)
        _play(keys, gone, NO_KEY)
        _play(keys, place, key)
    return merges, merge_costs


@njit(nogil=True, cache=True)
def _grid_lists(
    centers: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """`regions` of the patches, whose places are their nodes; their lists, and where these end.

    Costs are those of edges to older patches; others are never read, and 0. A list is no longer
    than those of its parts together, so half of the room always suffices for all.
    """
    n = height * width
    regions = np.full((n, 8), NONE)
    others, costs = np.empty(8 * n, np.int32), np.empty(8 * n, np.float32)
    used = 0
    for node in range(n):
        regions[node, NODE] = node
        regions.view(np.float32)[node, SIZE] = np.float32(1)
        regions[node, START] = used
        column = node % width
        for other, exists in (
            (node - width, node >= width),
            (node - 1, column > 0),
            (node + 1, column + 1 < width),
            (node + width, node + width < n),
        ):
            if exists:
                others[used], costs[used] = other, np.float32(0)
                if other < node:
                    costs[used] = np.float32(0.5) * _squared_distance(centers, node, other)
                used += 1
        regions[node, COUNT] = used - regions[node, START]
    return regions, others, costs, used


@njit(nogil=True, cache=True)
def _compacted(
    regions: np.ndarray, others: np.ndarray, costs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """The lists of regions that are there, side by side in new arrays, and where they end."""
    new_others, new_costs, used = np.empty_like(others), np.empty_like(costs), 0
    for place in range(len(regions)):
        if regions[place, NODE] != NONE:
            start = regions[place, START]
            regions[place, START] = used
            for k in range(start, start + regions[place, COUNT]):
                new_others[used], new_costs[used] = others[k], costs[k]
                used += 1
    return new_others, new_costs, used


@njit(nogil=True, cache=True)
def _fetch(place: int, regions: np.ndarray, others: np.ndarray, centers: np.ndarray) -> None:
    """Fetches the neighbours of a region, and the start of their centers."""
    start = regions[place, START]
    for k in range(start, start + min(regions[place, COUNT], FETCHED)):
        prefetch(regions, others[k], 0)
        prefetch(centers, others[k], 0)
        prefetch(centers, others[k], 1)


@njit(nogil=True, cache=True)
def _fetch_pair(place: int, regions: np.ndarray, others: np.ndarray, centers: np.ndarray) -> None:
    """Fetches the lists and centers of a region and of its nearest one."""
    for _ in range(2):
        prefetch(others, regions[place, START], 0)
        prefetch(centers, place, 0)
        prefetch(centers, place, 1)
        place = regions[place, NEAREST]


@njit(nogil=True, cache=True)
def _first_keys(regions: np.ndarray, others: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """The tournament: keys[n + place] are the regions', keys[i] is the less of its two below."""
    n = len(regions)
    keys = np.empty(2 * n, np.int64)
    for place in range(n):
        keys[n + place] = _cheapest(place, regions, others, costs)
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
def _runner_up(keys: np.ndarray, winner: int) -> int:
    """The place of the least key but the winner's; any place if there is no other key."""
    i = (len(keys) >> 1) + winner
    least = NO_KEY
    while i > 1:
        least = min(least, keys[i ^ 1])
        i >>= 1
    return _place(least) if least != NO_KEY else 0


@njit(nogil=True, cache=True)
def _cheapest(place: int, regions: np.ndarray, others: np.ndarray, costs: np.ndarray) -> int:
    """Finds a region's cheapest edge to an older one; its key."""
    node, start = regions[place, NODE], regions[place, START]
    best, least = NONE, np.float32(np.inf)
    for k in range(start, start + regions[place, COUNT]):
        other, cost = others[k], costs[k]
        if (best < 0 or cost < least) and NONE < regions[other, NODE] < node:
            best, least = other, cost
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
    others: np.ndarray,
    costs: np.ndarray,
    start: int,
    centers: np.ndarray,
) -> int:
    """Makes `node` of the regions in `place` and `gone`, whose centers are joined; its key.

    It is newer than all its neighbours, and so owns all its edges. Its list, from `start` on, holds
    each neighbour once, with the cost of the edge.
    """
    regions[gone, NODE], regions[gone, INTO] = NONE, place
    best, least, end = NONE, np.float32(np.inf), start
    for part in (place, gone):
        first = regions[part, START]
        for k in range(first, first + regions[part, COUNT]):
            other = others[k]
            while regions[other, NODE] == NONE:
                other = regions[other, INTO]
            if other != place and regions[other, STAMP] != node:
                regions[other, STAMP] = node
                cost = _cost(centers, regions, place, other)
                others[end], costs[end] = other, cost
                end += 1
                if best < 0 or cost < least:
                    best, least = other, cost
    regions[place, NODE] = node
    regions[place, START], regions[place, COUNT] = start, end - start
    if best < 0:
        return NO_KEY
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
