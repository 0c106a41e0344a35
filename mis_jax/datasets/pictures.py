"""An image as it is meant to be seen, and what is asked of one: to be smaller, or not blank."""

from typing import NamedTuple

import cv2
import numpy as np

from mis_jax.datasets.reading import Notes

MIN_SIDE = 16  # pixels; nothing can be learnt from a smaller image
MAX_PIXELS = 178_956_970  # of a file, twice Pillow's own limit; more would be a bomb
_BLANK = 8  # levels of 255 between the least and the greatest value; JPEG turns grey into 2 or 3


class Picture(NamedTuple):
    """An image as it is meant to be seen, and how it came to be so.

    Attributes:
      pixels: uint8 [H, W, 3] RGB.
      orientation: the EXIF tag that was applied, 1 to 8; 1: as stored.
      notes: what was odd about the file.
    """

    pixels: np.ndarray
    orientation: int = 1
    notes: Notes = ()


def shrink(image: np.ndarray, max_side: int) -> np.ndarray:
    """uint8 [H, W, 3] of at most `max_side` pixels a side, by area averaging; 0: any size."""
    height, width = image.shape[:2]
    longest = max(height, width)
    if not 0 < max_side < longest:
        return image
    size = [max(1, round(side * max_side / longest)) for side in (width, height)]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def is_blank(image: np.ndarray) -> bool:
    """Whether uint8 [H, W, C] shows nothing: no channel's values are over 8 levels apart.

    A frame of one colour stays so as JPEG, a fading sky does not become so.
    """

    def flat(part: np.ndarray) -> bool:
        values = part.reshape(-1, part.shape[-1])
        return bool((values.max(0).astype(int) - values.min(0) <= _BLANK).all())

    return flat(image[::16, ::16]) and flat(image)  # a few pixels tell most
