"""Annotations of instances in COCO's format: `NAME=FILE.json` or `NAME=FILE.json:IMAGES`.

`coco_file.py` reads the file, `coco_images.py` finds its images, `outlines.py` fills the outlines.
Here is what exporters write differently: ids and sizes as numbers or text, ids that begin anew with
each image, brush masks that are called crowds, masks drawn before or after the EXIF rotation.
"""

import collections
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mis_jax.datasets import coco_images, images, outlines
from mis_jax.datasets.coco_file import key_of, load
from mis_jax.datasets.images import Picture
from mis_jax.datasets.orientation import OPEN, aligned
from mis_jax.datasets.reading import Notes, Reading
from mis_jax.datasets.recent import Recent
from mis_jax.datasets.samples import Labelled, Reader
from mis_jax.errors import InputError

BRUSH = "a brush mask of CVAT's, which calls it a crowd (iscrowd), was taken as one object"
_recent_image = Recent(images.read_picture)

Readers = dict[str, Reader]


@dataclasses.dataclass(frozen=True)
class _Photo:
    key: str  # its id
    name: str  # the way to it
    size: tuple[Any, Any]  # height, width


@dataclasses.dataclass(frozen=True)
class _Object:
    photo: _Photo
    id: str
    annotation: dict


def read_annotations(where: str, reading: Reading) -> tuple[Readers, dict[str, str]]:
    """Readers of every object of an annotation file, and why others are left out.

    Objects are called IMAGE_ANNOTATION, after the stem of the image's file and the annotation's
    id, or by as much of the image's path, suffix and id as tells them apart. They come image by
    image, in the order of the file. Crowds are left out.

    Args:
        where: FILE.json or FILE.json:IMAGES.
        reading: of the images, and of masks on images with an EXIF rotation.

    Returns:
        ({object: function that reads its image and mask; a partial of the image's path},
        {object or annotation: why it is left out}).

    Raises:
        InputError: the file cannot be read or is not COCO's, or none of its images is there.
    """
    path, folders = coco_images.places(where)
    entries, annotations = load(path)
    skipped: dict[str, str] = {}
    objects = _objects(_photos(entries, skipped), annotations, skipped)
    if not objects:
        return {}, skipped
    found = coco_images.locate(path, folders, [one.photo.name for one in objects])
    readers: Readers = {}
    for name, one in zip(_names(objects), objects, strict=True):
        image, (why, brush) = found[one.photo.name], _unusable(one.annotation)
        if why or image.why:
            skipped[name] = why or image.why
        else:
            outline, notes = one.annotation["segmentation"], image.notes + brush
            how = image.path, outline, one.photo.size, notes, reading
            readers[name] = functools.partial(_read, *how)
    return readers, skipped


def _photos(entries: list, skipped: dict[str, str]) -> dict[str, _Photo]:
    """The images of a file by their ids."""
    photos: dict[str, _Photo] = {}
    for number, entry in enumerate(entries):
        name = coco_images.name_of(entry)
        key = key_of(entry.get("id")) if name is not None else None
        if name is None or key is None:
            skipped[f"image {number}"] = "its entry has no id or file_name"
        elif key in photos:
            skipped[f"image {number}"] = f"a second image called {key}"
        else:
            photos[key] = _Photo(key, name, (entry.get("height"), entry.get("width")))
    return photos


def _objects(
    photos: dict[str, _Photo], annotations: list, skipped: dict[str, str]
) -> list[_Object]:
    """The annotations with an image and an id of their own, image by image."""
    of_photo: dict[str, dict[str, _Object]] = {key: {} for key in photos}
    for number, annotation in enumerate(annotations):
        known = isinstance(annotation, dict)
        key = key_of(annotation.get("image_id")) if known else None
        id = key_of(annotation.get("id")) if known else None
        if key not in photos:
            skipped[f"annotation {number}"] = "its annotation names no image of the file"
        elif id is None or id in of_photo[key]:
            skipped[f"annotation {number}"] = (
                f"its annotation of {photos[key].name} has no id of its own"
            )
        else:
            of_photo[key][id] = _Object(photos[key], id, annotation)
    return [one for objects in of_photo.values() for one in objects.values()]


def _names(objects: Sequence[_Object]) -> list[str]:
    """STEM_ID where that is unique, else with the path, and with the suffix and the image's id."""

    ways = {one.photo.key: _ways(one.photo) for one in objects}
    names: dict[int, str] = {}
    taken: set[str] = set()
    left: Sequence[int] = range(len(objects))
    for level in range(4):
        possible = {k: f"{ways[objects[k].photo.key][level]}_{objects[k].id}" for k in left}
        possible = {k: name.replace("/", "-") for k, name in possible.items()}
        counts = collections.Counter(possible.values())
        names |= {k: n for k, n in possible.items() if counts[n] == 1 and n not in taken}
        left = [k for k in left if k not in names]
        if not left:
            break
        taken.update(names.values())
    names |= {k: f"{possible[k]} ({k})" for k in left}
    return [names[k] for k in range(len(objects))]


def _ways(photo: _Photo) -> tuple[str, ...]:
    """What an image may be called by, from short to long."""
    way = PurePosixPath(photo.name.replace("\\", "/"))
    return way.stem, str(way.parent / way.stem), str(way), f"{way}_{photo.key}"


def _unusable(annotation: dict) -> tuple[str, Notes]:
    """Why an annotation is no object, or what is odd about it."""
    outline, crowd = annotation.get("segmentation"), annotation.get("iscrowd")
    if not outline:
        return "its annotation has no segmentation", ()
    if annotation.get("isbbox") is True:  # COCO Annotator
        return "its annotation is a box (isbbox), not an outline", ()
    if str(crowd).lower() in ("none", "false", "0", "0.0", ""):
        return "", ()
    attributes = annotation.get("attributes")
    if isinstance(outline, dict) and isinstance(attributes, dict) and "occluded" in attributes:
        return "", (BRUSH,)  # every one of CVAT's has this attribute
    return "a crowd (iscrowd), not one object; where it is one, give it iscrowd 0", ()


def _read(
    image: Path, outline: Any, entry: tuple[Any, Any], notes: Notes, reading: Reading
) -> Labelled:
    picture = _recent_image(image, reading)
    (height, width), open = _size(picture, outline, entry, reading)
    shown = picture.pixels.shape[:2]
    if (height, width) not in (shown, _stored(picture)):
        raise InputError(
            f"the image is {shown[1]} x {shown[0]} pixels, its mask {width} x {height}"
        )
    if not isinstance(outline, dict):
        open += outlines.check_points(outlines.polygons(outline), height, width)
    mask = outlines.decode(outline, height, width).astype(np.int32)
    pixels, mask, found = aligned(picture, mask, reading)
    return Labelled(pixels, mask, (*found, *notes, *open))


def _size(
    picture: Picture, outline: Any, entry: tuple[Any, Any], reading: Reading
) -> tuple[tuple[int, int], Notes]:
    """(height, width) that an outline is drawn in, and a note if that is a guess.

    Run lengths have their own, polygons that of the image's entry. Where it has none, they are
    drawn on the photo as it is seen, unless they leave it and fit the stored one.
    """
    if isinstance(outline, dict):
        size = outlines.runs_size(outline)
        if size is None:
            raise InputError(f"its annotation has run lengths of size {outline.get('size')}")
        return size, ()
    if not any(value in (None, 0, "", "0") for value in entry):
        height, width = map(outlines.whole, entry)
        if height is None or width is None:
            raise InputError(f"its annotation has an image of {entry[1]} x {entry[0]} pixels")
        return (height, width), ()
    shown, stored = picture.pixels.shape[:2], _stored(picture)
    if stored == shown or "upright" in reading.masks:
        return shown, ()
    if "stored" in reading.masks:
        return stored, ()
    points = np.concatenate(outlines.polygons(outline))
    fits = [bool((points.max(0) <= (w + 1, h + 1)).all()) for h, w in (shown, stored)]
    if fits[0] == fits[1]:
        return shown, (OPEN,)
    return (shown if fits[0] else stored), ()


def _stored(picture: Picture) -> tuple[int, int]:
    height, width = picture.pixels.shape[:2]
    return (width, height) if picture.orientation > 4 else (height, width)
