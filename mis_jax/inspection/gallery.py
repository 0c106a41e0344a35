"""OUTPUT/inspect.html: what was measured and surveyed, with pictures of it."""

import html
import itertools
from collections.abc import Sequence
from pathlib import Path
from string import Template

import cv2
import numpy as np
from ml_collections import ConfigDict

from mis_jax import features, records
from mis_jax.datasets import Benchmark, images
from mis_jax.evaluation import tables
from mis_jax.files import resource
from mis_jax.inspection import oracle, page
from mis_jax.inspection.measure import MAX_NODES, TARGETS, table, trees_of
from mis_jax.inspection.survey import DEPTH_EDGES, DRAWS, Survey
from mis_jax.proposals import Tree

EXAMPLES = 3  # objects shown of each, the worst, the middle and the best


def render(
    folder: str | None,
    survey: Survey | None,
    results: dict[str, dict],
    cards: list[str],
    config: ConfigDict,
) -> str:
    """The page.

    Args:
        folder: of the records that were surveyed, if any were.
        survey: of these.
        results: dataset -> `measure.summarize` of it.
        cards: of each of these, its `examples`.
        config: `data`, by which proposals were drawn.
    """
    parts = []
    if results:
        lines = html.escape(tables.left_out(results)).replace("\n", "<br>")
        rows = page.table(table(results))
        parts.append(
            _template("measured.html").substitute(most=MAX_NODES, table=rows, left_out=lines)
        )
        parts += cards
    if survey:
        d = config.data
        parts.append(
            _template("surveyed.html").substitute(
                cuts="\n".join(page.cuts(photo) for photo, _ in survey.photos),
                drawn="\n".join(_drawn(photo, nodes) for photo, nodes in survey.photos),
                sampling=d.sampling,
                min_area=f"{100 * d.min_area:g}",
                small=f"{100 * survey.small:.1f}",
                draws=DRAWS,
                charts=_histograms(survey),
            )
        )
    what = f"{len(survey.trees.patches):,} images of {folder}" if survey else ""
    where = ", ".join(results)
    title = "; ".join(x for x in (what, where and f"measured on {where}") if x)
    return page.whole("inspect", "How good are the merge trees?", title, parts)


def _template(name: str) -> Template:
    return Template(resource(__package__, name))


def _drawn(photo: records.Record, nodes: list[int]) -> str:
    """The proposals drawn of a photo, as a strip."""
    image = images.shrink(images.decode(photo.image, photo.id), page.SIDE)
    height, width = image.shape[:2]
    panels, tree = [], photo.tree
    assert isinstance(tree, Tree)  # `survey.look` reads no others
    for node in nodes:
        area, depth = tree.areas()[node] / tree.n, tree.depths()[node]
        panel = page.draw_mask(image, tree.pixel_mask(node, height, width))
        caption = f"depth {depth}, {100 * area:.0f} %"
        panels.append(page.figure(panel, caption, f"{Path(photo.id).stem}, {caption}"))
    return f'<div class="strip six">{"".join(panels)}</div>'


def _histograms(survey: Survey) -> str:
    areas = [f"{a:.0%} to {b:.0%}" for a, b in itertools.pairwise(records.AREA_EDGES)]
    ends = itertools.pairwise(DEPTH_EDGES)
    depths = [str(a) if b == a + 1 else f"{a} to {b - 1:.0f}" for a, b in ends]
    depths[-1] = f"{DEPTH_EDGES[-2]} and more"
    rows = [
        _histogram("Area of all regions, of the image", areas, survey.trees.areas)
        + _histogram("Area of drawn proposals", areas, survey.drawn_areas),
        _histogram("Depth of all regions, steps from the whole image", depths, survey.depths)
        + _histogram("Depth of drawn proposals", depths, survey.drawn_depths),
    ]
    return "\n".join(f'<div class="charts">{row}</div>' for row in rows)


def _histogram(title: str, names: list[str], counts: Sequence[int] | np.ndarray) -> str:
    shares = np.asarray(counts) / max(np.sum(counts), 1)  # a single patch has no regions
    chart = page.bars(dict(zip(names, shares.tolist(), strict=True)), "{:.1%}".format)
    return f'<div class="chart"><figcaption>{title}</figcaption>{chart}</div>'


def examples(
    benchmark: Benchmark, objects: list[dict], extractor: features.Extractor, max_side: int
) -> str:
    """The objects of the lowest, middle and highest IoU of a dataset, beside their best nodes."""
    ranked = sorted(objects, key=lambda o: o["iou"])
    middle = max((len(ranked) - EXAMPLES) // 2, 0)
    groups = {
        "worst": ranked[:EXAMPLES],
        "middle": ranked[middle : middle + EXAMPLES],
        "best": ranked[-EXAMPLES:],
    }
    rows = []
    for title, chosen in groups.items():
        panels = []
        for record in chosen:
            image, truth, _ = benchmark.readers[record["id"]]()
            (tree,) = trees_of([image], extractor, max_side)
            panels += _pair(image, truth, tree, record)
        rows.append(f'<p class="soft">{title}</p><div class="strip six">{"".join(panels)}</div>')
    name = html.escape(benchmark.name)
    return f'<h3>{name}</h3><div class="card">{"".join(rows)}</div>'


def _pair(image: np.ndarray, truth: np.ndarray, tree: Tree, record: dict) -> list[str]:
    """An object, and the node most like it."""
    small = images.shrink(image, page.SIDE)
    height, width = small.shape[:2]
    mask = cv2.resize(truth, (width, height), interpolation=cv2.INTER_NEAREST) == 1
    _, node = oracle.best_node(tree, truth)
    found = page.draw_mask(small, tree.pixel_mask(node, height, width))
    needed = [record[f"nodes{100 * target:.0f}"] for target in TARGETS]
    nodes = ", ".join(f"&gt;{MAX_NODES}" if k is None else str(k) for k in needed)
    name = html.escape(record["id"])
    return [
        page.figure(page.draw_outline(small, mask), name, f"the object of {name}"),
        page.figure(found, f"IoU {100 * record['iou']:.0f} %; nodes {nodes}", f"node of {name}"),
    ]
