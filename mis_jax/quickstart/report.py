"""The quickstart's page: one HTML file that holds all its pictures and needs nothing else."""

import dataclasses
import html
import os
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import NamedTuple

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
TINT = np.array((40, 130, 255), np.float32)  # of what a click on a photograph gave
LABELS = {
    "trees": "Merge trees",
    "fused": "Trees, colours and edges",
    "shipped": "Shipped",
    "trained": "Shipped, trained here",
}
SHOWN = ("fused", "trained")  # of these the clicks on examples


class Answer(NamedTuple):
    """A click on a photograph and the mask it was answered with, bool [H, W]."""

    row: int
    col: int
    positive: bool
    mask: np.ndarray


@dataclasses.dataclass(frozen=True)
class Clicked:
    """A photograph, uint8 RGB [H, W, 3], and the clicks on it."""

    name: str
    image: np.ndarray
    answers: list[Answer]


@dataclasses.dataclass(frozen=True)
class Example:
    """A held-out scene and the clicks on it that each predictor took, by its name."""

    sample: Sample
    rounds: dict[str, list[clicker.Round]]


@dataclasses.dataclass(frozen=True)
class Facts:
    """All that the page tells; predictors have the names of LABELS."""

    run: Path  # folder of the trained network
    config: ConfigDict
    clicked: list[Clicked]
    trees: Report
    photos: list[Record]
    metrics: list[dict]  # the lines of metrics.jsonl
    results: dict[str, dict]  # predictor -> what `metrics.summarize` returns
    examples: list[Example]
    seconds: dict[str, float]  # of each part of the flow


def write(path: Path, facts: Facts) -> None:
    """Writes the page."""
    write_file(path, Template(resource(__package__, "report.html")).substitute(_parts(facts)))


def table(results: dict[str, dict], max_clicks: int) -> list[list[str]]:
    """A header and a row for each predictor: clicks to an IoU, IoU after clicks, and time."""
    after = sorted({k for k in (1, 3, 5, 10) if k < max_clicks} | {max_clicks})
    head = ["", "NoC@80", "NoC@85", "NoC@90"]
    rows = [[*head, *(f"IoU@{k}" for k in after), "ms/click"]]
    for name, result in results.items():
        counts = [result.get(key) for key in ("noc80", "noc85", "noc90")]
        curve = mean_iou(result, max_clicks)
        cells = ["-" if c is None else f"{c:.2f}" for c in counts]
        cells += [f"{100 * curve[k - 1]:.1f} %" for k in after]
        rows.append([LABELS[name], *cells, f"{1000 * result['spc']:.0f}"])
    return rows


def text_table(results: dict[str, dict], max_clicks: int) -> str:
    """`table` for a terminal, with a line that explains it."""
    rows = table(results, max_clicks)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
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


def draw_clicks(
    panel: np.ndarray, clicks: Sequence[clicker.Round | Answer], radius: int = 6
) -> np.ndarray:
    """A copy of a picture, uint8 RGB [H, W, 3], with clicks of so many pixels."""
    panel = panel.copy()
    for click in clicks:
        place = click.col, click.row
        cv2.circle(panel, place, radius + max(2, radius // 4), (255, 255, 255), -1, cv2.LINE_AA)
        colour = POSITIVE if click.positive else NEGATIVE
        cv2.circle(panel, place, radius, colour, -1, cv2.LINE_AA)
    return panel


def draw_found(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An image, uint8 RGB [H, W, 3], with a mask, bool [H, W], tinted and outlined in white."""
    tinted = np.where(mask[..., None], 0.5 * image + 0.5 * TINT, 0.8 * image).astype(np.uint8)
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(tinted, outlines, -1, (255, 255, 255), 2, cv2.LINE_AA)


def _clicked(photo: Clicked) -> str:
    """A photograph, and what it looks like after each click, as a row."""
    side = max(photo.image.shape[:2])
    panels = [page.figure(photo.image, "the photo", f"the photo {photo.name}")]
    for k, answer in enumerate(photo.answers, start=1):
        sign = "on it" if answer.positive else "not that"
        text = f"<b>{_clicks(k)}</b>: {sign}"
        panel = draw_clicks(draw_found(photo.image, answer.mask), photo.answers[:k], side // 60)
        panels.append(page.figure(panel, text, f"{photo.name}, mask after {_clicks(k)}"))
    return f'<div class="clicked">{"".join(panels)}</div>'


def _clicks(k: int) -> str:
    return f"{k} click{'s' if k > 1 else ''}"


def _example(example: Example, target: float) -> str:
    image, truth = example.sample.image, example.sample.mask == 1
    parts = []
    for name, done in example.rounds.items():
        panels = [page.figure(page.draw_outline(image, truth), "the object")]
        for k in sorted({k for k in CLICKS if k < len(done)} | {len(done)}):
            last = done[k - 1]
            text = f"{_clicks(k)}: {100 * last.iou:.0f} %"
            text = f"<b>{text}</b>" if last.iou >= target else text
            alt = f"{LABELS[name]}, after {_clicks(k)}, IoU {last.iou:.2f}"
            panel = draw_clicks(page.draw_mask(image, last.mask), done[:k])
            panels.append(page.figure(panel, text, alt))
        head = f'<h3 class="{name}">{LABELS[name]}</h3>'
        parts.append(f'<div>{head}<div class="strip">{"".join(panels)}</div></div>')
    return f'<div class="card pair">{"".join(parts)}</div>'


# ---- charts


def _chart(title: str, x_label: str, lines: dict[str, tuple]) -> str:
    """Lines, style -> (x, y), as SVG in the page's colours; y in steps of 0.1 or 0.2."""
    left, right, low, high = 38, 344, 176, 12
    end = max(float(x[-1]) for x, _ in lines.values())
    values = np.concatenate([np.asarray(y, float) for _, y in lines.values()])
    step = 0.1 if np.ptp(values) < 0.4 else 0.2
    first = np.floor(values.min() / step) * step
    top = max(np.ceil(values.max() / step) * step, first + step)
    across = lambda x: left + (right - left) * np.asarray(x) / end  # noqa: E731
    up = lambda y: low - (low - high) * (np.asarray(y) - first) / (top - first)  # noqa: E731
    parts = []
    for tick in np.arange(first, top + 0.01, step):
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
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across(x), up(y), strict=True))
        parts.append(f'<polyline class="{style}" points="{points}"/>')
    body, label = "".join(parts), html.escape(title.partition(" <")[0])
    return (
        f'<figure class="chart"><figcaption>{title}</figcaption>'
        f'<svg viewBox="0 0 360 214" role="img" aria-label="{label}">{body}</svg>'
        "</figure>"
    )


def _learning(metrics: list[dict]) -> str:
    """IoU beside that of the evidence alone, and loss, over the steps, as running means."""
    steps = [m["step"] for m in metrics]
    smooth = lambda k: _smoothed([m[k] for m in metrics])  # noqa: E731
    ious = {"fused": (steps, smooth("evidence_iou")), "trained": (steps, smooth("iou"))}
    names = {"fused": "no network", "trained": "with the network"}
    return _chart(f"Overlap (IoU) with the objects {_legend(names)}", "steps", ious) + _chart(
        "Loss", "steps", {"trained": (steps, smooth("loss"))}
    )


def _smoothed(values: Sequence[float]) -> np.ndarray:
    """A running mean over a quarter of the values around each, as far as there are."""
    window = np.ones(2 * (len(values) // 8) + 1)
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")


def _clicks_chart(results: dict[str, dict], max_clicks: int) -> str:
    clicks = range(1, max_clicks + 1)
    lines = {name: (clicks, mean_iou(r, max_clicks)) for name, r in results.items()}
    legend = _legend({name: LABELS[name] for name in lines})
    return _chart(f"Mean IoU after each click {legend}", "clicks", lines)


def _legend(names: dict[str, str]) -> str:
    return " ".join(f'<span class="{style}">{text}</span>' for style, text in names.items())


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
        **{name: f"{result['noc85']:.1f}" for name, result in results.items()},
        "pace": f"{1000 * results['shipped']['spc']:.0f}",
        "clicked": "\n".join(map(_clicked, facts.clicked)),
        "learnt": f"{c.optim.steps * c.clicks.max_next * c.optim.batch_size:,}",
        "objects": str(results["trained"]["n"]),
        "max_clicks": str(most),
        "target": f"{100 * c.eval.target:g}",
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
