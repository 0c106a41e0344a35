"""How long the fused predictor takes to answer, where the time goes, and beside others.

    python tools/bench/fused.py PHOTOS [--count 24] [--json FILE]

Photos are shrunk to an area of 480 x 320 pixels. On each, an object is clicked twelve times by the
protocol: the part of the photo that the trees' own answer to a click in its middle shows, so that
clicks are like those on objects. Wall time of one object at a time; after a first photo that is
not counted. The model that ships, GSC and merge trees answer the same clicks in the same run; a
shape of photos that is new to the model is compiled for once, which a mean shows and a median not.
"""

import argparse
import contextlib
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

import made_up

from mis_jax.datasets import images
from mis_jax.datasets.samples import Sample
from mis_jax.errors import InputError
from mis_jax.evaluation.clicker import ClickPredictor, next_click
from mis_jax.files import write_file
from mis_jax.predictors import FusedPredictor, TreePredictor, classics, corrected, evidence, fused

CLICKS = 12
AREA = 480 * 320
RIVALS = {
    "fused": FusedPredictor,
    "shipped": corrected.shipped,
    "tree": TreePredictor,
    "gsc": classics.PREDICTORS["gsc"],
}
PARTS = {  # of a fused answer
    "trees and links": (evidence.Ground, "of"),
    "mistake": (evidence, "mistake"),
    "colours": (evidence, "object_likelihood"),
    "evidence in all": (evidence, "channels"),
    "cut": (fused, "cut"),
    "edges": (fused, "snap"),
}


def main() -> None:
    """Prints a table of milliseconds, and writes them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos")
    parser.add_argument("--count", type=int, default=24, help="photos")
    parser.add_argument("--json", help="file for the result")
    arguments = parser.parse_args()
    cases = [case(path) for path in made_up.shuffled(arguments.photos, 0, arguments.count + 1)]
    document: dict = {"photos": arguments.count, "clicks": CLICKS, "milliseconds": {}}
    for name, make in RIVALS.items():
        measured = [answers(make(), *each) for each in cases][1:]
        document["milliseconds"][name] = summary(np.array(measured))
        print(name, document["milliseconds"][name], flush=True)
    ours, gsc = (document["milliseconds"][name]["later click"] for name in ("fused", "gsc"))
    document["gsc over fused, later click"] = round(gsc / ours, 2)
    document["parts of fused, milliseconds a click"] = parts(cases)
    print(json.dumps(document, indent=1))
    if arguments.json:
        write_file(arguments.json, json.dumps(document, indent=1) + "\n")


def case(path: Path) -> tuple[np.ndarray, list[tuple[int, int, bool]]]:
    """A photo, uint8 [H, W, 3], and the clicks (row, col, positive) on something in it."""
    image = images.read_image(path)
    factor = np.sqrt(AREA / (image.shape[0] * image.shape[1]))
    size = round(image.shape[1] * factor), round(image.shape[0] * factor)
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    trees, predictor = TreePredictor(), FusedPredictor()
    trees.set_image(image)
    truth = trees.click(size[0] // 2, size[1] // 2)
    sample = Sample(path.name, image, truth.astype(np.int32))
    predictor.set_image(image)
    mask, clicked = np.zeros(truth.shape, bool), []
    for _ in range(CLICKS):
        clicked.append(next_click(sample.mask, mask, [(row, col) for row, col, _ in clicked]))
        row, col, positive = clicked[-1]
        mask = predictor.click(col, row, positive)
    return image, clicked


def answers(predictor: ClickPredictor, image: np.ndarray, clicks: list) -> list[float]:
    """Seconds of the first answer, making ready included, and of the others."""
    seconds, began = [], time.perf_counter()
    predictor.set_image(image)
    for row, col, positive in clicks:
        predictor.click(x=col, y=row, positive=positive)
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return seconds


def summary(seconds: np.ndarray) -> dict[str, float]:
    """Means and 95th percentiles in milliseconds, of [photos, CLICKS]."""
    first, later = 1000 * seconds[:, 0], 1000 * seconds[:, 1:]
    found = {"first answer": first.mean(), "first answer, 95 %": np.quantile(first, 0.95)}
    found |= {"later click": later.mean(), "later click, 95 %": np.quantile(later, 0.95)}
    return {name: round(float(value), 1) for name, value in found.items()}


def parts(cases: list) -> dict[str, float]:
    """Milliseconds a click that the parts of the fused predictor take; trees: an image."""
    total: dict[str, float] = defaultdict(float)
    with contextlib.ExitStack() as stack:
        for name, (place, attribute) in PARTS.items():
            stack.enter_context(timed(total, name, place, attribute))
        for image, clicks in cases:
            answers(FusedPredictor(), image, clicks)
    per = {name: len(cases) * (1 if name == "trees and links" else CLICKS) for name in PARTS}
    return {name: round(1000 * total[name] / per[name], 2) for name in PARTS}


@contextlib.contextmanager
def timed(total: dict[str, float], name: str, place: object, attribute: str) -> Iterator[None]:
    """Adds up the seconds spent in a function."""
    call = getattr(place, attribute)

    def wrapped(*given: object) -> object:
        began = time.perf_counter()
        try:
            return call(*given)
        finally:
            total[name] += time.perf_counter() - began

    with mock.patch.object(place, attribute, wrapped):
        yield


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
