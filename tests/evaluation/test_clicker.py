"""The simulated user against a literal transcription of the published protocol."""

import itertools

import numpy as np
from click_scenes import SIZE, colour_network, oracle_click, oracle_rounds, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage, stats

from mis_jax.datasets.samples import Sample
from mis_jax.evaluation import clicker
from mis_jax.predictors.network import Predictor, mirrored


def test_protocol_equals_the_transcription():
    moves = 0
    for seed in range(10):
        image, truth = scene(seed)
        clicks, rois, ious = oracle_rounds(image, truth, 0.97, 10)
        predictor, seen = Predictor(mirrored(colour_network), SIZE), []
        done = []
        for r in clicker.rounds(predictor, Sample("", image, truth), 0.97, 10):
            done.append(r)
            seen.append(predictor.roi)
        assert [(r.row, r.col, r.positive) for r in done] == clicks
        assert seen == rois
        assert [r.iou for r in done] == ious
        moves += sum(a != b for a, b in itertools.pairwise(rois))
    assert moves >= 10  # the crops did move


# ---- clicks


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_next_click_equals_the_full_image_transform(data):
    shape = data.draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    truth = data.draw(arrays.arrays(np.int32, shape, elements=st.sampled_from([1, 1, 1, 0, -1])))
    mask = data.draw(arrays.arrays(bool, shape))
    if data.draw(st.booleans()):
        mask[:] = False
    free = ~data.draw(arrays.arrays(bool, shape)) | data.draw(st.booleans())
    clicked = [tuple(p) for p in np.argwhere(~free).tolist()]
    assert clicker.next_click(truth, mask, clicked) == oracle_click(truth, mask, free)


def test_first_of_equally_deep_pixels_is_clicked_and_ties_are_negative():
    truth = np.zeros((40, 60), np.int32)
    truth[20:31, 30:41] = truth[5:16, 40:51] = truth[5:16, 10:21] = 1
    mask = np.zeros((40, 60), bool)
    assert clicker.next_click(truth, mask, []) == (10, 15, True)
    assert clicker.next_click(truth, mask, [(10, 15)]) == (10, 45, True)
    mask[26:37, 0:11] = True
    assert clicker.next_click(truth, mask, []) == (31, 5, False)
    assert clicker.next_click(truth, truth == 1, [(0, 0)]) == (0, 0, False)


def test_first_of_equally_deep_pixels_of_large_regions_is_clicked():
    rng = np.random.default_rng(0)
    for _ in range(5):
        blob = ndimage.gaussian_filter(rng.normal(size=(60, 60)), 5) > 0
        truth = np.tile(np.pad(blob, 1), (4, 5)).astype(np.int32)  # twenty times the same depth
        empty = np.zeros(truth.shape, bool)
        expected = oracle_click(truth, empty, np.ones(truth.shape, bool))
        assert clicker.next_click(truth, empty, []) == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_next_click_on_blobs_of_any_size(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(30, 160, 2))
    blobs = [ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(1, 12)) for _ in range(3)]
    truth = (blobs[0] > 0).astype(np.int32)
    truth[blobs[1] > np.quantile(blobs[1], 0.9)] = -1
    mask = blobs[2] > np.quantile(blobs[2], rng.uniform())
    free, clicked = np.ones(shape, bool), []
    for _ in range(4):
        row, col, positive = clicker.next_click(truth, mask, clicked)
        assert (row, col, positive) == oracle_click(truth, mask, free)
        clicked.append((row, col))
        free[row, col] = False


# ---- random clicks


def deep_pixels(truth, mask, clicked):
    """The pixels that a random click may fall on, and its sign, by SciPy's distances."""
    best = []
    for error in ((truth == 1) & ~mask, (truth == 0) & mask):
        squared = np.rint(ndimage.distance_transform_edt(np.pad(error, 1))[1:-1, 1:-1] ** 2)
        for click in clicked:
            squared[click] = 0
        best.append(squared)
    positive = bool(best[0].max() > best[1].max())
    squared = best[0] if positive else best[1]
    return {tuple(p) for p in np.argwhere(np.sqrt(squared) > np.sqrt(squared.max()) / 2)}, positive


def test_random_clicks_are_anywhere_deep_in_the_error_and_alike():
    _, truth = scene(3)
    truth = truth[::4, ::4].copy()
    mask = np.roll(truth == 1, 5, 1)
    clicked = [clicker.next_click(truth, mask, [])[:2]]
    pixels, positive = deep_pixels(truth, mask, clicked)
    choose, counts = clicker.RandomClicker(7), dict.fromkeys(pixels, 0)
    draws = 40 * len(pixels)
    for _ in range(draws):
        row, col, sign = choose(truth, mask, clicked)
        counts[row, col] += 1  # a KeyError where no click may fall
        assert sign == positive
    off = np.array(list(counts.values())) - 40
    assert stats.chi2.sf((off**2).sum() / 40, len(pixels) - 1) > 1e-4
    assert clicked[0] not in pixels


def test_random_clicks_are_those_of_their_seed():
    _, truth = scene(1)
    empty = np.zeros(truth.shape, bool)

    def drawn(*seed):
        choose = clicker.RandomClicker(*seed)
        return [choose(truth, empty, []) for _ in range(5)]

    assert drawn(1, 2) == drawn(1, 2) != drawn(2, 1)
    assert clicker.RandomClicker(0)(truth, truth == 1, []) == (0, 0, False)


def test_iou_leaves_out_what_does_not_count():
    truth = np.array([[1, 1, 1, 0, 0, -1]], np.int32)
    assert clicker.iou(truth, np.array([[1, 1, 0, 1, 0, 1]], bool)) == 2 / 4
    assert clicker.iou(truth, np.zeros((1, 6), bool)) == 0
    assert clicker.iou(np.zeros((1, 2), np.int32), np.zeros((1, 2), bool)) == 1
