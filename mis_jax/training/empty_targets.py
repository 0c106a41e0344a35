"""What is said before training starts where many of its targets are empty."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mis_jax.errors import InputError

COUNT = 256  # targets that are looked at
SHARE = 0.01  # of them may be empty without a word
SMALL = 64  # pixels; photos with a shorter side are named as small


class Target(NamedTuple):
    """A target of the stream, and what it was drawn of."""

    id: str  # of the image
    size: tuple[int, int]  # of the image, rows and columns
    pixels: int  # of the object in the crop


def describe(targets: Sequence[Target], least: int, wanted: float) -> str:
    """A line on the share of empty targets, those of fewer than `least` pixels; "" if it is small.

    Args:
        targets: the first ones of a stream.
        least: config.data.min_object_area.
        wanted: share that is empty by intention, config.data.keep_background.

    Raises:
        InputError: all are empty.
    """
    empty = [t for t in targets if t.pixels < max(least, 1)]
    share = len(empty) / len(targets)
    if share <= max(SHARE, wanted):
        return ""
    sides = [min(t.size) for t in empty]
    first = empty[int(np.argmin(sides))]
    height, width = first.size
    small = sum(side < SMALL for side in sides) > len(empty) / 2
    of = f"mostly of images under {SMALL} pixels, " if small else ""
    line = (
        f"{share:.0%} of the first {len(targets)} targets are empty, their objects smaller than "
        f"config.data.min_object_area={least} pixels in the crop, {of}such as {first.id} "
        f"({width} x {height} pixels): leave these images out, enlarge them, or lower it."
    )
    if len(empty) == len(targets):
        raise InputError(line)
    return line
