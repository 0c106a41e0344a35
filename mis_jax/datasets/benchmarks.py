"""Evaluation sets: GrabCut, Berkeley, DAVIS, SBD in their own layouts, and any folder of pairs.

A folder of your own is one of two layouts:

    images/NAME.jpg + masks/NAME.png        any image kind
    NAME.jpg + NAME.png, or NAME.* + NAME_mask.png, side by side

Its masks are PNG, BMP or TIFF: 0 is background, 128 is not counted, any other value is the object.

COCO's annotations of instances are read as well (coco.py), and what tools/data/build_benchmarks.py
made (tfds.py).
"""

import collections
import functools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from mis_jax.datasets import coco, images, sbd, tfds
from mis_jax.datasets.coco_file import find_file
from mis_jax.datasets.orientation import aligned
from mis_jax.datasets.reading import Reading
from mis_jax.datasets.recent import Recent
from mis_jax.datasets.samples import Benchmark, Labelled, photos_of
from mis_jax.errors import InputError
from mis_jax.files import cache_folder

MASK_SUFFIXES = (".png", ".bmp", ".dib", ".tif", ".tiff")
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
    file = None
    if kind not in EXPECTED and folder.is_dir():
        file = find_file(folder)
    if file:
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
    else:
        readers, skipped = _own(folder, reading)
    if not readers:
        why = "".join(f"; {k}: {v}" for k, v in list(skipped.items())[:1])
        raise InputError(f"{name}: {folder} has no image with a mask{why}.")
    return Benchmark(name, EXPECTED.get(kind), readers, skipped, photos=photos_of(readers))


def _known(folder: Path, kind: str, reading: Reading) -> tuple[dict, dict]:
    """Pairs of GrabCut, Berkeley and DAVIS: an image's mask has its name up to the first dot."""
    pictures, masks = (_subfolder(folder, part, kind) for part in LAYOUTS[kind])
    decode = _davis_mask if kind == "davis" else _grabcut_mask
    named = [(p.name.partition(".")[0], p) for p in _images(pictures)]
    return _pairs(named, [(p.stem, p) for p in _files(masks)], decode, reading)


def _own(folder: Path, reading: Reading) -> tuple[dict, dict]:
    """Pairs of a folder of the user's, in either layout of the module's docstring."""
    pictures, masks = folder / "images", folder / "masks"
    if pictures.is_dir() != masks.is_dir():
        there, missing = sorted((pictures, masks), key=Path.is_dir, reverse=True)
        raise InputError(f"{folder} has {there.name} but no {missing.name} folder; add it.")
    apart = pictures.is_dir()
    found = _images(pictures if apart else folder)
    possible = [p for p in _files(masks if apart else folder) if _lossless(p)]
    if not apart:
        lossy = {p.stem for p in found if not _lossless(p)}
        possible = [p for p in possible if p.stem.endswith("_mask") or p.stem in lossy]
        taken = set(possible)
        found = [p for p in found if p not in taken]
    # NAME_mask before NAME, where there are both
    possible.sort(key=lambda p: not p.stem.endswith("_mask"))
    stems = {p.stem for p in found}
    named = [(p.stem if p.stem in stems else p.stem.removesuffix("_mask"), p) for p in possible]
    return _pairs([(p.stem, p) for p in found], named, _own_mask, reading)


Named = list[tuple[str, Path]]


def _pairs(pictures: Named, masks: Named, decode: Callable, reading: Reading) -> tuple[dict, dict]:
    """Readers of the images with a mask of their name, and why the others have none."""
    by_name: dict[str, Path] = {}
    readers, skipped = {}, {}
    for name, mask in masks:
        by_name.setdefault(name, mask)
    for name, picture in pictures:
        if name in readers:
            skipped[picture.name] = f"a second image called {name}"
        elif name not in by_name:
            skipped[picture.name] = "no mask of this name"
        else:
            readers[name] = functools.partial(_read_pair, picture, by_name[name], decode, reading)
    for name, mask in masks:
        if mask != by_name[name]:
            skipped[f"mask {mask.name}"] = f"a second mask called {name}"
        elif name not in readers:
            skipped[f"mask {mask.name}"] = "no image of this name"
    return readers, skipped


_recent_image = Recent(images.read_picture)
_recent_labels = Recent(sbd.segmentation)


def _read_pair(picture: Path, mask: Path, decode: Callable, reading: Reading) -> Labelled:
    read = images.read_picture(picture, reading)
    return aligned(read, decode(mask), reading)


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
    return Labelled(read.pixels, mask.astype(np.int32), read.notes)


def _grabcut_mask(path: Path) -> np.ndarray:
    """GrabCut and Berkeley: first channel; 1 and above 128 object, 128 not counted."""
    first = _pixels(path, cv2.IMREAD_COLOR)[:, :, 0]
    return np.where(first == 128, -1, (first > 128) | (first == 1)).astype(np.int32)


def _davis_mask(path: Path) -> np.ndarray:
    return (_pixels(path, cv2.IMREAD_COLOR).max(axis=2) > 0).astype(np.int32)


def _own_mask(path: Path) -> np.ndarray:
    value = _pixels(path, cv2.IMREAD_UNCHANGED)[:, :, :3].max(axis=2)  # without transparency
    return np.where(value == 128, -1, value > 0).astype(np.int32)


def _pixels(path: Path, flags: int) -> np.ndarray:
    """Values [H, W, C] of a mask file."""
    try:
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    except (cv2.error, OSError):
        pixels = None
    if pixels is None:
        raise InputError(f"the mask {path} cannot be read; save it as PNG")
    return np.atleast_3d(pixels)


def _subfolder(folder: Path, part: str, name: str) -> Path:
    if not (folder / part).is_dir():
        there = sorted(p.name for p in folder.iterdir() if p.is_dir())[:5]
        has = f"; it has {', '.join(there)}" if there else ""
        raise InputError(f"{folder} has no folder {part}, which {name} keeps its files in{has}.")
    return folder / part


def _files(folder: Path) -> list[Path]:
    """The visible files of a folder in the order of their names."""
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return [p for p in _files(folder) if p.suffix.lower() in images.SUFFIXES]


def _lossless(path: Path) -> bool:
    return path.suffix.lower() in MASK_SUFFIXES
