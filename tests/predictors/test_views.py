"""Where predictors look: sizes, parts of long images, and second looks."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mis_jax.predictors import views
from mis_jax.predictors.clicks import Click


@given(st.integers(1, 9000), st.integers(1, 9000), st.sampled_from([448, 512, 1280]))
def test_images_are_shrunk_by_area(height, width, side):
    longest = views.longest((height, width), side)
    if max(height, width) <= side:
        assert longest >= max(height, width)  # as it is
    short = longest * min(height, width) / max(height, width)
    if max(height, width) <= 1.5 * min(height, width):
        assert longest == side  # the rule before
    elif longest < max(height, width):
        assert abs(longest * short - side**2 / 1.5) < 2 * longest


clicks = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True), st.booleans()),
    min_size=1,
    max_size=6,
)


@settings(max_examples=200)
@given(st.integers(1, 400), st.integers(1, 9000), st.booleans(), clicks, st.randoms())
def test_first_looks_hold_the_positive_clicks_in_any_order(short, long, upright, points, random):
    shape = (max(short, long), min(short, long))[:: 1 if upright else -1]
    made = [Click(r * shape[0], c * shape[1], p) for r, c, p in points]
    roi = views.first_look(shape, made, 448)
    assert 0 <= roi[0] <= roi[1] < shape[0]
    assert 0 <= roi[2] <= roi[3] < shape[1]
    if not views.in_parts(shape, 448):
        assert roi == (0, shape[0] - 1, 0, shape[1] - 1)
    wanted = [c for c in made if c.positive] or made
    assert views.inside(wanted, roi) == tuple(
        Click(c.row - roi[0], c.col - roi[2], c.positive) for c in wanted
    )
    random.shuffle(made)
    assert views.first_look(shape, made, 448) == roi


def test_parts_are_shared_by_near_clicks():
    shape = (200, 8000)
    rois = {views.first_look(shape, [Click(50, x, True)], 448) for x in range(4000, 4100, 5)}
    assert len(rois) <= 3
    for _, _, left, right in rois:
        assert right - left + 1 in (448, 336)


def test_second_looks_are_at_what_was_clicked():
    found = np.zeros((336, 448), np.float32)
    found[100:110, 200:230] = 1
    found[300:320, 10:20] = 1  # elsewhere, without a click
    shape = (3360, 4480)
    roi = views.second_look(shape, found, [Click(1050, 2100, True)], 448)
    assert 1050 - 400 < roi[0] < 1000
    assert 1100 < roi[1] < 1050 + 400
    assert 2150 - 400 < roi[2] < 2000
    assert 2300 < roi[3] < 2150 + 400
    assert views.second_look(shape, np.ones_like(found), [Click(9, 9, True)], 448) is None
    assert views.second_look(shape, found, [Click(9, 9, False)], 448) is None
    assert views.second_look((672, 890), found, [Click(210, 420, True)], 448) is None  # not twice
    empty = views.second_look(shape, 0 * found, [Click(9, 9, True)], 448)
    assert empty[0] == empty[2] == 0  # around the click


def test_regions_within_regions():
    assert views.within((1, 2, 3, 4), (10, 99, 20, 99)) == (11, 12, 23, 24)
