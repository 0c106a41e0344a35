"""The losses against loops over pixels and neighbours, in float64."""

import itertools
import math

import jax
import numpy as np
import pytest

from mis_jax.training import losses

WEIGHTS = np.array([[0.299, 0.587, 0.114], [-0.147, -0.289, 0.436], [0.615, -0.515, -0.100]])
PAPER = {
    "smooth_on": "probs",
    "kernel": 5,
    "dilation": 1,
    "square_sigma": True,
    "yuv": "correct",
    "reduction": "sum",
}


def loop_smoothness(
    logits,
    image,
    smooth_on="logits",
    kernel=3,
    dilation=2,
    square_sigma=False,
    yuv="official_transposed",
    reduction="mean",
    sigma_xy=16.0,
    sigma_luma=16.0,
    sigma_chroma=8.0,
):
    """Pixel by pixel, neighbour by neighbour, borders by clamping coordinates."""
    batch, height, width = logits.shape
    values = 1 / (1 + np.exp(-logits.astype("d"))) if smooth_on == "probs" else logits.astype("d")
    colour = image.astype("d") @ (WEIGHTS.T if yuv == "correct" else WEIGHTS)
    power = 2 if square_sigma else 1
    steps = [dilation * (i - kernel // 2) for i in range(kernel)]
    total = 0.0
    for b, y, x in itertools.product(range(batch), range(height), range(width)):
        terms = []
        for dy, dx in itertools.product(steps, steps):
            if (dy, dx) == (0, 0):
                continue
            v, u = min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)
            difference = colour[b, y, x] - colour[b, v, u]
            weight = math.exp(
                -((y - v) ** 2 + (x - u) ** 2) / (2 * sigma_xy**power)
                - difference[0] ** 2 / (2 * sigma_luma**power)
                - (difference[1] ** 2 + difference[2] ** 2) / (2 * sigma_chroma**power)
            )
            terms.append(weight * (values[b, y, x] - values[b, v, u]) ** 2)
        total += np.mean(terms)
    return total / batch / (1 if reduction == "sum" else height * width)


def sample(seed=0, shape=(2, 6, 7), contrast=30.0):
    """Logits, and an image of neighbours alike enough for the weights to matter."""
    rng = np.random.default_rng(seed)
    image = np.clip(128 + contrast * rng.normal(size=(*shape, 3)), 0, 255)
    return rng.normal(scale=2, size=shape).astype("f"), image.astype("f")


def test_smoothness_of_the_public_code():
    """Made by running the public code's SmoothLoss."""
    y, x = np.mgrid[:6, :6]
    logits = ((3 * y + 5 * x) % 7) / 2 - 1
    image = np.stack([4 * ((2 * y + x) % 5), 4 * ((y + 3 * x) % 4), 4 * ((y * x) % 6)], -1)
    actual = losses.smoothness(logits[None].astype("f"), image[None].astype("f"))
    np.testing.assert_allclose(actual, 0.1533237099647522, rtol=1e-6)


@pytest.mark.parametrize(
    "switches",
    [{}, *({k: v} for k, v in PAPER.items()), PAPER, {"kernel": 5}, {"dilation": 3},
     {"sigma_xy": 2.0}, {"sigma_luma": 50.0}, {"sigma_chroma": 50.0}],
    ids=str,
)  # fmt: skip
def test_smoothness_is_the_loop(switches):
    logits, image = sample(contrast=4)
    expected = loop_smoothness(logits, image, **switches)
    if switches:
        assert abs(expected - loop_smoothness(logits, image)) > 1e-3 * expected  # it matters
    np.testing.assert_allclose(losses.smoothness(logits, image, **switches), expected, rtol=2e-5)


def test_smoothness_of_strong_contrasts():
    """Differences of 255 levels: tiny weights, no overflow."""
    logits, image = sample(1, contrast=300)
    actual = losses.smoothness(logits, image, square_sigma=True)
    expected = loop_smoothness(logits, image, square_sigma=True)
    np.testing.assert_allclose(actual, expected, rtol=2e-5)


def test_smoothness_of_a_map_smaller_than_its_reach():
    logits, image = sample(2, (1, 1, 3), contrast=4)
    expected = loop_smoothness(logits, image)
    np.testing.assert_allclose(losses.smoothness(logits, image), expected, rtol=2e-5)


def test_bce():
    rng = np.random.default_rng(3)
    logits = rng.normal(scale=4, size=(3, 5, 4)).astype("f")
    target = (rng.random((3, 5, 4)) < 0.4).astype("f")
    prob = 1 / (1 + np.exp(-logits.astype("d")))
    expected = -np.mean(target * np.log(prob) + (1 - target) * np.log(1 - prob))
    np.testing.assert_allclose(losses.bce(logits, target), expected, rtol=1e-6)


@pytest.mark.parametrize(("logit", "target", "expected"), [(1e4, 0, 1e4), (-1e4, 1, 1e4),
                                                           (1e4, 1, 0), (-1e4, 0, 0)])  # fmt: skip
def test_bce_of_extreme_logits(logit, target, expected):
    loss, grad = jax.value_and_grad(losses.bce)(np.full((1, 2, 2), logit, "f"), np.float32(target))
    assert loss == expected
    np.testing.assert_allclose(grad, np.full((1, 2, 2), np.sign(expected * logit) / 4))


def test_bce_gradient():
    logits, _ = sample(4, (1, 4, 5))
    target = (logits[:, ::-1] > 0).astype("f")
    expected = (1 / (1 + np.exp(-logits)) - target) / 20
    np.testing.assert_allclose(jax.grad(losses.bce)(logits, target), expected, atol=1e-7)


def test_normalized_focal():
    """By its formula, in float64; the second image's first row is ignored."""
    logits, _ = sample(5, (2, 4, 6))
    target = (logits[:, ::-1] > 0).astype("f")
    target[1, 0] = -1
    prob, total = 1 / (1 + np.exp(-logits.astype("d"))), 0.0
    for p, t in zip(prob, target, strict=True):
        wrong = np.abs(t - p)[t >= 0]
        focal = -0.5 * wrong**2 * np.log(1 - wrong)
        total += focal.mean() / (wrong**2).mean() / 2
    np.testing.assert_allclose(losses.normalized_focal(logits, target), total, rtol=1e-5)


@pytest.mark.parametrize("value", [0, 1, -1])
def test_normalized_focal_stays_finite(value):
    """Where all is right, all is wrong, and nothing is left to learn from."""
    for logit in (-1e4, -20.0, 20.0, 1e4):
        logits, target = np.full((1, 3, 3), logit, "f"), np.full((1, 3, 3), value, "f")
        result = jax.value_and_grad(losses.normalized_focal)(logits, target)
        assert all(np.isfinite(x).all() for x in result)


@pytest.mark.parametrize("switches", [{}, PAPER | {"kernel": 3}], ids=["code", "paper"])
def test_smoothness_gradient(switches):
    """By finite differences; what a pixel does to its neighbours' terms is part of it."""
    logits, image = sample(4, (1, 3, 4), contrast=4)
    smooth = jax.jit(lambda x: losses.smoothness(x, image, **switches))
    grad = np.asarray(jax.grad(smooth)(logits), "d")
    for at in np.ndindex(logits.shape):
        step = np.zeros(logits.shape)
        step[at] = 1e-4
        up, down = (loop_smoothness(logits + s, image, **switches) for s in (step, -step))
        np.testing.assert_allclose(grad[at], (up - down) / 2e-4, rtol=1e-4, atol=1e-5)
