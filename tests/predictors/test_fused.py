"""The fused predictor: the cut against all masks, what a click may change, and the protocol."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mis_jax.datasets import scenes
from mis_jax.datasets.samples import Sample
from mis_jax.evaluation import clicker, metrics
from mis_jax.predictors import fused as lib
from mis_jax.predictors.classics.graph_cut import SCALE
from mis_jax.predictors.classics.maxflow import NEIGHBOURS, Grid
from mis_jax.predictors.clicks import Click
from mis_jax.predictors.evidence import Channels
from mis_jax.predictors.fused import FusedPredictor
from mis_jax.predictors.merge_trees import TreePredictor


def scene(k):
    image, mask = scenes.make_scene(np.random.default_rng([105, k]))
    return Sample(str(k), image, mask)


def started(image):
    predictor = FusedPredictor()
    predictor.set_image(image)
    return predictor


@pytest.mark.parametrize("seed", range(8))
def test_no_mask_that_keeps_what_is_certain_costs_less(seed):
    rng = np.random.default_rng(seed)
    mistake, shown, colours = rng.normal(size=(3, 3, 3)).astype(np.float32)
    shown *= seed % 2
    certain = rng.choice(np.array([-1, -1, -1, 0, 1], np.int8), (3, 3))
    borders = rng.integers(0, 60, (3, 3, 8)).astype(np.int32)
    weight = lib.COLOURS if shown.any() else lib.FIRST_COLOURS
    odds = SCALE * (lib.MISTAKE * mistake + lib.SHOWN * shown + weight * colours)

    def energy(mask):
        total = -odds[mask].sum()
        for row, col, d in np.ndindex(3, 3, 8):
            r, c = row + NEIGHBOURS[d][0], col + NEIGHBOURS[d][1]
            if 0 <= r < 3 and 0 <= c < 3 and mask[row, col] and not mask[r, c]:
                total += borders[row, col, d]
        return total

    masks = (np.reshape(m, (3, 3)) for m in itertools.product((False, True), repeat=9))
    allowed = [m for m in masks if (m == certain)[certain >= 0].all()]
    found = lib.cut(Channels(mistake, shown, colours, certain), Grid(borders))
    assert (found == certain)[certain >= 0].all()
    assert energy(found) <= min(map(energy, allowed)) + 5  # costs are rounded


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_click_on_the_object_only_adds_and_one_beside_it_only_takes_away(seed):
    rng = np.random.default_rng(seed)
    sample = scene(seed % 7)
    predictor, before = started(sample.image), np.zeros(sample.mask.shape, bool)
    for _ in range(8):
        row, col = (int(rng.integers(side)) for side in before.shape)
        positive = bool(rng.integers(2))
        after = predictor.click(col, row, positive)
        wrong = (after != before) & (after != positive)
        # within the cells of a border, which is drawn anew along the edges of the image
        assert not wrong[3:-3, 3:-3].any() or _thickness(wrong) <= 2 * lib.evidence.CELL
        assert after[row, col] == positive
        before = after


def _thickness(region):
    """Greatest side of a square that fits into a region."""
    side = 0
    while region.any():
        side += 1
        region = region[1:, 1:] & region[:-1, 1:] & region[1:, :-1] & region[:-1, :-1]
    return side


@pytest.mark.parametrize("choose", [clicker.next_click, clicker.RandomClicker(3)])
def test_later_clicks_never_make_a_mask_much_worse(choose):
    for k in range(6):
        rounds = clicker.rounds(FusedPredictor(), scene(k), 1.01, 12, choose)
        ious = np.array([r.iou for r in rounds])
        assert (np.diff(ious) > -0.1).all()
        assert ious[-1] >= ious.max() - 0.02


def test_the_protocol_reaches_the_objects_of_made_up_scenes_and_trees_alone_take_longer():
    def clicks(make):
        ious = [[r.iou for r in clicker.rounds(make(), scene(k), 0.9, 20)] for k in range(8)]
        return metrics.noc(ious, 0.85), metrics.noc(ious, 0.90)

    found, trees = clicks(FusedPredictor), clicks(TreePredictor)
    assert found[0] <= 3
    assert found[1] <= 4
    assert sum(found) <= sum(trees)


def test_a_closer_look_that_does_not_hold_the_click_is_not_taken(monkeypatch):
    image = np.full((1500, 2000, 3), 40, np.uint8)
    image[600:900, 60:360] = image[300:1200, 1100:1960] = 220
    monkeypatch.setattr(lib.views, "second_look", lambda *_: (500, 1000, 0, 600))
    predictor = started(image)
    assert predictor.click(200, 750)[750, 200]
    mask = predictor.click(1500, 750)
    assert mask[750, 200]
    assert mask[400:1100, 1200:1850].mean() > 0.95


def test_a_click_that_says_what_is_so_changes_one_pixel_at_most():
    sample = scene(0)
    predictor = started(sample.image)
    assert not predictor.click(5, 5, positive=False).any()
    row, col = np.argwhere(sample.mask == 1).mean(0).astype(int)
    before = predictor.click(col, row)
    assert before[row, col]
    rows, cols = np.nonzero(before)
    after = predictor.click(int(cols[7]), int(rows[7]))
    np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(predictor.undo(), before)


def test_what_was_passed_over_is_no_deeper_than_the_clicks_that_came_first():
    def step(depth, *held):
        mask = np.zeros(30, bool)
        mask[list(held)] = True
        return lib.Step(Click(0, 0, True), depth, 0.0, np.packbits(mask))

    missed, surplus = Click(1, 2, True), Click(2, 3, False)  # pixels 12 and 23 of a width of 10
    steps = [step(np.inf, 23), step(9.0, 12, 23), step(5.0, 23), step(6.0, 23), step(0.0, 23)]
    assert lib.passed_over([], missed, 10) == np.inf
    assert lib.passed_over(steps[:1], missed, 10) == np.inf
    assert lib.passed_over(steps[:1], surplus, 10) == np.inf  # nothing was shown to pass over
    assert lib.passed_over(steps[:3], surplus, 10) == 5.0
    assert lib.passed_over(steps, surplus, 10) == 5.0
    assert lib.passed_over(steps[:3], missed, 10) == np.inf  # it was right when the third was given
    assert lib.passed_over(steps, missed, 10) == 6.0


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2), (700, 900), (2000, 7)])
def test_images_of_any_size(shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for image in (noise, noise[..., :1].repeat(3, 2), np.full_like(noise, 90)):
        predictor = started(image)
        y, x = shape[0] - 1, shape[1] - 1
        mask = predictor.click(x, y)
        assert mask.shape == shape
        assert mask[y, x]
        assert not predictor.click(x, y, positive=False)[y, x]
        assert predictor.click(0, 0)[0, 0]
