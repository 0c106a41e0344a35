"""The grid's minimum cut: cost and mask against scipy's maximum flow, and against all masks."""

import itertools

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csgraph

from mis_jax.errors import InputError
from mis_jax.predictors.classics.maxflow import INFINITE, NEIGHBOURS, Grid, min_cut


def arcs_of(arcs):
    """(pixel, neighbour, capacity) of every arc within the grid."""
    height, width, _ = arcs.shape
    for row, col, d in np.ndindex(arcs.shape):
        r, c = row + NEIGHBOURS[d][0], col + NEIGHBOURS[d][1]
        if 0 <= r < height and 0 <= c < width:
            yield row * width + col, r * width + c, arcs[row, col, d]


def scipy_cut(source, sink, arcs):
    """Flow, and what the source still reaches."""
    n = source.size
    rows, cols, capacities = np.array(list(arcs_of(arcs)), np.int64).reshape(-1, 3).T
    pixels = np.arange(n)
    rows = np.concatenate([rows, np.full(n, n), pixels])
    cols = np.concatenate([cols, pixels, np.full(n, n + 1)])
    capacities = np.concatenate([capacities, source.ravel(), sink.ravel()]).astype(np.int32)
    graph = scipy.sparse.csr_matrix((capacities, (rows, cols)), shape=(n + 2, n + 2))
    result = csgraph.maximum_flow(graph, n, n + 1)
    left = graph - result.flow
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    reached = csgraph.breadth_first_order(left, n, return_predecessors=False)
    return result.flow_value, np.isin(pixels, reached).reshape(source.shape)


def problem(seed, height, width, largest, forbidden):
    """Random costs; a share of the arcs, and a seed of each kind, are never cut."""
    rng = np.random.default_rng(seed)
    source, sink = rng.integers(0, 20, (2, height, width)) * rng.integers(0, 2, (2, height, width))
    arcs = rng.integers(0, largest, (height, width, 8))
    arcs[rng.random(arcs.shape) < forbidden] = INFINITE
    return source.astype(np.int32), sink.astype(np.int32), arcs.astype(np.int32)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([1, 2, 12, 200]),
    st.sampled_from([0, 0.05, 0.3]),
)
def test_cost_and_smallest_mask_are_those_of_scipy(seed, height, width, largest, forbidden):
    costs = problem(seed, height, width, largest, forbidden)
    cost, mask = min_cut(*costs)
    expected, reached = scipy_cut(*costs)
    assert cost == expected
    np.testing.assert_array_equal(mask, reached)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([1, 12, 200]),
    st.sampled_from([0, 0.05, 0.3]),
)
def test_a_grid_cut_again_and_again_is_cut_as_if_it_were_new(
    seed, height, width, largest, forbidden
):
    arcs = problem(seed, height, width, largest, forbidden)[2]
    grid, rng = Grid(arcs), np.random.default_rng(seed)
    for k in range(5):
        source, sink, _ = problem(seed + k + 1, height, width, 1, 0)
        places = rng.integers(0, height), rng.integers(0, width)
        source[places], sink[places] = (0, INFINITE) if k % 2 else (INFINITE, 0)
        cost, mask = grid.cut(source, sink)
        expected, new = min_cut(source, sink, arcs)
        assert cost == expected
        np.testing.assert_array_equal(mask, new)


def test_a_grid_that_could_not_be_cut_can_be_afterwards():
    arcs = np.full((1, 3, 8), INFINITE, np.int32)
    grid, none = Grid(arcs), np.zeros((1, 3), np.int32)
    ends = np.array([[INFINITE, 0, 0]], np.int32)
    with pytest.raises(InputError, match="no cut"):
        grid.cut(ends, ends[:, ::-1])
    assert grid.cut(none + 2, none + 1) == (3, pytest.approx(np.ones((1, 3))))


def energy(mask, source, sink, arcs):
    total = int(source[~mask].sum()) + int(sink[mask].sum())
    flat = mask.ravel()
    return total + sum(int(c) for p, q, c in arcs_of(arcs) if flat[p] and not flat[q])


@pytest.mark.parametrize("seed", range(6))
def test_no_mask_of_a_tiny_grid_costs_less(seed):
    source, sink, arcs = problem(seed, 3, 3, 12, 0.1 * (seed % 2))
    source[0, 0], sink[2, 2] = 40, 40
    if seed > 2:
        source[1, 0], sink[0, 2] = INFINITE, INFINITE
    masks = [np.array(m).reshape(3, 3) for m in itertools.product((False, True), repeat=9)]
    costs = [energy(mask, source, sink, arcs) for mask in masks]
    cost, mask = min_cut(source, sink, arcs)
    assert cost == min(costs) == energy(mask, source, sink, arcs)
    assert mask.sum() == min(m.sum() for m, c in zip(masks, costs, strict=True) if c == cost)


def test_a_chain_of_forbidden_arcs_drags_its_end_along():
    arcs = np.zeros((1, 6, 8), np.int32)
    arcs[0, 1:, NEIGHBOURS.index((0, -1))] = INFINITE  # a pixel with the source takes all before it
    source, sink = np.zeros((2, 1, 6), np.int32)
    source[0, 4], sink[0, 1] = 7, 3
    cost, mask = min_cut(source, sink, arcs)
    assert (cost, mask.tolist()) == (3, [[True] * 5 + [False]])
    sink[0, 1] = INFINITE
    cost, mask = min_cut(source, sink, arcs)
    assert (cost, mask.any()) == (7, False)


def test_costs_that_are_no_costs_and_cuts_that_are_forbidden_are_refused():
    arcs = np.full((2, 2, 8), INFINITE, np.int32)
    source, sink = np.zeros((2, 2, 2), np.int32)
    source[0, 0], sink[1, 1] = INFINITE, INFINITE
    with pytest.raises(InputError, match="no cut"):
        min_cut(source, sink, arcs)
    sink[0, 0] = INFINITE
    with pytest.raises(InputError, match="no cut"):
        min_cut(source, sink, np.zeros_like(arcs))
    with pytest.raises(InputError, match="from 0"):
        min_cut(source, -sink, arcs)
