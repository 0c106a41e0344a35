"""What an image and its clicks say about each cell of a grid: named channels, to weigh or to draw.

A click is not only a label of one pixel. It answers the mask that was shown, and names its worst
mistake: the mistake is a region of the image, the click sits deep in it, and no other mistake is
much deeper. That gives two channels. `mistake` says which cells the named one holds, out of the
merge trees: its candidates are the nodes above the clicked patch, less what was already right.
`shown` says how sure everything else has become. `colours` are those of the clicks, and `certain`
is what no longer is in question. A cut weighs them (fused.py); a network may, or a page.

A mask is shown before the first click as well, the empty one, so all clicks are read alike.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numba import njit
from scipy.special import logit

from mis_jax.features import descriptor
from mis_jax.predictors.classics.colours import object_likelihood
from mis_jax.predictors.classics.graph_cut import likeness
from mis_jax.predictors.classics.seeds import seed_map, with_frame
from mis_jax.predictors.clicks import Click
from mis_jax.predictors.merge_trees import cut_probabilities
from mis_jax.proposals import Tree

CELL = 2  # pixels
STRIDES = (CELL, 3, 4)  # pixels, of the patches of each tree

# Chosen on every fifth development region, by clicks in the deepest point and by random ones;
# FIRST_SIZE on pieces of photos pasted into others, as far as it cost nothing on these.
CUT_ODDS = 0.003  # as of merge_trees.py
CONTRAST = 0.5  # as of graph_cut.py
LIKELY = 1.5  # power of how likely a node is a region at all
CENTRAL = 4.0  # power of the click's depth in a mistake over that of its deepest point
FIRST_SIZE = 0.3  # power of the area, at the first click: things are larger than their parts
FRAMED = 4.0  # log-odds against a mistake whose outline is the image's frame
SURE = 0.02  # least probability that a cell is the mistake's, and that it is not
DEEPEST = 4.0  # depths of the click, from which on other mistakes are no less likely still
FIRST_RADIUS = 8.0  # pixels around the first click that are certain
LARGEST_RADIUS = 16.0  # and the most around others
LEAST = 1e-4  # probability of a node below which it is no candidate
REGIONS = (CUT_ODDS, LIKELY, CENTRAL, FIRST_SIZE, FRAMED, SURE, LEAST)
SETTINGS = (*STRIDES, *REGIONS, CONTRAST, DEEPEST, FIRST_RADIUS, LARGEST_RADIUS)  # for the record


class Answered(NamedTuple):
    """A click, and its `depth` in what the mask then shown had wrong: pixels, or infinite."""

    click: Click
    depth: float


class Channels(NamedTuple):
    """Above 0 they speak for the object. Each is [h, w] of a `Ground`'s grid.

    Attributes:
      mistake: float32, log-odds that the last click's mistake holds the cell, taken negative where
        it is surplus; 0 where the mask shown was as the click says.
      shown: float32, depth of a cell in the mask shown or, taken negative, outside it, in depths of
        the last click, up to DEEPEST; 0 before the first click.
      colours: float32, log-odds of the cell's colour, by those of the clicks and of the frame.
      certain: int8, 1 object, 0 background, -1 neither: what is nearer to a click than the border
        of the mask that it answers, and what the mask shown has as the last click says.
    """

    mistake: np.ndarray
    shown: np.ndarray
    colours: np.ndarray
    certain: np.ndarray


@dataclasses.dataclass(frozen=True)
class Ground:
    """What is known of an image before any click: its merge trees and colours.

    Attributes:
      image: uint8 RGB [H, W, 3].
      trees: over patches of STRIDES, each with `cut_probabilities`.
      colours: float32 [h, w, 3] in 0..1, means of the cells.
      links: float32 [h, w, 8] in 0..1, how alike neighbours are (`graph_cut.likeness`) in the
        smoothed features that the trees are made of.
    """

    image: np.ndarray
    trees: tuple[tuple[Tree, np.ndarray], ...]
    colours: np.ndarray
    links: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray) -> "Ground":
        """That of an image, uint8 RGB [H, W, 3]."""
        made = [descriptor.merge_tree(image, stride) for stride in STRIDES]
        trees = [
            (tree, cut_probabilities(tree, CUT_ODDS * stride))
            for stride, (tree, _) in zip(STRIDES, made, strict=True)
        ]
        size = trees[0][0].grid[::-1]
        colours = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        return cls(image, tuple(trees), colours, likeness(made[0][1], CONTRAST))

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W), pixels."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w), rows and columns of cells."""
        return self.trees[0][0].grid

    def cell(self, click: Click) -> tuple[int, int]:
        """Row and column of the cell that holds a click."""
        return divmod(self.trees[0][0].patch_at(click.row, click.col, *self.shape), self.grid[1])


def depth(ground: Ground, shown: np.ndarray, click: Click) -> float:
    """How deep a click is in what the mask shown, bool [h, w], has wrong: pixels.

    At least half a cell; infinite where nothing is right.
    """
    wrong = shown != click.positive
    if wrong.all():
        return np.inf
    return float(max(depths(wrong)[ground.cell(click)], 0.5) * CELL)


def channels(ground: Ground, answered: Sequence[Answered], shown: np.ndarray) -> Channels:
    """The evidence of clicks on an image.

    Args:
      ground: of the image.
      answered: the clicks in pixels, at least one, the last not answered yet.
      shown: bool [h, w], cells of the mask that the last click answers.
    """
    last = answered[-1]
    seeds = discs(ground, answered)
    certain = np.where(shown == last.click.positive, np.int8(last.click.positive), seeds)
    kept = np.zeros(ground.grid, np.float32)
    if np.isfinite(last.depth):
        deep = (depths(shown) - depths(~shown)) / max(last.depth / CELL, 1)
        kept = np.clip(deep, -DEEPEST, DEEPEST)
    likely = logit(object_likelihood(ground.colours, with_frame(seeds)))
    return Channels(mistake(ground, answered, shown), kept, likely, certain)


def discs(ground: Ground, answered: Sequence[Answered]) -> np.ndarray:
    """What is nearer to a click than it is deep, as of `seed_map`: int8 [h, w]."""
    clicks = [(*ground.cell(click), click.positive) for click, _ in answered]
    deep = [min(d, LARGEST_RADIUS) if np.isfinite(d) else FIRST_RADIUS for _, d in answered]
    return seed_map(clicks, ground.grid, [pixels / CELL for pixels in deep])


def mistake(ground: Ground, answered: Sequence[Answered], shown: np.ndarray) -> np.ndarray:
    """The channel of that name; see `Channels`, and `channels` for the arguments.

    A candidate is a node above the clicked patch, less what the mask shown has right; it holds no
    click that says otherwise. Its probability is in proportion to

        (of the node to be a region of the random cut)^LIKELY * (depth of the click in the candidate
        / greatest depth there)^CENTRAL * exp(-FRAMED * share of the outline on the frame),

    and at the first click area^FIRST_SIZE. A cell's is that of the candidates that hold it, over
    all trees.
    """
    click = answered[-1].click
    wrong = shown != click.positive
    against = [c for c, _ in answered[:-1] if c.positive != click.positive]
    height, width = ground.grid
    per_tree = [
        _candidates(tree, cuts, ground.shape, click, against, wrong) for tree, cuts in ground.trees
    ]
    most = max(scores.max(initial=-np.inf) for scores, _ in per_tree)
    if most == -np.inf:
        return np.zeros(ground.grid, np.float32)
    total, found = 0.0, np.zeros(ground.grid, np.float32)
    for scores, levels in per_tree:
        chances = np.exp(scores - most)
        total += chances.sum()
        holding = np.append(np.cumsum(chances[::-1])[::-1], 0).astype(np.float32)
        held = holding[np.minimum(levels, len(chances))]
        found += cv2.resize(held, (width, height), interpolation=cv2.INTER_LINEAR)
    odds = logit(np.clip(found / np.float32(total), SURE, 1 - SURE))
    return np.where(wrong, odds if click.positive else -odds, np.float32(0))


def _candidates(
    tree: Tree,
    cuts: np.ndarray,
    shape: tuple[int, int],
    click: Click,
    against: Sequence[Click],
    wrong: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The candidates of one tree.

    Returns:
      the log of the weight of each node above the clicked patch, float64 [k], -inf if it is none;
      and which of them is the first to hold each patch, int32 [h, w] of the tree's grid, k if none.
    """
    height, width = tree.grid
    places = [divmod(tree.patch_at(c.row, c.col, *shape), width) for c in (click, *against)]
    path = tree.ancestors(places[0][0] * width + places[0][1])[:-1]
    levels = _levels(tree.merges, path).reshape(height, width)
    there = cv2.resize(wrong.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    there[places[0]] = True
    end = min((levels[place] for place in places[1:] if there[place]), default=len(path))
    region = cuts[path] * np.append(1, np.cumprod(1 - cuts[path]))[:-1]
    size = FIRST_SIZE if wrong.all() else 0
    scores = np.full(len(path), -np.inf)
    for k in np.flatnonzero(region[:end] >= LEAST):
        held = (levels <= k) & there
        away = depths(held)
        central = away[places[0]] / away.max()
        scores[k] = LIKELY * np.log(region[k]) + CENTRAL * np.log(central) - FRAMED * _framed(held)
        scores[k] += size * np.log(held.mean())
    return scores, levels


def depths(region: np.ndarray) -> np.ndarray:
    """Distance of each cell of a region, bool [h, w], to the nearest outside: float32 [h, w]."""
    padded = np.pad(region.view(np.uint8), 1)
    away: np.ndarray = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_5)
    return away[1:-1, 1:-1]


def _framed(region: np.ndarray) -> float:
    """The share of the outline of a region, bool [h, w], that is on the frame of the grid."""
    inner = np.count_nonzero(region[1:] != region[:-1])
    inner += np.count_nonzero(region[:, 1:] != region[:, :-1])
    edges = (region[0], region[-1], region[:, 0], region[:, -1])
    frame = sum(np.count_nonzero(edge) for edge in edges)
    return frame / (inner + frame)


@njit(nogil=True, cache=True)
def _levels(merges: np.ndarray, path: np.ndarray) -> np.ndarray:
    """The place in `path`, of nodes above one another, of the first to hold each leaf: int32 [n].

    It is the length of the path where none does.
    """
    n = len(merges) + 1
    levels = np.full(2 * n - 1, len(path), np.int32)
    for k in range(len(path)):
        levels[path[k]] = k
    for m in range(n - 2, -1, -1):
        for side in range(2):
            child = merges[m, side]
            levels[child] = min(levels[child], levels[n + m])
    return levels[:n]
