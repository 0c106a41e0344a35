"""Draws the learning curve of a run from its metrics.jsonl, and writes its points as CSV.

python tools/studies/plot_run.py RUN/metrics.jsonl learning_curve.png
"""

import csv
import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np


def main(source: str, target: str, window: int = 50) -> None:
    """Plots means over `window` steps of the loss and of the IoU with the training proposals."""
    with open(source) as file:
        lines = [json.loads(line) for line in file]
    count = len(lines) // window * window
    if not count:
        sys.exit(f"{source} holds {len(lines)} steps; {window} are needed for one point.")
    column = lambda key: np.reshape([line[key] for line in lines[:count]], (-1, window)).mean(1)  # noqa: E731
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    names = ("step", "seconds", "loss", "bce", "nfl", "kinship", "smooth", "iou", "evidence_iou")
    names += ("first_iou", "first_evidence_iou", "grad_norm", "lr")
    names = [name for name in names if name in lines[0]]
    losses = [name for name in names if name in ("loss", "bce", "nfl")]
    ious = [name for name in names if name.endswith("iou")]
    for axis, keys in zip(axes, (losses, ious), strict=True):
        for key in keys:
            axis.plot(column("step"), column(key), label=key)
        axis.set_xlabel(f"step (means of {window})")
        axis.grid(alpha=0.3)
        axis.legend()
    proposals = "IoU with the sampled proposals, after 0 to 3 simulated clicks"
    evidence = "IoU of its answers and of the evidence's own, of all and of first clicks"
    axes[1].set_title(evidence if len(ious) > 1 else proposals, fontsize=9)
    figure.savefig(target, dpi=120)
    with pathlib.Path(target).with_suffix(".csv").open("w", newline="") as file:
        rows = zip(*(column(name) for name in names), strict=True)
        csv.writer(file).writerows([names, *([f"{v:.6g}" for v in row] for row in rows)])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
