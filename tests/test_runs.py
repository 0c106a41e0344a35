"""Whole runs of the command: uninterrupted, killed and started again, on two processes."""

import json
import re
import socket
import time

import jax
import numpy as np
import pytest
import tiny_run

from mis_jax import checkpoint

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
    path, kills = folder / "killed" / "metrics.jsonl", 0
    for lines in (1, 5):
        process = start(folder, "killed")
        while process.poll() is None:
            if path.exists() and path.read_text().count("\n") >= lines:
                process.kill()
            time.sleep(0.005)
        process.communicate()
        kills += process.returncode < 0
    assert kills
    finish(start(folder, "killed"))
    assert metrics_of(folder / "killed") == whole
    tiny_run.get_config()  # knows the model
    a, b = (checkpoint.load(folder / run)[1] for run in ("whole", "killed"))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_run_that_is_asked_to_stop_saves_and_goes_on(folder, whole):
    path = folder / "asked" / "metrics.jsonl"
    process = start(folder, "asked", steps=1000)
    ask_to_stop(process, path)
    step = checkpoint.latest_step(folder / "asked")
    assert [m["step"] for m in metrics_of(folder / "asked")] == list(range(1, step + 1))
    finish(start(folder, "asked", steps=step + 1))
    known = min(step, STEPS)
    assert metrics_of(folder / "asked")[:known] == whole[:known]


def ask_to_stop(process, path):
    """SIGTERM once there are some metrics; the run has to save and say so."""
    while process.poll() is None and not (path.exists() and path.read_text().count("\n") > 1):
        time.sleep(0.01)
    process.terminate()
    _, err = process.communicate(timeout=100)
    assert process.returncode == 143, err
    assert "stopped and saved at step" in err


def test_two_processes_train_as_one_does_and_one_goes_on(folder, whole):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = [f"--coordinator=127.0.0.1:{port}", "--num_processes=2"]
    words = [[*together, f"--process_id={i}"] for i in range(2)]
    for process in [start(folder, "two", steps=3, words=w) for w in words]:
        finish(process)
    finish(start(folder, "two", steps=5))
    losses = [m["loss"] for m in metrics_of(folder / "two")]
    assert losses == pytest.approx([m["loss"] for m in whole[:5]], rel=1e-4)
