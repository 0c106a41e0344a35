"""What a mask file means: which of its values are the object, where that can be known.

By itself, a mask file is read if it has one of these:

    0 and one other value        the other is the object; 8-bit 128 alone is "not counted"
    0, 128 and 255               255 is the object, 128 is not counted
    0, 1 and 255                 1 and 255 are both the object, as in GrabCut's masks
    indices of a palette         0 and one other index, 255 is not counted, whatever the colours
    black and one other colour   the other is the object
    transparency that differs    the object is what is opaque

With "ids" of `reading.MASKS`, every value above 0 is an object; with "half", the object is what is
above half of the range. Everything else is refused with the values that were seen.
"""

import contextlib
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mis_jax.datasets.planes import Plane, check_size, read_plane, values
from mis_jax.datasets.reading import Notes, Reading
from mis_jax.datasets.recent import Recent
from mis_jax.errors import InputError

EVERYWHERE = "its mask is object everywhere"
NO_BACKGROUND = "its mask has no background, only 128 (not counted) and 255"
BOTH = "its mask has 0, 1 and 255; both 1 and 255 are the object"
EDGES = "its mask is transparency with soft edges; the object is what is more than half opaque"
BY_INDEX = "its mask's palette has black for another index than 0; 0 is background all the same"
BORDER = "its mask has the colour (224, 224, 192) of VOC's borders, which is not counted"
ODD = "its mask has other values than 0, 1, 128 and 255, read as the published code reads them"
NOT_COUNTED, VOID = 128, 255  # a grey, an index
MOST_IDS = 10_000  # objects of a file
_VOC_BORDER = 0xE0E0C0
_NAMED = 6  # values that a sentence names
_FEW = 8, 8  # colours at most, each of as many pixels on average, that are no photo


class Mask(NamedTuple):
    """The mask of an object: int32 [H, W] of 1, 0 and -1, its file's own EXIF tag, what was odd."""

    pixels: np.ndarray
    orientation: int = 1
    notes: Notes = ()


_recent_plane = Recent(read_plane)


def read_mask(path: Path, reading: Reading) -> Mask:
    """The one object of a mask file.

    Raises:
        InputError: names the file, its values, and the option that settles what they mean.
    """
    plane = read_plane(path)
    try:
        pixels, notes = _half(plane) if "half" in reading.masks else _object(plane)
    except InputError as error:
        raise InputError(f"the mask {path} {error}") from None
    return Mask(pixels.astype(np.int32), plane.orientation, notes)


def read_grabcut(path: Path, reading: Reading) -> Mask:
    """As published for GrabCut and Berkeley: of the first channel that OpenCV gives (blue), 1 and
    above 128 are the object, 128 is not counted.
    """
    first = _opencv(path)[:, :, 0]
    mask = np.where(first == NOT_COUNTED, -1, (first > NOT_COUNTED) | (first == 1))
    odd = not set(values(first).tolist()) <= {0, 1, NOT_COUNTED, 255}
    return Mask(mask.astype(np.int32), notes=(ODD,) if odd else ())


def read_davis(path: Path, reading: Reading) -> Mask:
    """As published for DAVIS: any colour but black is the object."""
    return Mask((_opencv(path).max(axis=2) > 0).astype(np.int32))


def _opencv(path: Path) -> np.ndarray:
    """uint8 [H, W, 3], blue first, as `cv2.imread` reads an image."""
    pixels = None
    with contextlib.suppress(cv2.error, OSError):
        data = np.fromfile(path, np.uint8)
        check_size(path)
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if pixels is None:
        raise InputError(f"the mask {path} cannot be read; save it as PNG")
    return pixels


def list_ids(path: Path) -> dict[str, int]:
    """The objects of a mask file whose every value above 0 is one: {label: value}, ascending.

    The label is the value, or of colours "ff8000".

    Raises:
        InputError: names the file that has no such values.
    """
    plane = _recent_plane(path)
    found = values(plane.pixels if plane.alpha is None else plane.pixels[plane.alpha > 0])
    if plane.lossy and len(found) > 2:
        seen = _seen(plane, found)
        raise InputError(f"the mask {path} is a JPEG, of which ids cannot be known; it has {seen}")
    if found.dtype.kind == "f" and not (found == np.round(found)).all():
        raise InputError(f"the mask {path} has no whole numbers for ids; it has {_list(found)}")
    ids = [int(value) for value in found if value > 0 and value != _void(plane, found)]
    if len(ids) > MOST_IDS:
        raise InputError(f"the mask {path} has {len(ids):,} values, too many to be ids")
    if not ids:
        raise InputError(f"the mask {path} has no object pixel; it has {_seen(plane, found)}")
    digits = 6 if plane.most <= 255 else 12
    return {f"{id:0{digits}x}" if plane.kind == "colour" else str(id): id for id in ids}


def read_id(path: Path, id: int) -> Mask:
    """One of the objects that `list_ids` lists."""
    plane = _recent_plane(path)
    mask = (plane.pixels == id).astype(np.int32)
    notes: Notes = ()
    void = _void(plane, values(plane.pixels))
    if void is not None and (border := plane.pixels == void).any():
        mask[border], notes = -1, (BORDER,) if plane.kind == "colour" else ()
    if plane.pixels.dtype.kind in "if":
        mask[plane.pixels < 0] = -1
    if plane.alpha is not None:
        mask[plane.alpha == 0] = 0
    return Mask(mask, plane.orientation, notes)


def _void(plane: Plane, found: np.ndarray) -> int | None:
    """The value that is no id, because it is not counted."""
    if plane.palette is None:
        return _VOC_BORDER if plane.kind == "colour" and plane.most == 255 else None
    return (
        None if found.tolist() == [0, VOID] and _greys(found, plane.palette) is not None else VOID
    )


# ---- values -> 1, 0, -1


def _object(plane: Plane) -> tuple[np.ndarray, Notes]:
    if plane.alpha is not None:
        return _by_alpha(plane, plane.alpha)
    found = values(plane.pixels)
    if plane.palette is not None:
        return _by_index(plane, found, plane.palette)
    if plane.kind == "colour":
        return _by_colour(plane, found)
    return _by_grey(plane, found)


def _by_grey(plane: Plane, found: np.ndarray) -> tuple[np.ndarray, Notes]:
    pixels, seen = plane.pixels, found.tolist()
    byte = plane.pixels.dtype == np.uint8
    if byte and seen in ([NOT_COUNTED], [0, NOT_COUNTED]):
        raise InputError(
            f"has no object pixel; it has {_list(found)}, and 128 is not counted unless --masks ids"
        )
    if seen == [0] or (seen == [0, seen[-1]] and seen[-1] > 0):
        return pixels > 0, ()
    if len(seen) == 1 and seen[0] > 0:
        return pixels > 0, (EVERYWHERE,)
    if seen in ([0, NOT_COUNTED, 255], [NOT_COUNTED, 255]):
        notes = () if seen[0] == 0 else (NO_BACKGROUND,)
        return np.where(pixels == NOT_COUNTED, -1, pixels == 255), notes
    if seen == [0, 1, 255]:
        return pixels > 0, (BOTH,)
    raise _open(plane, found)


def _by_index(plane: Plane, found: np.ndarray, palette: np.ndarray) -> tuple[np.ndarray, Notes]:
    greys = _greys(found, palette)
    if greys is not None:
        if found[0] == 0 and greys[0] > greys.min():  # sorted by how many pixels have a colour
            raise InputError(
                f"has a palette with {greys[0]} for index 0 and {greys.min()} for another, and "
                "which is the background cannot be known; --masks ids takes the indices above 0, "
                f"--masks half what is above {255 // 2}"
            )
        lookup = np.zeros(256, np.uint8)
        lookup[found] = greys
        return _by_grey(Plane(lookup[plane.pixels], "grey", 255), values(greys))
    objects = [index for index in found.tolist() if index not in (0, VOID)]
    if len(objects) > 1:
        raise _open(plane, found)
    if not objects:
        raise InputError(f"has no object pixel; it has {_seen(plane, found)}, 255 is not counted")
    mask = np.where(plane.pixels == VOID, -1, plane.pixels == objects[0])
    notes = () if found[0] == 0 else (EVERYWHERE,)
    black = (index < len(palette) and not palette[index].any() for index in objects)
    if found[0] == 0 and len(palette) and palette[0].any() and any(black):
        notes = (BY_INDEX,)
    return mask, notes


def _greys(found: np.ndarray, palette: np.ndarray) -> np.ndarray | None:
    """The greys of the indices `found`, if they mean more than the indices; else None.

    A palette that is no more than the ramp of greys says nothing of its indices, unless they are
    the black and white of a mask.
    """
    if found[-1] >= len(palette):
        return None
    colours = palette[found]
    if (colours != colours[:, :1]).any():
        return None
    greys = colours[:, 0]
    return None if (greys == found).all() and not set(greys.tolist()) <= {0, 255} else greys


def _by_colour(plane: Plane, found: np.ndarray) -> tuple[np.ndarray, Notes]:
    border = plane.most == 255 and len(found) > 2 and _VOC_BORDER in found
    rest = found[found != _VOC_BORDER] if border else found
    if len(rest) > 2 or (len(rest) == 2 and rest[0] != 0):
        raise _open(plane, found)
    mask = (plane.pixels == rest[-1]).astype(np.int8)
    if border:
        mask[plane.pixels == _VOC_BORDER] = -1
        return mask, (BORDER,)
    return mask, () if len(rest) == 2 else (EVERYWHERE,)


def _by_alpha(plane: Plane, alpha: np.ndarray) -> tuple[np.ndarray, Notes]:
    """A cut-out: the object of a photo, or of a plain colour, whose background is transparent."""
    opaque = plane.pixels[alpha == alpha.max()]
    colours, (few, each) = values(opaque), _FEW
    if 1 < len(colours) <= min(few, opaque.size // each):
        raise InputError(
            f"is partly transparent and has {_seen(plane, colours)} where it is not, and which of "
            "them is the object cannot be known; --masks ids takes each as one, --masks half what "
            "is more than half opaque"
        )
    found = values(alpha)
    if found[0] != 0:
        raise InputError(
            f"has opacities from {found[0]} to {found[-1]}, and where its object ends cannot be "
            "known; --masks half takes what is more than half opaque"
        )
    if len(found) == 2:
        return alpha > 0, ()
    return alpha > _middle(alpha), (EDGES,)


def _half(plane: Plane) -> tuple[np.ndarray, Notes]:
    pixels = plane.pixels if plane.alpha is None else plane.alpha
    if plane.alpha is None and plane.palette is not None:
        greys = plane.palette.max(1)
        if (plane.palette != plane.palette[:, :1]).any() or pixels.max() >= len(greys):
            return _object(plane)  # an index has no half
        pixels = greys[pixels]
    elif plane.alpha is None and plane.kind == "colour":
        raise InputError(f"has {_seen(plane, values(pixels))}, of which --masks half is not known")
    if pixels.dtype.kind == "f" and not (pixels.min() >= 0 and pixels.max() <= 1):
        seen = _list(values(pixels))
        raise InputError(f"has {seen}; --masks half of floating-point values is of 0 to 1")
    mask = pixels > _middle(pixels)
    if not mask.any():
        seen = _list(values(pixels))
        raise InputError(f"has no object pixel above half, {_middle(pixels)}; it has {seen}")
    return mask, (EVERYWHERE,) if mask.all() else ()


def _middle(pixels: np.ndarray) -> float:
    kind = pixels.dtype.kind
    return {"b": 0, "f": 0.5}[kind] if kind in "bf" else np.iinfo(pixels.dtype).max // 2


# ---- what was seen


def _open(plane: Plane, found: np.ndarray) -> InputError:
    """The sentence, from its verb on, about values of which the object cannot be known."""
    ids = "--masks ids takes each above 0 as an object"
    half = f"--masks half what is above {_middle(plane.pixels)}"
    if plane.lossy:
        ways = "save it as PNG"
        if plane.kind == "grey":
            ways += f", or {half.replace('what', 'takes what')} as the object"
        return InputError(
            f"is a JPEG with {_seen(plane, found)}, of which the object cannot be known; {ways}"
        )
    if plane.kind == "colour":
        ways = ids.replace("above 0", "but black")
        if len(found) > MOST_IDS:
            ways = "a mask has 0 and one other value"
    elif plane.kind == "palette":
        ways = ids.replace("above 0", "but 0 and 255")
    elif plane.pixels.dtype.kind == "f":
        ways = half.replace("what", "takes what") + " as the object"
    else:
        ways = f"{ids}, {half}"
    return InputError(f"has {_seen(plane, found)}, of which the object cannot be known; {ways}")


def _seen(plane: Plane, found: np.ndarray) -> str:
    if plane.kind == "palette":
        return f"the palette indices {_list(found)}" if len(found) > 1 else f"index {found[0]} only"
    if plane.kind != "colour":
        return _list(found)
    step = 8 if plane.most <= 255 else 16
    mask = (1 << step) - 1
    few = [tuple((int(c) >> shift) & mask for shift in (2 * step, step, 0)) for c in found[:_NAMED]]
    if len(found) > _NAMED:
        return f"{len(found):,} colours"
    return _join(list(map(str, few)))


def _list(found: np.ndarray) -> str:
    """ "0, 128 and 300", or "231 values from 3 to 250"."""
    if len(found) > _NAMED:
        return f"{len(found):,} values from {_number(found[0])} to {_number(found[-1])}"
    return _join([_number(value) for value in found])


def _join(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else f"{words[0]} only"


def _number(value: np.generic) -> str:
    return f"{float(value):.4g}" if value.dtype.kind == "f" else str(int(value))
