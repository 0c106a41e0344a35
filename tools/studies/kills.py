"""Kills a training run many times at random moments, and compares its end with an unbroken run's.

    python tools/studies/kills.py results/kills/results.json [--kills 20] [--steps 150] [--seed 1]

Each time the run is killed with SIGKILL and the same command is given again. Afterwards every array
of the last checkpoint (parameters, optimizer state, running mean, step) has to be equal, bit for
bit, to that of a run which nobody disturbed; so have the metrics of every step.
"""

import argparse
import json
import pathlib
import random
import signal
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import jax
import numpy as np
import tiny_run
from orbax.checkpoint import v1 as ocp

from mis_jax.files import write_file

EVERY = 5  # steps between checkpoints
MARGIN = 30  # steps before the last in which no run is killed: it must not end by itself
LATER = 0.5  # seconds at most between a step's report and the kill


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        tiny_run.write_records(folder)
        tiny_run.write_config(folder)
        finish(start(folder, "whole", asked.steps))
        moments = sorted(rng.sample(range(1, asked.steps - MARGIN), asked.kills))
        kills = [kill(folder, asked.steps, m, rng.uniform(0, LATER)) for m in moments]
        finish(start(folder, "killed", asked.steps))
        results = {
            "kills": len(kills),
            "steps": asked.steps,
            "checkpoint_every": EVERY,
            "moments": kills,
            **compare(folder / "whole", folder / "killed", asked.steps),
            "jax": jax.__version__,
            "platform": "cpu",
        }
    asked.results.parent.mkdir(parents=True, exist_ok=True)
    write_file(asked.results, json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


def start(folder: pathlib.Path, run: str, steps: int):
    """`mis-jax train` as a process."""
    words = ["--workdir", folder / run, f"--config={folder}/tiny.py"]
    words += [f"--config.optim.steps={steps}", f"--config.train.checkpoint_every={EVERY}"]
    return tiny_run.start("train", folder / "records", *words, cache=folder / "cache")


def finish(process) -> None:
    _, err = process.communicate()
    if process.returncode:
        raise SystemExit(f"the run failed:\n{err}")


def kill(folder: pathlib.Path, steps: int, moment: int, wait: float) -> dict:
    """Kills a run `wait` seconds after it has reported step `moment`, or its first new step.

    Returns the last step it reported, its last complete checkpoint (0: none yet), and whether
    another was being written.
    """
    run, began = folder / "killed", time.monotonic()
    path = run / "metrics.jsonl"
    moment = max(moment, count(path) + 1)
    process = start(folder, "killed", steps)
    while process.poll() is None and count(path) < moment:
        time.sleep(0.002)
    time.sleep(wait)
    process.kill()
    process.communicate()
    if process.returncode != -signal.SIGKILL:
        raise SystemExit(f"the run ended by itself, with status {process.returncode}")
    names = [p.name for p in (run / "checkpoints").iterdir()]
    complete = [int(name) for name in names if name.isdigit()]
    found = {
        "step": count(path),
        "checkpoint": max(complete, default=0),
        "while_saving": len(complete) < len(names),
    }
    print(f"killed after {time.monotonic() - began:.0f} s: {found}", file=sys.stderr)
    return found


def count(path: pathlib.Path) -> int:
    """Complete lines of a file."""
    return path.read_text().count("\n") if path.exists() else 0


def compare(whole: pathlib.Path, killed: pathlib.Path, steps: int) -> dict:
    """Arrays and metrics that differ between two runs."""
    states = [state(run, steps) for run in (whole, killed)]
    a, b = map(jax.tree.leaves, states)
    same = [x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a, b, strict=True)]
    metrics = [lines(run / "metrics.jsonl") for run in (whole, killed)]
    return {
        "arrays": len(same),
        "elements": sum(x.size for x in a),
        "arrays_that_differ": same.count(False),
        "metrics_equal": metrics[0] == metrics[1] and len(metrics[0]) == steps,
        "equal": all(same) and jax.tree.structure(states[0]) == jax.tree.structure(states[1]),
    }


def state(run: pathlib.Path, steps: int) -> dict:
    """All of a run's last checkpoint."""
    folder = (run / "checkpoints" / str(steps)).absolute()
    items = ocp.checkpointables_metadata(folder).metadata
    loaded = ocp.load_checkpointables(folder, {name: None for name in items})
    return jax.tree.map(np.asarray, {k: loaded[k] for k in ("step", "params", "opt_state", "ema")})


def lines(path: pathlib.Path) -> list[dict]:
    """Metrics without the seconds, which no two runs share."""
    found = map(json.loads, path.read_text().splitlines())
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


if __name__ == "__main__":
    main()
