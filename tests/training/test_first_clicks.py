"""clicks.py against the probabilities of RITM's sampler and naive pixel lists."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from mis_jax.training import first_clicks

MASKS = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30), elements=st.integers(0, 1)
)
SETTINGS = settings(max_examples=60, deadline=None)


def split(points):
    """Positive and negative pixels, int [n, 2] each, after checking the rows' form."""
    assert points.dtype == np.float32
    halves = np.split(points, 2)
    for half in halves:
        count = int((half[:, 2] == 100).sum())
        assert (half[:count, :2] >= 0).all()
        assert (half[count:] == -1).all()
    return [half[half[:, 2] == 100, :2].astype(int) for half in halves]


def disc(size=96, radius=25):
    y, x = np.mgrid[:size, :size] - size / 2
    return (x * x + y * y < radius * radius).astype(np.uint8)


def draws(mask, count, seed=0, **options):
    rng = np.random.default_rng(seed)
    return [split(first_clicks.sample_clicks(mask, rng, **options)) for _ in range(count)]


def test_count_probabilities():
    positive = np.diff(first_clicks._cumulative(23, 0.8), prepend=0)
    negative = np.diff(first_clicks._cumulative(24, 0.8), prepend=0)
    assert positive @ np.arange(1, 25) == pytest.approx(4.8861254, abs=5e-8)
    assert positive[0] == pytest.approx(0.2009490, abs=5e-8)
    assert negative @ np.arange(25) == pytest.approx(3.9051945, abs=5e-8)
    assert negative[0] == pytest.approx(0.2007584, abs=5e-8)
    np.testing.assert_allclose(negative[1:] / negative[:-1], 0.8, rtol=1e-9)


def test_drawn_counts():
    samples = draws(disc(), 6000)
    for half, (largest, first) in enumerate([(23, 1), (24, 0)]):
        p = np.diff(first_clicks._cumulative(largest, 0.8), prepend=0)
        counts = np.bincount([len(s[half]) - first for s in samples], minlength=largest + 1)
        assert len(counts) == largest + 1
        tail = 15  # the rare ones together
        observed = [*counts[:tail], counts[tail:].sum()]
        expected = np.array([*p[:tail], p[tail:].sum()]) * len(samples)
        assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_counts_follow_other_settings():
    samples = draws(disc(), 500, max_points=3, gamma=0.5)
    assert {len(s[0]) for s in samples} == {1, 2, 3}
    assert {len(s[1]) for s in samples} == {0, 1, 2, 3}
    assert first_clicks.sample_clicks(disc(), np.random.default_rng(0), max_points=3).shape == (
        6,
        3,
    )


def test_positive_clicks_keep_off_the_edge():
    mask = disc()
    inner = cv2.erode(mask, np.ones((3, 3)), iterations=3)
    positives = [s[0] for s in draws(mask, 3000)]
    assert all(mask[tuple(p.T)].all() for p in positives)
    on_edge = np.concatenate([1 - inner[tuple(p.T)] for p in positives])
    share = 1 - inner.sum() / mask.sum()
    assert on_edge.mean() == pytest.approx(0.1 * share, abs=0.01)
    kept = np.mean([inner[tuple(p.T)].all() for p in positives])
    p = np.diff(first_clicks._cumulative(23, 0.8), prepend=0)
    assert kept == pytest.approx(0.9 + 0.1 * (p @ (1 - share) ** np.arange(1, 25)), abs=0.02)


@pytest.mark.parametrize(("width", "used"), [(8, False), (9, True)])
def test_erosion_stops_at_the_image_border_and_needs_more_than_ten_pixels(width, used):
    mask = np.zeros((40, 40), np.uint8)
    mask[:5, :width] = 1  # in the corner, so eroded to 2 x (width - 3) pixels: 10 or 12
    positives = np.concatenate([p for p, _ in draws(mask, 600)])
    inner = (positives < (2, width - 3)).all(1).mean()
    share = 2 * (width - 3) / mask.sum()
    assert inner == pytest.approx(0.9 + 0.1 * share if used else share, abs=0.05)


def test_negative_clicks():
    mask = disc()
    area = int(mask.sum())
    radius = math.ceil(0.1 * math.sqrt(area))
    border = cv2.dilate(mask, np.ones((3, 3)), iterations=radius) - mask
    negatives = np.concatenate([s[1] for s in draws(mask, 3000)])
    assert not mask[tuple(negatives.T)].any()
    ring = border - (cv2.dilate(mask, np.ones((3, 3)), iterations=radius - 1) - mask)
    for region in (border, ring):  # the outermost pixels of the border are in it
        expected = 0.5 * region.sum() / border.sum() + 0.5 * region.sum() / (mask.size - area)
        assert region[tuple(negatives.T)].mean() == pytest.approx(expected, abs=0.02)


def test_negative_clicks_mix_their_kinds():
    """The rows are in the order of drawing: neither kind comes first."""
    mask = disc()
    far = cv2.dilate(mask, np.ones((3, 3)), iterations=5) == 0
    pairs = [far[tuple(s[1][:2].T)] for s in draws(mask, 3000) if len(s[1]) >= 2]
    first, second = np.mean(pairs, axis=0)
    assert first == pytest.approx(second, abs=0.04)


@pytest.mark.parametrize("fill", [0, 1])
def test_empty_and_full_masks(fill):
    mask = np.full((20, 24), fill, np.uint8)
    samples = draws(mask, 800)
    if fill:  # no background: negative clicks are left out, not moved
        assert all(len(p) and not len(n) for p, n in samples)
        return
    assert not any(len(p) for p, _ in samples)
    assert np.mean([len(n) for _, n in samples]) == pytest.approx(3.9051945, abs=0.6)
    pixels = np.concatenate([n for _, n in samples])
    counts = np.bincount(pixels[:, 0] * 24 + pixels[:, 1], minlength=480)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_small_remains_are_no_object():
    mask = np.zeros((12, 12), np.uint8)
    mask[:8, :9] = 1
    for positives, negatives in draws(mask, 200, min_area=73):
        assert not len(positives)
        assert not mask[tuple(negatives.T)].any()
    assert all(len(p) for p, _ in draws(mask, 50, min_area=72))


def test_full_background_strategy_when_the_border_is_empty():
    """A click whose region is empty is dropped; here the object's border is the whole rest."""
    mask = np.ones((10, 10), np.uint8)
    mask[9, 9] = 0
    negatives = np.concatenate([n for _, n in draws(mask, 200)])
    assert (negatives == 9).all()


@SETTINGS
@given(MASKS, st.integers(1, 8))
def test_squares_equal_repeated_neighbourhoods(mask, radius):
    once = np.ones((3, 3), np.uint8)
    np.testing.assert_array_equal(
        cv2.erode(mask, first_clicks._square(radius)), cv2.erode(mask, once, iterations=radius)
    )
    repeated = mask
    for _ in range(radius):
        repeated = cv2.dilate(repeated, once)
    np.testing.assert_array_equal(cv2.dilate(mask, first_clicks._square(radius)), repeated)


@SETTINGS
@given(MASKS, st.integers(0, 1), st.lists(st.floats(0, 1, exclude_max=True), max_size=9))
def test_pick_takes_the_pixel_of_that_rank(mask, value, u):
    u = np.array(u, np.float64)
    listed = np.argwhere(mask == value)
    got = first_clicks._pick(mask, value, 2, 3, u)
    if not len(listed):
        assert (got == -1).all()
    else:
        np.testing.assert_array_equal(got, listed[(u * len(listed)).astype(int)] + (2, 3))


def test_bool_masks_and_equal_generators_give_equal_clicks():
    a, b = (
        first_clicks.sample_clicks(m, np.random.default_rng(5))
        for m in (disc(), disc().astype(bool))
    )
    np.testing.assert_array_equal(a, b)
