"""The embedded descriptor: what a cell of the image looks like, for merging without any weights.

Merging (`proposals/borders.py`) compares the mean features of two regions, and the features at
either side of their border. Here the mean of the colour channels stands for the region's whole
colour distribution: they are random Fourier features of a Gaussian kernel (Rahimi and Recht, 2007),
whose mean is the kernel's mean embedding, so that a striped region and its two colours stay apart,
and very different colours count no more than clearly different ones. What tells an object from its
surroundings as a whole are the normalised cuts of the image (Shi and Malik, 2000), taken on a
coarse grid. Smoothing that stops at edges (Min et al., 2014) then evens out texture inside regions,
and brings the outlines of the image to the cuts.
"""

import cv2
import numpy as np
import scipy.linalg
from numba import njit

from mis_jax.proposals import Tree, build_tree

# Chosen for Ward's merging by the best IoU that any node of the tree reaches with an object of
# exactly known outline: on made-up scenes (scenes.py), on pieces of one unlabelled photograph
# pasted into another, and on pieces of a photograph pasted elsewhere into itself. LIGHTNESS and
# DEVIATION were then raised, for merging by borders, on every third photo of development regions,
# by the best region for each that people drew; more links, cells or vectors of the cuts, other
# frequencies, other scales of deviations and oriented gradients brought nothing there
# (results/trees).
NAME = "embedded v3"  # tells features from those of earlier settings
LIGHTNESS = 0.6  # of L against a and b: shading and shadows change lightness first
BANDWIDTH = 12.0  # of the colour kernel, Lab units
FREQUENCIES = 24  # each gives a cosine and a sine channel
DEVIATION = 0.7  # weight of the fine deviations of L, a and b
POSITION = 0.6  # weight of row and column: between equals, the nearer region
EDGE = 1.2  # colour step at which the link of two cells fades, in medians of the image
EDGE_FLOOR = 1.0  # the least such step, Lab units: JPEG noise in flat areas is no edge
SMOOTHING = 160.0  # about the square of the cells it reaches over
SMOOTHING_PASSES = 3
CUTS = 8  # eigenvectors of the normalised cut
CUT = 0.25  # weight of the first of them; the others have less, by the root of their eigenvalues
CUT_CELLS = 600  # of the grid of the cuts, whatever the size of the image
CUT_FLOOR = 0.01  # the weakest link there: no speck is cut off for its colour alone
CUT_STEPS = 8  # of subspace iteration


def embedded(image: np.ndarray, stride: int = 4) -> np.ndarray:
    """Features of the square cells of an image, `stride` pixels wide.

    Takes uint8 [H, W, 3] RGB of any size; sides that are no multiple of `stride` are stretched to
    the next one first, as for the ViTs. The same on any number of threads; the GIL is released
    but for a few milliseconds in SciPy.

    Returns:
      float32 [ceil(H / stride), ceil(W / stride), 61]: 48 colour, 3 deviation, 8 cut and 2
      position channels.
    """
    height, width = (-(-side // stride) for side in image.shape[:2])
    image = cv2.resize(image, (width * stride, height * stride), interpolation=cv2.INTER_LINEAR)
    lab: np.ndarray = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    lab[..., 0] *= LIGHTNESS
    cells = _shrink(lab, height, width)
    parts = [_colours(cells), DEVIATION * _deviations(lab, height, width), CUT * _cuts(cells)]
    features = np.concatenate(parts, axis=-1)
    _smooth(features, *_links(cells))
    return np.concatenate([features, POSITION * _positions(height, width)], axis=-1)


def merge_tree(image: np.ndarray, stride: int = 4) -> tuple[Tree, np.ndarray]:
    """The merge tree of an image's cells, by their borders, and what their colours look like.

    Takes what `embedded` takes, and gives its colour channels, float32 [h, w, 48].
    """
    features = embedded(image, stride)
    return build_tree(features, borders=True), features[..., : 2 * FREQUENCIES].copy()


def _shrink(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Means of values float32 [H, W, C <= 4] over the cells of a coarser grid, [h, w, C]."""
    shrunk = cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)
    return shrunk.reshape(height, width, -1)


def _colours(cells: np.ndarray) -> np.ndarray:
    """Random Fourier features of the colours of cells: float32 [h, w, 3] -> [h, w, 48].

    Half of them are cosines, half sines; their squared length is 1.
    """
    frequencies = np.random.default_rng(2).standard_normal((FREQUENCIES, 3)) / BANDWIDTH
    lightness, a, b = frequencies.astype(np.float32).T
    phases = cells[..., :1] * lightness + cells[..., 1:2] * a + cells[..., 2:] * b
    features = np.empty((*cells.shape[:2], 2 * FREQUENCIES), np.float32)
    np.cos(phases, out=features[..., :FREQUENCIES])
    np.sin(phases, out=features[..., FREQUENCIES:])
    features *= np.float32(1 / np.sqrt(FREQUENCIES))
    return features


def _deviations(lab: np.ndarray, height: int, width: int) -> np.ndarray:
    """Log of the root mean square of each channel's detail under 2 pixels, float32 [h, w, 3]."""
    detail = lab - cv2.GaussianBlur(lab, (0, 0), 1)
    return np.log(0.5 + np.sqrt(_shrink(detail * detail, height, width)))


def _positions(height: int, width: int) -> np.ndarray:
    """Row and column of each cell over the root of the number of cells, float32 [h, w, 2]."""
    return (np.stack([*np.mgrid[:height, :width]], -1) / np.sqrt(height * width)).astype(np.float32)


def _links(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How alike neighbours are, 0..1: float32 [h, w - 1] along rows, [h - 1, w] along columns.

    exp(-step / scale), where the step is the distance of two colours in `cells` [h, w, 3], and the
    scale EDGE times the median step.
    """
    across, down = (np.sqrt(np.square(np.diff(cells, axis=axis)).sum(-1)) for axis in (1, 0))
    steps = np.concatenate([across.ravel(), down.ravel()])
    scale = np.float32(max(EDGE * np.median(steps) if steps.size else 0, EDGE_FLOOR))
    return np.exp(-across / scale), np.exp(-down / scale)


def _cuts(cells: np.ndarray) -> np.ndarray:
    """Eigenvectors of the normalised cut of colours [h, w, 3], float32 [h, w, 8].

    They are computed on a grid of about CUT_CELLS cells. Each has unit variance there, times the
    root of the first eigenvalue over its own; grids of fewer cells than vectors give some zeros.
    """
    height, width = cells.shape[:2]
    side = np.sqrt(height * width / CUT_CELLS)
    rows, columns = (min(n, max(1, round(n / side))) for n in (height, width))
    vectors = _eigenvectors(*_links(_shrink(cells, rows, columns)))
    cuts = np.zeros((height, width, CUTS), np.float32)
    for k in range(vectors.shape[-1]):
        cuts[..., k] = cv2.resize(vectors[..., k], (width, height), interpolation=cv2.INTER_LINEAR)
    return cuts


def _eigenvectors(across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Solutions of (D - W) v = x D v of the least x over 0, float32 [h, w, min(8, hw - 1)].

    W holds the links between neighbours (see `_links`), raised by CUT_FLOOR, D their sums a cell.
    By inverse iteration: in the order of the shorter side, D - W has a narrow band.
    """
    height, width = len(across), down.shape[1]
    if width > height:
        return _eigenvectors(down.T, across.T).transpose(1, 0, 2)
    count = height * width
    right, below = np.zeros((2, height, width))
    right[:, :-1], below[:-1] = across + CUT_FLOOR, down + CUT_FLOOR
    degrees = right + below
    degrees[:, 1:] += right[:, :-1]
    degrees[1:] += below[:-1]
    scale = 1 / np.sqrt(np.maximum(degrees.ravel(), 1e-9))  # a single cell has no neighbour
    band = np.zeros((width + 1, count))  # of I - D^-1/2 W D^-1/2, diagonal first
    shift = 1e-3  # makes it regular
    band[0] = 1 + shift
    band[1, :-1] -= right.ravel()[:-1] * scale[:-1] * scale[1:]
    band[width, : count - width] -= below.ravel()[:-width] * scale[:-width] * scale[width:]
    factor = scipy.linalg.cholesky_banded(band, lower=True), True
    basis = np.random.default_rng(0).standard_normal((count, min(CUTS + 5, count)))
    for _ in range(CUT_STEPS):
        basis = np.linalg.qr(scipy.linalg.cho_solve_banded(factor, basis))[0]
    inverse, rotation = np.linalg.eigh(basis.T @ scipy.linalg.cho_solve_banded(factor, basis))
    kept = np.arange(len(inverse))[::-1][1 : CUTS + 1]  # the first is the same everywhere
    values = np.maximum(1 / inverse[kept] - shift, 1e-6)
    vectors = (basis @ rotation[:, kept]) * scale[:, None]
    vectors *= np.sqrt(values[:1] / values) / vectors.std(0)
    return vectors.reshape(height, width, -1).astype(np.float32)


def _smooth(features: np.ndarray, across: np.ndarray, down: np.ndarray) -> None:
    """Makes of features float32 [h, w, C] their means along chains of strong links (see `_links`).

    The fast global smoother: about (1 + SMOOTHING * L)^-1 with L the Laplacian of the links, by
    turns along rows and columns, each pass half as far as the one before.
    """
    for k in reversed(range(SMOOTHING_PASSES)):
        strength = np.float32(1.5 * 4.0**k / (4.0**SMOOTHING_PASSES - 1) * SMOOTHING)
        _relax_rows(features, *_elimination(across, strength))
        _relax_columns(features, *_elimination(down.T, strength))


@njit(nogil=True, cache=True)
def _elimination(links: np.ndarray, strength: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Factors of 1 + strength * L, L the Laplacian of the links of a chain, for many chains.

    The factors are a unit lower triangle with -carried beside its diagonal, a diagonal of
    1 / scales, and the triangle's transpose.

    Args:
        links: float32 [m, n - 1], of m chains.

    Returns:
        scales and carried, float32 [m, n]; the last of each chain's carried is 0.
    """
    chains, count = len(links), links.shape[1] + 1
    scales, carried = np.empty((2, chains, count), np.float32)
    for chain in range(chains):
        before = lost = np.float32(0)
        for k in range(count):
            after = strength * links[chain, k] if k + 1 < count else np.float32(0)
            scales[chain, k] = np.float32(1) / (np.float32(1) + before + after - lost)
            carried[chain, k] = after * scales[chain, k]
            before, lost = after, after * carried[chain, k]
    return scales, carried


@njit(nogil=True, cache=True)
def _relax_rows(values: np.ndarray, scales: np.ndarray, carried: np.ndarray) -> None:
    """Solves for values float32 [h, w, C], in place, along every row; factors are [h, w]."""
    height, width, channels = values.shape
    for row in range(height):
        for column in range(1, width):
            factor = carried[row, column - 1]
            for k in range(channels):
                values[row, column, k] += factor * values[row, column - 1, k]
        for column in range(width - 1, -1, -1):
            scale, factor = scales[row, column], carried[row, column]
            following = min(column + 1, width - 1)  # the last one's factor is 0
            for k in range(channels):
                values[row, column, k] *= scale
                values[row, column, k] += factor * values[row, following, k]


@njit(nogil=True, cache=True)
def _relax_columns(values: np.ndarray, scales: np.ndarray, carried: np.ndarray) -> None:
    """The same along every column; factors are [w, h]. Row by row, as values lie in memory."""
    height, width, channels = values.shape
    for row in range(1, height):
        for column in range(width):
            factor = carried[column, row - 1]
            for k in range(channels):
                values[row, column, k] += factor * values[row - 1, column, k]
    for row in range(height - 1, -1, -1):
        following = min(row + 1, height - 1)
        for column in range(width):
            scale, factor = scales[column, row], carried[column, row]
            for k in range(channels):
                values[row, column, k] *= scale
                values[row, column, k] += factor * values[following, column, k]
