"""Colour augmentation against colorsys, scipy, and statistics of its draws."""

import colorsys

import jax
import numpy as np
import pytest
from scipy import ndimage, stats

from mis_jax.training import color

augment, jitter, blur = jax.jit(color.augment), jax.jit(color.jitter), jax.jit(color.blur)
BATCH = 2000


def test_rotate_hue_is_colorsys():
    rng = np.random.default_rng(0)
    image = rng.random((4, 16, 16, 3), np.float32)
    image[:, :4] = rng.integers(0, 3, (4, 4, 16, 3)) / 2  # ties, greys, black and white
    turn = rng.uniform(-0.2, 0.2, (4, 1, 1, 1)).astype("f")
    actual = np.asarray(jax.jit(color.rotate_hue)(image, turn))
    for at in np.ndindex(image.shape[:3]):
        hue, saturation, value = colorsys.rgb_to_hsv(*image[at].tolist())
        expected = colorsys.hsv_to_rgb((hue + turn[at[0], 0, 0, 0]) % 1, saturation, value)
        np.testing.assert_allclose(actual[at], expected, atol=2e-6)


def test_blur_is_a_correlation():
    rng = np.random.default_rng(1)
    image = rng.random((3, 6, 7, 3), np.float32)
    sigma = np.array([1, 1.37, 2], "f")
    actual = blur(image, sigma)
    for found, plane, s in zip(actual, image.astype("d"), sigma, strict=True):
        kernel = np.exp(-np.array([1, 0, 1]) / (2 * s**2))
        kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
        expected = ndimage.correlate(plane, kernel[:, :, None], mode="mirror")
        np.testing.assert_allclose(found, expected, atol=1e-6)


def blend(image, other, factor):
    return np.clip(factor * image + (1 - factor) * other, 0, 1)


def grey(image):
    return (0.2989 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2])[..., None]


def turned(image, turn):
    out = np.empty_like(image)
    for at in np.ndindex(image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*image[at])
        out[at] = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
    return out


def test_jitter_is_four_operations_in_any_order():
    """A transcription of the draws, then one image at a time in numpy."""
    image = np.random.default_rng(2).random((BATCH, 2, 3, 3), np.float32)
    key = jax.random.key(3)
    ordering, factors, turns = jax.random.split(key, 3)
    orders = np.argsort(jax.random.uniform(ordering, (BATCH, 4)), -1)
    factors = np.asarray(jax.random.uniform(factors, (3, BATCH), minval=0.2, maxval=1.8), "d")
    turns = np.asarray(jax.random.uniform(turns, (BATCH,), minval=-0.2, maxval=0.2), "d")
    assert len(set(map(tuple, orders[:50]))) > 12
    actual = jitter(key, image)
    for i, order in enumerate(orders[:50]):
        expected = image[i].astype("d")
        for operation in order:
            if operation == 3:
                expected = turned(expected, turns[i])
            else:
                other = [0, grey(expected).mean(), grey(expected)][operation]
                expected = blend(expected, other, factors[operation, i])
        np.testing.assert_allclose(actual[i], expected, atol=1e-5, err_msg=str(order))


def test_jitter_factors_are_uniform():
    """On two greys, only brightness moves the mean, and contrast their relative spread."""
    levels = np.array([0.35, 0.45], "f")[None, :, None, None]
    image = np.broadcast_to(levels, (BATCH, 2, 3, 3))
    dark, light = np.asarray(jitter(jax.random.key(4), image), "d")[:, :, 0, 0].T
    brightness = (dark + light) / 0.8
    contrast = (light - dark) / (dark + light) * 8
    for factor in (brightness, contrast):
        assert 0.19 < factor.min() < 0.22
        assert 1.78 < factor.max() < 1.81
        assert stats.kstest(factor, stats.uniform(0.2, 1.6).cdf).pvalue > 1e-3
    assert abs(stats.spearmanr(brightness, contrast).statistic) < 0.08


@pytest.fixture(scope="module")
def impulses():
    """4,000 images of one coloured pixel, and what became of them."""
    image = np.zeros((4000, 5, 5, 3), "f")
    image[:, 2, 2] = 0.9, 0.5, 0.2
    return image, np.asarray(augment(jax.random.key(5), image), "d")


def test_augment_probabilities(impulses):
    image, out = impulses
    total = out.sum((1, 2))
    greyed = np.ptp(out, axis=3).max((1, 2)) == 0
    plain = np.abs(total - image[0].sum((0, 1))).max(1) < 1e-4  # neither jittered nor greyed
    blurred = plain & (out[:, 2, 1, 0] > 0)
    assert within(greyed.sum(), len(out), 0.2)
    assert within(plain.sum(), len(out), 0.7 * 0.8)
    assert within(blurred.sum(), plain.sum(), 0.2)
    np.testing.assert_array_equal(out[plain & ~blurred][0], image[0])
    level = np.abs(out[greyed, 2, 2, 0] - 0.58533)  # not jittered, not blurred: 0.9 R + 0.5 G ...
    assert within((level < 1e-4).sum(), greyed.sum(), 0.7 * 0.8)


def within(count, trials, probability):
    return abs(count - trials * probability) < 4 * (trials * probability * (1 - probability)) ** 0.5


def test_blur_widths_are_uniform(impulses):
    _, out = impulses
    total = out.sum((1, 2))[:, 0]
    blurred = (np.abs(total - 0.9) < 1e-4) & (out[:, 2, 1, 0] > 0)
    side = out[blurred, 2, 1, 0] / out[blurred, 2, 2, 0]  # exp(-1 / 2 sigma^2)
    sigma = (-0.5 / np.log(side)) ** 0.5
    assert stats.kstest(sigma, stats.uniform(1, 1).cdf).pvalue > 1e-3
