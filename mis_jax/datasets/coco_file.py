"""COCO's annotation file: where it is in a folder, what it holds, and what it is if not COCO's."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mis_jax.errors import InputError

# What the exporters call their files, in a folder or its `annotations`.
_NAMES = (
    "result.json",  # Label Studio
    "labels.json",  # FiftyOne
    "annotations.json",
    "*coco*.json",  # Roboflow: _annotations.coco.json
    "instances*.json",  # CVAT, Datumaro, COCO itself
)
_SPLITS = ("*/_annotations.coco.json", "*/annotations/instances*.json")  # in a folder for each
_ASK = "export COCO's format there"


def find_file(folder: Path) -> Path | None:
    """The annotation file of a folder that an annotation tool exported as COCO's, if it is one.

    Raises:
        InputError: there are several.
    """
    ways = [f"{way}{name}" for way in ("", "annotations/") for name in _NAMES]
    found = _of_names(folder, ways) or _of_names(folder, _SPLITS)
    if len(found) > 1:
        names = ", ".join(p.relative_to(folder).as_posix() for p in found[:5])
        raise InputError(
            f"{folder} has {len(found)} annotation files of COCO's ({names}); give one of them: "
            f"NAME={found[0]}."
        )
    return found[0] if found else None


def load(path: Path) -> tuple[list, list]:
    """The entries of images and of annotations of a file.

    A file of SA-1B, which is about one image, is taken as well.

    Raises:
        InputError: it cannot be read, or is not COCO's; says what it looks like.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:  # bad Unicode is a ValueError
        lines = "; it seems to hold a JSON value a line" if "Extra data" in str(error) else ""
        raise InputError(f"{path} cannot be read as JSON in UTF-8 ({error}){lines}.") from error
    if isinstance(content, dict):
        if isinstance(content.get("image"), dict) and "images" not in content:
            content = _one_image(content)
        pictures, annotations = content.get("images"), content.get("annotations")
        if isinstance(pictures, list) and isinstance(annotations, list):
            first = annotations[0] if annotations and isinstance(annotations[0], dict) else {}
            if "segments_info" not in first:
                return pictures, annotations
            raise InputError(f"{path} has COCO's panoptic segments; give the file of instances.")
    looks = _looks_like(content)
    raise InputError(
        f'{path} is not COCO\'s: it has no lists "images" and "annotations"'
        f"{'; it looks like ' if looks else ''}{looks}."
    )


def key_of(value: Any) -> str | None:
    """What an id is known by: 1, 1.0 and "1" are the same; None where it is none."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int or (isinstance(value, str) and value):
        return str(value)
    return None


def _of_names(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """The files of these names that seem to be COCO's."""
    paths = {p for pattern in patterns for p in folder.glob(pattern) if p.is_file()}
    return sorted(p for p in paths if _seems_coco(p))


def _seems_coco(path: Path) -> bool:
    try:
        data = path.read_bytes()
    except OSError:
        return False
    return b'"images"' in data and b'"annotations"' in data


def _one_image(content: dict) -> dict:
    """SA-1B's {"image", "annotations"} of one image as COCO's."""
    image, annotations = content["image"], content.get("annotations")
    if not isinstance(annotations, list):
        return content
    id = image.get("image_id", image.get("id"))
    of_it = [{**a, "image_id": id} if isinstance(a, dict) else a for a in annotations]
    return {"images": [{**image, "id": id}], "annotations": of_it}


def _looks_like(content: Any) -> str:
    """What a JSON file that is not COCO's is known to be, and what to do; empty if it is not."""
    if isinstance(content, list):
        first = content[0] if content and isinstance(content[0], dict) else {}
        if "data" in first and ("annotations" in first or "completions" in first):
            return f"Label Studio's own JSON; {_ASK}"
        if "annotator" in first and "annotation_id" in first:
            return f"Label Studio's JSON-MIN; {_ASK}"
        if "score" in first and "image_id" in first:
            return "COCO's results of a detector; give the annotations"
        if "image" in first and "annotations" in first:
            return "CreateML's boxes, which are no masks"
        return ""
    if not isinstance(content, dict):
        return ""
    if "shapes" in content:
        return "labelme's of one image; convert the folder to COCO's format"
    if "_via_img_metadata" in content or any(_is_via(v) for v in list(content.values())[:1]):
        return f"VIA's own project; {_ASK}"
    if "items" in content and "categories" in content:
        return f"Datumaro's own format; {_ASK}"
    if "samples" in content:
        return f"FiftyOne's own format; {_ASK}"
    if "objects" in content and "size" in content:
        return f"Supervisely's own JSON; {_ASK}"
    return ""


def _is_via(value: Any) -> bool:
    return isinstance(value, dict) and "filename" in value and "regions" in value
