"""Masks drawn before a photo's EXIF rotation, on the pixels as stored, are turned along with it."""

import numpy as np

from mis_jax.datasets.pictures import Picture
from mis_jax.datasets.reading import Reading
from mis_jax.datasets.samples import Labelled

TURNED = "its mask is drawn on the photo as stored, and was turned along with it (EXIF)"
OPEN = (
    "whether its mask is drawn before or after the EXIF rotation cannot be known, after is taken; "
    "--masks stored or upright says which"
)
OWN = "its mask has an EXIF rotation of its own, which was applied"
NOT_OWN = "its mask has an EXIF rotation of its own, but fits only without it, which was taken"
_BACK = {6: 8, 8: 6}  # the tag that undoes a tag, where it is another


def aligned(picture: Picture, mask: np.ndarray, reading: Reading, own: int = 1) -> Labelled:
    """A photo and its mask [H, W], which is turned if it fits only the photo as stored.

    Where it fits both ways, `reading.masks` says which, or a note that nobody did. A mask file with
    a tag of its own, `own`, is turned as that says, as every viewer shows it. A mask that fits in
    no way comes back as it is.
    """
    shape = picture.pixels.shape[:2]
    if own in range(2, 9) and not reading.masks & {"stored", "upright"}:
        turned = upright(mask, own)
        if turned.shape == shape:
            return Labelled(picture.pixels, turned, (*picture.notes, OWN))
        if mask.shape == shape:
            return Labelled(picture.pixels, mask, (*picture.notes, NOT_OWN))
    stored = shape[::-1] if picture.orientation > 4 else shape
    if picture.orientation == 1 or mask.shape != stored or "upright" in reading.masks:
        return Labelled(picture.pixels, mask, picture.notes)
    if stored != shape or "stored" in reading.masks:
        turned = upright(mask, picture.orientation)
        return Labelled(picture.pixels, turned, (*picture.notes, TURNED))
    return Labelled(picture.pixels, mask, (*picture.notes, OPEN))


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels [H, W, ...] as stored, turned and mirrored as the EXIF tag `orientation` says."""
    turned = np.swapaxes(stored, 0, 1) if orientation > 4 else stored
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)


def as_stored(seen: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels [H, W, ...] that `upright` turns into `seen`."""
    return upright(seen, _BACK.get(orientation, orientation))
