"""How many clicks the evidence network takes on made-up targets that training did not see.

They are pasted layers on photos that are kept out of training (composite_stream.py), clicked on as
`mis-jax evaluate` clicks: it says whether training on one's own photos made the model better, where
nobody has outlined anything.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from mis_jax.datasets import Sample
from mis_jax.evaluation import clicker, metrics
from mis_jax.predictors import CorrectedPredictor
from mis_jax.training.composite_stream import Compose, held_out
from mis_jax.training.input import Source

OBJECTS = 48
GOAL, MOST = 0.9, 20  # IoU and clicks at which an object is done


def targets(files: Sequence[str], config: ConfigDict, count: int = OBJECTS) -> list[Sample]:
    """Objects on composites of the photos that are held out, one a composite, always the same."""
    part = held_out(Source(files))
    compose = Compose(part, config.data.crop, (1.0, 0.0, 0.0))
    found = []
    for k in range(count):
        made = compose.random_map(part[k % len(part)], np.random.default_rng([config.seed, k]))
        large = np.repeat(np.repeat(made["targets"][0] > 127, 2, 0), 2, 1)
        found.append(Sample(f"made-up {k}", made["image"], large.astype(np.int32)))
    return found


def clicks(params: Mapping, config: ConfigDict, samples: Sequence[Sample]) -> list[list[float]]:
    """The IoU after each click on each object."""
    predictor = CorrectedPredictor(params, config.model.evidence, config.model.dtype)
    return [[r.iou for r in clicker.rounds(predictor, sample, GOAL, MOST)] for sample in samples]


def compared(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> dict:
    """Clicks to an IoU of 85 and 90 % and IoU after the first, before and after, in pairs.

    Returns:
        {"noc85", "noc90", "iou1": {"before", "after", "difference", "interval": [low, high]}, "n"}.
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
    """What `compared` found, in a line."""
    c = found["noc85"]
    low, high = c["interval"]
    better = "better" if high < 0 else "worse" if low > 0 else "not certainly better or worse"
    return (
        f"{found['n']} made-up targets on photos kept out of training: {c['before']:.2f} clicks to "
        f"85 % IoU before, {c['after']:.2f} after ({c['difference']:+.2f}, 95 % interval "
        f"{low:+.2f} to {high:+.2f}): {better}; first-click IoU {100 * found['iou1']['before']:.1f} "
        f"% before, {100 * found['iou1']['after']:.1f} % after."
    )
