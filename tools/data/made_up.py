"""Images of objects with exactly known outlines, as a data set for evaluate and inspect.

    python tools/data/made_up.py OUTPUT --kind scenes|other|same [--photos PHOTOS] [--count N]
        [--seed N]

scenes: made-up ones (scenes.py). other: pieces of one of the photos pasted into another. same:
pieces of a photo pasted elsewhere into itself, much harder to tell apart. The pieces have the
outlines of objects of made-up scenes, edges as soft as a photo's, and went through JPEG, so that no
trace of the paste gives them away. Writes OUTPUT/images and OUTPUT/masks.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from mis_jax.datasets import images, scenes
from mis_jax.errors import InputError

SIZE = (336, 448)  # of made-up scenes
Targets = Iterator[tuple[np.ndarray, np.ndarray]]  # image uint8 [H, W, 3], truth int32 [H, W]


def main() -> None:
    """Writes the data set."""
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1])
    parser.add_argument("output", type=Path)
    parser.add_argument("--kind", choices=("scenes", "other", "same"), required=True)
    parser.add_argument("--photos")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--first", type=int, default=400, help="of the shuffled photos")
    arguments = parser.parse_args()
    if arguments.kind == "scenes":
        targets = made_up(arguments.seed, arguments.count)
    else:
        if not arguments.photos:
            parser.error(f"--kind {arguments.kind} takes --photos")
        paths = shuffled(arguments.photos, arguments.first, arguments.count)
        targets = (pasted if arguments.kind == "other" else moved)(paths, arguments.seed)
    for part in ("images", "masks"):
        (arguments.output / part).mkdir(parents=True, exist_ok=True)
    for k, (image, mask) in enumerate(targets):
        for part, pixels in (("images", image[:, :, ::-1]), ("masks", np.uint8(mask) * 255)):
            cv2.imwrite(str(arguments.output / part / f"{arguments.kind}_{k:05d}.png"), pixels)


def shuffled(folder: str, first: int, count: int) -> list[Path]:
    """Photos for `count` pairs, from the `first` of a fixed shuffle; small folders repeat."""
    paths = images.find_images(folder)
    if len(paths) < 2:
        raise InputError(f"{folder} has one image; pasting takes at least 2.")
    order = np.random.default_rng(7).permutation(len(paths))
    return [paths[order[k % len(paths)]] for k in range(first, first + 2 * count)]


def made_up(seed: int, count: int) -> Targets:
    """Made-up scenes."""
    for k in range(count):
        image, mask = scenes.make_scene(np.random.default_rng([seed, k]), SIZE)
        yield image, mask.astype(np.int32)


def pasted(paths: list[Path], seed: int) -> Targets:
    """Pieces of a photo in another, which is enlarged or cut to the first one's size."""
    for k in range(len(paths) // 2):
        rng = np.random.default_rng([seed, k, 0])
        under, over = (images.read_image(path) for path in paths[2 * k : 2 * k + 2])
        height, width = under.shape[:2]
        factor = max(1, height / over.shape[0], width / over.shape[1])
        rows, columns = (round(factor * side) for side in over.shape[:2])
        over = cv2.resize(over, (columns, rows), interpolation=cv2.INTER_LINEAR)
        row, column = rng.integers(rows - height + 1), rng.integers(columns - width + 1)
        yield paste(rng, under, over[row : row + height, column : column + width])


def moved(paths: list[Path], seed: int) -> Targets:
    """Pieces of a photo elsewhere in itself, 0.3 to 0.7 of its sides away; mirrored beyond them."""
    for k in range(len(paths) // 2):
        rng = np.random.default_rng([seed, k, 1])
        image = images.read_image(paths[2 * k])
        height, width = image.shape[:2]
        away = rng.choice([-1, 1], 2) * rng.uniform(0.3, 0.7, 2)
        row, column = round(height * (1 + away[0])), round(width * (1 + away[1]))
        wide = np.pad(image, ((height, height), (width, width), (0, 0)), mode="symmetric")
        yield paste(rng, image, wide[row : row + height, column : column + width])


def paste(
    rng: np.random.Generator, under: np.ndarray, over: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`under` with a piece of `over`, both uint8 [H, W, 3], and the piece's mask int32 [H, W]."""
    mask = scenes.make_scene(rng, under.shape[:2])[1]
    alpha = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), rng.uniform(0.6, 1.2))[..., None]
    mixed = cv2.convertScaleAbs(under + alpha * (over.astype(np.float32) - under))
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(80, 96))]
    encoded = cv2.imencode(".jpg", cv2.cvtColor(mixed, cv2.COLOR_RGB2BGR), quality)[1]
    return images.decode(encoded.tobytes()), mask.astype(np.int32)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
