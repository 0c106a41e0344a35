"""Throughput of propose, as a fraction of its slowest part alone: features, merging, or reading.

    python tools/bench/propose.py PHOTOS [--count N] [--model NAME] [--weights FILE] [--json FILE]

Each part alone has all threads (and all devices) to itself. Where features are computed on an
accelerator, the whole should come near its slowest part; where they are computed by the cores that
also merge, near the time of all parts together.
"""

import argparse
import functools
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import jax

from mis_jax import config
from mis_jax.datasets import images
from mis_jax.features import extractors
from mis_jax.proposals.tree import build_tree
from mis_jax.records import propose


def main() -> None:
    """Prints images a second of each part and of the whole; writes them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", help="folder of photos")
    parser.add_argument("--count", type=int, default=64, help="photos to use")
    parser.add_argument("--model", default="embedded", help="config.features.model")
    parser.add_argument("--weights", default="", help="config.features.weights")
    parser.add_argument("--json", help="file for the result")
    arguments = parser.parse_args()
    settings = config.features() | {"model": arguments.model, "weights": arguments.weights}
    extractor = extractors.make_extractor(**settings)
    paths = images.find_images(arguments.photos)[: arguments.count]
    threads = os.cpu_count() or 1
    cv2.setNumThreads(1)  # one photo a thread, as in propose
    seconds = _parts(paths, extractor, threads)
    with tempfile.TemporaryDirectory() as folder:
        listing = os.path.join(folder, "photos.txt")
        with open(listing, "w") as file:
            file.writelines(f"{os.path.abspath(path)}\n" for path in paths)
        whole = lambda: propose.propose(  # noqa: E731
            listing,
            os.path.join(folder, "records"),
            extractor=extractor,
            batch_size=settings["batch_size"],
            **(config.propose() | {"shard_size": len(paths)}),
        )
        seconds["whole"] = _timed(whole)[0]
    rates = {name: round(len(paths) / s, 2) for name, s in seconds.items()}
    slowest = min(("reading", "features", "merging"), key=rates.get)
    together = sum(seconds[name] for name in ("reading", "features", "merging"))
    result = {
        "device": jax.devices()[0].device_kind,
        "machine": platform.processor() or platform.machine(),
        "threads": threads,
        "model": arguments.model,
        "images": len(paths),
        "images_per_second": rates,
        "fraction_of_slowest": {slowest: round(seconds[slowest] / seconds["whole"], 3)},
        "fraction_of_all_parts_together": round(together / seconds["whole"], 3),
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(result, file, indent=1)


def _parts(paths: list, extractor: extractors.Extractor, threads: int) -> dict[str, float]:
    """Seconds of reading, features and merging alone, each over all photos and threads."""
    side = config.propose()["max_side"]
    with ThreadPoolExecutor(threads) as pool:
        each = lambda function, items: list(pool.map(function, items))  # noqa: E731
        reading, prepared = _timed(lambda: each(lambda p: images.prepare(p, side), paths))
        pictures = [one.image for one in prepared]
        if extractor.device:
            compute = lambda: extractor(pictures)  # noqa: E731
        else:
            compute = lambda: each(lambda picture: extractor([picture])[0], pictures)  # noqa: E731
        compute()  # compiles
        making, found = _timed(compute)
        merge = functools.partial(build_tree, borders=extractor.borders)
        merge(found[0])
        merging, _ = _timed(lambda: each(merge, found))
    return {"reading": reading, "features": making, "merging": merging}


def _timed(function: Callable) -> tuple[float, object]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()
