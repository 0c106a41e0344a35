"""Images with masks -> how near one region of their trees comes to each mask, how few make it."""

import csv
import io
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from mis_jax import features
from mis_jax.datasets import Benchmark, images
from mis_jax.evaluation import clicker, metrics
from mis_jax.inspection import oracle
from mis_jax.proposals import Tree, build_tree, snap

TARGETS = (0.85, 0.90)  # IoU
MAX_NODES = 20  # an object not made by so many counts as so many, as NoC has it


def measure(
    benchmark: Benchmark, extractor: features.Extractor, max_side: int, batch_size: int
) -> list[dict]:
    """Builds the tree of every object's image; one record for each object, in order.

    Returns:
        {"id", "iou": of the best node, "snapped": the same once its mask follows edges (`snap`),
        "area": of the node, fraction of the image, "nodes85", "nodes90": `oracle.nodes_needed`}
        for each object.

    Raises:
        InputError: if no object can be used.
    """
    objects = []
    samples = iter(tqdm(benchmark, benchmark.name, len(benchmark), unit=" objects", disable=None))
    while batch := list(itertools.islice(samples, batch_size)):
        trees = trees_of([sample.image for sample in batch], extractor, max_side)
        for sample, tree in zip(batch, trees, strict=True):
            iou, node = oracle.best_node(tree, sample.mask)
            mask = snap(sample.image, tree.mask(node)) > 0.5
            record = {"id": sample.id, "iou": iou, "snapped": clicker.iou(sample.mask, mask)}
            record["area"] = float(tree.areas()[node] / tree.n)
            for target in TARGETS:
                needed = oracle.nodes_needed(tree, sample.mask, target, MAX_NODES)
                record[f"nodes{100 * target:.0f}"] = needed
            objects.append(record)
    if not objects:
        raise benchmark.nothing_usable()
    return objects


def trees_of(
    pictures: list[np.ndarray], extractor: features.Extractor, max_side: int
) -> Iterator[Tree]:
    """The merge trees of some images, uint8 [H, W, 3], shrunk to `max_side` pixels first."""
    found = extractor([images.shrink(p, max_side) for p in pictures])
    return (build_tree(one, borders=extractor.borders) for one in found)


def summarize(objects: Sequence[dict], benchmark: Benchmark) -> dict:
    """The entry of a dataset in inspect.json; figures are {"mean", "low", "high"}.

    `iou` is of the best nodes, `snapped` of these along edges, `noc85` the oracle's nodes to 85 %,
    `MAX_NODES` where they do not suffice, and `never85` the fraction of objects for which they do
    not; low and high are the ends of the 95 % bootstrap interval.
    """
    result = {key: _mean([o[key] for o in objects]) for key in ("iou", "snapped")}
    for percent in (f"{100 * target:.0f}" for target in TARGETS):
        needed = [o[f"nodes{percent}"] for o in objects]
        result[f"noc{percent}"] = _mean([MAX_NODES if k is None else k for k in needed])
        result[f"never{percent}"] = _mean([k is None for k in needed])
    return result | {
        "n": len(objects),
        "expected": benchmark.expected or len(objects) + len(benchmark.skipped),
        "skipped": dict(benchmark.skipped),
        "notes": dict(benchmark.notes),
    }


def _mean(values: Sequence[float]) -> dict:
    low, high = metrics.bootstrap_interval(values)
    return {"mean": float(np.mean(values)), "low": low, "high": high}


def per_image_csv(objects: Sequence[dict]) -> str:
    """A row for each object; nodes are empty where `MAX_NODES` do not suffice."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(objects[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(o | {k: round(o[k], 6) for k in ("iou", "snapped", "area")} for o in objects)
    return text.getvalue()


def table(results: dict[str, dict]) -> list[list[str]]:
    """A header and a row for each dataset, with intervals."""
    rows = [["", "objects", "best-node IoU", "snapped"]]
    for target in TARGETS:
        rows[0] += [f"tree-NoC@{100 * target:.0f}", "never"]
    for name, r in results.items():
        count = f"{r['n']}" if r["n"] == r["expected"] else f"{r['n']} of {r['expected']}"
        row = [name, count, *(_with_interval(r[key], "{:.3f}") for key in ("iou", "snapped"))]
        for percent in (f"{100 * target:.0f}" for target in TARGETS):
            row.append(_with_interval(r[f"noc{percent}"], "{:.2f}"))
            row.append(_with_interval(r[f"never{percent}"], "{:.0%}"))
        rows.append(row)
    return rows


def _with_interval(figure: dict, form: str) -> str:
    mean, low, high = (form.format(figure[key]) for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def text_table(results: dict[str, dict]) -> str:
    """`table` for a terminal, with a line that explains it."""
    rows = table(results)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    lines.append(
        f"tree-NoC: fewest nodes, added or removed, to that IoU; never: more than {MAX_NODES}, "
        f"counted as {MAX_NODES}. [95 % bootstrap interval]"
    )
    return "\n".join(lines)
