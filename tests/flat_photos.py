"""Records of photos whose pixels say what can be cut out of them, for tests of composites."""

import cv2
import numpy as np

from mis_jax.datasets import scenes
from mis_jax.proposals import build_tree
from mis_jax.records import Record


def make_record(image: np.ndarray, noise: float = 0.01) -> Record:
    """A record whose tree merges patches of 4 pixels by their colours, and by smooth noise."""
    height, width = image.shape[:2]
    grid = width // 4, height // 4
    features = cv2.resize(image, grid, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    rough = np.random.default_rng(0).normal(size=features.shape).astype(np.float32)
    features += noise * cv2.GaussianBlur(rough, (0, 0), 2)
    encoded = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    return Record("made up", encoded, height, width, build_tree(features))


def flat(*colour: int, side: int = 96) -> Record:
    """A square photo of one colour."""
    return make_record(np.full((side, side, 3), colour, np.uint8))


def of_scenes(count: int) -> list[Record]:
    """Made-up scenes of 180 x 240 pixels."""
    rngs = map(np.random.default_rng, range(count))
    return [make_record(scenes.make_scene(rng, (180, 240))[0]) for rng in rngs]
