"""Sampling of proposals from a merge tree: top-down (Algorithm 2), fixed and uniform."""

import numpy as np
from numba import njit

from mis_jax.errors import InputError

MODES = ("top_down", "uniform", "fixed")


def draw(
    merges: np.ndarray,
    areas: np.ndarray,
    rng: np.random.Generator,
    alpha: float,
    min_area: float,
    mode: str,
    max_tries: int,
) -> int:
    """The node of a proposal, as `Tree.sample` explains.

    Args:
      merges: int32 [n - 1, 2], of a tree.
      areas: integers [2n - 1], of its nodes; those of 0 are not seen, and no part of the image.
      rng: the only source of randomness.
      alpha, min_area, mode, max_tries: see `Tree.sample`.

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
        return _uniform(merges, areas, min_area, rng)
    decay = np.float32(alpha if mode == "top_down" else 0.0)
    return int(_top_down(merges, areas, decay, min_area, max_tries, rng))


def _uniform(
    merges: np.ndarray, areas: np.ndarray, min_area: float, rng: np.random.Generator
) -> int:
    """One of the merges below the root that are large enough, or the root's larger child."""
    n = len(merges) + 1
    split = areas[merges].all(axis=1)  # both parts are seen
    whole = areas[n:] == areas[-1]
    passing = np.flatnonzero(split & ~whole & (areas[n:] / areas[-1] > min_area))
    if len(passing):
        return n + int(passing[rng.integers(len(passing))])
    top = _next_split(merges, areas, 2 * n - 2)
    if top < n:
        return int(top)
    children = merges[top - n]
    return int(_next_split(merges, areas, children[np.argmax(areas[children])]))


@njit(nogil=True, cache=True)
def _top_down(
    merges: np.ndarray,
    areas: np.ndarray,
    alpha: np.float32,
    min_area: float,
    max_tries: int,
    rng: np.random.Generator,
) -> int:
    """Algorithm 2 again and again until the node is large enough, or the tries are used up."""
    node = len(areas) - 1
    for _ in range(max_tries):
        node = _walk(merges, areas, alpha, rng)
        if areas[node] / areas[-1] > min_area:
            break
    return node


@njit(nogil=True, cache=True)
def _walk(
    merges: np.ndarray, areas: np.ndarray, alpha: np.float32, rng: np.random.Generator
) -> int:
    """Algorithm 2, with the draws and the float32 of the published mis/ops/src/sampling.cpp."""
    n = len(merges) + 1
    node = _next_split(merges, areas, 2 * n - 2)
    deeper = np.float32(1.0)
    while rng.random() <= deeper and node >= n:
        child = merges[node - n, 0 if rng.random() <= 0.5 else 1]
        node = _next_split(merges, areas, child)
        deeper *= alpha
    return node


@njit(nogil=True, cache=True)
def _next_split(merges: np.ndarray, areas: np.ndarray, node: int) -> int:
    """The first of a node and those below with the same area that is a patch or has two parts."""
    n = len(merges) + 1
    while node >= n:
        first, second = merges[node - n, 0], merges[node - n, 1]
        if areas[first] == 0:
            node = second
        elif areas[second] == 0:
            node = first
        else:
            break
    return node
