"""What clicks say that is finer than patches: it is drawn onto the pixels, and no tree is asked."""

from collections.abc import Sequence

import numpy as np

from mis_jax.predictors.clicks import Click
from mis_jax.proposals import nearest_patches


def radius(mask: np.ndarray, click: Click, reach: float) -> float:
    """How far a click is from where the mask, bool [H, W], already is what it says.

    Pixels, less than `reach`. 0 if that is no nearer, or the click's own pixel: then the click has
    more to say than where exactly the mask ends.
    """
    row, col, most = int(click.row), int(click.col), int(reach)
    if mask[row, col] == click.positive:
        return 0.0
    top, left = max(row - most, 0), max(col - most, 0)
    rows, cols = np.nonzero(mask[top : row + most + 1, left : col + most + 1] == click.positive)
    away = np.hypot(rows + top - row, cols + left - col).min(initial=np.inf)
    return float(away) if away < reach else 0.0


def touch_up(probs: np.ndarray, click: Click, within: float) -> None:
    """Gives the pixels of [H, W] nearer than `within` pixels to a click its label, in place."""
    row, col, most = int(click.row), int(click.col), int(within)
    top, left = max(row - most, 0), max(col - most, 0)
    part = probs[top : row + most + 1, left : col + most + 1]
    rows, cols = np.ogrid[: part.shape[0], : part.shape[1]]
    part[np.hypot(rows + top - row, cols + left - col) < within] = click.positive


def split(probs: np.ndarray, grid: tuple[int, int], clicks: Sequence[Click]) -> None:
    """Gives the pixels of a patch with clicks of both kinds to the nearest click, in place.

    Args:
        probs: float32 [H, W].
        grid: rows and columns of patches.
        clicks: in pixels.
    """
    patches = [nearest_patches(*sides) for sides in zip(grid, probs.shape, strict=True)]
    at: dict[tuple[int, int], list[Click]] = {}
    for c in clicks:
        at.setdefault((patches[0][int(c.row)], patches[1][int(c.col)]), []).append(c)
    for patch, there in at.items():
        if len({c.positive for c in there}) < 2:
            continue
        rows, cols = (np.flatnonzero(p == k) for p, k in zip(patches, patch, strict=True))
        away: dict[bool, np.ndarray | float] = {True: np.inf, False: np.inf}
        for c in there:
            squared = (rows[:, None] - c.row) ** 2 + (cols - c.col) ** 2
            away[c.positive] = np.minimum(away[c.positive], squared)
        probs[np.ix_(rows, cols)] = away[True] < away[False]
