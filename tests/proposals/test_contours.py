"""The ultrametric contour map, against the smallest region that holds both neighbours."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from random_trees import random_tree

from mis_jax import Tree, build_tree
from mis_jax.proposals import contours


def naive(tree):
    """Of each pair of neighbours the greatest cost within the smallest node that holds both."""
    height, width = tree.grid
    held = [{k} for k in range(tree.n)]
    highest = [0.0] * tree.n
    for (a, b), cost in zip(tree.merges, tree.costs, strict=True):
        held.append(held[a] | held[b])
        highest.append(max(cost, highest[a], highest[b]))

    def joined(p, q):
        both = [k for k in range(tree.n, len(held)) if {p, q} <= held[k]]
        return highest[min(both, key=lambda k: len(held[k]))]

    mean = np.mean(tree.costs) if len(tree.costs) and tree.costs.any() else 1.0
    out = np.zeros((height, width, 2))
    for row, col in np.ndindex(height, width):
        p = row * width + col
        if col + 1 < width:
            out[row, col, 0] = joined(p, p + 1) / mean
        if row + 1 < height:
            out[row, col, 1] = joined(p, p + width) / mean
    return out


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6))
def test_borders_are_the_costliest_merges_on_the_way(seed, height, width):
    tree = random_tree(seed, height, width)
    found = contours(tree)
    assert (found.dtype, found.shape) == (np.float32, (height, width, 2))
    np.testing.assert_allclose(found, naive(tree), rtol=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_trees_of_images(seed):
    features = np.random.default_rng(seed).normal(size=(5, 7, 3)).astype(np.float32)
    tree = build_tree(features)
    np.testing.assert_allclose(contours(tree), naive(tree), rtol=1e-5)


def test_a_tree_that_costs_nothing():
    tree = Tree(np.array([[0, 1], [2, 3], [4, 5]], np.int32), np.zeros(3), (2, 2))
    assert not contours(tree).any()
