"""Which file is the mask of which photo: folders side by side, and names, as people vary them."""

import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from mis_jax.datasets import images
from mis_jax.errors import InputError

# Names of folders, in any case of letters.
PHOTO_FOLDERS = ("images", "image", "imgs", "img", "photos", "jpegimages")
OBJECT_FOLDERS = ("segmentationobject", "segmentationobjectpng")  # VOC's: every value is an object
CLASS_FOLDERS = ("segmentationclass", "segmentationclasspng")
MASK_FOLDERS = (*OBJECT_FOLDERS, *CLASS_FOLDERS, "mask", "masks", "gt", "labels", "annotations")
PREVIEW_FOLDERS = ("segmentationobjectvisualization", "segmentationclassvisualization")  # labelme's
LOSSLESS = (".png", ".bmp", ".dib", ".tif", ".tiff", ".gif")  # of masks beside their photos

NO_IMAGE = "no image of this name"
_WORDS = "mask|masks|seg|segmentation|gt|label|labels"  # behind the name of a photo
_PARTS = re.compile(rf"(.+?)([_-](?:{_WORDS}))?(_\d+)?", re.IGNORECASE | re.DOTALL)


class Named(NamedTuple):
    """A file, the name by which it is matched, and the one that is shown."""

    key: str
    shown: str
    path: Path


class Pairs(NamedTuple):
    """The objects of a folder: {object: (photo, mask)}, and {file: why it is left out}."""

    objects: dict[str, tuple[Path, Path]]
    skipped: dict[str, str]
    instances: bool = False  # whether every value of a mask is an object by the folder's name


def own_pairs(folder: Path) -> Pairs:
    """Photos and masks of a folder of the user's, in one of the layouts of benchmarks.py.

    Raises:
        InputError: it has folders of photos but none of masks, or several that could be either.
    """
    photos, masks = _roles(folder)
    if not photos and not masks:
        return _side_by_side(folder)
    if not photos and masks and files(folder):
        found = [Named(plain(p.stem), plain(p.name), p) for p in files(folder)]
    elif len(photos) == 1 and masks:
        found = _below(photos[0])
    else:
        raise InputError(_misfit(folder, photos, masks))
    if len(masks) > 1:
        raise InputError(
            f"{folder} has masks in {_and(masks)}; rename or move away all but the one that is "
            "meant."
        )
    drawn = [f._replace(key=_without(f.key, MASK_FOLDERS)) for f in _below(masks[0])]
    if not drawn and (ignored := images.ignored_files(masks[0])):
        seen = ", ".join(f"{count} {suffix}" for suffix, count in ignored.items())
        raise InputError(f"{masks[0]} has no image for a mask, but {seen}; save masks as PNG.")
    pairs = pair(found, drawn)
    return pairs._replace(instances=masks[0].name.lower() in OBJECT_FOLDERS)


def pair(photos: Sequence[Named], masks: Sequence[Named], exact: bool = False) -> Pairs:
    """Every photo with its masks, and why others have none.

    A photo's mask gives the object its name; one with a number, NAME_0, an object of that name.

    Args:
        photos: in the order of the objects.
        masks: where two have the same object, the first one counts.
        exact: only masks of the very name of the photo, as in the published sets.
    """
    objects: dict[str, tuple[Path, Path]] = {}
    skipped: dict[str, str] = {}
    first: dict[str, Named] = {}
    for photo in photos:
        if first.setdefault(photo.key, photo) is not photo:
            skipped[photo.shown] = f"a second image called {photo.key}"
    of_photo: dict[str, list[tuple[str, Named]]] = {}
    for mask in masks:
        match = (mask.key, False) if exact else _match(mask.key, first)
        if match is None or match[0] not in first:
            skipped[f"mask {mask.shown}"] = NO_IMAGE
        else:
            name = mask.key if match[1] else match[0]
            of_photo.setdefault(match[0], []).append((name, mask))
    for key, photo in first.items():
        if key not in of_photo:
            skipped[photo.shown] = "no mask of this name"
        for name, mask in of_photo.get(key, []):
            if name in objects:
                skipped[f"mask {mask.shown}"] = f"a second mask called {name}"
            else:
                objects[name] = photo.path, mask.path
    return Pairs(objects, skipped)


def mask_files(paths: Sequence[Path]) -> dict[Path, str]:
    """Those of the image files `paths` that are masks of others by their names, and why.

    A mask lies in a folder of `MASK_FOLDERS` or `PREVIEW_FOLDERS` and has the name of a photo that
    is beside that folder (images/a.jpg and masks/a.png, a.jpg and masks/a_mask.png,
    JPEGImages/a.jpg and SegmentationClass/a.png, with the same subfolders), or is called NAME_mask
    beside NAME. Only names are looked at, no file is read. What lies above the folder that all
    share does not matter.

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
        parent, _, last = folder.rpartition("/")
        if kept_in and (_match(stem, beside) or last in photos.get(parent, ())):
            found[path] = f"a mask, in {kept_in} beside the photos"
        elif not kept_in and _called_mask(stem, beside):
            found[path] = "a mask, NAME_mask beside NAME"
    return found


def photo_of(stem: str, photos: Collection[str]) -> str | None:
    """The name, out of `photos`, of the photo that a mask called `stem` is of.

    It is the photo of the same name, or else of that name without .jpg or another suffix of images,
    without _mask, _seg, _gt, _label or the like, without a number _0, or without several of these;
    or else the one that the mask's folder is called as, NAME/0.png.
    """
    match = _match(stem, photos)
    return match[0] if match else None


def plain(name: str) -> str:
    """A name as it is compared and written: composed (NFC), and without what is not Unicode."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


def files(folder: Path) -> list[Path]:
    """The visible image files of a folder, not of those in it, in the order of their names."""
    found = (p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return sorted(p for p in found if p.suffix.lower() in images.SUFFIXES)


def subfolders(folder: Path) -> list[Path]:
    """The visible folders of a folder in the order of their names."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


# ---- folders


def _roles(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders of photos and those of masks; VOC's objects alone, where they are there."""
    there = subfolders(folder)
    photos = [p for p in there if p.name.lower() in PHOTO_FOLDERS]
    masks = [p for p in there if p.name.lower() in MASK_FOLDERS]
    if len(masks) > 1:  # VOC has Annotations of XML, labelme a SegmentationClass of arrays
        masks = [p for p in masks if _below(p)]
    objects = [p for p in masks if p.name.lower() in OBJECT_FOLDERS]
    classes = [p for p in masks if p.name.lower() in CLASS_FOLDERS]
    if len(objects) == 1 and len(objects) + len(classes) == len(masks):
        masks = objects
    return photos, masks


def _below(folder: Path) -> list[Named]:
    """The image files of a folder and of those in it, sorted, NAME_mask before others."""
    try:
        found = images.find_images(folder)
    except InputError:  # there is none
        return []
    shown = [plain(p.relative_to(folder).as_posix()) for p in found]
    named = [Named(s[: len(s) - len(p.suffix)], s, p) for s, p in zip(shown, found, strict=True)]
    return sorted(named, key=_mask_last)


def _mask_last(named: Named) -> bool:
    return not named.key.lower().endswith("_mask")


def _misfit(folder: Path, photos: list[Path], masks: list[Path]) -> str:
    if len(photos) > 1:
        return f"{folder} has photos in {_and(photos)}; rename or move away all but one of them."
    if photos:
        return (
            f"{folder} has {photos[0].name} but no masks folder; add it, or one called "
            f"{', '.join(MASK_FOLDERS[-4:])}, SegmentationClass or SegmentationObject."
        )
    return f"{folder} has {_and(masks)} but no images folder; add it."


def _and(paths: Sequence[Path]) -> str:
    return " and ".join(p.name for p in paths)


def _side_by_side(folder: Path) -> Pairs:
    """NAME.jpg with NAME.png, and NAME.* with NAME_mask.*, in one folder."""
    found = [Named(plain(p.stem), plain(p.name), p) for p in files(folder)]
    lossy = {f.key for f in found if f.path.suffix.lower() not in LOSSLESS}
    lossless = [f for f in found if f.path.suffix.lower() in LOSSLESS]
    has_mask = {f.key[: -len("_mask")] for f in lossless if not _mask_last(f)}
    others = lossy | has_mask  # a NAME_0.png with a mask of its own is a photo
    masks = [f for f in lossless if _says_mask(f.key) or photo_of(f.key, others) in lossy]
    taken = {f.path for f in masks}
    photos = [f for f in found if f.path not in taken]
    # a NAME_mask.jpg is the mask of NAME, unless it has one of its own
    keys, with_mask = {f.key for f in photos}, {photo_of(f.key, lossy) for f in masks}
    late = [f for f in photos if f.key not in with_mask and _called_mask(f.key, keys)]
    photos = [f for f in photos if f not in late]
    return pair(photos, sorted([*masks, *late], key=_mask_last))


# ---- names


def _match(stem: str, photos: Collection[str]) -> tuple[str, bool] | None:
    """What `photo_of` says, and whether a number was left out for it."""
    if stem in photos:
        return stem, False
    base, suffix = os.path.splitext(stem)
    if suffix.lower() in images.SUFFIXES and (match := _match(base, photos)):
        return match
    parts = _PARTS.fullmatch(stem)
    if parts and parts[3]:
        match = _match(stem[: -len(parts[3])], photos)
        return (match[0], True) if match else None
    if parts and parts[2]:
        return _match(stem[: -len(parts[2])], photos)
    folder = stem.rpartition("/")[0]
    return (folder, True) if folder in photos else None


def _says_mask(stem: str) -> str:
    """The NAME of a file called NAME_mask or NAME_mask_0; empty if it is not called so.

    Of a file beside photos, other words do not say that it is none of them.
    """
    parts = _PARTS.fullmatch(stem)
    return parts[1] if parts and (parts[2] or "").lower() == "_mask" else ""


def _called_mask(stem: str, photos: Collection[str]) -> bool:
    """Whether a file called NAME_mask or NAME_mask_0 lies beside a NAME."""
    name = _says_mask(stem)
    return bool(name and photo_of(name, photos))


def _place(path: PurePath) -> tuple[str, str, str]:
    """The folder without those that say what is in it, the one that says mask or "", the stem."""
    known = (*MASK_FOLDERS, *PREVIEW_FOLDERS)
    folders = [plain(part) for part in path.parts[:-1]]
    kept_in = next((part for part in folders if part.lower() in known), "")
    rest = _without("/".join(folders), (*known, *PHOTO_FOLDERS))
    return rest, kept_in, plain(path.stem)


def _without(path: str, folders: Collection[str]) -> str:
    """A path without its parts of these names."""
    return "/".join(part for part in path.split("/") if part.lower() not in folders)
