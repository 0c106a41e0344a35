"""Evaluation sets: GrabCut, Berkeley, DAVIS, SBD in their own layouts, and any folder of pairs.

A folder of your own is laid out in one of these ways, in any case of the folders' and suffixes'
letters (layouts.py):

    images/NAME.jpg + masks/NAME.png        any image kind; with the same subfolders, if any
    NAME.jpg + masks/NAME.png
    NAME.jpg + NAME.png, or NAME.* + NAME_mask.png, side by side
    JPEGImages/ + SegmentationObject/       VOC's: every value of a mask is an object
    JPEGImages/ + SegmentationClass/        where there is one class an image
    NAME.jpg + NAME.json                    labelme's polygons (labelme.py)

images may also be called image, imgs, img, photos; masks also mask, gt, labels, annotations.
NAME_0.png, NAME_1.png, ... or NAME/*.png are masks of as many objects of NAME. What a mask's values
mean is in masks.py.

COCO's annotations of instances are read as well (coco.py), and what tools/data/build_benchmarks.py
made (tfds.py).
"""

import collections
import contextlib
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mis_jax.datasets import coco, images, labelme, layouts, masks, published, sbd, tfds
from mis_jax.datasets.coco_file import find_file
from mis_jax.datasets.layouts import Named, Pairs
from mis_jax.datasets.orientation import aligned
from mis_jax.datasets.reading import Reading
from mis_jax.datasets.recent import Recent
from mis_jax.datasets.samples import Benchmark, Labelled, Reader, photos_of
from mis_jax.errors import InputError
from mis_jax.files import cache_folder

LAYOUTS = {
    "grabcut": ("data_GT", "boundary_GT"),
    "berkeley": ("images", "masks"),
    "davis": ("img", "gt"),
}
EXPECTED = {"grabcut": 50, "berkeley": 100, "davis": 345, "sbd": 6671}


def default_folder(name: str) -> Path:
    """Where `mis-jax download` puts grabcut, berkeley, davis or sbd (in any case of letters).

    Raises:
        InputError: it is not there, or no set that can be downloaded.
    """
    kind = name.lower()
    if kind not in EXPECTED:
        raise InputError(f"{name} needs its folder: {name}=FOLDER.")
    folder = cache_folder() / kind
    if not folder.is_dir():
        raise InputError(
            f"{name} is not at {folder}; mis-jax download {kind} fetches it, or give its folder: "
            f"{name}=FOLDER."
        )
    return folder


def open_benchmark(name: str, folder: str | Path, reading: Reading | None = None) -> Benchmark:
    """Lists the objects of a benchmark in the order of the published evaluation.

    Args:
        name: grabcut, berkeley, davis or sbd (in any case of letters) for their own layouts;
            any other name for a folder of images and masks.
        folder: where it lies. Under any name it may also be one made by
            tools/data/build_benchmarks.py, or COCO's annotations: FILE.json, or FILE.json:FOLDER
            where the images are, or the folder that an annotation tool exported.
        reading: how files are read that leave it open.

    Raises:
        InputError: if the folder is missing, not laid out as the name says, or has no pair.
    """
    kind, where = name.lower(), str(folder)
    folder, reading = Path(folder), reading or Reading()
    if file := _exported(folder, kind):
        readers, skipped = coco.read_annotations(str(file), reading)
    elif where.lower().endswith(".json") or ".json:" in where.lower():
        readers, skipped = coco.read_annotations(where, reading)
    elif not folder.is_dir():
        raise InputError(f"{name}: the folder {folder} does not exist.")
    elif (folder / "dataset_info.json").is_file():
        readers, skipped = tfds.read_built(folder)
    elif kind == "sbd":
        readers, skipped = _sbd(folder, reading)
    elif kind in LAYOUTS:
        readers, skipped = _known(folder, kind, reading)
    elif labelme.is_labelme(folder):
        readers, skipped = labelme.read_folder(folder, reading)
    else:
        readers, skipped = _read_pairs(name, layouts.own_pairs(folder), masks.read_mask, reading)
    if not readers:
        why = "".join(f"; {k}: {v}" for k, v in list(skipped.items())[:1])
        if layouts.NO_IMAGE in skipped.values():
            why += ", by which a mask is called: NAME.png, NAME_mask.png or NAME_0.png"
        raise InputError(f"{name}: {folder} has no image with a mask{why}{_other_folders(folder)}.")
    return Benchmark(name, EXPECTED.get(kind), readers, skipped, photos=photos_of(readers))


def _exported(folder: Path, kind: str) -> Path | None:
    """COCO's annotations that an annotation tool exported with the images into a folder."""
    file = find_file(folder) if kind not in EXPECTED and folder.is_dir() else None
    pairs = None
    if file:
        with contextlib.suppress(InputError):
            pairs = layouts.own_pairs(folder)
    if pairs and pairs.objects:
        raise InputError(
            f"{folder} has both masks and COCO's annotations, {file}; give {file} itself, or move "
            "it elsewhere."
        )
    return file


def _known(folder: Path, kind: str, reading: Reading) -> tuple[dict, dict]:
    """Pairs of GrabCut, Berkeley and DAVIS: an image's mask has its name up to the first dot."""
    pictures, drawn = (_subfolder(folder, part, kind) for part in LAYOUTS[kind])
    photos = [Named(p.name.partition(".")[0], p.name, p) for p in layouts.files(pictures)]
    found = [Named(p.stem, p.name, p) for p in _files(drawn)]
    read = published.read_davis if kind == "davis" else published.read_grabcut
    if reading.masks & {"ids", "half"}:
        read = masks.read_mask
    return _read_pairs(kind, layouts.pair(photos, found, exact=True), read, reading)


def _read_pairs(name: str, pairs: Pairs, read: Callable, reading: Reading) -> tuple[dict, dict]:
    """Readers of pairs: one object a mask, or one a value."""
    readers: dict[str, Reader] = {}
    skipped = dict(pairs.skipped)
    if "ids" not in reading.masks and not (pairs.instances and "half" not in reading.masks):
        for key, (picture, mask) in pairs.objects.items():
            readers[key] = functools.partial(_read_pair, picture, mask, read, reading)
        return readers, skipped
    listed = tqdm(pairs.objects.items(), f"listing {name}", unit="mask", disable=None, delay=1)
    for key, (picture, mask) in listed:
        try:
            ids = masks.list_ids(mask)
        except InputError as error:
            skipped[key] = str(error)
            continue
        for label, id in ids.items():
            if f"{key}_{label}" in readers:
                skipped[f"{key}_{label} again"] = f"a second mask called {key}_{label}"
            else:
                read_id = functools.partial(_read_id, picture, mask, id, reading)
                readers[f"{key}_{label}"] = read_id
    return readers, skipped


_recent_image = Recent(images.read_picture)
_recent_labels = Recent(sbd.segmentation)


def _read_pair(picture: Path, mask: Path, read: Callable, reading: Reading) -> Labelled:
    return _labelled(_recent_image(picture, reading), read(mask, reading), reading)


def _read_id(picture: Path, mask: Path, id: int, reading: Reading) -> Labelled:
    return _labelled(_recent_image(picture, reading), masks.read_id(mask, id), reading)


def _labelled(picture: images.Picture, mask: masks.Mask, reading: Reading) -> Labelled:
    found = aligned(picture, mask.pixels, reading, mask.orientation)
    return found._replace(notes=(*found.notes, *mask.notes))


def _sbd(folder: Path, reading: Reading) -> tuple[dict, dict]:
    """Every instance of every image of val.txt, in its order, labels ascending."""
    pictures, instances = (_subfolder(folder, part, "sbd") for part in ("img", "inst"))
    names = sbd.names(folder)
    labels, skipped = sbd.list_labels(instances, names)
    readers = {}
    for name, found in labels.items():
        for label in found:
            files = pictures / f"{name}.jpg", instances / f"{name}.mat"
            readers[f"{name}_{label}"] = functools.partial(_read_instance, *files, label, reading)
    repeated = collections.Counter(names) - collections.Counter(set(names))
    skipped.update({f"{name} again": "named twice in val.txt" for name in repeated})
    return readers, skipped


def _read_instance(picture: Path, labels: Path, label: int, reading: Reading) -> Labelled:
    mask = _recent_labels(labels) == label
    read = _recent_image(picture, reading)
    return aligned(read, mask.astype(np.int32), reading)


def _subfolder(folder: Path, part: str, name: str) -> Path:
    if not (folder / part).is_dir():
        there = [p.name for p in layouts.subfolders(folder)][:5]
        has = f"; it has {', '.join(there)}" if there else ""
        raise InputError(f"{folder} has no folder {part}, which {name} keeps its files in{has}.")
    return folder / part


def _files(folder: Path) -> list[Path]:
    """The visible files of a folder in the order of their names."""
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def _other_folders(folder: Path) -> str:
    """The rest of a sentence about a folder without pairs, whose subfolders may hold them."""
    there = [p.name for p in layouts.subfolders(folder)] if folder.is_dir() else []
    known = (*layouts.PHOTO_FOLDERS, *layouts.MASK_FOLDERS)
    if not there or any(name.lower() in known for name in there):
        return ""
    more = ", ..." if len(there) > 5 else ""
    return (
        f"; it has the folders {', '.join(there[:5])}{more}: call those of photos and of their "
        "masks images and masks, or give one in which these are"
    )
