"""The merge tree of an image: its regions, and how they hang together."""

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit

from mis_jax.errors import InputError
from mis_jax.proposals import sampling, tree_bytes
from mis_jax.proposals.borders import border_merges
from mis_jax.proposals.ward import ward_merges


def build_tree(
    features: np.ndarray, *, borders: bool = False, exact: bool = False, overwrite: bool = False
) -> "Tree":
    """Merges the patches of an image, by Ward's method (Algorithm 1) unless told otherwise.

    Args:
      features: float32 [h, w, C], finite, one vector per patch.
      borders: merge by `borders.border_merges` instead, where `exact` and `overwrite` change
        nothing.
      exact: ties in the order of the published code; see `ward.ward_merges`.
      overwrite: the features are not needed any more, and may be changed.

    Raises:
      InputError: features of another shape, or not finite.
    """
    if np.ndim(features) != 3:
        raise InputError(f"The features have shape {list(np.shape(features))}, not [h, w, C].")
    height, width, channels = np.shape(features)
    flat = np.reshape(features, (height * width, channels))
    if borders:
        return Tree(*border_merges(flat, height, width), (height, width))
    return Tree(
        *ward_merges(flat, height, width, exact=exact, overwrite=overwrite), (height, width)
    )


def nearest_patches(patches: int, pixels: int) -> np.ndarray:
    """The patch of each pixel along a side, int32 [pixels], by the rule of cv2's INTER_NEAREST."""
    positions = (np.arange(pixels) * (1 / (pixels / patches))).astype(np.int32)
    return np.minimum(positions, patches - 1)


@dataclass(frozen=True, eq=False)
class Tree:
    """A binary tree over the n = h * w patches of a grid; every node is a region of patches.

    Nodes 0..n-1 are the patches in row-major order, node n + m is the union of the two nodes in
    row m of `merges`, and the last node is the whole image. Arrays handed out are read-only.

    Attributes:
      merges: int32 [n - 1, 2], the children of nodes n..2n-2.
      costs: float32 [n - 1], what each merge added to the squared error (Eq. 4), at least 0: how
        unlike its two parts are. A part may cost more than the whole, as only neighbours merge.
      grid: (h, w) in patches.

    Raises:
      InputError: merges that do not make a tree over the grid, or no cost for each.
    """

    merges: np.ndarray
    costs: np.ndarray
    grid: tuple[int, int]

    def __post_init__(self) -> None:
        height, width = self.grid
        if height < 1 or width < 1 or np.shape(self.merges) != (height * width - 1, 2):
            raise InputError(
                f"Merges of shape {list(np.shape(self.merges))} are no tree over {height}x{width} "
                f"patches, which takes [{height * width - 1}, 2]; build the tree again."
            )
        merges = _read_only(np.array(self.merges, np.int32, order="C"))
        if not _is_tree(merges):
            raise InputError(
                f"The merges over {height}x{width} patches are no tree: each node but the last "
                "must be a child once, of a later node; build the tree again."
            )
        costs = _read_only(np.array(self.costs, np.float32))
        if costs.shape != (len(merges),) or not (np.isfinite(costs) & (costs >= 0)).all():
            raise InputError(
                f"A tree of {len(merges)} merges takes as many finite costs of at least 0; build "
                "the tree again."
            )
        object.__setattr__(self, "merges", merges)
        object.__setattr__(self, "costs", costs)
        object.__setattr__(self, "grid", (int(height), int(width)))

    @property
    def n(self) -> int:
        """Number of patches, the leaves."""
        return len(self.merges) + 1

    @property
    def num_nodes(self) -> int:
        """Number of nodes, 2n - 1."""
        return 2 * len(self.merges) + 1

    @property
    def root(self) -> int:
        """The node of the whole image, 2n - 2."""
        return 2 * len(self.merges)

    def areas(self) -> np.ndarray:
        """int32 [2n - 1]: patches of each node."""
        return self._layout[0]

    def sums(self, values: np.ndarray) -> np.ndarray:
        """int64 [2n - 1]: sums of integers [n], one a patch, over the patches of each node."""
        return _sums(self.merges, np.asarray(values, np.int64))

    def depths(self) -> np.ndarray:
        """int32 [2n - 1]: steps from the root down to each node; the root has 0."""
        return self._ancestry[1]

    def parents(self) -> np.ndarray:
        """int32 [2n - 1]: the node each node was merged into; the root has -1."""
        return self._ancestry[0]

    def patch_at(self, row: float, col: float, height: int, width: int) -> int:
        """The patch, a leaf, at a position in pixels of the image of height x width."""
        if not (0 <= row < height and 0 <= col < width):
            raise IndexError(f"(row {row}, column {col}) lies outside {height} x {width} pixels")
        (h, w) = self.grid
        return int(nearest_patches(h, height)[int(row)] * w + nearest_patches(w, width)[int(col)])

    def ancestors(self, node: int) -> np.ndarray:
        """int32 [depth + 1]: the node itself and the regions that hold it, up to the root."""
        parents = self.parents()
        path = np.empty(self.depths()[self._known(node)] + 1, np.int32)
        for k in range(len(path)):
            path[k] = node
            node = parents[node]
        return path

    def leaves(self, node: int) -> np.ndarray:
        """int32 [area]: the patches of a node, breadth first and first child first.

        That is the order of the published code (mis/ops/src/tree.cpp of MIS).
        """
        return _leaves(self.merges, self._known(node), self.areas()[node])

    def mask(self, node: int) -> np.ndarray:
        """bool [h, w]: the patches of a node."""
        areas, starts, order = self._layout
        start = starts[self._known(node)]
        mask = np.zeros(self.n, bool)
        mask[order[start : start + areas[node]]] = True
        return mask.reshape(self.grid)

    def pixel_mask(self, node: int, height: int, width: int) -> np.ndarray:
        """bool [height, width]: `mask` enlarged to the image by cv2's INTER_NEAREST."""
        mask = self.mask(node).view(np.uint8)
        return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST).view(bool)

    def sample(
        self,
        rng: np.random.Generator,
        alpha: float = 0.9,
        min_area: float = 0.05,
        mode: str = "top_down",
        max_tries: int = 100,
        weights: np.ndarray | None = None,
    ) -> int:
        """Draws the node of a proposal; never the root, unless the image is a single patch.

        - "top_down": Algorithm 2, drawn again while the node is too small; the last of `max_tries`
          draws counts whatever its size (mis/data/dataset.py of MIS).
        - "fixed": the same with alpha = 0, one child of the root (Table 4 of the paper).
        - "uniform": each merge below the root that is large enough is equally likely (Table 5). The
          published code lacks this mode; as few nodes pass, it draws among these, where repeated
          draws would often run out and end at a tiny one. If none passes: the root's larger child.

        Args:
          rng: the only source of randomness.
          alpha: decay per level of the probability to go deeper, within 0..1.
          min_area: a node is too small at this fraction of the image or less.
          mode: one of `sampling.MODES`.
          max_tries: draws of "top_down" and "fixed", at least 1.
          weights: how much of each patch is seen, integers [n] of at least 0, not all of them 0; as
            if the seen part were the whole image. A merge of which only one part is seen is no
            step of the tree then, and areas are sums of weights. None: all patches, alike.

        Raises:
          InputError: an unknown mode, or a number out of range.
        """
        areas = self.areas() if weights is None else self._seen(weights)
        return sampling.draw(self.merges, areas, rng, alpha, min_area, mode, max_tries)

    def to_bytes(self) -> bytes:
        """The tree in 22 + 5(n - 1) bytes, or 22 + 9(n - 1) above 32768 patches (tree_bytes.py)."""
        return tree_bytes.encode(self.merges, self.costs, self.grid)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Tree":
        """Reads what `to_bytes` wrote, with costs to 5 %.

        Raises:
          InputError: bytes that are damaged, cut short or of another kind or version.
        """
        return cls(*tree_bytes.decode(data))

    def _seen(self, weights: np.ndarray) -> np.ndarray:
        """`sums` of weights as `sample` takes them."""
        if np.shape(weights) != (self.n,) or np.min(weights) < 0 or not np.any(weights):
            raise InputError(f"A tree of {self.n} patches takes as many weights, some over 0.")
        return self.sums(weights)

    def _known(self, node: int) -> int:
        if not 0 <= node <= self.root:
            raise IndexError(f"node {node} of a tree with nodes 0..{self.root}")
        return int(node)

    @functools.cached_property
    def _layout(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        areas, starts, order = map(_read_only, _layout(self.merges))
        return areas, starts, order

    @functools.cached_property
    def _ancestry(self) -> tuple[np.ndarray, np.ndarray]:
        parents, depths = map(_read_only, _ancestry(self.merges))
        return parents, depths


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@njit(nogil=True, cache=True)
def _is_tree(merges: np.ndarray) -> bool:
    """Whether every node but the last is a child exactly once, and of a later node."""
    n = len(merges) + 1
    used = np.zeros(2 * n - 1, np.bool_)
    for m in range(n - 1):
        for side in range(2):
            child = merges[m, side]
            if child < 0 or child >= n + m or used[child]:
                return False
            used[child] = True
    return True  # 2n - 2 different children, all below the last node


@njit(nogil=True, cache=True)
def _layout(merges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Areas, and leaves in depth-first order: node's are order[starts[node] :][: areas[node]]."""
    n = len(merges) + 1
    areas = _sums(merges, np.ones(n, np.int32))
    starts = np.zeros(2 * n - 1, np.int32)
    for m in range(n - 2, -1, -1):
        first, second = merges[m, 0], merges[m, 1]
        starts[first] = starts[n + m]
        starts[second] = starts[n + m] + areas[first]
    order = np.empty(n, np.int32)
    for leaf in range(n):
        order[starts[leaf]] = leaf
    return areas, starts, order


@njit(nogil=True, cache=True)
def _ancestry(merges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Parents and depths."""
    n = len(merges) + 1
    parents = np.full(2 * n - 1, -1, np.int32)
    depths = np.zeros(2 * n - 1, np.int32)
    for m in range(n - 2, -1, -1):
        for side in range(2):
            child = merges[m, side]
            parents[child] = n + m
            depths[child] = depths[n + m] + 1
    return parents, depths


@njit(nogil=True, cache=True)
def _leaves(merges: np.ndarray, node: int, area: int) -> np.ndarray:
    """The leaves below a node, breadth first."""
    n = len(merges) + 1
    queue = np.empty(2 * area - 1, np.int32)
    leaves = np.empty(area, np.int32)
    queue[0] = node
    end, found = 1, 0
    for front in range(2 * area - 1):
        node = queue[front]
        if node < n:
            leaves[found] = node
            found += 1
        else:
            queue[end], queue[end + 1] = merges[node - n, 0], merges[node - n, 1]
            end += 2
    return leaves


@njit(nogil=True, cache=True)
def _sums(merges: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums of the weights [n] of the patches of every node, [2n - 1]."""
    n = len(weights)
    sums = np.empty(2 * n - 1, weights.dtype)
    sums[:n] = weights
    for m in range(n - 1):
        sums[n + m] = sums[merges[m, 0]] + sums[merges[m, 1]]
    return sums
