"""Targets of exactly known outline from unlabelled photos: a piece of one pasted into another.

    python tools/paste_pieces.py PHOTOS OUTPUT [--count 40] [--seed 0] [--same]

Writes OUTPUT/images and OUTPUT/masks, a data set for `mis-jax evaluate`. The outlines are those of
the made-up scenes. With --same the piece comes from the photo itself, mirrored and moved, which is
much harder to tell apart.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from mis_jax import images, scenes

AREA = 0.04, 0.45  # of the piece, fraction of the photo
MIN_SIDE = 200  # pixels, of a photo


def paste(rng: np.random.Generator, photos: list[Path], same: bool) -> tuple:
    """An image uint8 [H, W, 3] and the mask bool [H, W] of the piece in it."""
    while True:
        below, above = (images.read_image(photos[k]) for k in rng.choice(len(photos), 2, False))
        height, width = below.shape[:2]
        if min(height, width) < MIN_SIDE:
            continue
        if same:
            shift = [rng.integers(-side // 3, side // 3) for side in (height, width)]
            above = np.roll(below[:, ::-1], shift, (0, 1))
        above = cv2.resize(above, (width, height), interpolation=cv2.INTER_AREA)
        alpha = scenes.random_shape(rng, (height, width))
        if AREA[0] < (alpha > 0.5).mean() < AREA[1]:
            image = below + alpha[..., None] * (above.astype(np.float32) - below)
            return np.clip(np.rint(image), 0, 255).astype(np.uint8), alpha > 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", help="a folder, list file or glob of images")
    parser.add_argument("output", type=Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--same", action="store_true", help="paste into the photo itself")
    args = parser.parse_args()
    photos = images.find_images(args.photos)
    for part in ("images", "masks"):
        (args.output / part).mkdir(parents=True, exist_ok=True)
    for k in range(args.count):
        image, mask = paste(np.random.default_rng([args.seed, k]), photos, args.same)
        cv2.imwrite(str(args.output / "images" / f"piece_{k:05d}.png"), image[:, :, ::-1])
        cv2.imwrite(str(args.output / "masks" / f"piece_{k:05d}.png"), mask * np.uint8(255))


if __name__ == "__main__":
    main()
