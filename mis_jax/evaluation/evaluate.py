"""Simulated clicks on benchmarks -> number of clicks (NoC): `mis-jax evaluate RUN --datasets ...`.

`mis-jax evaluate --datasets ... --output DIR` needs no run: the model that comes with mis_jax
answers, or what `--predictor` names. What is clicked, and how, is in clicking.py and clicker.py;
this makes the predictors, and writes the tables (metrics.py, tables.py, formats.py) and figures
(figures.py).
"""

import contextlib
import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import flags

import mis_jax
from mis_jax import options
from mis_jax.config import SHIPPED
from mis_jax.datasets import Benchmark, Reading, benchmarks
from mis_jax.errors import InputError
from mis_jax.evaluation import figures, formats, tables
from mis_jax.evaluation.clicking import (
    Predictors,
    Subject,
    batched_predictors,
    collect,
    evaluate_benchmark,
    stories_folder,
)
from mis_jax.files import write_file
from mis_jax.predictors import (
    CorrectedPredictor,
    FusedPredictor,
    TreePredictor,
    classics,
    make_network,
    shipped,
)

# Predictors that need no run.
ALONE: dict[str, Callable[[], Any]] = {
    SHIPPED: shipped,
    "fused": FusedPredictor,
    "tree": TreePredictor,
    "tree-blocks": functools.partial(TreePredictor, snapping=False),
    **classics.PREDICTORS,
}
AT_ONCE = {"cpu": 4}  # objects in flight with a network, by JAX's backend
AT_ONCE_ELSEWHERE = 64


def define_flags() -> None:
    """Flags of `mis-jax evaluate`."""
    options.define_config("sbd_vitb16")
    flags.DEFINE_list(
        "datasets",
        [],
        "NAME=FOLDER,...: grabcut, berkeley, davis, sbd (without =FOLDER: as downloaded), or a "
        "name of your own for a folder of images/ and masks/, one of NAME.jpg and NAME.png, or "
        "COCO's annotations, FILE.json:IMAGES.",
    )
    flags.DEFINE_string(
        "output", "", "Folder for the results; RUN/eval by default, if a RUN is given."
    )
    flags.DEFINE_enum(
        "predictor",
        None,
        ["network", *ALONE],
        "What answers the clicks: the network of RUN, by default if a RUN is given; or, without a "
        "RUN, the model that comes with mis_jax (shipped, the default then), trees, colours and "
        "edges of each image together, which it corrects (fused), the merge trees alone, masks "
        "along edges (tree) or patches (tree-blocks), or a classic method: "
        "graph cut, random walk, geodesic matting, geodesic (gsc) or Euclidean (esc) star "
        "convexity.",
    )
    flags.DEFINE_integer("pictures", 0, "Of how many objects a dataset to keep every mask.", 0)
    flags.DEFINE_integer(
        "at_once",
        0,
        "Objects in flight at once, half of them in a pass; 0: as suits the device.",
        0,
    )
    options.define_masks()
    options.define_shard()


def main(argv: Sequence[str]) -> None:
    """Binary: `mis-jax evaluate RUN --datasets grabcut=DIR,mine=DIR`."""
    f = flags.FLAGS
    shard, output = options.parse_shard(f.shard), Path(f.output)
    words, name = argv[1:], f.predictor
    opened = open_datasets(f.datasets, _reading(words))
    if list(words) == [SHIPPED] and name in (None, "network", SHIPPED):
        words, name = [], SHIPPED
    name = name or ("network" if words else SHIPPED)
    if name in ALONE:
        subject = _alone(words, name)
    else:
        subject, default = _network(words, f.at_once)
        output = Path(f.output or default)
    print(run(subject, opened, output, f.pictures, f.at_once, shard))


def run(
    subject: Subject,
    opened: Sequence[Benchmark],
    output: Path,
    pictures: int = 0,
    at_once: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> str:
    """Evaluates benchmark after benchmark, writing after each all that is known by then.

    The arguments are those of `evaluate_benchmark`; `at_once` 0 is the subject's own.

    Returns:
        The table, as in results.md.
    """
    text = ""
    for k, benchmark in enumerate(opened, start=1):
        evaluate_benchmark(subject, benchmark, output, pictures, at_once or subject.at_once, shard)
        found = {b.name: entry for b in opened[:k] if (entry := collect(subject, b, output))}
        if found:
            text = write_results(subject, opened, found, output)
    missing = ", ".join(b.name for b in opened if b.name not in found)
    if missing:
        text += f"{missing}: other processes have objects left; the last of them adds the rest.\n"
    return f"{text}Written to {output}"


def write_results(
    subject: Subject, opened: Sequence[Benchmark], results: Mapping[str, dict], output: Path
) -> str:
    """Writes results.json, the tables and the figures; returns the tables."""
    target, most = subject.settings["target"], subject.settings["max_clicks"]
    meta = {"meta": {**subject.identity, "eval": subject.settings, **_machine()}}
    write_file(output / "results.json", formats.compact_json({**results, **meta}))
    for name, entry in results.items():
        write_file(output / f"{name}.csv", formats.per_image_csv(entry, target, most))
    runs = {subject.label: results}
    write_file(output / "iou_per_click.png", figures.png(figures.curves(runs)))
    more = "\n![IoU after each click](iou_per_click.png)\n"
    stories = _stories(subject, [b for b in opened if b.name in results], output)
    if stories:
        picture = figures.clicks_and_masks({subject.label: stories})
        write_file(output / "clicks_and_masks.png", figures.png(picture))
        more += "\n![Clicks and masks](clicks_and_masks.png)\n"
    return tables.write(output, runs, more=more)


def _stories(subject: Subject, opened: Sequence[Benchmark], output: Path) -> dict:
    """The stories that are kept, by benchmark and id."""
    found = {}
    for benchmark in opened:
        folder = stories_folder(subject, benchmark, output)
        for id in benchmark.ids if folder.is_dir() else ():
            path = figures.story_path(folder, id)
            if path.exists():
                found[f"{benchmark.name} {id}"] = figures.load_story(path)
    return found


def _network(arguments: Sequence[str], at_once: int) -> tuple[Subject, Path]:
    """The model of a run or weights file, and where its results go unless the user says."""
    if len(arguments) != 1:
        raise InputError(
            "A network needs one run or weights file: mis-jax evaluate RUN --datasets NAME=FOLDER."
        )
    import jax

    from mis_jax.models import loading

    path = Path(arguments[0])
    config, params = loading.load(path)
    default = path / "eval" if path.is_dir() else Path(f"{path}-eval")
    settings = _settings(config)
    backend = jax.default_backend()
    at_once = at_once or AT_ONCE.get(backend, AT_ONCE_ELSEWHERE)
    identity = {
        "run": str(path),
        "step": loading.latest_step(path) if path.is_dir() else None,
        "predictor": "network",
        "model": config.model.to_dict(),
        "parameters": loading.digest(params),
    }
    if config.model.evidence:
        m = config.model
        make = functools.partial(CorrectedPredictor, params, m.evidence, m.dtype)
        return _per_object(make, settings, identity, f"the evidence network of {path}"), default
    if backend != "cpu":  # there, the last digits may depend on the shape of a pass
        identity["at_once"] = at_once

    def open_network(size: int | None, at_once: int) -> Predictors:
        assert size is not None  # a run's settings have it
        network = make_network(config, params, size, settings["flip"])
        return batched_predictors(network, size, settings, at_once)

    return Subject(open_network, settings, identity, at_once), default


def _alone(arguments: Sequence[str], name: str) -> Subject:
    """A predictor that needs no run."""
    if arguments:
        raise InputError(
            f"--predictor {name} takes no run; leave out {' '.join(arguments)}, or the flag."
        )
    if not flags.FLAGS.output:
        raise InputError(
            "Without a run, --output is needed, a folder for the results: mis-jax evaluate "
            f"--predictor {name} --datasets NAME=FOLDER --output FOLDER."
        )
    settings, who = _settings(flags.FLAGS.config), f"--predictor {name}"
    return _per_object(ALONE[name], settings, {"predictor": name}, who)


def _per_object(make: Callable[[], Any], settings: dict, identity: dict, who: str) -> Subject:
    """A predictor without ZoomIn, which every object gets anew.

    Raises:
        InputError: for settings from the command line that are of ZoomIn.
    """
    settings = {key: settings[key] for key in ("max_clicks", "target", "random")}
    for field in _overridden():
        if not field.startswith("images.") and field.removeprefix("eval.") not in settings:
            raise InputError(f"--config.{field} has no effect on {who}; leave it out.")

    def open_predictor(size: int | None, at_once: int) -> Predictors:
        return lambda: contextlib.nullcontext(make())

    return Subject(open_predictor, settings, {**identity, **make().settings}, os.cpu_count() or 1)


def open_datasets(pairs: Sequence[str], reading: Reading | None = None) -> list[Benchmark]:
    """The benchmarks of `--datasets`: NAME=FOLDER each, or NAME of one that was downloaded.

    Raises:
        InputError: for anything else.
    """
    if not pairs:
        raise InputError("--datasets is missing: --datasets grabcut=FOLDER,mine=FOLDER.")
    opened: dict[str, Benchmark] = {}
    for pair in pairs:
        name, given, folder = pair.partition("=")
        if (
            not re.fullmatch(r"[\w.-]+", name)
            or (given and not folder)
            or name in {*opened, "meta"}
        ):
            raise InputError(
                f'--datasets: "{pair}" is not NAME=FOLDER with a name of its own of letters, '
                'digits, ".", "_" and "-", other than meta.'
            )
        where = Path(folder).expanduser() if folder else benchmarks.default_folder(name)
        opened[name] = benchmarks.open_benchmark(name, where, reading)
    return list(opened.values())


def _settings(config: Any) -> dict:
    """The run's own `eval` settings, those of a `--config` given, and overrides above both."""
    for field in _overridden():
        if not field.startswith(("eval.", "images.")):
            raise InputError(
                f"--config.{field}: a finished run takes fields of config.eval and config.images."
            )
    return options.section("eval", config)


def _overridden() -> dict[str, Any]:
    """The fields that the command line overrides."""
    flag: Any = flags.FLAGS["config"]  # of ml_collections, which has no types
    return flag.override_values


def _reading(arguments: Sequence[str]) -> Reading:
    """How files are read: as for the run's training, if not as the command line has it."""
    from mis_jax.models import loading

    of_run = loading.config_of(arguments[0]) if len(arguments) == 1 else None
    return Reading.of(options.section("images", of_run), flags.FLAGS.masks)


def _machine() -> dict:
    import jax

    device = jax.devices()[0]
    return {
        "device": f"{jax.device_count()} x {device.device_kind}",
        "versions": {m.__name__: m.__version__ for m in (mis_jax, jax, np, cv2)},
    }
