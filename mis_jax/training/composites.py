"""Cut-and-paste pictures with exactly known borders, to train networks that correct evidence.

Nodes of the trees of some photos are cut out along the edges of their colours and pasted over a
crop of another photo. What is seen of a layer is known to a fraction of a pixel; nodes of the
crop's own tree, less what covers them, are targets, too. Everything happens at the size of the
picture, boxes only, in calls that release the GIL; set `cv2.setNumThreads(0)` around it.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from mis_jax.datasets import images
from mis_jax.errors import InputError
from mis_jax.proposals import Tree, snap
from mis_jax.records import Record

LAYER, NODE, PAIR = 0, 1, 2  # kinds of targets
CROP = (0.55, 1.0)  # of the largest square of a photo, the background's
ENLARGED = 1.3  # background pixels a photo pixel at most, except where the whole photo has too few
LAYER_AREA = (0.01, 0.6)  # of the picture, log-uniform
NODE_AREA = (0.01, 0.6)  # of the picture, what is seen of it, log-uniform
SEEN = 0.008  # of the picture, the least that is seen of a target
SCALE = (0.5, 1.5)  # of pieces, where the tree has nodes for it
MOST = 3.0  # the most that any piece is enlarged
ANGLE = 20.0  # degrees, largest turn of a piece either way
INSIDE = 0.6  # of a piece, the least that lies within the picture
OWN, UNION, TWICE, FILLED = 0.1, 0.2, 0.25, 0.5  # probabilities
BY_HAND = 0.5  # probability
BLURRED, MATCHED, COMPRESSED, HAZY = 0.5, 0.5, 0.7, 0.3  # probabilities
RIM = 5.0  # what a side of a patch along the rim adds to its outline of 1
SOLID = 0.15  # 4 pi area / outline^2 of a piece; a disc of patches has 0.6
CANDIDATES = 4  # nodes of which a piece is the one that stands out most
SAME = 0.9  # IoU of targets above which they are one
TRIES = 8
MARGIN = 4  # patches around a node that its snapped mask depends on
FLAT = 1 / 16  # a snapped mask's slope per pixel below which its border is left softer than a pixel
TIGHT = 0.6  # of a snapped mask, where a piece ends: a little inside, so that no halo is pasted


class Composite(NamedTuple):
    """A picture and some targets in it, fields as `compose` explains them."""

    image: np.ndarray  # uint8 [S, S, 3] RGB
    targets: np.ndarray  # uint8 [M, S/2, S/2]
    kinds: np.ndarray  # int8 [M]


class _Photo:
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


class _Ground(NamedTuple):
    """The background: what the picture shows before anything is pasted."""

    image: np.ndarray  # uint8 [S, S, 3]
    tree: Tree
    rows: slice  # patches of the tree's grid that it shows
    cols: slice
    mirrored: bool

    def show(self, values: np.ndarray) -> np.ndarray:
        """What of values on the tree's grid is seen, as the picture shows it."""
        part = values[self.rows, self.cols]
        return part[:, ::-1] if self.mirrored else part


class _Piece(NamedTuple):
    """A part of a photo that was cut out."""

    pixels: np.ndarray  # uint8 [h, w, 3]
    mask: np.ndarray  # float32 [h, w], 0..1, steep at its border, which is where it is 0.5
    scale: float  # to enlarge it by


class Layer(NamedTuple):
    """A piece in its place."""

    box: tuple[slice, slice]  # rows and columns of the picture
    alpha: np.ndarray  # float32 [h, w] of the box, 0..1


def compose(
    rng: np.random.Generator,
    records: Sequence[Record],
    size: int,
    shares: tuple[float, float, float],
    count: int,
) -> Composite:
    """Draws a picture of several photos, and targets in it.

    Args:
        rng: the only source of randomness.
        records: with trees. The first is the background, the others give the pieces; those that
            are not used are not decoded.
        size: S, the side of the picture, pixels, even.
        shares: how likely a target is a layer, a node of the background's tree and a pair of nodes
            that touch; what the picture does not have falls to the others.
        count: M, the number of targets.

    Returns:
        image uint8 [S, S, 3] RGB; targets uint8 [M, S/2, S/2], the share, of 255, of each cell of
        2 x 2 pixels that the target holds; kinds int8 [M], LAYER, NODE or PAIR. Targets differ,
        except that layers come again where there are too few, and none is empty or everything.

    Raises:
        InputError: a record whose image cannot be decoded.
    """
    photos = [_Photo(record) for record in records]
    ground = _background(rng, photos[0], size)
    canvas, layers = _paste(rng, ground.image, photos)
    parts, clear = visible(layers, size)
    targets, kinds = _targets(rng, ground, parts, clear, shares, count)
    drawn = np.stack([_by_hand(rng, x) if rng.random() < BY_HAND else x for x in targets])
    return Composite(_develop(rng, canvas), drawn, kinds)


# ---- background


def _background(rng: np.random.Generator, photo: _Photo, size: int) -> _Ground:
    """A square crop that begins and ends between patches, so that its tree's nodes fit it."""
    short = min(photo.size)
    side = min(max(rng.uniform(*CROP) * short, size / ENLARGED), short)
    spans = [_span(rng, side, *sides) for sides in zip(photo.size, photo.tree.grid, strict=True)]
    (rows, top, bottom), (cols, left, right) = spans
    shown = photo.pixels[top:bottom, left:right]
    shrinks = min(shown.shape[:2]) > size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    image = cv2.resize(shown, (size, size), interpolation=method)
    mirrored = bool(rng.random() < 0.5)
    return _Ground(image[:, ::-1].copy() if mirrored else image, photo.tree, rows, cols, mirrored)


def _span(
    rng: np.random.Generator, side: float, pixels: int, patches: int
) -> tuple[slice, int, int]:
    """Patches of a crop along one axis, and its first and last pixel (exclusive)."""
    number = min(max(round(side * patches / pixels), 2), patches)
    first = int(rng.integers(patches - number + 1))
    start, stop = (round(end * pixels / patches) for end in (first, first + number))
    return slice(first, first + number), start, stop


# ---- layers


def _paste(
    rng: np.random.Generator, image: np.ndarray, photos: Sequence[_Photo]
) -> tuple[np.ndarray, list[Layer]]:
    """Pastes 1 to 5 pieces over a picture, back to front; returns it and the layers."""
    canvas, layers = image.copy(), []
    pieces = [
        _draw_piece(rng, _choose(rng, photos), len(image)) for _ in range(1 + rng.binomial(4, 0.5))
    ]
    if len(pieces) > 1 and rng.random() < TWICE:
        first, second = rng.permutation(len(pieces))[:2]
        pieces[first] = pieces[second]
    for piece in pieces:
        placed = _place(rng, piece, len(image))
        if placed is not None:
            pixels, layer = placed
            place = canvas[layer.box]
            pixels = _light(rng, pixels, place, layer.alpha)
            place[:] = cv2.blendLinear(pixels, place, layer.alpha, 1 - layer.alpha)
            layers.append(layer)
    return canvas, layers


def _choose(rng: np.random.Generator, photos: Sequence[_Photo]) -> _Photo:
    """The photo of a piece, now and then the background's own."""
    if len(photos) == 1 or rng.random() < OWN:
        return photos[0]
    return photos[int(rng.integers(1, len(photos)))]


def _draw_piece(rng: np.random.Generator, photo: _Photo, size: int) -> _Piece:
    """Cuts a piece out that covers a log-uniform share of the picture."""
    area = size * size * _log_uniform(rng, *LAYER_AREA)
    wanted = area / _log_uniform(rng, *SCALE) ** 2  # pixels of the photo
    region = _draw_region(rng, photo, wanted)
    return _cut(photo, region, area)


def _draw_region(rng: np.random.Generator, photo: _Photo, wanted: float) -> np.ndarray:
    """A solid region of about `wanted` pixels, or the best of some: uint8 [h, w] of 0 and 1."""
    tree = photo.tree
    areas = tree.areas()
    wanted *= tree.n / (photo.size[0] * photo.size[1])
    best, most = np.zeros(tree.grid, np.uint8), -1.0
    for _ in range(TRIES):
        filled = bool(rng.random() < FILLED)
        if rng.random() < UNION:
            mask = _draw_pair(rng, tree, areas, wanted)
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


def _cut(photo: _Photo, region: np.ndarray, area: float) -> _Piece:
    """Cuts a region out along the edges of the photo's colours, to fill `area` pixels.

    What is going to be shrunk is shrunk first, by area averaging. Patches that hardly differ from
    those around them, most of which would be lost, keep their own outline.
    """
    box, pixels = _box(region, photo.pixels)
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
    return _Piece(pixels, mask, float(min(scale, most)))


def _place(rng: np.random.Generator, piece: _Piece, size: int) -> tuple[np.ndarray, Layer] | None:
    """Turns and moves a piece; its pixels uint8 [h, w, 3], and the layer. None: it does not fit."""
    matrix, (width, height) = _turn(rng, piece)
    alpha = cv2.warpAffine(piece.mask, matrix[:2], (width, height))
    alpha = cv2.GaussianBlur(_sharpen(alpha, TIGHT), (0, 0), rng.uniform(0.3, 0.6))
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


def _turn(rng: np.random.Generator, piece: _Piece) -> tuple[np.ndarray, tuple[int, int]]:
    """A matrix float64 [3, 3] from the piece to a frame that holds all of it, and the frame."""
    height, width = piece.mask.shape
    angle, mirror = np.deg2rad(rng.uniform(-ANGLE, ANGLE)), rng.choice((-1.0, 1.0))
    cos, sin = piece.scale * np.cos(angle), piece.scale * np.sin(angle)
    matrix = np.array([[mirror * cos, -sin, 0], [mirror * sin, cos, 0], [0, 0, 1.0]])
    corners = matrix[:2, :2] @ np.array([[0, width, 0, width], [0, 0, height, height]])
    matrix[:2, 2] = (matrix[:2, :2] @ (0.5, 0.5)) - corners.min(1) - 0.5
    across, down = np.ceil(np.ptp(corners, 1)).astype(int)
    return matrix, (int(across), int(down))


def _light(
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


def visible(layers: Sequence[Layer], size: int) -> tuple[list[np.ndarray], np.ndarray]:
    """What is seen of each layer, and of what is behind them: float32 [S, S], together 1."""
    clear = np.ones((size, size), np.float32)
    parts = []
    for layer in reversed(layers):
        part = np.zeros((size, size), np.float32)
        np.multiply(clear[layer.box], layer.alpha, out=part[layer.box])
        clear[layer.box] -= part[layer.box]
        parts.append(part)
    return parts[::-1], clear


# ---- targets


def _targets(
    rng: np.random.Generator,
    ground: _Ground,
    parts: Sequence[np.ndarray],
    clear: np.ndarray,
    shares: tuple[float, float, float],
    count: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Targets uint8 [M, S/2, S/2] and kinds int8 [M]."""
    layers = [cells for cells in map(_cells, parts) if _proper(cells)]
    rng.shuffle(layers)
    waiting: list[np.ndarray] = []
    areas = _seen_areas(ground, clear)
    found: list[tuple[np.ndarray, int]] = []
    for _ in range(count):
        weights = np.array(shares) + 1e-6
        for _ in range(TRIES):
            weights[LAYER] *= bool(layers)
            kind = int(rng.choice(3, p=weights / weights.sum()))
            if kind == LAYER:
                waiting = waiting or layers[:]  # one after the other, again and again
                found.append((waiting.pop(), LAYER))
                break
            cells = _draw_cells(rng, ground, areas, clear, kind)
            if cells is not None and all(_overlap(cells, other) < SAME for other, _ in found):
                found.append((cells, kind))
                break
            weights[kind] /= 4
    if not found:  # a photo of hardly any patches
        half = np.zeros((len(clear) // 2,) * 2, np.uint8)
        half[:, : len(half) // 2] = 255
        found.append((half, NODE))
    found += [found[rng.integers(len(found))] for _ in range(count - len(found))]
    targets, kinds = zip(*found, strict=True)
    return np.stack(targets), np.array(kinds, np.int8)


def _by_hand(rng: np.random.Generator, cells: np.ndarray) -> np.ndarray:
    """A target as a hand might draw it: smoother, and all a bit too large or too small.

    Then a click on a sliver of the border says something of the rest of it.
    """
    sigma = rng.uniform(0.5, 2.0)
    share = cv2.GaussianBlur(cells, (0, 0), sigma).astype(np.float32) / 255
    coarse = rng.normal(0.0, 0.1, (8, 8)).astype(np.float32)
    level = rng.uniform(0.25, 0.75) + cv2.resize(coarse, cells.shape, interpolation=cv2.INTER_CUBIC)
    drawn = np.clip((share - level) * (2 * sigma) + 0.5, 0, 1)
    found = cv2.convertScaleAbs(drawn, alpha=255)
    return found if _proper(found) else cells


def _draw_cells(
    rng: np.random.Generator, ground: _Ground, areas: np.ndarray, clear: np.ndarray, kind: int
) -> np.ndarray | None:
    """A node or pair as a target; None if there is none, or it is hardly seen."""
    wanted = clear.size * _log_uniform(rng, *NODE_AREA)
    if kind == PAIR:
        mask = _draw_pair(rng, ground.tree, areas, wanted)
    else:
        mask = ground.tree.mask(_draw_node(rng, areas, wanted))
    if mask is None:
        return None
    grid = ground.show(mask.view(np.uint8))
    part = np.zeros_like(clear)
    box, pixels = _box(grid, ground.image)
    rows, cols = _pixel_box(box, grid.shape, clear.shape)
    part[rows, cols] = _sharpen(snap(pixels, grid[box]), 0.5)
    cells = _cells(part * clear)
    return cells if _proper(cells) else None


def _seen_areas(ground: _Ground, clear: np.ndarray) -> np.ndarray:
    """Pixels of the picture that show each node, int64 [2n - 1]."""
    values = np.zeros(ground.tree.grid, np.float32)
    part = ground.show(values)
    share = cv2.resize(clear, part.shape[::-1], interpolation=cv2.INTER_AREA)
    part[:] = np.rint(share * (clear.size / part.size))
    return ground.tree.sums(values.ravel())


def _cells(part: np.ndarray) -> np.ndarray:
    """float32 [S, S], 0..1 -> uint8 [S/2, S/2]: means of 2 x 2 pixels."""
    half = cv2.resize(part, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return cv2.convertScaleAbs(half, alpha=255)


def _proper(cells: np.ndarray) -> bool:
    """Whether enough of a target is seen, and of what is not the target."""
    return SEEN <= cv2.mean(cells)[0] / 255 <= 1 - SEEN


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two targets."""
    return cv2.sumElems(cv2.min(a, b))[0] / max(cv2.sumElems(cv2.max(a, b))[0], 1)


# ---- nodes


def _draw_node(rng: np.random.Generator, areas: np.ndarray, wanted: float) -> int:
    """A node of about the area that is wanted, and not of all there is."""
    near = (areas > wanted / 1.2) & (areas < min(wanted * 1.2, 0.95 * areas[-1]))
    nodes = np.flatnonzero(near)
    if len(nodes):
        return int(nodes[rng.integers(len(nodes))])
    far = np.abs(np.log(np.maximum(areas, 1e-3) / wanted))
    far[areas >= 0.95 * areas[-1]] = np.inf
    return int(np.argmin(far))


def _draw_thing(rng: np.random.Generator, tree: Tree, areas: np.ndarray, wanted: float) -> int:
    """Of a few such nodes the one that differs most from what is around it, for how it does within.

    That is by the cost of merging it, over that of its own merge.
    """
    nodes = np.array([_draw_node(rng, areas, wanted) for _ in range(CANDIDATES)])
    nodes = np.clip(nodes, tree.n, max(tree.root - 1, tree.n))  # those with a merge above and below
    costs = tree.costs + 1e-6
    own, above = costs[nodes - tree.n], costs[tree.parents()[nodes] - tree.n]
    return int(nodes[np.argmax(above / own)])


def _draw_pair(
    rng: np.random.Generator, tree: Tree, areas: np.ndarray, wanted: float
) -> np.ndarray | None:
    """The union of two nodes that touch, bool [h, w], of about the area wanted; None: not found.

    Neither is more than four times as large as the other, and the two make no node together.
    """
    node = _draw_node(rng, areas, wanted * rng.uniform(0.25, 0.75))
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


_AROUND = np.ones((5, 5), np.uint8)
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


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


def _box(mask: np.ndarray, pixels: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray]:
    """A mask's bounding box and margin, in patches, and the pixels of it."""
    x, y, w, h = cv2.boundingRect(mask)
    rows = slice(max(y - MARGIN, 0), min(y + h + MARGIN, mask.shape[0]))
    cols = slice(max(x - MARGIN, 0), min(x + w + MARGIN, mask.shape[1]))
    return (rows, cols), pixels[_pixel_box((rows, cols), mask.shape, pixels.shape)]


def _pixel_box(
    box: tuple[slice, slice], grid: tuple[int, ...], size: tuple[int, ...]
) -> tuple[slice, ...]:
    """A box of patches in pixels."""
    return tuple(
        slice(round(span.start * pixels / cells), round(span.stop * pixels / cells))
        for span, cells, pixels in zip(box, grid[:2], size[:2], strict=True)
    )


def _sharpen(mask: np.ndarray, level: float) -> np.ndarray:
    """A snapped mask whose border, where it is `level`, becomes one pixel wide; float32, 0..1."""
    across, down = (cv2.Sobel(mask, -1, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    slope = np.maximum(cv2.magnitude(across, down), FLAT)
    return np.clip((mask - level) / slope + 0.5, 0, 1)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


# ---- the whole picture


def _develop(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Blur, noise and compression over everything, so that pasting leaves no trace of its own."""
    if rng.random() < HAZY:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.2, 0.7))
    image = _add_noise(image, rng, rng.uniform(0, 4))
    if rng.random() < COMPRESSED:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 96))]
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
        image = images.decode(encoded.tobytes())
    return image


def _add_noise(image: np.ndarray, rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Adds normal noise, its values by a table of the quantiles of random bytes."""
    grains = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
    table = np.rint(128 + sigma * _QUANTILES).astype(np.uint8)
    return cv2.addWeighted(image, 1, cv2.LUT(grains, table), 1, -128)


_QUANTILES = np.sort(np.random.default_rng(0).standard_normal(256 * 64)).reshape(256, 64).mean(1)
