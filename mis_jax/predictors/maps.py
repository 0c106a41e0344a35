"""What the evidence network sees (models/correction.py): evidence as arrays."""

from collections.abc import Sequence

import cv2
import numpy as np

from mis_jax.predictors.evidence import CELL, Answered, Channels, Ground
from mis_jax.proposals import contours

POINTS = 24  # clicks that the network is told of, the last ones
SAYS_MOST = 4.0  # beyond which channels are cut off, and by which they are divided


def picture(ground: Ground) -> np.ndarray:
    """An image alone, float32 [h, w, 22].

    The pixels of each cell in -1..1 (12), how alike it is to four neighbours (4), and how strong
    the borders to the right and below are in each of the three trees (6).
    """
    height, width = ground.grid
    size = CELL * width, CELL * height
    pixels = ground.image
    if pixels.shape[1::-1] != size:
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    pixels = pixels.reshape(height, CELL, width, CELL, 3).swapaxes(1, 2).reshape(height, width, -1)
    walls = [
        cv2.resize(contours(tree), (width, height), interpolation=cv2.INTER_NEAREST)
        for tree, _ in ground.trees
    ]
    strong = np.log(np.concatenate(walls, -1) + np.float32(0.01)) / np.float32(SAYS_MOST)
    alike = 2 * ground.links[..., 4:] - 1
    return np.concatenate([pixels.astype(np.float32) / 127.5 - 1, alike, strong], -1)


def said(channels: Channels, answer: np.ndarray) -> np.ndarray:
    """What clicks say, float32 [h, w, 5], with the evidence's own answer to them, bool [h, w]."""
    odds = np.stack([channels.mistake, channels.shown, channels.colours], -1)
    certain = np.select([channels.certain == 1, channels.certain == 0], [1.0, -1.0], 0.0)
    return np.concatenate(
        [
            np.clip(odds / SAYS_MOST, -1, 1),
            np.stack([certain, np.where(answer, 1.0, -1.0)], -1),
        ],
        -1,
    ).astype(np.float32)


def points(ground: Ground, answered: Sequence[Answered]) -> np.ndarray:
    """The clicks, the last one first: float32 [POINTS, 4], rows (row, col, kind, depth) in cells.

    Kind is 1 for object, -1 for background and 0 in the rows that are left; a depth that is
    infinite is 0.
    """
    out = np.zeros((POINTS, 4), np.float32)
    for row, (click, depth) in zip(out, answered[::-1], strict=False):
        finite = depth / CELL if np.isfinite(depth) else 0
        row[:] = *ground.cell(click), 1 if click.positive else -1, finite
    return out
