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


def aligned(picture: Picture, mask: np.ndarray, reading: Reading) -> Labelled:
    """A photo and its mask [H, W], which is turned if it fits only the photo as stored.

    Where it fits both ways, `reading.masks` says which, or a note that nobody did. A mask that fits
    neither comes back as it is.
    """
    height, width = picture.pixels.shape[:2]
    stored = (width, height) if picture.orientation > 4 else (height, width)
    if picture.orientation == 1 or mask.shape != stored or "upright" in reading.masks:
        return Labelled(picture.pixels, mask, picture.notes)
    if stored != (height, width) or "stored" in reading.masks:
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
