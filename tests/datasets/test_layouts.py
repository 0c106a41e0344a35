"""layouts: which of the files of a folder are masks, by their names alone."""

import unicodedata
from pathlib import Path

import pytest

from mis_jax.datasets.layouts import mask_files, photo_of

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
    found = mask_files([Path(name) for name in names])
    assert found == {Path("a_mask.png"): NAMED, Path("b_mask_0.png"): NAMED}


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
