"""The quickstart's page: one HTML file that holds all its pictures and needs nothing else."""

import dataclasses
import html
import os
from collections.abc import Sequence
from pathlib import Path
from string import Template

import cv2
import jax
import numpy as np
from ml_collections import ConfigDict

import mis_jax
from mis_jax.datasets import Sample
from mis_jax.evaluation import clicker, metrics
from mis_jax.files import resource, write_file
from mis_jax.inspection import page
from mis_jax.records import Record, Report

CLICKS = (1, 2, 3, 5, 10)  # after which masks are shown, and after the last one
POSITIVE, NEGATIVE = (30, 190, 80), (235, 50, 50)
LABELS = {"trained": "Trained", "untrained": "Untrained"}


@dataclasses.dataclass(frozen=True)
class Example:
    """A held-out scene and the clicks on it that each network took, by its name."""

    sample: Sample
    rounds: dict[str, list[clicker.Round]]


@dataclasses.dataclass(frozen=True)
class Facts:
    """All that the page tells; networks are named "trained" and "untrained"."""

    run: Path  # folder of the trained network
    config: ConfigDict
    trees: Report
    photos: list[Record]
    metrics: list[dict]  # the lines of metrics.jsonl
    results: dict[str, dict]  # network -> what `metrics.summarize` returns
    examples: list[Example]
    seconds: dict[str, float]  # of each part of the flow


def write(path: Path, facts: Facts) -> None:
    """Writes the page."""
    write_file(path, Template(resource(__package__, "report.html")).substitute(_parts(facts)))


def table(results: dict[str, dict], max_clicks: int) -> list[list[str]]:
    """A header and a row for each network: clicks to an IoU, and IoU after clicks."""
    after = sorted({k for k in (1, 3, 5, 10) if k < max_clicks} | {max_clicks})
    head = ["", "NoC@80", "NoC@85", "NoC@90"]
    rows = [head + [f"IoU@{k}" for k in after]]
    for name, result in results.items():
        counts = [result.get(key) for key in ("noc80", "noc85", "noc90")]
        curve = mean_iou(result, max_clicks)
        cells = ["-" if c is None else f"{c:.2f}" for c in counts]
        rows.append([LABELS[name], *cells, *(f"{100 * curve[k - 1]:.1f} %" for k in after)])
    return rows


def text_table(results: dict[str, dict], max_clicks: int) -> str:
    """`table` for a terminal, with a line that explains it."""
    rows = table(results, max_clicks)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    n = next(iter(results.values()))["n"]
    lines.append(
        f"{n} held-out scenes. NoC@85: mean clicks to 85 % IoU, {max_clicks} where never reached "
        "(lower is better); IoU@5: mean IoU after 5 clicks."
    )
    return "\n".join(lines)


def mean_iou(result: dict, max_clicks: int) -> np.ndarray:
    """Mean IoU after each click, float64 [max_clicks]; an object that is done keeps its last."""
    return metrics.held(list(result["ious"].values()), max_clicks).mean(axis=0)


# ---- pictures


def draw_clicks(image: np.ndarray, mask: np.ndarray, clicks: Sequence[clicker.Round]) -> np.ndarray:
    """`page.draw_mask` with clicks, uint8 RGB [H, W, 3]."""
    panel = page.draw_mask(image, mask)
    for click in clicks:
        cv2.circle(panel, (click.col, click.row), 8, (255, 255, 255), -1, cv2.LINE_AA)
        colour = POSITIVE if click.positive else NEGATIVE
        cv2.circle(panel, (click.col, click.row), 6, colour, -1, cv2.LINE_AA)
    return panel


def _example(example: Example, target: float) -> str:
    image, truth = example.sample.image, example.sample.mask == 1
    rows = []
    for name, done in example.rounds.items():
        panels = [page.figure(page.draw_outline(image, truth), "the object")]
        for k in sorted({k for k in CLICKS if k < len(done)} | {len(done)}):
            last = done[k - 1]
            text = f"{k} click{'s' if k > 1 else ''}: {100 * last.iou:.0f} %"
            text = f"<b>{text}</b>" if last.iou >= target else text
            alt = f"{name} network after {k} clicks, IoU {last.iou:.2f}"
            panels.append(page.figure(draw_clicks(image, last.mask, done[:k]), text, alt))
        rows.append(f'<h3 class="{name}">{LABELS[name]}</h3>')
        rows.append(f'<div class="strip">{"".join(panels)}</div>')
    return f'<div class="card">{"".join(rows)}</div>'


# ---- charts


def _chart(title: str, x_label: str, lines: dict[str, tuple], top: float) -> str:
    """Lines, style -> (x, y), as SVG in the page's colours; y from 0 to `top`, in steps of 0.2."""
    left, right, low, high = 38, 344, 176, 12
    end = max(float(x[-1]) for x, _ in lines.values())
    across = lambda x: left + (right - left) * np.asarray(x) / end  # noqa: E731
    up = lambda y: low - (low - high) * np.clip(y, 0, top) / top  # noqa: E731
    parts = []
    for tick in np.arange(0, top + 0.01, 0.2):
        y = up(tick)
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.2g}</text>')
    for tick in np.unique(np.linspace(0, end, 5).round()):
        parts.append(
            f'<text x="{across(tick):.1f}" y="{low + 16}" text-anchor="middle">{tick:.0f}</text>'
        )
    parts.append(f'<text x="{(left + right) / 2}" y="{low + 32}" text-anchor="middle">')
    parts.append(f"{x_label}</text>")
    for style, (x, y) in lines.items():
        points = " ".join(
            f"{a:.1f},{b:.1f}" for a, b in zip(across(x), up(np.asarray(y)), strict=True)
        )
        parts.append(f'<polyline class="{style}" points="{points}"/>')
    body = "".join(parts)
    return (
        f'<figure class="chart"><figcaption>{title}</figcaption>'
        f'<svg viewBox="0 0 360 214" role="img" aria-label="{html.escape(title)}">{body}</svg>'
        "</figure>"
    )


def _learning(metrics: list[dict]) -> str:
    """Loss and IoU over the steps, as running means."""
    width = max(len(metrics) // 25, 1)
    steps = [m["step"] for m in metrics][width - 1 :]
    smooth = lambda k: np.convolve([m[k] for m in metrics], np.ones(width) / width, "valid")  # noqa: E731
    loss, iou = smooth("bce"), smooth("iou")
    top = float(np.ceil(5 * loss.max()) / 5)
    return _chart(
        "Error (binary cross entropy) falls", "steps", {"trained": (steps, loss)}, top
    ) + (_chart("Overlap (IoU) with the regions rises", "steps", {"trained": (steps, iou)}, 1.0))


def _clicks_chart(results: dict[str, dict], max_clicks: int) -> str:
    clicks = range(1, max_clicks + 1)
    lines = {name: (clicks, mean_iou(r, max_clicks)) for name, r in results.items()}
    legend = " ".join(f'<span class="{name}">{LABELS[name]}</span>' for name in lines)
    return _chart(f"Mean IoU after each click {legend}", "clicks", lines, 1.0)


def _parts(facts: Facts) -> dict[str, str]:
    """What takes the place of each $name of the page."""
    c, results = facts.config, facts.results
    most, scenes = c.eval.max_clicks, c.quickstart.unlabelled
    versions = (mis_jax, jax, np, cv2)
    return {
        "style": page.style(),
        "photo_count": str(len(facts.trees.patches) - scenes),
        "scene_count": str(scenes),
        "minutes": _duration(sum(facts.seconds.values())),
        "trained": f"{results['trained']['noc85']:.1f}",
        "untrained": f"{results['untrained']['noc85']:.1f}",
        "objects": str(results["trained"]["n"]),
        "max_clicks": str(most),
        "target": f"{100 * c.eval.target:g}",
        "samples": f"{c.optim.steps * c.optim.batch_size:,}",
        "crop": str(c.data.crop),
        "proposals": "\n".join(map(page.cuts, facts.photos)),
        "learning": _learning(facts.metrics),
        "examples": "\n".join(_example(e, c.eval.target) for e in facts.examples),
        "run": html.escape(str(facts.run)),
        "chart": _clicks_chart(results, most),
        "table": page.table(table(results, most)),
        "times": page.bars(facts.seconds, "{:.1f} s".format),
        "machine": html.escape(_machine()),
        "versions": ", ".join(f"{m.__name__} {m.__version__}" for m in versions),
    }


def _machine() -> str:
    if jax.default_backend() == "cpu":
        return f"{os.cpu_count()} CPU cores"
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def _duration(seconds: float) -> str:
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.0f} s"
