"""Ward merging bit for bit as the published code does it, ties included, for comparisons with it.

Costs are float32 in the order of summation of its binary (mis/ops/src/merging.cpp of MIS), and
equal costs leave the heap in the order of libstdc++'s `push_heap` and `pop_heap`. `ward` is faster.
"""

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def merge(centers: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """What `ward.ward_merges` gives in its exact mode; `centers` float32 [n, C] is overwritten.

    A region keeps its center in the row of its first part, and its neighbours in a linked list made
    of the cells of its parts' lists, so both stay at their initial size. Edges whose regions are
    gone stay in the heap until they surface, as their places decide ties.
    """
    n = height * width
    merges, costs = np.empty((n - 1, 2), np.int32), np.empty(n - 1, np.float32)
    rows = np.arange(2 * n - 1)  # node -> its row of centers
    sizes = np.ones(2 * n - 1, np.float32)
    parents = np.arange(2 * n - 1)  # union-find; a region not yet merged is its own parent
    stamps = np.full(2 * n - 1, -1)  # the last node whose list this one was put in
    heads, targets, nexts = _grid_lists(height, width)
    heap, edges = _grid_heap(centers, height, width)
    length = count = len(edges)  # entries of the heap, edges so far
    for node in range(n, 2 * n - 1):
        entry, length = _pop_edge(heap, length, edges, parents)
        first, second = edges[entry & 0xFFFFFFFF]
        costs[node - n] = np.int32(entry >> 32).view(np.float32)
        merges[node - n, 0], merges[node - n, 1] = first, second
        parents[first] = parents[second] = node
        _join_centers(centers[rows[first]], sizes[first], centers[rows[second]], sizes[second])
        rows[node] = rows[first]
        sizes[node] = sizes[first] + sizes[second]
        _join_lists(node, first, second, heads, targets, nexts, parents, stamps)
        cell = heads[node]
        while cell >= 0:
            other = targets[cell]
            cost = _cost(centers[rows[node]], sizes[node], centers[rows[other]], sizes[other])
            if count == len(edges):
                edges = np.concatenate((edges, np.empty_like(edges)))
                heap = np.concatenate((heap, np.empty_like(heap)))
            edges[count, 0], edges[count, 1] = other, node
            _sift_up(heap, length, 0, _entry(cost, count))
            length, count = length + 1, count + 1
            cell = nexts[cell]
    return merges, costs


@njit(nogil=True, cache=True)
def _grid_lists(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbours of every patch (up, left, down, right) as lists: heads, and targets and nexts."""
    n = height * width
    heads = np.full(2 * n - 1, -1)
    targets = np.empty(4 * n, np.int64)
    nexts = np.full(4 * n, -1)
    for node in range(n):
        row, column = node // width, node % width
        last = -1
        for side in range(4):
            cell = 4 * node + side
            if side == 0 and row > 0:
                targets[cell] = node - width
            elif side == 1 and column > 0:
                targets[cell] = node - 1
            elif side == 2 and row + 1 < height:
                targets[cell] = node + width
            elif side == 3 and column + 1 < width:
                targets[cell] = node + 1
            else:
                continue
            if last < 0:
                heads[node] = cell
            else:
                nexts[last] = cell
            last = cell
    return heads, targets, nexts


@njit(nogil=True, cache=True)
def _grid_heap(centers: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The heap of all edges of the grid, and the two nodes [edges, 2] of each."""
    edges = np.empty((2 * height * width - height - width, 2), np.int32)
    heap = np.empty(len(edges), np.int64)
    one = np.float32(1.0)
    count = 0
    for node in range(height * width):
        for other, exists in (
            (node + width, node // width + 1 < height),
            (node + 1, node % width + 1 < width),
        ):
            if exists:
                edges[count, 0], edges[count, 1] = node, other
                heap[count] = _entry(_cost(centers[node], one, centers[other], one), count)
                count += 1
    for top in range((count - 2) // 2, -1, -1):
        _sift_hole(heap, top, count, heap[top])
    return heap, edges


@njit(nogil=True, cache=True)
def _cost(a: np.ndarray, size_a: np.float32, b: np.ndarray, size_b: np.float32) -> np.float32:
    """Increase of the squared error by joining two regions (Eq. 4), float32."""
    weight = (size_a * size_b) * (np.float32(1.0) / (size_a + size_b))
    return weight * _squared_distance(a, b)


@njit(nogil=True, cache=True)
def _squared_distance(a: np.ndarray, b: np.ndarray) -> np.float32:
    """|a - b|^2 in float32, summed in the order of the published binary (two 4-lane sums)."""
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0.0)
    channels = len(a)
    c = 0
    while c + 8 <= channels:
        d0, d1, d2, d3 = a[c] - b[c], a[c + 1] - b[c + 1], a[c + 2] - b[c + 2], a[c + 3] - b[c + 3]
        s0, s1, s2, s3 = s0 + d0 * d0, s1 + d1 * d1, s2 + d2 * d2, s3 + d3 * d3
        d4, d5, d6, d7 = (
            a[c + 4] - b[c + 4],
            a[c + 5] - b[c + 5],
            a[c + 6] - b[c + 6],
            a[c + 7] - b[c + 7],
        )
        s4, s5, s6, s7 = s4 + d4 * d4, s5 + d5 * d5, s6 + d6 * d6, s7 + d7 * d7
        c += 8
    s0, s1, s2, s3 = s0 + s4, s1 + s5, s2 + s6, s3 + s7
    if c + 4 <= channels:
        d0, d1, d2, d3 = a[c] - b[c], a[c + 1] - b[c + 1], a[c + 2] - b[c + 2], a[c + 3] - b[c + 3]
        s0, s1, s2, s3 = s0 + d0 * d0, s1 + d1 * d1, s2 + d2 * d2, s3 + d3 * d3
        c += 4
    total = (s0 + s2) + (s1 + s3)
    while c < channels:
        d0 = a[c] - b[c]
        total += d0 * d0
        c += 1
    return total


@njit(nogil=True, cache=True)
def _join_centers(a: np.ndarray, size_a: np.float32, b: np.ndarray, size_b: np.float32) -> None:
    """Sets `a` to the center of the joined region (Eq. 3), float32."""
    size = size_a + size_b
    for c in range(len(a)):
        a[c] = (a[c] * size_a + b[c] * size_b) / size


@njit(nogil=True, cache=True)
def _join_lists(
    node: int,
    first: int,
    second: int,
    heads: np.ndarray,
    targets: np.ndarray,
    nexts: np.ndarray,
    parents: np.ndarray,
    stamps: np.ndarray,
) -> None:
    """Makes the list of `node` from those of its parts: each region once, where it came first."""
    stamps[node] = node
    last = -1
    for part in (first, second):
        cell = heads[part]
        while cell >= 0:
            following = nexts[cell]
            other = _find(parents, targets[cell])
            if stamps[other] != node:
                stamps[other] = node
                targets[cell] = other
                if last < 0:
                    heads[node] = cell
                else:
                    nexts[last] = cell
                last = cell
            cell = following
    if last >= 0:
        nexts[last] = -1


@njit(nogil=True, cache=True)
def _find(parents: np.ndarray, node: int) -> int:
    """The region that holds `node`; halves the path on the way."""
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@njit(nogil=True, cache=True)
def _entry(cost: np.float32, edge: int) -> np.int64:
    """Heap entry: the bits of a float32 cost >= 0, which order as the costs do, and the edge."""
    return (np.int64(np.float32(cost).view(np.int32)) << 32) | edge


@njit(nogil=True, cache=True)
def _dearer(a: np.int64, b: np.int64) -> np.bool_:
    """Whether entry `a` costs strictly more than entry `b`."""
    return (a >> 32) > (b >> 32)


@njit(nogil=True, cache=True)
def _pop_edge(
    heap: np.ndarray, length: int, edges: np.ndarray, parents: np.ndarray
) -> tuple[np.int64, int]:
    """Pops until both regions of an edge still exist; its entry, and the length left."""
    while True:
        entry = heap[0]
        length -= 1
        if length > 0:
            _sift_hole(heap, 0, length, heap[length])
        first, second = edges[entry & 0xFFFFFFFF]
        if parents[first] == first and parents[second] == second:
            return entry, length


@njit(nogil=True, cache=True)
def _sift_hole(heap: np.ndarray, hole: int, length: int, entry: np.int64) -> None:
    """libstdc++'s `__adjust_heap`: the hole sinks to the bottom, then the entry climbs from it."""
    top = hole
    while hole < (length - 1) // 2:
        child = 2 * hole + 2
        child -= int(_dearer(heap[child], heap[child - 1]))  # on a tie the right child; no branch
        heap[hole] = heap[child]
        hole = child
    if length % 2 == 0 and hole == (length - 2) // 2:
        heap[hole] = heap[2 * hole + 1]
        hole = 2 * hole + 1
    _sift_up(heap, hole, top, entry)


@njit(nogil=True, cache=True)
def _sift_up(heap: np.ndarray, hole: int, top: int, entry: np.int64) -> None:
    """libstdc++'s `__push_heap`: the entry climbs from the hole past strictly dearer ones."""
    while hole > top and _dearer(heap[(hole - 1) // 2], entry):
        heap[hole] = heap[(hole - 1) // 2]
        hole = (hole - 1) // 2
    heap[hole] = entry
