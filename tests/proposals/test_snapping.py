"""Edge snapping against least squares written out window by window."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mis_jax.errors import InputError
from mis_jax.proposals import snapping as lib
from mis_jax.proposals.snapping import snap


def oracle_fit(cells, target):
    """Ridge regressions of the target on the colours of every 5 x 5 window, then their means."""
    h, w = target.shape
    r = lib.RADIUS
    fits = np.empty((h, w, 4))
    pad = [(r, r), (r, r)]
    wide = np.pad(cells.astype(np.float64), [*pad, (0, 0)], "symmetric")
    wide_target = np.pad(target.astype(np.float64), pad, "symmetric")
    for row in range(h):
        for col in range(w):
            window = np.s_[row : row + 2 * r + 1, col : col + 2 * r + 1]
            x, y = wide[window].reshape(-1, 3), wide_target[window].ravel()
            middle = x - x.mean(0)
            slope = np.linalg.solve(
                middle.T @ middle / len(x) + lib.EDGE * np.eye(3), middle.T @ y / len(x)
            )
            fits[row, col] = *slope, y.mean() - slope @ x.mean(0)
    wide = np.pad(fits, [*pad, (0, 0)], "symmetric")
    shifts = [wide[i : i + h, j : j + w] for i in range(2 * r + 1) for j in range(2 * r + 1)]
    return np.mean(shifts, axis=0)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_models_are_least_squares_fits_averaged_over_windows(h, w, seed):
    rng = np.random.default_rng(seed)
    cells, target = rng.random((h, w, 3), np.float32), rng.random((h, w), np.float32)
    np.testing.assert_allclose(lib._fit(cells, target), oracle_fit(cells, target), atol=2e-3)


def test_on_a_grid_of_pixels_the_models_are_applied_to_the_colours():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (12, 15, 3), dtype=np.uint8)
    target = rng.random((12, 15), np.float32)
    model = oracle_fit(image / 255, target)
    expected = (model[..., :3] * image / 255).sum(2) + model[..., 3]
    np.testing.assert_allclose(snap(image, target), np.clip(expected, 0, 1), atol=1e-4)


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_blocks_of_a_disc_come_closer_to_its_outline(stride):
    rows, cols = np.mgrid[:160, :208]
    disc = (rows - 77.3) ** 2 + (cols - 101.6) ** 2 < 50**2
    image = np.where(disc[..., None], (190, 120, 90), (70, 130, 110))
    image = np.clip(image + np.random.default_rng(1).normal(0, 6, image.shape), 0, 255)
    small = (208 // stride, 160 // stride)
    blocks = cv2.resize(disc.astype(np.float32), small, interpolation=cv2.INTER_AREA) > 0.5
    before = cv2.resize(blocks.view(np.uint8), (208, 160), interpolation=cv2.INTER_NEAREST) > 0
    after = snap(image.astype(np.uint8), blocks) > 0.5
    assert iou(after, disc) > 0.99
    assert 1 - iou(after, disc) < 0.5 * (1 - iou(before, disc))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_any_size_gives_probabilities_and_a_constant_stays(height, width, data):
    h, w = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    rng = np.random.default_rng(height * width)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    snapped = snap(image, rng.random((h, w)) < 0.5)
    assert snapped.dtype == np.float32
    assert snapped.shape == (height, width)
    assert ((snapped >= 0) & (snapped <= 1)).all()
    np.testing.assert_allclose(snap(image, np.full((h, w), 0.3)), 0.3, atol=1e-3)


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (0, 3), (4,), (4, 4, 1)])
def test_a_grid_finer_than_the_image_is_refused(shape):
    with pytest.raises(InputError, match=r"a grid \[h, w\] of at most 8 x 8"):
        snap(np.zeros((8, 8, 3), np.uint8), np.zeros(shape))
