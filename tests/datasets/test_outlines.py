"""Polygons and run lengths as masks, against pycocotools to the pixel."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mis_jax.datasets import outlines
from mis_jax.errors import InputError

oracle = pytest.importorskip("pycocotools.mask")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIDE = st.integers(1, 40)
NEAR = st.one_of(
    st.integers(-12, 52).map(float),
    st.integers(-60, 260).map(lambda n: n / 5),
    st.floats(-12, 52).map(lambda v: round(v, 2)),
)
POINTS = st.lists(st.tuples(NEAR, NEAR), min_size=3, max_size=10)


def filled(polygons, height, width):
    return oracle.decode(oracle.merge(oracle.frPyObjects(polygons, height, width))).astype(bool)


@settings(max_examples=150, deadline=None)
@given(polygons=st.lists(POINTS, min_size=1, max_size=3), height=SIDE, width=SIDE)
def test_polygons_are_filled_as_pycocotools_fills_them(polygons, height, width):
    flat = [[v for point in points for v in point] for points in polygons]
    np.testing.assert_array_equal(outlines.decode(flat, height, width), filled(flat, height, width))


def test_large_outlines():
    angle = np.linspace(0, 2 * np.pi, 300, endpoint=False)
    radius = 150 + 40 * np.sin(7 * angle)
    points = np.stack([320 + radius * np.cos(angle), 240 + radius * np.sin(angle)], 1).round(2)
    flat = points.ravel().tolist()
    ours = outlines.decode([flat], 480, 640)
    np.testing.assert_array_equal(ours, filled([flat], 480, 640))
    exact = np.zeros((480, 640), np.uint8)
    cv2.fillPoly(exact, [np.round(points).astype(np.int32)], 1)
    assert (ours & (exact > 0)).sum() / (ours | (exact > 0)).sum() > 0.98


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), height=SIDE, width=SIDE, share=st.sampled_from([0, 0.1, 0.5, 1]))
def test_run_lengths(seed, height, width, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    packed = oracle.encode(np.asfortranarray(mask, np.uint8))
    text = packed["counts"].decode()
    for counts in (packed["counts"], text, outlines.string_runs(text)):
        outline = {"size": [height, width], "counts": counts}
        np.testing.assert_array_equal(outlines.decode(outline, height, width), mask)
    plain = {"size": [height, width], "counts": outlines.string_runs(text)}
    assert oracle.frPyObjects(plain, height, width)["counts"] == packed["counts"]


def test_long_runs_have_several_characters():
    mask = np.zeros((3000, 2000), bool)
    mask[40:2900, 700:705] = mask[100:110, 1990] = True
    packed = oracle.encode(np.asfortranarray(mask, np.uint8))
    np.testing.assert_array_equal(outlines.decode(packed, 3000, 2000), mask)


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        ([[1, 2, 3, 4, 5]], "neither polygons"),
        ([[1, 2, 3, "4", 5, 6]], "neither polygons"),
        ([[1, 2, 3, 4, 5, float("nan")]], "neither polygons"),
        ([[1, 2, 3, 4, 5, 1e300]], "neither polygons"),
        ([[]], "neither polygons"),
        ([3, 4, 5, 6], "no polygon of three points"),
        ("1,2", "neither polygons"),
        ([[1, 2, 3, 4]], "no polygon of three points"),
        ({"size": [4, 5], "counts": [20]}, r"is of \[4, 5\], not \[5, 4\]"),
        ({"size": [5, 4], "counts": [19]}, "do not add up to 4 x 5"),
        ({"size": [5, 4], "counts": [30, -10]}, "do not add up"),
        ({"size": [5, 4], "counts": [True, 19]}, "do not add up"),
        ({"size": [5, 4, 3], "counts": [20]}, r"is of \[5, 4, 3\]"),
        ({"size": [5, 4], "counts": "o" * 99999 + "0"}, "no image has pixels for"),
        ({"size": [5, 4], "counts": "\ud800"}, "in the string"),
        ([[0, 0, 1e5, 1e5] * 99], "polygon of 19,800,000 pixels around"),
        ([], "neither polygons"),
        ({"size": [5, 4]}, "do not add up"),
        ({"size": [5, 4], "counts": "D"}, "do not add up"),
        ({"size": [5, 4], "counts": "Z"}, "cut off"),
        ({"size": [5, 4], "counts": "4 "}, "' ' in the string"),
        ({"size": [5, 4], "counts": "é"}, "in the string"),
    ],
)
def test_outlines_that_are_none(outline, message):
    with pytest.raises(InputError, match=message):
        outlines.decode(outline, 5, 4)


def test_one_polygon_and_sizes_in_words():
    flat = [2, 2, 8, 2, 8, 8, 2, 8]
    np.testing.assert_array_equal(outlines.decode(flat, 12, 10), filled([flat], 12, 10))
    for size in ([12.0, 10.0], ["12", "10"], (12, 10)):
        outline = {"size": size, "counts": [5, 3, 112]}
        assert outlines.decode(outline, 12, 10)[5:8, 0].all()
    for value, whole in ((640, 640), (640.0, 640), ("640", 640), ("640.0", 640)):
        assert outlines.whole(value) == whole
    for value in (
        0,
        -3,
        1.5,
        "",
        "a",
        None,
        True,
        [],
        float("nan"),
        float("inf"),
        10**400,
        "9e999",
    ):
        assert outlines.whole(value) is None


def test_points_outside_of_the_image_are_noted():
    inside = [np.array([[-2.0, -1.5], [49.5, 3], [20, 42]])]
    assert outlines.check_points(inside, 40, 50) == ()
    for point in ([-3, 5], [53, 5], [5, -3], [5, 43]):
        assert outlines.check_points([*inside, np.array([point])], 40, 50) == (outlines.CUT,)


def test_fractions_are_no_pixels():
    with pytest.raises(InputError, match="coordinates from 0 to 1, which are no pixels; multiply"):
        outlines.check_points([np.array([[0.1, 0.2], [0.9, 0.2], [0.5, 1.0]])], 40, 50)
    assert outlines.check_points([np.array([[0, 0], [1, 0], [1, 1]])], 40, 50) == ()
