"""Time and agreement of Ward merging on a grid: ours, scikit-learn's and higra's, in one run.

    pip install scikit-learn higra
    python tools/bench/trees.py [--photos FOLDER] [--json FILE] [--rival MODULE]

Features are smooth noise; every method merges its own copy of the same array, on one thread, the
methods in turn. The least time of several rounds counts. "ours" may put centers in the place of the
features, as in propose. With photos, the regions of the fast and the exact mode are compared on the
embedded descriptor's features. --rival names an importable module with a function
`bottom_up_merging(features, height, width)` that returns merges, as the published code's extension
has it (build that yourself; it is not part of this project).
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import time

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import cv2
import numpy as np

from mis_jax.datasets import images
from mis_jax.features import descriptor
from mis_jax.proposals.tree import build_tree
from mis_jax.proposals.ward import ward_merges

# Grid, channels, and how often each method runs. 47 x 63 is an image of 500 x 375 at stride 8.
SIZES = ((47, 63, 384, 30), (94, 125, 384, 10), (188, 250, 384, 5), (376, 500, 32, 5))
SLOW = 30_000  # patches; above, scikit-learn and higra run once


def main() -> None:
    """Prints the table, ratios first, and the agreement; writes both as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", help="folder of photos for the agreement of regions")
    parser.add_argument("--json", help="file for the result")
    parser.add_argument("--rival", help="module with bottom_up_merging(features, height, width)")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    methods = _methods(arguments.rival)
    rows = [_row(methods, *size) for size in SIZES]
    print("ratio to ours (milliseconds), regions that differ from ours of all regions")
    print("\n".join(map(_line, rows)))
    result = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    result |= {"versions": _versions(), "sizes": rows}
    result["queries"] = _queries()
    print(f"one tree: {result['queries']}")
    if arguments.photos:
        result["photos"] = _agreement(arguments.photos)
        print(f"photos: {result['photos']}")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(result, file, indent=1)


def _methods(rival: str | None) -> dict:
    """Name -> (features [n, C], height, width) -> merges; those that can be imported."""
    methods = {
        "ours": lambda f, h, w: ward_merges(f, h, w, overwrite=True)[0],
        "ours, features kept": lambda f, h, w: ward_merges(f, h, w)[0],
        "ours, exact": lambda f, h, w: ward_merges(f, h, w, exact=True)[0],
    }
    if rival:
        methods[rival] = importlib.import_module(rival).bottom_up_merging
    try:
        import higra

        methods["higra"] = lambda f, h, w: _higra(higra, f, h, w)
    except ImportError:
        print("higra is not installed and left out")
    try:
        from sklearn.cluster import ward_tree
        from sklearn.feature_extraction.image import grid_to_graph

        methods["scikit-learn"] = lambda f, h, w: ward_tree(f, connectivity=grid_to_graph(h, w))[0]
    except ImportError:
        print("scikit-learn is not installed and left out")
    return methods


def _higra(higra, features: np.ndarray, height: int, width: int) -> np.ndarray:
    """Merges of higra's tree, whose node numbers are ours."""
    graph = higra.get_4_adjacency_graph((height, width))
    tree, _ = higra.binary_partition_tree_ward_linkage(graph, features)
    order = np.argsort(tree.parents()[:-1], kind="stable")
    return order.reshape(-1, 2)


def _row(methods: dict, height: int, width: int, channels: int, rounds: int) -> dict:
    features = smooth_noise(height, width, channels)
    seconds, merges = dict.fromkeys(methods, float("inf")), {}
    for method in methods.values():  # compiles
        method(smooth_noise(3, 3, channels), 3, 3)
    for k in range(rounds):
        for name, method in methods.items():
            if k and height * width > SLOW and name in ("higra", "scikit-learn"):
                continue
            given = features.copy()
            start = time.perf_counter()
            merges[name] = method(given, height, width)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    ours = regions(np.asarray(merges["ours"]), height * width)
    differ = {n: len(ours - regions(np.asarray(m), height * width)) for n, m in merges.items()}
    return {
        "grid": f"{height}x{width}x{channels}",
        "regions": height * width - 1,
        "milliseconds": {name: round(1000 * s, 3) for name, s in seconds.items()},
        "ratio": {name: round(s / seconds["ours"], 2) for name, s in seconds.items()},
        "differ": differ,
    }


def _line(row: dict) -> str:
    cells = [
        f"{name} {row['ratio'][name]:.2f} ({row['milliseconds'][name]:.2f} ms), {differ}"
        for name, differ in row["differ"].items()
    ]
    return f"{row['grid']:>12} {row['regions']:>7} regions   " + "   ".join(cells)


def smooth_noise(height: int, width: int, channels: int) -> np.ndarray:
    """Features float32 [height * width, channels]: blurred noise and a little of it unblurred."""
    rng = np.random.default_rng(0)
    features = np.empty((height, width, channels), np.float32)
    for c in range(channels):
        noise = rng.standard_normal((2, height, width), np.float32)
        features[..., c] = 5 * cv2.GaussianBlur(noise[0], (0, 0), 2.0) + 0.3 * noise[1]
    return features.reshape(height * width, channels)


def regions(merges: np.ndarray, n: int) -> set[int]:
    """A set of the merged regions: sums of random numbers of 62 bits, one for each patch."""
    sums = np.random.default_rng(1).integers(2**62, size=2 * n - 1).tolist()
    for m, (first, second) in enumerate(merges.tolist()):
        sums[n + m] = sums[first] + sums[second]
    return set(sums[n:])


def _agreement(folder: str, count: int = 60) -> dict:
    """Photos whose fast and exact trees have the same regions, of the first `count`."""
    paths, differ = images.find_images(folder)[:count], []
    for path in paths:
        features = descriptor.embedded(images.read_image(path))
        height, width, channels = features.shape
        flat = features.reshape(-1, channels)
        fast, exact = (ward_merges(flat, height, width, exact=e)[0] for e in (False, True))
        differ.append(len(regions(fast, len(flat)) - regions(exact, len(flat))))
    return {"photos": len(paths), "same regions": differ.count(0), "regions that differ": differ}


def _queries(height: int = 375, width: int = 500) -> dict:
    """Mean microseconds of questions to a tree of 47 x 63 patches, over nodes and patches."""
    tree = build_tree(smooth_noise(47, 63, 38).reshape(47, 63, 38))
    nodes, patches = range(0, tree.num_nodes, 7), range(0, tree.n, 7)
    tree.pixel_mask(0, height, width), tree.ancestors(0)  # lays the tree out
    questions = {
        "mask of a node in 375 x 500 pixels": (nodes, lambda k: tree.pixel_mask(k, height, width)),
        "ancestors of a patch": (patches, tree.ancestors),
    }
    found = {"bytes": len(tree.to_bytes())}
    for name, (items, ask) in questions.items():
        start = time.perf_counter()
        for item in items:
            ask(item)
        found[name] = round(1e6 * (time.perf_counter() - start) / len(items), 2)
    return found


def _versions() -> dict[str, str]:
    found = {}
    for name in ("numba", "numpy", "scikit-learn", "higra"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
