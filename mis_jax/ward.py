"""Bottom-up merging: Ward's method on a 4-connected grid of patch features (Algorithm 1).

Each region but the oldest owns the edges to its older neighbours, and the heap holds one key for
it: the cost of its cheapest edge. Older neighbours only disappear, so a key is never too high, and
one that is too low is mended when it surfaces. Nothing is allocated while merging: a region keeps
its center in the row of one of its patches, and its list of edges is made of its parts' lists.
"""

import numpy as np
from numba import njit

from mis_jax import ward_exact
from mis_jax.errors import InputError

NONE = np.int32(-1)


def ward_merges(
    features: np.ndarray, height: int, width: int, *, exact: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Merges the two connected regions of least cost until one is left (Algorithm 1, Eqs. 3-4).

    All costs are computed from the regions' centers in float32, none is bounded or updated. The
    result depends on the features alone as long as the processor stays of one kind: another may add
    the channels in another order, and so decide between costs that agree to about 1e-6 otherwise.
    Of equal costs, the one of the region that came first is taken. Away from such near-ties the
    regions are those of the paper, and of the published code.

    Memory: 4nC bytes for the centers, and about 72n for everything else. One thread; the GIL is
    released.

    Args:
      features: float32 [n, C], finite, one row per patch in row-major order.
      height: rows of the grid.
      width: columns of the grid; n = height * width.
      exact: make bit for bit the tree of the published code, ties and order of merges included
        (`ward_exact`); takes about twice to four times as long.

    Returns:
      merges int32 [n - 1, 2]: row m holds the two children of node n + m, the lower number first.
      Nodes 0..n-1 are the patches, node 2n - 2 is the root. And costs float32 [n - 1]: what each
      merge adds to the squared error (Eq. 4).

    Raises:
      InputError: features of another shape, or not finite in float32.
    """
    if height < 1 or width < 1:
        raise InputError(f"A grid of {height}x{width} patches is empty; it needs at least 1x1.")
    shape = np.shape(features)
    if len(shape) != 2 or shape[0] != height * width or shape[1] < 1:
        raise InputError(
            f"The features have shape {list(shape)}, but a grid of {height}x{width} patches needs "
            f"[{height * width}, C] with C >= 1."
        )
    centers = np.array(features, np.float32, order="C")  # a copy: merging works in place
    if not _all_finite(centers):
        row = int(np.flatnonzero(~np.isfinite(centers).all(axis=1))[0])
        raise InputError(
            f"The features hold NaN or infinity, first in patch {row} (row {row // width}, column "
            f"{row % width} of the grid); check the image and the feature extractor's weights."
        )
    return ward_exact.merge(centers, height, width) if exact else _merge(centers, height, width)


@njit(nogil=True, cache=True)
def _all_finite(values: np.ndarray) -> bool:
    total = np.float32(0)
    for value in values.ravel():
        total += value * np.float32(0)  # 0, or NaN for ever
    return total == 0


@njit(nogil=True, cache=True)
def _merge(centers: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The merging loop; `centers` [n, C] is overwritten."""
    n = height * width
    merges, costs = np.empty((n - 1, 2), np.int32), np.empty(n - 1, np.float32)
    rows = np.empty(2 * n - 1, np.int32)  # node -> its row of centers; NONE once it is merged
    rows[:n] = np.arange(n)
    sizes = np.ones(n, np.float32)  # by row, like the centers
    stamps = np.full(2 * n - 1, NONE)  # the last node whose list this one was put in
    nearest = np.empty(2 * n - 1, np.int32)  # the other end of a region's cheapest edge
    heads, cells, edge_costs = _grid_lists(centers, height, width)
    heap, length = _first_heap(heads, cells, edge_costs, nearest, n)
    for node in range(n, 2 * n - 1):
        key, length = _pop_pair(heap, length, rows, heads, cells, edge_costs, nearest)
        second = _node_of(key)
        first = nearest[second]  # the older, and so lower, of the two
        merges[node - n, 0], merges[node - n, 1] = first, second
        costs[node - n] = _cost_of(key)
        row, other = rows[first], rows[second]
        _join_centers(centers, row, other, sizes)
        rows[first] = rows[second] = NONE
        rows[node] = row
        cheapest = _join_lists(
            node, first, second, heads, cells, stamps, edge_costs, centers, rows, sizes, nearest
        )
        if cheapest >= 0:
            heap[0] = _key(cheapest, node)  # in the place of the merged pair's
            _sift_down(heap, length)
    return merges, costs


@njit(nogil=True, cache=True)
def _grid_lists(
    centers: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every patch's list of edges, and the costs of the edges.

    Edge e has the cells 2e, in the list of its lower end, and 2e + 1, in that of its higher end;
    `cells` [., 2] holds the node at the other end and the next cell of the list, `heads` each
    list's first cell.
    """
    n = height * width
    edges = 2 * n - height - width
    heads = np.full(2 * n - 1, NONE)
    cells = np.empty((2 * edges, 2), np.int32)
    costs = np.empty(edges, np.float32)
    half = np.float32(0.5)
    edge = 0
    for node in range(n):
        for other, exists in (
            (node + 1, node % width + 1 < width),
            (node + width, node + width < n),
        ):
            if exists:
                cells[2 * edge, 0], cells[2 * edge, 1] = other, heads[node]
                cells[2 * edge + 1, 0], cells[2 * edge + 1, 1] = node, heads[other]
                heads[node], heads[other] = 2 * edge, 2 * edge + 1
                costs[edge] = half * _squared_distance(centers, node, other)
                edge += 1
    return heads, cells, costs


@njit(nogil=True, cache=True)
def _first_heap(
    heads: np.ndarray, cells: np.ndarray, costs: np.ndarray, nearest: np.ndarray, n: int
) -> tuple[np.ndarray, int]:
    """A heap of the patches' keys; the first patch owns no edge."""
    keys = np.empty(n - 1, np.int64)
    for node in range(1, n):
        keys[node - 1] = _key(_cheapest(node, heads, cells, costs, nearest), node)
    keys.sort()  # sorted is a heap
    return keys, n - 1


@njit(nogil=True, cache=True)
def _pop_pair(
    heap: np.ndarray,
    length: int,
    rows: np.ndarray,
    heads: np.ndarray,
    cells: np.ndarray,
    costs: np.ndarray,
    nearest: np.ndarray,
) -> tuple[int, int]:
    """Brings to the top a region whose cheapest edge is still there: its key, and the length."""
    while True:
        node = _node_of(heap[0])
        cost = np.float32(-1.0)
        if rows[node] >= 0:
            if rows[nearest[node]] >= 0:
                return heap[0], length
            cost = _cheapest(node, heads, cells, costs, nearest)
        if cost >= 0:
            heap[0] = _key(cost, node)
        else:  # merged itself, or the oldest of its surroundings
            length -= 1
            heap[0] = heap[length]
        _sift_down(heap, length)


@njit(nogil=True, cache=True)
def _cheapest(
    node: int, heads: np.ndarray, cells: np.ndarray, costs: np.ndarray, nearest: np.ndarray
) -> float:
    """Finds `nearest` among the older neighbours of a node; its cost, or -1 if there is none."""
    least = np.float32(-1.0)
    cell = heads[node]
    while cell >= 0:
        other = cells[cell, 0]
        if 0 <= other < node:
            cost = costs[cell >> 1]
            if least < 0 or cost < least:
                least = cost
                nearest[node] = other
        cell = cells[cell, 1]
    return least


@njit(nogil=True, cache=True)
def _join_lists(
    node: int,
    first: int,
    second: int,
    heads: np.ndarray,
    cells: np.ndarray,
    stamps: np.ndarray,
    costs: np.ndarray,
    centers: np.ndarray,
    rows: np.ndarray,
    sizes: np.ndarray,
    nearest: np.ndarray,
) -> float:
    """Makes the list of `node` from its parts', with the costs of its edges; the least of them.

    `node` is newer than all its neighbours, and so owns all its edges. Of two edges to the same
    neighbour one is dropped: its cell in the neighbour's list then leads to NONE.
    """
    row = rows[node]
    least = np.float32(-1.0)
    last = NONE
    for part in (first, second):
        cell = heads[part]
        while cell >= 0:
            other, following = cells[cell, 0], cells[cell, 1]
            if other >= 0 and rows[other] >= 0:  # not the edge between the parts
                if stamps[other] == node:
                    cells[cell ^ 1, 0] = NONE
                else:
                    stamps[other] = node
                    cells[cell ^ 1, 0] = node
                    cost = _cost(centers, row, rows[other], sizes)
                    costs[cell >> 1] = cost
                    if least < 0 or cost < least:
                        least = cost
                        nearest[node] = other
                    if last < 0:
                        heads[node] = cell
                    else:
                        cells[last, 1] = cell
                    last = cell
            cell = following
    if last >= 0:
        cells[last, 1] = NONE
    return least


@njit(nogil=True, cache=True)
def _cost(centers: np.ndarray, a: int, b: int, sizes: np.ndarray) -> float:
    """Increase of the squared error by joining two regions (Eq. 4), float32."""
    return sizes[a] * sizes[b] / (sizes[a] + sizes[b]) * _squared_distance(centers, a, b)


# Only here may the compiler change the order of additions, to add several channels at once.
@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _squared_distance(centers: np.ndarray, a: int, b: int) -> float:
    total = np.float32(0.0)
    for c in range(centers.shape[1]):
        difference = centers[a, c] - centers[b, c]
        total += difference * difference
    return total


@njit(nogil=True, cache=True)
def _join_centers(centers: np.ndarray, a: int, b: int, sizes: np.ndarray) -> None:
    """Sets row `a` to the center of the joined region (Eq. 3), and its size, float32."""
    size = sizes[a] + sizes[b]
    weight_a, weight_b = sizes[a] / size, sizes[b] / size
    for c in range(centers.shape[1]):
        centers[a, c] = centers[a, c] * weight_a + centers[b, c] * weight_b
    sizes[a] = size


@njit(nogil=True, cache=True)
def _key(cost: float, node: int) -> int:
    """A heap key: the bits of a float32 cost >= 0, which order as the costs do, and the node."""
    return (np.int64(np.float32(cost).view(np.int32)) << 32) | node


@njit(nogil=True, cache=True)
def _node_of(key: int) -> int:
    return np.int32(key & 0xFFFFFFFF)


@njit(nogil=True, cache=True)
def _cost_of(key: int) -> float:
    return np.int32(key >> 32).view(np.float32)


@njit(nogil=True, cache=True)
def _sift_down(heap: np.ndarray, length: int) -> None:
    """Lets the key at the top sink to its place."""
    if length == 0:
        return
    key, hole = heap[0], 0
    while 2 * hole + 1 < length:
        child = 2 * hole + 1
        if child + 1 < length:
            child += int(heap[child + 1] < heap[child])
        if heap[child] >= key:
            break
        heap[hole] = heap[child]
        hole = child
    heap[hole] = key
