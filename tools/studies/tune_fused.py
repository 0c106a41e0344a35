"""NoC of the fused predictor as it is and with one setting changed, on some objects of a data set.

    python tools/studies/tune_fused.py dev=regions.json:photos [--every 5] [--json FILE]

Clicks are at the deepest point of the worst mistake, and at random within it. Objects are done at
90 % IoU, or after 20 clicks.
"""

import argparse
import contextlib
from unittest import mock

import numpy as np

from mis_jax.datasets.samples import Sample
from mis_jax.evaluation.clicker import RandomClicker, next_click, rounds
from mis_jax.evaluation.evaluate import open_datasets
from mis_jax.evaluation.formats import compact_json
from mis_jax.evaluation.metrics import noc
from mis_jax.files import write_file
from mis_jax.predictors import FusedPredictor, evidence, fused

TARGET, MAX_CLICKS = 0.9, 20
VARIANTS: dict[str, dict[str, float | tuple]] = {
    "as it is": {},
    "one tree": {"STRIDES": (2,)},
    "mistake 0.75": {"MISTAKE": 0.75},
    "mistake 3": {"MISTAKE": 3.0},
    "shown 0": {"SHOWN": 0.0},
    "shown 4": {"SHOWN": 4.0},
    "no colours": {"COLOURS": 0.0, "FIRST_COLOURS": 0.0},
    "colours 1.4": {"COLOURS": 1.4},
    "smoothness 9": {"SMOOTHNESS": 9.4},
    "smoothness 37": {"SMOOTHNESS": 37.5},
    "central 0": {"CENTRAL": 0.0},
    "central 8": {"CENTRAL": 8.0},
    "first size 0": {"FIRST_SIZE": 0.0},
    "first size 0.6": {"FIRST_SIZE": 0.6},
    "framed 0": {"FRAMED": 0.0},
    "nothing passed over": {"LEAST_DEPTH": np.inf},
}


def main() -> None:
    """Prints a line for each variant; writes all as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", help="NAME=FOLDER as in mis-jax evaluate")
    parser.add_argument("--every", type=int, default=5, help="objects to take one of")
    parser.add_argument("--json", help="file for the result")
    arguments = parser.parse_args()
    benchmark = open_datasets([arguments.dataset])[0]
    samples = [sample for k, sample in enumerate(benchmark) if k % arguments.every == 0]
    rows: dict[str, dict] = {}
    for name, changes in VARIANTS.items():
        rows[name] = {"changes": {key: str(value) for key, value in changes.items()}}
        with contextlib.ExitStack() as stack:
            for key, value in changes.items():
                place = evidence if hasattr(evidence, key) else fused
                stack.enter_context(mock.patch.object(place, key, value))
            rows[name] |= {"deepest": clicked(samples, 0), "random": clicked(samples, 1)}
        print(name, rows[name]["deepest"], rows[name]["random"], flush=True)
        if arguments.json:
            document = {"every": arguments.every, "objects": len(samples), "variants": rows}
            write_file(arguments.json, compact_json(document))


def clicked(samples: list[Sample], random: int) -> dict[str, float]:
    """NoC, and mean IoU after the first click and the third, by one kind of clicks."""
    ious = []
    for k, sample in enumerate(samples):
        choose = RandomClicker(k) if random else next_click
        answers = rounds(FusedPredictor(), sample, TARGET, MAX_CLICKS, choose)
        ious.append([float(answer.iou) for answer in answers])
    found = {f"noc{100 * target:.0f}": noc(ious, target, MAX_CLICKS) for target in (0.85, 0.9)}
    found |= {f"iou{k}": np.mean([row[min(k, len(row)) - 1] for row in ious]) for k in (1, 3)}
    return {key: round(float(value), 3) for key, value in found.items()}


if __name__ == "__main__":
    main()
