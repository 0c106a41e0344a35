"""What a mask file means: which of its values are the object, where that can be known.

By itself, a mask file is read if it has one of these:

    0 and one other value        the other is the object; 8-bit 128 alone is "not counted"
    0, 128 and 255               255 is the object, 128 is not counted
    0, 1 and 255                 1 and 255 are both the object, as in GrabCut's masks
    indices of a palette         0 and one other index, 255 is not counted, whatever the colours
    black and one other colour   the other is the object
    transparency that differs    the object is what is opaque

With "ids" of `reading.MASKS`, every value above 0 is an object; with "half", the object is what is
above half of the range, but where 8 bits have 0 and 1, or 0, 128 and 255, as above. Everything else
is refused with the values that were seen.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mis_jax.datasets.planes import Plane, most, read_plane, values
from mis_jax.datasets.reading import Notes, Reading
from mis_jax.datasets.recent import Recent
from mis_jax.datasets.seen import listed, seen
from mis_jax.errors import InputError

HALF = "the object is what is above half of the range of its mask, by --masks half"
EVERYWHERE = "its mask is object everywhere"
NO_BACKGROUND = "its mask has no background, only 128 (not counted) and 255"
BOTH = "its mask has 0, 1 and 255; both 1 and 255 are the object"
EDGES = "its mask is transparency with soft edges; the object is what is more than half opaque"
BORDER = "its mask has the colour (224, 224, 192) of VOC's borders, which is not counted"
LAST_ID = (
    "the greatest value of its mask is taken as an object; 255 is not counted of a palette only"
)
NO_DATA = "pixels of its mask without data (GDAL_NODATA) are not counted"
NOT_COUNTED, VOID = 128, 255  # a grey, an index
MOST_IDS = 10_000  # objects of a file
_VOC_BORDER, _VOC_BORDER_RGB = 0xE0E0C0, (0xE0, 0xE0, 0xC0)
_BLACK = (0, 0, 0)
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
    plane, gone = _with_data(read_plane(path))
    try:
        half = "half" in reading.masks and not _is_known(plane)
        pixels, notes = _half(plane) if half else _object(plane)
    except InputError as error:
        raise InputError(f"the mask {path} {error}") from None
    return _without(gone, Mask(pixels.astype(np.int32), plane.orientation, notes))


def _with_data(plane: Plane) -> tuple[Plane, np.ndarray | None]:
    """A plane with background for what has no data, and where that is."""
    if plane.no_data is None:
        return plane, None
    return plane._replace(pixels=np.where(plane.no_data, 0, plane.pixels)), plane.no_data


def _without(gone: np.ndarray | None, mask: Mask) -> Mask:
    if gone is None:
        return mask
    pixels = np.where(gone, np.int32(-1), mask.pixels)
    return Mask(pixels, mask.orientation, (*mask.notes, NO_DATA))


def list_ids(path: Path) -> dict[str, int]:
    """The objects of a mask file whose every value above 0 is one: {label: value}, ascending.

    The label is the value, or of colours "ff8000".

    Raises:
        InputError: names the file that has no such values.
    """
    plane, _ = _with_data(_recent_plane(path))
    found = values(plane.pixels if plane.alpha is None else plane.pixels[plane.alpha > 0])
    if plane.lossy and len(found) > 2:
        shown = seen(plane, found)
        raise InputError(
            f"the mask {path} is {plane.lossy}, of which ids cannot be known; it has {shown}; "
            "save it as PNG"
        )
    if found.dtype.kind == "f" and not (found == np.round(found)).all():
        raise InputError(f"the mask {path} has no whole numbers for ids; it has {listed(found)}")
    voids = _voids(plane, found)
    ids = [int(value) for value in found if value > 0 and value not in voids]
    if len(ids) > MOST_IDS:
        raise InputError(f"the mask {path} has {len(ids):,} values, too many to be ids")
    if not ids:
        raise InputError(f"the mask {path} has no object pixel; it has {seen(plane, found)}")
    digits = 6 if plane.most <= 255 else 12
    return {f"{id:0{digits}x}" if plane.kind == "colour" else str(id): id for id in ids}


def read_id(path: Path, id: int) -> Mask:
    """One of the objects that `list_ids` lists."""
    plane, gone = _with_data(_recent_plane(path))
    found = values(plane.pixels)
    voids = _voids(plane, found)
    notes: Notes = (BORDER,) if set(voids) - {VOID} else ()
    if plane.kind == "grey" and id == plane.most and len(found) > 2 and id - 1 not in found:
        notes = (*notes, LAST_ID)
    mask = _marked(plane.pixels, id, voids)
    if plane.pixels.dtype.kind in "if":
        mask[plane.pixels < 0] = -1
    if plane.alpha is not None:
        mask[plane.alpha == 0] = 0
    return _without(gone, Mask(mask, plane.orientation, notes))


def _marked(pixels: np.ndarray, value: int, voids: list[int]) -> np.ndarray:
    mask = (pixels == value).astype(np.int32)
    for void in voids:
        mask[pixels == void] = -1
    return mask


def _voids(plane: Plane, found: np.ndarray) -> list[int]:
    """Those of the values `found` that are not counted: 255 of a palette, VOC's border's colour."""
    if plane.palette is None:
        there = plane.kind == "colour" and plane.most == 255 and _VOC_BORDER in found
        return [_VOC_BORDER] if there else []
    greys = _greys(found, plane.palette)
    if greys is not None and (greys == found).all():
        return []  # no indices
    known = (int(index) for index in found if index < len(plane.palette))
    border = (k for k in known if k != VOID and tuple(plane.palette[k]) == _VOC_BORDER_RGB)
    return [*border, *([VOID] if VOID in found else [])]


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
    pixels, there = plane.pixels, found.tolist()
    byte = plane.pixels.dtype == np.uint8
    if byte and there in ([NOT_COUNTED], [0, NOT_COUNTED]):
        raise InputError(
            f"has no object pixel; it has {listed(found)}, and 128 is not counted unless "
            "--masks ids"
        )
    if there == [0] or (there == [0, there[-1]] and there[-1] > 0):
        return pixels > 0, ()
    if len(there) == 1 and there[0] > 0:
        return pixels > 0, (EVERYWHERE,)
    if there in ([0, NOT_COUNTED, 255], [NOT_COUNTED, 255]):
        notes = () if there[0] == 0 else (NO_BACKGROUND,)
        return np.where(pixels == NOT_COUNTED, -1, pixels == 255), notes
    if there == [0, 1, 255]:
        return pixels > 0, (BOTH,)
    raise _open(plane, found)


def _by_index(plane: Plane, found: np.ndarray, palette: np.ndarray) -> tuple[np.ndarray, Notes]:
    greys = _greys(found, palette) if found.any() else None
    _check_first(found, palette, greys)
    if greys is not None:
        lookup = np.zeros(256, np.uint8)
        lookup[found] = greys
        return _by_grey(Plane(lookup[plane.pixels], "grey", 255), values(greys))
    voids = _voids(plane, found)
    objects = [index for index in found.tolist() if index > 0 and index not in voids]
    if len(objects) > 1:
        raise _open(plane, found)
    if not objects:
        raise InputError(f"has no object pixel; it has {seen(plane, found)}, 255 is not counted")
    notes = () if found[0] == 0 else (EVERYWHERE,)
    if set(voids) - {VOID}:
        notes = (*notes, BORDER)
    return _marked(plane.pixels, objects[0], voids), notes


def _check_first(found: np.ndarray, palette: np.ndarray, greys: np.ndarray | None) -> None:
    """Refuses a palette that some tool sorted by how many pixels have a colour: with black behind.

    The same file may be the indices of classes, of which 0 is background.
    """
    if found[0] != 0 or not len(palette):
        return
    if greys is not None:
        first, last, half = greys[0], greys.min(), f", --masks half what is above {255 // 2}"
    else:
        colours = [tuple(colour) for colour in palette[found[found < len(palette)]].tolist()]
        first, last = colours[0], _BLACK if _BLACK in colours else colours[0]
        half = ", and saved as RGB it is what is not black"
    if first > last:
        raise InputError(
            f"has a palette with {first} for index 0 and {last} for another, and which is the "
            f"background cannot be known; --masks ids takes the indices above 0{half}"
        )


def _greys(found: np.ndarray, palette: np.ndarray) -> np.ndarray | None:
    """The greys of the indices `found`, if they are those of a mask, 0, 128 and 255; else None.

    Without white they have to be the indices, as in the ramp of greys: 128 is the grey of a car in
    VOC's palette.
    """
    if found[-1] >= len(palette):
        return None
    colours = palette[found]
    if (colours != colours[:, :1]).any():
        return None
    greys = colours[:, 0]
    a_mask = set(greys.tolist()) <= {0, NOT_COUNTED, 255}
    return greys if a_mask and (255 in greys or (greys == found).all()) else None


def _by_colour(plane: Plane, found: np.ndarray) -> tuple[np.ndarray, Notes]:
    voids = _voids(plane, found) if len(found) > 2 else []
    rest = [value for value in found.tolist() if value not in voids]
    if len(rest) > 2 or (len(rest) == 2 and rest[0] != 0):
        raise _open(plane, found)
    notes = (() if rest[0] == 0 else (EVERYWHERE,)) + ((BORDER,) if voids else ())
    return _marked(plane.pixels, rest[-1], voids), notes


def _by_alpha(plane: Plane, alpha: np.ndarray) -> tuple[np.ndarray, Notes]:
    """A cut-out: the object of a photo, or of a plain colour, whose background is transparent."""
    opaque = plane.pixels[alpha == alpha.max()]
    colours, (few, each) = values(opaque), _FEW
    if 1 < len(colours) <= min(few, opaque.size // each):
        raise InputError(
            f"is partly transparent and has {seen(plane, colours)} where it is not, and which of "
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
    return alpha > most(alpha.dtype) // 2, (EDGES,)


def _is_known(plane: Plane) -> bool:
    """Whether the values are those of masks, of which half is not asked."""
    if plane.kind != "grey" or plane.lossy or plane.alpha is not None:
        return False
    byte = plane.pixels.dtype == np.uint8
    return byte and values(plane.pixels).tolist() in ([0, 1], [0, 1, 255], [0, NOT_COUNTED, 255])


def _half(plane: Plane) -> tuple[np.ndarray, Notes]:
    pixels, middle = plane.pixels, _middle(plane)
    if plane.alpha is not None:
        pixels, middle = plane.alpha, most(plane.alpha.dtype) // 2
    elif plane.palette is not None:
        if (plane.palette != plane.palette[:, :1]).any() or pixels.max() >= len(plane.palette):
            return _object(plane)  # an index has no half
        pixels = plane.palette[pixels, 0]
    elif plane.kind == "colour":
        shown = seen(plane, values(pixels))
        raise InputError(f"has {shown}, of which --masks half is not known; save it in greys")
    if pixels.dtype.kind == "f" and not (pixels.min() >= 0 and pixels.max() <= 1):
        shown = listed(values(pixels))
        raise InputError(f"has {shown}; --masks half of floating-point values is of 0 to 1")
    mask = pixels > middle
    if not mask.any():
        shown = listed(values(pixels))
        raise InputError(f"has no object pixel above half, {middle}; it has {shown}")
    return mask, (HALF, EVERYWHERE) if mask.all() else (HALF,)


def _middle(plane: Plane) -> float:
    return 0.5 if plane.pixels.dtype.kind == "f" else plane.most // 2


# ---- what was seen


def _open(plane: Plane, found: np.ndarray) -> InputError:
    """The sentence, from its verb on, about values of which the object cannot be known."""
    ids = "--masks ids takes each above 0 as an object"
    half = f"--masks half what is above {_middle(plane)}"
    if plane.lossy:
        ways = "save it as PNG"
        if plane.kind == "grey":
            ways += f", or {half.replace('what', 'takes what')} as the object"
        return InputError(
            f"is {plane.lossy} with {seen(plane, found)}, of which the object cannot be known; "
            f"{ways}"
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
    return InputError(f"has {seen(plane, found)}, of which the object cannot be known; {ways}")
