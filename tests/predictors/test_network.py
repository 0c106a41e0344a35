"""ZoomIn, flip and the public Predictor, against formulas written out again."""

import json

import jax
import numpy as np
import pytest
import tiny_run
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from scipy import ndimage
from scipy.special import expit

from mis_jax.configs import tiny_cpu
from mis_jax.errors import InputError
from mis_jax.models import porting, simpleclick
from mis_jax.predictors import network as lib
from mis_jax.predictors import torch_arithmetic, zoom_in
from mis_jax.predictors.clicks import Click
from mis_jax.predictors.network import Predictor

SIZE = 32


class Recorder:
    """A network that keeps what it was given; logits: 6 within 8 pixels of a positive click."""

    def __init__(self, logits=None):
        self.calls, self.logits = [], logits

    def __call__(self, image, previous, points):
        self.calls.append((image.copy(), previous.copy(), points.copy()))
        if self.logits is not None:
            return np.broadcast_to(self.logits, previous.shape)
        grid = np.stack(np.mgrid[: image.shape[1], : image.shape[2]], -1)
        out = np.full(previous.shape, -6.0)
        for b, rows in enumerate(points):
            for row, col, order in rows[: len(rows) // 2]:
                if order >= 0:
                    out[b][((grid - (row, col)) ** 2).sum(-1) < 64] = 6
        return out


def image_of(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def started(height=300, width=400, network=None, around=lib.mirrored, **kwargs):
    network = network or Recorder()
    predictor = Predictor(around(network), SIZE, **kwargs)
    predictor.set_image(image_of(height, width))
    return predictor, network


@settings(max_examples=60, deadline=None)
@given(*[st.integers(1, 30)] * 4, st.sampled_from([(), (3,)]), st.integers(0, 2**32 - 1))
def test_resize_equals_sampling_at_aligned_corners(h, w, height, width, channels, seed):
    x = np.random.default_rng(seed).random((h, w, *channels), np.float32)
    ours = torch_arithmetic.resize_align_corners(x, height, width)
    rows = np.linspace(0, h - 1, height) if height > 1 else np.zeros(1)
    cols = np.linspace(0, w - 1, width) if width > 1 else np.zeros(1)
    at = np.meshgrid(rows, cols, indexing="ij")
    planes = x.reshape(h, w, -1).transpose(2, 0, 1).astype(np.float64)
    expected = np.stack([ndimage.map_coordinates(p, at, order=1, mode="nearest") for p in planes])
    assert ours.dtype == np.float32
    np.testing.assert_allclose(
        ours.reshape(height, width, -1), expected.transpose(1, 2, 0), atol=1e-5
    )


def test_expand_bbox_rounds_half_to_even_and_keeps_200_pixels():
    # centre 149.5, extent 420: ends -60.5 and 359.5; centre 40, extent 200: ends -60 and 140
    assert zoom_in.expand_bbox((0, 299, 30, 50)) == (-60, 360, -60, 140)
    assert zoom_in.clamp_bbox((-60, 360, -60, 140), 300, 120) == (0, 299, 0, 119)


@given(st.lists(st.integers(0, 25), min_size=8, max_size=8))
def test_bbox_iou_is_the_product_over_hulls(v):
    a, b = (tuple(np.r_[np.sort(x[:2]), np.sort(x[2:])]) for x in (v[:4], v[4:]))
    expected = 1.0
    for (first, last), (other, end) in ((a[:2], b[:2]), (a[2:], b[2:])):
        inner = len(set(range(first, last + 1)) & set(range(other, end + 1)))
        expected *= inner / len(range(min(first, other), max(last, end) + 1))
    assert zoom_in.bbox_iou(a, b) == pytest.approx(expected)


def test_roi_stays_until_a_positive_click_reaches_its_last_row_or_column():
    probs = np.zeros((600, 600), np.float32)
    probs[250:350, 250:350] = 1
    roi = (180, 420, 180, 420)
    kept = [Click(180, 180, True), Click(419.5, 300, True), Click(500, 10, False)]
    assert zoom_in.next_roi(roi, probs, kept) == roi
    assert zoom_in.next_roi(roi, probs, [Click(420, 300, True)]) != roi
    assert zoom_in.next_roi(roi, probs, [Click(300, 420, True)]) != roi
    assert zoom_in.next_roi(roi, probs, [Click(300, 179, True)]) != roi


def test_roi_moves_where_the_mask_has_outgrown_it_and_is_the_image_without_a_mask():
    probs = np.zeros((600, 700), np.float32)
    assert zoom_in.next_roi(None, probs, [Click(3, 3, True)]) == (0, 599, 0, 699)
    probs[250:350, 300:400] = 0.5  # not above one half
    assert zoom_in.next_roi(None, probs, [Click(3, 3, True)]) == (0, 599, 0, 699)
    probs[250:350, 300:400] = 0.51
    near = zoom_in.next_roi(None, probs, [Click(300, 350, True)])
    assert near == (200, 400, 250, 450)  # centre 299.5, extent 200: 199.5 -> 200, 399.5 -> 400
    assert zoom_in.next_roi((0, 599, 0, 699), probs, [Click(300, 350, True)]) == near
    assert zoom_in.next_roi(None, probs, [Click(599.9, 350, True)])[1] == 599
    assert zoom_in.next_roi(None, probs, [Click(599.9, 350, False)]) == near


def test_points_are_scaled_ordered_padded_and_mirrored():
    clicks = [Click(10, 20, False), Click(30.5, 40, True), Click(0, 0, False)]
    points = zoom_in.zoomed_points(clicks, (10, 59, 20, 119), 100)
    assert points.shape == (48, 3)
    np.testing.assert_array_equal(points[:2], [[41, 20, 1], [-1, -1, -1]])
    np.testing.assert_array_equal(points[24:27], [[0, 0, 0], [-20, -20, 2], [-1, -1, -1]])
    mirrored = zoom_in.mirror_points(points, 100)
    np.testing.assert_array_equal(mirrored[0], [41, 79, 1])
    np.testing.assert_array_equal(mirrored[24:27], [[0, 99, 0], [-20, 119, 2], [-1, -1, -1]])


def test_more_clicks_than_rows_take_the_next_multiple():
    clicks = [Click(1, k, True) for k in range(25)]
    points = zoom_in.zoomed_points(clicks, (0, 9, 0, 99), 10)
    assert points.shape == (96, 3)
    np.testing.assert_array_equal(points[:26, 2], [*range(25), -1])
    assert (points[48:] == -1).all()


def test_network_sees_the_crop_the_previous_mask_and_their_mirror_images():
    predictor, network = started()
    predictor.click(x=200, y=150)
    image, previous, points = network.calls[0]
    assert image.shape == (2, SIZE, SIZE, 3)
    assert image.dtype == previous.dtype == np.float32
    assert points.dtype == np.float64
    assert previous.shape == (2, SIZE, SIZE)
    assert not previous.any()
    np.testing.assert_array_equal(image[0, 0, 0], image_of(300, 400)[0, 0] / np.float32(255))
    np.testing.assert_array_equal(image[1], image[0, :, ::-1])
    np.testing.assert_allclose(points[0, 0], [SIZE * 150 / 300, SIZE * 200 / 400, 0])
    np.testing.assert_allclose(points[1, 0], [SIZE * 150 / 300, SIZE - 1 - SIZE / 2, 0])
    before = predictor.probabilities
    predictor.click(x=205, y=155)
    top, bottom, left, right = predictor.roi
    assert (top, left) > (0, 0)
    _, previous, _ = network.calls[1]
    expected = torch_arithmetic.resize_align_corners(
        before[top : bottom + 1, left : right + 1], SIZE, SIZE
    )
    np.testing.assert_array_equal(previous[0], expected)
    np.testing.assert_array_equal(previous[1], expected[:, ::-1])
    outside = np.ones((300, 400), bool)
    outside[top : bottom + 1, left : right + 1] = False
    assert not predictor.probabilities[outside].any()
    assert predictor.mask.any()


@pytest.mark.parametrize("flip", [False, True])
def test_flip_averages_logits(flip):
    ramp = np.broadcast_to(np.arange(SIZE, dtype=np.float32), (SIZE, SIZE))
    predictor, network = started(
        SIZE, SIZE, network=Recorder(ramp), around=lib.mirrored if flip else lib.plain
    )
    predictor.click(0, 0)
    logits = np.full(SIZE, (SIZE - 1) / 2) if flip else np.arange(SIZE)
    expected = np.broadcast_to(1 / (1 + np.exp(-logits)), (SIZE, SIZE))
    np.testing.assert_allclose(predictor.probabilities, expected, atol=1e-6)
    assert len(network.calls[0][0]) == 1 + flip


def test_threshold_is_exclusive_and_does_not_move_the_zoom():
    flat = np.zeros((SIZE, SIZE))  # probability one half everywhere
    for threshold, filled in ((0.5, False), (0.49, True)):
        predictor, _ = started(network=Recorder(flat), threshold=threshold)
        assert predictor.click(5, 5).all() == filled
        predictor.click(6, 5)
        assert predictor.roi == (0, 299, 0, 399)


def test_predict_continues_a_longer_list_and_replays_any_other():
    clicks, labels = [(200, 150), (230, 150), (10, 10)], [1, 1, 0]
    stepwise, _ = started()
    for (x, y), label in zip(clicks, labels, strict=True):
        stepwise.click(x, y, positive=bool(label))
    predictor, network = started()
    for n in (1, 2, 2, 3):
        masks, scores, logits = predictor.predict(clicks[:n], labels[:n])
    assert len(network.calls) == 3
    np.testing.assert_array_equal(masks[0], stepwise.mask)
    assert (masks.dtype, masks.shape) == (bool, (1, 300, 400))
    assert (scores.dtype, scores.shape) == (np.float32, (1,))
    assert 0 < scores[0] <= 1
    assert (logits.dtype, logits.shape) == (np.float32, (1, 300, 400))
    np.testing.assert_array_equal(logits > 0, masks)
    predictor.predict(clicks[1:], labels[1:])
    assert len(network.calls) == 5  # from the start
    again, _, _ = predictor.predict(np.array(clicks), np.array(labels))
    np.testing.assert_array_equal(again, masks)


def test_mask_input_answers_all_clicks_in_one_pass_from_that_mask():
    predictor, network = started()
    logits = np.full((1, 300, 400), -8.0, np.float32)
    logits[:, 100:140, 200:260] = 3
    predictor.predict([(220, 120), (5, 5)], [1, 0], mask_input=logits)
    assert len(network.calls) == 1
    top, bottom, left, right = predictor.roi
    assert (top, bottom, left, right) == (20, 220, 130, 330)
    seen = torch_arithmetic.resize_align_corners(
        logits[0, top : bottom + 1, left : right + 1], SIZE, SIZE
    )
    np.testing.assert_allclose(
        network.calls[0][1][0].max(), 1 / (1 + np.exp(-seen.max())), rtol=1e-5
    )
    assert network.calls[0][2][0, 24, 2] == 1  # the second click is the first negative one
    predictor.predict([(220, 120)], [1], mask_input=logits[0] > 0)
    assert network.calls[1][1].max() == 1
    fresh, _ = started()
    expected = fresh.predict([(220, 120)], [1])[0]
    np.testing.assert_array_equal(predictor.predict([(220, 120)], [1])[0], expected)


def test_undo_goes_back_to_the_state_before_the_click():
    predictor, _ = started()
    first = predictor.click(200, 150)
    second = predictor.click(260, 170)
    np.testing.assert_array_equal(predictor.undo(), first)
    np.testing.assert_array_equal(predictor.click(260, 170), second)
    predictor.undo()
    assert not predictor.undo().any()
    assert not predictor.undo().any()  # nothing left to take back
    np.testing.assert_array_equal(predictor.click(200, 150), first)
    predictor.reset()
    assert not predictor.mask.any()
    np.testing.assert_array_equal(predictor.click(200, 150), first)


def test_a_new_image_starts_afresh():
    predictor, network = started()
    predictor.click(200, 150)
    predictor.set_image(image_of(50, 60, seed=1))
    assert predictor.click(20, 30).shape == (50, 60)
    image, previous, _ = network.calls[1]
    np.testing.assert_array_equal(image[0, 0, 0], image_of(50, 60, 1)[0, 0] / np.float32(255))
    assert not previous.any()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: p.click(400, 0), "outside the image of 400 x 300"),
        (lambda p: p.click(0, -1), "outside"),
        (lambda p: p.click(np.nan, 1), "outside"),
        (lambda p: p.predict([(1, 2)], [2]), "labels"),
        (lambda p: p.predict(np.zeros((0, 2)), np.zeros(0)), "At least one click"),
        (lambda p: p.predict([(1, 2)], [1, 1]), "point_coords"),
        (lambda p: p.predict([(1, 2)], [1], multimask_output=True), "multimask_output=False"),
        (lambda p: p.predict([(1, 2)], [1], mask_input=np.zeros((1, 64, 64))), "mask_input"),
        (lambda p: p.set_image(np.zeros((4, 4, 3), np.float32)), "uint8 RGB"),
        (lambda p: p.set_image(np.zeros((4, 4), np.uint8)), "uint8 RGB"),
    ],
)
def test_wrong_use_is_said_in_a_sentence(call, words):
    predictor, network = started()
    with pytest.raises(InputError, match=words):
        call(predictor)
    assert not network.calls


def test_clicks_need_an_image():
    for call in (lambda p: p.click(1, 1), lambda p: p.predict([(1, 1)], [1]), Predictor.reset):
        with pytest.raises(InputError, match="set_image"):
            call(Predictor(Recorder(), SIZE))


def test_sigmoid_is_rounded_correctly():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 6, 100_000), rng.uniform(-110, 110, 20_000)])
    x = np.concatenate([x, [0, -0.0, 1e-9, -1e-9, 300, -300, np.inf, -np.inf]]).astype(np.float32)
    exact = expit(x.astype(np.float64))
    nearest = exact.astype(np.float32)
    found = torch_arithmetic.sigmoid(x[None])[0]
    normal = exact > 1e-37  # below, float32 has fewer digits
    off = np.abs(found - exact)[normal] / np.spacing(nearest[normal])
    assert off.max() < 0.51
    np.testing.assert_allclose(found[~normal], nearest[~normal], atol=3e-45)


def test_a_loaded_network_is_compiled_once_for_sixty_clicks_of_both_kinds(tmp_path, monkeypatch):
    c = tiny_run.get_config()
    shapes = simpleclick.shapes(c.model.variant, c.model.patch, c.data.crop)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype("f"), shapes)
    metadata = {"mis_jax": json.dumps(c.to_dict())}
    save_file(porting.unport(params), tmp_path / "x.safetensors", metadata)
    traced, drawn = [], simpleclick.click_maps

    def counted(points, size):  # Python runs it once a program: while tracing
        traced.append(points.shape)
        return drawn(points, size)

    monkeypatch.setattr(simpleclick, "click_maps", counted)
    predictor = Predictor.load(tmp_path / "x.safetensors")
    predictor.set_image(image_of(60, 70))
    predictor.click(3, 4)
    compiled = len(traced)
    assert compiled
    for k in range(1, 120):
        predictor.click(*rng.uniform(0, 60, 2), positive=k < 60)
    assert len(traced) == compiled
    rows = lib.make_network(c, params, c.eval.size, c.eval.flip)  # what evaluation compiles
    plainly = Predictor(rows, c.eval.size, c.eval.threshold)
    again = Predictor.load(tmp_path / "x.safetensors")
    for p in (plainly, again):
        p.set_image(image_of(60, 70))
        for x, y, positive in [(30, 20, True), (5, 50, False), (40, 44, True)]:
            p.click(x, y, positive)
    np.testing.assert_array_equal(plainly.probabilities, again.probabilities)


def test_a_batch_gets_the_digits_that_each_object_gets_alone():
    config = tiny_cpu.get_config()
    config.model.variant, config.data.crop = "Pico", 64
    variant, patch, crop = config.model.variant, config.model.patch, config.data.crop
    build = lambda: simpleclick.build(variant, patch, crop, rngs=nnx.Rngs(0))  # noqa: E731
    params = jax.jit(lambda: nnx.to_pure_dict(nnx.state(build(), nnx.Param)))()
    network = lib.make_network(config, params, crop, flip=True)
    rng = np.random.default_rng(1)
    image = rng.random((3, crop, crop, 3), np.float32)
    previous = rng.random((3, crop, crop), np.float32)
    points = np.full((3, 2, 48, 3), -1.0)
    points[:, :, 0] = np.append(rng.uniform(0, crop, (3, 2, 2)), np.zeros((3, 2, 1)), axis=2)
    together = np.asarray(network(image, previous, points))
    assert np.abs(together[0] - together[1]).max() > 1e-4
    for k in (2, 0, 1):
        alone = network(*(x[k : k + 1] for x in (image, previous, points)))
        np.testing.assert_array_equal(together[k], np.asarray(alone)[0])
