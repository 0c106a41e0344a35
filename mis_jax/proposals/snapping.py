"""Edge snapping: probabilities on a grid of patches -> pixels, along the edges of the image.

results/trees says what it does to the best nodes of trees.
"""

import cv2
import numpy as np

from mis_jax.errors import InputError

RADIUS = 2  # patches, of the windows
EDGE = 1e-3  # variance of colour (0..1) within a window below which it holds no edge to follow


def snap(image: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Enlarges a mask or probabilities to the image so that they change where its colours do.

    The guided filter (He et al., 2013), computed on the grid (He and Sun, 2015): in every window of
    5 x 5 patches the probability is fitted as a linear function of the mean colours of the patches,
    and the functions, averaged over the windows and enlarged, are applied to the pixels' colours.

    Args:
        image: uint8 [H, W, 3] RGB.
        probability: float32 or bool [h, w] within 0..1, h <= H and w <= W, over the whole image.

    Returns:
        float32 [H, W] within 0..1.

    Raises:
        InputError: a grid finer than the image, or not of two dimensions.
    """
    height, width = image.shape[:2]
    if np.ndim(probability) != 2 or not (
        1 <= probability.shape[0] <= height and 1 <= probability.shape[1] <= width
    ):
        raise InputError(
            f"snap takes a grid [h, w] of at most {height} x {width}, the image's pixels, not "
            f"{list(np.shape(probability))}."
        )
    h, w = probability.shape
    pixels = image.astype(np.float32) / 255
    cells = cv2.resize(pixels, (w, h), interpolation=cv2.INTER_AREA)
    model = _fit(cells, np.asarray(probability, np.float32))
    model = cv2.resize(model, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(np.einsum("ijk,ijk->ij", model[..., :3], pixels) + model[..., 3], 0, 1)


def _fit(cells: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Slopes along the three colours, and offset, of each cell's windows: float32 [h, w, 4]."""
    mean, mean_target = _window(cells), _window(target)
    covariance = _window(cells * target[..., None]) - mean * mean_target[..., None]
    squares = _window(np.concatenate([cells * cells, cells * np.roll(cells, -1, 2)], axis=2))
    rr, gg, bb, rg, gb, br = np.moveaxis(squares, 2, 0)
    r, g, b = np.moveaxis(mean, 2, 0)
    rr, gg, bb = rr - r * r + EDGE, gg - g * g + EDGE, bb - b * b + EDGE
    rg, gb, br = rg - r * g, gb - g * b, br - b * r
    # the adjugate of the symmetric matrix of variances
    a_rr, a_rg, a_rb = gg * bb - gb * gb, gb * br - rg * bb, rg * gb - gg * br
    a_gg, a_gb, a_bb = rr * bb - br * br, br * rg - rr * gb, rr * gg - rg * rg
    x, y, z = np.moveaxis(covariance, 2, 0) / (rr * a_rr + rg * a_rg + br * a_rb)
    slopes = (
        a_rr * x + a_rg * y + a_rb * z,
        a_rg * x + a_gg * y + a_gb * z,
        a_rb * x + a_gb * y + a_bb * z,
    )
    offset = mean_target - slopes[0] * r - slopes[1] * g - slopes[2] * b
    return _window(np.stack([*slopes, offset], axis=2))


def _window(values: np.ndarray) -> np.ndarray:
    """Means over the windows; the grid is mirrored at its rim."""
    return cv2.boxFilter(values, -1, (2 * RADIUS + 1,) * 2, borderType=cv2.BORDER_REFLECT)
