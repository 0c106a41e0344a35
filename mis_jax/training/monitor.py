"""What a training run shows: progress, metrics, TensorBoard, pictures, held-out NoC, traces."""

import functools
import itertools
import json
import pathlib
import time
from collections.abc import Collection, Mapping, Sequence

import cv2
import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from mis_jax import evaluation
from mis_jax.datasets import Reading
from mis_jax.errors import InputError
from mis_jax.files import write_file
from mis_jax.models import simpleclick
from mis_jax.predictors import CorrectedPredictor, Predictor, make_program
from mis_jax.training import evidence_step

# tqdm's own, but always images (clicks, objects) a second, never s/image, and the time left.
PROGRESS = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
# Most dense bf16 operations a second of one chip, as their makers state them.
PEAKS = {
    "A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12, "L4": 121e12,
    "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5p": 459e12, "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}  # fmt: skip
TRACED = 5  # steps of a trace
TARGETS = (85, 90)  # per cent of IoU, of the NoC on held-out objects


class Monitor:
    """Reports steps of one process; all but the first process stay silent.

    Args:
        run: where metrics.jsonl, noc.jsonl, pictures/, tensorboard/ and traces/ appear.
        config: the run's.
        first: steps that were done before.
    """

    def __init__(self, run: pathlib.Path, config: ConfigDict, first: int) -> None:
        self._run, self._config = run, config
        self._lead = jax.process_index() == 0
        self._log = MetricLog(run / "metrics.jsonl", first) if self._lead else None
        self._noc_log: MetricLog | None = None
        self._first = first
        self._board = _board(run) if self._lead and config.train.tensorboard else None
        self._each, unit = work(config)
        self._bar = tqdm(
            total=config.optim.steps * self._each, initial=first * self._each, unit=unit,
            smoothing=0.02, disable=not self._lead, mininterval=1.0, bar_format=PROGRESS,
        )  # fmt: skip
        self._trace_ends = 0
        self._mark = time.monotonic(), first

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *_: object) -> None:
        if self._trace_ends:
            jax.profiler.stop_trace()
        if self._board:
            self._board.close()
        self._bar.close()

    def before(self, step: int, trace: bool) -> None:
        """Begins a trace of the next steps if it was asked for, and ends one that is done."""
        if self._trace_ends and step >= self._trace_ends:
            jax.profiler.stop_trace()
            self._trace_ends = 0
        if trace and not self._trace_ends:
            folder = self._run / "traces" / str(step)
            jax.profiler.start_trace(str(folder))
            self._trace_ends = step + TRACED
            self.say(f"steps {step} to {step + TRACED - 1} are traced in {folder}")

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Reports the metrics of a step."""
        self._write(self._log, step, values)
        self._bar.update(self._each)
        if step % self._config.train.log_every == 0:
            loss, iou = f"{values['loss']:.4f}", f"{values['iou']:.3f}"
            self._bar.set_postfix(step=step, loss=loss, iou=iou, **self._hardware(step))

    def noc(self, step: int, values: Mapping[str, float]) -> None:
        """Reports clicks on held-out objects, in noc.jsonl too."""
        if self._lead and not self._noc_log:
            self._noc_log = MetricLog(self._run / "noc.jsonl", self._first)
        self._write(self._noc_log, step, values)
        self.say(f"step {step}: " + ", ".join(f"{k} {v:.2f}" for k, v in values.items()))

    def picture(self, step: int, seen: Mapping[str, np.ndarray]) -> None:
        """Writes pictures/STEP.jpg of what a `make_look` gives."""
        if self._lead:
            path = self._run / "pictures" / f"{step}.jpg"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), picture(seen)[:, :, ::-1])

    def say(self, text: str) -> None:
        """Prints a line above the progress line."""
        if self._lead:
            tqdm.write(text)

    def _write(self, log: "MetricLog | None", step: int, values: Mapping[str, float]) -> None:
        if log:
            log.write(step, values)
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def _hardware(self, step: int) -> dict[str, str]:
        """Model FLOPs utilisation since the last time, and memory at its highest, where known."""
        (then, before), now = self._mark, time.monotonic()
        self._mark = now, step
        device, found = jax.local_devices()[0], {}
        peak = next((PEAKS[k] for k in PEAKS if k in device.device_kind), None)
        if peak and now > then and not self._config.model.evidence:
            done = (step - before) * self._config.optim.batch_size * train_flops(self._config)
            found["MFU"] = f"{100 * done / (now - then) / (peak * jax.device_count()):.1f}%"
        memory = (device.memory_stats() or {}).get("peak_bytes_in_use")
        return found | ({"memory": f"{memory / 2**30:.1f}GiB"} if memory else {})


def work(config: ConfigDict) -> tuple[int, str]:
    """How many a step the progress line counts, and of what; all objects get all their clicks."""
    batch = config.optim.batch_size
    if config.model.evidence:
        return evidence_step.GROUPS * batch * config.clicks.max_next, " clicks"
    return batch, " images"


def train_flops(config: ConfigDict) -> float:
    """Operations of a sample of SimpleClick's train step: 3 passes', and the simulated clicks'."""
    m = config.model
    forward = simpleclick.flops(m.variant, m.patch, config.data.crop)
    return forward * (3 + config.clicks.max_next / 2)


def picture(seen: Mapping[str, np.ndarray]) -> np.ndarray:
    """uint8 RGB: for each sample image with clicks, target, previous mask, prediction.

    With an evidence network, the third is what the evidence alone answers.
    """
    rows = []
    for image, mask, prev, prob, points in zip(
        *(seen[k] for k in ("image", "mask", "prev", "prob", "points")), strict=True
    ):
        clicked = np.array(image)  # to draw on
        half = len(points) // 2
        for i, (row, col, _) in enumerate(points):
            if max(row, col) >= 0:
                colour = (0, 200, 0) if i < half else (220, 0, 0)
                cv2.circle(clicked, (round(col), round(row)), 4, colour, -1, cv2.LINE_AA)
        maps = [np.uint8(255 * np.clip(x, 0, 1)) for x in (mask, prev, prob)]
        rows.append(np.hstack([clicked, *(np.dstack([x] * 3) for x in maps)]))
    return np.vstack(rows)


def _board(run: pathlib.Path):
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise InputError(
            "config.train.tensorboard needs one more package: pip install 'mis-jax[tensorboard]'."
        ) from None
    return SummaryWriter(str(run / "tensorboard"))


class MetricLog:
    """Appends one JSON line a step; lines after the resumed step are taken back first."""

    def __init__(self, path: pathlib.Path, step: int):
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if _step_of(line) <= step]
        write_file(path, "".join(line + "\n" for line in kept))
        self._file = path.open("a", buffering=1)
        self._start = time.monotonic()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds a line with the seconds since this process began to train."""
        seconds = round(time.monotonic() - self._start, 3)
        self._file.write(json.dumps({"step": step, "seconds": seconds, **metrics}) + "\n")


def _step_of(line: str) -> float:
    """The step of a metrics line; a line that a kill cut short belongs to no step."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")


class HeldOut:
    """NoC of a few objects, clicked on with the parameters as they are at some step.

    Args:
        datasets: NAME=FOLDER each, as `mis-jax evaluate` takes them.
        config: the run's.
        masks: what `--masks` says of theirs.
    """

    def __init__(
        self, datasets: Sequence[str], config: ConfigDict, masks: Collection[str] = ()
    ) -> None:
        reading = Reading.of(config.images, masks)
        count, self._config, self._sets = config.train.noc_objects, config, []
        for benchmark in evaluation.evaluate.open_datasets(datasets, reading):
            size = evaluation.clicking.input_size(benchmark, config.eval)
            assert size is not None  # a run's settings have it
            samples = list(itertools.islice(benchmark, count))
            self._sets.append((benchmark.name, samples, size))
        self._program = functools.cache(lambda size: make_program(config, size, config.eval.flip))

    def __call__(self, params: dict) -> dict[str, float]:
        """{"NAME noc85", "NAME noc90"} of each dataset; `params` are on this process's devices."""
        found, goal, most = {}, TARGETS[-1] / 100, self._config.eval.max_clicks
        rounds = evaluation.clicker.rounds
        for name, samples, size in self._sets:
            predictor = self._predictor(params, size)
            ious = [[r.iou for r in rounds(predictor, sample, goal, most)] for sample in samples]
            for percent in TARGETS:
                found[f"{name} noc{percent}"] = evaluation.noc(ious, percent / 100, most)
        return found

    def _predictor(self, params: dict, size: int) -> evaluation.clicker.ClickPredictor:
        e, m = self._config.eval, self._config.model
        if m.evidence:
            return CorrectedPredictor(params, m.evidence, m.dtype)
        return Predictor(functools.partial(self._program(size), params), size, e.threshold)
