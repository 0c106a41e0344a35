"""Simulated clicks on benchmarks -> number of clicks (NoC): `mis-jax evaluate RUN --datasets ...`.

`mis-jax evaluate --predictor tree --datasets ... --output DIR` needs no run: merge trees answer, or
a classic method does. Clicks are those of clicker.py, numbers those of metrics.py, and what is
written of them tables.py and figures.py. Objects are in flight many at once (in_flight.py), and
each is kept when it is done (journal.py), so that a killed evaluation, or one that several
processes share, goes on from there.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import flags
from tqdm import tqdm

import mis_jax
from mis_jax import benchmarks, classics, cli, figures, tables
from mis_jax.benchmarks import Benchmark, Sample
from mis_jax.clicker import ClickPredictor, RandomClicker, next_click, rounds
from mis_jax.errors import InputError
from mis_jax.in_flight import Batched, Clock, in_flight
from mis_jax.journal import Journal
from mis_jax.metrics import summarize, thresholds
from mis_jax.predictor import Predictor, make_network
from mis_jax.records import write_file
from mis_jax.tree_predictor import TreePredictor

# Predictors without a network.
ALONE: dict[str, Callable[[], Any]] = {
    "tree": TreePredictor,
    "tree-blocks": functools.partial(TreePredictor, snapping=False),
    **classics.PREDICTORS,
}
AT_ONCE = {"cpu": 4}  # objects in flight with a network, by JAX's backend
AT_ONCE_ELSEWHERE = 64

# For the time of one object: something that answers clicks.
Predictors = Callable[[], AbstractContextManager[ClickPredictor]]


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is evaluated.

    Attributes:
        open: side of the network's square in pixels (None if the settings have no size), and how
            many objects are in flight -> where each of these gets its predictor.
        settings: `config.eval` as a dict, as far as it has an effect.
        identity: "predictor", "run" if there is one, and all that tells it apart, because the
            objects that were finished before count again only for the same ("run" may differ).
        at_once: objects in flight, unless the user says otherwise.
    """

    open: Callable[[int | None, int], Predictors]
    settings: dict
    identity: dict
    at_once: int = 1

    @property
    def label(self) -> str:
        """What tables call it."""
        run = self.identity.get("run")
        return self.identity["predictor"] + (f" ({Path(run).name})" if run else "")

    @property
    def fingerprint(self) -> str:
        """Eight letters for all that the IoUs depend on beside the images."""
        what = {k: v for k, v in self.identity.items() if k != "run"}
        settings = {k: v for k, v in self.settings.items() if k != "random"}
        text = json.dumps([what, settings, mis_jax.__version__], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


# ---- a benchmark


@dataclasses.dataclass
class Clicks:
    """Clicks of one clicker on the objects of a benchmark; called with each object's id.

    Attributes:
        random: seed of the random clicker, None for the standard one.
        stories: a folder, and the ids of objects whose every mask is kept there.
    """

    open_predictor: Predictors
    warm_up: Callable[[Sample], None]
    benchmark: Benchmark
    journal: Journal
    target: float
    max_clicks: int
    random: int | None = None
    stories: tuple[Path, Iterable[str]] = (Path(), ())
    clock: Clock = dataclasses.field(default_factory=Clock)

    def __call__(self, id: str, go_on: Callable[[], None]) -> None:
        """Clicks on one object, unless the journal has it, and enters it there."""
        with self.clock.share() as seconds:  # as published, reading is part of the time
            try:
                sample = self.benchmark.read(id)
            except InputError as error:
                self.journal.add({"id": id, "skipped": str(error)})
                return
            spent = seconds()
        digest = zlib.crc32(sample.mask, zlib.crc32(np.ascontiguousarray(sample.image)))
        story = figures.story_path(self.stories[0], id) if id in self.stories[1] else None
        if (story is None or story.exists()) and self.journal.recall(id, digest):
            return
        self.warm_up(sample)
        with self.clock.share() as seconds:
            done = self._rounds(sample, go_on)
            spent += seconds()
        if story:
            figures.save_story(story, sample.image, sample.mask, done)
        self.journal.add(
            {
                "id": id,
                "digest": digest,
                "ious": [float(np.float32(r.iou)) for r in done],
                "clicks": [[r.row, r.col, int(r.positive)] for r in done],
                "seconds": round(spent, 6),
            }
        )

    def _rounds(self, sample: Sample, go_on: Callable[[], None]) -> list:
        choose, done = next_click, []
        if self.random is not None:
            choose = RandomClicker(self.random, zlib.crc32(sample.id.encode()))
        with self.open_predictor() as predictor:
            for r in rounds(predictor, sample, self.target, self.max_clicks, choose):
                done.append(r)
                go_on()
        return done


def warm_up_once(open_predictor: Predictors) -> Callable[[Sample], None]:
    """A function that clicks once, the first time it is called.

    What compiling takes is no part of the time of a click.
    """
    lock, done = threading.Lock(), []

    def warm_up(sample: Sample) -> None:
        with lock:
            if done:
                return
            with open_predictor() as predictor:
                predictor.set_image(sample.image)
                predictor.click(x=0, y=0)
            done.append(True)

    return warm_up


def evaluate_benchmark(
    subject: Subject,
    benchmark: Benchmark,
    output: Path,
    pictures: int = 0,
    at_once: int = 1,
    shard: tuple[int, int] = (0, 1),
) -> None:
    """Clicks on this process's objects of a benchmark, as far as they are not done.

    Args:
        output: folder of the results; what is done is kept in its `objects`.
        pictures: of how many objects every mask is kept, in its `pictures`.
        at_once: objects in flight.
        shard: (i, n): objects i, i + n, i + 2n, ...
    """
    settings = subject.settings
    open_predictor = subject.open(input_size(benchmark, settings), at_once)
    ids = benchmark.ids[shard[0] :: shard[1]]
    warm_up = warm_up_once(open_predictor)
    kept = stories_folder(subject, benchmark, output), benchmark.ids[:pictures]
    most = max(thresholds(settings["target"]).values())  # that any NoC is of
    for seed, journal in journals(subject, benchmark, output, shard).items():
        clicks = Clicks(
            open_predictor,
            warm_up,
            benchmark,
            journal,
            settings["target"] if seed is None else most,
            settings["max_clicks"],
            seed,
            kept if seed is None else (Path(), ()),
        )
        bar = benchmark.name + ("" if seed is None else f", random clicks {seed + 1}")
        done = in_flight(clicks, ids, at_once)
        for _ in tqdm(done, bar, len(ids), unit="object", disable=None):
            pass


def stories_folder(subject: Subject, benchmark: Benchmark, output: Path) -> Path:
    """Where the stories of a benchmark's objects are kept."""
    return output / "pictures" / f"{benchmark.name}-{subject.fingerprint}"


def journals(
    subject: Subject, benchmark: Benchmark, output: Path, shard: tuple[int, int] = (0, 1)
) -> dict[int | None, Journal]:
    """The journal of the standard clicker (None) and of each random one, by its seed."""
    folder = output / "objects" / f"{benchmark.name}-{subject.fingerprint}"
    found: dict[int | None, Journal] = {None: Journal(folder, "clicks", shard)}
    for seed in range(subject.settings.get("random", 0)):
        found[seed] = Journal(folder, f"random{seed}", shard)
    return found


def collect(subject: Subject, benchmark: Benchmark, output: Path) -> dict | None:
    """The entry of a benchmark in results.json; None while other processes have work left.

    Raises:
        InputError: no object of it can be used.
    """
    passes = []
    for journal in journals(subject, benchmark, output).values():
        latest = journal.latest()
        if not all(id in latest for id in benchmark.ids):
            return None
        records = [latest[id] for id in benchmark.ids]
        benchmark.skipped.update({r["id"]: r["skipped"] for r in records if "skipped" in r})
        passes.append([r for r in records if "skipped" not in r])
    if not passes[0]:
        raise benchmark.nothing_usable()
    settings = subject.settings
    entry = summarize(
        passes[0], benchmark, settings["target"], settings["max_clicks"], random=passes[1:]
    )
    kept = stories_folder(subject, benchmark, output)
    if kept.is_dir():
        entry["stories"] = str(kept.relative_to(output))
    return entry


# ---- the command


def define_flags() -> None:
    """Flags of `mis-jax evaluate`."""
    cli.define_config("sbd_vitb16")
    flags.DEFINE_list(
        "datasets",
        [],
        "NAME=FOLDER,...: grabcut, berkeley, davis, sbd (without =FOLDER: as downloaded), or a "
        "name of your own for a folder of images/ and masks/, one of NAME.jpg and NAME.png, or "
        "COCO's annotations, FILE.json:IMAGES.",
    )
    flags.DEFINE_string("output", "", "Folder for the results; RUN/eval by default, if a RUN is.")
    flags.DEFINE_enum(
        "predictor",
        "network",
        ["network", *ALONE],
        "What answers the clicks: the network of RUN; or, without a RUN, the merge tree of each "
        "image, its masks along edges (tree) or patches (tree-blocks), or a classic method: graph "
        "cut, random walk, geodesic matting, geodesic (gsc) or Euclidean (esc) star convexity.",
    )
    flags.DEFINE_integer("pictures", 0, "Of how many objects a dataset to keep every mask.", 0)
    flags.DEFINE_integer(
        "at_once",
        0,
        "Objects in flight at once, half of them in a pass; 0: as suits the device.",
        0,
    )
    cli.define_shard()


def main(argv: Sequence[str]) -> None:
    """Binary: `mis-jax evaluate RUN --datasets grabcut=DIR,mine=DIR`."""
    f = flags.FLAGS
    opened, shard, output = open_datasets(f.datasets), cli.parse_shard(f.shard), Path(f.output)
    if f.predictor in ALONE:
        subject = _alone(argv[1:], f.predictor)
    else:
        subject, default = _network(argv[1:], f.at_once)
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
    write_file(output / "results.json", _json({**results, **meta}))
    for name, entry in results.items():
        write_file(output / f"{name}.csv", tables.per_image_csv(entry, target, most))
    runs = {subject.label: results}
    write_file(output / "iou_per_click.png", figures.png(figures.curves(runs)))
    more = "\n![IoU after each click](iou_per_click.png)\n"
    stories = _stories(subject, [b for b in opened if b.name in results], output)
    if stories:
        picture = figures.clicks_and_masks({subject.label: stories})
        write_file(output / "clicks_and_masks.png", figures.png(picture))
        more += "\n![Clicks and masks](clicks_and_masks.png)\n"
    return tables.write(output, runs, more=more)


def _json(document: Mapping) -> str:
    """JSON with a line for each list of numbers, or of lists of these."""
    text = json.dumps(document, indent=1)
    for inner in (r"[^][{}\"]+", r"(?:\[[^][{}\"]+\],?\s*)+"):
        text = re.sub(rf"\[\s+({inner}?)\s*\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    return text


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


def input_size(benchmark: Benchmark, settings: Mapping[str, Any]) -> int | None:
    """Side of the network's square for a benchmark, of `config.eval`; None if that has no size."""
    return settings.get("davis_size" if benchmark.name.lower() == "davis" else "size")


def _network(arguments: Sequence[str], at_once: int) -> tuple[Subject, Path]:
    """The network of a run or weights file, and where its results go unless the user says."""
    if len(arguments) != 1:
        raise InputError("One run or weights file: mis-jax evaluate RUN --datasets NAME=FOLDER.")
    import jax

    from mis_jax import checkpoint

    path = Path(arguments[0])
    config, params = checkpoint.load(path)
    settings = _settings(config)
    backend = jax.default_backend()
    at_once = at_once or AT_ONCE.get(backend, AT_ONCE_ELSEWHERE)
    identity = {
        "run": str(path),
        "step": checkpoint.latest_step(path) if path.is_dir() else None,
        "predictor": "network",
        "model": config.model.to_dict(),
        "parameters": _digest(params),
    }
    if backend != "cpu":  # there, the last digits may depend on the shape of a pass
        identity["at_once"] = at_once

    def open_network(size: int | None, at_once: int) -> Predictors:
        network = make_network(config, params, size, settings["flip"])
        return batched_predictors(network, size, settings, at_once)

    default = path / "eval" if path.is_dir() else Path(f"{path}-eval")
    return Subject(open_network, settings, identity, at_once), default


def batched_predictors(network: Any, size: int, settings: Mapping, at_once: int) -> Predictors:
    """Predictors that share a network; while it is busy with half of them, the others go on."""
    batched = Batched(network, max(1, at_once // 2), settings["max_clicks"])

    @contextlib.contextmanager
    def open_predictor():
        with batched.asking():
            yield Predictor(batched, size, settings["threshold"])

    return open_predictor


def _alone(arguments: Sequence[str], name: str) -> Subject:
    """A predictor without a network."""
    if arguments or not flags.FLAGS.output:
        raise InputError(
            f"--predictor {name} takes no run, and a folder for the results: "
            f"mis-jax evaluate --predictor {name} --datasets NAME=FOLDER --output FOLDER."
        )
    settings = _settings(flags.FLAGS.config)
    settings = {key: settings[key] for key in ("max_clicks", "target", "random")}
    for field in flags.FLAGS["config"].override_values:
        if field.removeprefix("eval.") not in settings:
            raise InputError(f"--config.{field} has no effect on --predictor {name}; leave it out.")
    make = ALONE[name]
    identity = {"predictor": name, **make().settings}

    def open_alone(size: int | None, at_once: int) -> Predictors:
        return lambda: contextlib.nullcontext(make())

    return Subject(open_alone, settings, identity, os.cpu_count() or 1)


def open_datasets(pairs: Sequence[str]) -> list[Benchmark]:
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
        opened[name] = benchmarks.open_benchmark(name, where)
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


def _machine() -> dict:
    import jax

    device = jax.devices()[0]
    return {
        "device": f"{jax.device_count()} x {device.device_kind}",
        "versions": {m.__name__: m.__version__ for m in (mis_jax, jax, np, cv2)},
    }


if __name__ == "__main__":
    cli.run("evaluate")
