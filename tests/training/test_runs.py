"""Whole runs of the command: uninterrupted, killed and started again, on two processes."""

import json
import re
import socket
import time

import jax
import numpy as np
import pytest
import tiny_run

from mis_jax.models import loading
from mis_jax.records import masks

pytestmark = pytest.mark.slow
STEPS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of images, records and a config; all runs of this module go there."""
    folder = tmp_path_factory.mktemp("runs")
    tiny_run.write_records(folder)
    tiny_run.write_config(folder)
    return folder


def start(folder, run, source="records", steps=STEPS, words=()):
    words = ["--workdir", folder / run, f"--config={folder}/tiny.py", *words]
    words.append(f"--config.optim.steps={steps}")
    return tiny_run.start("train", folder / source, *words, cache=folder / "cache")


def finish(process):
    """Waits for a run that has to succeed and to keep to its own few lines."""
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    assert not re.search(r"^[IWE]\d{4} (?!.*Waiting for previous save)", err, re.MULTILINE), err
    return out


def metrics_of(run):
    """Lines of metrics.jsonl without the seconds, which no two runs share."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def whole(folder):
    """A run from images to the last step, uninterrupted."""
    assert "6 images in 2 of 2 shards" in finish(start(folder, "whole", "images"))
    metrics = metrics_of(folder / "whole")
    assert [m["step"] for m in metrics] == list(range(1, STEPS + 1))
    return metrics


def test_a_killed_run_equals_an_uninterrupted_one(folder, whole):
    """Killed about when the first checkpoint is written; test_train.py stops runs anywhere."""
    for run in ("killed", "killed too late", "killed at last"):  # where one runs to its end
        process = start(folder, run)
        wait_for_metrics(folder / run / "metrics.jsonl", [process], lines=3)
        process.kill()
        process.communicate()
        if process.returncode < 0:
            break
    assert process.returncode < 0
    finish(start(folder, run))
    assert metrics_of(folder / run) == whole
    tiny_run.get_config()  # knows the model
    a, b = (loading.load(folder / name)[1] for name in ("whole", run))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_run_that_is_asked_to_stop_saves_and_goes_on(folder, whole):
    path = folder / "asked" / "metrics.jsonl"
    process = start(folder, "asked", steps=1000)
    ask_to_stop(process, path)
    step = loading.latest_step(folder / "asked")
    assert [m["step"] for m in metrics_of(folder / "asked")] == list(range(1, step + 1))
    finish(start(folder, "asked", steps=step + 1))
    known = min(step, STEPS)
    assert metrics_of(folder / "asked")[:known] == whole[:known]


def ask_to_stop(process, path):
    """SIGTERM once there are some metrics; the run has to save and say so."""
    wait_for_metrics(path, [process])
    process.terminate()
    stopped_at(process)


def wait_for_metrics(path, processes, lines=2):
    alive = lambda: all(p.poll() is None for p in processes)  # noqa: E731
    while alive() and not (path.exists() and path.read_text().count("\n") >= lines):
        time.sleep(0.005)


def stopped_at(process):
    """The step at which a run that was asked to stop says that it has saved."""
    _, err = process.communicate(timeout=200)
    assert process.returncode == 143, err
    return int(re.search(r"stopped and saved at step (\d+)", err)[1])


def start_two(*args, words=(), **keywords):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = [f"--coordinator=127.0.0.1:{port}", "--num_processes=2"]
    words = [[*words, *together, f"--process_id={i}"] for i in range(2)]
    return [start(*args, words=w, **keywords) for w in words]


def losses_of(metrics):
    return [m["loss"] for m in metrics]


def test_two_processes_train_as_one_does_stop_at_one_step_and_one_goes_on(folder, whole):
    """SIGTERM reaches the second one; both save, and one alone goes on from there."""
    run = folder / "two"
    processes = start_two(folder, run.name, steps=1000)
    wait_for_metrics(run / "metrics.jsonl", processes)
    processes[1].terminate()
    step, other = map(stopped_at, processes)
    assert step == other == loading.latest_step(run) == len(metrics_of(run))
    finish(start(folder, run.name, steps=max(step + 1, 5)))
    losses = losses_of(metrics_of(run))
    assert len(losses) == max(step + 1, 5)
    known = min(len(losses), STEPS)
    assert losses[:known] == pytest.approx(losses_of(whole[:known]), rel=1e-4)


def test_two_processes_fine_tune_a_run_on_masks(folder, whole):
    """They begin with all parameters of the other run, and learn labelled objects."""
    tiny_run.get_config()  # knows the model
    masks.write("scenes", folder, folder / "objects")
    words = [
        f"--config.model.start={folder}/whole",
        "--config.optim.lr=0",
        "--config.loss.mask=nfl",
    ]
    for process in start_two(folder, "tuned", "objects", steps=1, words=words):
        finish(process)
    (metrics,) = metrics_of(folder / "tuned")
    assert metrics["nfl"] == metrics["loss"] > 0
    a, b = (loading.load(folder / run)[1] for run in ("whole", "tuned"))
    jax.tree.map(np.testing.assert_array_equal, a, b)
