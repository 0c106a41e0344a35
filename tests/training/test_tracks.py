"""Objects that are clicked on in training: as the predictor hears clicks, one after the other."""

import itertools

import cv2
import numpy as np
import pytest

from mis_jax.datasets import scenes
from mis_jax.predictors import evidence, maps
from mis_jax.predictors.fused import FusedPredictor
from mis_jax.training import tracks
from mis_jax.training.tracks import CELL, Place, Track


@pytest.fixture(scope="module")
def scene():
    return scenes.make_scene(np.random.default_rng([105, 4]), (96, 128))


@pytest.fixture(scope="module")
def place(scene):
    return Place.of(scene[0])


def cells(mask):
    """uint8 [h, w], the share of each cell that a mask holds."""
    size = mask.shape[1] // CELL, mask.shape[0] // CELL
    return cv2.resize(255 * (mask == 1).astype(np.uint8), size, interpolation=cv2.INTER_AREA)


def naive_depths(region):
    """Distance of each cell to the nearest outside of a region, the frame being outside."""
    padded = np.pad(region, 1)
    outside = np.argwhere(~padded)
    away = [
        np.hypot(*(outside - p).T).min() if padded[tuple(p)] else 0
        for p in np.ndindex(padded.shape)
    ]
    return np.reshape(away, padded.shape)[1:-1, 1:-1]


@pytest.mark.parametrize("seed", range(12))
def test_a_click_is_deep_in_the_deeper_error(seed):
    rng = np.random.default_rng(seed)
    blob = lambda: cv2.blur(rng.random((20, 26)), (7, 7)) > 0.5  # noqa: E731
    shown, target = blob(), blob()
    click = tracks.deepest_error(shown, target, rng)
    errors = {True: target & ~shown, False: shown & ~target}
    deep = {kind: naive_depths(error) for kind, error in errors.items()}
    assert errors[click.positive][click.row, click.col]
    assert deep[click.positive].max() >= 0.97 * deep[not click.positive].max()  # OpenCV's 5 x 5
    assert deep[click.positive][click.row, click.col] >= 0.45 * deep[click.positive].max()


def test_seven_of_ten_clicks_are_exact():
    target = np.zeros((40, 40), bool)
    target[5:36, 5:36] = True
    rng = np.random.default_rng(0)
    clicks = [tracks.deepest_error(np.zeros_like(target), target, rng) for _ in range(400)]
    exact = np.mean([(c.row, c.col) == (20, 20) for c in clicks])
    assert 0.6 < exact < 0.8
    assert all(13 - 1 <= v <= 27 + 1 for c in clicks for v in (c.row, c.col))
    assert all(c.positive for c in clicks)


def test_the_first_question_is_what_the_predictor_sees(scene, place, monkeypatch):
    """The evidence's answer is the cut that the fused predictor makes of the same click."""
    image, mask = scene
    seen = []

    class Watched(FusedPredictor):
        def _answers(self, ground):
            ask = super()._answers(ground)

            def answer(answered, channels):
                seen.append((maps.said(channels, ask(answered, channels)), answered))
                return ask(answered, channels)

            return answer

    track = Track(place, itertools.repeat(cells(mask)), np.random.default_rng(3))
    asked = track.ask()
    row, col, kind, depth = asked.points[0]
    assert kind == 1
    assert depth == 0  # infinite: nothing was shown
    assert not asked.points[1:].any()
    predictor = Watched()
    predictor.set_image(image)
    predictor.click((col + 0.5) * CELL, (row + 0.5) * CELL)
    np.testing.assert_array_equal(asked.said, seen[0][0])
    np.testing.assert_array_equal(asked.points, maps.points(place.ground, seen[0][1]))
    np.testing.assert_array_equal(asked.target, cells(mask))
    np.testing.assert_array_equal(place.picture, maps.picture(evidence.Ground.of(image)))


def test_the_next_click_answers_the_mask_that_was_given(scene, place):
    mask = cells(scene[1]) > 127
    track = Track(place, itertools.repeat(cells(scene[1])), np.random.default_rng(0))
    track.ask()
    wide = cv2.dilate(mask.view(np.uint8), np.ones((9, 9), np.uint8)) > 0
    seen = track.see(wide)
    assert seen.clicks == 1
    assert seen.iou == pytest.approx((wide & mask).sum() / (wide | mask).sum())
    asked = track.ask()
    row, col, kind, depth = asked.points[0]
    assert kind == -1
    assert wide[int(row), int(col)]
    assert not mask[int(row), int(col)]
    deep = naive_depths(wide)[int(row), int(col)]
    assert depth == pytest.approx(max(deep, 2), rel=0.05)  # at least LEAST_DEPTH
    assert asked.points[1, 2] == 1
    assert track.see(mask).clicks == 2


def test_the_next_object_comes_when_one_is_done_or_takes_too_long(scene, place):
    first, second = cells(scene[1]), np.zeros_like(cells(scene[1]))
    second[5:20, 5:20] = 255
    track = Track(place, itertools.cycle([first, second]), np.random.default_rng(0))
    np.testing.assert_array_equal(track.ask().target, first)
    assert track.see(first > 127) == (1, 1.0, pytest.approx(track._without))
    asked = track.ask()
    np.testing.assert_array_equal(asked.target, second)
    assert not asked.points[1:].any()
    for k in range(tracks.MOST):
        assert track.see(np.zeros_like(first, bool)).clicks == k + 1
        asked = track.ask()
    np.testing.assert_array_equal(asked.target, first)


def test_the_same_generator_gives_the_same_clicks(scene, place):
    def told(seed):
        track = Track(place, itertools.repeat(cells(scene[1])), np.random.default_rng(seed))
        found = []
        for _ in range(3):
            asked = track.ask()
            track.see(asked.said[..., -1] > 0)
            found.append(asked.points)
        return np.stack(found)

    np.testing.assert_array_equal(told(5), told(5))
    assert any((told(5) != told(seed)).any() for seed in range(5))
