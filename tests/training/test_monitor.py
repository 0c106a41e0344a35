"""What a run shows: metrics, pictures, operations counted, clicks on held-out objects."""

import json

import jax
import numpy as np
import pytest
import tiny_run
from flax import nnx

from mis_jax.datasets import scenes
from mis_jax.models import simpleclick
from mis_jax.training import monitor


def test_metrics_after_the_resumed_step_are_taken_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = monitor.MetricLog(path, 0)
    for step in (1, 2, 3):
        log.write(step, {"loss": step / 2})
    with path.open("a") as file:
        file.write('{"step": 4, "lo')  # a kill cut it short
    monitor.MetricLog(path, 2).write(3, {"loss": 9.0})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(x["step"], x["loss"]) for x in lines] == [(1, 0.5), (2, 1.0), (3, 9.0)]
    assert all(x["seconds"] >= 0 for x in lines)


@pytest.mark.parametrize(("variant", "size"), [("B", 448), ("xTiny", 448), ("Nano", 96)])
def test_operations_are_those_that_xla_counts(variant, size):
    """XLA also counts additions and the like, which weigh more in a small model."""
    counted = simpleclick.flops(variant, 0, size)
    build = lambda: simpleclick.build(variant, 0, size, rngs=nnx.Rngs(0))  # noqa: E731
    graphdef, _ = nnx.split(nnx.eval_shape(build))
    inputs = [(1, size, size, 3), (1, size, size), (1, 48, 3)]
    run = jax.jit(lambda params, *args: nnx.merge(graphdef, params)(*args))
    lowered = run.lower(
        simpleclick.shapes(variant, 0, size), *(jax.ShapeDtypeStruct(x, "f4") for x in inputs)
    )
    assert 0.8 < counted / lowered.cost_analysis()["flops"] < 1


def test_a_step_is_three_passes_and_one_and_a_half_of_clicks():
    c = tiny_run.get_config()
    assert monitor.train_flops(c) == 4.5 * simpleclick.flops("Test", 0, c.data.crop)


def test_the_progress_line_counts_images_or_clicks(tmp_path, capsys):
    for width, wanted in ((0, "| 2/6 ["), (4, "| 40/120 [")):
        c = tiny_run.get_config()
        c.model.evidence, c.optim.steps, c.clicks.max_next = width, 3, 5
        with monitor.Monitor(tmp_path, c, 0) as shown:
            shown.step(1, {"loss": 1.0, "iou": 0.5})
        last = capsys.readouterr().err.split("\r")[-1]
        assert wanted in last
        assert (" clicks/s" if width else " images/s") in last
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line).keys() == {"step", "seconds", "loss", "iou"}


def test_a_picture_shows_clicks_and_maps():
    seen = {
        "image": np.full((2, 20, 30, 3), 100, np.uint8),
        "mask": np.zeros((2, 20, 30), np.uint8),
        "prev": np.zeros((2, 20, 30), np.float32),
        "prob": np.ones((2, 20, 30), np.float32),
        "points": np.full((2, 4, 3), -1, np.float32),
    }
    seen["image"].flags.writeable = False  # as what comes from a device
    seen["points"][0, 0], seen["points"][1, 3] = (10, 15, 0), (5, 5, 1)
    drawn = monitor.picture(seen)
    assert drawn.shape == (40, 120, 3)
    assert drawn[10, 15].tolist() == [0, 200, 0]  # a positive click on the first sample
    assert drawn[25, 5].tolist() == [220, 0, 0]
    assert (drawn[0, 0] == 100).all()
    assert not drawn[:, 30:90].any()
    assert (drawn[:, 90:] == 255).all()


def test_clicks_on_held_out_objects(tmp_path):
    scenes.write_benchmark(tmp_path, 3, size=(64, 64))
    c = tiny_run.get_config()
    c.train.noc_objects = 2
    held_out = monitor.HeldOut([f"mine={tmp_path}"], c)
    build = lambda: simpleclick.build("Test", 0, 48, rngs=nnx.Rngs(0))  # noqa: E731
    params = jax.jit(lambda: nnx.to_pure_dict(nnx.state(build(), nnx.Param)))()
    found = held_out(params)
    assert sorted(found) == ["mine noc85", "mine noc90"]
    assert 1 <= found["mine noc85"] <= found["mine noc90"] <= c.eval.max_clicks
