"""BINARY: the whole flow in minutes, without network or data of your own: `mis-jax quickstart`.

Photographs that ship with scikit-image, clicked on with the model that comes with mis_jax -> merge
trees of these and of made-up scenes without their masks -> that model trained on from them ->
clicks on held-out scenes, with and without a network -> one page, OUTPUT/report.html. Each step is
what the other commands do; the same command goes on where it was stopped.
"""

import contextlib
import functools
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from absl import flags
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from mis_jax import features, options, records
from mis_jax.datasets import Benchmark, Reading, benchmarks, read_image, scenes
from mis_jax.errors import InputError
from mis_jax.evaluation import clicker, clicking, evaluate
from mis_jax.files import write_file
from mis_jax.models import loading
from mis_jax.predictors import CorrectedPredictor, FusedPredictor, TreePredictor, shipped
from mis_jax.quickstart import report
from mis_jax.records import propose
from mis_jax.training import checkpoint, train

# Of the made-up scenes: no scene is in both. Seed 2 is taken: settings were chosen on its scenes.
UNLABELLED_SEED, HELD_OUT_SEED = 1, 3
DATASET = "scenes"

Maker = Callable[[], TreePredictor | FusedPredictor]


def define_flags() -> None:
    """The flags of `mis-jax quickstart`."""
    flags.DEFINE_string("output", "quickstart", "Folder for the report and all it is made of.")
    options.define_config("quickstart")


def main(argv: list[str]) -> None:
    """Runs the flow into --output."""
    if len(argv) != 1:
        raise InputError("usage: mis-jax quickstart [--output DIR]; it takes no images.")
    quickstart(Path(flags.FLAGS.output), flags.FLAGS.config)


def quickstart(output: Path, config: ConfigDict) -> Path:
    """Makes what is missing in `output`, prints the table, and returns the path of the report.

    Args:
        output: a new folder, or one in which the same quickstart was begun before.
        config: that of `configs/quickstart.py`, or another with its `quickstart` fields.

    Raises:
        InputError: the folder holds something else, or was begun with another config.
    """
    _begin(output, config)
    q, stage = config.quickstart, Stages(output / "seconds.json")
    with stage("images"):
        _whole(output / "images" / "photos", lambda folder: copy_photos(folder, q.photos))
        _whole(output / "images" / "scenes", lambda folder: draw_scenes(folder, q.unlabelled))
        held_out = output / "held_out"
        _whole(held_out, lambda folder: scenes.write_benchmark(folder, q.held_out, HELD_OUT_SEED))
    with stage("clicks on photographs"):
        clicked = click_photos(shipped(), output / "images" / "photos", q.clicks)
    with stage("merge trees"):
        summary = propose.propose(
            output / "images",
            output / "records",
            extractor=features.make_extractor(**config.features),
            batch_size=config.features.batch_size,
            reading=Reading.of(config.images),
            **config.propose,
        )
    with stage("training"):
        train.train(records.shard_files(output / "records"), output / "run", config)
    with stage("clicks on held-out scenes"):
        benchmark = benchmarks.open_benchmark(DATASET, held_out)
        makers = predictors(output / "run")
        results = {
            name: measure(make, name, benchmark, output / "eval", config)
            for name, make in makers.items()
        }
    with stage("report"):
        facts = report.Facts(
            run=output / "run",
            config=config,
            clicked=clicked,
            trees=summary.report,
            photos=_photos(output / "records", q.photos[: q.shown]),
            metrics=_read_metrics(output / "run" / "metrics.jsonl"),
            results=results,
            examples=_examples(benchmark, makers, config),
            seconds=stage.seconds,
        )
        report.write(output / "report.html", facts)
    document = {**results, "seconds": stage.seconds, "config": config.to_dict()}
    write_file(output / "results.json", json.dumps(document, indent=1))
    print(f"\n{report.text_table(results, config.eval.max_clicks)}")
    print(f"\nOpen {output / 'report.html'} in a browser.")
    return output / "report.html"


class Stages:
    """Names and times the parts of the flow.

    `seconds` of each add up over stopped and resumed runs until it is done once; later runs, which
    find everything there, leave them alone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        known = json.loads(path.read_text()) if path.exists() else {}
        self.seconds: dict[str, float] = known.get("seconds", {})
        self._done: list[str] = known.get("done", [])

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Prints the name, then the seconds that the body took, and keeps them."""
        print(f"-- {name}", flush=True)
        start = time.monotonic()
        try:
            yield
        except BaseException:
            self._keep(name, time.monotonic() - start, done=False)
            raise
        took = time.monotonic() - start
        self._keep(name, took, done=True)
        print(f"   {took:.1f} s", flush=True)

    def _keep(self, name: str, took: float, done: bool) -> None:
        if name in self._done:
            return
        self.seconds[name] = round(self.seconds.get(name, 0.0) + took, 2)
        self._done += [name] if done else []
        text = json.dumps({"seconds": self.seconds, "done": self._done})
        write_file(self._path, text)


def copy_photos(folder: Path, names: tuple[str, ...]) -> None:
    """Copies photographs out of the installed scikit-image, without asking its network cache."""
    shipped = {Path(p.name).stem: p for p in (files("skimage") / "data").iterdir() if _photo(p)}
    found = [shipped[name] for name in names if name in shipped]
    if not found:
        raise InputError(
            f"config.quickstart.photos names none of the photographs that the installed "
            f"scikit-image holds: {', '.join(sorted(shipped)) or 'none'}."
        )
    for photo in found:
        (folder / photo.name).write_bytes(photo.read_bytes())


def draw_scenes(folder: Path, count: int) -> None:
    """Draws made-up scenes to learn from; their masks are thrown away."""
    for index in range(count):
        image, _ = scenes.make_scene(np.random.default_rng([UNLABELLED_SEED, index]))
        cv2.imwrite(str(folder / f"scene_{index:05d}.png"), image[:, :, ::-1])


def click_photos(
    predictor: clicker.ClickPredictor, folder: Path, clicks: Sequence[Sequence]
) -> list[report.Clicked]:
    """Makes the clicks of `config.quickstart.clicks` on those of its photographs that are there."""
    found = []
    for name, rows in itertools.groupby(clicks, key=lambda row: row[0]):
        for path in folder.glob(f"{name}.*"):
            image = read_image(path)
            predictor.set_image(image)
            answers = [
                report.Answer(y, x, bool(on), predictor.click(x=x, y=y, positive=bool(on)))
                for _, x, y, on in rows
            ]
            found.append(report.Clicked(name, image, answers))
    return found


def predictors(run: Path) -> dict[str, Maker]:
    """What is compared: without a network, the model that comes with mis_jax, and a run's."""
    config, params = loading.load(run)
    model = config.model
    return {
        "trees": TreePredictor,
        "fused": FusedPredictor,
        "shipped": shipped,
        "trained": functools.partial(CorrectedPredictor, params, model.evidence, model.dtype),
    }


def measure(make: Maker, name: str, benchmark: Benchmark, folder: Path, config: ConfigDict) -> dict:
    """Clicks on every held-out scene; the entry of results.json, see `metrics.summarize`."""
    subject = clicking.Subject(
        lambda size, at_once: lambda: contextlib.nullcontext(make()),
        {key: config.eval[key] for key in ("max_clicks", "target", "random")},
        {"predictor": name, **make().settings},
        os.cpu_count() or 1,
    )
    evaluate.run(subject, [benchmark], folder / name)
    return json.loads((folder / name / "results.json").read_text())[DATASET]


def _begin(output: Path, config: ConfigDict) -> None:
    """Writes the config into a new folder; one that is there has to hold the same."""
    if (output / "config.json").exists():
        old = flatten_dict(loading.read_config(output).to_dict(), sep=".")
        new = flatten_dict(json.loads(json.dumps(config.to_dict())), sep=".")
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                raise InputError(
                    f"{output} was made with config.{name}={old.get(name)!r}, and now it is "
                    f"{new.get(name)!r}; give another --output, or delete the folder."
                )
    elif output.exists() and any(output.iterdir()):
        raise InputError(f"{output} holds other files; give a new folder as --output.")
    else:
        output.mkdir(parents=True, exist_ok=True)
        checkpoint.write_config(output, config)


def _whole(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fills a folder that appears under its name when it is complete, unless it is there."""
    if folder.exists():
        return
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    fill(partial)
    partial.rename(folder)


def _photo(path) -> bool:
    return Path(path.name).suffix in (".png", ".jpg")


def _photos(folder: Path, names: tuple[str, ...]) -> list[records.Record]:
    """The records of photographs, in the order of their names given."""
    found = {Path(r.id).stem: r for r in records.read_records(folder) if r.id.startswith("photos/")}
    return [found[name] for name in names if name in found]


def _read_metrics(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _examples(
    benchmark: Benchmark, makers: dict[str, Maker], config: ConfigDict
) -> list[report.Example]:
    """The first held-out scenes, click by click."""
    target, most = config.eval.target, config.eval.max_clicks
    return [
        report.Example(
            sample,
            {
                name: list(clicker.rounds(makers[name](), sample, target, most))
                for name in report.SHOWN
            },
        )
        for _, sample in zip(range(config.quickstart.shown), benchmark, strict=False)
    ]
