"""What clicks amount to: number of clicks to an IoU (NoC), failures (NoF), IoU after each click.

Intervals are those of the mean over objects: the percentile bootstrap (Efron 1979), always with the
same draws, so that the same IoUs give the same interval.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mis_jax.datasets import Benchmark

THRESHOLDS = (0.80, 0.85, 0.90, 0.95)
RESAMPLES = 10_000  # of a bootstrap, and at least a fifth of that for large benchmarks
DRAWS = 1 << 24  # objects drawn in all, as far as that fifth permits
_BLOCK = 1 << 20  # objects drawn at a time


def noc(ious: Sequence[Sequence[float]], target: float = 0.90, max_clicks: int = 20) -> float:
    """Mean number of clicks to `target` IoU; `max_clicks` for an object that never gets there.

    Args:
        ious: for each object, its IoU after the first, second, ... click, compared in float32.
    """
    return float(np.mean(clicks_to(ious, target, max_clicks)))


def nof(ious: Sequence[Sequence[float]], target: float = 0.90, max_clicks: int = 20) -> int:
    """Number of objects that take `max_clicks` or more, those solved by the last one included."""
    return int(np.sum(clicks_to(ious, target, max_clicks) == max_clicks))


def clicks_to(ious: Sequence[Sequence[float]], target: float, max_clicks: int) -> np.ndarray:
    """Clicks of each object to `target` IoU, int64 [n], as `noc` counts them."""
    reached = held(ious, max_clicks).astype(np.float32) >= np.float32(target)
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, max_clicks)


def held(ious: Sequence[Sequence[float]], max_clicks: int) -> np.ndarray:
    """IoU after each click, float64 [n, max_clicks]; an object that was done keeps its last."""
    rows = [list(row[:max_clicks]) or [0.0] for row in ious]
    return np.array([row + row[-1:] * (max_clicks - len(row)) for row in rows], np.float64)


def summarize(
    records: Sequence[dict],
    benchmark: Benchmark,
    target: float = 0.90,
    max_clicks: int = 20,
    random: Sequence[Sequence[dict]] = (),
) -> dict:
    """The entry of a benchmark in results.json.

    Args:
        records: {"id", "digest", "ious", "clicks": [[row, col, 1 or 0], ...], "seconds"} of each
            object.
        target: IoU at which clicks ended; over 1, all objects had all clicks.
        random: such records of each seed of the random clicker.

    Returns:
        What `numbers` gives, and `n`, the number of objects, `expected`, how many the benchmark
        has, `spc`, seconds a click, `seconds`, `skipped`, and by object `ious`, `clicks`, `times`,
        its seconds, `digests` and `notes`. With random clickers, `random`: `seeds`, their number,
        and `noc85` and so on, one for each.
    """
    ious = {r["id"]: r["ious"] for r in records}
    seconds, known = sum(r["seconds"] for r in records), benchmark.expected
    result = numbers(list(ious.values()), target, max_clicks) | {
        "n": len(records),
        "expected": known if known else len(records) + len(benchmark.skipped),
        "spc": seconds / sum(len(v) for v in ious.values()),
        "seconds": seconds,
        "skipped": dict(benchmark.skipped),
        "notes": dict(benchmark.notes),
        "ious": ious,
        "clicks": {r["id"]: r["clicks"] for r in records},
        "times": {r["id"]: r["seconds"] for r in records},
        "digests": {r["id"]: r["digest"] for r in records},
    }
    return result | ({"random": _spread(random, target, max_clicks)} if random else {})


def _spread(random: Sequence[Sequence[dict]], target: float, max_clicks: int) -> dict:
    """NoC of each random clicker."""
    runs = [[r["ious"] for r in one] for one in random]
    counts = {
        f"noc{percent}": [noc(run, threshold, max_clicks) for run in runs]
        for percent, threshold in thresholds(target).items()
    }
    return {"seeds": len(random), **counts}


def thresholds(target: float) -> dict[str, float]:
    """The IoUs that clicks are counted to if they ended at `target`, by their percent."""
    known = sorted(t for t in {*THRESHOLDS, target} if t <= min(target, 1))
    return {f"{100 * threshold:.4g}": threshold for threshold in known}


def numbers(ious: Sequence[Sequence[float]], target: float = 0.90, max_clicks: int = 20) -> dict:
    """What the IoUs of a benchmark's objects amount to.

    Args:
        ious: for each object, its IoU after the first, second, ... click.

    Returns:
        `noc85` and `nof85`, `noc` and `nof` at 0.85, `noc85_interval`, [low, high], and so on up to
        the target; `miou` and `miou_interval`, for each click the mean IoU after it and [low,
        high]; `miou_exact`, whether none is of objects that had stopped before; `target` and
        `max_clicks`. Intervals hold 95 %.
    """
    after = held(ious, max_clicks)
    counts = {p: clicks_to(ious, t, max_clicks) for p, t in thresholds(target).items()}
    columns = np.column_stack([*counts.values(), after])
    intervals = np.round(bootstrap_intervals(columns), 6).tolist()
    result: dict[str, Any] = {"target": target, "max_clicks": max_clicks}
    for (percent, count), interval in zip(counts.items(), intervals, strict=False):
        result[f"noc{percent}"] = float(np.mean(count))
        result[f"noc{percent}_interval"] = interval
        result[f"nof{percent}"] = int(np.sum(count == max_clicks))
    return result | {
        "miou": np.mean(after, axis=0).tolist(),
        "miou_interval": intervals[len(counts) :],
        "miou_exact": min(map(len, ious)) >= max_clicks,
    }


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of values [n], n at least 1, always the same."""
    low, high = bootstrap_intervals(np.asarray(values)[:, None], seed, level)[0].tolist()
    return low, high


def bootstrap_intervals(values: np.ndarray, seed: int = 0, level: float = 0.95) -> np.ndarray:
    """The same of each column of values [n, m], all from the same draws of rows: float64 [m, 2]."""
    values, rng = np.asarray(values, np.float64), np.random.default_rng(seed)
    n, means = len(values), []
    resamples = min(RESAMPLES, max(RESAMPLES // 5, DRAWS // n))
    block = max(1, _BLOCK // n)  # all resamples at once would be gigabytes for large benchmarks
    for first in range(0, resamples, block):
        drawn = rng.integers(n, size=(min(block, resamples - first), n))
        drawn += n * np.arange(len(drawn))[:, None]
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        means.append(times.astype(np.float64) @ values / n)
    ends = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return ends.T
