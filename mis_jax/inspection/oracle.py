"""How good a merge tree could be at best: its node most like an object, and nodes it takes.

An oracle sees the object's mask; nothing here is a prediction. All counts are of the image's pixels
as `Tree.pixel_mask` enlarges nodes, so a grid too coarse for an object lowers what is reached.
"""

import numpy as np
from numba import njit

from mis_jax.errors import InputError
from mis_jax.proposals import Tree, nearest_patches

_MILLION = 1_000_000  # targets are whole millionths, so that sums and comparisons are exact


def leaf_counts(tree: Tree, truth: np.ndarray) -> np.ndarray:
    """int64 [2, n]: background pixels (row 0) and object pixels (row 1) of each patch.

    Args:
        truth: int32 [H, W], 1 object, 0 background, -1 not counted.
    """
    (height, width), (rows, columns) = np.shape(truth), tree.grid
    patch = nearest_patches(rows, height)[:, None] * columns + nearest_patches(columns, width)
    return np.stack([np.bincount(patch[truth == label], minlength=tree.n) for label in (0, 1)])


def best_node(tree: Tree, truth: np.ndarray) -> tuple[float, int]:
    """The highest IoU of any node's pixels with the object, and that node, the first of equals.

    Args:
        truth: int32 [H, W], 1 object, 0 background, -1 not counted.
    """
    outside, inside = map(tree.sums, leaf_counts(tree, truth))
    union = inside[-1] + outside
    ious = np.where(union > 0, inside / np.maximum(union, 1), 1.0)  # as `clicker.iou` has it
    node = int(np.argmax(ious))
    return float(ious[node]), node


def nodes_needed(
    tree: Tree, truth: np.ndarray, target: float = 0.85, max_nodes: int = 20
) -> int | None:
    """The fewest nodes, added or removed, that make a mask of at least `target` IoU.

    A mask starts empty. A node that is taken gives all its pixels the opposite of what they got
    from the regions above it: it adds them, or removes them from a larger node that was added.

    The IoU is at least t where (object pixels) - t (background pixels) of the mask reaches t times
    the object; that is a sum over patches, so the best one for each number of nodes follows from
    those of a region's two parts. The answer is exact.

    Args:
        truth: int32 [H, W], 1 object, 0 background, -1 not counted.
        target: IoU over 0, up to 1, to six decimals.
        max_nodes: at least 1; takes O(n max_nodes^2) time and O(n max_nodes) memory.

    Returns:
        The number, 0 where the truth has no object; None if `max_nodes` do not suffice, as where
        patches are too coarse for the object.

    Raises:
        InputError: target or max_nodes out of range.
    """
    if not (0 < target <= 1 and max_nodes >= 1):
        raise InputError(
            f"The oracle takes a target over 0 and up to 1 and max_nodes of at least 1, not "
            f"target={target}, max_nodes={max_nodes}."
        )
    millionths = round(target * _MILLION)
    outside, inside = leaf_counts(tree, truth)
    best = _best_gains(tree.merges, _MILLION * inside - millionths * outside, max_nodes)
    enough = np.flatnonzero(best >= millionths * inside.sum())
    return int(enough[0]) if len(enough) else None


def tree_noc(tree: Tree, truth: np.ndarray, target: float = 0.85, max_nodes: int = 20) -> int:
    """`nodes_needed`, or `max_nodes` where that many do not suffice, as NoC counts clicks."""
    needed = nodes_needed(tree, truth, target, max_nodes)
    return max_nodes if needed is None else needed


@njit(nogil=True, cache=True)
def _best_gains(merges: np.ndarray, gains: np.ndarray, most: int) -> np.ndarray:
    """The largest sum of the gains of a mask's patches for at most 0, 1, ... nodes taken.

    Args:
        gains: int64 [n], of each patch.
        most: nodes taken at most.

    Returns:
        int64 [min(most, n) + 1], not decreasing.
    """
    n = len(gains)
    # best[node, label, k]: below the node if what is above gives it the label and at most k nodes
    # are taken of it and below. More than one a patch never pays, so k ends at the area.
    best = np.zeros((2 * n - 1, 2, most + 1), np.int64)
    last = np.full(2 * n - 1, 1, np.int64)
    untaken = np.zeros((2, most + 1), np.int64)
    for node in range(2 * n - 1):
        if node < n:
            untaken[0, :2], untaken[1, :2] = 0, gains[node]
        else:
            first, second = merges[node - n, 0], merges[node - n, 1]
            last[node] = min(last[first] + last[second], most)
            for label in range(2):
                a, b, out = best[first, label], best[second, label], untaken[label]
                for k in range(last[node] + 1):
                    low, high = max(0, k - last[second]), min(k, last[first])
                    most_so_far = a[low] + b[k - low]
                    for i in range(low + 1, high + 1):
                        most_so_far = max(most_so_far, a[i] + b[k - i])
                    out[k] = most_so_far
        for label in range(2):
            best[node, label, 0] = untaken[label, 0]
            for k in range(1, last[node] + 1):
                best[node, label, k] = max(untaken[label, k], untaken[1 - label, k - 1])
    return best[-1, 0, : last[-1] + 1]
