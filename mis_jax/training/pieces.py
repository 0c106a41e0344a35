"""Pieces of photos for composites (composites.py): nodes of trees, cut out, placed, in other light.

What is drawn is a region of a photo's merge tree; it is cut out along the edges of the photo's
colours, turned and moved to where it is pasted, and lit anew. Boxes only, never whole photos, in
calls that release the GIL; set `cv2.setNumThreads(0)` around it.
"""

import functools
from typing import NamedTuple

import cv2
import numpy as np

from mis_jax.datasets import images
from mis_jax.errors import InputError
from mis_jax.proposals import Tree, snap
from mis_jax.records import Record

LAYER_AREA = (0.01, 0.6)  # of the picture, log-uniform
SCALE = (0.5, 1.5)  # of pieces, where the tree has nodes for it
MOST = 3.0  # the most that any piece is enlarged
ANGLE = 20.0  # degrees, largest turn of a piece either way
INSIDE = 0.6  # of a piece, the least that lies within the picture
UNION, FILLED, BLURRED, MATCHED = 0.2, 0.5, 0.5, 0.5  # probabilities
RIM = 5.0  # what a side of a patch along the rim adds to its outline of 1
SOLID = 0.15  # 4 pi area / outline^2 of a piece; a disc of patches has 0.6
CANDIDATES = 4  # nodes of which a piece is the one that stands out most
TRIES = 8  # to draw a region; twice as many to place a piece
MARGIN = 4  # patches around a node that its snapped mask depends on
FLAT = 1 / 16  # a snapped mask's slope per pixel below which its border is left softer than a pixel
TIGHT = 0.6  # of a snapped mask, where a piece ends: a little inside, so that no halo is pasted
_AROUND = np.ones((5, 5), np.uint8)
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


class Photo:
    """A record, decoded when its pixels are asked for."""

    def __init__(self, record: Record) -> None:
        assert isinstance(record.tree, Tree)
        self.record, self.tree = record, record.tree
        self.size = record.height, record.width

    @functools.cached_property
    def pixels(self) -> np.ndarray:
        """uint8 [H, W, 3] RGB."""
        pixels = images.decode(self.record.image, self.record.id)
        if pixels.shape[:2] != self.size:
            raise InputError(f"{self.record.id} is not of {self.size[0]} x {self.size[1]} pixels")
        return pixels


class Piece(NamedTuple):
    """A part of a photo that was cut out."""

    pixels: np.ndarray  # uint8 [h, w, 3]
    mask: np.ndarray  # float32 [h, w], 0..1, steep at its border, which is where it is 0.5
    scale: float  # to enlarge it by


class Layer(NamedTuple):
    """A piece in its place."""

    box: tuple[slice, slice]  # rows and columns of the picture
    alpha: np.ndarray  # float32 [h, w] of the box, 0..1


# ---- regions


def draw_node(rng: np.random.Generator, areas: np.ndarray, wanted: float) -> int:
    """A node of about the area that is wanted, and not of all there is."""
    near = (areas > wanted / 1.2) & (areas < min(wanted * 1.2, 0.95 * areas[-1]))
    nodes = np.flatnonzero(near)
    if len(nodes):
        return int(nodes[rng.integers(len(nodes))])
    far = np.abs(np.log(np.maximum(areas, 1e-3) / wanted))
    far[areas >= 0.95 * areas[-1]] = np.inf
    return int(np.argmin(far))


def _draw_thing(rng: np.random.Generator, tree: Tree, areas: np.ndarray, wanted: float) -> int:
    """Of a few such nodes the one that stands out most.

    That is by the cost of merging it with its neighbour, over that of the merge that made it.
    """
    nodes = np.array([draw_node(rng, areas, wanted) for _ in range(CANDIDATES)])
    nodes = np.clip(nodes, tree.n, max(tree.root - 1, tree.n))  # those with a merge above and below
    costs = tree.costs + 1e-6
    own, above = costs[nodes - tree.n], costs[tree.parents()[nodes] - tree.n]
    return int(nodes[np.argmax(above / own)])


def draw_pair(
    rng: np.random.Generator, tree: Tree, areas: np.ndarray, wanted: float
) -> np.ndarray | None:
    """The union of two nodes that touch, bool [h, w], of about the area wanted; None: not found.

    Neither is more than four times as large as the other, and the two make no node together.
    """
    node = draw_node(rng, areas, wanted * rng.uniform(0.25, 0.75))
    mask = tree.mask(node)
    ring = cv2.dilate(mask.view(np.uint8), _CROSS) - mask.view(np.uint8)
    around = np.flatnonzero(ring)
    around = around[areas[around] > 0]
    if not len(around):
        return None
    others = tree.ancestors(int(around[rng.integers(len(around))]))
    others = others[~np.isin(others, tree.ancestors(node))]
    if tree.parents()[others[-1]] == tree.parents()[node]:
        others = others[:-1]
    ratio = areas[others] / max(areas[node], 1)
    others = others[(ratio >= 0.25) & (ratio <= 4)]
    if not len(others):
        return None
    far = np.abs(areas[others] + areas[node] - wanted)
    return mask | tree.mask(int(others[np.argmin(far)]))


def _draw_region(rng: np.random.Generator, photo: Photo, wanted: float) -> np.ndarray:
    """A solid region of about `wanted` pixels, or the best of some: uint8 [h, w] of 0 and 1."""
    tree = photo.tree
    areas = tree.areas()
    wanted *= tree.n / (photo.size[0] * photo.size[1])
    best, most = np.zeros(tree.grid, np.uint8), -1.0
    for _ in range(TRIES):
        filled = bool(rng.random() < FILLED)
        if rng.random() < UNION:
            mask = draw_pair(rng, tree, areas, wanted)
        else:
            mask = tree.mask(_draw_thing(rng, tree, areas, wanted))
        if mask is None:
            continue
        region = _solid(mask.view(np.uint8), filled)
        compact = _compactness(region)
        if compact > most:
            best, most = region, compact
        if most > SOLID:
            break
    return best


def _solid(mask: np.ndarray, filled: bool) -> np.ndarray:
    """The largest connected part of a mask, uint8 of 0 and 1, its holes filled or not."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4, ltype=cv2.CV_16U)
    if len(stats) > 1:
        mask = (labels == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])).view(np.uint8)
    if filled:
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        mask = cv2.drawContours(np.zeros_like(mask), outlines, -1, 1, cv2.FILLED)
    return mask


def _compactness(mask: np.ndarray) -> float:
    """4 pi area / outline^2, where a side along the photo's rim, which cuts it off, counts more."""
    padded = np.pad(mask, 1)
    outline = sum(np.count_nonzero(np.diff(padded, axis=axis)) for axis in (0, 1))
    rim = sum(int(side.sum()) for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    return float(4 * np.pi * cv2.countNonZero(mask) / max(outline + RIM * rim, 1) ** 2)


# ---- cutting out


def draw_piece(rng: np.random.Generator, photo: Photo, size: int) -> Piece:
    """Cuts a piece out that covers a log-uniform share of the picture."""
    area = size * size * log_uniform(rng, *LAYER_AREA)
    wanted = area / log_uniform(rng, *SCALE) ** 2  # pixels of the photo
    region = _draw_region(rng, photo, wanted)
    return _cut(photo, region, area)


def _cut(photo: Photo, region: np.ndarray, area: float) -> Piece:
    """Cuts a region out along the edges of the photo's colours, to fill `area` pixels.

    What is going to be shrunk is shrunk first, by area averaging. Patches that hardly differ from
    those around them, most of which would be lost, keep their own outline.
    """
    box, pixels = bounding_box(region, photo.pixels)
    grid = region[box]
    have = max(cv2.countNonZero(grid) * pixels.size / 3 / grid.size, 1)
    shrunk = min(np.sqrt(area / have), 1)
    height, width = (
        max(round(side * shrunk), cells)
        for side, cells in zip(pixels.shape[:2], grid.shape, strict=True)
    )
    pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    mask = snap(pixels, grid)
    largest = _solid((mask > TIGHT).view(np.uint8), filled=False)
    if cv2.countNonZero(largest) < have * shrunk**2 / 2:
        mask = cv2.resize(grid.astype(np.float32), (width, height))
        largest = _solid((mask > TIGHT).view(np.uint8), filled=False)
    mask *= cv2.dilate(largest, _AROUND)
    scale = np.sqrt(area / max(cv2.countNonZero(largest), 1))
    most = min(1.25 * max(np.sqrt(area / have), 1), MOST)  # photos of few pixels
    return Piece(pixels, mask, float(min(scale, most)))


def bounding_box(mask: np.ndarray, pixels: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray]:
    """A mask's bounding box and margin, in patches, and the pixels of it."""
    x, y, w, h = cv2.boundingRect(mask)
    rows = slice(max(y - MARGIN, 0), min(y + h + MARGIN, mask.shape[0]))
    cols = slice(max(x - MARGIN, 0), min(x + w + MARGIN, mask.shape[1]))
    return (rows, cols), pixels[pixel_box((rows, cols), mask.shape, pixels.shape)]


def pixel_box(
    box: tuple[slice, slice], grid: tuple[int, ...], size: tuple[int, ...]
) -> tuple[slice, ...]:
    """A box of patches in pixels."""
    return tuple(
        slice(round(span.start * pixels / cells), round(span.stop * pixels / cells))
        for span, cells, pixels in zip(box, grid[:2], size[:2], strict=True)
    )


def sharpen(mask: np.ndarray, level: float) -> np.ndarray:
    """A snapped mask whose border, where it is `level`, becomes one pixel wide; float32, 0..1."""
    across, down = (cv2.Sobel(mask, -1, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    slope = np.maximum(cv2.magnitude(across, down), FLAT)
    return np.clip((mask - level) / slope + 0.5, 0, 1)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number of the range, whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


# ---- placing and light


def place(rng: np.random.Generator, piece: Piece, size: int) -> tuple[np.ndarray, Layer] | None:
    """Turns and moves a piece; its pixels uint8 [h, w, 3], and the layer. None: it does not fit."""
    matrix, (width, height) = _turn(rng, piece)
    alpha = cv2.warpAffine(piece.mask, matrix[:2], (width, height))
    alpha = cv2.GaussianBlur(sharpen(alpha, TIGHT), (0, 0), rng.uniform(0.3, 0.6))
    alpha[alpha < 1 / 255] = 0
    x, y, w, h = cv2.boundingRect((alpha > 0).view(np.uint8))
    total = alpha.sum()
    for _ in range(2 * TRIES):
        left, top = (round(rng.uniform(-0.6 * side, size - 0.4 * side)) for side in (w, h))
        rows = slice(max(top, 0), min(top + h, size))
        cols = slice(max(left, 0), min(left + w, size))
        moved = y - top, x - left
        seen = alpha[rows.start + moved[0] : rows.stop + moved[0]]
        seen = seen[:, cols.start + moved[1] : cols.stop + moved[1]]
        if seen.sum() >= max(INSIDE * total, 1):
            break
    else:
        return None
    matrix[:2, 2] -= cols.start + moved[1], rows.start + moved[0]
    pixels = cv2.warpAffine(
        piece.pixels, matrix[:2], seen.shape[::-1], borderMode=cv2.BORDER_REPLICATE
    )
    return pixels, Layer((rows, cols), np.ascontiguousarray(seen))


def _turn(rng: np.random.Generator, piece: Piece) -> tuple[np.ndarray, tuple[int, int]]:
    """A matrix float64 [3, 3] from the piece to a frame that holds all of it, and the frame."""
    height, width = piece.mask.shape
    angle, mirror = np.deg2rad(rng.uniform(-ANGLE, ANGLE)), rng.choice((-1.0, 1.0))
    cos, sin = piece.scale * np.cos(angle), piece.scale * np.sin(angle)
    matrix = np.array([[mirror * cos, -sin, 0], [mirror * sin, cos, 0], [0, 0, 1.0]])
    corners = matrix[:2, :2] @ np.array([[0, width, 0, width], [0, 0, height, height]])
    matrix[:2, 2] = (matrix[:2, :2] @ (0.5, 0.5)) - corners.min(1) - 0.5
    across, down = np.ceil(np.ptp(corners, 1)).astype(int)
    return matrix, (int(across), int(down))


def relight(
    rng: np.random.Generator, pixels: np.ndarray, place: np.ndarray, alpha: np.ndarray
) -> np.ndarray:
    """Other light and sharpness for a layer, in part that of its place; uint8 [h, w, 3]."""
    if rng.random() < BLURRED:
        pixels = _blur(pixels, alpha, rng.uniform(0.1, 1.2))
    levels = np.linspace(0, 1, 256)[:, None] ** np.exp(rng.normal(0, 0.15))
    levels = (levels - 0.5) * np.exp(rng.normal(0, 0.15)) + 0.5 + rng.normal(0, 0.06)
    levels = levels * np.exp(rng.normal(0, 0.05, 3))
    pixels = cv2.LUT(pixels, _table(255 * levels))
    if rng.random() < MATCHED:
        lab, there = (cv2.cvtColor(part, cv2.COLOR_RGB2LAB) for part in (pixels, place))
        inside = (alpha > 0.5).view(np.uint8)
        mean, spread = (v[:, 0] for v in cv2.meanStdDev(lab, mask=inside))
        to_mean, to_spread = (v[:, 0] for v in cv2.meanStdDev(there, mask=inside))
        share = rng.uniform(0.2, 0.9)
        gain = np.clip((to_spread + 4) / (spread + 4), 0.4, 2.5) ** share
        levels = (np.arange(256)[:, None] - mean) * gain + mean + share * (to_mean - mean)
        pixels = cv2.cvtColor(cv2.LUT(lab, _table(levels)), cv2.COLOR_LAB2RGB)
    return pixels


def _blur(pixels: np.ndarray, alpha: np.ndarray, sigma: float) -> np.ndarray:
    """Blurs a layer so that what it was cut out of does not bleed into it."""
    weights = alpha[..., None] + np.float32(1e-3)
    both = cv2.GaussianBlur(np.concatenate([pixels * weights, weights], axis=2), (0, 0), sigma)
    return np.rint(both[..., :3] / both[..., 3:]).astype(np.uint8)


def _table(levels: np.ndarray) -> np.ndarray:
    """For cv2.LUT: float64 [256, 3] -> uint8 [1, 256, 3]."""
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)[None]
