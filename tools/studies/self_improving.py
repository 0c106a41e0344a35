"""Do the features of a trained evidence network make better merge trees than those it learnt from?

    python tools/studies/self_improving.py RUN SEGMENTS PHOTOS [--every N] [--json FILE]

A tree over patches of 4 pixels is built of the embedded descriptor, as ever, and of the descriptor
with the network's embedding of each patch beside it, at several weights; each is measured by its
covering of what people drew (tools/bench/covering.py, which explains the arguments). Only if one of
them is clearly higher does it pay to train again on such trees.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import covering

from mis_jax.errors import InputError
from mis_jax.features import descriptor
from mis_jax.models import correction, loading
from mis_jax.predictors import evidence, maps
from mis_jax.proposals import Tree, build_tree

STRIDE = 4  # pixels, of the network's patches
WEIGHTS = (0.0, 0.15, 0.3, 0.6)  # of the embedding; the descriptor's colours have length 1


def main() -> None:
    """Prints covering's table, and writes it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a run, a weights file, or shipped")
    parser.add_argument("segments", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take every n-th photo")
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    drawn = covering.find(arguments.segments, arguments.photos)[:: arguments.every]
    embed = embedder(arguments.run)
    covering.METHODS = {
        f"embedding {weight:g}": functools.partial(tree, embed=embed, weight=weight)
        for weight in WEIGHTS
    }
    rows = covering.measure(drawn)
    print(f"{len(drawn)} photos\n{covering.table(rows)}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"photos": len(drawn), "methods": rows}) + "\n")


def tree(
    image: np.ndarray, embed: Callable[[np.ndarray, tuple[int, int]], np.ndarray], weight: float
) -> Tree:
    """The merge tree of an image, uint8 [H, W, 3], with the network's embedding beside."""
    features = descriptor.embedded(image, STRIDE)
    if weight:
        found = embed(image, features.shape[:2])
        features = np.concatenate([features, np.float32(weight) * found], -1)
    return build_tree(features, borders=True)


def embedder(run: str) -> Callable[[np.ndarray, tuple[int, int]], np.ndarray]:
    """(image, grid) -> the network's embedding float32 [h, w, 16], of mean 0 and mean length 1."""
    config, params = loading.load(run)
    if not config.model.evidence:
        raise InputError(f"{run} is no evidence network.")
    look = jax.jit(correction.program(config.model.evidence)[0])

    def embed(image: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        picture = maps.picture(evidence.Ground.of(image))
        size = [-(-side // correction.MULTIPLE) * correction.MULTIPLE for side in picture.shape[:2]]
        more = [(0, s - n) for s, n in zip(size, picture.shape, strict=False)]
        inside = np.pad(np.ones(picture.shape[:2], np.float32), more)
        found = look(params, np.pad(picture, [*more, (0, 0)])[None], inside[None])[1][0]
        kept = np.asarray(found)[: -(-picture.shape[0] // 2), : -(-picture.shape[1] // 2)]
        kept = kept - kept.mean((0, 1))
        kept /= np.sqrt(np.square(kept).sum(-1).mean()) + 1e-6
        height, width = grid
        parts = [cv2.resize(part, (width, height)) for part in np.split(kept, 4, -1)]
        return np.concatenate(parts, -1)

    return embed


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
