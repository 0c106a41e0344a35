"""NoC of the classical predictors, as they are or with other constants, on any data sets.

    python tools/studies/tune_classics.py grabcut=FOLDER [--json FILE] [--only graphcut,esc]
    python tools/studies/tune_classics.py other=FOLDER,same=FOLDER --variants --count 12
        [--json FILE]

The second shrinks images, discs and the weight of borders to half, for speed, and tries VARIANTS on
the first objects of each set. tools/data/made_up.py makes such sets. Seconds are of one core.
"""

import argparse
import json
import re
import time
from collections.abc import Iterator
from unittest import mock

import cv2
import numpy as np

from mis_jax.datasets.samples import Benchmark, Sample
from mis_jax.evaluation.clicker import rounds
from mis_jax.evaluation.evaluate import open_datasets
from mis_jax.evaluation.metrics import bootstrap_interval, noc
from mis_jax.files import write_file
from mis_jax.predictors.classics import PREDICTORS, graph_cut
from mis_jax.predictors.classics.graph_cut import GraphCutPredictor


class ClickColours(GraphCutPredictor):
    """Graph cut that takes the frame's colours before the first negative click only."""

    def _terminals(self, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not (seeds == 0).any():
            return super()._terminals(seeds)
        with mock.patch.object(graph_cut, "with_frame", lambda seeds: seeds):
            return super()._terminals(seeds)


TRIED = PREDICTORS | {"graphcut-clicks": ClickColours}
TARGETS = (0.85, 0.90)
MAX_CLICKS = 20
VARIANTS = {
    "graphcut": [
        {},
        {"radius": 4},
        {"radius": 12},
        {"smoothness": 75.0},
        {"smoothness": 300.0},
        {"contrast": 2.0},
    ],
    "random_walk": [{}, {"radius": 4}, {"radius": 12}, {"beta": 90.0}, {"beta": 1000.0}],
    "geodesic": [{}, {"radius": 4}, {"radius": 12}, {"length": 1e-2}, {"length": 0.1}],
    "gsc": [{}, {"radius": 4}, {"radius": 12}, {"geodesic": 0.1}, {"geodesic": 0.9}],
    "esc": [{}, {"radius": 4}, {"radius": 12}],
    "graphcut-clicks": [{}, {"radius": 4}],
}


def main() -> None:
    """Prints a line for each predictor; writes them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", help="NAME=FOLDER,... as in mis-jax evaluate")
    parser.add_argument("--variants", action="store_true", help="try VARIANTS, at half size")
    parser.add_argument("--count", type=int, help="objects of each set: the first ones")
    parser.add_argument("--only", default=",".join(PREDICTORS), help="of them and TRIED, by name")
    parser.add_argument("--json", help="file for the result")
    arguments = parser.parse_args()
    benchmarks = open_datasets(arguments.datasets.split(","))
    rows = []
    for name in arguments.only.split(","):
        for changes in VARIANTS[name] if arguments.variants else [{}]:
            rows.append(measured(name, changes, benchmarks, arguments.count, arguments.variants))
            print(brief(rows[-1]), flush=True)
            if arguments.json:
                write_file(arguments.json, written(rows))


def brief(row: dict) -> str:
    """A row in a line."""
    found = {
        key: value for key, value in row.items() if isinstance(value, dict) and "ious" in value
    }
    figures = [
        f"{key} {v['noc85']} {v['noc90']} ({v['seconds_per_click']} s)" for key, v in found.items()
    ]
    return " ".join([row["predictor"], str(row["changes"]), *figures])


def written(rows: list[dict]) -> str:
    """JSON with an object's numbers on one line."""
    text = json.dumps(rows, indent=1)
    return re.sub(r"\[[-\d.,\s]*\]", lambda m: re.sub(r"\s+", " ", m[0]), text) + "\n"


def measured(
    name: str, changes: dict, benchmarks: list[Benchmark], count: int | None, half: bool
) -> dict:
    """The row of one predictor with some constants changed."""
    make = type(TRIED[name].__name__, (TRIED[name],), changes)
    row = {"predictor": name, "changes": changes, "settings": make().settings, "half": half}
    if half:
        make.radius = round(make.radius / 2)
        make.smoothness = getattr(make, "smoothness", 0) / 2
    for benchmark in benchmarks:
        row[benchmark.name] = clicked(make(), benchmark, count, half)
    return row


def clicked(predictor: object, benchmark: Benchmark, count: int | None, half: bool) -> dict:
    """NoC with 95 % bootstrap intervals, objects not solved, seconds a click, IoU by click."""
    ious, seconds = [], []
    for sample in samples(benchmark, count, half):
        start = time.thread_time()
        answers = rounds(predictor, sample, max(TARGETS), MAX_CLICKS)
        ious.append([round(float(answer.iou), 4) for answer in answers])
        if len(ious) > 1:  # the first compiles
            seconds.append((time.thread_time() - start, len(ious[-1])))
    result: dict = {"objects": len(ious)}
    for target in TARGETS:
        counts = [noc([row], target, MAX_CLICKS) for row in ious]
        low, high = bootstrap_interval(np.array(counts))
        result[f"noc{100 * target:.0f}"] = round(float(np.mean(counts)), 2)
        result[f"interval{100 * target:.0f}"] = [round(low, 2), round(high, 2)]
        result[f"unsolved{100 * target:.0f}"] = sum(max(row) < target for row in ious)
    total, clicks = np.sum(seconds, axis=0) if seconds else (0.0, 1)
    return result | {"seconds_per_click": round(float(total / clicks), 3), "ious": ious}


def samples(benchmark: Benchmark, count: int | None, half: bool) -> Iterator[Sample]:
    """The first objects of a set, at half their size if asked."""
    for k, sample in enumerate(benchmark):
        if count is not None and k >= count:
            return
        size = (sample.mask.shape[1] // 2, sample.mask.shape[0] // 2)
        if half:
            mask = cv2.resize(np.float32(sample.mask == 1), size, interpolation=cv2.INTER_AREA)
            image = cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA)
            sample = Sample(sample.id, image, (mask >= 0.5).astype(np.int32))
        yield sample


if __name__ == "__main__":
    main()
