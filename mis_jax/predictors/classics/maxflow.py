"""Exact minimum cut of a grid whose pixels are joined to their eight neighbours.

The algorithm of Boykov and Kolmogorov (PAMI 2004): two trees grow from the terminals; where they
touch, flow is pushed along the path, and the branches that this cuts off find a new parent.
"""

from collections import namedtuple

import numpy as np
from numba import njit

from mis_jax.errors import InputError

NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))  # d: row, col
COSTS = "min_cut takes costs from 0 to 2**30, which forbids; scale the others."
INFINITE = 2**30  # capacity of what is never cut; the cost of a cut has to stay below it
FREE, SOURCE, SINK = 0, 1, 2  # trees
ROOT, ORPHAN, NONE = 8, 9, 10  # parents that are no direction
FAR = 2**30  # from the root, in arcs

# Arrays over the n pixels of the padded grid. `capacity` int32 [n, 8] and `terminal` int32 [n],
# above 0 from the source and below 0 to the sink, are what is left of them. `parent` is the
# direction to it, `stamp` and `distance` are what the search for parents remembers, `queued` tells
# which pixels wait in `active`, a ring that begins and counts as `ring` says; `orphans` is another.
_Cut = namedtuple(
    "_Cut",
    "capacity terminal steps tree parent stamp distance queued active ring orphans orphan_ring",
)


def min_cut(source: np.ndarray, sink: np.ndarray, arcs: np.ndarray) -> tuple[int, np.ndarray]:
    """The cheapest way to part the pixels of the source from those of the sink.

    Args:
        source: int32 [H, W], cost of a pixel that is not the source's.
        sink: int32 [H, W], cost of a pixel that is not the sink's.
        arcs: as of `Grid`.

    Returns, and raises, what `Grid.cut` does.
    """
    return Grid(arcs).cut(source, sink)


class Grid:
    """A grid whose pixels are parted again and again, each time beginning with the last flow.

    Whatever flows is as good a beginning as none: what a pixel sends its neighbours it lacks, what
    it gets it has beside its own, and the cheapest cuts of what is left are the same (Kohli and
    Torr, PAMI 2007).

    Args:
        arcs: int32 [H, W, 8], cost of a pixel with the source whose neighbour in direction d of
            `NEIGHBOURS` is with the sink. Arcs out of the grid do not count.

    What costs `INFINITE` is forbidden.

    Raises:
        InputError: costs outside 0..`INFINITE`.
    """

    def __init__(self, arcs: np.ndarray) -> None:
        if arcs.min() < 0 or arcs.max() > INFINITE:
            raise InputError(COSTS)
        height, width = arcs.shape[:2]
        inner = np.zeros((height + 2, width + 2, 8), np.int32)  # no arc leads to the rim
        inner[1:-1, 1:-1] = arcs
        for d, (row, col) in enumerate(NEIGHBOURS):
            if row:
                inner[1 if row < 0 else height, :, d] = 0
            if col:
                inner[:, 1 if col < 0 else width, d] = 0
        self._shape = height, width
        self._steps = np.array([row * (width + 2) + col for row, col in NEIGHBOURS])
        self._arcs = inner.reshape(-1, 8)
        self._left = self._arcs.copy()

    def cut(self, source: np.ndarray, sink: np.ndarray) -> tuple[int, np.ndarray]:
        """The cheapest way to part the pixels of the source from those of the sink.

        Args:
            source: int32 [H, W], cost of a pixel that is not the source's.
            sink: int32 [H, W], cost of a pixel that is not the sink's.

        Returns:
            The cost, and which pixels are the source's, bool [H, W]: of all cheapest cuts the one
            with the fewest of them, so it depends on the costs only.

        Raises:
            InputError: costs outside 0..`INFINITE`, or no cut that costs less than that.
        """
        least, most = np.minimum(source, sink), np.maximum(source, sink)
        if least.min() < 0 or most.max() > INFINITE:
            raise InputError(COSTS)
        own = np.where(most == INFINITE, most, most - least)
        own = np.pad(np.where(source > sink, own, -own), 1).ravel()
        sent = _sent(self._arcs, self._left, self._steps)
        terminal = np.where(abs(own) == INFINITE, own, own - sent).astype(np.int32)
        cost = int(least.max())
        if cost < INFINITE:
            found = _start(terminal, self._left, self._steps)
            cost = _push_all(found)
        if cost < INFINITE:
            cost = _cost(found.tree == SOURCE, self._arcs, self._steps)
            mask = found.tree.reshape(self._shape[0] + 2, -1)[1:-1, 1:-1] == SOURCE
            cost += int(source[~mask].sum(dtype=np.int64) + sink[mask].sum(dtype=np.int64))
        if cost >= INFINITE:
            self._left[:] = self._arcs
            raise InputError("min_cut found no cut that costs less than 2**30; scale the costs.")
        return cost, mask


def _start(terminal: np.ndarray, capacity: np.ndarray, steps: np.ndarray) -> _Cut:
    """Every tree but its roots empty; `capacity` will be what the flow leaves of it."""
    n = len(terminal)
    roots = np.flatnonzero(terminal).astype(np.int32)
    active = np.zeros(n, np.int32)
    active[: len(roots)] = roots
    return _Cut(
        capacity=capacity,
        terminal=terminal,
        steps=steps,
        tree=np.where(terminal > 0, SOURCE, np.where(terminal < 0, SINK, FREE)).astype(np.int8),
        parent=np.where(terminal != 0, ROOT, NONE).astype(np.int8),
        stamp=np.zeros(n, np.int32),
        distance=np.ones(n, np.int32),
        queued=terminal != 0,
        active=active,
        ring=np.array([0, len(roots)]),
        orphans=np.zeros(n, np.int32),
        orphan_ring=np.zeros(2, np.int64),
    )


@njit(nogil=True, cache=True)
def _sent(arcs: np.ndarray, left: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """What flows from each pixel to its neighbours, less what it gets from them: int64 [n].

    What flows along a forbidden arc is known of the way back only; where that is forbidden too, it
    may be anything, and counts as nothing.
    """
    sent = np.zeros(len(arcs), np.int64)
    for p in range(len(arcs)):
        for d in range(8):
            if arcs[p, d] < INFINITE:
                sent[p] += arcs[p, d] - left[p, d]
            elif arcs[p + steps[d], 7 - d] < INFINITE:
                sent[p] -= arcs[p + steps[d], 7 - d] - left[p + steps[d], 7 - d]
    return sent


@njit(nogil=True, cache=True)
def _cost(inside: np.ndarray, arcs: np.ndarray, steps: np.ndarray) -> int:
    """That of the arcs out of the pixels that are inside, bool [n]."""
    cost = 0
    for p in range(len(arcs)):
        for d in range(8 if inside[p] else 0):
            if not inside[p + steps[d]]:
                cost += arcs[p, d]
    return cost


@njit(nogil=True, cache=True)
def _push_all(cut: _Cut) -> int:
    """Pushes flow until no path is left, or it is `INFINITE`; how much."""
    flow, time, p = 0, 0, -1
    while flow < INFINITE:
        if p < 0 or cut.tree[p] == FREE:
            if cut.ring[1] == 0:
                break
            p = _pop(cut.active, cut.ring)
            cut.queued[p] = False
            if cut.tree[p] == FREE:
                continue
        d = _grow(cut, p)
        if d < 0:
            p = -1
            continue
        time += 1
        q = p + cut.steps[d]
        flow += _augment(cut, p, d) if cut.tree[p] == SOURCE else _augment(cut, q, 7 - d)
        while cut.orphan_ring[1] > 0:
            _adopt(cut, _pop(cut.orphans, cut.orphan_ring), time)
    return flow


@njit(nogil=True, cache=True)
def _pop(items: np.ndarray, ring: np.ndarray) -> int:
    item = items[ring[0]]
    ring[0] = ring[0] + 1 if ring[0] + 1 < len(items) else 0
    ring[1] -= 1
    return item


@njit(nogil=True, cache=True)
def _append(items: np.ndarray, ring: np.ndarray, item: int) -> None:
    end = ring[0] + ring[1]
    items[end if end < len(items) else end - len(items)] = item
    ring[1] += 1


@njit(nogil=True, cache=True)
def _activate(cut: _Cut, p: int) -> None:
    if not cut.queued[p]:
        cut.queued[p] = True
        _append(cut.active, cut.ring, p)


@njit(nogil=True, cache=True)
def _disown(cut: _Cut, p: int) -> None:
    cut.parent[p] = ORPHAN
    _append(cut.orphans, cut.orphan_ring, p)


@njit(nogil=True, cache=True)
def _grow(cut: _Cut, p: int) -> int:
    """Takes free neighbours into p's tree; the direction of one in the other tree, or -1."""
    tree = cut.tree[p]
    for d in range(8):
        q = p + cut.steps[d]
        left = cut.capacity[p, d] if tree == SOURCE else cut.capacity[q, 7 - d]
        if left == 0:
            continue
        if cut.tree[q] == FREE:
            cut.tree[q] = tree
            _activate(cut, q)
        elif cut.tree[q] != tree:
            return d
        elif cut.stamp[q] > cut.stamp[p] or cut.distance[q] <= cut.distance[p]:
            continue
        cut.parent[q] = 7 - d
        cut.stamp[q] = cut.stamp[p]
        cut.distance[q] = cut.distance[p] + 1
    return -1


@njit(nogil=True, cache=True)
def _augment(cut: _Cut, a: int, d: int) -> int:
    """Pushes what fits along the path over the arc d of a, out of the source's tree; how much."""
    steps, parent = cut.steps, cut.parent
    b = a + steps[d]
    amount = cut.capacity[a, d]
    p = a
    while parent[p] != ROOT:
        e = parent[p]
        p += steps[e]
        amount = min(amount, cut.capacity[p, 7 - e])
    q = b
    while parent[q] != ROOT:
        amount = min(amount, cut.capacity[q, parent[q]])
        q += steps[parent[q]]
    amount = min(amount, cut.terminal[p], -cut.terminal[q])
    _push(cut, a, d, amount)
    p = a
    while parent[p] != ROOT:
        e = parent[p]
        y = p + steps[e]
        if _push(cut, y, 7 - e, amount):
            _disown(cut, p)
        p = y
    if cut.terminal[p] < INFINITE:
        cut.terminal[p] -= amount
        if cut.terminal[p] == 0:
            _disown(cut, p)
    q = b
    while parent[q] != ROOT:
        e = parent[q]
        if _push(cut, q, e, amount):
            _disown(cut, q)
        q += steps[e]
    if cut.terminal[q] > -INFINITE:
        cut.terminal[q] += amount
        if cut.terminal[q] == 0:
            _disown(cut, q)
    return amount


@njit(nogil=True, cache=True)
def _push(cut: _Cut, p: int, d: int, amount: int) -> bool:
    """Pushes along the arc d of p; whether that fills it."""
    q = p + cut.steps[d]
    if cut.capacity[q, 7 - d] < INFINITE:
        cut.capacity[q, 7 - d] += amount
    if cut.capacity[p, d] < INFINITE:
        cut.capacity[p, d] -= amount
    return cut.capacity[p, d] == 0


@njit(nogil=True, cache=True)
def _adopt(cut: _Cut, x: int, time: int) -> None:
    """Finds the orphan x the parent nearest to the root; without one, x is free."""
    tree, best, nearest = cut.tree[x], -1, FAR
    for e in range(8):
        y = x + cut.steps[e]
        left = cut.capacity[y, 7 - e] if tree == SOURCE else cut.capacity[x, e]
        if left > 0 and cut.tree[y] == tree:
            away = _to_root(cut, y, time)
            if away < nearest:
                best, nearest = e, away
    if best >= 0:
        cut.parent[x] = best
        cut.stamp[x] = time
        cut.distance[x] = nearest + 1
        return
    cut.tree[x] = FREE
    cut.parent[x] = NONE
    for e in range(8):
        y = x + cut.steps[e]
        if cut.tree[y] == tree:
            left = cut.capacity[y, 7 - e] if tree == SOURCE else cut.capacity[x, e]
            if left > 0:
                _activate(cut, y)
            if cut.parent[y] == 7 - e:
                _disown(cut, y)


@njit(nogil=True, cache=True)
def _to_root(cut: _Cut, y: int, time: int) -> int:
    """Arcs from y to its root, remembered on the way; `FAR` if it descends from an orphan."""
    away, p = 0, y
    while cut.stamp[p] != time:
        if cut.parent[p] == ORPHAN:
            return FAR
        away += 1
        if cut.parent[p] == ROOT:
            cut.stamp[p] = time
            cut.distance[p] = 1
            away -= 1
            break
        p += cut.steps[cut.parent[p]]
    away += cut.distance[p]
    found, p = away, y
    while cut.stamp[p] != time:
        cut.stamp[p] = time
        cut.distance[p] = found
        found -= 1
        p += cut.steps[cut.parent[p]]
    return away
