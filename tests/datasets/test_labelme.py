"""labelme: its JSON files beside photos, filled as its own `shape_to_mask` fills them."""

import base64
import io
import json
import math
import tracemalloc

import numpy as np
import pytest
from damage import damaged, odd_json
from PIL import Image, ImageDraw
from skimage.draw import polygon2mask

from mis_jax.datasets import outlines
from mis_jax.datasets.benchmarks import open_benchmark
from mis_jax.datasets.labelme import fill

SHAPE = (40, 50)
TRIANGLE = [[5.5, 4.0], [30.0, 8.2], [12.0, 33.7]]


def shape(kind, points, label="cat", group=None, **more):
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, **more}


def annotated(folder, name, shapes, size=SHAPE, photo=True, **more):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    if photo:
        Image.fromarray(pixels).save(folder / f"{name}.jpg")
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{name}.jpg",
               "imageHeight": size[0], "imageWidth": size[1], **more}  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(content))


def read(folder):
    benchmark = open_benchmark("mine", folder)
    return {s.id: s.mask == 1 for s in benchmark}, benchmark.skipped


def shape_to_mask(kind, points):
    """What labelme has, from its utils/shape.py, for the kinds that are areas."""
    mask = Image.fromarray(np.zeros(SHAPE, np.uint8))
    draw = ImageDraw.Draw(mask)
    xy = [tuple(point) for point in points]
    if kind == "circle":
        (cx, cy), (px, py) = xy
        d = math.sqrt((cx - px) ** 2 + (cy - py) ** 2)
        draw.ellipse([cx - d, cy - d, cx + d, cy + d], outline=1, fill=1)
    elif kind == "rectangle":
        draw.rectangle([*xy[0], *xy[1]], outline=1, fill=1)
    else:
        draw.polygon(xy=xy, outline=1, fill=1)
    return np.array(mask, dtype=bool)


@pytest.mark.parametrize(
    ("kind", "points"),
    [("polygon", TRIANGLE), ("rectangle", [[3.2, 4.0], [20.0, 18.5]]),
     ("circle", [[20.0, 15.0], [28.0, 15.0]])],
)  # fmt: skip
def test_areas_are_filled_as_labelme_fills_them(tmp_path, kind, points):
    annotated(tmp_path, "a", [shape(kind, points)])
    objects, skipped = read(tmp_path)
    assert (list(objects), skipped) == (["a_0"], {})
    np.testing.assert_array_equal(objects["a_0"], shape_to_mask(kind, points))


def test_a_polygon_is_nearly_what_skimage_fills():
    mine = fill([shape("polygon", TRIANGLE)], *SHAPE)
    other = polygon2mask(SHAPE, np.array(TRIANGLE)[:, ::-1])
    assert (mine & other).sum() / (mine | other).sum() > 0.85  # labelme's has its outline as well
    assert (mine | ~other).all()


def test_corners_of_a_rectangle_in_any_order():
    corners = [[3, 4], [20, 18]], [[20, 18], [3, 4]], [[3, 18], [20, 4]]
    first, *others = (fill([shape("rectangle", points)], *SHAPE) for points in corners)
    assert first.sum() == 15 * 18
    assert all((first == other).all() for other in others)


@pytest.mark.parametrize("corner", [(3, 5), (-2, -1), (45, 38)])
def test_masks_lie_where_their_first_point_is(corner):
    pixels = np.random.default_rng(1).integers(0, 2, (6, 9)) > 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    points = [list(corner), [corner[0] + 8, corner[1] + 5]]
    text = base64.b64encode(buffer.getvalue()).decode()
    found = fill([shape("mask", points, mask=text)], *SHAPE)
    expected = np.zeros((100, 100), bool)
    expected[corner[1] + 10 : corner[1] + 16, corner[0] + 10 : corner[0] + 19] = pixels
    np.testing.assert_array_equal(found, expected[10:50, 10:60])


def test_shapes_of_a_group_are_one_object(tmp_path):
    boxes = [[[k, k], [k + 2, k + 2]] for k in (1, 10, 20, 30)]
    shapes = [shape("rectangle", box, group=group) for box, group in zip(boxes, (1, None, 1, 2),
              strict=True)]  # fmt: skip
    annotated(tmp_path, "a", [*shapes, shape("rectangle", boxes[3], label="dog", group=1)])
    objects, _ = read(tmp_path)
    assert {k: int(m.sum()) for k, m in objects.items()} == {
        "a_0": 18,
        "a_1": 9,
        "a_2": 9,
        "a_3": 9,
    }
    assert objects["a_0"][1, 1]
    assert objects["a_0"][20, 20]


def test_what_is_no_area_is_named_and_left_out(tmp_path):
    square = shape("rectangle", [[1, 1], [9, 9]])
    shapes = [square, shape("point", [[1, 1]]), shape("linestrip", TRIANGLE), "none",
              shape("polygon", TRIANGLE[:2]), shape("polygon", [[1, "x"], [2, 3], [4, 5]]),
              shape("mask", [[1, 1], [2, 2]], mask="no PNG"), shape(None, TRIANGLE),
              shape("polygon", [[-9, -9], [-5, -9], [-5, -5]])]  # fmt: skip
    annotated(tmp_path, "a", shapes)
    annotated(tmp_path, "b", [])
    annotated(tmp_path, "c", [square], photo=False)
    annotated(tmp_path, "d", [square], imageHeight=41)
    annotated(tmp_path, "e", [square], imageHeight="many")
    Image.new("RGB", (20, 20)).save(tmp_path / "f.jpg")
    (tmp_path / "g.json").write_text("[]")
    objects, skipped = read(tmp_path)
    assert list(objects) == ["a_0", "a_7"]
    assert {k: v for k, v in skipped.items() if k not in ("a_6", "c_0")} == {
        "a_1": 'its annotation is a "point", which has no area',
        "a_2": 'its annotation is a "linestrip", which has no area',
        "a_3": "its annotation has a shape that is none",
        "a_4": "its annotation is a polygon of 2 points",
        "a_5": "its annotation has points that are no pairs of numbers",
        "a_8": "the mask has no object pixel (0 is background, 128 is not counted)",
        "b.json": "its annotation has no shapes",
        "d_0": "the image is 50 x 40 pixels, its mask 50 x 41",
        "e_0": "the image is 50 x 40 pixels, its mask 50 x many",
        "f.jpg": "no mask of this name",
        "g.json": 'its annotation is not labelme\'s, it has no list "shapes"',
    }
    assert "its annotation has a mask that cannot be read" in skipped["a_6"]
    assert "c.jpg: does not exist" in skipped["c_0"]


def test_photos_are_found_by_their_path(tmp_path):
    (tmp_path / "up").mkdir()
    annotated(tmp_path / "up", "a", [shape("rectangle", [[1, 1], [9, 9]])])
    (tmp_path / "up" / "a.jpg").rename(tmp_path / "other.jpg")
    text = (tmp_path / "up" / "a.json").read_text().replace('"a.jpg"', r'"..\\other.jpg"')
    (tmp_path / "up" / "a.json").write_text(text)
    Image.new("RGB", (50, 40)).save(tmp_path / "up" / "b.jpg")
    (tmp_path / "up" / "b.json").write_text((tmp_path / "up" / "a.json").read_text())
    objects, skipped = read(tmp_path / "up")
    assert (list(objects), skipped) == (["a_0", "b_0"], {"b.jpg": "no mask of this name"})


def test_points_are_of_the_photo_as_it_is_seen(tmp_path):
    """labelme turns photos as their EXIF tag says before it shows them."""
    box = shape("rectangle", [[1, 2], [9, 30]])
    annotated(tmp_path, "a", [box], size=(50, 40), photo=False)
    picture = Image.new("RGB", (50, 40))
    picture.getexif()[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=picture.getexif())
    benchmark = open_benchmark("mine", tmp_path)
    (sample,) = benchmark
    assert (sample.image.shape, benchmark.notes) == ((50, 40, 3), {})
    np.testing.assert_array_equal(sample.mask == 1, fill([box], 50, 40))


def test_500_damaged_files(tmp_path):
    """Beside a whole one: each object is read, or named; JSON has no checksum."""
    pixels = io.BytesIO()
    Image.fromarray(np.full((9, 8), 255, np.uint8)).save(pixels, "PNG")
    stamp = base64.b64encode(pixels.getvalue()).decode()
    shapes = [shape("polygon", TRIANGLE), shape("rectangle", [[3.2, 4.0], [20.0, 18.5]]),
              shape("circle", [[20.0, 15.0], [28.0, 15.0]]),
              shape("mask", [[5, 6], [12, 14]], mask=stamp)]  # fmt: skip
    annotated(tmp_path, "a", shapes)
    annotated(tmp_path, "b", shapes)
    path, rng = tmp_path / "a.json", np.random.default_rng(0)
    data = path.read_bytes()
    whole, _ = read(tmp_path)
    assert len(whole) == 8
    tracemalloc.start()
    for number in range(500):
        odd = json.dumps(odd_json(json.loads(data), rng)).encode()
        path.write_bytes(odd if number % 2 else damaged(data, rng, len(data)))
        found, skipped = read(tmp_path)
        assert {f"b_{k}" for k in range(4)} <= set(found)
        assert all(mask.shape == SHAPE for mask in found.values())
        assert any(name.startswith("a") for name in (*found, *skipped))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_a_size_that_is_not_the_photo_s_is_named_before_there_is_room_for_it(tmp_path):
    for name, width in (("a", 32768), ("b", "50"), ("c", 1e9), ("d", True)):
        annotated(tmp_path, name, [shape("polygon", TRIANGLE)], imageHeight=32768, imageWidth=width)
    tracemalloc.start()
    found, skipped = read(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == {}
    assert skipped["a_0"] == "the image is 50 x 40 pixels, its mask 32768 x 32768"
    assert len(skipped) == 4
    assert peak < 50e6


def test_a_first_file_that_is_damaged_does_not_hide_the_others(tmp_path):
    for name in "ab":
        annotated(tmp_path, name, [shape("polygon", TRIANGLE)])
    (tmp_path / "a.json").write_text("{")
    found, skipped = read(tmp_path)
    assert list(found) == ["b_0"]
    assert "shapes" in skipped["a.json"]


def test_photos_in_another_folder_are_found_by_their_path(tmp_path):
    for part in ("images", "json"):
        (tmp_path / part).mkdir()
    annotated(tmp_path / "images", "a", [shape("polygon", TRIANGLE)])
    (tmp_path / "images" / "a.json").rename(tmp_path / "json" / "b.json")
    content = json.loads((tmp_path / "json" / "b.json").read_text())
    content["imagePath"] = "..\\images\\a.jpg"
    (tmp_path / "json" / "b.json").write_text(json.dumps(content))
    masks, skipped = read(tmp_path / "json")
    assert (list(masks), skipped) == (["b_0"], {})
    np.testing.assert_array_equal(masks["b_0"], shape_to_mask("polygon", TRIANGLE))


def test_outlines_that_leave_the_photo_or_are_fractions(tmp_path):
    far = [[5, 5], [80, 5], [80, 30]]
    annotated(
        tmp_path,
        "a",
        [shape("polygon", far), shape("polygon", [[0.1, 0.1], [0.9, 0.1], [0.5, 0.5]])],
    )
    benchmark = open_benchmark("mine", tmp_path)
    assert [s.id for s in benchmark] == ["a_0"]
    assert benchmark.notes == {"a_0": (outlines.CUT,)}
    assert "which are no pixels" in benchmark.skipped["a_1"]
