"""Tree: structure against plain Python, Algorithm 2 against the published draws, and its bytes."""

import collections
import math
import pickle
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_trees import Minstd, random_tree

from mis_jax.errors import InputError
from mis_jax.proposals import sampling
from mis_jax.proposals.tree import Tree, build_tree
from mis_jax.proposals.ward import ward_merges

# Depths of the walk with alpha = 0.9 on a tree without end: P(d) = 0.9^(d(d-1)/2) (1 - 0.9^d).
DEPTHS = {1: 0.1, 2: 0.171, 3: 0.1976, 4: 0.1828, 5: 0.1428, 6: 0.0965, 7: 0.0571, 8: 0.0298}


def chain(n):
    """Patches join the region one by one, so that the node of area a is n + a - 2."""
    later = np.arange(n, 2 * n - 2)
    merges = np.stack([np.append(0, later), np.arange(1, n)], axis=1)
    return Tree(merges, np.arange(n - 1), (1, n))


def balanced(levels):
    """The complete tree with 2^levels patches."""
    n = 2**levels
    return Tree(np.arange(2 * n - 2).reshape(n - 1, 2), np.arange(n - 1), (1, n))


def tied_tree():
    features = [[(7 * i + 3 * c + i * i) % 5 for c in range(3)] for i in range(12)]
    return build_tree(np.array(features, np.float32).reshape(3, 4, 3), exact=True)


def draws(tree, count, seed=0, **settings):
    rng = np.random.default_rng(seed)
    return np.array([tree.sample(rng, **settings) for _ in range(count)])


trees = st.builds(random_tree, st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 9))


@settings(max_examples=100, deadline=None)
@given(trees)
def test_structure(tree):
    n, merges = tree.n, tree.merges.tolist()
    assert n == tree.grid[0] * tree.grid[1]
    assert (tree.num_nodes, tree.root) == (2 * n - 1, 2 * n - 2)
    assert tree.merges.dtype == tree.areas().dtype == np.int32
    assert tree.parents().dtype == tree.depths().dtype == np.int32
    assert tree.parents()[tree.root] == -1
    assert tree.depths()[tree.root] == 0
    members = [{leaf} for leaf in range(n)] + [set() for _ in merges]
    for node, children in enumerate(merges, start=n):
        members[node] = members[children[0]] | members[children[1]]
        for child in children:
            assert tree.parents()[child] == node
            assert tree.depths()[child] == tree.depths()[node] + 1
    for node in range(tree.num_nodes):
        assert tree.areas()[node] == len(members[node])
        assert set(np.flatnonzero(tree.mask(node))) == members[node]
        assert tree.mask(node).shape == tree.grid
        assert tree.mask(node).dtype == bool


@settings(max_examples=100, deadline=None)
@given(trees, st.integers(0, 80), st.integers(0, 80), st.data())
def test_regions_at_a_pixel(tree, more_rows, more_columns, data):
    height, width = tree.grid[0] + more_rows, tree.grid[1] + more_columns
    row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    patch = tree.patch_at(row + 0.5, col, height, width)
    path = tree.ancestors(patch).tolist()
    assert path == [k for k in range(tree.num_nodes) if tree.mask(k).flat[patch]]
    for node in range(tree.num_nodes):
        mask = tree.pixel_mask(node, height, width)
        assert mask.shape == (height, width)
        assert mask[row, col] == (node in path)


def test_pixels_outside_the_image_have_no_patch():
    for row, col in ((-1, 0), (5, 0), (0, 7), (0, -0.1)):
        with pytest.raises(IndexError, match="5 x 7"):
            chain(3).patch_at(row, col, 5, 7)


@settings(max_examples=50, deadline=None)
@given(trees, st.data())
def test_leaves_come_breadth_first(tree, data):
    node = data.draw(st.integers(0, tree.root))
    queue, expected = collections.deque([node]), []
    while queue:
        front = queue.popleft()
        if front < tree.n:
            expected.append(front)
        else:
            queue.extend(tree.merges[front - tree.n].tolist())
    assert tree.leaves(node).tolist() == expected
    assert tree.leaves(node).dtype == np.int32


def test_arrays_are_read_only_copies():
    merges = np.array([[0, 1], [2, 3]], np.int32)
    tree = Tree(merges, costs := np.ones(2, np.float32), (1, 3))
    merges[0] = costs[0] = 7
    assert tree.merges.tolist() == [[0, 1], [2, 3]]
    assert tree.costs.tolist() == [1, 1]
    for array in (tree.merges, tree.costs, tree.areas(), tree.parents(), tree.depths()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize("node", [-1, 5])
def test_unknown_nodes_have_no_patches(node):
    for method in (chain(3).mask, chain(3).leaves):
        with pytest.raises(IndexError, match=r"nodes 0\.\.4"):
            method(node)


@pytest.mark.parametrize(
    "merges",
    [
        [[0, 1], [2, 2]],  # a child twice
        [[0, 1], [0, 3]],  # patch 2 left out
        [[0, 3], [1, 2]],  # a node in itself
        [[0, 4], [1, 2]],  # a later node
        [[0, 1], [2, -2]],
        [[0, 1]],
        [[0, 1, 2]],
        [],
    ],
)
def test_merges_that_are_no_tree(merges):
    with pytest.raises(InputError, match="1x3 patches"):
        Tree(np.array(merges, np.int32), np.zeros(2), (1, 3))


@pytest.mark.parametrize("costs", [[1], [1, -1], [1, np.nan], [np.inf, 1], [[1, 2]]])
def test_costs_that_are_none(costs):
    with pytest.raises(InputError, match="2 merges"):
        Tree(np.array([[0, 1], [2, 3]]), np.array(costs), (1, 3))


def test_build_tree():
    features = np.random.default_rng(0).normal(size=(5, 7, 6)).astype(np.float32)
    tree = build_tree(features)
    assert tree.grid == (5, 7)
    merges, costs = ward_merges(features.reshape(35, 6), 5, 7)
    np.testing.assert_array_equal(tree.merges, merges)
    np.testing.assert_array_equal(tree.costs, costs)
    with pytest.raises(InputError, match=r"\[35, 6\]"):
        build_tree(features.reshape(35, 6))
    with pytest.raises(InputError, match="NaN"):
        build_tree(np.full((2, 2, 1), np.nan, np.float32))


def test_published_numbers_and_proposals():
    assert [Minstd(s).random() for s in (0, 1, 2147483647)] == [0.13153778773876065] * 3
    rng = Minstd(12345)
    expected = [0.8339946273549487, 0.03587859497380429, 0.05115521983888759]
    assert [rng.random() for _ in range(3)] == expected
    tree, walk = tied_tree(), sampling._walk.py_func  # the same source, with any generator
    leaves = [
        tree.leaves(walk(tree.merges, tree.areas(), np.float32(0.9), Minstd(s)))
        for s in (0, 2, 12345)
    ]
    assert [x.tolist() for x in leaves] == [[0, 5, 4, 8, 9], [3], [0]]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9, 1.0])
def test_sampling_is_that_walk_until_large_enough(alpha):
    tree, walk = random_tree(1, 6, 7), sampling._walk.py_func
    for seed in range(100):
        rng = np.random.default_rng(seed)
        for _ in range(3):
            node = walk(tree.merges, tree.areas(), np.float32(alpha), rng)
            if tree.areas()[node] / tree.n > 0.2:
                break
        assert tree.sample(np.random.default_rng(seed), alpha, 0.2, max_tries=3) == node


def test_depths_of_algorithm_2():
    tree, count = balanced(13), 40_000
    depths = tree.depths()[draws(tree, count, min_area=0.0)]
    for depth, probability in DEPTHS.items():
        error = math.sqrt(probability * (1 - probability) / count)
        assert np.mean(depths == depth) == pytest.approx(probability, abs=5 * error)
    assert depths.mean() == pytest.approx(3.912, abs=5 * depths.std() / math.sqrt(count))


def test_both_children_are_equally_likely():
    tree, count = balanced(3), 20_000
    drawn = draws(tree, count, alpha=1.0, min_area=0.0)
    assert drawn.max() < tree.n  # alpha = 1 never stops above a patch
    shares = np.bincount(drawn, minlength=8) / count
    np.testing.assert_allclose(shares, 1 / 8, atol=5 * math.sqrt(7 / 64 / count))


def test_fixed_is_a_child_of_the_root():
    tree = random_tree(3, 6, 6)
    drawn = draws(tree, 400, mode="fixed", min_area=0.0)
    assert set(drawn) == set(tree.merges[-1])
    np.testing.assert_array_equal(drawn, draws(tree, 400, alpha=0.0, min_area=0.0))
    assert 120 < np.sum(drawn == tree.merges[-1, 0]) < 280


@pytest.mark.parametrize("mode", ["top_down", "uniform"])
def test_nodes_of_exactly_the_least_area_are_too_small(mode):
    tree = balanced(4)
    for min_area, least in ((0.125, 4), (0.1249, 2), (0.25, 8)):
        drawn = draws(tree, 500, mode=mode, min_area=min_area)
        assert tree.areas()[drawn].min() == least


def test_the_last_try_counts_whatever_its_size():
    drawn = draws(chain(20), 200, min_area=1.0, max_tries=2)
    assert drawn.max() < chain(20).root
    assert drawn.min() < 20


def test_uniform_over_the_large_merges_below_the_root():
    tree, count = random_tree(4, 10, 10), 20_000
    passing = [k for k in range(tree.n, tree.root) if tree.areas()[k] > 5]
    shares = np.bincount(draws(tree, count, mode="uniform"), minlength=tree.num_nodes) / count
    assert set(np.flatnonzero(shares)) == set(passing)
    error = 5 * math.sqrt(1 / len(passing) / count)
    np.testing.assert_allclose(shares[passing], 1 / len(passing), atol=error)


def test_uniform_without_a_large_merge_takes_the_larger_child():
    assert set(draws(chain(20), 20, mode="uniform", min_area=1.0)) == {chain(20).root - 1}


def seen_part(tree, weights):
    """The tree of the patches of weight over 0 in plain Python: node -> its parts, and the top."""
    parts, stand_in = {}, {leaf: leaf for leaf in range(tree.n) if weights[leaf]}
    for node, (a, b) in enumerate(tree.merges.tolist(), start=tree.n):
        if a in stand_in and b in stand_in:
            parts[node] = stand_in[a], stand_in[b]
            stand_in[node] = node
        elif a in stand_in or b in stand_in:
            stand_in[node] = stand_in[a if a in stand_in else b]
    return parts, stand_in[tree.root]


@settings(max_examples=60, deadline=None)
@given(trees, st.integers(0, 2**32 - 1), st.sampled_from(sampling.MODES))
def test_the_seen_part_is_sampled_as_an_image_of_its_own(tree, seed, mode):
    rng = np.random.default_rng(seed)
    weights = rng.integers(1, 9, tree.n) * (rng.random(tree.n) < 0.5)
    weights[rng.integers(tree.n)] += 1
    parts, top = seen_part(tree, weights)
    share = {k: weights[tree.leaves(k)].sum() / weights.sum() for k in range(tree.num_nodes)}
    rng = np.random.default_rng(seed)
    for _ in range(5):
        node = tree.sample(rng, 0.9, 0.1, mode, 50, weights)
        assert share[node] > 0
        assert node in parts or node < tree.n
        assert (node == top) == (not parts)
        if mode == "fixed" and share[node] > 0.1:
            assert node in parts[top] if parts else node == top
        large = [k for k in parts if k != top and share[k] > 0.1]
        if mode == "uniform" and large:
            assert node in large
        if mode == "top_down" and parts and min(share[k] for k in parts[top]) > 0.1:
            assert share[node] > 0.1


def test_depths_of_algorithm_2_in_the_seen_part():
    """Every second patch of a complete tree makes a complete tree with one level less."""
    tree, rng = balanced(14), np.random.default_rng(0)
    weights = np.tile([0, 3], tree.n // 2)
    drawn = [tree.sample(rng, 0.9, 0.0, weights=weights) for _ in range(5000)]
    depths = tree.depths()[drawn]
    assert depths.mean() == pytest.approx(3.912, abs=5 * depths.std() / math.sqrt(len(depths)))


@pytest.mark.parametrize("weights", [[1, 2], [1, -1, 1], [0, 0, 0]])
def test_weights_that_are_none(weights):
    with pytest.raises(InputError, match="3 patches"):
        chain(3).sample(np.random.default_rng(0), weights=np.array(weights))


@pytest.mark.parametrize("mode", sampling.MODES)
def test_tiny_grids(mode):
    single = build_tree(np.ones((1, 1, 3), np.float32))
    assert single.merges.shape == (0, 2)
    assert set(draws(single, 5, mode=mode)) == {0}
    assert single.mask(0).tolist() == [[True]]
    assert single.leaves(0).tolist() == [0]
    pair = build_tree(np.ones((2, 1, 3), np.float32))
    assert set(draws(pair, 20, mode=mode)) <= {0, 1}


def test_same_generator_same_node():
    tree = random_tree(5, 8, 8)
    for mode in sampling.MODES:
        np.testing.assert_array_equal(draws(tree, 50, mode=mode), draws(tree, 50, mode=mode))
        assert isinstance(tree.sample(np.random.default_rng(0), mode=mode), int)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "topdown"}, "top_down, uniform, fixed"),
        ({"alpha": 1.1}, "alpha=1.1"),
        ({"alpha": math.nan}, "alpha=nan"),
        ({"min_area": -0.1}, "min_area=-0.1"),
        ({"max_tries": 0}, "max_tries=0"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        chain(3).sample(np.random.default_rng(0), **settings)


@settings(max_examples=50, deadline=None)
@given(trees)
def test_bytes_come_back(tree):
    back = Tree.from_bytes(tree.to_bytes())
    assert back.grid == tree.grid
    assert back.merges.dtype == np.int32
    np.testing.assert_array_equal(back.merges, tree.merges)
    assert ((back.costs == 0) == (tree.costs == 0)).all()
    np.testing.assert_allclose(back.costs, tree.costs, rtol=2 ** (1 / 16) - 1 + 1e-6)
    assert back.to_bytes() == tree.to_bytes()


def test_costs_keep_their_order_over_many_octaves():
    costs = np.float32(3) * 2.0 ** -np.arange(40)
    tree = Tree(np.stack([np.arange(40), np.arange(40, 80)], 1), costs, (1, 41))
    back = Tree.from_bytes(tree.to_bytes()).costs
    np.testing.assert_allclose(back[:31], tree.costs[:31], rtol=1e-6)
    assert (back[31:] >= tree.costs[31:]).all()
    assert (np.diff(back) <= 0).all()


def test_bytes_of_an_image_are_few():
    assert len(random_tree(6, 47, 63).to_bytes()) == 22 + 5 * 2960 < 16_000


def test_many_patches_take_four_bytes_an_index():
    for n, size in ((32_768, 2), (32_769, 4)):
        tree = chain(n)
        assert len(tree.to_bytes()) == 22 + (2 * size + 1) * (n - 1)
        np.testing.assert_array_equal(Tree.from_bytes(tree.to_bytes()).merges, tree.merges)


def test_any_flipped_bit_is_found():
    whole = random_tree(7, 3, 4).to_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InputError, match="propose the trees"):
            Tree.from_bytes(bytes(damaged))


def test_any_other_length_is_found():
    whole = random_tree(8, 3, 4).to_bytes()
    for damaged in (*(whole[:end] for end in range(len(whole))), whole + b"\0", whole * 2):
        with pytest.raises(InputError, match="propose the trees"):
            Tree.from_bytes(damaged)


def written(
    version=2, size=2, height=1, width=3, largest=1.0, merges=((0, 1), (2, 3)), levels=(0, 255)
):
    """Bytes with a right checksum, whatever they say."""
    body = np.array(merges, f"<u{size}").tobytes() + bytes(levels)
    head = struct.pack("<4sBBIIf", b"MTRE", version, size, height, width, largest)
    return head + struct.pack("<I", zlib.crc32(head + b"\0\0\0\0" + body)) + body


def test_layout_of_the_bytes():
    assert chain(3).to_bytes() == written(merges=((0, 1), (3, 2)))


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 1},
        {"largest": math.nan},
        {"largest": -1.0},
        {"levels": (1,)},
        {"size": 4},
        {"size": 1},
        {"height": 0},
        {"width": 4},
        {"height": 2**32 - 1, "width": 2**32 - 1},
        {"merges": ((0, 1), (2, 2))},
        {"merges": ((0, 3), (1, 2))},
        {"merges": ((0, 1), (2, 65535))},
    ],
)
def test_bytes_that_hold_no_tree(fields):
    with pytest.raises(InputError):
        Tree.from_bytes(written(**fields))


def test_pickles():
    tree = random_tree(9, 4, 5)
    tree.areas()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(tree)).merges, tree.merges)
