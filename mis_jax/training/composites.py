"""Cut-and-paste pictures with exactly known borders, to train networks that correct evidence.

Nodes of the trees of some photos are cut out along the edges of their colours (pieces.py) and
pasted over a crop of another photo. What is seen of a layer is known to a fraction of a pixel;
nodes of the crop's own tree, less what covers them, are targets, too. Everything happens at the
size of the picture, in calls that release the GIL; set `cv2.setNumThreads(0)` around it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from mis_jax.datasets import images
from mis_jax.proposals import Tree, snap
from mis_jax.records import Record
from mis_jax.training import pieces
from mis_jax.training.pieces import Layer, Photo

LAYER, NODE, PAIR = 0, 1, 2  # kinds of targets
CROP = (0.55, 1.0)  # of the largest square of a photo, the background's
ENLARGED = 1.3  # background pixels a photo pixel at most, except where the whole photo has too few
NODE_AREA = (0.01, 0.6)  # of the picture, what is seen of it, log-uniform
SEEN = 0.008  # of the picture, the least that is seen of a target
OWN, TWICE, BY_HAND, COMPRESSED, HAZY = 0.1, 0.25, 0.5, 0.7, 0.3  # probabilities
SAME = 0.9  # IoU of targets above which they are one
TRIES = 8  # to draw a target that is not there yet


class Composite(NamedTuple):
    """A picture and some targets in it, fields as `compose` explains them."""

    image: np.ndarray  # uint8 [S, S, 3] RGB
    targets: np.ndarray  # uint8 [M, S/2, S/2]
    kinds: np.ndarray  # int8 [M]


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
        Some are drawn as a hand might (`_by_hand`), the others exact to a fraction of a pixel.

    Raises:
        InputError: a record whose image cannot be decoded.
    """
    photos = [Photo(record) for record in records]
    ground = _background(rng, photos[0], size)
    canvas, layers = _paste(rng, ground.image, photos)
    parts, clear = visible(layers, size)
    targets, kinds = _targets(rng, ground, parts, clear, shares, count)
    drawn = np.stack([_by_hand(rng, x) if rng.random() < BY_HAND else x for x in targets])
    return Composite(_develop(rng, canvas), drawn, kinds)


# ---- background


def _background(rng: np.random.Generator, photo: Photo, size: int) -> _Ground:
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
    rng: np.random.Generator, image: np.ndarray, photos: Sequence[Photo]
) -> tuple[np.ndarray, list[Layer]]:
    """Pastes 1 to 5 pieces over a picture, back to front; returns it and the layers."""
    canvas, layers = image.copy(), []
    count = 1 + rng.binomial(4, 0.5)
    drawn = [pieces.draw_piece(rng, _choose(rng, photos), len(image)) for _ in range(count)]
    if count > 1 and rng.random() < TWICE:
        first, second = rng.permutation(count)[:2]
        drawn[first] = drawn[second]
    for piece in drawn:
        placed = pieces.place(rng, piece, len(image))
        if placed is not None:
            pixels, layer = placed
            place = canvas[layer.box]
            pixels = pieces.relight(rng, pixels, place, layer.alpha)
            place[:] = cv2.blendLinear(pixels, place, layer.alpha, 1 - layer.alpha)
            layers.append(layer)
    return canvas, layers


def _choose(rng: np.random.Generator, photos: Sequence[Photo]) -> Photo:
    """The photo of a piece, now and then the background's own."""
    if len(photos) == 1 or rng.random() < OWN:
        return photos[0]
    return photos[int(rng.integers(1, len(photos)))]


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
    level = np.clip(level, 0.2, 0.8)  # beyond, and less steep, what is far from the border changes
    drawn = np.clip((share - level) * max(2 * sigma, 2.5) + 0.5, 0, 1)
    found = cv2.convertScaleAbs(drawn, alpha=255)
    return found if _proper(found) else cells


def _draw_cells(
    rng: np.random.Generator, ground: _Ground, areas: np.ndarray, clear: np.ndarray, kind: int
) -> np.ndarray | None:
    """A node or pair as a target; None if there is none, or it is hardly seen."""
    wanted = clear.size * pieces.log_uniform(rng, *NODE_AREA)
    if kind == PAIR:
        mask = pieces.draw_pair(rng, ground.tree, areas, wanted)
    else:
        mask = ground.tree.mask(pieces.draw_node(rng, areas, wanted))
    if mask is None:
        return None
    grid = ground.show(mask.view(np.uint8))
    part = np.zeros_like(clear)
    box, pixels = pieces.bounding_box(grid, ground.image)
    rows, cols = pieces.pixel_box(box, grid.shape, clear.shape)
    if not pixels.size:
        return None
    part[rows, cols] = pieces.sharpen(snap(pixels, _no_finer(grid[box], pixels)), 0.5)
    cells = _cells(part * clear)
    return cells if _proper(cells) else None


def _no_finer(grid: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Patches uint8 [h, w] of 0 and 1, or, where they are smaller than pixels, shares of these."""
    size = [min(sides) for sides in zip(grid.shape, pixels.shape, strict=False)]
    if size == list(grid.shape):
        return grid
    return cv2.resize(grid.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)


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
