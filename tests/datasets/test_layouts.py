"""layouts: which of the files of a folder are masks, and of which photos."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mis_jax.datasets.benchmarks import LAYOUTS, open_benchmark
from mis_jax.datasets.layouts import mask_files, photo_of
from mis_jax.datasets.reading import Reading
from mis_jax.errors import InputError

BESIDE = "a mask, in {} beside the photos"
NAMED = "a mask, NAME_mask beside NAME"


@pytest.mark.parametrize(
    ("stem", "photo"),
    [
        ("a", "a"),
        ("a_mask", "a"),
        ("a_MASK", "a"),
        ("a_0", "a"),
        ("a_12", "a"),
        ("a_mask_3", "a"),
        ("a.jpg", "a"),
        ("a.JPG_mask", "a"),
        ("a_mask.jpg", "a"),
        ("a_gt", "a"),
        ("a-mask", "a"),
        ("a_Segmentation_2", "a"),
        ("a_label.png", "a"),
        ("a_left", None),
        ("a/0", "a"),
        ("b_1/left", "b_1"),
        ("c/0", None),
        ("b_1", "b_1"),
        ("b_1_2", "b_1"),
        ("b_2", None),
        ("amask", None),
        ("a_", None),
        ("_mask", None),
        ("", None),
        ("a.txt", None),
    ],
)
def test_the_photo_of_a_mask(stem, photo):
    assert photo_of(stem, {"a", "b_1"}) == photo


def test_folders_that_say_mask():
    root = Path("/data/masks/labels")  # what lies above all files says nothing
    photos = ["VOC/JPEGImages/1.jpg", "VOC/JPEGImages/2.jpg", "own/images/s/x.JPG", "p.jpg"]
    photos += ["own/masks/alone.png", "labels/tin.jpg", "q.png"]
    masks = {
        "VOC/SegmentationClass/1.png": "SegmentationClass",
        "VOC/SegmentationObject/1.png": "SegmentationObject",
        "VOC/SegmentationClassVisualization/2.jpg": "SegmentationClassVisualization",
        "own/Masks/s/x.png": "Masks",
        "own/Masks/s/x_1.png": "Masks",
        "annotations/masks/p.png": "annotations",
        "masks/q.png": "masks",
    }
    found = mask_files([root / name for name in [*photos, *masks]])
    assert found == {root / name: BESIDE.format(folder) for name, folder in masks.items()}


def test_names_that_say_mask():
    names = ["a.jpg", "a_mask.png", "b.png", "b_mask_0.png", "b_1.png", "c_mask.jpg", "a.png"]
    names += ["a_label.jpg", "a_gt.png"]  # no words for masks where no folder says so
    found = mask_files([Path(name) for name in names])
    assert found == {Path("a_mask.png"): NAMED, Path("b_mask_0.png"): NAMED}


def test_words_for_masks_in_their_folder():
    names = ["images/a.jpg", "masks/a_gt.png", "images/b.jpg", "masks/b-mask.png"]
    found = mask_files([Path(name) for name in names])
    assert found == {Path(name): BESIDE.format("masks") for name in names[1::2]}


def test_a_folder_of_masks_for_each_photo():
    photos = ["images/a.jpg", "images/s/b.jpg", "images/c.jpg", "images/c/d.jpg"]
    masks = ["masks/a/left.png", "masks/s/b/0.png", "masks/c/d.png", "masks/c/0.png"]
    found = mask_files([Path(name) for name in [*photos, *masks]])
    assert found == {Path(name): BESIDE.format("masks") for name in masks}


def test_composed_and_decomposed_names_are_one():
    name = "caf\u00e9"
    photo = Path("/d/images", unicodedata.normalize("NFD", name) + ".jpg")
    mask = Path("/d/masks", name + ".png")
    assert mask_files([photo, mask]) == {mask: BESIDE.format("masks")}


def test_a_folder_of_masks_alone_holds_photos():
    """Who names the folder means what is in it."""
    names = [Path("/d/masks/a.png"), Path("/d/masks/b.png")]
    assert mask_files(names) == mask_files([]) == mask_files(names[:1]) == {}
    assert mask_files([Path(f"/d/masks/{k}/{k}.png") for k in range(9)]) == {}


# ---- folders, read through open_benchmark


def photo(path, shape=(20, 24), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def drawn(path, *values, shape=(20, 24), colours=None):
    """A mask with one of `values` a row from the second row on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(shape, np.uint8)
    pixels[1 : 1 + len(values)] = np.array(values, np.uint8)[:, None]
    picture = Image.fromarray(pixels)
    if colours is not None:
        picture.putpalette(colours)
    picture.save(path)


def found(folder, *words, name="mine"):
    """{object: the rows of its mask that are 1}, and what is left out, after reading all."""
    benchmark = open_benchmark(name, folder, Reading(masks=frozenset(words)))
    objects = {s.id: np.flatnonzero(s.mask[:, 0] == 1).tolist() for s in benchmark}
    return objects, benchmark.skipped


@pytest.mark.parametrize(
    ("photos", "masks"),
    [("images", "masks"), ("Images", "MASKS"), ("imgs", "gt"), ("JPEGImages", "SegmentationClass"),
     ("photos", "annotations/masks"), ("image", "labels"), (".", "masks")],
)  # fmt: skip
def test_folders_in_any_case(tmp_path, photos, masks):
    photo(tmp_path / photos / "a.JPG")
    drawn(tmp_path / masks / "a.PNG", 255)
    assert found(tmp_path) == ({"a": [1]}, {})


def test_subfolders_are_matched(tmp_path):
    for place in ("x", "y"):
        photo(tmp_path / "images" / place / "a.jpg")
    drawn(tmp_path / "masks" / "x" / "a.png", 255)
    drawn(tmp_path / "masks" / "y" / "a_mask.png", 0, 255)
    drawn(tmp_path / "masks" / "a.png", 0, 255)
    objects, skipped = found(tmp_path)
    assert objects == {"x/a": [1], "y/a": [2]}
    assert skipped == {"mask a.png": "no image of this name"}


def test_composed_and_decomposed_names_of_masks(tmp_path):
    name = "caf\u00e9"
    photo(tmp_path / "images" / f"{unicodedata.normalize('NFD', name)}.jpg")
    drawn(tmp_path / "masks" / f"{name}.png", 255)
    assert found(tmp_path) == ({name: [1]}, {})


@pytest.mark.parametrize("apart", [True, False])
def test_numbered_masks_are_objects_of_one_photo(tmp_path, apart):
    images, masks = (tmp_path / "images", tmp_path / "masks") if apart else (tmp_path, tmp_path)
    photo(images / "a.jpg")
    photo(images / "b_1.jpg")
    for number in (0, 1):
        drawn(masks / f"a_{number}.png", *[0] * number, 255)
    drawn(masks / "b_1_mask.png", 255)
    drawn(masks / "b_1_mask_7.png", 0, 0, 255)
    assert found(tmp_path) == ({"a_0": [1], "a_1": [2], "b_1": [1], "b_1_mask_7": [3]}, {})


def test_masks_called_as_the_file_of_the_photo(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    drawn(tmp_path / "masks" / "a.jpg.png", 255)
    assert found(tmp_path) == ({"a": [1]}, {})


def test_jpeg_masks_are_found_and_refused(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    drawn(tmp_path / "masks" / "a.jpg", *[255] * 9)
    objects, skipped = found(tmp_path)
    assert (objects, list(skipped)) == ({}, ["a"])
    assert "is a JPEG with" in skipped["a"]
    assert found(tmp_path, "half") == ({"a": list(range(1, 10))}, {})
    photo(tmp_path / "flat" / "a.jpg")
    drawn(tmp_path / "flat" / "a_mask.jpg", *[255] * 9)
    assert "is a JPEG with" in found(tmp_path / "flat")[1]["a"]
    assert found(tmp_path / "flat", "half") == ({"a": list(range(1, 10))}, {})


def test_a_lossless_photo_beside_others_with_its_own_mask(tmp_path):
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "a_1.png")
    drawn(tmp_path / "a_mask.png", 255)
    drawn(tmp_path / "a_1_mask.png", 0, 255)
    assert found(tmp_path) == ({"a": [1], "a_1": [2]}, {})


def voc(folder):
    colours = [0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 756 + [224, 224, 192]
    for name in ("1", "2", "3"):
        photo(folder / "JPEGImages" / f"{name}.jpg")
    drawn(folder / "SegmentationClass" / "1.png", 2, 255, 2, colours=colours)
    drawn(folder / "SegmentationClass" / "2.png", 1, 255, 2, colours=colours)
    (folder / "Annotations").mkdir()
    (folder / "Annotations" / "1.xml").write_text("<annotation/>")
    return colours


def test_vocs_classes(tmp_path):
    voc(tmp_path)
    objects, skipped = found(tmp_path)
    assert objects == {"1": [1, 3]}
    assert skipped.pop("3.jpg") == "no mask of this name"
    assert list(skipped) == ["2"]
    assert "has the palette indices 0, 1, 2 and 255, of which the object cannot" in skipped["2"]
    assert found(tmp_path, "ids")[0] == {"1_2": [1, 3], "2_1": [1], "2_2": [3]}


def test_vocs_objects_come_before_its_classes(tmp_path):
    colours = voc(tmp_path)
    drawn(tmp_path / "SegmentationObject" / "1.png", 1, 255, 2, colours=colours)
    drawn(tmp_path / "SegmentationObject" / "2.png", 255, colours=colours)
    drawn(tmp_path / "SegmentationObjectVisualization" / "2.png", 1, 2, 3, 4)
    objects, skipped = found(tmp_path)
    assert objects == {"1_1": [1], "1_2": [3]}
    assert skipped.pop("3.jpg") == "no mask of this name"
    assert list(skipped) == ["2"]
    assert "has no object pixel; it has the palette indices 0 and 255" in skipped["2"]
    benchmark = open_benchmark("mine", tmp_path)
    assert (benchmark.read("1_1").mask[2] == -1).all()


def test_labelmes_export_to_voc(tmp_path):
    """Its classes as arrays, as PNG, and previews of both."""
    colours = voc(tmp_path)
    (tmp_path / "SegmentationClass").rename(tmp_path / "SegmentationClassPNG")
    (tmp_path / "SegmentationClass").mkdir()
    np.save(tmp_path / "SegmentationClass" / "1.npy", np.zeros((20, 24)))
    photo(tmp_path / "SegmentationClassVisualization" / "1.jpg")
    assert found(tmp_path)[0] == {"1": [1, 3]}
    drawn(tmp_path / "SegmentationObjectPNG" / "1.png", 1, 255, 2, colours=colours)
    assert found(tmp_path)[0] == {"1_1": [1], "1_2": [3]}


def test_ids_of_one_name_are_left_out(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    drawn(tmp_path / "masks" / "a.png", 1, 2)
    drawn(tmp_path / "masks" / "a_1.png", 3, 0, 2)
    objects, skipped = found(tmp_path, "ids")
    assert objects == {"a_1": [1], "a_2": [2], "a_1_3": [1], "a_1_2": [3]}
    assert skipped == {}
    photo(tmp_path / "images" / "a_1.jpg")
    drawn(tmp_path / "masks" / "a.png", 1, 2)
    drawn(tmp_path / "masks" / "a_0.png", 3)
    (tmp_path / "masks" / "a_0.png").rename(tmp_path / "masks" / "a_1_mask.png")
    drawn(tmp_path / "masks" / "a_1.png", 3)
    assert found(tmp_path, "ids")[1] == {"mask a_1.png": "a second mask called a_1"}


@pytest.mark.parametrize("name", ["grabcut", "berkeley", "davis"])
def test_ids_and_half_of_the_published_layouts(tmp_path, name):
    photos, masks = LAYOUTS[name]
    photo(tmp_path / photos / "a.jpg")
    drawn(tmp_path / masks / "a.png", 1, 200)
    assert found(tmp_path, "ids", name=name)[0] == {"a_1": [1], "a_200": [2]}
    assert found(tmp_path, "half", name=name)[0] == {"a": [2]}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (["images/a.jpg"],
         "has images but no masks folder; add it, or one called masks, gt, labels, annotations, "
         "SegmentationClass or SegmentationObject."),
        (["masks/a.png"], "has masks but no images folder; add it."),
        (["images/a.jpg", "img/a.jpg", "masks/a.png"],
         "has photos in images and img; rename or move away all but one of them."),
        (["images/a.jpg", "gt/a.png", "masks/a.png"],
         "has masks in gt and masks; rename or move away all but the one that is meant."),
        (["images/a.jpg", "labels/a.txt", "labels/b.txt"],
         "/labels has no image for a mask, but 2 .txt; save masks as PNG."),
        (["pics/a.jpg", "truth/a.png"],
         "has no image with a mask; it has the folders pics, truth: call those of photos and of "
         "their masks images and masks, or give one in which these are."),
        (["a.jpg", "b.png"], "has no image with a mask; a.jpg: no mask of this name."),
    ],
)  # fmt: skip
def test_other_folders_are_refused_with_what_is_in_them(tmp_path, files, sentence):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    with pytest.raises(InputError) as caught:
        open_benchmark("mine", tmp_path)
    assert str(caught.value).removeprefix("mine: ").removeprefix(str(tmp_path)).strip() == sentence


def test_masks_of_other_names_are_refused_with_how_to_call_them(tmp_path):
    for file in ("images/Cat.jpg", "masks/cat.png"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    with pytest.raises(InputError) as caught:
        open_benchmark("mine", tmp_path)
    assert str(caught.value).endswith(
        "has no image with a mask; mask cat.png: no image of this name, by which a mask is called: "
        "NAME.png, NAME_mask.png or NAME_0.png."
    )


def test_a_folder_of_masks_for_each_photo_is_read(tmp_path):
    for file in ("images/a.jpg", "masks/a/left.png", "masks/a/right.png"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(20, dtype=np.uint8) * 255).save(tmp_path / file)
    benchmark = open_benchmark("mine", tmp_path)
    assert {s.id: s.mask.trace() for s in benchmark} == {"a/left": 20, "a/right": 20}
    assert set(benchmark.photos.values()) == {tmp_path / "images" / "a.jpg"}
