"""Simulated clicks on benchmarks -> number of clicks (NoC): `mis-jax evaluate RUN --datasets ...`.

`mis-jax evaluate --predictor tree --datasets ... --output DIR` needs no run: merge trees answer.

Clicks are those of clicker.py, numbers those of metrics.py, the table that of tables.py.
"""

import hashlib
import io
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import flags
from tqdm import tqdm

import mis_jax
from mis_jax import benchmarks, cli, figures, tables
from mis_jax.benchmarks import Benchmark
from mis_jax.clicker import ClickPredictor, rounds
from mis_jax.errors import InputError
from mis_jax.metrics import summarize
from mis_jax.predictor import Predictor, make_network
from mis_jax.records import write_file
from mis_jax.tree_predictor import TreePredictor

TREES = {"tree": True, "tree-blocks": False}  # predictors without a network: whether masks snap


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
                _save_png(picture, figures.draw(sample.image, done))
        records.append(record)
        start = time.perf_counter()
    if not records:
        raise benchmark.nothing_usable()
    return records


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
        text = tables.table(results, label, max_clicks) + "\n" + tables.left_out(results)
        write_file(output / "results.json", json.dumps(results | meta, indent=1))
        write_file(
            output / f"{benchmark.name}.csv", tables.per_image_csv(records, target, max_clicks)
        )
        write_file(output / "results.md", text + "\n![IoU after each click](iou_per_click.png)\n")
        picture = io.BytesIO()
        figures.plot(results, target, max_clicks).savefig(picture, dpi=150)
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
        network = make_network(config, params, size, settings["flip"])
        return Predictor(network, size, settings["threshold"])

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
