"""What was seen in a mask file, in the words of a sentence."""

import numpy as np

from mis_jax.datasets.planes import Plane

_NAMED = 6  # values that a sentence names


def seen(plane: Plane, found: np.ndarray) -> str:
    """The values `found` of a plane: "0, 128 and 300", "index 1 only", "4,012 colours"."""
    if plane.kind == "palette" and len(found) > _NAMED:
        return f"{len(found)} palette indices from {found[0]} to {found[-1]}"
    if plane.kind == "palette":
        return (
            f"the palette indices {listed(found)}" if len(found) > 1 else f"index {found[0]} only"
        )
    if plane.kind != "colour":
        return listed(found)
    step = 8 if plane.most <= 255 else 16
    mask = (1 << step) - 1
    few = [tuple((int(c) >> shift) & mask for shift in (2 * step, step, 0)) for c in found[:_NAMED]]
    if len(found) > _NAMED:
        return f"{len(found):,} colours"
    return _join(list(map(str, few)))


def listed(found: np.ndarray) -> str:
    """ "0, 128 and 300", or "231 values from 3 to 250"."""
    if len(found) > _NAMED:
        return f"{len(found):,} values from {_number(found[0])} to {_number(found[-1])}"
    return _join([_number(value) for value in found])


def _join(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else f"{words[0]} only"


def _number(value: np.generic) -> str:
    return f"{float(value):.4g}" if value.dtype.kind == "f" else str(int(value))
