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
from mis_jax import clicker, metrics, page
from mis_jax.benchmarks import Sample
from mis_jax.propose import Report
from mis_jax.records import Record, write_file

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
    write_file(path, Template(PAGE).substitute(_parts(facts)))


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
        "style": page.STYLE,
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


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>mis-jax quickstart</title>
<style>
$style</style>
</head>
<body>
<main>
<h1>A model that segments what you click on, learnt without a single label</h1>
<p class="soft">mis-jax quickstart: $minutes, $machine, no network.</p>

<p>The computer cut $photo_count photographs and $scene_count made-up scenes into small squares and
kept merging the two neighbours that look most alike, which gives every image a tree of regions.
A small network, started from random numbers, then practised on $samples crops: shown a few
simulated clicks, it had to find the region of the tree they were placed for.
On $objects scenes it had never seen, it now takes $trained clicks on average to outline an object
with 85 % overlap; before training it took $untrained, where $max_clicks is the limit.</p>

<div class="numbers">
<div class="card"><b class="trained">$trained clicks</b><span>to 85 % overlap, after training</span>
</div>
<div class="card"><b class="untrained">$untrained clicks</b><span>the same network before training
($max_clicks is the limit)</span></div>
<div class="card"><b>0 labels</b><span>were used to train it</span></div>
</div>

<h2>1. Every image becomes a tree of regions</h2>
<p>Here the trees of some photographs are cut at five depths. Training draws its targets from all
depths, so the network learns that a click can mean a thing, a part of it, or the whole
foreground.</p>
<div class="card">
$proposals
</div>

<h2>2. The network practises on these regions</h2>
<p>In each step a program places the first clicks, looks where the answer is wrong, and clicks
there, as a person would.</p>
<div class="charts">$learning</div>

<h2>3. Clicks on scenes it has never seen</h2>
<p>The first held-out scenes, not the best ones. A simulated user clicks the middle of the largest
error: <span class="dot" style="background:#1ebe50"></span> on the object,
<span class="dot" style="background:#eb3232"></span> on the background, until the mask overlaps the
object by $target % or $max_clicks clicks are spent. Under each picture stands the overlap, the
IoU.</p>
$examples

<h2>4. How many clicks it takes</h2>
<p>NoC@85 is the mean number of clicks to 85 % IoU, counted as $max_clicks where it is never
reached, so lower is better; IoU@5 is the mean IoU after five clicks. $objects scenes.</p>
<div class="card scroll">$table</div>
<div class="charts">$chart<div class="chart"><figcaption>Where the time went</figcaption>$times
</div></div>
<p class="soft" style="margin-top:1rem">A demonstration, not a benchmark: the network is tiny, it
sees $crop x $crop pixels, and held-out scenes are drawn by the same program as the unlabelled
ones it learnt from, with other random numbers. What it scores here says nothing about
photographs.</p>

<h2>Next: your own folder</h2>
<p>A folder of images is all that training needs; the second command measures on images you have
masks of.</p>
<pre>mis-jax train PHOTOS --workdir run --config tiny_cpu
mis-jax evaluate run --datasets mine=FOLDER</pre>
<p>Click from Python, here with the model of this page:</p>
<pre>import mis_jax
from mis_jax.images import read_image

predictor = mis_jax.Predictor.load("$run")
predictor.set_image(read_image("photo.jpg"))
mask = predictor.click(x=120, y=80)                  # bool [H, W]
mask = predictor.click(x=30, y=40, positive=False)   # not that</pre>
<footer>$versions. Photographs: those that ship with scikit-image.</footer>
</main>
</body>
</html>
"""
