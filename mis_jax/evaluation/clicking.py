"""Clicks on the objects of a benchmark: many in flight, each kept when it is done.

A killed evaluation, or one that several processes share, goes on from what journal.py has of it.
"""

import contextlib
import dataclasses
import hashlib
import json
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import mis_jax
from mis_jax.datasets import Benchmark, Sample
from mis_jax.errors import InputError
from mis_jax.evaluation import figures
from mis_jax.evaluation.clicker import ClickPredictor, RandomClicker, next_click, rounds
from mis_jax.evaluation.in_flight import Batched, Clock, in_flight
from mis_jax.evaluation.journal import Journal
from mis_jax.evaluation.metrics import summarize, thresholds
from mis_jax.predictors import Network, Predictor

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
        return label(self.identity)

    @property
    def fingerprint(self) -> str:
        """Eight letters for all that the IoUs depend on beside the images."""
        what = {k: v for k, v in self.identity.items() if k != "run"}
        settings = {k: v for k, v in self.settings.items() if k != "random"}
        text = json.dumps([what, settings, mis_jax.__version__], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def label(identity: Mapping[str, Any]) -> str:
    """The predictor, and the name of its run if there is one."""
    run = identity.get("run")
    name = str(identity["predictor"])
    return f"{name} ({Path(run).name})" if isinstance(run, str) else name


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
        digest = zlib.crc32(sample.mask.data, zlib.crc32(np.ascontiguousarray(sample.image).data))
        story = figures.story_path(self.stories[0], id) if id in self.stories[1] else None
        if (story is None or story.exists()) and self.journal.recall(id, digest):
            return
        self.warm_up(sample)
        with self.clock.share() as seconds:
            done = self._rounds(sample, go_on)
            spent += seconds()
        notes = self.benchmark.notes.get(id)
        if story:
            figures.save_story(story, sample.image, sample.mask, done)
        self.journal.add(
            {
                "id": id,
                "digest": digest,
                "ious": [float(np.float32(r.iou)) for r in done],
                "clicks": [[r.row, r.col, int(r.positive)] for r in done],
                "seconds": round(spent, 6),
                **({"notes": notes} if notes else {}),
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
    lock, done = threading.Lock(), threading.Event()

    def warm_up(sample: Sample) -> None:
        with lock:
            if done.is_set():
                return
            with open_predictor() as predictor:
                predictor.set_image(sample.image)
                predictor.click(x=0, y=0)
            done.set()

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
        benchmark.notes.update({r["id"]: tuple(r["notes"]) for r in records if "notes" in r})
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


def input_size(benchmark: Benchmark, settings: Mapping[str, Any]) -> int | None:
    """Side of the network's square for a benchmark, of `config.eval`; None if that has no size."""
    return settings.get("davis_size" if benchmark.name.lower() == "davis" else "size")


def batched_predictors(network: Network, size: int, settings: Mapping, at_once: int) -> Predictors:
    """Predictors that share a network; while it is busy with half of them, the others go on."""
    batched = Batched(network, max(1, at_once // 2), settings["max_clicks"])

    @contextlib.contextmanager
    def open_predictor():
        with batched.asking():
            yield Predictor(batched, size, settings["threshold"])

    return open_predictor
