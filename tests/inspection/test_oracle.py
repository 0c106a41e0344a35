"""The oracle against brute force: masks of all nodes, and all sets of nodes of tiny trees."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mis_jax.errors import InputError
from mis_jax.evaluation import clicker
from mis_jax.inspection import oracle
from mis_jax.proposals.tree import Tree, build_tree


def random_tree(rng, height, width):
    """Merges any two nodes, connected or not, one after the other."""
    n = height * width
    unmerged, merges = list(range(n)), []
    for node in range(n, 2 * n - 1):
        rng.shuffle(unmerged)
        merges.append([unmerged.pop(), unmerged.pop()])
        unmerged.append(node)
    merges = np.array(merges, np.int32).reshape(n - 1, 2)
    return Tree(merges, np.zeros(n - 1), (height, width))


def random_truth(rng, height, width):
    """Labels -1, 0 and 1, each as likely as chance has it; at least one object pixel."""
    truth = rng.choice([-1, 0, 1], (height, width), p=rng.dirichlet([0.5, 1, 1]))
    truth[rng.integers(height), rng.integers(width)] = 1
    return truth.astype(np.int32)


@st.composite
def cases(draw, side=4):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grid = draw(st.tuples(st.integers(1, side), st.integers(1, side)))
    pixels = draw(st.tuples(st.integers(1, 13), st.integers(1, 13)))
    return random_tree(rng, *grid), random_truth(rng, *pixels)


def flipped(tree, nodes, shape):
    """The mask of some nodes: pixels in an odd number of them."""
    mask = np.zeros(shape, bool)
    for node in nodes:
        mask ^= tree.pixel_mask(node, *shape)
    return mask


@settings(max_examples=200, deadline=None)
@given(cases())
def test_leaf_counts(case):
    tree, truth = case
    counts = oracle.leaf_counts(tree, truth)
    for leaf in range(tree.n):
        inside = truth[tree.pixel_mask(leaf, *truth.shape)]
        assert counts[:, leaf].tolist() == [(inside == 0).sum(), (inside == 1).sum()]


@settings(max_examples=200, deadline=None)
@given(cases(), st.booleans())
def test_best_node_is_the_best_of_all_masks(case, empty):
    tree, truth = case
    if empty:
        truth[truth == 1] = 0
    masks = (tree.pixel_mask(node, *truth.shape) for node in range(tree.num_nodes))
    ious = [clicker.iou(truth, mask) for mask in masks]
    assert oracle.best_node(tree, truth) == (max(ious), int(np.argmax(ious)))


@settings(max_examples=150, deadline=None)
@given(cases(side=2), st.sampled_from([0.3, 0.5, 0.75, 0.8, 0.85, 0.9, 1.0]), st.integers(1, 5))
def test_nodes_needed_is_the_smallest_of_all_sets(case, target, most):
    tree, truth = case
    needed = None
    for k in range(1, min(most, tree.num_nodes) + 1):
        sets = itertools.combinations(range(tree.num_nodes), k)
        if any(clicker.iou(truth, flipped(tree, s, truth.shape)) >= target for s in sets):
            needed = k
            break
    assert oracle.nodes_needed(tree, truth, target, most) == needed
    assert oracle.tree_noc(tree, truth, target, most) == (needed or most)


def test_nodes_of_a_larger_tree():
    """Three nodes make the mask, so that it takes three unless one or two make the same."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        tree = random_tree(rng, 3, 5)
        nodes = rng.choice(tree.num_nodes, 3, replace=False)
        truth = flipped(tree, nodes, (12, 20)).astype(np.int32)
        pairs = itertools.combinations(range(tree.num_nodes), 2)
        two = any((flipped(tree, s, truth.shape) == truth).all() for s in pairs)
        one = oracle.best_node(tree, truth)[0] == 1
        expected = 1 if one else 2 if two else 3
        assert oracle.nodes_needed(tree, truth, 1.0) == expected


def test_a_node_and_a_node_less_another():
    features = np.zeros((8, 8, 1), np.float32)
    features[:4], features[1:3, 1:3] = 100, 40
    tree = build_tree(features)
    truth = np.kron((features[..., 0] == 40).astype(np.int32), np.ones((8, 8), np.int32))
    assert oracle.nodes_needed(tree, truth, 1.0) == 1
    ring = np.kron((features[..., 0] == 100).astype(np.int32), np.ones((8, 8), np.int32))
    assert oracle.nodes_needed(tree, ring, 1.0) <= 2  # the upper half less the square


def test_patches_too_coarse_for_the_object():
    tree = build_tree(np.random.default_rng(0).normal(size=(4, 4, 2)).astype(np.float32))
    truth = np.zeros((32, 32), np.int32)
    truth[3:5, 3:5] = 1
    assert oracle.best_node(tree, truth)[0] == 4 / 64
    assert oracle.nodes_needed(tree, truth, 0.85, 20) is None
    assert oracle.tree_noc(tree, truth, 0.85, 20) == 20
    assert oracle.nodes_needed(tree, truth, 4 / 64, 20) == 1


def test_a_truth_without_object_needs_no_node():
    tree = random_tree(np.random.default_rng(0), 2, 3)
    assert oracle.nodes_needed(tree, np.zeros((9, 9), np.int32)) == 0


@pytest.mark.parametrize("given_", [{"target": 0}, {"target": 1.1}, {"max_nodes": 0}])
def test_settings_out_of_range_are_named(given_):
    tree = random_tree(np.random.default_rng(0), 1, 2)
    (name, value), *_ = given_.items()
    with pytest.raises(InputError, match=f"{name}={value}"):
        oracle.nodes_needed(tree, np.ones((2, 2), np.int32), **given_)
