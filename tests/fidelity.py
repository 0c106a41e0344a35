"""Inputs from seeds and recorded numbers: what tests and tools/fidelity share.

A fixture, `tests/fixtures/NAME.npz`, holds numbers that published code produced from such inputs,
and under "origin" a text that says which code, which commit and which script made them.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

FIXTURES = Path(__file__).parent / "fixtures"


def generator(name: str, seed: int = 0) -> np.random.RandomState:
    """Random numbers for a name; numpy never changes the streams of this class."""
    return np.random.RandomState(zlib.crc32(f"{name} {seed}".encode()))


def state_dict(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """float32 weights for PyTorch keys: none is zero or one, and activations keep their size."""
    return {key: _weight(key, tuple(shape), seed) for key, shape in shapes.items()}


def _weight(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    x = generator(key, seed).standard_normal(shape).astype(np.float32)
    if len(shape) > 1 and key.endswith("weight"):
        fan_in = np.prod(shape[1:])
        return x / np.float32(np.sqrt(fan_in))
    if key.endswith(("weight", "gamma")):  # scales of norms and of layers
        return 1 + np.float32(0.2) * x
    return np.float32(0.2) * x  # biases, tokens, position embeddings


def image(name: str, height: int, width: int) -> np.ndarray:
    """A uint8 RGB image [H, W, 3] of blocks and noise."""
    rng = generator(name)
    blocks = rng.randint(0, 200, (-(-height // 16), -(-width // 16), 3))
    blocks = blocks.repeat(16, 0).repeat(16, 1)[:height, :width]
    return (blocks + rng.randint(0, 56, (height, width, 3))).astype(np.uint8)


def some(x: np.ndarray, count: int = 512) -> np.ndarray:
    """At most `count` values of an array, evenly spread: enough to tell it from another one."""
    flat = np.asarray(x).ravel()
    return flat[:: -(-flat.size // count)]


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, of the largest value."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def load(name: str) -> dict[str, np.ndarray]:
    """The arrays of a fixture."""
    with np.load(FIXTURES / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def save(name: str, arrays: Mapping[str, np.ndarray], origin: str) -> None:
    """Writes a fixture."""
    np.savez_compressed(FIXTURES / f"{name}.npz", origin=np.array(origin), **arrays)
