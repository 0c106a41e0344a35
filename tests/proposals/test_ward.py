"""Algorithm 1: merge by merge against a transcription, and its regions against other libraries."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import ward_tree
from sklearn.feature_extraction.image import grid_to_graph

from mis_jax.errors import InputError
from mis_jax.proposals.ward import ward_merges
from mis_jax.proposals.ward_exact import _squared_distance


def lane_distance(a, b):
    """Float32 |a - b|^2: two sums of 4 lanes over groups of 8, then a group of 4, then the rest."""
    squares = (a - b) ** 2
    eights, rest = np.split(squares, [len(squares) // 8 * 8])
    lanes = np.zeros(8, np.float32)
    for group in eights.reshape(-1, 8):
        lanes = lanes + group
    lanes = lanes[:4] + lanes[4:]
    if len(rest) >= 4:
        lanes, rest = lanes + rest[:4], rest[4:]
    total = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])
    for square in rest:
        total = total + square
    return total


def edge_cost(a, size_a, b, size_b):
    return ((size_a * size_b) * (np.float32(1) / (size_a + size_b))) * lane_distance(a, b)


def sift_up(heap, hole, top, entry):
    while hole > top and heap[(hole - 1) // 2][0] > entry[0]:
        heap[hole] = heap[(hole - 1) // 2]
        hole = (hole - 1) // 2
    heap[hole] = entry


def sift_hole(heap, hole, length, entry):
    top = hole
    while hole < (length - 1) // 2:
        child = 2 * hole + 2
        if heap[child][0] > heap[child - 1][0]:
            child -= 1
        heap[hole] = heap[child]
        hole = child
    if length % 2 == 0 and hole == (length - 2) // 2:
        heap[hole] = heap[2 * hole + 1]
        hole = 2 * hole + 1
    sift_up(heap, hole, top, entry)


def grid_graph(height, width):
    """Neighbours of every patch (up, left, down, right), and edges (down, then right)."""
    lists, edges = [], []
    for row, column in itertools.product(range(height), range(width)):
        node = row * width + column
        sides = [(row - 1, column), (row, column - 1), (row + 1, column), (row, column + 1)]
        inside = [0 <= r < height and 0 <= c < width for r, c in sides]
        numbers = [r * width + c for r, c in sides]
        lists.append(list(itertools.compress(numbers, inside)))
        edges += [(node, other) for other in itertools.compress(numbers[2:], inside[2:])]
    return lists, edges


def transcribed_merges(features, height, width):
    """The published code in plain Python: centers of all nodes, lists, roots, and its heap."""
    n = height * width
    centers, sizes = list(features), [np.float32(1)] * n
    lists, edges = grid_graph(height, width)
    heap = [(edge_cost(features[a], sizes[a], features[b], sizes[b]), (a, b)) for a, b in edges]
    for top in range((len(heap) - 2) // 2, -1, -1):
        sift_hole(heap, top, len(heap), heap[top])
    available, parent, merges, costs = [True] * n, list(range(2 * n - 1)), [], []

    def root(node):
        return node if parent[node] == node else root(parent[node])

    for new in range(n, 2 * n - 1):
        pair = None
        while pair is None or not (available[pair[0]] and available[pair[1]]):
            (cost, pair), last = heap[0], heap.pop()
            if heap:
                sift_hole(heap, 0, len(heap), last)
        i, j = pair
        merges.append(pair)
        costs.append(cost)
        parent[i] = parent[j] = new
        available[i] = available[j] = False
        available.append(True)
        sizes.append(sizes[i] + sizes[j])
        centers.append((centers[i] * sizes[i] + centers[j] * sizes[j]) / sizes[new])
        neighbours = dict.fromkeys(root(old) for old in lists[i] + lists[j])
        neighbours.pop(new)
        lists.append(list(neighbours))
        for other in neighbours:
            cost = edge_cost(centers[new], sizes[new], centers[other], sizes[other])
            heap.append(None)
            sift_up(heap, len(heap) - 1, 0, (cost, (other, new)))
    return np.reshape(np.array(merges, np.int32), (-1, 2)), np.array(costs, np.float32)


def regions(merges, n):
    """The patches of every merged node."""
    nodes = [frozenset([leaf]) for leaf in range(n)]
    for first, second in merges:
        nodes.append(nodes[first] | nodes[second])
    return set(nodes[n:])


def algorithm_1(features, height, width):
    """Regions by the words of the paper: float64, costs from the patches, all pairs every time."""
    features = features.astype(np.float64)
    unmerged, found = [frozenset([leaf]) for leaf in range(height * width)], set()
    edges = grid_graph(height, width)[1]

    def squared_error(region):
        members = features[sorted(region)]
        return ((members - members.mean(0)) ** 2).sum()

    def increase(pair):
        return squared_error(pair[0] | pair[1]) - squared_error(pair[0]) - squared_error(pair[1])

    while len(unmerged) > 1:
        home = {leaf: region for region in unmerged for leaf in region}
        connected = {(home[i], home[j]) for i, j in edges if home[i] != home[j]}
        a, b = min(connected, key=increase)
        unmerged = [region for region in unmerged if region not in (a, b)] + [a | b]
        found.add(a | b)
    return found


def random_features(seed, n, channels, kind="real"):
    features = np.random.default_rng(seed).normal(size=(n, channels)).astype(np.float32)
    return {"real": features, "rounded": features.round(), "constant": features * 0 + 1}[kind]


def replay(features, height, width, merges):
    """Costs in float64 of merges and of the cheapest pair that was there at each of them."""
    features = features.astype(np.float64)
    n = height * width
    sums, sizes = dict(enumerate(features)), dict.fromkeys(range(n), 1)
    pairs = {frozenset(edge) for edge in grid_graph(height, width)[1]}
    known, costs, least = {}, [], []

    def cost(pair):
        if pair not in known:
            a, b = pair
            difference = sums[a] / sizes[a] - sums[b] / sizes[b]
            known[pair] = sizes[a] * sizes[b] / (sizes[a] + sizes[b]) * (difference**2).sum()
        return known[pair]

    for node, (a, b) in enumerate(merges.tolist(), start=n):
        least.append(min(map(cost, pairs)))
        costs.append(cost(frozenset((a, b))))
        assert frozenset((a, b)) in pairs
        assert a < b
        sums[node], sizes[node] = sums.pop(a) + sums.pop(b), sizes.pop(a) + sizes.pop(b)
        pairs = {frozenset(node if k in (a, b) else k for k in pair) for pair in pairs}
        pairs = {pair for pair in pairs if len(pair) == 2}
    return np.array(costs), np.array(least)


def test_tied_costs_merge_in_the_published_order():
    constant = [(8, 9), (3, 7), (1, 5), (0, 4), (10, 12), (11, 13), (6, 14), (16, 18), (2, 17)]
    constant += [(15, 19), (20, 21)]
    merges, costs = ward_merges(np.ones((12, 3), np.float32), 3, 4, exact=True)
    assert merges.tolist() == list(map(list, constant))
    assert costs.tolist() == [0] * 11
    features = [[(7 * i + 3 * c + i * i) % 5 for c in range(3)] for i in range(12)]
    tied = [(7, 11), (2, 6), (12, 13), (1, 14), (8, 9), (4, 16), (5, 17), (0, 18), (10, 19)]
    tied += [(3, 15), (20, 21)]
    merges, _ = ward_merges(np.array(features, np.float32), 3, 4, exact=True)
    assert merges.tolist() == list(map(list, tied))
    assert merges.dtype == np.int32


@pytest.mark.parametrize("exact", [True, False])
def test_smallest_grids(exact):
    line = np.array([[0], [1], [5]], np.float32)
    merges, costs = ward_merges(line, 1, 3, exact=exact)
    assert merges.tolist() == [[0, 1], [2, 3]]
    np.testing.assert_allclose(costs, [1 / 2, 2 / 3 * 4.5**2], rtol=1e-6)
    assert ward_merges(line[:2], 2, 1, exact=exact)[0].tolist() == [[0, 1]]
    merges, costs = ward_merges(line[:1], 1, 1, exact=exact)
    assert merges.shape == (0, 2)
    assert costs.shape == (0,)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 8),
    width=st.integers(1, 8),
    channels=st.integers(1, 21),
    kind=st.sampled_from(["real", "rounded", "constant"]),
)
def test_exact_equals_transcription(seed, height, width, channels, kind):
    features = random_features(seed, height * width, channels, kind)
    merges, costs = ward_merges(features, height, width, exact=True)
    expected, expected_costs = transcribed_merges(features, height, width)
    np.testing.assert_array_equal(merges, expected)
    np.testing.assert_array_equal(costs, expected_costs)


@pytest.mark.parametrize("kind", ["real", "rounded"])
def test_exact_equals_transcription_on_a_large_grid(kind):
    features = random_features(1, 24 * 31, 5, kind)
    merges, _ = ward_merges(features, 24, 31, exact=True)
    np.testing.assert_array_equal(merges, transcribed_merges(features, 24, 31)[0])


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 8),
    width=st.integers(1, 8),
    channels=st.integers(1, 41),
    kind=st.sampled_from(["real", "rounded", "constant"]),
)
def test_every_merge_is_the_cheapest_there_is(seed, height, width, channels, kind):
    features = random_features(seed, height * width, channels, kind)
    merges, costs = ward_merges(features, height, width)
    expected, least = replay(features, height, width, merges)
    np.testing.assert_allclose(costs, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(expected, least, rtol=1e-5, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.sampled_from([3, 38, 384]),
)
def test_regions_are_those_of_the_exact_mode(seed, height, width, channels):
    features = random_features(seed, height * width, channels)
    n = height * width
    fast, exact = (ward_merges(features, height, width, exact=e)[0] for e in (False, True))
    assert regions(fast, n) == regions(exact, n)


def test_overwriting_the_features_changes_nothing_else():
    features = random_features(7, 30 * 40, 38)
    merges, costs = ward_merges(features, 30, 40)
    read_only = features.copy()
    read_only.flags.writeable = False
    for same in (features.copy(), read_only, features.astype(np.float64)):
        again = ward_merges(same, 30, 40, overwrite=True)
        np.testing.assert_array_equal(again[0], merges)
        np.testing.assert_array_equal(again[1], costs)
    np.testing.assert_array_equal(read_only, features)
    features[7, 3] = np.nan
    with pytest.raises(InputError, match="patch 7 "):
        ward_merges(features, 30, 40, overwrite=True)


def test_threads_do_not_change_a_bit():
    features = random_features(6, 30 * 40, 38)
    merges, costs = ward_merges(features, 30, 40)
    with ThreadPoolExecutor(4) as pool:
        for again in pool.map(lambda _: ward_merges(features, 30, 40), range(8)):
            np.testing.assert_array_equal(again[0], merges)
            np.testing.assert_array_equal(again[1], costs)


def test_distance_adds_in_the_published_order():
    rng = np.random.default_rng(2)
    for channels in [*range(1, 41), 384, 771]:
        a, b = rng.normal(size=(2, channels)).astype(np.float32)
        assert _squared_distance(a, b) == lane_distance(a, b)


@pytest.mark.parametrize(("height", "width", "channels"), [(1, 9, 4), (9, 1, 1), (5, 6, 384)])
def test_regions_are_those_of_algorithm_1(height, width, channels):
    features = random_features(3, height * width, channels)
    merges, _ = ward_merges(features, height, width)
    assert regions(merges, height * width) == algorithm_1(features, height, width)


@pytest.mark.parametrize(("height", "width", "channels"), [(1, 20, 3), (13, 17, 2), (24, 32, 64)])
def test_regions_are_those_of_scikit_learn(height, width, channels):
    features = random_features(4, height * width, channels)
    children = ward_tree(features.astype(np.float64), connectivity=grid_to_graph(height, width))[0]
    merges, _ = ward_merges(features, height, width)
    assert regions(merges, height * width) == regions(children, height * width)


def test_a_region_that_swallows_patch_after_patch():
    """A comb of steep steps: the first region touches every row, and the heap must grow."""
    features = np.zeros((20, 30, 1), np.float32)
    features[1::2, 1:] = 10.0 ** np.linspace(0, 3, 29, dtype=np.float32)[:, None]
    features = features.reshape(600, 1)
    exact, _ = ward_merges(features, 20, 30, exact=True)
    np.testing.assert_array_equal(exact, transcribed_merges(features, 20, 30)[0])
    merges, _ = ward_merges(features, 20, 30)
    expected, least = replay(features, 20, 30, merges)
    np.testing.assert_allclose(expected, least, rtol=1e-5, atol=1e-5)


def test_input_is_left_alone_whatever_its_layout():
    features = random_features(5, 30, 6)
    before = features.copy()
    for exact in (False, True):
        merges, _ = ward_merges(features, 5, 6, exact=exact)
        np.testing.assert_array_equal(features, before)
        for same in (np.asfortranarray(features), features.astype(np.float64)):
            np.testing.assert_array_equal(ward_merges(same, 5, 6, exact=exact)[0], merges)


@pytest.mark.parametrize("shape", [(11, 3), (12,), (3, 4, 3), (12, 0)])
def test_wrong_shape_is_named(shape):
    with pytest.raises(InputError, match="3x4 patches"):
        ward_merges(np.zeros(shape, np.float32), 3, 4)


def test_empty_grid_is_named():
    with pytest.raises(InputError, match="0x4 patches is empty"):
        ward_merges(np.zeros((0, 3), np.float32), 0, 4)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_values_that_are_not_finite_are_named(value, exact):
    features = np.zeros((12, 3))
    features[6, 1] = value
    with np.errstate(over="ignore"), pytest.raises(InputError, match=r"patch 6 \(row 1, column 2"):
        ward_merges(features, 3, 4, exact=exact)
    with np.errstate(over="ignore"), pytest.raises(InputError, match="patch 0"):
        ward_merges(np.array([[value]]), 1, 1, exact=exact)


@pytest.mark.parametrize("exact", [True, False])
def test_values_too_large_to_square_are_named(exact):
    features = np.zeros((12, 3))
    features[6, 1] = 1e30
    with pytest.raises(InputError, match="too large"):
        ward_merges(features, 3, 4, exact=exact)
