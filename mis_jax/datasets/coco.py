"""Annotations of instances in COCO's format: `NAME=FILE.json` or `NAME=FILE.json:IMAGES`.

The images lie in the folder IMAGES, or else in `images` beside the file, or else beside the file;
`file_name` says which is which. Polygons are filled to the pixel as pycocotools fills them.
"""

import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from mis_jax.datasets import images
from mis_jax.datasets.orientation import aligned
from mis_jax.datasets.reading import Reading
from mis_jax.datasets.recent import Recent
from mis_jax.datasets.samples import Labelled, Reader
from mis_jax.errors import InputError

MOST = 1e5  # coordinates beyond are no pixels
_SCALE = 5.0  # steps a pixel of the outlines, as pycocotools has it
_recent_image = Recent(images.read_picture)

Readers = dict[str, Reader]


def read_annotations(where: str, reading: Reading) -> tuple[Readers, dict[str, str]]:
    """Readers of every object of an annotation file, and why others are left out.

    Objects are called IMAGE_ANNOTATION, after the stem of the image's file and the annotation's
    id. They come image by image, in the order of the file. Crowds are left out.

    Args:
        where: FILE.json or FILE.json:IMAGES.
        reading: of the images.

    Returns:
        ({object: function that reads its image and mask},
        {object or annotation: why it is left out}).

    Raises:
        InputError: the file cannot be read or is not COCO's, or none of its images is there.
    """
    path, folder = _places(where)
    pictures, annotations = _load(path)
    readers: Readers = {}
    skipped: dict[str, str] = {}
    by_id: dict[int | str, dict] = {}
    for number, picture in enumerate(pictures):
        if not _is_picture(picture):
            skipped[f"image {number}"] = "its entry has no id or file_name"
        elif picture["id"] in by_id:
            skipped[f"image {number}"] = f"a second image called {picture['id']}"
        else:
            by_id[picture["id"]] = picture
    of_image: dict[int | str, list[dict]] = {key: [] for key in by_id}
    for number, annotation in enumerate(annotations):
        key = annotation.get("image_id") if isinstance(annotation, dict) else None
        if isinstance(key, int | str) and key in of_image:
            of_image[key].append(annotation)
        else:
            skipped[f"annotation {number}"] = "its annotation names no image of the file"
    for key, picture in by_id.items():
        for annotation in of_image[key]:
            _add(readers, skipped, folder / picture["file_name"], picture, annotation, reading)
    if readers and not any((folder / p["file_name"]).is_file() for p in by_id.values()):
        raise InputError(
            f"none of the images of {path} lies in {folder}; name their folder: {path}:FOLDER."
        )
    return readers, skipped


def _add(
    readers: Readers,
    skipped: dict[str, str],
    image: Path,
    picture: dict,
    annotation: dict,
    reading: Reading,
) -> None:
    name = f"{image.stem}_{annotation.get('id')}".replace("/", "-")
    if "id" not in annotation or name in readers or name in skipped:
        skipped[f"{name} again"] = "its annotation has no id of its own"
    elif annotation.get("iscrowd"):
        skipped[name] = "a crowd (iscrowd), not one object"
    elif not annotation.get("segmentation"):
        skipped[name] = "its annotation has no segmentation"
    else:
        size = picture.get("height"), picture.get("width")
        readers[name] = functools.partial(_read, image, annotation["segmentation"], size, reading)


def _read(image: Path, outline: Any, size: tuple[Any, Any], reading: Reading) -> Labelled:
    picture = _recent_image(image, reading)
    height, width = size if None not in size else picture.pixels.shape[:2]
    if not (_is_count(height) and _is_count(width) and height * width <= 1 << 30):
        raise InputError(f"its annotation has an image of {width} x {height} pixels")
    mask = decode(outline, height, width).astype(np.int32)
    return aligned(picture, mask, reading)


def decode(outline: Any, height: int, width: int) -> np.ndarray:
    """A `segmentation` of COCO's: bool [height, width], true on the object.

    Args:
        outline: polygons [[x, y, x, y, ...], ...] in pixels, whose union it is; or
            {"size": [height, width], "counts": runs down the columns, or their compact string}.

    Raises:
        InputError: it is neither, or does not fit.
    """
    if isinstance(outline, dict):
        if outline.get("size") != [height, width]:
            raise InputError(f"its annotation is of {outline.get('size')}, not {[height, width]}")
        counts = outline.get("counts")
        return runs_mask(
            string_runs(counts) if isinstance(counts, str | bytes) else counts, height, width
        )
    if not (isinstance(outline, list) and all(map(_is_polygon, outline))):
        raise InputError("its annotation is neither polygons nor run lengths")
    if not any(len(polygon) >= 6 for polygon in outline):
        raise InputError("its annotation has no polygon of three points")
    masks = [polygon_mask(np.array(p, np.float64).reshape(-1, 2), height, width) for p in outline]
    return np.logical_or.reduce(masks)


def string_runs(text: str | bytes) -> list[int]:
    """Run lengths from COCO's compact string: 5 bits a character, differences from the third on.

    Raises:
        InputError: the string is cut off or has other characters.
    """
    runs: list[int] = []
    value, bits = 0, 0
    for code in text.encode() if isinstance(text, str) else text:
        if not 48 <= code < 112:
            raise InputError(f"its annotation has {chr(code)!r} in the string of its runs")
        code -= 48
        value |= (code & 31) << bits
        bits += 5
        if not code & 32:  # the last of this number; its fifth bit is the sign
            value -= (code & 16) << (bits - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, bits = 0, 0
    if bits:
        raise InputError("its annotation has a string of runs that is cut off")
    return runs


def runs_mask(runs: Any, height: int, width: int) -> np.ndarray:
    """Run lengths down the columns, the first of background: bool [height, width].

    Raises:
        InputError: they are no numbers of pixels, or not as many as the image has.
    """
    whole = isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)
    if not whole or sum(runs) != height * width:
        raise InputError(f"its annotation has runs that do not add up to {width} x {height} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def polygon_mask(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels inside a polygon, as `rleFrPoly` of pycocotools' maskApi.c has them.

    The outline is traced in fifths of a pixel; where it crosses the middle of a column, the column
    changes between inside and outside from there on down.

    Args:
        points: float64 [N, 2], (x, y) in pixels.

    Returns:
        bool [height, width].
    """
    corners = (_SCALE * points + 0.5).astype(np.int64)  # towards zero, as C rounds
    steps = [_line(*pair) for pair in zip(corners, np.roll(corners, -1, 0), strict=True)]
    u, v = np.concatenate(steps, axis=1)
    x = (np.where(u[1:] < u[:-1], u[1:], u[1:] - 1) + 0.5) / _SCALE - 0.5
    y = (np.minimum(v[1:], v[:-1]) + 0.5) / _SCALE - 0.5
    crosses = (u[1:] != u[:-1]) & (np.floor(x) == x) & (x >= 0) & (x <= width - 1)
    x, y = x[crosses], np.ceil(np.clip(y[crosses], 0, height))
    changes = np.bincount((x * height + y).astype(np.int64), minlength=height * width + 1)
    inside = np.cumsum(changes[: height * width]) % 2 == 1
    return inside.reshape(width, height).T


def _line(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Every step of a line, in order: int64 [2, n], (x, y)."""
    (dx, dy), steep = np.abs(end - start), False
    if dx < dy:
        start, end, dx, dy, steep = start[::-1], end[::-1], dy, dx, True
    backwards = start[0] > end[0]
    if backwards:
        start, end = end, start
    along = np.arange(dx + 1)
    slope = (end[1] - start[1]) / dx if dx else 0.0
    line = np.stack([start[0] + along, (start[1] + slope * along + 0.5).astype(np.int64)])
    line = line[::-1] if steep else line
    return line[:, ::-1] if backwards else line


# ---- the file


def _places(where: str) -> tuple[Path, Path]:
    """The annotation file, and the folder of its images."""
    file, folder = where, ""
    if not Path(where).is_file():
        match = re.fullmatch(r"(.*\.json):(.+)", where, re.IGNORECASE | re.DOTALL)
        file, folder = match.groups() if match else (where, "")
    path = Path(file).expanduser()
    if not path.is_file():
        raise InputError(f"the annotation file {path} does not exist.")
    if folder:
        pictures = Path(folder).expanduser()
        if not pictures.is_dir():
            raise InputError(f"the image folder {pictures} does not exist.")
        return path, pictures
    beside = path.parent / "images"
    return path, beside if beside.is_dir() else path.parent


def _load(path: Path) -> tuple[list, list]:
    """The images and annotations of a file."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:  # bad Unicode is a ValueError
        raise InputError(f"{path} cannot be read as JSON in UTF-8 ({error}).") from error
    if isinstance(content, dict):
        pictures, annotations = content.get("images"), content.get("annotations")
        if isinstance(pictures, list) and isinstance(annotations, list):
            return pictures, annotations
    raise InputError(f'{path} is not COCO\'s: it has no lists "images" and "annotations".')


def _is_picture(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
        return False
    return isinstance(entry.get("id"), int | str)


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_polygon(polygon: Any) -> bool:
    """An even number of coordinates, at least one point, all of them finite and within reason."""
    if not isinstance(polygon, list) or not polygon or len(polygon) % 2:
        return False
    return all(type(v) in (int, float) and abs(v) <= MOST for v in polygon)
