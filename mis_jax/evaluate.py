"""Simulated clicks on benchmarks -> number of clicks (NoC): `mis-jax evaluate RUN --datasets ...`.

`mis-jax evaluate --predictor tree --datasets ... --output DIR` needs no run: merge trees answer.

The protocol is that of the published numbers (`isegm/inference` of SimpleClick's code): each click
goes to the deepest point of the larger error, until the IoU is reached or 20 clicks are spent.
"""

import csv
import dataclasses
import hashlib
import io
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from absl import flags
from matplotlib.figure import Figure
from tqdm import tqdm

import mis_jax
from mis_jax import benchmarks, cli
from mis_jax.benchmarks import Benchmark, Sample
from mis_jax.errors import InputError
from mis_jax.predictor import Predictor, bounds, crop, make_network
from mis_jax.records import write_file
from mis_jax.tree_predictor import TreePredictor

THRESHOLDS = (0.80, 0.85, 0.90)
# NoC@85 and NoC@90 of Table 1 of the paper.
PAPER = {
    "grabcut": {"MIS": (1.94, 2.32), "GraphCut": (7.98, 10.00)},
    "berkeley": {"MIS": (3.09, 4.58), "GraphCut": (None, 14.22)},
    "sbd": {"MIS": (6.91, 9.51), "GraphCut": (13.60, 15.96)},
    "davis": {"MIS": (6.33, 8.44), "GraphCut": (15.13, 17.41)},
}
PICTURE_SIDE = 320  # pixels, of one panel
PICTURE_COLUMNS = 5
TREES = {"tree": True, "tree-blocks": False}  # predictors without a network: whether masks snap


class ClickPredictor(Protocol):
    """What can be evaluated: `mis_jax.Predictor` and anything of its shape."""

    def set_image(self, image: np.ndarray) -> None:
        """Starts on an image, uint8 RGB [H, W, 3]."""

    def click(self, x: float, y: float, positive: bool = True) -> np.ndarray:
        """Adds a click and returns the mask, bool [H, W]."""


@dataclasses.dataclass(frozen=True)
class Round:
    """One click, the mask it was answered with (bool [H, W]) and the IoU of that."""

    row: int
    col: int
    positive: bool
    mask: np.ndarray
    iou: float


# ---- the protocol


def next_click(
    truth: np.ndarray, mask: np.ndarray, clicked: Sequence[tuple[int, int]]
) -> tuple[int, int, bool]:
    """The simulated user's next click (row, col, positive).

    It lies at the pixel of an error farthest from where the mask is right, missed object before
    (strictly deeper than) surplus; of equal ones the first in reading order. A perfect mask gives a
    negative click at (0, 0).

    Args:
        truth: int32 [H, W], 1 object, 0 background, -1 not counted.
        mask: bool [H, W].
        clicked: (row, col) of the clicks so far, which are not clicked again.
    """
    missed, where = _deepest((truth == 1) & ~mask, clicked)
    surplus, elsewhere = _deepest((truth == 0) & mask, clicked)
    return (*where, True) if missed > surplus else (*elsewhere, False)


def _deepest(region: np.ndarray, clicked: Sequence[tuple[int, int]]) -> tuple[int, tuple[int, int]]:
    """The squared distance of the region's deepest pixel to anything else, and that pixel.

    Outside the image is outside the region. Distances are measured within the region's bounding
    box, beyond which no pixel is nearer than one on its rim, and squared, because OpenCV's own are
    off by rounding, which would decide ties.
    """
    box = bounds(region)
    if box is None:
        return 0, (0, 0)
    padded = np.pad(crop(region, box), 1).view(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    squared = np.rint(distance * distance)
    for row, col in clicked:
        if box[0] <= row <= box[1] and box[2] <= col <= box[3]:
            squared[row - box[0], col - box[2]] = 0
    row, col = np.unravel_index(np.argmax(squared), squared.shape)
    depth = int(squared[row, col])
    return depth, (int(row) + box[0], int(col) + box[2]) if depth else (0, 0)


def iou(truth: np.ndarray, mask: np.ndarray) -> float:
    """Intersection over union of bool [H, W] and the object of int32 [H, W], -1 not counted.

    1 where both are empty.
    """
    found, there = mask & (truth != -1), truth == 1
    union = np.count_nonzero(found | there)
    return np.count_nonzero(found & there) / union if union else 1.0


def rounds(
    predictor: ClickPredictor, sample: Sample, target: float, max_clicks: int
) -> Iterator[Round]:
    """Clicks on one object until `target` IoU or `max_clicks`, at least one."""
    predictor.set_image(sample.image)
    mask, clicked = np.zeros(sample.mask.shape, bool), []
    for _ in range(max_clicks):
        row, col, positive = next_click(sample.mask, mask, clicked)
        clicked.append((row, col))
        mask = predictor.click(x=col, y=row, positive=positive)
        reached = iou(sample.mask, mask)
        yield Round(row, col, positive, mask, reached)
        if reached >= target:
            return


def noc(ious: Sequence[Sequence[float]], target: float = 0.90, max_clicks: int = 20) -> float:
    """Mean number of clicks to `target` IoU; `max_clicks` for an object that never gets there.

    Args:
        ious: for each object, its IoU after the first, second, ... click, compared in float32.
    """
    return float(np.mean(_clicks_to(ious, target, max_clicks)))


def nof(ious: Sequence[Sequence[float]], target: float = 0.90, max_clicks: int = 20) -> int:
    """Number of objects that take `max_clicks` or more, those solved by the last one included."""
    return int(np.sum(np.equal(_clicks_to(ious, target, max_clicks), max_clicks)))


def _clicks_to(ious: Sequence[Sequence[float]], target: float, max_clicks: int) -> list[int]:
    counts = []
    for row in ious:
        reached = np.asarray(row[:max_clicks], np.float32) >= np.float32(target)
        counts.append(int(np.argmax(reached)) + 1 if reached.any() else max_clicks)
    return counts


# ---- a benchmark


class Journal:
    """Finished objects, one JSON line each, so that a killed evaluation goes on where it was."""

    def __init__(self, path: Path) -> None:
        self.path, self.done = path, {}
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # the last line is cut off if its writer was killed
        for line in whole.splitlines():
            record = json.loads(line)
            self.done[record["id"], record["digest"]] = record
        if whole != text:
            write_file(path, whole)

    def add(self, record: dict) -> None:
        """Appends {"id", "digest", "ious", "clicks", "seconds"}."""
        self.done[record["id"], record["digest"]] = record
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def evaluate_benchmark(
    predictor: ClickPredictor,
    benchmark: Benchmark,
    journal: Journal,
    target: float = 0.90,
    max_clicks: int = 20,
    pictures: tuple[Path, int] | None = None,
) -> list[dict]:
    """Clicks on every object of a benchmark; one record for each, in order.

    Args:
        pictures: a folder, and of how many objects to draw every click there.

    Returns:
        {"id", "digest", "ious", "clicks": [[row, col, 1 or 0], ...], "seconds"} for each object.

    Raises:
        InputError: if no object of it can be used.
    """
    folder, drawn = pictures or (Path(), 0)
    records, warm = [], False
    start = time.perf_counter()
    for sample in tqdm(benchmark, benchmark.name, len(benchmark), unit="object", disable=None):
        picture = folder / f"{sample.id}.png" if len(records) < drawn else None
        digest = zlib.crc32(sample.mask, zlib.crc32(np.ascontiguousarray(sample.image)))
        record = journal.done.get((sample.id, digest))
        if record is None or (picture and not picture.exists()):
            if not warm:  # the first call compiles, which is no part of the time of a click
                predictor.set_image(sample.image)
                predictor.click(x=0, y=0)
                start, warm = time.perf_counter(), True
            done = list(rounds(predictor, sample, target, max_clicks))
            record = {
                "id": sample.id,
                "digest": digest,
                "ious": [float(np.float32(r.iou)) for r in done],
                "clicks": [[r.row, r.col, int(r.positive)] for r in done],
                "seconds": round(time.perf_counter() - start, 6),
            }
            journal.add(record)
            if picture:
                _save_png(picture, draw(sample.image, done))
        records.append(record)
        start = time.perf_counter()
    if not records:
        raise benchmark.nothing_usable()
    return records


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


# ---- what is written


def table(results: dict[str, dict], label: str, max_clicks: int = 20) -> str:
    """Results as a Markdown table with aligned columns, the paper's rows beside ours."""
    head = ["Dataset", "Method", "Objects", "NoC@85", "NoC@90"]
    head += [f">={max_clicks}@85", f">={max_clicks}@90", "s/click"]
    rows = [head]
    for name, r in results.items():
        count = f"{r['n']}" if r["n"] == r["expected"] else f"{r['n']} of {r['expected']}"
        numbers = [_number(r.get(key), 2) for key in ("noc85", "noc90")]
        numbers += [_number(r.get(key), 0) for key in ("nof85", "nof90")]
        rows.append([name, label, count, *numbers, _number(r["spc"], 3)])
        for method, values in PAPER.get(name.lower(), {}).items():
            count = str(benchmarks.EXPECTED[name.lower()])
            numbers = [_number(value, 2) for value in values]
            rows.append([name, f"{method} (the paper's)", count, *numbers, "-", "-", "-"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * w if i < 2 else "-" * (w - 1) + ":" for i, w in enumerate(widths)])
    lines = []
    for row in rows:
        cells = [
            c.ljust(w) if i < 2 else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def left_out(results: dict[str, dict]) -> str:
    """One line for each of the first objects that each dataset had to leave out."""
    lines = []
    for name, r in results.items():
        lines += [f"{name} leaves out {key}: {why}" for key, why in list(r["skipped"].items())[:5]]
        if len(r["skipped"]) > 5:
            lines.append(f"{name} leaves out {len(r['skipped']) - 5} more, named in results.json")
    return "".join(f"{line}\n" for line in lines)


def per_image_csv(records: Sequence[dict], target: float, max_clicks: int) -> str:
    """A row for each object: clicks to 85 and 90 % (empty: never), seconds, every IoU and click."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"iou_{k}" for k in range(1, max_clicks + 1)]
    writer.writerow(["id", "clicks_85", "clicks_90", "seconds", *columns, "clicks"])
    for r in records:
        counts = []
        for threshold in (0.85, 0.90):
            solved = threshold <= target and np.float32(max(r["ious"])) >= np.float32(threshold)
            counts.append(_clicks_to([r["ious"]], threshold, max_clicks)[0] if solved else "")
        ious = [f"{v:.6f}" for v in r["ious"]] + [""] * (max_clicks - len(r["ious"]))
        clicks = " ".join(f"{row}:{col}:{'+' if sign else '-'}" for row, col, sign in r["clicks"])
        writer.writerow([r["id"], *counts, f"{r['seconds']:.3f}", *ious, clicks])
    return text.getvalue()


def plot(results: dict[str, dict], target: float, max_clicks: int) -> Figure:
    """Mean IoU after each click; objects that stopped at the target keep their last IoU."""
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, r in results.items():
        held = [v + v[-1:] * (max_clicks - len(v)) for v in r["ious"].values()]
        axes.plot(range(1, max_clicks + 1), np.mean(held, axis=0), marker=".", label=name)
    axes.set(xlabel="clicks", ylabel="mean IoU", xlim=(0.5, max_clicks + 0.5), ylim=(None, 1))
    axes.set_title(f"objects that reached IoU {target:g} keep their last value", fontsize="small")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def draw(image: np.ndarray, done: Sequence[Round]) -> np.ndarray:
    """Every click of an object side by side, uint8 RGB: mask outline, green and red clicks."""
    scale = min(1.0, PICTURE_SIDE / max(image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    bar = 20
    rows, columns = -(-len(done) // PICTURE_COLUMNS), min(len(done), PICTURE_COLUMNS)
    canvas = np.full((rows * (height + bar), columns * (width + 4), 3), 255, np.uint8)
    for k, r in enumerate(done):
        panel = small.copy()
        mask = cv2.resize(r.mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(panel, outlines, -1, (255, 220, 0), 1)
        for click in done[: k + 1]:
            at = round(click.col * scale), round(click.row * scale)
            cv2.circle(panel, at, 5, (255, 255, 255), -1, cv2.LINE_AA)
            colour = (0, 160, 0) if click.positive else (220, 0, 0)
            cv2.circle(panel, at, 4, colour, -1, cv2.LINE_AA)
        top, left = k // PICTURE_COLUMNS * (height + bar), k % PICTURE_COLUMNS * (width + 4)
        canvas[top + bar : top + bar + height, left : left + width] = panel
        text = f"{k + 1}: IoU {r.iou:.3f}"
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(canvas, text, (left + 2, top + 14), font, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return canvas


def _save_png(path: Path, image: np.ndarray) -> None:
    _save(path, cv2.imencode(".png", image[:, :, ::-1])[1].tobytes())


def _save(path: Path, data: bytes) -> None:
    """Writes a file that appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)


# ---- the command


def define_flags() -> None:
    """Flags of `mis-jax evaluate`."""
    cli.define_config("sbd_vitb16")
    flags.DEFINE_list(
        "datasets",
        [],
        "NAME=FOLDER,...: grabcut, berkeley, davis, sbd, or a name of your own for a folder of "
        "images/ and masks/, or of NAME.jpg and NAME.png.",
    )
    flags.DEFINE_string("output", "", "Folder for the results; RUN/eval by default, if a RUN is.")
    flags.DEFINE_enum(
        "predictor",
        "network",
        ["network", *TREES],
        "What answers the clicks: the network of RUN; or, without a RUN, the merge tree of each "
        "image, its masks along edges (tree) or patches (tree-blocks).",
    )
    flags.DEFINE_integer("pictures", 0, "Of how many objects a dataset to draw every click.", 0)


def main(argv: Sequence[str]) -> None:
    """Binary: `mis-jax evaluate RUN --datasets grabcut=DIR,mine=DIR`."""
    opened = open_datasets(flags.FLAGS.datasets)
    evaluated = _tree if flags.FLAGS.predictor in TREES else _network
    make, settings, identity, output = evaluated(argv[1:])
    print(run(make, opened, output, settings, identity, flags.FLAGS.pictures))


def run(
    make: Callable[[int | None], ClickPredictor],
    opened: Sequence[Benchmark],
    output: Path,
    settings: dict,
    identity: dict,
    pictures: int = 0,
) -> str:
    """Evaluates benchmark after benchmark, writing after each all that is known by then.

    Args:
        make: side of the network's square in pixels, None if settings have no size -> predictor.
        settings: `config.eval` as a dict.
        identity: what is evaluated: "predictor", "run" if there is one, and all that tells it
            apart, because the objects that were finished before count again only for the same
            ("run" may differ).

    Returns:
        The table, as in results.md.
    """
    target, max_clicks = settings["target"], settings["max_clicks"]
    label = identity["predictor"]
    label += f" ({Path(identity['run']).name})" if "run" in identity else ""
    meta = {"meta": {**identity, "eval": settings, **_machine()}}
    results: dict[str, dict] = {}
    predictors: dict[int | None, ClickPredictor] = {}
    for benchmark in opened:
        size = input_size(benchmark, settings)
        if size not in predictors:
            predictors[size] = make(size)
        name = f"{benchmark.name}-{_fingerprint(identity, settings)}"
        (output / "objects").mkdir(parents=True, exist_ok=True)
        journal = Journal(output / "objects" / f"{name}.jsonl")
        strips = output / "pictures" / name, pictures
        records = evaluate_benchmark(
            predictors[size], benchmark, journal, target, max_clicks, strips
        )
        results[benchmark.name] = summarize(records, benchmark, target, max_clicks)
        text = table(results, label, max_clicks) + "\n" + left_out(results)
        write_file(output / "results.json", json.dumps(results | meta, indent=1))
        write_file(output / f"{benchmark.name}.csv", per_image_csv(records, target, max_clicks))
        write_file(output / "results.md", text + "\n![IoU after each click](iou_per_click.png)\n")
        picture = io.BytesIO()
        plot(results, target, max_clicks).savefig(picture, dpi=150)
        _save(output / "iou_per_click.png", picture.getvalue())
    return f"{text}Written to {output}"


def input_size(benchmark: Benchmark, settings: Mapping[str, Any]) -> int | None:
    """Side of the network's square for a benchmark, of `config.eval`; None if that has no size."""
    return settings.get("davis_size" if benchmark.name.lower() == "davis" else "size")


Evaluated = tuple[Callable[[int | None], ClickPredictor], dict, dict, Path]


def _network(arguments: Sequence[str]) -> Evaluated:
    """The first arguments of `run` for the network of a run or weights file."""
    if len(arguments) != 1:
        raise InputError("One run or weights file: mis-jax evaluate RUN --datasets NAME=FOLDER.")
    from mis_jax import checkpoint

    path = Path(arguments[0])
    config, params = checkpoint.load(path)
    settings = _settings(config)
    identity = {
        "run": str(path),
        "step": checkpoint.latest_step(path) if path.is_dir() else None,
        "predictor": "network",
        "model": config.model.to_dict(),
        "parameters": _digest(params),
    }

    def make(size):
        network = make_network(config, params, size)
        return Predictor(network, size, settings["flip"], settings["threshold"])

    default = path / "eval" if path.is_dir() else f"{path}-eval"
    return make, settings, identity, Path(flags.FLAGS.output or default)


def _tree(arguments: Sequence[str]) -> Evaluated:
    """The same for merge trees."""
    name = flags.FLAGS.predictor
    if arguments or not flags.FLAGS.output:
        raise InputError(
            f"--predictor {name} takes no run, and a folder for the results: "
            f"mis-jax evaluate --predictor {name} --datasets NAME=FOLDER --output FOLDER."
        )
    settings = _settings(flags.FLAGS.config)
    settings = {key: settings[key] for key in ("max_clicks", "target")}
    for field in flags.FLAGS["config"].override_values:
        if field.removeprefix("eval.") not in settings:
            raise InputError(f"--config.{field} has no effect on --predictor {name}; leave it out.")
    predictor = TreePredictor(snapping=TREES[name])
    identity = {"predictor": name, **predictor.settings}
    return lambda size: predictor, settings, identity, Path(flags.FLAGS.output)


def open_datasets(pairs: Sequence[str]) -> list[Benchmark]:
    """The benchmarks of `--datasets`: NAME=FOLDER each, `InputError` for anything else."""
    if not pairs:
        raise InputError("--datasets is missing: --datasets grabcut=FOLDER,mine=FOLDER.")
    opened: dict[str, Benchmark] = {}
    for pair in pairs:
        name, _, folder = pair.partition("=")
        if not re.fullmatch(r"[\w.-]+", name) or not folder or name in opened or name == "meta":
            raise InputError(
                f'--datasets: "{pair}" is not NAME=FOLDER with a name of its own of letters, '
                'digits, ".", "_" and "-", other than meta.'
            )
        opened[name] = benchmarks.open_benchmark(name, Path(folder).expanduser())
    return list(opened.values())


def _settings(config: Any) -> dict:
    """The run's own `eval` settings, those of a `--config` given, and overrides above both."""
    flag = flags.FLAGS["config"]
    chosen = flags.FLAGS.config.eval if flag.present else config.eval
    settings = chosen.to_dict()
    for field, value in flag.override_values.items():
        group, _, name = field.partition(".")
        if group != "eval":
            raise InputError(f"--config.{field}: a finished run takes --config.eval fields only.")
        settings[name] = value
    return settings


def _digest(params: Any) -> str:
    """A fingerprint of every parameter."""
    import jax

    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _fingerprint(identity: dict, settings: dict) -> str:
    """Eight letters for all that the IoUs depend on beside the images."""
    what = {k: v for k, v in identity.items() if k != "run"}
    text = json.dumps([what, settings, mis_jax.__version__], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _machine() -> dict:
    import jax

    device = jax.devices()[0]
    return {
        "device": f"{jax.device_count()} x {device.device_kind}",
        "versions": {m.__name__: m.__version__ for m in (mis_jax, jax, np, cv2)},
    }


if __name__ == "__main__":
    cli.run("evaluate")
