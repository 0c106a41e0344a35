"""Clicks on an image -> a mask, out of the image's merge trees alone: no network, no weights.

A tree is read as a random cut of the image into regions. The edge from a node to its parent is cut
with odds

    CUT_ODDS * stride * (cost of the parent's merge / mean cost of all merges) ** CUT_POWER,

patches that are still connected are one region, and each region is object with probability PRIOR,
independently of the others. A click says what its patch is, for certain, and what those around it
are, with a weight that falls off within a few patches, later where they look alike. Two passes over
the tree (sum-product) then give every patch's exact probability of being object, in O(n). The
log-odds of three trees, over patches of different size, are averaged: each has its own mistakes.

This is the rule "the largest ancestor of the positive clicks that holds no negative one" with its
granularity settled: after one click the region ends where unlike parts were merged, cuts between a
positive and a negative click lie at the costliest merges on the way, and each further click moves
them. What is finer than a patch no tree can say: a click that is less than one away from where the
mask is right already moves the mask's border alone, and where clicks of both kinds fall on one
patch, its pixels are those of the nearest. The answer depends on the list of clicks only.

The settings were chosen on made-up scenes (scenes.py), on pieces of one unlabelled photograph
pasted into another, and on pieces pasted elsewhere into the same one. On others of these it takes
fewer clicks than the plain rule (results/tree_predictor): NoC@90 of 2.5, 6.4 and 9.7 against 2.8,
8.4 and 12.9.
"""

import functools
import itertools
from collections.abc import Sequence

import cv2
import numpy as np
from numba import njit
from scipy.special import expit, logit

from mis_jax.datasets import images
from mis_jax.features import descriptor
from mis_jax.predictors import touch_ups, views
from mis_jax.predictors.click_list import THRESHOLD, ClickListPredictor
from mis_jax.predictors.clicks import Click
from mis_jax.predictors.zoom_in import Roi, crop
from mis_jax.proposals import Tree, snap

STRIDES = (2, 3, 4)  # pixels, of the patches of each tree; the first is the finest
MAX_SIDE = 448  # longer images are shrunk to it (views.py): the longest the settings come from
CUT_ODDS = 0.003  # a pixel of the stride, where a merge costs as much as the mean
CUT_POWER = 0.8
LEAST = 1e-6  # probability of a cut where merging cost nothing; of either label, when averaging
PRIOR = 0.25
NEAR_LOGIT = 1.0  # log-odds that a click adds to the patches next to it
NEAR_RADIUS = 0.015  # standard deviation of that weight, of the root of the image's area
LIKE_LOGIT = 0.3  # log-odds that it adds to patches that look like the clicked one
LIKE_RADIUS = 0.05  # the same for these
LIKENESS = 0.2  # and the standard deviation of that in features: unrelated colours are 1.4 apart
SNAP_SIDE = 1280  # longer images are snapped at it and the mask enlarged, for quick answers


class TreePredictor(ClickListPredictor):
    """Answers clicks on one image with a mask; used as `mis_jax.Predictor` is.

    Args:
        snapping: let the mask follow edges (`snap.snap`), instead of the borders of the patches.
    """

    def __init__(self, snapping: bool = True) -> None:
        super().__init__()
        self.snapping = snapping

    @property
    def settings(self) -> dict:
        """All that the masks depend on, for the record."""
        return {
            "descriptor": descriptor.NAME,
            "strides": list(STRIDES),
            "max_side": MAX_SIDE,
            "views": list(views.SETTINGS),
            "cut_odds": CUT_ODDS,
            "cut_power": CUT_POWER,
            "prior": PRIOR,
            "near": [NEAR_LOGIT, NEAR_RADIUS],
            "like": [LIKE_LOGIT, LIKE_RADIUS, LIKENESS],
            "snap_side": SNAP_SIDE if self.snapping else None,
        }

    def _prepare(self, image: np.ndarray) -> None:
        """Makes the trees of an image that is seen whole; those of others wait for a click."""

        @functools.lru_cache(maxsize=4)
        def look(roi: Roi) -> View:
            return View(crop(image, roi), self.snapping)

        self._look = look
        self._of_trees = functools.lru_cache(maxsize=2)(self._ask_trees)
        self._touches: list[tuple[Click, float]] = []  # the clicks so far and their `radius`
        if not views.in_parts(self._shape, MAX_SIDE):
            look(views.first_look(self._shape, (), MAX_SIDE))

    def _answer(self, clicks: tuple[Click, ...]) -> np.ndarray:
        pairs = zip(self._touches, clicks, strict=False)
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0][0] == pair[1], pairs))
        del self._touches[same:]
        for click in clicks[same:]:
            self._touches.append((click, self._radius(click)))
        return self._drawn()[0]

    def _radius(self, click: Click) -> float:
        """`touch_ups.radius` of a click that follows those so far."""
        if not self._touches:
            return 0.0
        probs, pixels = self._drawn()
        return touch_ups.radius(probs > THRESHOLD, click, STRIDES[0] * pixels)

    def _drawn(self) -> tuple[np.ndarray, float]:
        """`_ask_trees` of the clicks so far, with the touch-ups among them drawn."""
        found, pixels = self._of_trees(tuple(c for c, radius in self._touches if not radius))
        probs = found.copy()
        for click, radius in self._touches:
            touch_ups.touch_up(probs, click, radius or 0.5)
        return probs, pixels

    def _ask_trees(self, clicks: tuple[Click, ...]) -> tuple[np.ndarray, float]:
        """Probability of the object, float32 [H, W], and how many pixels were shrunk to one."""
        roi = views.first_look(self._shape, clicks, MAX_SIDE)
        view, near = self._look(roi), views.inside(clicks, roi)
        found = view.answer(near)
        closer = views.second_look(view.shape, found, near, MAX_SIDE)
        if closer is not None:
            roi = views.within(closer, roi)
            view, near = self._look(roi), views.inside(clicks, roi)
            found = view.answer(near)
        probs = np.zeros(self._shape, np.float32)
        crop(probs, roi)[...] = view.enlarged(found, near)
        return probs, views.shrinkage(view.shape, MAX_SIDE)


class View:
    """An image, or a part of one, with its trees.

    Args:
        image: uint8 [H, W, 3].
        snapping: as of `TreePredictor`.
    """

    def __init__(self, image: np.ndarray, snapping: bool) -> None:
        self.shape = image.shape[0], image.shape[1]
        sides = [views.longest(image.shape, side) for side in (SNAP_SIDE, MAX_SIDE)]
        self._to_snap = images.shrink(image, sides[0]) if snapping else None
        small = images.shrink(image, sides[1])
        self._trees = []
        for stride in STRIDES:
            tree, colours = descriptor.merge_tree(small, stride)
            self._trees.append((tree, cut_probabilities(tree, CUT_ODDS * stride), colours))

    def answer(self, clicks: Sequence[Click]) -> np.ndarray:
        """Probability of the object, for clicks in pixels: float32, of a resolution of its own."""
        h, w = self._trees[0][0].grid
        logits = np.zeros((h, w), np.float32)
        for tree, cuts, colours in self._trees:
            evidence = click_evidence(tree, colours, clicks, *self.shape)
            found = posterior(tree.merges, cuts, evidence, PRIOR).reshape(tree.grid)
            found = logit(np.clip(found, LEAST, 1 - LEAST)).astype(np.float32)
            logits += cv2.resize(found, (w, h), interpolation=cv2.INTER_LINEAR)
        patches = expit(logits / len(self._trees))
        return patches if self._to_snap is None else snap(self._to_snap, patches)

    def enlarged(self, probs: np.ndarray, clicks: Sequence[Click]) -> np.ndarray:
        """What `answer` gave of the clicks, at all pixels: float32 [H, W]."""
        how = cv2.INTER_NEAREST if self._to_snap is None else cv2.INTER_LINEAR
        probs = cv2.resize(probs, self.shape[::-1], interpolation=how)
        touch_ups.split(probs, self._trees[0][0].grid, clicks)
        return probs


def cut_probabilities(tree: Tree, mean_odds: float) -> np.ndarray:
    """Probability that the edge from each node to its parent is cut, float64 [2n - 1]; root: 1.

    `mean_odds` are the odds below a merge of mean cost.
    """
    costs = tree.costs.astype(np.float64)
    mean = costs.mean() if costs.any() else 1.0
    odds = mean_odds * (costs / mean) ** CUT_POWER
    cuts = np.ones(tree.num_nodes)
    cuts[tree.merges] = np.maximum(odds / (1 + odds), LEAST)[:, None]
    return cuts


def click_evidence(
    tree: Tree, colours: np.ndarray, clicks: Sequence[Click], height: int, width: int
) -> np.ndarray:
    """How likely the clicks are, if a patch is object, over that sum for object and not.

    Args:
        tree: of n = h * w patches.
        colours: float32 [h, w, C], what they look like.
        clicks: in pixels of an image of height x width.

    Returns:
        float64 [n]; 1 or 0 at clicked patches, 0.5 far from them. A patch with clicks of both kinds
        is as one that was not clicked itself.
    """
    h, w = tree.grid
    logits = np.zeros((h, w))
    patches = [tree.patch_at(c.row, c.col, height, width) for c in clicks]
    for c, patch in zip(clicks, patches, strict=True):
        row, col = (c.row + 0.5) * h / height - 0.5, (c.col + 0.5) * w / width - 0.5
        _add_click(logits, colours, row, col, patch, 1.0 if c.positive else -1.0)
    evidence = expit(logits.ravel())
    yes, no = ({p for p, c in zip(patches, clicks, strict=True) if c.positive == k} for k in (1, 0))
    evidence[list(yes - no)], evidence[list(no - yes)] = 1, 0
    return evidence


@njit(nogil=True, cache=True)
def _add_click(
    logits: np.ndarray, colours: np.ndarray, row: float, col: float, patch: int, sign: float
) -> None:
    """Adds the log-odds of a click at (row, col), in patches, within three standard deviations."""
    height, width, channels = colours.shape
    clicked = colours[patch // width, patch % width]
    reach = 3 * max(NEAR_RADIUS, LIKE_RADIUS) * np.sqrt(height * width)
    for i in range(max(0, int(row - reach)), min(height, int(row + reach) + 2)):
        for j in range(max(0, int(col - reach)), min(width, int(col + reach) + 2)):
            away = ((i - row) ** 2 + (j - col) ** 2) / (2 * height * width)
            unlike = 0.0
            for k in range(channels):
                unlike += (colours[i, j, k] - clicked[k]) ** 2
            near = NEAR_LOGIT * np.exp(-away / NEAR_RADIUS**2)
            like = LIKE_LOGIT * np.exp(-away / LIKE_RADIUS**2 - unlike / (2 * LIKENESS**2))
            logits[i, j] += sign * (near + like)


@njit(nogil=True, cache=True)
def posterior(
    merges: np.ndarray, cuts: np.ndarray, evidence: np.ndarray, prior: float
) -> np.ndarray:
    """Probability that each patch is object, given the evidence at all of them: float64 [n].

    Every message is the first of two numbers that add up to 1: for object, and for not.

    Args:
        merges: int32 [n - 1, 2] of a `Tree`.
        cuts: float64 [2n - 1], of the edge above each node, above 0.
        evidence: float64 [n], likelihood of being object over that of both; 0 and 1 are certain.
        prior: probability of object of a region, within 0..1 and neither.
    """
    n = len(merges) + 1
    inner, message = np.empty(2 * n - 1), np.empty(2 * n - 1)  # from below: at a node, and above
    inner[:n] = evidence
    for m in range(n - 1):
        yes = no = 1.0
        for side in range(2):
            child = merges[m, side]
            likely = inner[child]
            redrawn = prior * likely + (1 - prior) * (1 - likely)
            as_object = (1 - cuts[child]) * likely + cuts[child] * redrawn
            otherwise = (1 - cuts[child]) * (1 - likely) + cuts[child] * redrawn
            message[child] = as_object / (as_object + otherwise)
            yes *= message[child]
            no *= 1 - message[child]
        inner[n + m] = yes / (yes + no)
    outer = np.empty(2 * n - 1)  # from everywhere else
    outer[2 * n - 2] = prior
    for m in range(n - 2, -1, -1):
        for side in range(2):
            child, sibling = merges[m, side], merges[m, 1 - side]
            yes = outer[n + m] * message[sibling]
            no = (1 - outer[n + m]) * (1 - message[sibling])
            outer[child] = (1 - cuts[child]) * yes / (yes + no) + cuts[child] * prior
    leaves = np.empty(n)
    for leaf in range(n):
        yes, no = outer[leaf] * inner[leaf], (1 - outer[leaf]) * (1 - inner[leaf])
        leaves[leaf] = yes / (yes + no)
    return leaves
