"""How many clicks the evidence network takes on made-up targets, before and after its training.

They are pasted layers on photos that are kept out of training (composite_stream.py), clicked on as
`mis-jax evaluate` clicks: it says whether training on one's own photos made the model better, where
nobody has outlined anything. Of too few photos none is kept out, and the answer says so.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from mis_jax.datasets import Sample
from mis_jax.evaluation import clicker, metrics
from mis_jax.files import write_file
from mis_jax.predictors import CorrectedPredictor
from mis_jax.training.composite_stream import Compose, held_out, keeps_out
from mis_jax.training.input import Source
from mis_jax.training.monitor import PROGRESS

NAME = "made_up.json"  # in a run's folder
GOAL, MOST = 0.9, 20  # IoU and clicks at which an object is done


def is_there(run: pathlib.Path, step: int, count: int) -> bool:
    """Whether a run's folder has it of that step, of so many objects."""
    try:
        found = json.loads((run / NAME).read_text("utf-8"))
        return (found["step"], found["n"]) == (step, count)
    except (OSError, ValueError, TypeError, LookupError):
        return False


def write(run: pathlib.Path, step: int, found: Mapping) -> None:
    """Writes what `measure` found at a step, whole or not at all."""
    write_file(run / NAME, json.dumps({"step": step, **found}, indent=1) + "\n")


def measure(files: Sequence[str], config: ConfigDict, before: Any, after: Any) -> dict:
    """What `compared` says of the clicks with the parameters before and after training.

    Args:
        files: all shards; see `records.shard_files`.
        config: of the run; `config.train.made_up` is the number of objects, at least 1.
        before: parameters, nested dict.
        after: the same.

    Returns:
        That, and "kept_out": whether training did not learn from the photos.

    Raises:
        InputError: a shard or record that cannot be read.
    """
    samples, ious = targets(files, config, config.train.made_up), []
    for when, params in (("before", before), ("after", after)):
        bar = tqdm(samples, f"made-up targets, {when}", unit=" objects", bar_format=PROGRESS)
        ious.append(clicks(params, config, bar))
    return {**compared(*ious), "kept_out": keeps_out(Source(files))}


def targets(files: Sequence[str], config: ConfigDict, count: int) -> list[Sample]:
    """Objects on composites of the photos that are held out, one a composite, always the same."""
    part = held_out(Source(files))
    compose = Compose(part, config.data.crop, (1.0, 0.0, 0.0))
    found = []
    for k in range(count):
        made = compose.random_map(part[k % len(part)], np.random.default_rng([config.seed, k]))
        large = np.repeat(np.repeat(made["targets"][0] > 127, 2, 0), 2, 1)
        found.append(Sample(f"made-up {k}", made["image"], large.astype(np.int32)))
    return found


def clicks(params: Any, config: ConfigDict, samples: Iterable[Sample]) -> list[list[float]]:
    """The IoU after each click on each object."""
    placed = jax.device_put(jax.device_get(params), jax.local_devices()[0])
    predictor = CorrectedPredictor(placed, config.model.evidence, config.model.dtype)
    return [[r.iou for r in clicker.rounds(predictor, sample, GOAL, MOST)] for sample in samples]


def compared(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> dict:
    """Clicks to an IoU of 85 and 90 % and IoU after the first, before and after, in pairs.

    Args:
        before: the IoU after each click on each object.
        after: the same, of the same objects.

    Returns:
        {"noc85", "noc90", "iou1": {"before", "after", "difference", "interval": [low, high]}, "n"};
        the interval is that of the mean difference, at a level of 95 %.
    """
    found: dict = {"n": len(before)}
    for name in ("noc85", "noc90", "iou1"):
        then, now = (_values(name, ious) for ious in (before, after))
        found[name] = {
            "before": float(then.mean()),
            "after": float(now.mean()),
            "difference": float((now - then).mean()),
            "interval": list(metrics.bootstrap_interval(now - then)),
        }
    return found


def _values(name: str, ious: Sequence[Sequence[float]]) -> np.ndarray:
    if name == "iou1":
        return np.array([found[0] for found in ious])
    return metrics.clicks_to(ious, int(name[3:]) / 100, MOST)


def sentence(found: Mapping) -> str:
    """What `measure` found, in a line."""
    c, first = found["noc85"], found["iou1"]
    low, high = c["interval"]
    better = "better" if high < 0 else "worse" if low > 0 else "not certainly better or worse"
    photos = (
        "photos kept out of training"
        if found["kept_out"]
        else "the photos it learnt from, too few to keep some out of training"
    )
    return (
        f"{found['n']} made-up targets on {photos}: {c['before']:.2f} clicks to 85 % IoU before, "
        f"{c['after']:.2f} after ({c['difference']:+.2f}, 95 % interval {low:+.2f} to "
        f"{high:+.2f}): {better}; first-click IoU {100 * first['before']:.1f} % before, "
        f"{100 * first['after']:.1f} % after."
    )
