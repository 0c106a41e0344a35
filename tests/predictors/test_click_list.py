"""What predictors share whose answer depends on the list of clicks: undo, predict, touch-ups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mis_jax.datasets import scenes
from mis_jax.predictors import FusedPredictor, TreePredictor

APART = [(60, 50, True), (200, 180, False), (90, 70, True), (30, 200, False), (150, 120, True)]
NEAR = [(160, 120, True), (20, 30, False), (161, 120, False), (300, 200, True), (170, 90, True)]
BOTH = pytest.mark.parametrize("make", [FusedPredictor, TreePredictor])


def scene(k):
    return scenes.make_scene(np.random.default_rng([105, k]))[0]


def started(make, image):
    predictor = make()
    predictor.set_image(image)
    return predictor


@BOTH
@pytest.mark.parametrize("clicks", [APART, NEAR])
def test_undo_predict_and_a_second_predictor_give_the_same_masks(make, clicks):
    image = scene(1)
    predictor, masks = started(make, image), []
    assert not predictor.mask.any()
    for click in clicks:
        masks.append(predictor.click(*click))
    again = started(make, image)
    points, labels = [c[:2] for c in clicks], [c[2] for c in clicks]
    for k in (5, 2, 3, 3):
        found, score, logits = again.predict(points[:k], labels[:k])
        np.testing.assert_array_equal(found, masks[k - 1][None])
        np.testing.assert_array_equal(logits > 0, found)
        assert (found.shape, logits.shape, score.shape) == ((1, 240, 320), (1, 240, 320), (1,))
        assert (logits.dtype, score.dtype) == (np.float32, np.float32)
    for k in (4, 3, 2, 1):
        np.testing.assert_array_equal(predictor.undo(), masks[k - 1])
    assert not predictor.undo().any()
    assert not predictor.undo().any()  # nothing left to take back
    np.testing.assert_array_equal(predictor.click(*clicks[0]), masks[0])
    predictor.reset()
    np.testing.assert_array_equal(predictor.click(*clicks[0]), masks[0])
    predictor.set_image(image[:50, :60])
    assert predictor.click(3, 4).shape == (50, 60)


@BOTH
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_list_of_clicks_gives_the_same_mask_whatever_was_asked_before(make, seed):
    rng = np.random.default_rng(seed)
    image = scene(2)[:80, :100]
    used = started(make, image)
    pool = [(x, y, rng.random() < 0.5) for x, y in rng.integers(30, 44, (6, 2)).tolist()]
    for _ in range(4):
        chosen = [pool[k] for k in rng.permutation(6)[: rng.integers(1, 7)]]
        masks = used.predict([c[:2] for c in chosen], [c[2] for c in chosen])[0]
        fresh = started(make, image)
        for click in chosen:
            mask = fresh.click(*click)
        np.testing.assert_array_equal(masks[0], mask)


@BOTH
def test_a_click_at_the_border_of_the_mask_moves_the_border_alone(make):
    image = np.full((90, 120, 3), 230, np.uint8)
    image[30:60, 40:80] = 60
    predictor = started(make, image)
    before = predictor.click(60, 45)
    assert before[30:60, 40:80].mean() > 0.95
    after = predictor.click(39, 45)  # a pixel outside, given to the object
    assert after[45, 39]
    assert 1 <= (before != after).sum() <= 5
    np.testing.assert_array_equal(predictor.undo(), before)
