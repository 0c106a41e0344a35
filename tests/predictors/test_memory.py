"""Predictors keep what they are given and what they give apart from their own memory."""

import numpy as np
import pytest

from mis_jax.errors import InputError
from mis_jax.predictors import FusedPredictor, Predictor, TreePredictor, classics, plain

SHAPE = (60, 80)


def bright(image, previous, points):
    """A network whose answer depends on all that it sees."""
    shift = 0.1 * points[:, : points.shape[1] // 2, 0].max(1)[:, None, None]
    return 9 * (image.mean(-1) - 0.5) + previous + 0.01 * shift


MAKERS = {"network": lambda: Predictor(plain(bright), 32)}
MAKERS |= {"fused": FusedPredictor, "tree": TreePredictor}
MAKERS |= {"graphcut": classics.PREDICTORS["graphcut"], "gsc": classics.PREDICTORS["gsc"]}
CLICKS = [(10, 10, True), (50, 30, False), (12, 40, True), (70, 5, True)]


def picture():
    image = np.random.default_rng(0).integers(0, 120, (*SHAPE, 3), dtype=np.uint8)
    image[5:45, 5:40] += 120
    return image


def answers(predictor, spoil):
    """Masks and probabilities after each click; `spoil` gets every array that is handed out."""
    found = []
    for k, click in enumerate(CLICKS):
        mask = predictor.click(*click)
        found.append((mask.copy(), predictor.probabilities.copy()))
        spoil(mask)
        spoil(predictor.mask)
        coords = np.array([c[:2] for c in CLICKS[: k + 1]], float)
        labels = np.array([c[2] for c in CLICKS[: k + 1]])
        given = predictor.predict(coords, labels)
        found.append(tuple(x.copy() for x in given))
        for x in (*given, coords, labels):
            spoil(x)
    found += [predictor.undo().copy(), predictor.undo().copy()]
    return [x for part in found for x in (part if isinstance(part, tuple) else [part])]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_writing_to_what_went_in_or_came_out_changes_no_answer(make):
    def spoil(x):
        x[...] = 1 - x if x.dtype == bool else -7

    fresh, used, image = make(), make(), picture()
    fresh.set_image(picture())
    expected = answers(fresh, lambda x: None)
    used.set_image(image)
    image[:] = 255
    for a, b in zip(answers(used, spoil), expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_probabilities_are_read_only_and_stay(make):
    predictor = make()
    predictor.set_image(picture())
    predictor.click(*CLICKS[0])
    held = predictor.probabilities
    before = held.copy()
    assert not held.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        held[...] = 1
    for click in CLICKS[1:]:
        predictor.click(*click)
    predictor.undo()
    predictor.reset()
    np.testing.assert_array_equal(held, before)


@pytest.mark.parametrize("kind", [bool, np.float32])
def test_mask_input_is_copied(kind):
    mask = np.zeros(SHAPE, kind)
    mask[5:40, 5:40] = 1
    expected = Predictor(plain(bright), 32)
    expected.set_image(picture())
    expected.predict([(10, 10)], [1], mask_input=mask.copy())
    predictor = Predictor(plain(bright), 32)
    predictor.set_image(picture())
    predictor.predict([(10, 10)], [1], mask_input=mask)
    mask[...] = 0
    np.testing.assert_array_equal(predictor.undo(), expected.undo())
    np.testing.assert_array_equal(predictor.probabilities, expected.probabilities)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_boxes_are_refused_in_a_sentence(make):
    predictor = make()
    predictor.set_image(picture())
    with pytest.raises(InputError, match="Boxes are not supported yet; leave box out, click"):
        predictor.predict([(10, 10)], [1], box=np.array([5, 5, 40, 45]))
    assert not predictor.mask.any()
