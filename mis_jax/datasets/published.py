"""The masks of GrabCut, Berkeley and DAVIS, read to the number as the published code reads them."""

from pathlib import Path

import cv2
import numpy as np

from mis_jax.datasets.masks import Mask
from mis_jax.datasets.planes import check_file, values
from mis_jax.datasets.reading import Reading
from mis_jax.errors import InputError

ANY = "its mask has several values above 0, all of them the object as in the published code"
ODD = "its mask has other values than 0, 1, 128 and 255, read as the published code reads them"


def read_grabcut(path: Path, reading: Reading) -> Mask:
    """As published for GrabCut and Berkeley: of the first channel that OpenCV gives (blue), 1 and
    above 128 are the object, 128 is not counted.
    """
    first = _opencv(path)[:, :, 0]
    mask = np.where(first == 128, -1, (first > 128) | (first == 1))
    odd = not set(values(first).tolist()) <= {0, 1, 128, 255}
    return Mask(mask.astype(np.int32), notes=(ODD,) if odd else ())


def read_davis(path: Path, reading: Reading) -> Mask:
    """As published for DAVIS: any colour but black is the object."""
    brightest = _opencv(path).max(axis=2)
    several = np.count_nonzero(values(brightest)) > 1
    return Mask((brightest > 0).astype(np.int32), notes=(ANY,) if several else ())


def _opencv(path: Path) -> np.ndarray:
    """uint8 [H, W, 3], blue first, as `cv2.imread` reads an image."""
    check_file(path)
    try:
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, OSError):
        pixels = None
    if pixels is None:
        raise InputError(f"the mask {path} cannot be read; save it as PNG")
    return pixels
