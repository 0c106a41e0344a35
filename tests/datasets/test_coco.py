"""COCO's annotations against pycocotools, to the pixel, and files with all kinds of faults."""

import json
import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mis_jax.datasets import coco
from mis_jax.datasets.benchmarks import open_benchmark
from mis_jax.datasets.samples import count_left_out, reasons
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
    np.testing.assert_array_equal(coco.decode(flat, height, width), filled(flat, height, width))


def test_large_outlines():
    angle = np.linspace(0, 2 * np.pi, 300, endpoint=False)
    radius = 150 + 40 * np.sin(7 * angle)
    points = np.stack([320 + radius * np.cos(angle), 240 + radius * np.sin(angle)], 1).round(2)
    flat = points.ravel().tolist()
    ours = coco.decode([flat], 480, 640)
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
    for counts in (packed["counts"], text, coco.string_runs(text)):
        outline = {"size": [height, width], "counts": counts}
        np.testing.assert_array_equal(coco.decode(outline, height, width), mask)
    plain = {"size": [height, width], "counts": coco.string_runs(text)}
    assert oracle.frPyObjects(plain, height, width)["counts"] == packed["counts"]


def test_long_runs_have_several_characters():
    mask = np.zeros((3000, 2000), bool)
    mask[40:2900, 700:705] = mask[100:110, 1990] = True
    packed = oracle.encode(np.asfortranarray(mask, np.uint8))
    np.testing.assert_array_equal(coco.decode(packed, 3000, 2000), mask)


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        ([[1, 2, 3, 4, 5]], "neither polygons"),
        ([[1, 2, 3, "4", 5, 6]], "neither polygons"),
        ([[1, 2, 3, 4, 5, float("nan")]], "neither polygons"),
        ([[1, 2, 3, 4, 5, 1e300]], "neither polygons"),
        ([[]], "neither polygons"),
        ([3], "neither polygons"),
        ("1,2", "neither polygons"),
        ([[1, 2, 3, 4]], "no polygon of three points"),
        ({"size": [4, 5], "counts": [20]}, r"is of \[4, 5\], not \[5, 4\]"),
        ({"size": [5, 4], "counts": [19]}, "do not add up to 4 x 5"),
        ({"size": [5, 4], "counts": [30, -10]}, "do not add up"),
        ({"size": [5, 4], "counts": [True, 19]}, "do not add up"),
        ({"size": [5, 4]}, "do not add up"),
        ({"size": [5, 4], "counts": "D"}, "do not add up"),
        ({"size": [5, 4], "counts": "Z"}, "cut off"),
        ({"size": [5, 4], "counts": "4 "}, "' ' in the string"),
        ({"size": [5, 4], "counts": "é"}, "in the string"),
    ],
)
def test_outlines_that_are_none(outline, message):
    with pytest.raises(InputError, match=message):
        coco.decode(outline, 5, 4)


# ---- files


SQUARE = [[2, 2, 8, 2, 8, 8, 2, 8]]


def annotation(id, image=1, outline=SQUARE, **others):
    return {"id": id, "image_id": image, "segmentation": outline, "iscrowd": 0, **others}


@pytest.fixture
def write(tmp_path):
    """Two images of 20 x 24 pixels in `images`; writes annotations beside it."""
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name, value in (("one.jpg", 50), ("sub/two.png", 100)):
        cv2.imwrite(str(tmp_path / "images" / name), np.full((20, 24, 3), value, np.uint8))
    one = {"id": 1, "file_name": "one.jpg", "height": 20, "width": 24}
    two = {"id": 2, "file_name": "sub/two.png", "height": 20, "width": 24}

    def make(annotations, images=(two, one)):
        path = tmp_path / "instances.json"
        path.write_text(json.dumps({"images": list(images), "annotations": annotations}))
        return path

    return make


def test_objects_come_image_by_image(write):
    runs = oracle.encode(np.asfortranarray(np.eye(20, 24, dtype=np.uint8)))
    runs["counts"] = runs["counts"].decode()
    path = write(
        [
            annotation(7),
            annotation(9, 2, runs),
            annotation(8, iscrowd=1, outline={"size": [20, 24], "counts": [480]}),
            annotation(3, outline={"size": [20, 24], "counts": [20, 20, 440]}),
        ]
    )
    benchmark = open_benchmark("mine", path)
    samples = {s.id: s for s in benchmark}
    assert benchmark.ids == list(samples) == ["two_9", "one_7", "one_3"]
    np.testing.assert_array_equal(samples["two_9"].mask, np.eye(20, 24))
    np.testing.assert_array_equal(samples["one_7"].mask, filled(SQUARE, 20, 24))
    assert samples["one_3"].mask.T.nonzero()[0].tolist() == [1] * 20
    assert all(s.mask.dtype == np.int32 and s.image.dtype == np.uint8 for s in samples.values())
    assert samples["two_9"].image[0, 0].tolist() == [100] * 3
    assert samples["one_7"].image is samples["one_3"].image  # decoded once
    assert count_left_out(benchmark.skipped) == "1 left out: 1 crowd of objects"
    assert benchmark.expected is None
    copy = pickle.loads(pickle.dumps(benchmark))
    np.testing.assert_array_equal(copy.read("one_7").mask, samples["one_7"].mask)


def test_where_the_images_may_lie(write, tmp_path):
    path = write([annotation(1)])
    (tmp_path / "images").rename(tmp_path / "val2017")
    with pytest.raises(InputError, match=r"none of the images .*instances\.json:FOLDER"):
        open_benchmark("mine", path)
    assert open_benchmark("mine", f"{path}:{tmp_path / 'val2017'}").read("one_1").mask.any()
    with pytest.raises(InputError, match=r"image folder .*nowhere does not exist"):
        open_benchmark("mine", f"{path}:{tmp_path / 'nowhere'}")
    path = path.rename(tmp_path / "val2017" / "a.json:b.json")
    assert open_benchmark("mine", path).read("one_1").mask.any()
    with pytest.raises(InputError, match=r"gone\.json does not exist"):
        open_benchmark("mine", tmp_path / "gone.json")


def test_what_cannot_be_used_is_named(write, tmp_path):
    images = [
        {"id": 1, "file_name": "one.jpg", "height": 20, "width": 24},
        {"id": 2, "file_name": "gone.jpg", "height": 20, "width": 24},
        {"id": 3, "file_name": "sub/two.png", "height": 24, "width": 20},
        {"id": 1, "file_name": "one.jpg"},
        {"id": 5},
        "six",
        {"id": 7, "file_name": "sub/two.png"},
        {"id": 8, "file_name": "one.jpg", "height": "20", "width": 24},
    ]
    path = write(
        [
            annotation(1),
            annotation(1),
            annotation(2, 2),
            annotation(3, 3),
            annotation(4, 4),
            annotation(5, outline=[[30, 2, 40, 2, 40, 9]]),
            annotation(6, outline=[]),
            annotation(7, outline=[[1, 2]]),
            annotation(8, 7),
            {"image_id": 1, "segmentation": SQUARE},
            "text",
            annotation(9, [1]),
            annotation(10, 8),
        ],
        images,
    )
    benchmark = open_benchmark("mine", path)
    assert [s.id for s in benchmark] == ["one_1", "two_8"]
    words = {
        "one_1 again": "no id of its own",
        "gone_2": "does not exist",
        "two_3": "24 x 20 pixels, its mask 20 x 24",
        "annotation 4": "names no image",
        "one_5": "no object pixel",
        "one_6": "no segmentation",
        "one_7": "three points",
        "one_None again": "no id of its own",
        "annotation 10": "names no image",
        "annotation 11": "names no image",
        "one_10": "an image of 24 x 20 pixels",
        "image 3": "a second image called 1",
        "image 4": "no id or file_name",
        "image 5": "no id or file_name",
    }
    assert set(benchmark.skipped) == set(words)
    for name, part in words.items():
        assert part in benchmark.skipped[name], name
    assert reasons(benchmark.skipped)["unusable annotations"] == 8
    assert reasons(benchmark.skipped)["unreadable image"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [\xff]}', "cannot be read as JSON in UTF-8"),
        (b'{"images": [', "cannot be read as JSON"),
        (b"", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[]", 'no lists "images" and "annotations"'),
        (b'{"images": {}, "annotations": []}', "no lists"),
        (b'{"shapes": []}', "no lists"),
        (b'{"images": [], "annotations": []}', "has no image with a mask"),
        (b'{"images": [], "annotations": [3]}', "annotation 0: its annotation names no image"),
    ],
)
def test_files_that_are_not_coco(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_benchmark("mine", tmp_path / "a.json")
