"""Which file is a mask of which photo: folders side by side, names, and the ways people vary them."""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from mis_jax.datasets import images

# Names of folders, in any case of letters.
PHOTO_FOLDERS = ("images", "image", "imgs", "img", "photos", "jpegimages")
OBJECT_FOLDERS = ("segmentationobject", "segmentationobjectpng")  # VOC's: every value is an object
CLASS_FOLDERS = ("segmentationclass", "segmentationclasspng")
MASK_FOLDERS = (*OBJECT_FOLDERS, *CLASS_FOLDERS, "masks", "mask", "gt", "labels", "annotations")
PREVIEW_FOLDERS = ("segmentationobjectvisualization", "segmentationclassvisualization")  # labelme's

_NUMBERED = re.compile(r"(.+?)(_mask)?(_\d+)?", re.IGNORECASE | re.DOTALL)


def plain(name: str) -> str:
    """A name as it is compared and written: composed (NFC), and without what is not Unicode."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


def photo_of(stem: str, photos: Iterable[str]) -> str | None:
    """The name of the photo, out of the set `photos`, that a mask called `stem` is of.

    It is the photo of the same name, or else of that name without `.jpg` or another suffix of
    images, `_mask`, a number `_0`, or several of these from behind.
    """
    if stem in photos:
        return stem
    base, suffix = os.path.splitext(stem)
    shorter = [base] if suffix.lower() in images.SUFFIXES else []
    match = _NUMBERED.fullmatch(stem)
    if match and match[3]:
        shorter.append(stem[: -len(match[3])])
    elif match and match[2]:
        shorter.append(stem[: -len(match[2])])
    found = (photo_of(name, photos) for name in shorter)
    return next((name for name in found if name is not None), None)


def mask_files(paths: Sequence[Path]) -> dict[Path, str]:
    """Those of the image files `paths` that are masks of others by their names, and why.

    A mask lies in a folder of `MASK_FOLDERS` or `PREVIEW_FOLDERS` and has the name of a photo beside
    that folder (`images/a.jpg` and `masks/a.png`, `a.jpg` and `masks/a_mask.png`,
    `JPEGImages/a.jpg` and `SegmentationClass/a.png`, with the same subfolders), or is called
    NAME_mask beside NAME. Only names are looked at, no file is read. What lies above the folder
    that all share does not matter.

    Returns:
        {path: a reason such as "a mask, in SegmentationClass beside the photos"}, in the order of
        `paths`.
    """
    if not paths:
        return {}
    root = os.path.commonpath([os.path.dirname(os.path.abspath(p)) for p in paths])
    places = {p: _place(PurePath(os.path.abspath(p)).relative_to(root)) for p in paths}
    photos: dict[str, set[str]] = {}
    for folder, kept_in, stem in places.values():
        if not kept_in:
            photos.setdefault(folder, set()).add(stem)
    found = {}
    for path, (folder, kept_in, stem) in places.items():
        beside = photos.get(folder, set())
        if kept_in and photo_of(stem, beside) is not None:
            found[path] = f"a mask, in {kept_in} beside the photos"
        elif not kept_in and "_mask" in stem.lower() and _other(stem, beside):
            found[path] = "a mask, NAME_mask beside NAME"
    return found


def _place(path: PurePath) -> tuple[str, str, str]:
    """The folder without those that say what is in it, the one that says mask or "", the stem."""
    known = (*MASK_FOLDERS, *PREVIEW_FOLDERS)
    folders = [plain(part) for part in path.parts[:-1]]
    kept_in = next((part for part in folders if part.lower() in known), "")
    rest = [part for part in folders if part.lower() not in (*known, *PHOTO_FOLDERS)]
    return "/".join(rest), kept_in, plain(path.stem)


def _other(stem: str, photos: set[str]) -> bool:
    """Whether a file called NAME_mask or NAME_mask_0 lies beside a NAME."""
    match = _NUMBERED.fullmatch(stem)
    return bool(match and match[2] and photo_of(match[1], photos))
