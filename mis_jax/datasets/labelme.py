"""labelme's annotations: NAME.json beside NAME.jpg, of polygons, rectangles, circles and masks.

Shapes are filled as labelme itself fills them (`shape_to_mask` of its utils/shape.py). Those of one
image with the same label and `group_id` are one object.
"""

import base64
import functools
import io
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from mis_jax.datasets import images, layouts, outlines
from mis_jax.datasets.orientation import aligned
from mis_jax.datasets.reading import Reading
from mis_jax.datasets.recent import Recent
from mis_jax.datasets.samples import Labelled, Reader
from mis_jax.errors import InputError

AREAS = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2}  # shape -> points it needs
CORNERS = "polygon", "rectangle"  # their points are on their outline
MOST = 1e5  # coordinates beyond are no pixels
_recent_image = Recent(images.read_picture)

Shape = dict[str, Any]


def is_labelme(folder: Path) -> bool:
    """Whether a folder has a file of labelme's with a photo, and no folder of masks."""
    if any(p.name.lower() in layouts.MASK_FOLDERS for p in layouts.subfolders(folder)):
        return False
    found = ((path, _shapes(path)) for path in sorted(folder.glob("*.json")))
    return any(content and _photo(path, content).is_file() for path, content in found)


def read_folder(folder: Path, reading: Reading) -> tuple[dict[str, Reader], dict[str, str]]:
    """Readers of every object, and why others are left out.

    Objects are called NAME_0, NAME_1, ... in the order of the file NAME.json.

    Returns:
        ({object: function that reads its image and mask}, {object or file: why it is left out}).
    """
    readers: dict[str, Reader] = {}
    skipped: dict[str, str] = {}
    named = set()
    for path in sorted(folder.glob("*.json")):
        content = _shapes(path)
        if content is None:
            skipped[path.name] = 'its annotation is not labelme\'s, it has no list "shapes"'
            continue
        photo = _photo(path, content)
        named.add(photo)
        if not content["shapes"]:
            skipped[path.name] = "its annotation has no shapes"
        size = content.get("imageHeight"), content.get("imageWidth")
        for number, shapes in enumerate(_objects(content["shapes"])):
            name = f"{layouts.plain(path.stem)}_{number}"
            if unfit := [why for why in map(_unfit, shapes) if why]:
                skipped[name] = unfit[0]
            else:
                readers[name] = functools.partial(_read, photo, shapes, size, reading)
    for photo in layouts.files(folder):
        if photo not in named:
            skipped[photo.name] = "no mask of this name"
    return readers, skipped


def fill(shapes: list[Shape], height: int, width: int) -> np.ndarray:
    """The union of shapes that `read_folder` takes: bool [height, width]."""
    mask = np.zeros((height, width), bool)
    for shape in shapes:
        if shape["shape_type"] == "mask":
            mask |= _stamp(shape, height, width)
        else:
            mask |= _drawn(shape["shape_type"], shape["points"], height, width)
    return mask


def _drawn(kind: str, points: list, height: int, width: int) -> np.ndarray:
    canvas = Image.new("L", (width, height))
    draw = ImageDraw.Draw(canvas)
    corners = [(float(x), float(y)) for x, y in points]
    if kind == "polygon":
        draw.polygon(corners, outline=1, fill=1)
    elif kind == "rectangle":  # of any two opposite corners
        (left, right), (top, bottom) = map(sorted, zip(*corners[:2], strict=True))
        draw.rectangle((left, top, right, bottom), outline=1, fill=1)
    else:  # a circle: its centre, and a point on it
        (x, y), (edge_x, edge_y) = corners[:2]
        radius = math.hypot(edge_x - x, edge_y - y)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=1, fill=1)
    return np.asarray(canvas) == 1


def _stamp(shape: Shape, height: int, width: int) -> np.ndarray:
    """The PNG of a shape "mask", whose first point is where its upper left corner lies."""
    try:
        small = Image.open(io.BytesIO(base64.b64decode(shape["mask"])), formats=["PNG"])
        pixels = np.asarray(small.convert("L")) > 0
    except Exception as error:  # of all kinds
        raise InputError(f"its annotation has a mask that cannot be read ({error})") from error
    x, y = (round(value) for value in shape["points"][0])
    mask = np.zeros((height, width), bool)
    part = mask[max(0, y) : y + pixels.shape[0], max(0, x) : x + pixels.shape[1]]
    part[:] = pixels[max(0, -y) :, max(0, -x) :][: part.shape[0], : part.shape[1]]
    return mask


def _read(photo: Path, shapes: list[Shape], size: tuple[Any, Any], reading: Reading) -> Labelled:
    picture = _recent_image(photo, reading)
    shape = picture.pixels.shape[:2]
    height, width = size if None not in size else shape
    if (height, width) not in (shape, shape[::-1]):  # there may be no room for it
        raise InputError(
            f"the image is {shape[1]} x {shape[0]} pixels, its mask {width} x {height}"
        )
    height, width = int(height), int(width)
    drawn = [np.array(s["points"], float) for s in shapes if s["shape_type"] in CORNERS]
    cut = outlines.check_points(drawn, height, width) if drawn else ()
    found = aligned(picture, fill(shapes, height, width).astype(np.int32), reading)
    return found._replace(notes=(*found.notes, *cut))


def _shapes(path: Path) -> dict | None:
    """The content of a file of labelme's; None if it is another."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    fits = isinstance(content, dict) and isinstance(content.get("shapes"), list)
    return content if fits else None


def _photo(path: Path, content: dict) -> Path:
    """The image of an annotation file: of its name, or else as its `imagePath` says."""
    name = layouts.plain(path.stem)
    beside = [p for p in layouts.files(path.parent) if layouts.plain(p.stem) == name]
    said = content.get("imagePath")
    if isinstance(said, str) and "\0" not in said:
        there = path.parent / said.replace("\\", "/")
        return there if os.path.isfile(there) or not beside else beside[0]
    return beside[0] if beside else path.with_suffix(".jpg")


def _objects(shapes: list) -> list[list[Shape]]:
    """Shapes by object."""
    found: dict[Any, list[Shape]] = {}
    for number, shape in enumerate(shapes):
        group = shape.get("group_id") if isinstance(shape, dict) else None
        key = (shape.get("label"), group) if isinstance(group, int) else number
        found.setdefault(repr(key), []).append(shape)
    return list(found.values())


def _unfit(shape: Any) -> str | None:
    """Why a shape is no area."""
    if not isinstance(shape, dict):
        return "its annotation has a shape that is none"
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    shape["shape_type"] = kind
    if not isinstance(kind, str) or kind not in AREAS:
        return f'its annotation is a "{kind}", which has no area'
    if not (isinstance(points, list) and all(map(_is_point, points))):
        return "its annotation has points that are no pairs of numbers"
    if len(points) < AREAS[kind]:
        return f"its annotation is a {kind} of {len(points)} points"
    return None


def _is_point(point: Any) -> bool:
    if not isinstance(point, list) or len(point) != 2:
        return False
    return all(type(value) in (int, float) and abs(value) <= MOST for value in point)
