"""What clicks say that is finer than patches, against loops over the pixels."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mis_jax.predictors import touch_ups
from mis_jax.predictors.clicks import Click
from mis_jax.proposals import nearest_patches


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([1.0, 1.5, 2.0, 4.3]))
def test_radius_and_touch_up(seed, positive, reach):
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 11)) < rng.choice([0.05, 0.5, 0.95])
    click = Click(rng.uniform(0, 9), rng.uniform(0, 11), positive)
    row, col = int(click.row), int(click.col)
    away = np.array([[np.hypot(i - row, j - col) for j in range(11)] for i in range(9)])
    nearest = away[mask == positive].min(initial=np.inf)
    found = touch_ups.radius(mask, click, reach)
    assert found == (nearest if nearest < reach else 0)
    probs = rng.random((9, 11)).astype(np.float32)
    expected = np.where(away < reach, np.float32(positive), probs)
    touch_ups.touch_up(probs, click, reach)
    np.testing.assert_array_equal(probs, expected)


def test_a_patch_with_clicks_of_both_kinds_is_split_between_them_in_any_order():
    grid, shape = (5, 7), (23, 31)
    made = [Click(9, 9, True), Click(8.3, 12.4, False), Click(6, 10, True), Click(1, 1, True)]
    rows, cols = (nearest_patches(*sides) for sides in zip(grid, shape, strict=True))
    patch = (rows[:, None] == rows[9]) & (cols == cols[9])
    assert patch[9, 9]
    assert patch[8, 12]
    assert patch[6, 10]
    for order in itertools.permutations(made):
        probs = np.full(shape, 0.3, np.float32)
        touch_ups.split(probs, grid, order)
        for i, j in np.ndindex(shape):
            away = [np.hypot(i - c.row, j - c.col) for c in made[:3]]
            nearest = made[int(np.argmin(away))].positive if patch[i, j] else 0.3
            assert probs[i, j] == np.float32(nearest)
