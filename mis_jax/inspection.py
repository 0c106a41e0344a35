"""BINARY: how good merge trees are, before any training: `mis-jax inspect [RECORDS]`.

    mis-jax inspect RECORDS [--datasets grabcut=DIR,mine=DIR] [--output DIR]

Of records: pictures of regions at several depths and of the proposals that training draws, with
histograms. Of images with masks: how near one region of their trees comes to each mask, and how
few regions make it. All of it goes to OUTPUT/inspect.html and inspect.json, and a CSV a dataset.
"""

import csv
import dataclasses
import html
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template

import cv2
import numpy as np
from absl import flags
from ml_collections import ConfigDict
from tqdm import tqdm

import mis_jax
from mis_jax import (
    cli,
    clicker,
    evaluate,
    features,
    images,
    metrics,
    oracle,
    page,
    propose,
    records,
    tables,
)
from mis_jax.benchmarks import Benchmark
from mis_jax.errors import InputError
from mis_jax.input import Source
from mis_jax.snap import snap
from mis_jax.tree import Tree, build_tree

PHOTOS = 8  # of which pictures are shown
DRAWS = 20  # proposals drawn of each tree, for the histograms
SHOWN_DRAWS = 6  # of those, as pictures
EXAMPLES = 3  # objects shown of each, the worst, the middle and the best
TARGETS = (0.85, 0.90)  # IoU
MAX_NODES = 20  # an object not made by so many counts as so many, as NoC has it
DEPTH_EDGES = (1, 2, 3, 4, 5, 9, 17, 33, 65, np.inf)  # of the histograms


@dataclasses.dataclass
class Survey:
    """What the trees of some records are like; proposals are drawn `DRAWS` times of each tree."""

    trees: propose.Report
    depths: np.ndarray  # int64, regions between each two DEPTH_EDGES
    drawn_areas: np.ndarray  # int64, drawn proposals between each two propose.AREA_EDGES
    drawn_depths: np.ndarray  # int64, the same between each two DEPTH_EDGES
    small: float  # fraction of the drawn that are too small, as all tries were
    photos: list[tuple[records.Record, list[int]]]  # to be shown, and proposals drawn of each


def define_flags() -> None:
    """Flags of `mis-jax inspect`."""
    cli.define_config("tiny_cpu")
    flags.DEFINE_list("datasets", [], "NAME=FOLDER,... of images and masks, as in evaluate.")
    flags.DEFINE_string("output", "", "Folder for the results; RECORDS/inspect by default.")


def main(argv: Sequence[str]) -> None:
    """Looks at the records that argv[1] names, if any, and measures on --datasets, if any."""
    datasets, config = flags.FLAGS.datasets, flags.FLAGS.config
    if len(argv) > 2 or (len(argv) == 1 and not datasets):
        raise InputError(
            "usage: mis-jax inspect RECORDS [--datasets NAME=FOLDER,...], where RECORDS is a "
            "folder that mis-jax propose made; it may be left out to measure on datasets alone."
        )
    folder = argv[1] if len(argv) == 2 else None
    opened = evaluate.open_datasets(datasets) if datasets else []
    output = Path(flags.FLAGS.output or Path(folder or ".", "inspect"))
    print(inspect(folder, opened, output, config))


def inspect(
    folder: str | None, opened: Sequence[Benchmark], output: Path, config: ConfigDict
) -> str:
    """Writes the page, the figures and the CSV files, and returns what a terminal should show.

    Args:
        folder: of records, or None.
        opened: images with masks; their trees are built as those of the records were.
        output: folder for the results, made if need be.
        config: `features` (and `propose.max_side` without records), `data` and `seed`.

    Raises:
        InputError: records or images that cannot be read, or records of other features.
    """
    survey = None
    if opened:
        extractor, max_side = _how_trees_are_made(folder, config)
    if folder:
        survey = look(folder, config)
    results, cards = {}, []
    for benchmark in opened:
        objects = measure(benchmark, extractor, max_side, config.features.batch_size)
        results[benchmark.name] = summarize(objects, benchmark)
        cards.append(_examples(benchmark, objects, extractor, max_side))
        output.mkdir(parents=True, exist_ok=True)
        records.write_file(output / f"{benchmark.name}.csv", per_image_csv(objects))
    document = {"version": mis_jax.__version__, "datasets": results}
    if opened:
        document |= {"extractor": extractor.name, "max_side": max_side}
    if survey:
        document |= {"records": str(folder), "trees": _figures(survey)}
    output.mkdir(parents=True, exist_ok=True)
    records.write_file(output / "inspect.json", json.dumps(document, indent=1))
    records.write_file(output / "inspect.html", _page(folder, survey, results, cards, config))
    lines = propose.describe_trees(survey.trees) if survey else []
    lines += [text_table(results), tables.left_out(results)] if results else []
    return "\n".join([*lines, f"Open {output / 'inspect.html'} in a browser."])


# ---- records


def look(folder: str | Path, config: ConfigDict) -> Survey:
    """Reads all records of a folder and draws proposals as training does, by `config.data`."""
    source, d = Source(records.shard_files(folder)), config.data
    rng = np.random.default_rng(config.seed)
    shown = rng.choice(len(source), min(PHOTOS, len(source)), replace=False)
    trees, photos, small = propose.Report(), [], 0
    depths, drawn_depths = np.zeros((2, len(DEPTH_EDGES) - 1), np.int64)
    drawn_areas = np.zeros(len(propose.AREA_EDGES) - 1, np.int64)
    for index in tqdm(range(len(source)), "records", unit=" trees", disable=None):
        record = source[index].record
        tree = record.tree
        if not isinstance(tree, Tree):
            raise InputError(f"{folder} holds labelled objects, no merge trees to inspect.")
        drawn = [
            tree.sample(rng, d.alpha, d.min_area, d.sampling, d.max_tries) for _ in range(DRAWS)
        ]
        areas = tree.areas()[drawn] / tree.n
        trees.add(propose.describe(tree))
        depths += np.histogram(tree.depths()[tree.n : tree.root], DEPTH_EDGES)[0]
        drawn_depths += np.histogram(tree.depths()[drawn], DEPTH_EDGES)[0]
        drawn_areas += np.histogram(areas, propose.AREA_EDGES)[0]
        small += np.count_nonzero(areas <= d.min_area)
        if index in shown:
            photos.append((record, drawn[:SHOWN_DRAWS]))
    share = small / (DRAWS * len(source))
    return Survey(trees, depths, drawn_areas, drawn_depths, share, photos)


def _figures(survey: Survey) -> dict:
    """What inspect.json tells of the trees."""
    trees = survey.trees
    return {
        "images": len(trees.patches),
        "patches": _spread(trees.patches),
        "large_proposals": _spread(trees.large),
        "deepest": _spread(trees.depths),
        "area_edges": propose.AREA_EDGES,
        "areas": trees.areas,
        "drawn_areas": survey.drawn_areas.tolist(),
        "depth_edges": DEPTH_EDGES[:-1],  # the last is open
        "depths": survey.depths.tolist(),
        "drawn_depths": survey.drawn_depths.tolist(),
        "drawn_too_small": survey.small,
    }


def _spread(values: list[int]) -> dict:
    return {"least": min(values), "median": float(np.median(values)), "greatest": max(values)}


def _how_trees_are_made(folder: str | None, config: ConfigDict) -> tuple[features.Extractor, int]:
    """The extractor and max_side of records, or of the config without records."""
    model = config.features.model
    if folder is None:
        return features.make_extractor(**config.features), config.propose.max_side
    made = records.read_index(folder).get("settings")
    if not isinstance(made, dict) or not {"extractor", "max_side"} <= made.keys():
        raise InputError(
            f"{folder} has no {records.INDEX} that says how its trees were made; leave out "
            f"--datasets, or leave out {folder} to measure by --config alone."
        )
    if model in ("auto", made["extractor"].partition(" ")[0]):  # else nothing need be downloaded
        extractor = features.make_extractor(**config.features)
        if extractor.name == made["extractor"]:
            return extractor, made["max_side"]
        model = extractor.name
    raise InputError(
        f'{folder} holds trees of the features "{made["extractor"]}", and --config gives '
        f'"{model}"; give the --config and --config.features.* that mis-jax propose was given.'
    )


# ---- images with masks


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
        trees = _trees([sample.image for sample in batch], extractor, max_side)
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


def _trees(
    pictures: list[np.ndarray], extractor: features.Extractor, max_side: int
) -> Iterator[Tree]:
    return map(build_tree, extractor([images.shrink(p, max_side) for p in pictures]))


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


# ---- the page


def _page(
    folder: str | None,
    survey: Survey | None,
    results: dict[str, dict],
    cards: list[str],
    config: ConfigDict,
) -> str:
    parts = []
    if results:
        lines = html.escape(tables.left_out(results)).replace("\n", "<br>")
        rows = page.table(table(results))
        parts.append(MEASURED.substitute(most=MAX_NODES, table=rows, left_out=lines))
        parts += cards
    if survey:
        d = config.data
        parts.append(
            LOOKED.substitute(
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
    return PAGE.substitute(style=page.STYLE, title=html.escape(title), body="\n".join(parts))


def _drawn(photo: records.Record, nodes: list[int]) -> str:
    """The proposals drawn of a photo, as a strip."""
    image = images.shrink(images.decode(photo.image, photo.id), page.SIDE)
    height, width = image.shape[:2]
    panels = []
    for node in nodes:
        area, depth = photo.tree.areas()[node] / photo.tree.n, photo.tree.depths()[node]
        panel = page.draw_mask(image, photo.tree.pixel_mask(node, height, width))
        caption = f"depth {depth}, {100 * area:.0f} %"
        panels.append(page.figure(panel, caption, f"{Path(photo.id).stem}, {caption}"))
    return f'<div class="strip six">{"".join(panels)}</div>'


def _histograms(survey: Survey) -> str:
    areas = [f"{a:.0%} to {b:.0%}" for a, b in itertools.pairwise(propose.AREA_EDGES)]
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


def _histogram(title: str, names: list[str], counts: Sequence[int]) -> str:
    shares = np.asarray(counts) / max(np.sum(counts), 1)  # a single patch has no regions
    chart = page.bars(dict(zip(names, shares.tolist(), strict=True)), "{:.1%}".format)
    return f'<div class="chart"><figcaption>{title}</figcaption>{chart}</div>'


def _examples(
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
            image, truth = benchmark.readers[record["id"]]()
            (tree,) = _trees([image], extractor, max_side)
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


MEASURED = Template("""<h2>How near the trees come to the masks</h2>
<p><b>Best-node IoU</b>: the overlap of an object with the one region of its tree most like it;
<b>snapped</b>: once the region's border follows the edges of the image. <b>Tree-NoC@85</b>: the
fewest regions, added or removed, until the overlap is 85 %. All are means, of an oracle that sees
the mask: no choice of whole regions does better. <b>Never</b>: the share of objects that $most
regions do not suffice for, which count as $most. In brackets: 95 % bootstrap
intervals of the means.</p>
<div class="card scroll">$table</div>
<p class="soft">$left_out</p>
<p>Objects of the lowest, middle and highest overlap, each beside the region most like it. Nodes:
the regions until 85 and 90 %.</p>
""")
LOOKED = Template("""<h2>Regions at several depths</h2>
<p>The trees of photos drawn at random, cut at five depths. Regions that merge late have different
colours.</p>
<div class="card">$cuts</div>
<h2>Proposals as training draws them</h2>
<p>Of the same photos, each as a whole, by the sampling <i>$sampling</i>, which draws again what
covers at most $min_area % of the image: $small % of the drawn stayed that small. Below each: its
depth, and its share of the image.</p>
<div class="card">$drawn</div>
<h2>Areas and depths</h2>
<p>Regions are the merged ones without the whole image; of each image, $draws proposals were
drawn.</p>
$charts
""")
PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>mis-jax inspect</title>
<style>
$style</style>
</head>
<body>
<main>
<h1>How good are the merge trees?</h1>
<p class="soft">$title</p>
$body
</main>
</body>
</html>
""")


if __name__ == "__main__":
    cli.run("inspect")
