"""The merge tree of an image: its regions, sampling of proposals (Algorithm 2), and its bytes."""

import functools
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numba import njit

from mis_jax.errors import InputError
from mis_jax.ward import ward_merges

MODES = ("top_down", "uniform", "fixed")

# Magic, version, bytes of an index, rows, columns, CRC32 of all other bytes; then the merges.
_HEADER = struct.Struct("<4sBBIII")
_MAGIC = b"MTRE"
_VERSION = 1


def build_tree(features: np.ndarray) -> "Tree":
    """Merges the patches of an image by Ward's method (Algorithm 1).

    Args:
      features: float32 [h, w, C], finite, one vector per patch.

    Raises:
      InputError: features of another shape, or not finite.
    """
    if np.ndim(features) != 3:
        raise InputError(f"The features have shape {list(np.shape(features))}, not [h, w, C].")
    height, width, channels = np.shape(features)
    flat = np.reshape(features, (height * width, channels))
    return Tree(ward_merges(flat, height, width), (height, width))


@dataclass(frozen=True, eq=False)
class Tree:
    """A binary tree over the n = h * w patches of a grid; every node is a region of patches.

    Nodes 0..n-1 are the patches in row-major order, node n + m is the union of the two nodes in
    row m of `merges`, and the last node is the whole image. Arrays handed out are read-only.

    Attributes:
      merges: int32 [n - 1, 2], the children of nodes n..2n-2.
      grid: (h, w) in patches.

    Raises:
      InputError: merges that do not make a tree over the grid.
    """

    merges: np.ndarray
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
        object.__setattr__(self, "merges", merges)
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

    def depths(self) -> np.ndarray:
        """int32 [2n - 1]: steps from the root down to each node; the root has 0."""
        return self._ancestry[1]

    def parents(self) -> np.ndarray:
        """int32 [2n - 1]: the node each node was merged into; the root has -1."""
        return self._ancestry[0]

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

    def sample(
        self,
        rng: np.random.Generator,
        alpha: float = 0.9,
        min_area: float = 0.05,
        mode: str = "top_down",
        max_tries: int = 100,
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
          mode: one of `MODES`.
          max_tries: draws of "top_down" and "fixed", at least 1.

        Raises:
          InputError: an unknown mode, or a number out of range.
        """
        if mode not in MODES:
            raise InputError(f'There is no sampling mode "{mode}"; modes: {", ".join(MODES)}.')
        if not (0 <= alpha <= 1 and 0 <= min_area <= 1 and max_tries >= 1):
            raise InputError(
                f"Sampling takes alpha and min_area within 0..1 and max_tries of at least 1, not "
                f"alpha={alpha}, min_area={min_area}, max_tries={max_tries}."
            )
        if mode == "uniform":
            return self._sample_uniform(rng, min_area)
        decay = np.float32(alpha if mode == "top_down" else 0.0)
        return int(_sample_top_down(self.merges, self.areas(), decay, min_area, max_tries, rng))

    def to_bytes(self) -> bytes:
        """The tree in 18 + 4(n - 1) bytes, or 18 + 8(n - 1) above 32768 patches.

        Little-endian: "MTRE", version and bytes of an index (uint8), rows, columns and CRC32 of all
        other bytes (uint32), the merges row by row (uint16 or uint32).
        """
        size = _index_size(self.n)
        merges = self.merges.astype(f"<u{size}").tobytes()
        fields = (_MAGIC, _VERSION, size, *self.grid)
        return _HEADER.pack(*fields, _checksum(fields, merges)) + merges

    @classmethod
    def from_bytes(cls, data: bytes) -> "Tree":
        """Reads what `to_bytes` wrote.

        Raises:
          InputError: bytes that are damaged, cut short or of another kind or version.
        """
        again = "; propose the trees of this data set again."
        if len(data) < _HEADER.size or data[:4] != _MAGIC:
            raise InputError("These bytes hold no merge tree" + again)
        *fields, checksum = _HEADER.unpack_from(data)
        _, version, size, height, width = fields
        if version != _VERSION:
            raise InputError(f"The merge tree has version {version}, not {_VERSION}" + again)
        n = height * width
        merges = data[_HEADER.size :]
        whole = n >= 1 and size == _index_size(n) and len(merges) == 2 * size * (n - 1)
        if not whole or checksum != _checksum(fields, merges):
            raise InputError("The merge tree is damaged or cut short" + again)
        return cls(np.frombuffer(merges, f"<u{size}").reshape(n - 1, 2), (height, width))

    def _sample_uniform(self, rng: np.random.Generator, min_area: float) -> int:
        merged = self.areas()[self.n : self.root]
        passing = np.flatnonzero(merged / self.n > min_area)
        if len(passing):
            return self.n + int(passing[rng.integers(len(passing))])
        if self.n == 1:
            return self.root
        children = self.merges[-1]
        return int(children[np.argmax(self.areas()[children])])

    def _known(self, node: int) -> int:
        if not 0 <= node <= self.root:
            raise IndexError(f"node {node} of a tree with nodes 0..{self.root}")
        return int(node)

    @functools.cached_property
    def _layout(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return tuple(map(_read_only, _layout(self.merges)))

    @functools.cached_property
    def _ancestry(self) -> tuple[np.ndarray, np.ndarray]:
        return tuple(map(_read_only, _ancestry(self.merges)))


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _index_size(n: int) -> int:
    """Bytes of a node number on disk."""
    return 2 if 2 * n - 1 <= 65535 else 4


def _checksum(fields: tuple | list, merges: bytes) -> int:
    return zlib.crc32(merges, zlib.crc32(_HEADER.pack(*fields, 0)))


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
    areas = np.ones(2 * n - 1, np.int32)
    for m in range(n - 1):
        areas[n + m] = areas[merges[m, 0]] + areas[merges[m, 1]]
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
def _sample_top_down(
    merges: np.ndarray,
    areas: np.ndarray,
    alpha: float,
    min_area: float,
    max_tries: int,
    rng: np.random.Generator,
) -> int:
    """Algorithm 2 again and again until the node is large enough, or the tries are used up."""
    n = len(merges) + 1
    node = 2 * n - 2
    for _ in range(max_tries):
        node = _walk(merges, alpha, rng)
        if areas[node] / n > min_area:
            break
    return node


@njit(nogil=True, cache=True)
def _walk(merges: np.ndarray, alpha: float, rng: np.random.Generator) -> int:
    """Algorithm 2, with the draws and the float32 of the published mis/ops/src/sampling.cpp."""
    n = len(merges) + 1
    node = 2 * n - 2
    deeper = np.float32(1.0)
    while rng.random() <= deeper and node >= n:
        node = merges[node - n, 0 if rng.random() <= 0.5 else 1]
        deeper *= alpha
    return node
