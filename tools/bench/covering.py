"""Region covering: how well cuts of merge trees match what people drew, by the protocol of BSDS500.

    python tools/bench/covering.py SEGMENTS PHOTOS [--every N] [--json FILE]

SEGMENTS holds NAME_k.png, what annotator k made of the photo NAME, each region a number; or
NAME.mat as published (BSDS500/data/groundTruth/test). PHOTOS holds the photos, of any type.

The covering of drawn regions is the sum of (area of a region * highest IoU of a segment with it)
over the sum of areas, over all regions of all annotators. Segments are those of one threshold on
the hierarchy for all photos (ODS), of the best one for each photo (OIS), or any node (best).

Beside it stands how like a drawn region the proposals of training are: the mean, over nodes as they
are drawn then, of the highest IoU of a node with any region.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import scipy.io
from numba import njit
from tqdm import tqdm

from mis_jax.datasets import images
from mis_jax.errors import InputError
from mis_jax.features import descriptor
from mis_jax.proposals import Tree, build_tree, nearest_patches

METHODS: dict[str, Callable[[np.ndarray], Tree]] = {
    f"{name}, stride {stride}": lambda image, stride=stride, borders=borders: build_tree(
        descriptor.embedded(image, stride), borders=borders
    )
    for stride in (2, 3, 4, 8)
    for name, borders in (("by borders", True), ("Ward's", False))
}
DRAWS = 20  # proposals a photo
THRESHOLDS = np.geomspace(1e-5, 1e5, 251)  # of costs
# ODS, OIS and best on the 200 test images of BSDS500, from Arbelaez et al., 2011 (TPAMI 33:5).
PUBLISHED = {
    "gPb-owt-ucm (trained)": (0.59, 0.65, 0.74),
    "mean shift": (0.54, 0.58, 0.66),
    "Felzenszwalb and Huttenlocher": (0.52, 0.57, 0.69),
    "normalised cuts": (0.45, 0.53, 0.67),
}


def main() -> None:
    """Prints a table, and writes it with the coverings of each photo as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("segments", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take every n-th photo")
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    drawn = find(arguments.segments, arguments.photos)[:: arguments.every]
    rows = measure(drawn)
    print(f"{len(drawn)} photos\n{table(rows)}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"photos": len(drawn), "methods": rows}) + "\n")


def find(segments: Path, photos: Path) -> list[tuple[Path, list[Path]]]:
    """The photos that people segmented, by name, each with the files of what they drew.

    Raises:
        InputError: no such files, or a photo is missing.
    """
    files: dict[str, list[Path]] = {}
    for path in sorted(segments.glob("*.mat")) or sorted(segments.glob("*.png")):
        name = path.stem if path.suffix == ".mat" else path.stem.rpartition("_")[0]
        files.setdefault(name, []).append(path)
    found = {path.stem: path for path in images.find_images(photos)}
    if not files or files.keys() - found.keys():
        missing = next(iter(files.keys() - found.keys()), "NAME")
        raise InputError(f"{segments} and {photos} hold no photo {missing} with what people drew.")
    return [(found[name], files[name]) for name in sorted(files)]


def read_drawn(paths: list[Path]) -> list[np.ndarray]:
    """What each annotator drew: int64 [H, W], regions numbered from 0 on."""
    drawn = []
    for path in paths:
        if path.suffix == ".mat":
            cells = scipy.io.loadmat(path)["groundTruth"].ravel()
            drawn += [cell["Segmentation"][0, 0] for cell in cells]
        else:
            drawn.append(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    return [np.unique(one, return_inverse=True)[1].reshape(one.shape) for one in drawn]


def measure(drawn: list[tuple[Path, list[Path]]]) -> dict[str, dict]:
    """Coverings and seconds a photo (features and tree, processor time) of each method."""
    covered = {method: [] for method in METHODS}
    proposed = {method: [] for method in METHODS}
    areas, seconds = [], dict.fromkeys(METHODS, 0.0)
    for make in METHODS.values():
        make(images.read_image(drawn[0][0]))  # compiles
    for photo, paths in tqdm(drawn, unit=" photos"):
        image, regions = images.read_image(photo), read_drawn(paths)
        areas.append(sum(one.size for one in regions))
        for method, make in METHODS.items():
            began = time.process_time()
            tree = make(image)
            seconds[method] += time.process_time() - began
            cuts, best, ious = covering(tree, regions, THRESHOLDS)
            covered[method].append((cuts, best))
            rng = np.random.default_rng(0)
            proposed[method] += [ious[tree.sample(rng)] for _ in range(DRAWS)]
    rows = {}
    for method, found in covered.items():
        cuts, nodes = (np.array(part) for part in zip(*found, strict=True))
        best = int(np.argmax(cuts.sum(0)))
        rows[method] = {
            "ods": cuts.sum(0)[best] / sum(areas),
            "threshold": THRESHOLDS[best],
            "ois": cuts.max(1).sum() / sum(areas),
            "best": nodes.sum() / sum(areas),
            "proposals": float(np.mean(proposed[method])),
            "seconds": seconds[method] / len(drawn),
            "each": np.round(nodes / areas, 4).tolist(),
        }
    return rows


def covering(
    tree: Tree, drawn: list[np.ndarray], thresholds: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray]:
    """Pixels that a tree covers: sums of (area of a drawn region * highest IoU with it).

    A cut at a threshold has the largest nodes within which no merge costs more.

    Args:
        drawn: int64 [H, W] each, regions numbered from 0 on.
        thresholds: float64 [T], ascending, at least 0.

    Returns:
        Of the cut at each threshold, float64 [T], and of any nodes; and the highest IoU of each
        node with any region, float64 [2n - 1].
    """
    (height, width), (rows, columns) = drawn[0].shape, tree.grid
    patch = nearest_patches(rows, height)[:, None] * columns + nearest_patches(columns, width)
    heights = np.append(np.searchsorted(thresholds, costliest(tree)), len(thresholds))
    parents = heights[tree.parents()]  # -1, of the root: the last, which no threshold reaches
    cuts, best, ious = np.zeros(len(thresholds)), 0.0, np.zeros(tree.num_nodes)
    for regions in drawn:
        count = int(regions.max()) + 1
        pixels = np.bincount((patch * count + regions).ravel(), minlength=tree.n * count)
        pixels = pixels.reshape(tree.n, count)
        found = _highest_ious(tree.merges, pixels, heights[:-1], parents, len(thresholds))
        cuts += found[0] @ pixels.sum(0)
        best += float(found[1] @ pixels.sum(0))
        np.maximum(ious, found[2], out=ious)
    return cuts, best, ious


def costliest(tree: Tree) -> np.ndarray:
    """Cost of the costliest merge within each node, float64 [2n - 1], 0 of patches."""
    costs = np.concatenate([np.zeros(tree.n), tree.costs])
    for node, (first, second) in enumerate(tree.merges, tree.n):
        costs[node] = max(costs[node], costs[first], costs[second])
    return costs


@njit(cache=True)
def _highest_ious(
    merges: np.ndarray, pixels: np.ndarray, heights: np.ndarray, parents: np.ndarray, cuts: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The highest IoU with each region of the nodes in each cut, [cuts, R], and of any, [R].

    And that of each node with any region, [2n - 1].

    Args:
        pixels: int64 [n, R], of each patch in each region.
        heights: int64 [2n - 1], the first cut that a node may be in.
        parents: int64 [2n - 1], the first cut that is too high for it.
    """
    n, count = pixels.shape
    inside, sizes = np.zeros((2 * n - 1, count), np.int32), np.zeros(count)
    found, most, ious = np.zeros((cuts, count)), np.zeros(count), np.zeros(2 * n - 1)
    for patch in range(n):
        inside[patch] = pixels[patch]
        sizes += pixels[patch]
    for node in range(2 * n - 1):
        if node >= n:
            inside[node] = inside[merges[node - n, 0]] + inside[merges[node - n, 1]]
        size = inside[node].sum()
        for region in range(count):
            shared = inside[node, region]
            if shared:
                iou = shared / (size + sizes[region] - shared)
                most[region], ious[node] = max(most[region], iou), max(ious[node], iou)
                for cut in range(heights[node], parents[node]):
                    found[cut, region] = max(found[cut, region], iou)
    return found, most, ious


def table(rows: dict[str, dict]) -> str:
    """Markdown."""
    lines = ["| tree | ODS | OIS | best | proposals | seconds |", "|---" + "|---:" * 5 + "|"]
    keys = ("ods", "ois", "best", "proposals", "seconds")
    for name, row in rows.items():
        figures = " | ".join(f"{row[key]:.3f}" for key in keys)
        lines.append(f"| {name} | {figures} |")
    for name, figures in PUBLISHED.items():
        lines.append(f"| {name}, BSDS500 test | {' | '.join(map(str, figures))} | | |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
