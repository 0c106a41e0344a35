"""Samples a second that one core prepares for training, where its time goes, and how threads scale.

    mis-jax propose PHOTOS --records RECORDS --config.features.stride=8
    python tools/bench/input.py RECORDS [--published FOLDER] [--json FILE]

A sample is a record read, an image decoded, a proposal, a crop of 448 pixels, first clicks, and its
row of a batch of 32. With --published, FOLDER/MIS being a clone of the published code
(docs/fidelity.md), its data set and its experiment's settings prepare samples of the same photos
and trees, in files as it wants them, through the DataLoader it trains with, in this same process
and on the same core; rounds of one and the other alternate. Seconds of processor are what a core
needs; seconds of the clock include whatever else the machine does.
"""

import argparse
import importlib.util
import json
import os
import pickle
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "fidelity"))

import cv2
import numpy as np
import published

from mis_jax import config
from mis_jax.proposals import sampling, tree
from mis_jax.records import store
from mis_jax.training import augment, input
from mis_jax.training import first_clicks as clicks

BATCH = 32
BATCHES = 6  # a round
RECORDS = 8498  # of SBD; fewer are gone through again, for orders are drawn over so many
ROUNDS = 7
THREADS = (1, 2, 4)
STAGES = (  # what is timed of ours: stage, holder and name of a function
    ("record and tree read", input.Source, "__getitem__"),
    ("image decoded", augment, "_decode"),
    ("proposal drawn", tree.Tree, "sample"),
    ("proposal drawn", tree.Tree, "mask"),
    ("place and mask cut", augment.Augmentation, "draw"),
    ("image warped and coloured", augment, "cut"),
    ("clicks drawn", clicks, "sample_clicks"),
)
RELEASED = (  # functions that do their work without Python's lock; there are more
    *((cv2, name) for name in ("imdecode", "cvtColor", "warpAffine", "erode", "dilate")),
    *((augment, name) for name in ("_look_up", "_recolour")),
    *((tree, name) for name in ("_is_tree", "_layout")),
    (sampling, "_top_down"),
    (clicks, "_pick"),
)
LIBRARIES = ("grain", "numba", "numpy", "opencv-python", "opencv-python-headless",
             "albumentations", "torch")  # fmt: skip


def main() -> None:
    """Prints the result, and writes it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", help="folder of shards, as propose writes them")
    parser.add_argument("--published", type=Path, help="folder that holds the clone MIS")
    parser.add_argument("--json", help="file for the result")
    arguments = parser.parse_args()
    cores = _cores()
    _stay_on(cores[:1])
    result = {
        "machine": platform.processor() or platform.machine(),
        "cores": len(cores),
        "load_before": _load(),
        "versions": published.versions_of(LIBRARIES),
        "photos": _photos(arguments.records),
        "samples": f"{ROUNDS} rounds of {BATCH * BATCHES}, crops of {config.data()['crop']}",
    }
    with tempfile.TemporaryDirectory() as folder:
        loaders = {"ours": _ours(arguments.records, 0)}
        if arguments.published:
            path = arguments.published.resolve()
            loaders["published"] = _published(path, arguments.records, Path(folder))
        result |= _one_core(loaders)
    result["milliseconds_of_each_stage"] = _stages(loaders["ours"], STAGES)
    released = _stages(loaders["ours"], [("released", *x) for x in RELEASED])
    result["share_without_lock"] = round(released["released"] / sum(released.values()), 3)
    _stay_on(cores)
    result["threads"] = _threads(arguments.records)
    result["load_after"] = _load()
    print(json.dumps(result, indent=1))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


def _ours(folder: str, threads: int) -> Iterator:
    """Our endless batches, with the settings of the paper."""
    fields = config.data() | {"threads": threads}
    fields |= {k: config.clicks()[k] for k in ("max_points", "gamma")}
    del fields["targets"]  # of the evidence network
    files = store.shard_files(folder)
    files *= -(-RECORDS // len(input.Source(files)))
    return input.train_stream(files, seed=0, batch_size=BATCH, **fields)


def _published(clones: Path, folder: str, scratch: Path) -> Iterator:
    """The published endless batches, of the same photos and trees."""
    published.old_numpy_names()
    published.use(clones, "MIS")
    from easydict import EasyDict
    from torch.utils.data import DataLoader

    path = clones / "MIS" / "models" / "mis_simpleclick_base448_sbd.py"
    spec = importlib.util.spec_from_file_location("published_experiment", path)
    experiment = importlib.util.module_from_spec(spec)
    sys.modules["isegm.model.is_hrformer_model"] = mock.MagicMock()  # unused; needs more libraries
    spec.loader.exec_module(experiment)
    _write_sbd(folder, scratch)
    crop = config.data()["crop"]
    settings = EasyDict(crop_size=(crop, crop), num_max_points=config.clicks()["max_points"])
    given = EasyDict(batch_size=BATCH, SBD_PATH=str(scratch), layerwise_decay=False)
    with mock.patch.object(experiment, "MISTrainer") as trainer:
        experiment.train(None, given, settings)
    dataset = trainer.call_args.kwargs["trainset"]
    dataset._proposal_path = scratch / "trees"
    cv2.setNumThreads(0)
    loader = DataLoader(dataset, BATCH, shuffle=True, drop_last=True, num_workers=0)
    return (batch for _ in iter(int, 1) for batch in loader)


def _write_sbd(folder: str, scratch: Path) -> None:
    """The records as files of photos and trees, byte for byte and merge for merge."""
    for name in ("img", "trees"):
        (scratch / name).mkdir()
    names = []
    for k, record in enumerate(store.read_records(folder)):
        names.append(f"{k:06d}")
        (scratch / "img" / f"{names[-1]}.jpg").write_bytes(record.image)
        merges = list(map(tuple, record.tree.merges.tolist()))
        data = {"tree": merges, "size": record.tree.grid}
        (scratch / "trees" / f"{names[-1]}.pkl").write_bytes(pickle.dumps(data))
    names *= -(-RECORDS // len(names))
    (scratch / "train.txt").write_text("\n".join(names))


def _one_core(loaders: dict[str, Iterator]) -> dict:
    """Milliseconds a sample, samples a second, and ratios to ours."""
    clocks = {"of processor": time.process_time, "of the clock": time.perf_counter}
    spent = {(kind, name): [] for kind in clocks for name in loaders}
    for loader in loaders.values():
        _take(loader, 2)  # compiles
    for _ in range(ROUNDS):
        for name, loader in loaders.items():
            start = [clock() for clock in clocks.values()]
            _take(loader, BATCHES)
            for (kind, clock), before in zip(clocks.items(), start, strict=True):
                spent[kind, name].append(1000 * (clock() - before) / (BATCH * BATCHES))
    found = {}
    for pick in (min, statistics.median):
        key = {min: "least"}.get(pick, "median")
        for kind in clocks:
            ms = {name: pick(spent[kind, name]) for name in loaders}
            found[f"{key} {kind}"] = {
                "milliseconds": {name: round(x, 3) for name, x in ms.items()},
                "samples_a_second": {name: round(1000 / x, 1) for name, x in ms.items()},
                "ratio": {name: round(x / ms["ours"], 2) for name, x in ms.items()},
            }
    return {"one_core": found}


def _stages(loader: Iterator, stages: Sequence) -> dict[str, float]:
    """Milliseconds of processor of each stage of a sample of ours, medians of rounds."""
    rounds = []
    for _ in range(ROUNDS):
        spent, inner = dict.fromkeys((stage for stage, *_ in stages), 0.0), [0.0]
        patches = [
            mock.patch.object(holder, name, _watched(getattr(holder, name), stage, spent, inner))
            for stage, holder, name in stages
        ]
        for patch in patches:
            patch.start()
        start = time.process_time()
        _take(loader, BATCHES)
        whole = time.process_time() - start
        for patch in patches:
            patch.stop()
        rounds.append(spent | {"the rest": whole - sum(spent.values())})
    per_sample = 1000 / (BATCH * BATCHES)
    return {k: round(per_sample * statistics.median(r[k] for r in rounds), 4) for k in rounds[0]}


def _watched(function: Callable, stage: str, spent: dict, inner: list) -> Callable:
    """The function, which adds its time to `spent`, without that of watched ones it calls."""

    def call(*args, **kwargs):
        inner.append(0.0)
        start = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            took = time.thread_time() - start
            spent[stage] += took - inner.pop()
            inner[-1] += took

    return call


def _threads(folder: str) -> dict[str, dict]:
    """What threads make of all cores: the best of rounds, in which their numbers alternate.

    Where others use the machine, a process may get no more cores for more threads: "cores_at_most"
    is what threads got that only blur a picture, without Python's lock, in the same rounds.
    """
    rows = {str(n): {"samples_a_second": 0.0, "cores_at_most": 0.0} for n in THREADS}
    for _ in range(ROUNDS):
        for threads in THREADS:
            row, loader = rows[str(threads)], _ours(folder, threads)
            _take(loader, threads)
            clock, busy = _timed(lambda: _take(loader, 2 * BATCHES))  # noqa: B023
            loader.close()
            rate = round(2 * BATCHES * BATCH / clock, 1)
            if rate > row["samples_a_second"]:
                row |= {"samples_a_second": rate, "cores_busy": round(busy / clock, 2)}
            clock, busy = _timed(lambda: _blur(threads))  # noqa: B023
            row["cores_at_most"] = max(row["cores_at_most"], round(busy / clock, 2))
            rows[str(threads)] = row
    return rows


def _blur(threads: int) -> None:
    picture = np.zeros((400, 400, 3), np.uint8)
    work = lambda _: [cv2.GaussianBlur(picture, (0, 0), 10) for _ in range(20)]  # noqa: E731
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))


def _timed(function: Callable) -> tuple[float, float]:
    """Seconds of the clock and of processor."""
    before = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - before[0], time.process_time() - before[1]


def _take(loader: Iterator, count: int) -> None:
    for _ in range(count):
        next(loader)


def _photos(folder: str) -> dict:
    sizes, lengths, patches = [], [], []
    for record in store.read_records(folder):
        sizes.append((record.height, record.width))
        lengths.append(len(record.image))
        patches.append(record.tree.n)
    return {
        "count": len(sizes),
        "median_sides": [int(np.median([f(s) for s in sizes])) for f in (min, max)],
        "mean_kilobytes": round(float(np.mean(lengths)) / 1000, 1),
        "median_patches": int(np.median(patches)),
    }


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _stay_on(cores: list[int]) -> None:
    """Ties this thread and those it starts to some cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def _load() -> list[float]:
    """Mean numbers of running processes, over 1, 5 and 15 minutes."""
    return [round(x, 1) for x in os.getloadavg()] if hasattr(os, "getloadavg") else []


if __name__ == "__main__":
    main()
