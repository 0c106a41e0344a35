"""Evidence: each channel against its definition, cell by cell, and what it promises to a cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mis_jax.predictors import evidence as lib
from mis_jax.predictors.classics.colours import object_likelihood
from mis_jax.predictors.clicks import Click
from mis_jax.predictors.evidence import Answered, Ground
from mis_jax.predictors.merge_trees import cut_probabilities
from mis_jax.proposals import build_tree

GRID = (6, 8)
SHAPE = (12, 16)


def ground(seed):
    """Random trees over grids of three sizes, of an image of SHAPE."""
    rng = np.random.default_rng(seed)
    trees = [build_tree(rng.normal(size=(*grid, 3)).astype(np.float32)) for grid in (GRID, (4, 5))]
    trees.append(build_tree(rng.normal(size=(3, 4, 3)).astype(np.float32)))
    pairs = tuple((tree, cut_probabilities(tree, 0.05)) for tree in trees)
    colours = rng.random((*GRID, 3)).astype(np.float32)
    return Ground(np.zeros((*SHAPE, 3), np.uint8), pairs, colours, np.ones((*GRID, 8), np.float32))


def one_tree(seed):
    """The same with the tree over the cells alone."""
    made = ground(seed)
    return Ground(np.zeros((*SHAPE, 3), np.uint8), made.trees[:1], made.colours, made.links)


def brute_depth(region):
    """Distance to the nearest cell outside, beyond the grid as well, as OpenCV approximates it."""
    return ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]


def clicks_and_mask(seed):
    """A few clicks, the last of which the mask has wrong."""
    rng = np.random.default_rng(seed)
    shown = rng.random(GRID) < rng.choice([0.4, -1])
    answered = [
        Answered(Click(*rng.integers(0, SHAPE), bool(rng.integers(2))), float(rng.uniform(1, 9)))
        for _ in range(rng.integers(1, 5))
    ]
    last = answered[-1].click
    shown[int(last.row) // 2, int(last.col) // 2] = not last.positive
    return answered, shown


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_mistake_is_that_of_all_nodes_weighed_one_by_one(seed):
    made = one_tree(seed)
    (tree, cuts) = made.trees[0]
    answered, shown = clicks_and_mask(seed)
    click = answered[-1].click
    cell = int(click.row) // 2, int(click.col) // 2
    wrong = shown != click.positive
    total, found, uncut = 0.0, np.zeros(GRID), 1.0
    for node in tree.ancestors(cell[0] * GRID[1] + cell[1])[:-1]:
        region, uncut = uncut * cuts[node], uncut * (1 - cuts[node])
        held = tree.mask(node) & wrong
        against = [c for c, _ in answered[:-1] if c.positive != click.positive]
        if any(held[int(c.row) // 2, int(c.col) // 2] for c in against) or region < lib.LEAST:
            continue
        padded = np.pad(held, 1)
        sides = [padded != np.roll(padded, 1, axis) for axis in (0, 1)]
        outline = sum(side.sum() for side in sides)
        frame = sum(edge.sum() for edge in (held[0], held[-1], held[:, 0], held[:, -1]))
        deep = lib.depths(held)
        weight = region**lib.LIKELY * (deep[cell] / deep.max()) ** lib.CENTRAL
        weight *= np.exp(-lib.FRAMED * frame / outline)
        weight *= held.mean() ** lib.FIRST_SIZE if wrong.all() else 1
        total += weight
        found += weight * held
    odds = np.zeros(GRID)
    if total:
        chance = np.clip(found / total, lib.SURE, 1 - lib.SURE)
        odds = np.log(chance / (1 - chance)) * (1 if click.positive else -1) * wrong
    np.testing.assert_allclose(lib.mistake(made, answered, shown), odds, rtol=1e-3, atol=1e-3)


def test_depths_count_the_frame_and_are_distances():
    region = np.random.default_rng(0).random((9, 11)) < 0.8
    np.testing.assert_allclose(lib.depths(region), brute_depth(region), rtol=0.05)
    assert lib.depths(np.ones((5, 5), bool)).max() == pytest.approx(3, rel=0.05)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_channels_speak_for_what_they_say(seed):
    made = ground(seed)
    answered, shown = clicks_and_mask(seed)
    click = answered[-1].click
    sign = 1 if click.positive else -1
    found = lib.channels(made, answered, shown)
    for channel in found:
        assert channel.shape == GRID
    for channel in (found.mistake, found.shown, found.colours):
        assert channel.dtype == np.float32
        assert np.isfinite(channel).all()
    assert (found.mistake[shown == click.positive] == 0).all()
    assert (found.shown[shown] > 0).all()
    assert (found.shown[~shown] < 0).all()
    assert abs(found.shown).max() <= lib.DEEPEST
    assert (found.certain[shown == click.positive] == click.positive).all()
    assert found.certain[made.cell(click)] == click.positive
    cell = made.cell(click)
    assert sign * found.mistake[cell] >= 0 or not found.mistake.any()
    discs = lib.discs(made, answered)
    rim = np.ones(GRID, bool)
    rim[1:-1, 1:-1] = False
    known = np.where(rim & (discs < 0), 0, discs)
    likely = object_likelihood(made.colours, known)
    np.testing.assert_allclose(found.colours, np.log(likely / (1 - likely)), atol=1e-4)


def test_before_any_answer_nothing_has_been_shown():
    made = ground(1)
    click = Click(5, 7, True)
    shown = np.zeros(GRID, bool)
    assert lib.depth(made, shown, click) == np.inf
    found = lib.channels(made, [Answered(click, np.inf)], shown)
    assert not found.shown.any()
    disc = np.hypot(*(np.indices(GRID) - np.array([2, 3])[:, None, None])) <= 4
    np.testing.assert_array_equal(found.certain, np.where(disc, 1, -1))


def test_the_depth_of_a_click_is_its_distance_to_what_is_right():
    made = ground(2)
    shown = np.zeros(GRID, bool)
    shown[:, 5:] = True
    assert lib.depth(made, shown, Click(6, 6, True)) == pytest.approx(2 * 2, rel=0.05)
    assert lib.depth(made, shown, Click(6, 4, True)) == pytest.approx(2 * 3, rel=0.05)
    assert lib.depth(made, shown, Click(6, 14, False)) == pytest.approx(2 * 1, rel=0.05)


def test_discs_reach_to_their_depths_and_the_nearest_click_decides():
    made = ground(3)
    answered = [Answered(Click(5, 3, True), 5.0), Answered(Click(5, 9, False), 100.0)]
    seeds = lib.discs(made, answered)
    away = [np.hypot(*(np.indices(GRID) - np.array([2, col])[:, None, None])) for col in (1, 4)]
    for place in np.ndindex(GRID):
        reached = [away[0][place] <= 2.5, away[1][place] <= lib.LARGEST_RADIUS / 2]
        nearest = away[0][place] < away[1][place]
        expected = -1 if not any(reached) else int(reached[0] and (nearest or not reached[1]))
        assert seeds[place] == expected


def test_an_image_makes_its_ground_in_any_size():
    for height, width in ((1, 1), (2, 9), (33, 50)):
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        made = Ground.of(image)
        grid = -(-height // 2), -(-width // 2)
        assert made.grid == grid
        assert made.colours.shape == (*grid, 3)
        assert made.links.shape == (*grid, 8)
        click = Click(0, 0, True)
        lib.channels(made, [Answered(click, np.inf)], np.zeros(grid, bool))
