"""The corrected predictor: untrained it is the fused one; the network's answer is what is shown."""

import numpy as np
import pytest
import small_evidence

import mis_jax
from mis_jax.datasets import scenes
from mis_jax.datasets.samples import Sample
from mis_jax.errors import InputError
from mis_jax.evaluation import clicker
from mis_jax.models import loading
from mis_jax.predictors import corrected, mirrored
from mis_jax.predictors.corrected import CorrectedPredictor
from mis_jax.predictors.fused import FusedPredictor
from mis_jax.predictors.network import Predictor

CLICKS = [(60, 50, True), (100, 70, True), (20, 15, False), (75, 40, False)]


@pytest.fixture(scope="module")
def image():
    return scenes.make_scene(np.random.default_rng([105, 1]), (101, 130))[0]


def started(predictor, image):
    predictor.set_image(image)
    return predictor


def untrained():
    return CorrectedPredictor(small_evidence.untrained(), small_evidence.WIDTH)


def trained(seed=0):
    return CorrectedPredictor(small_evidence.parameters(seed), small_evidence.WIDTH)


def test_an_untrained_network_gives_the_masks_of_the_fused_predictor():
    """But for a pixel here and there on the border, by rounding."""
    image, mask = scenes.make_scene(np.random.default_rng([105, 2]), (110, 120))
    sample = Sample("scene", image, mask)
    both = [list(clicker.rounds(p, sample, 1.01, 8)) for p in (untrained(), FusedPredictor())]
    for ours, plain in zip(*both, strict=True):
        assert (ours.row, ours.col, ours.positive) == (plain.row, plain.col, plain.positive)
        assert (ours.mask != plain.mask).mean() < 5e-4


def test_the_network_is_asked_for_every_mask(image):
    a, b = started(trained(), image), started(FusedPredictor(), image)
    differ = [(a.click(*click) != b.click(*click)).sum() for click in CLICKS]
    assert min(differ) > 0
    assert a.mask[70, 100]
    assert not a.mask[15, 20]


def test_padding_is_no_part_of_an_answer(image, monkeypatch):
    whole = started(trained(), image)
    masks = [whole.click(*click) for click in CLICKS]
    monkeypatch.setattr(corrected, "QUANTUM", 128)
    wide = started(trained(), image)
    for click, mask in zip(CLICKS, masks, strict=True):
        assert (wide.click(*click) != mask).mean() < 1e-3
    np.testing.assert_allclose(wide.probabilities, whole.probabilities, atol=1e-3)


def test_undo_and_predict_give_the_masks_of_the_clicks(image):
    predictor = started(trained(), image)
    masks = [predictor.click(*click) for click in CLICKS]
    for mask in masks[-2::-1]:
        np.testing.assert_array_equal(predictor.undo(), mask)
    assert not predictor.undo().any()
    points = [click[:2] for click in CLICKS]
    found, scores, logits = predictor.predict(points, [click[2] for click in CLICKS])
    np.testing.assert_array_equal(found[0], masks[-1])
    assert 0 < scores[0] <= 1
    np.testing.assert_array_equal(logits[0] > 0, found[0])
    predictor.reset()
    np.testing.assert_array_equal(predictor.click(*CLICKS[0]), masks[0])


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (200, 7)])
def test_images_of_any_size(shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    predictor = started(trained(), noise)
    y, x = shape[0] - 1, shape[1] - 1
    assert predictor.click(x, y)[y, x]
    assert not predictor.click(x, y, positive=False)[y, x]


def test_the_record_tells_networks_apart():
    a, b, fused = trained().settings, trained(1).settings, FusedPredictor().settings
    assert a["width"] == small_evidence.WIDTH
    assert a["dtype"] == "float32"
    assert {name: a[name] for name in fused} == fused
    assert {name for name in a if a[name] != b[name]} == {"parameters"}


def test_a_file_opens_as_what_it_holds(tmp_path, image):
    predictor = Predictor.load(small_evidence.write_file(tmp_path / "mine.safetensors"))
    assert isinstance(predictor, CorrectedPredictor)
    assert predictor.settings == trained().settings
    a, b = started(predictor, image), started(trained(), image)
    for click in CLICKS:
        np.testing.assert_array_equal(a.click(*click), b.click(*click))


def test_without_arguments_the_model_that_ships_opens():
    predictor = mis_jax.Predictor()
    assert type(predictor) is mis_jax.CorrectedPredictor
    _, params = loading.load(loading.SHIPPED_FILE)
    assert predictor.settings["parameters"] == loading.digest(params)
    assert mis_jax.Predictor.load("shipped").settings == predictor.settings
    with pytest.raises(InputError, match=r"mis_jax\.Predictor\(\) alone"):
        mis_jax.Predictor(size=448)
    network = mirrored(lambda *x: x)
    assert type(mis_jax.Predictor(network=network)) is mis_jax.Predictor


def test_the_model_that_ships_reaches_the_objects_of_made_up_scenes():
    for k in range(3):
        sample = Sample("scene", *scenes.make_scene(np.random.default_rng([105, k]), (160, 200)))
        assert list(clicker.rounds(mis_jax.Predictor(), sample, 0.9, 10))[-1].iou >= 0.9
