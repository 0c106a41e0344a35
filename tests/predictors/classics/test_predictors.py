"""The five predictors: seeds kept, clicks forgotten and repeated, easy images, any size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mis_jax.datasets import scenes
from mis_jax.errors import InputError
from mis_jax.predictors.classics import PREDICTORS
from mis_jax.predictors.classics.seeds import seed_map, with_frame

CLICKS = [(80, 60, True), (20, 30, False), (83, 60, False), (150, 100, True), (90, 40, True)]


def image_of(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def scene(k):
    return scenes.make_scene(np.random.default_rng([105, k]))


def two_colours(noise=6):
    """A disc of one colour on another, with noise."""
    rows, cols = np.indices((90, 120))
    truth = (rows - 45) ** 2 + (cols - 66) ** 2 < 28**2
    image = np.where(truth[..., None], (190, 120, 60), (70, 110, 140))
    image = image + np.random.default_rng(3).normal(0, noise, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), truth


def started(name, image):
    predictor = PREDICTORS[name]()
    predictor.set_image(image)
    return predictor


def test_the_table_names_the_five_methods_of_the_papers():
    assert list(PREDICTORS) == ["graphcut", "random_walk", "geodesic", "gsc", "esc"]
    settings = [make().settings for make in PREDICTORS.values()]
    assert all(s["radius"] > 0 for s in settings)
    assert settings[3]["geodesic"] > 0


@pytest.mark.parametrize("name", PREDICTORS)
def test_a_disc_of_one_colour_takes_two_clicks(name):
    image, truth = two_colours()
    predictor = started(name, image)
    first = predictor.click(66, 45)
    assert 200 < first.sum() < first.size / 2  # one click gives something, and not everything
    mask = predictor.click(10, 12, False)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.95
    assert predictor.probabilities.dtype == np.float32
    np.testing.assert_array_equal(predictor.probabilities > 0.5, mask)


@pytest.mark.parametrize("name", PREDICTORS)
def test_every_seed_has_its_label(name):
    for image in (scene(0)[0][60:180, 80:240], image_of(120, 160)):
        predictor = started(name, image)
        for k in range(1, len(CLICKS) + 1):
            mask = predictor.click(*CLICKS[k - 1])
            assert mask.dtype == bool
            clicks = [(y, x, positive) for x, y, positive in CLICKS[:k]]
            seeds = seed_map(clicks, (120, 160), predictor.radius)
            np.testing.assert_array_equal(mask[seeds >= 0], seeds[seeds >= 0] == 1)
            for row, col, positive in clicks:
                assert mask[row, col] == positive


@pytest.mark.parametrize("name", PREDICTORS)
def test_undo_predict_and_a_second_predictor_give_the_same_masks(name):
    image = scene(1)[0][:120, 60:300]
    clicks = [(100, 60, True), (20, 30, False), (103, 60, False), (200, 100, True)]
    predictor, masks = started(name, image), []
    assert not predictor.mask.any()
    for click in clicks:
        masks.append(predictor.click(*click))
    again = started(name, image)
    points, labels = [c[:2] for c in clicks], [c[2] for c in clicks]
    for k in (4, 2, 3):
        found, score, logits = again.predict(points[:k], labels[:k])
        np.testing.assert_array_equal(found, masks[k - 1][None])
        np.testing.assert_array_equal(logits > 0, found)
        assert (found.shape, logits.shape, score.shape) == ((1, 120, 240), (1, 120, 240), (1,))
        assert (logits.dtype, score.dtype) == (np.float32, np.float32)
    for k in (3, 2, 1):
        np.testing.assert_array_equal(predictor.undo(), masks[k - 1])
    assert not predictor.undo().any()
    assert not predictor.undo().any()  # nothing left to take back
    np.testing.assert_array_equal(predictor.click(*clicks[0]), masks[0])
    predictor.reset()
    np.testing.assert_array_equal(predictor.click(*clicks[0]), masks[0])
    assert not predictor.predict([(5, 5)], [0])[0].any()  # nothing is the object's yet
    predictor.set_image(image[:50, :60])
    assert predictor.click(3, 4).shape == (50, 60)


@pytest.mark.parametrize("name", PREDICTORS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2), (40, 60), (1500, 30)])
def test_images_of_any_size(name, shape):
    noise = image_of(*shape)
    for image in (noise, np.full_like(noise, 90)):
        predictor = started(name, image)
        y, x = shape[0] - 1, shape[1] - 1
        mask = predictor.click(x, y)
        assert mask.shape == shape
        assert mask[y, x]
        assert not predictor.click(x, y, positive=False)[y, x]
        assert np.isfinite(predictor.probabilities).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 19), st.integers(0, 24), st.booleans()), max_size=6),
    st.integers(0, 6),
)
def test_a_seed_is_the_nearest_clicks_and_of_equally_near_the_laters(clicks, radius):
    found = seed_map(clicks, (20, 25), radius)
    for row, col in np.ndindex(20, 25):
        away = [(row - r) ** 2 + (col - c) ** 2 for r, c, _ in clicks]
        near = [k for k, a in enumerate(away) if a == min(away) and a <= radius**2]
        assert found[row, col] == (clicks[near[-1]][2] if near else -1)


def test_the_frame_is_background_but_for_seeds():
    seeds = np.full((4, 5), -1, np.int8)
    seeds[0, 1], seeds[2, 2] = 1, 1
    expected = [[0, 1, 0, 0, 0], [0, -1, -1, -1, 0], [0, -1, 1, -1, 0], [0, 0, 0, 0, 0]]
    assert with_frame(seeds).tolist() == expected


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: p.click(60, 0), "outside the image of 60 x 40"),
        (lambda p: p.predict([(1, 2)], [2]), "labels"),
        (lambda p: p.predict([(1, 2)], [1], mask_input=np.zeros((40, 60))), "clicks only"),
        (lambda p: p.predict([(1, 2)], [1], multimask_output=True), "one mask"),
        (lambda p: p.set_image(np.zeros((4, 4), np.uint8)), "uint8 RGB"),
    ],
)
def test_wrong_use_is_said_in_a_sentence(call, words):
    for name in ("graphcut", "random_walk"):
        predictor = started(name, image_of(40, 60))
        before = predictor.click(3, 3)
        with pytest.raises(InputError, match=words):
            call(predictor)
        np.testing.assert_array_equal(predictor.mask, before)


def test_clicks_need_an_image():
    for make in PREDICTORS.values():
        for call in (lambda p: p.click(1, 1), lambda p: p.predict([(1, 1)], [1]), make.reset):
            with pytest.raises(InputError, match="set_image"):
                call(make())


@pytest.mark.parametrize("name", PREDICTORS)
def test_the_frame_is_seeds_until_a_negative_click_or_only_colours(name):
    image = np.full((60, 80, 3), (60, 90, 160), np.uint8)
    image[20:50, :30] = 200, 120, 40  # the object reaches the frame
    predictor = started(name, image)
    first = predictor.click(14, 35)
    assert first[35, 5]
    assert not first[35, 60]
    assert first[35, 0] == (name in ("graphcut", "gsc", "esc"))
    assert predictor.click(60, 35, False)[35, 0]
