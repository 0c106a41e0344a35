"""What clicks amount to: number of clicks to an IoU (NoC), failures (NoF), IoU after each click."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mis_jax.benchmarks import Benchmark

THRESHOLDS = (0.80, 0.85, 0.90)


def noc(ious: Sequence[Sequence[float]], target: float = 0.90, max_clicks: int = 20) -> float:
    """Mean number of clicks to `target` IoU; `max_clicks` for an object that never gets there.

    Args:
        ious: for each object, its IoU after the first, second, ... click, compared in float32.
    """
    return float(np.mean(clicks_to(ious, target, max_clicks)))


def nof(ious: Sequence[Sequence[float]], target: float = 0.90, max_clicks: int = 20) -> int:
    """Number of objects that take `max_clicks` or more, those solved by the last one included."""
    return int(np.sum(np.equal(clicks_to(ious, target, max_clicks), max_clicks)))


def clicks_to(ious: Sequence[Sequence[float]], target: float, max_clicks: int) -> list[int]:
    counts = []
    for row in ious:
        reached = np.asarray(row[:max_clicks], np.float32) >= np.float32(target)
        counts.append(int(np.argmax(reached)) + 1 if reached.any() else max_clicks)
    return counts


def summarize(
    records: Sequence[dict], benchmark: Benchmark, target: float = 0.90, max_clicks: int = 20
) -> dict:
    """The entry of a benchmark in results.json.

    `noc85` and `nof85` are `noc` and `nof` at 0.85, and so on up to the target; `spc` is seconds a
    click, `n` the number of objects, `expected` how many the benchmark has.
    """
    ious = {r["id"]: r["ious"] for r in records}
    seconds = sum(r["seconds"] for r in records)
    known = benchmark.expected
    result: dict[str, Any] = {}
    for threshold in sorted({*THRESHOLDS, target}):
        if threshold <= min(target, 1):
            percent = f"{100 * threshold:.4g}"
            result[f"noc{percent}"] = noc(list(ious.values()), threshold, max_clicks)
            result[f"nof{percent}"] = nof(list(ious.values()), threshold, max_clicks)
    return result | {
        "n": len(records),
        "expected": known if known else len(records) + len(benchmark.skipped),
        "spc": seconds / sum(len(v) for v in ious.values()),
        "seconds": seconds,
        "skipped": dict(benchmark.skipped),
        "ious": ious,
    }
