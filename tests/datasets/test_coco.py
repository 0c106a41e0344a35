"""COCO's annotations: which objects a file has, where its images are, and what is no object."""

import json
import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mis_jax.datasets import outlines
from mis_jax.datasets.benchmarks import open_benchmark
from mis_jax.datasets.samples import count_left_out, reasons
from mis_jax.errors import InputError

oracle = pytest.importorskip("pycocotools.mask")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def filled(polygons, height, width):
    return oracle.decode(oracle.merge(oracle.frPyObjects(polygons, height, width))).astype(bool)


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
    below = open_benchmark("mine", path)  # the only one.jpg below the file's folder
    assert below.read("one_1").mask.any()
    assert "file_name is not its way" in below.notes["one_1"][0]
    (tmp_path / "val2017" / "one.jpg").rename(tmp_path / "val2017" / "other.jpg")
    with pytest.raises(InputError, match=r"none of the images .*instances\.json:FOLDER"):
        open_benchmark("mine", path)
    (tmp_path / "val2017" / "other.jpg").rename(tmp_path / "val2017" / "one.jpg")
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
        {"id": 8, "file_name": "one.jpg", "height": "20", "width": -24},
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
        "annotation 1": "of one.jpg has no id of its own",
        "gone_2": "does not exist",
        "two_3": "24 x 20 pixels, its mask 20 x 24",
        "annotation 4": "names no image",
        "one_5": "no object pixel",
        "one_6": "no segmentation",
        "one_7": "three points",
        "annotation 9": "no id of its own",
        "annotation 10": "names no image",
        "annotation 11": "names no image",
        "one_10": "an image of -24 x 20 pixels",
        "image 3": "a second image called 1",
        "image 4": "no id or file_name",
        "image 5": "no id or file_name",
    }
    assert set(benchmark.skipped) == set(words)
    for name, part in words.items():
        assert part in benchmark.skipped[name], name
    assert reasons(benchmark.skipped)["unusable annotations"] == 8
    assert reasons(benchmark.skipped)["object of missing images"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [\xff]}', "cannot be read as JSON in UTF-8"),
        (b'{"images": [', "cannot be read as JSON"),
        (b"", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[]", 'no lists "images" and "annotations"'),
        (b'{"images": {}, "annotations": []}', "no lists"),
        (b'{"images": []}\n{"images": []}', "holds? a JSON value a line"),
        (b'{"image": {}}', "no lists"),
        (b'{"shapes": [], "imagePath": "a.jpg"}', "looks like labelme's of one image"),
        (
            b'[{"id": 1, "data": {"image": "a"}, "annotations": []}]',
            "Label Studio's own JSON; export",
        ),
        (b'[{"image": "a", "annotator": 1, "annotation_id": 2}]', "Label Studio's JSON-MIN"),
        (b'[{"image_id": 1, "category_id": 1, "score": 0.5}]', "results of a detector"),
        (b'[{"image": "a.jpg", "annotations": []}]', "CreateML's boxes"),
        (b'{"_via_settings": {}, "_via_img_metadata": {}}', "VIA's own project"),
        (b'{"a.jpg12": {"filename": "a.jpg", "regions": []}}', "VIA's own project"),
        (b'{"info": {}, "categories": {}, "items": []}', "Datumaro's own format"),
        (b'{"samples": []}', "FiftyOne's own format"),
        (b'{"objects": [], "size": {}}', "Supervisely's own JSON"),
        (b'{"images": [], "annotations": [{"segments_info": []}]}', "panoptic"),
        (b'{"images": [], "annotations": [], "x": ' + b"9" * 5000 + b"}", "cannot be read as JSON"),
        (b'{"images": [], "annotations": []}', "has no image with a mask"),
        (b'{"images": [], "annotations": [3]}', "annotation 0: its annotation names no image"),
    ],
)
def test_files_that_are_not_coco(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_benchmark("mine", tmp_path / "a.json")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_other_encodings_of_json(write, encoding):
    path = write([annotation(1)])
    path.write_bytes(path.read_text("utf-8").encode(encoding))
    assert open_benchmark("mine", path).ids == ["one_1"]


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(
        ["/", "..", ".", "a/../b", "\x00", "x" * 300, "http://[", "\ud800", "?d=", "%zz"]
    ),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def fields_of(value):
    """Every (container, key) of a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in list(pairs):
        yield value, key
        if isinstance(part, dict | list):
            yield from fields_of(part)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A folder of one small photo."""
    folder = tmp_path_factory.mktemp("damaged")
    cv2.imwrite(str(folder / "a.png"), np.zeros((20, 24, 3), np.uint8))
    return folder


def whole_file():
    """The bytes of an annotation file with an outline of each kind."""
    runs = {"size": [20, 24], "counts": "T3`2\\9"}
    outlines = SQUARE, runs, {"size": [20, 24], "counts": [100, 80, 300]}, SQUARE[0]
    size = {"height": 20, "width": 24}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "coco_url": "http://x/y/a.png", **size}],
        "annotations": [annotation(k, 1, outline) for k, outline in enumerate(outlines)],
    }
    return json.dumps(content).encode()


def read_all(folder, data):
    """All objects are read, or left out with a reason, or the file is refused."""
    path = folder / "all.json"
    path.write_bytes(data)
    try:
        benchmark = open_benchmark("mine", path)
    except InputError:
        return 0
    found = {sample.id for sample in benchmark}
    assert found | set(benchmark.skipped) >= set(benchmark.ids)
    assert not found & set(benchmark.skipped)
    return len(found)


def test_the_file_that_is_damaged_is_whole(damaged):
    assert read_all(damaged, whole_file()) == 4


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_fields_of_other_types_are_refused_or_left_out(damaged, data):
    content = json.loads(whole_file())
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(list(fields_of(content))))
        container[key] = data.draw(ODD)
    read_all(damaged, json.dumps(content).encode())


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_bytes_are_refused_or_left_out(damaged, data):
    text = bytearray(whole_file())
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    read_all(damaged, bytes(text[: data.draw(st.integers(0, len(text)))]))
    read_all(damaged, bytes(text))


def test_outlines_that_leave_the_photo_or_are_fractions(write):
    far, fractions = [[2, 2, 40, 2, 40, 8]], [[0.1, 0.1, 0.9, 0.1, 0.5, 0.5]]
    benchmark = open_benchmark(
        "mine", write([annotation(1, outline=far), annotation(2, outline=fractions)])
    )
    (sample,) = benchmark
    np.testing.assert_array_equal(sample.mask == 1, filled(far, 20, 24))
    assert benchmark.notes == {"one_1": (outlines.CUT,)}
    assert "coordinates from 0 to 1, which are no pixels" in benchmark.skipped["one_2"]
