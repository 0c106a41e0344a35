"""How well merge trees of the embedded descriptor hold objects, and how fast they are made.

python tools/bench/descriptor.py PHOTOS OUTPUT.json [--split tuning] [--datasets NAME=FOLDER ...]

Measures the best-node IoU (oracle.py) on the three sets of tools/data/made_up.py, and on evaluation
sets laid out as benchmarks.py says. Beside the descriptor, merged by borders, stand the mean Lab
colours of the same cells, merged by Ward's method.
Images/s count one core's CPU time for decoding, features and tree.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

import made_up

from mis_jax.datasets import images
from mis_jax.errors import InputError
from mis_jax.evaluation import evaluate, metrics
from mis_jax.features import descriptor
from mis_jax.inspection import oracle
from mis_jax.proposals.tree import Tree, build_tree

COUNT = 150  # images of each made-up set
TIMED = 60  # photos
# The seed of the targets, and the first of the shuffled photos that are used. The descriptor's
# settings were chosen on others from the first 400 photos, and on none that "held-out" draws.
SPLITS = {"tuning": (200, 0), "held-out": (1000, 400)}
METHODS: dict[str, Callable[[np.ndarray], Tree]] = {
    "Lab means, stride 8": lambda image: build_tree(lab_means(image, 8)),
    "descriptor, stride 8": lambda image: descriptor.merge_tree(image, 8)[0],
    "Lab means, stride 4": lambda image: build_tree(lab_means(image, 4)),
    "descriptor, stride 4": lambda image: descriptor.merge_tree(image, 4)[0],
    "descriptor, stride 2": lambda image: descriptor.merge_tree(image, 2)[0],
}


def main() -> None:
    """Measures, prints a table, and writes it with the IoU of every image as JSON."""
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1])
    parser.add_argument("photos")
    parser.add_argument("output")
    parser.add_argument("--split", choices=SPLITS, default="held-out")
    parser.add_argument("--datasets", nargs="*", default=[])
    flags = parser.parse_args()
    cv2.setNumThreads(1)
    seed, first = SPLITS[flags.split]
    paths = made_up.shuffled(flags.photos, first, COUNT)
    sets = {"scenes": made_up.made_up(seed, COUNT), "other photo": made_up.pasted(paths, seed)}
    sets["same photo"] = made_up.moved(paths, seed)
    for benchmark in evaluate.open_datasets(flags.datasets) if flags.datasets else ():
        sets[benchmark.name] = ((sample.image, sample.mask) for sample in benchmark)
    rows = {method: {"images_per_second": speed(paths, METHODS[method])} for method in METHODS}
    for name, targets in sets.items():
        for method, ious in measure(targets).items():
            low, high = metrics.bootstrap_interval(ious)
            row = {"mean": float(np.mean(ious)), "interval": [low, high]}
            rows[method][name] = row | {"ious": np.round(ious, 4).tolist()}
    print(table(rows, sets))
    document = {"split": flags.split, "seed": seed, "methods": rows}
    Path(flags.output).write_text(json.dumps(document) + "\n")


def lab_means(image: np.ndarray, stride: int) -> np.ndarray:
    """Mean CIE Lab colours of the cells, float32 [h, w, 3]."""
    height, width = (-(-side // stride) for side in image.shape[:2])
    cells = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(cells.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)


def measure(targets: made_up.Targets) -> dict[str, np.ndarray]:
    """The best-node IoU of every image, float64 [n], by each method."""
    best = {method: [] for method in METHODS}
    for image, truth in targets:
        for method, make in METHODS.items():
            best[method].append(oracle.best_node(make(image), truth)[0])
    return {method: np.array(ious) for method, ious in best.items()}


def speed(paths: list[Path], make: Callable[[np.ndarray], Tree]) -> float:
    """Images a second of CPU time: decoding, features and tree; compiled before."""
    make(images.prepare(paths[0], 0)[1])
    began = time.process_time()
    for path in paths[:TIMED]:
        make(images.prepare(path, 0)[1])
    return min(TIMED, len(paths)) / (time.process_time() - began)


def table(rows: dict[str, dict], sets: dict[str, object]) -> str:
    """Markdown: means with their 95 % intervals."""
    lines = [f"| tree of | {' | '.join(sets)} | images/s |", "|---" * (len(sets) + 1) + "|---:|"]
    for method, row in rows.items():
        figures = ((row[name]["mean"], *row[name]["interval"]) for name in sets)
        cells = ("{:.3f} ({:.3f} to {:.3f})".format(*figure) for figure in figures)
        lines.append(f"| {method} | {' | '.join(cells)} | {row['images_per_second']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
