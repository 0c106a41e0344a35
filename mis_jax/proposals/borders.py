"""Bottom-up merging by what lies between two regions: their means, and the step at their border.

Ward's method sees the means of two regions alone. Parts of one thing whose means differ, as of a
surface under uneven light, then stay apart for longer than different things that meet at a clear
edge but are alike on the whole. Here a merge costs

    (a * b / (a + b)) ** SIZE_POWER * |mean_a - mean_b|^2 * (mean root of the steps) ** 2,

where a and b are the sizes of the regions, and the steps along their border are the distances of
the features of two patches at either side of it; roots, as a border that is clear in places only is
often none. SIZE_POWER = 1 without the steps is Ward's cost. Where a grid has more than REGIONS
patches, Ward's method makes that many regions of them first: it is faster, and a border of few
patches says little.
"""

import numpy as np
from numba import njit

from mis_jax.errors import InputError
from mis_jax.proposals.ward import ward_merges

# Chosen, as the cost, on every third photo of development regions (results/trees), by the best
# region for each that people drew; 0.6 to 0.9 and 500 to 1000 came within 0.005 of it.
SIZE_POWER = 0.75  # below Ward's 1, regions are less kept apart for being large
REGIONS = 600

compiled = njit(nogil=True, cache=True, error_model="numpy")
# Only here may the compiler change the order of additions, to add several channels at once.
reordered = njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})


def border_merges(
    features: np.ndarray, height: int, width: int, *, regions: int = REGIONS
) -> tuple[np.ndarray, np.ndarray]:
    """Merges the two neighbours of least cost until one region is left.

    Equal costs are decided by the places of the regions. One thread; the GIL is released. Memory
    beside the features: about 200n bytes, a copy of them, and 20 regions^2 bytes.

    Args:
      features: float32 [n, C], finite, one row per patch in row-major order.
      height: rows of the grid.
      width: columns of the grid; n = height * width.
      regions: that Ward's method leaves, at least 1.

    Returns:
      merges int32 [n - 1, 2] as of `ward.ward_merges`, and costs float32 [n - 1]. Costs of Ward's
      merges are given as above, with the distance of the means for the step.

    Raises:
      InputError: features that `ward_merges` refuses, or whose cubes are not finite in float32.
    """
    first, costs = ward_merges(features, height, width)
    features = np.ascontiguousarray(features, np.float32)
    first = first[: max(0, len(features) - regions)]
    labels, nodes, sizes = _regions(first, len(features))
    means = _means(features, labels, len(nodes))
    steps, lengths = _borders(features, labels, len(nodes), width)
    merges, later = _merge(means, sizes[nodes].astype(np.float32), steps, lengths, nodes)
    smaller = 1 / (1 / sizes[first].astype(np.float64)).sum(1)
    costs = costs[: len(first)] ** 1.5 * smaller ** (SIZE_POWER - 1.5)  # as Ward's is smaller * d^2
    costs = np.concatenate([costs.astype(np.float32), later])
    if not np.isfinite(costs).all():
        raise InputError("The features hold values too large to be cubed; scale them down.")
    return np.concatenate([first, merges]), costs


@compiled
def _regions(merges: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The regions that the first merges of a tree over n patches leave, in order of their nodes.

    Returns:
      int32 [n], the region of each patch; int32 [R], their nodes; and int32 [n + M], patches of
      every node so far.
    """
    parents, sizes = np.full(n + len(merges), -1, np.int32), np.ones(n + len(merges), np.int32)
    for m in range(len(merges)):
        first, second = merges[m]
        parents[first] = parents[second] = n + m
        sizes[n + m] = sizes[first] + sizes[second]
    nodes = np.flatnonzero(parents < 0).astype(np.int32)
    labels = np.empty(len(parents), np.int32)
    labels[nodes] = np.arange(len(nodes))
    for node in range(len(parents) - 1, -1, -1):
        if parents[node] >= 0:
            labels[node] = labels[parents[node]]
    return labels[:n], nodes, sizes


@compiled
def _means(features: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Mean features of the regions, float32 [R, C]."""
    sums, sizes = np.zeros((count, features.shape[1])), np.zeros((count, 1))
    for patch in range(len(labels)):
        sums[labels[patch]] += features[patch]
        sizes[labels[patch]] += 1
    return (sums / sizes).astype(np.float32)


@compiled
def _borders(
    features: np.ndarray, labels: np.ndarray, count: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the roots of the steps between each two regions, and their number: float32 [R, R]."""
    steps, lengths = np.zeros((count, count), np.float32), np.zeros((count, count), np.float32)
    for patch in range(len(labels)):
        for other, exists in (
            (patch + 1, (patch + 1) % width > 0),
            (patch + width, patch + width < len(labels)),
        ):
            if exists and labels[other] != labels[patch]:
                a, b = labels[patch], labels[other]
                steps[a, b] += _squared_distance(features, patch, other) ** 0.25
                lengths[a, b] += 1
    return steps + steps.T, lengths + lengths.T


@compiled
def _merge(
    means: np.ndarray,
    sizes: np.ndarray,
    steps: np.ndarray,
    lengths: np.ndarray,
    nodes: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Merges and costs that make one region of all; what is given is overwritten.

    A region keeps what it has in the row of one of its parts. Costs of what are no neighbours are
    infinite, and a row's least one is looked for anew only where its region was joined.
    """
    count, node = len(nodes), nodes[-1] + 1
    merges, merge_costs = np.empty((count - 1, 2), np.int32), np.empty(count - 1, np.float32)
    costs = np.full((count, count), np.inf, np.float32)
    nearest, least = np.empty(count, np.int32), np.empty(count, np.float32)
    for a in range(count):
        for b in range(count):
            if lengths[a, b] > 0:
                costs[a, b] = _cost(means, sizes, steps, lengths, a, b)
        nearest[a] = np.argmin(costs[a])
        least[a] = costs[a, nearest[a]]
    for m in range(count - 1):
        place = np.argmin(least)
        gone = nearest[place]
        merges[m] = min(nodes[place], nodes[gone]), max(nodes[place], nodes[gone])
        merge_costs[m], nodes[place], least[gone] = least[place], node + m, np.inf
        _join_means(means, sizes, place, gone)
        lengths[place, gone], costs[place, gone] = 0, np.inf
        for other in range(count):
            border = lengths[place, other] + lengths[gone, other]
            if border == 0 or other == place:
                continue
            lengths[place, other] = lengths[other, place] = border
            steps[place, other] += steps[gone, other]
            steps[other, place] = steps[place, other]
            lengths[other, gone], costs[other, gone] = 0, np.inf
            cost = _cost(means, sizes, steps, lengths, place, other)
            costs[place, other] = costs[other, place] = cost
            if nearest[other] == place or nearest[other] == gone:
                nearest[other] = np.argmin(costs[other])
                least[other] = costs[other, nearest[other]]
            elif cost < least[other]:
                nearest[other], least[other] = place, cost
        nearest[place] = np.argmin(costs[place])
        least[place] = costs[place, nearest[place]]
    return merges, merge_costs


@compiled
def _cost(
    means: np.ndarray, sizes: np.ndarray, steps: np.ndarray, lengths: np.ndarray, a: int, b: int
) -> np.float32:
    size = sizes[a] * sizes[b] / (sizes[a] + sizes[b])
    step = (steps[a, b] / lengths[a, b]) ** 2
    return np.float32(size**SIZE_POWER * _squared_distance(means, a, b) * step)


@compiled
def _join_means(means: np.ndarray, sizes: np.ndarray, a: int, b: int) -> None:
    """Puts mean and size of the joined region into row `a`."""
    size = sizes[a] + sizes[b]
    weight_a, weight_b = sizes[a] / size, sizes[b] / size
    for c in range(means.shape[1]):
        means[a, c] = means[a, c] * weight_a + means[b, c] * weight_b
    sizes[a] = size


@reordered
def _squared_distance(features: np.ndarray, a: int, b: int) -> np.float32:
    total = np.float32(0)
    for c in range(features.shape[1]):
        difference = features[a, c] - features[b, c]
        total += difference * difference
    return total
