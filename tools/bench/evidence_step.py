"""Where the time of training an evidence network goes: clicks a second, and what bounds them.

    python tools/bench/evidence_step.py RECORDS [--config NAME] [--steps N] [--json FILE]

Everything is what `mis-jax train` runs. Composites are made by threads beside the step; how many
these could make alone is measured first.
"""

import argparse
import collections
import functools
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import jax
import numpy as np

from mis_jax import config as configs
from mis_jax import records
from mis_jax.training import evidence_step, monitor, sharding, tracks, train

COMPOSITES = 40


def main() -> None:
    """Prints a table, and writes it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path)
    parser.add_argument("--config", default="shipped")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    found = measure(records.shard_files(arguments.records), arguments.config, arguments.steps)
    for name, value in found.items():
        print(f"{name}: {value:,.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found) + "\n")


def measure(files: list[str], name: str, steps: int) -> dict[str, float]:
    """Clicks a second, composites a second of one thread, and milliseconds a click of each part."""
    config = configs.load(name)
    threads, config.data.threads = config.data.threads, 0
    stream = train.make_stream(files, config)
    images = len(next(stream)["image"])
    began = time.perf_counter()
    batches = -(-COMPOSITES // images)
    collections.deque(itertools.islice(stream, batches), 0)
    alone = batches * images / (time.perf_counter() - began)
    config.data.threads = threads
    stream, spent = train.make_stream(files, config), collections.Counter()
    set_out = _timed(evidence_step._set_out, "images' evidence", spent)
    with mock.patch.object(evidence_step, "_set_out", set_out):
        step, init, _, _ = evidence_step.make_step(config, sharding.make_mesh(1))
        state = init()
        for k in range(steps + 1):
            if k == 1:  # the first one compiles
                spent.clear()
                began = time.perf_counter()
            state, _ = step(state, next(stream))
        took = time.perf_counter() - began
    stream.close()
    clicks = steps * monitor.work(config)[0]
    single = _evidence_alone(files, config)
    return {
        "clicks a second": clicks / took,
        "milliseconds a click": 1e3 * took / clicks,
        "of that the images' evidence": 1e3 * spent["images' evidence"] / clicks,
        "of that the clicks' evidence, if its threads did not wait": single / threads,
        "composites a second, one thread alone": alone,
        "composites a second that are needed": steps * images / took,
    }


def _evidence_alone(files: list[str], config) -> float:
    """Milliseconds of one thread for the evidence of a click."""
    config.data.threads = 0
    batch = next(train.make_stream(files, config))
    place = tracks.Place.of(batch["image"][0])
    rng = np.random.default_rng(0)
    track = tracks.Track(place, itertools.cycle(batch["targets"][0]), rng)
    spent = 0.0
    for _ in range(50):
        began = time.perf_counter()
        asked = track.ask()
        spent += time.perf_counter() - began
        track.see(asked.said[..., -1] > 0)
    return 1e3 * spent / 50


def _timed(function: Callable, name: str, spent: collections.Counter) -> Callable:
    @functools.wraps(function)
    def call(*args, **fields):
        began = time.perf_counter()
        found = jax.block_until_ready(function(*args, **fields))
        spent[name] += time.perf_counter() - began
        return found

    return call


if __name__ == "__main__":
    main()
