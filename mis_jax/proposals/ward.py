"""Bottom-up merging: Ward's method on a 4-connected grid of patch features (Algorithm 1).

Each region owns its edges to older regions, and one key stands for it in a tournament: the cost of
the cheapest of these. As older regions can only disappear, a key is never too high, and one that is
too low is mended when it wins. A region keeps all it has in the place of one of its patches, and
its list of edges in one piece. Edges name places, and from a place whose region was merged into
another one it is followed there. Large grids wait for memory, so all neighbours are fetched before
the first of them is needed, and so is the pair that will probably be merged next.
"""

import numpy as np
from numba import njit

from mis_jax.errors import InputError
from mis_jax.proposals import ward_exact
from mis_jax.proposals.prefetch import prefetch

# A region, half a cache line; its list is a part of `edges`.
REGION = np.dtype(
    [
        ("node", np.uint32),  # its number in the tree, or GONE: merged into one of another place
        ("start", np.uint32),  # of its list
        ("count", np.uint32),  # of the edges there
        ("stamp", np.uint32),  # the last node whose list it was put in
        ("nearest", np.uint32),  # place at the other end of its cheapest edge; if GONE, its new one
        ("nearest_node", np.uint32),  # the node that was there when that edge was chosen
        ("size", np.float32),  # its number of patches
        ("unused", np.uint32),
    ]
)
EDGE = np.dtype([("other", np.uint32), ("cost", np.float32)])  # place at its other end; Eq. 4
# Numbers are unsigned, so that Numba need not look for negative ones, which count from the end.
GONE = NOWHERE = np.uint32(2**32 - 1)
NO_KEY = np.uint64(2**64 - 1)
ONE, HALF, PLACE = np.uint64(1), np.uint64(32), np.uint64(2**32 - 1)
FETCHED = np.uint32(32)  # entries of a list whose regions are fetched ahead; most lists are shorter


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
        (`ward_exact`), in three to six times the time.
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


# Sizes are never 0: without a check of divisors, the loop counts no references to its arrays.
compiled = njit(nogil=True, cache=True, error_model="numpy")


@compiled
def _merge(centers: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The merging loop; `centers` [n, C] is overwritten.

    Where some cost between patches is not finite, nothing is, and all costs returned are NaN.
    """
    n = height * width
    merges, merge_costs = np.empty((n - 1, 2), np.int32), np.empty(n - 1, np.float32)
    regions, edges, used = _grid_lists(centers, height, width)
    if not np.isfinite(edges[:used].cost).all():
        merge_costs[:] = np.nan
        return merges, merge_costs
    keys = _first_keys(regions, edges)
    for m in range(np.uint32(n - 1)):
        place = _place(keys[1])
        gone = regions[place].nearest
        while regions[gone].node != regions[place].nearest_node:  # merged before: a key too low
            following = _runner_up(keys, place)
            prefetch(regions, following, 0)
            key = _cheapest(place, regions, edges)
            _fetch_pair(following, regions, edges, centers)
            _play(keys, place, key)
            place = _place(keys[1])
            gone = regions[place].nearest
        # The nearest region is the older, and so the lower node.
        merges[m, 0], merges[m, 1] = regions[gone].node, regions[place].node
        merge_costs[m] = np.uint32(keys[1] >> HALF).view(np.float32)
        following = _runner_up(keys, place)
        prefetch(regions, following, 0)
        if regions[place].size < regions[gone].size:
            place, gone = gone, place  # the smaller one moves, so that no chain of moves gets long
        if used + regions[place].count + regions[gone].count > len(edges):
            used = _compact(regions, edges)
        _fetch(place, regions, edges, centers)
        _fetch(gone, regions, edges, centers)
        _join_centers(centers, regions, place, gone)
        key = _join_lists(np.uint32(n + m), place, gone, regions, edges, used, centers)
        used += regions[place].count
        _fetch_pair(following, regions, edges, centers)
        _play(keys, gone, NO_KEY)
        _play(keys, place, key)
    return merges, merge_costs


@compiled
def _grid_lists(
    centers: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.uint32]:
    """`regions` of the patches, whose places are their nodes; their lists, and where these end.

    Costs are those of edges to older patches; others are never read, and 0. A list is no longer
    than those of its parts together, so half of the room always suffices for all.
    """
    n = height * width
    regions, edges, used = np.empty(n, REGION), np.empty(8 * n, EDGE), np.uint32(0)
    for node in range(n):
        region, column = regions[node], node % width
        region.node, region.nearest, region.stamp, region.size = node, node, GONE, 1
        region.start = used
        for other, exists in (
            (node - width, node >= width),
            (node - 1, column > 0),
            (node + 1, column + 1 < width),
            (node + width, node + width < n),
        ):
            if exists:
                edges[used].other, edges[used].cost = other, 0
                if other < node:
                    edges[used].cost = np.float32(0.5) * _squared_distance(centers, node, other)
                used += np.uint32(1)
        region.count = used - region.start
    return regions, edges, used


@compiled
def _compact(regions: np.ndarray, edges: np.ndarray) -> np.uint32:
    """Moves the lists of regions that are there to the start of `edges`; where they end."""
    old, used = edges.copy(), np.uint32(0)
    for place in range(len(regions)):
        if regions[place].node != GONE:
            start = regions[place].start
            regions[place].start = used
            for k in range(start, start + regions[place].count):
                edges[used].other, edges[used].cost = old[k].other, old[k].cost
                used += np.uint32(1)
    return used


@compiled
def _fetch(place: np.uint32, regions: np.ndarray, edges: np.ndarray, centers: np.ndarray) -> None:
    """Fetches the neighbours of a region, and the start of their centers."""
    start = regions[place].start
    for k in range(start, start + min(regions[place].count, FETCHED)):
        prefetch(regions, edges[k].other, 0)
        prefetch(centers, edges[k].other, 0)
        prefetch(centers, edges[k].other, 1)


@compiled
def _fetch_pair(
    place: np.uint32, regions: np.ndarray, edges: np.ndarray, centers: np.ndarray
) -> None:
    """Fetches the lists and centers of a region and of its nearest one."""
    for _ in range(2):
        prefetch(edges, regions[place].start, 0)
        prefetch(edges, regions[place].start, 1)
        prefetch(centers, place, 0)
        prefetch(centers, place, 1)
        place = regions[place].nearest


@compiled
def _first_keys(regions: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The tournament: keys[n + place] are the regions', keys[i] is the less of its two below."""
    n = len(regions)
    keys = np.empty(2 * n, np.uint64)
    for place in range(n):
        keys[n + place] = _cheapest(np.uint32(place), regions, edges)
    for i in range(n - 1, 0, -1):
        keys[i] = min(keys[2 * i], keys[2 * i + 1])
    return keys


@compiled
def _play(keys: np.ndarray, place: np.uint32, key: np.uint64) -> None:
    """Gives a region another key."""
    i = np.uint64(len(keys) // 2) + np.uint64(place)
    keys[i] = key
    while i > ONE:
        key = min(key, keys[i ^ ONE])
        i >>= ONE
        if keys[i] == key:
            break
        keys[i] = key


@compiled
def _runner_up(keys: np.ndarray, winner: np.uint32) -> np.uint32:
    """The place of the least key but the winner's; any place if there is no other key."""
    i = np.uint64(len(keys) // 2) + np.uint64(winner)
    least = NO_KEY
    while i > ONE:
        least = min(least, keys[i ^ ONE])
        i >>= ONE
    return _place(least) if least != NO_KEY else np.uint32(0)


@compiled
def _cheapest(place: np.uint32, regions: np.ndarray, edges: np.ndarray) -> np.uint64:
    """Finds a region's cheapest edge to an older one; its key."""
    node, start = regions[place].node, regions[place].start
    best, least = NOWHERE, np.float32(np.inf)
    for k in range(start, start + regions[place].count):
        other, cost = edges[k].other, edges[k].cost
        if (best == NOWHERE or cost < least) and regions[other].node < node:
            best, least = other, cost
    return _point(place, best, least, regions)


@compiled
def _join_lists(
    node: np.uint32,
    place: np.uint32,
    gone: np.uint32,
    regions: np.ndarray,
    edges: np.ndarray,
    start: np.uint32,
    centers: np.ndarray,
) -> np.uint64:
    """Makes `node` of the regions in `place` and `gone`, whose centers are joined; its key.

    It is newer than all its neighbours, and so owns all its edges. Its list, from `start` on, holds
    each neighbour once, with the cost of the edge.
    """
    regions[gone].node, regions[gone].nearest = GONE, place
    best, least, end = NOWHERE, np.float32(np.inf), start
    for part in (place, gone):
        first = regions[part].start
        for k in range(first, first + regions[part].count):
            other = edges[k].other
            while regions[other].node == GONE:
                other = regions[other].nearest
            if other != place and regions[other].stamp != node:
                regions[other].stamp = node
                cost = _cost(centers, regions, place, other)
                edges[end].other, edges[end].cost = other, cost
                end += np.uint32(1)
                if best == NOWHERE or cost < least:
                    best, least = other, cost
    region = regions[place]
    region.node, region.start, region.count = node, start, end - start
    return _point(place, best, least, regions)


@compiled
def _point(
    place: np.uint32, nearest: np.uint32, cost: np.float32, regions: np.ndarray
) -> np.uint64:
    """Makes `nearest` the other end of a region's cheapest edge, NOWHERE of none; its key."""
    if nearest == NOWHERE:
        return NO_KEY
    regions[place].nearest, regions[place].nearest_node = nearest, regions[nearest].node
    return (np.uint64(np.float32(cost).view(np.uint32)) << HALF) | np.uint64(place)


@compiled
def _place(key: np.uint64) -> np.uint32:
    """The place in the lower half of a key; its upper half orders as the costs >= 0 do."""
    return np.uint32(key & PLACE)


@compiled
def _cost(centers: np.ndarray, regions: np.ndarray, a: np.uint32, b: np.uint32) -> np.float32:
    """Increase of the squared error by joining two regions (Eq. 4), float32."""
    size_a, size_b = regions[a].size, regions[b].size
    return size_a * size_b / (size_a + size_b) * _squared_distance(centers, a, b)


# Only here may the compiler change the order of additions, to add several channels at once.
@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _squared_distance(centers: np.ndarray, a: int | np.uint32, b: int | np.uint32) -> np.float32:
    total = np.float32(0)
    for c in range(centers.shape[1]):
        difference = centers[a, c] - centers[b, c]
        total += difference * difference
    return total


@compiled
def _join_centers(centers: np.ndarray, regions: np.ndarray, a: int, b: int) -> None:
    """Puts center (Eq. 3, float32) and size of the joined region into place `a`."""
    size = regions[a].size + regions[b].size
    weight_a, weight_b = regions[a].size / size, regions[b].size / size
    for c in range(centers.shape[1]):
        centers[a, c] = centers[a, c] * weight_a + centers[b, c] * weight_b
    regions[a].size = size
