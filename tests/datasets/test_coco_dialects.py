"""COCO's format as its exporters write it, one tiny export each: how many objects, which pixels."""

import json
import re

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from mis_jax.datasets.benchmarks import open_benchmark
from mis_jax.datasets.reading import Reading
from mis_jax.datasets.samples import count_left_out, reasons
from mis_jax.errors import InputError

oracle = pytest.importorskip("pycocotools.mask")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HEIGHT, WIDTH = 20, 24
SQUARE = [2, 2, 8, 2, 8, 8, 2, 8]
TALL = [12.5, 3, 20, 3.5, 16, 18]
BRUSH = np.zeros((HEIGHT, WIDTH), np.uint8)
BRUSH[4:9, 3:17] = BRUSH[12, 1:5] = 1
RUNS = [*np.diff(np.flatnonzero(np.diff(BRUSH.T.ravel(), prepend=0, append=2)), prepend=0)]
RUNS = [int(n) for n in RUNS]
SIZE = {"width": WIDTH, "height": HEIGHT}


def filled(*polygons):
    return oracle.decode(oracle.merge(oracle.frPyObjects(list(polygons), HEIGHT, WIDTH)))


def export(folder, file, content, *names, size=(HEIGHT, WIDTH)):
    """Writes an export: the annotation file and its images, each of a grey of its own."""
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.full((*size, 3), 10 * k + 10, np.uint8))
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / file


def read(path, count):
    """The samples of an export that is said to hold `count` objects."""
    benchmark = open_benchmark("mine", path)
    samples = {s.id: s for s in benchmark}
    assert len(samples) == count, benchmark.skipped
    return benchmark, samples


@pytest.mark.parametrize("prefix", ["images/", "images\\", "../../images/", ""])
def test_label_studio(tmp_path, prefix):
    """result.json beside images/; ids from 0, also of categories; rectangles have no outline."""
    fields = {"category_id": 0, "bbox": [2, 2, 6, 6], "ignore": 0, "iscrowd": 0, "area": 36}
    content = {
        "images": [
            {**SIZE, "id": k, "file_name": f"{prefix}{name}"}
            for k, name in enumerate(("1a2b-a.jpg", "3c4d-b.jpg"))
        ],
        "categories": [{"id": 0, "name": "leaf"}],
        "annotations": [
            {"id": 0, "image_id": 0, "segmentation": [SQUARE], **fields},
            {"id": 1, "image_id": 1, "segmentation": [TALL], **fields},
            {"id": 2, "image_id": 1, "segmentation": [], **fields},
        ],
        "info": {"year": 2024, "version": "1.0", "contributor": "Label Studio"},
    }
    path = export(tmp_path, "result.json", content, "images/1a2b-a.jpg", "images/3c4d-b.jpg")
    for source in (path, tmp_path, f"{path}:{tmp_path / 'images'}", f"{path}:{tmp_path}"):
        benchmark, samples = read(source, 2)
        assert list(samples) == ["1a2b-a_0", "3c4d-b_1"]
        np.testing.assert_array_equal(samples["1a2b-a_0"].mask, filled(SQUARE))
        np.testing.assert_array_equal(samples["3c4d-b_1"].mask, filled(TALL))
        assert samples["3c4d-b_1"].image[0, 0, 0] == 20
        assert count_left_out(benchmark.skipped) == "1 left out: 1 unusable annotation"
        assert "has no segmentation" in benchmark.skipped["3c4d-b_2"]


@pytest.mark.parametrize(
    "name",
    [
        "/data/upload/1/1a2b-a%20b.jpg",
        "http://localhost:8080/data/upload/1/1a2b-a%20b.jpg",
        "/data/local-files/?d=photos/1a2b-a%20b.jpg",
        "tmp\\images\\1a2b-a b.jpg",
        "1A2B-A B.JPG",
        "C:\\photos\\1a2b-a b.jpg",
    ],
)
def test_label_studio_without_its_images(tmp_path, name):
    """The names then are URLs of the server; the images are the user's, with a counted note."""
    content = {
        "images": [{**SIZE, "id": 0, "file_name": name}],
        "annotations": [{"id": 0, "image_id": 0, "segmentation": [SQUARE], "iscrowd": 0}],
    }
    path = export(tmp_path, "result.json", content, "images/deep/1a2b-a b.jpg")
    benchmark, samples = read(path, 1)
    (sample,) = samples.values()
    np.testing.assert_array_equal(sample.mask, filled(SQUARE))
    assert "file_name is not its way" in benchmark.notes[sample.id][0]


def cvat(annotations):
    """What CVAT puts around its annotations."""
    fields = {"license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0}
    return {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": dict.fromkeys(("contributor", "description", "url", "version", "year"), ""),
        "categories": [{"id": 1, "name": "leaf", "supercategory": ""}],
        "images": [{"id": 1, **SIZE, "file_name": "job/a.jpg", **fields}],
        "annotations": [{"image_id": 1, "category_id": 1, **a} for a in annotations],
    }


@pytest.mark.parametrize("below", ["images", "images/default"])
def test_cvat(tmp_path, below):
    """Brush masks are run lengths with iscrowd 1, each of them one object."""
    brush = {"counts": RUNS, "size": [HEIGHT, WIDTH]}
    drawn = {"attributes": {"occluded": False}}
    content = cvat(
        [
            {"id": 1, "segmentation": [SQUARE, TALL], "iscrowd": 0, **drawn},
            {"id": 2, "segmentation": brush, "iscrowd": 1, **drawn},
            {"id": 3, "segmentation": [], "iscrowd": 0, **drawn},
        ]
    )
    path = export(tmp_path, "annotations/instances_default.json", content, f"{below}/job/a.jpg")
    for source in (path, tmp_path):
        benchmark, samples = read(source, 2)
        np.testing.assert_array_equal(samples["a_1"].mask, filled(SQUARE, TALL))
        np.testing.assert_array_equal(samples["a_2"].mask, BRUSH)
        assert list(benchmark.notes) == ["a_2"]
        assert "brush mask of CVAT's" in benchmark.notes["a_2"][0]


def test_crowds_of_coco_itself(tmp_path):
    """The same without CVAT's attributes is a crowd, and so is a polygon called one."""
    brush = {"counts": RUNS, "size": [HEIGHT, WIDTH]}
    content = cvat(
        [
            {"id": 1, "segmentation": brush, "iscrowd": 1},
            {"id": 2, "segmentation": brush, "iscrowd": 1, "attributes": {}},
            {"id": 3, "segmentation": [SQUARE], "iscrowd": 1, "attributes": {"occluded": True}},
            {"id": 4, "segmentation": brush, "iscrowd": 0},
        ]
    )
    path = export(tmp_path, "annotations/instances_val2017.json", content, "val2017/job/a.jpg")
    benchmark, samples = read(path, 1)
    assert list(samples) == ["a_4"]
    assert not benchmark.notes
    assert reasons(benchmark.skipped) == {"crowds of objects": 3}
    assert "give it iscrowd 0" in benchmark.skipped["a_1"]


@pytest.mark.parametrize("folder", ["val2017", "images", "."])
def test_lvis(tmp_path, folder):
    """No file_name: the URL's end says which image it is; nothing is a crowd."""
    url = "http://images.cocodataset.org/val2017/000000397133.jpg"
    image = {"id": 397133, **SIZE, "coco_url": url, "not_exhaustive_category_ids": []}
    content = {
        "images": [image],
        "annotations": [{"id": 1, "image_id": 397133, "segmentation": [SQUARE], "area": 36.0}],
    }
    path = export(tmp_path, "lvis_v1_val.json", content, f"{folder}/000000397133.jpg")
    _, samples = read(f"{path}:{tmp_path / folder}", 1)
    np.testing.assert_array_equal(samples["000000397133_1"].mask, filled(SQUARE))
    read(path, 1)


def test_roboflow(tmp_path):
    """_annotations.coco.json among the images of each split; boxes have an empty outline."""
    name = "photo_jpg.rf.0a1b2c.jpg"
    annotations = [
        {"id": 0, "image_id": 0, "segmentation": [TALL], "bbox": [12, 3, 8, 15], "iscrowd": 0},
        {"id": 1, "image_id": 0, "segmentation": [], "bbox": [1, 1, 4, 4], "iscrowd": 0},
    ]
    image = {"id": 0, "license": 1, "file_name": name, **SIZE, "extra": {"name": "photo.jpg"}}
    content = {"images": [image], "annotations": annotations}
    export(tmp_path, "valid/_annotations.coco.json", content, f"valid/{name}")
    benchmark, samples = read(tmp_path / "valid", 1)
    np.testing.assert_array_equal(samples["photo_jpg.rf.0a1b2c_0"].mask, filled(TALL))
    assert reasons(benchmark.skipped) == {"unusable annotation": 1}
    read(tmp_path, 1)
    export(tmp_path, "train/_annotations.coco.json", content)
    with pytest.raises(InputError, match=r"has 2 annotation files .*give one of them: NAME="):
        open_benchmark("mine", tmp_path)


def test_via(tmp_path):
    """The outline is one flat list, and images are known by text."""
    content = {
        "info": {"description": "VIA project exported to COCO format"},
        "images": [{"id": 0, **SIZE, "file_name": "a.png", "license": 1, "date_captured": ""}],
        "annotations": [
            {"id": 0, "image_id": "0", "segmentation": SQUARE, "area": 36, "iscrowd": 0},
            {"id": "1", "image_id": "0", "segmentation": [TALL], "iscrowd": "0"},
        ],
    }
    path = export(tmp_path, "via_export_coco.json", content, "a.png")
    for source in (path, tmp_path):
        _, samples = read(source, 2)
        np.testing.assert_array_equal(samples["a_0"].mask, filled(SQUARE))
        np.testing.assert_array_equal(samples["a_1"].mask, filled(TALL))


def test_coco_annotator(tmp_path):
    """Sizes and ids as decimal numbers; a box has the outline of one, and says so."""
    image = {"id": 7.0, "path": "/datasets/x/a.jpg", "file_name": "a.jpg", "dataset_id": 1}
    image |= {"width": float(WIDTH), "height": float(HEIGHT)}
    runs = oracle.encode(np.asfortranarray(BRUSH))
    brush = {"counts": runs["counts"].decode(), "size": [float(HEIGHT), float(WIDTH)]}
    content = {
        "images": [image],
        "annotations": [
            {"id": 1.0, "image_id": 7, "segmentation": [SQUARE], "iscrowd": False, "isbbox": False},
            {"id": 2, "image_id": "7", "segmentation": [TALL], "iscrowd": False, "isbbox": True},
            {"id": 3, "image_id": 7.0, "segmentation": brush, "iscrowd": None},
        ],
    }
    benchmark, samples = read(export(tmp_path, "x.json", content, "a.jpg"), 2)
    np.testing.assert_array_equal(samples["a_1"].mask, filled(SQUARE))
    np.testing.assert_array_equal(samples["a_3"].mask, BRUSH)
    assert "a box (isbbox)" in benchmark.skipped["a_2"]


def test_fiftyone_and_supervisely(tmp_path):
    """labels.json beside data/; annotations/instances.json beside images/."""
    content = {
        "images": [{"id": 1, "file_name": "a.png", **SIZE}],
        "annotations": [{"id": 1, "image_id": 1, "segmentation": [SQUARE], "iscrowd": 0}],
    }
    export(tmp_path / "fiftyone", "labels.json", content, "data/a.png")
    export(tmp_path / "supervisely", "annotations/instances.json", content, "images/a.png")
    for tool in ("fiftyone", "supervisely"):
        _, samples = read(tmp_path / tool, 1)
        np.testing.assert_array_equal(samples["a_1"].mask, filled(SQUARE))


def test_makesense_and_mmdetection(tmp_path):
    """The plain format; sizes as text, or none at all."""
    content = {
        "info": {"description": "my-project-name"},
        "images": [
            {"id": 1, "width": str(WIDTH), "height": str(HEIGHT), "file_name": "a.png"},
            {"id": "two", "file_name": "b.png"},
            {"id": 3, "width": 0, "height": 0, "file_name": "b.png"},
        ],
        "annotations": [
            {"id": 0, "iscrowd": "0", "image_id": 1, "segmentation": [SQUARE]},
            {"id": 1, "iscrowd": "1", "image_id": 1, "segmentation": [SQUARE]},
            {"id": 0, "image_id": "two", "segmentation": [TALL]},
            {"id": 5, "image_id": 3, "segmentation": [TALL]},
        ],
    }
    benchmark, samples = read(export(tmp_path, "labels_my.json", content, "a.png", "b.png"), 3)
    assert list(samples) == ["a_0", "b_0", "b_5"]
    np.testing.assert_array_equal(samples["b_0"].mask, filled(TALL))
    assert reasons(benchmark.skipped) == {"crowd of objects": 1}


def test_sa_1b(tmp_path):
    """A file is about one image, and its annotations need not name it."""
    runs = oracle.encode(np.asfortranarray(BRUSH))
    outline = {"size": [HEIGHT, WIDTH], "counts": runs["counts"].decode()}
    content = {
        "image": {"image_id": 10, **SIZE, "file_name": "sa_10.jpg"},
        "annotations": [{"id": 500, "segmentation": outline, "predicted_iou": 0.9}],
    }
    _, samples = read(export(tmp_path, "sa_10.json", content, "sa_10.jpg"), 1)
    np.testing.assert_array_equal(samples["sa_10_500"].mask, BRUSH)


# ---- names, places, sizes


def test_equal_stems_and_ids_that_begin_anew(tmp_path):
    names = ["a/1.jpg", "b/1.jpg", "b/1.png", "c/2.jpg", "c/3.jpg"]
    ids = [(0, 0), (1, 0), (2, 0), (3, 0), (3, 1), (4, 0), (0, 9)]
    content = {
        "images": [{"id": k, "file_name": name, **SIZE} for k, name in enumerate(names)],
        "annotations": [
            {"id": id, "image_id": image, "segmentation": [SQUARE]} for image, id in ids
        ],
    }
    _, samples = read(export(tmp_path, "all.json", content, *names), 7)
    grey = {id: int(s.image[0, 0, 0]) for id, s in samples.items()}
    assert grey == {
        "a-1_0": 10,
        "1_9": 10,  # as it was called before, where that is enough
        "b-1.jpg_0": 20,
        "b-1.png_0": 30,
        "2_0": 40,
        "2_1": 40,
        "3_0": 50,
    }


def test_one_file_under_two_ids(tmp_path):
    content = {
        "images": [{"id": k, "file_name": "a.png", **SIZE} for k in (1, 2)],
        "annotations": [
            {"id": 1, "image_id": 1, "segmentation": [SQUARE]},
            {"id": 1, "image_id": 2, "segmentation": [TALL]},
        ],
    }
    _, samples = read(export(tmp_path, "all.json", content, "a.png"), 2)
    assert list(samples) == ["a.png_1_1", "a.png_2_1"]


def test_images_that_cannot_be_told_apart_are_left_out(tmp_path):
    content = {
        "images": [
            {"id": k, "file_name": name, **SIZE}
            for k, name in enumerate(["x/1.jpg", "y/1.jpg", "2.jpg", "gone.jpg", "a.jpg"])
        ],
        "annotations": [{"id": k, "image_id": k, "segmentation": [SQUARE]} for k in range(5)],
    }
    files = "images/1.jpg", "images/p/2.jpg", "images/q/2.jpg", "images/a.jpg"
    benchmark, samples = read(export(tmp_path, "all.json", content, *files), 1)
    assert list(samples) == ["a_4"]
    for name, words in {
        "1_0": "x/1.jpg does not exist, and .*1.jpg may be another's",
        "1_1": "y/1.jpg does not exist, and .*1.jpg may be another's",
        "2_2": "2.jpg does not exist, and 2 files below the folder have its name",
        "gone_3": "its image .*images/gone.jpg does not exist",
    }.items():
        assert re.search(words, benchmark.skipped[name]), benchmark.skipped[name]
    assert reasons(benchmark.skipped) == {"objects of missing images": 4}


def test_where_none_is_found_all_places_are_named(tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", **SIZE}],
        "annotations": [{"id": 1, "image_id": 1, "segmentation": [SQUARE]}],
    }
    path = export(tmp_path, "all.json", content, "images/b.jpg")
    with pytest.raises(InputError) as caught:
        open_benchmark("mine", path)
    assert f"lies in {tmp_path / 'images'} or {tmp_path}, not even a.jpg" in str(caught.value)
    with pytest.raises(InputError, match=r"lies in \S+images, not even"):
        open_benchmark("mine", f"{path}:{tmp_path / 'images'}")


def test_names_in_either_composition_of_letters(tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "Ko\u0308ln.png", **SIZE}],
        "annotations": [{"id": 1, "image_id": 1, "segmentation": [SQUARE]}],
    }
    benchmark, _ = read(export(tmp_path, "all.json", content, "K\u00f6ln.png"), 1)
    assert "file_name is not its way" in benchmark.notes["Ko\u0308ln_1"][0]


def test_a_folder_of_masks_and_annotations_is_refused(tmp_path):
    content = {"images": [], "annotations": []}
    export(tmp_path, "result.json", content, "images/a.png", "masks/a.png")
    with pytest.raises(
        InputError, match=r"both masks and COCO's annotations, .*result\.json; give"
    ):
        open_benchmark("mine", tmp_path)


def test_a_folder_of_several_exports(tmp_path):
    content = {"images": [], "annotations": []}
    for part in ("train", "val"):
        export(tmp_path, f"annotations/instances_{part}.json", content)
    with pytest.raises(InputError, match=r"2 annotation files .*instances_train\.json, .*give one"):
        open_benchmark("mine", tmp_path)


def photo(folder, orientation):
    """A noisy photo of 20 x 24 pixels as stored, and that as it is seen."""
    pixels = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(folder / "a.png", exif=exif)


def seen(pixels, orientation):
    """What Pillow makes of an array that is stored with this tag."""
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["polygon", "runs", "no size"])
def test_masks_of_turned_photos(tmp_path, orientation, kind):
    """Whatever is drawn on the stored pixels is turned with them, what is not is left as it is."""
    photo(tmp_path, orientation)
    stored, upright = filled(TALL), seen(BRUSH, orientation)

    def outline(mask, polygon):
        runs = oracle.encode(np.asfortranarray(mask))
        return [polygon] if kind != "runs" else {**runs, "counts": runs["counts"].decode()}

    def sample(size, outline, *masks):
        entry = {"id": 1, "file_name": "a.png"}
        entry |= {} if kind == "no size" else dict(zip(("height", "width"), size, strict=True))
        content = {
            "images": [entry],
            "annotations": [{"id": 1, "image_id": 1, "segmentation": outline}],
        }
        path = export(tmp_path, "all.json", content)
        benchmark = open_benchmark("mine", path, Reading(masks=frozenset(masks)))
        return benchmark.read("a_1"), " ".join(benchmark.notes.get("a_1", ()))

    found, notes = sample((HEIGHT, WIDTH), outline(stored, TALL), "stored")
    np.testing.assert_array_equal(found.mask, seen(stored, orientation))
    np.testing.assert_array_equal(
        found.image, seen(np.asarray(Image.open(tmp_path / "a.png")), orientation)
    )
    assert ("was turned along" in notes) == (orientation > 1)

    found, notes = sample((HEIGHT, WIDTH), outline(stored, TALL))
    knows = orientation > 4 and kind != "no size"
    expected = seen(stored, orientation) if knows else stored
    if orientation < 5 or knows:
        np.testing.assert_array_equal(found.mask, expected)
    assert ("was turned along" in notes) == knows
    assert ("cannot be known" in notes) == (orientation > 1 and not knows)

    box = cv2.boundingRect(upright)
    flat = [box[0], box[1], box[0] + box[2], box[1], box[0] + box[2], box[1] + box[3]]
    size = upright.shape
    found, notes = sample(size, outline(upright, flat), "upright")
    truth = upright if kind == "runs" else oracle.decode(oracle.frPyObjects([flat], *size))[..., 0]
    np.testing.assert_array_equal(found.mask, truth)
    assert not notes


def test_outlines_beyond_the_photo_as_seen_are_of_the_stored_one(tmp_path):
    """Where the entry has no size; the photo is 24 x 20 as stored and 20 x 24 as seen."""
    photo(tmp_path, 6)
    wide = [1, 1, 23.5, 1, 23.5, 6]
    entry = {"id": 1, "file_name": "a.png"}
    content = {"images": [entry], "annotations": [{"id": 1, "image_id": 1, "segmentation": wide}]}
    benchmark, samples = read(export(tmp_path, "all.json", content), 1)
    np.testing.assert_array_equal(samples["a_1"].mask, seen(filled(wide), 6))
    assert "was turned along" in benchmark.notes["a_1"][0]
    tall = [1, 1, 6, 1, 6, 23.5]
    content["annotations"][0]["segmentation"] = tall
    benchmark, samples = read(export(tmp_path, "all.json", content), 1)
    truth = oracle.decode(oracle.frPyObjects([tall], WIDTH, HEIGHT))[..., 0]
    np.testing.assert_array_equal(samples["a_1"].mask, truth)
    assert not benchmark.notes


def test_masks_of_another_size_than_the_photo(tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 48, "height": 40}],
        "annotations": [
            {"id": 1, "image_id": 1, "segmentation": [SQUARE]},
            {"id": 2, "image_id": 1, "segmentation": {"counts": RUNS, "size": [HEIGHT, WIDTH]}},
            {"id": 3, "image_id": 1, "segmentation": {"counts": [10**12], "size": [10**5, 10**5]}},
        ],
    }
    benchmark, samples = read(export(tmp_path, "all.json", content, "a.png"), 1)
    np.testing.assert_array_equal(samples["a_2"].mask, BRUSH)  # its own size is the right one
    assert benchmark.skipped["a_1"] == "the image is 24 x 20 pixels, its mask 48 x 40"
    assert reasons(benchmark.skipped) == {"masks of another size than the image": 2}
