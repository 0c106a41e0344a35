"""Merging by borders: against a naive merger, which looks at every link of every pair anew."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mis_jax.errors import InputError
from mis_jax.inspection.oracle import best_node
from mis_jax.proposals import borders, build_tree
from mis_jax.proposals.borders import border_merges
from mis_jax.proposals.ward import ward_merges


def random_features(seed: int, n: int, channels: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, channels)).astype(np.float32)


def links(height: int, width: int) -> list[tuple[int, int]]:
    """All pairs of neighbouring patches."""
    grid = np.arange(height * width).reshape(height, width)
    across = zip(grid[:, :-1].ravel(), grid[:, 1:].ravel(), strict=True)
    return [*across, *zip(grid[:-1].ravel(), grid[1:].ravel(), strict=True)]


def cost(features: np.ndarray, a: list[int], b: list[int], pairs: list[tuple[int, int]]) -> float:
    """What it costs to join two lists of patches, in float64; infinite if they do not touch."""
    between = [(p, q) for p, q in pairs if (p in a and q in b) or (p in b and q in a)]
    if not between:
        return np.inf
    values = features.astype(np.float64)
    roots = [np.sqrt(np.linalg.norm(values[p] - values[q])) for p, q in between]
    size = len(a) * len(b) / (len(a) + len(b))
    distance = np.square(values[a].mean(0) - values[b].mean(0)).sum()
    return size**borders.SIZE_POWER * distance * np.mean(roots) ** 2


def naive(features: np.ndarray, height: int, width: int, first: np.ndarray) -> tuple:
    """Merges and costs after the merges `first`."""
    pairs, regions = links(height, width), {k: [k] for k in range(height * width)}
    merges, costs = [], []
    for node in range(height * width, 2 * height * width - 1):
        if len(merges) < len(first):
            a, b = first[len(merges)]
        else:
            a, b = min(
                itertools.combinations(regions, 2),
                key=lambda ab: cost(features, regions[ab[0]], regions[ab[1]], pairs),
            )
            costs.append(cost(features, regions[a], regions[b], pairs))
        regions[node] = regions.pop(a) + regions.pop(b)
        merges.append(sorted((a, b)))
    return np.array(merges).reshape(-1, 2), costs


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    channels=st.integers(1, 20),
    regions=st.integers(1, 25),
)
def test_merges_and_costs_are_those_of_the_naive_merger(seed, height, width, channels, regions):
    features = random_features(seed, height * width, channels)
    first = ward_merges(features, height, width)[0][: max(0, height * width - regions)]
    expected, expected_costs = naive(features, height, width, first)
    merges, costs = border_merges(features, height, width, regions=regions)
    assert (merges.dtype, costs.dtype) == (np.int32, np.float32)
    np.testing.assert_array_equal(merges, expected)
    np.testing.assert_allclose(costs[len(first) :], expected_costs, rtol=1e-3)


def test_costs_of_wards_merges_are_in_the_same_unit():
    features = random_features(1, 30, 3)
    merges, costs = border_merges(features, 5, 6, regions=4)
    regions = [[k] for k in range(30)]
    for (a, b), found in list(zip(merges, costs, strict=True))[:26]:
        size = len(regions[a]) * len(regions[b]) / (len(regions[a]) + len(regions[b]))
        distance = np.linalg.norm(features[regions[a]].mean(0) - features[regions[b]].mean(0))
        np.testing.assert_allclose(found, size**borders.SIZE_POWER * distance**3, rtol=1e-3)
        regions.append(regions[a] + regions[b])


def test_an_edge_outlasts_a_larger_change_little_by_little():
    features = np.full((12, 24, 1), 14, np.float32)  # 2 at the border
    features[:, :12] = np.linspace(0, 12, 12)[:, None]
    left = np.broadcast_to(np.arange(24) < 12, (12, 24))
    trees = [build_tree(features, borders=known) for known in (False, True)]
    assert [best_node(tree, left.astype(np.int32))[0] == 1 for tree in trees] == [False, True]


def test_scale_changes_nothing_but_the_costs():
    features = random_features(2, 30 * 40, 7)
    merges, costs = border_merges(features, 30, 40)
    again = border_merges(4 * features, 30, 40)
    np.testing.assert_array_equal(again[0], merges)
    np.testing.assert_allclose(again[1], 64 * costs, rtol=1e-5)


def test_equal_patches_cost_nothing():
    tree = build_tree(np.ones((30, 40, 3), np.float32), borders=True)
    assert not tree.costs.any()


@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (2, 1), (1, 700), (700, 1)])
def test_lines_and_single_patches(grid):
    tree = build_tree(random_features(3, grid[0] * grid[1], 2).reshape(*grid, 2), borders=True)
    assert tree.grid == grid
    assert tree.areas()[-1] == grid[0] * grid[1]


def test_features_stay_and_threads_do_not_change_a_bit():
    features = random_features(6, 30 * 40, 38)
    features.flags.writeable = False
    merges, costs = border_merges(features, 30, 40)
    with ThreadPoolExecutor(4) as pool:
        for again in pool.map(lambda _: border_merges(features, 30, 40), range(8)):
            np.testing.assert_array_equal(again[0], merges)
            np.testing.assert_array_equal(again[1], costs)


def test_refuses_what_is_not_finite():
    features = random_features(7, 12, 3)
    with pytest.raises(InputError, match="scale them down"):
        border_merges(features * np.float32(1e15), 3, 4)
    features[7, 1] = np.nan
    with pytest.raises(InputError, match="patch 7 "):
        border_merges(features, 3, 4)
