"""What each part of an evidence network's training is worth, on some objects of a data set.

    python tools/studies/ablate_evidence.py RECORDS dev=regions.json:photos [--every 5]
        [--config NAME] [--steps N] [--crop S] [--json FILE]

Each variant is trained from nothing for the same number of steps, and then clicked at the deepest
point of the worst mistake, to 90 % IoU or 20 clicks. It is a comparison of short trainings: what is
slow to learn shows less than it is worth.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import numpy as np
from ml_collections import ConfigDict

from mis_jax import config as configs
from mis_jax import records
from mis_jax.datasets.samples import Sample
from mis_jax.evaluation.clicker import rounds
from mis_jax.evaluation.evaluate import open_datasets
from mis_jax.evaluation.formats import compact_json
from mis_jax.evaluation.metrics import bootstrap_interval, clicks_to, noc
from mis_jax.files import write_file
from mis_jax.predictors import FusedPredictor, Predictor, maps
from mis_jax.training import composites, pieces, tracks, train

TARGET, MAX_CLICKS = 0.9, 20
PLAIN = "as it is"
FUSED = "no training (fused)"
BLIND = slice(0, 16)  # of a picture's channels, all but the borders of the trees


def main() -> None:
    """Prints a line for each variant, and writes all as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("--every", type=int, default=5, help="take every n-th object")
    parser.add_argument("--config", default="shipped")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--crop", type=int, default=192)
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    samples = list(open_datasets([arguments.dataset])[0])[:: arguments.every]
    files = records.shard_files(arguments.records)
    found = {FUSED: clicked(FusedPredictor(), samples)}
    print(line(FUSED, found[FUSED], None), flush=True)
    for name, (fields, patches) in VARIANTS.items():
        config = short(arguments.config, arguments.steps, arguments.crop, fields)
        with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
            for patch in patches:
                stack.enter_context(patch)
            train.train(files, Path(folder) / "run", config)
            found[name] = clicked(Predictor.load(Path(folder) / "run"), samples)
        print(line(name, found[name], found[PLAIN]), flush=True)
        if arguments.json:
            rows = {name: row(ious, found[PLAIN]) for name, ious in found.items() if PLAIN in found}
            settings = {"steps": arguments.steps, "crop": arguments.crop, "n": len(samples)}
            write_file(arguments.json, compact_json({**settings, "variants": rows}))


def short(name: str, steps: int, crop: int, fields: dict) -> ConfigDict:
    """A config of so many steps, its schedule shortened alike."""
    config = configs.load(name)
    ratio = steps / config.optim.steps
    config.optim.milestones = tuple(int(step * ratio) for step in config.optim.milestones)
    config.optim.update(steps=steps, ema=0.99)
    config.data.crop, config.train.checkpoint_every, config.train.made_up = crop, steps, 0
    for field, value in fields.items():
        section, leaf = field.split(".")
        config[section][leaf] = value
    return config


def clicked(predictor, samples: Iterable[Sample]) -> list[list[float]]:
    """The IoU after each click on each object."""
    return [[r.iou for r in rounds(predictor, sample, TARGET, MAX_CLICKS)] for sample in samples]


def row(ious: list[list[float]], plain: list[list[float]]) -> dict:
    """NoC, IoU after the first click, and in pairs how many clicks more than the plain variant."""
    more = clicks_to(ious, 0.85, MAX_CLICKS) - clicks_to(plain, 0.85, MAX_CLICKS)
    return {
        "noc85": noc(ious, 0.85, MAX_CLICKS),
        "noc90": noc(ious, 0.9, MAX_CLICKS),
        "iou1": float(np.mean([found[0] for found in ious])),
        "more_noc85": float(more.mean()),
        "more_noc85_interval": list(bootstrap_interval(more)),
    }


def line(name: str, ious: list[list[float]], plain: list[list[float]] | None) -> str:
    """`row` for a terminal."""
    r = row(ious, plain or ious)
    low, high = r["more_noc85_interval"]
    difference = f"  {r['more_noc85']:+.2f} [{low:+.2f}, {high:+.2f}]" if plain else ""
    return f"{name:28s} {r['noc85']:.2f} / {r['noc90']:.2f}, {r['iou1']:.3f}{difference}"


def _see_evidence(self: tracks.Track, mask: np.ndarray) -> tracks.Seen:
    """`Track.see` of the evidence's own answer, whatever the network says."""
    return _see(self, self._own)


_see, _picture, _ask = tracks.Track.see, maps.picture, tracks.Track.ask


def _ask_and_keep(self: tracks.Track) -> tracks.Asked:
    asked = _ask(self)
    self._own = asked.said[..., -1] > 0
    return asked


def _without_borders(ground) -> np.ndarray:
    found = _picture(ground)
    found[..., BLIND.stop :] = 0
    return found


def _without_pixels(ground) -> np.ndarray:
    found = _picture(ground)
    found[..., BLIND] = 0
    return found


VARIANTS = {
    PLAIN: ({}, []),
    "layers alone": ({"data.targets": (1.0, 0.0, 0.0)}, []),
    "nodes and pairs alone": ({"data.targets": (0.0, 0.7, 0.3)}, []),
    "borders as they are": ({}, [mock.patch.object(composites, "BY_HAND", 0.0)]),
    "layers' own light": (
        {},
        [mock.patch.object(pieces, "MATCHED", 0.0), mock.patch.object(pieces, "BLURRED", 0.0)],
    ),
    "clicks on the evidence's errors": (
        {},
        [
            mock.patch.object(tracks.Track, "ask", _ask_and_keep),
            mock.patch.object(tracks.Track, "see", _see_evidence),
        ],
    ),
    "without trees' borders": ({}, [mock.patch.object(maps, "picture", _without_borders)]),
    "without pixels and links": ({}, [mock.patch.object(maps, "picture", _without_pixels)]),
}


if __name__ == "__main__":
    main()
