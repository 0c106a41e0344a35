"""Clicks and images as users give them, checked, and the answer in Segment Anything's terms."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mis_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Click:
    """One click at (row, col) in pixels, fractions allowed."""

    row: float
    col: float
    positive: bool


def checked_image(image: np.ndarray) -> np.ndarray:
    """A copy of the image, if it is uint8 RGB [H, W, 3]; else `InputError` says so."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(
            f"set_image needs a uint8 RGB image [H, W, 3], not {image.dtype} "
            f"{list(image.shape)}; mis_jax.datasets.read_image gives one."
        )
    return image.copy()


def checked_clicks(
    coords: np.ndarray | Sequence, labels: np.ndarray | Sequence, shape: tuple[int, int]
) -> tuple[Click, ...]:
    """Clicks of (x, y) [N, 2] and labels [N] on an image of shape (H, W); `InputError` if wrong."""
    height, width = shape
    coords, labels = np.asarray(coords, np.float64), np.asarray(labels)
    if coords.ndim != 2 or coords.shape[1] != 2 or labels.shape != (len(coords),):
        raise InputError(
            f"Clicks are point_coords [N, 2] and point_labels [N], not {list(coords.shape)} "
            f"and {list(labels.shape)}."
        )
    if not len(coords) or any(label not in (0, 1) for label in labels.tolist()):
        raise InputError("At least one click is needed, with labels 1 (object) or 0 (not).")
    if not ((coords >= 0) & (coords < (width, height))).all():
        raise InputError(f"A click lies outside the image of {width} x {height} pixels (x, y).")
    pairs = zip(coords.tolist(), labels.tolist(), strict=True)
    return tuple(Click(y, x, bool(label)) for (x, y), label in pairs)


def read_only(x: np.ndarray) -> np.ndarray:
    """A view of an array that cannot be written to."""
    view = x.view()
    view.flags.writeable = False
    return view


def refuse_box(box: object) -> None:
    """`InputError` for the box that Segment Anything's predictor would take."""
    if box is not None:
        raise InputError(
            "Boxes are not supported yet; leave box out, click in the middle of the object, and "
            "then where the mask is wrong."
        )


def sam_answer(mask: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `Predictor.predict` returns, of a mask bool [H, W] and probabilities float32 [H, W]."""
    probs = np.clip(probs, 1e-7, 1 - 1e-7)
    score = (probs * mask).sum() / np.maximum(probs, mask).sum()
    logits = np.log(probs) - np.log1p(-probs)
    return mask[None], np.array([score], np.float32), logits[None]
