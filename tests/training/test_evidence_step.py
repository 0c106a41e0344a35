"""The evidence network's train step and whole runs of it: what it learns, metrics, resuming."""

import functools
import json
from unittest import mock

import jax
import numpy as np
import optax
import pytest
import small_evidence
import tiny_run

from mis_jax import config
from mis_jax.datasets import scenes
from mis_jax.errors import InputError
from mis_jax.models import loading
from mis_jax.models.export import export
from mis_jax.predictors.corrected import CorrectedPredictor
from mis_jax.predictors.network import Predictor
from mis_jax.training import (
    composite_stream,
    evidence_step,
    initial,
    made_up,
    monitor,
    sharding,
    train,
)

METRICS = ["evidence_iou", "first_evidence_iou", "first_iou", "grad_norm", "iou", "kinship"]
METRICS += ["loss", "lr"]


@pytest.fixture(scope="module", autouse=True)
def two_groups():
    with mock.patch.object(evidence_step, "GROUPS", 2):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def files(folder):
    return tiny_run.write_records(folder)


def settings(**fields):
    """Two rounds on two groups of two composites of 64 pixels."""
    c = small_evidence.settings(**{"clicks.max_next": 2, "optim.batch_size": 4, "optim.lr": 3e-3})
    c.features.update(model="embedded", stride=8)
    c.data.update(threads=1, prefetch=1)
    c.optim.update(steps=4, milestones=(), ema=0.5)
    c.train.update(log_every=1, checkpoint_every=2, made_up=0)
    c.update_from_flattened_dict(fields)
    config.check(c)
    return c


@pytest.fixture(scope="module")
def batch(files):
    stream = composite_stream.composite_stream(
        files, seed=0, images=4, size=64, shares=(0.6, 0.25, 0.15), threads=0, prefetch=0
    )
    return next(stream)


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(1, jax.devices()[:1])


@pytest.fixture(scope="module")
def made(mesh):
    return evidence_step.make_step(settings(), mesh)


@pytest.fixture(scope="module")
def steps(made, batch):
    """Twelve steps on one batch, and the states before and after them."""
    step_fn, init, _, _ = made
    state = init()
    states, metrics = [jax.device_get(state)], []
    for _ in range(12):
        state, values = step_fn(state, batch)
        states.append(jax.device_get(state))
        metrics.append({name: float(x) for name, x in values.items()})
    return states, metrics


def test_the_loss_is_the_soft_iou_and_cross_entropy_in_shares_of_the_union():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 8, 10)).astype(np.float32)
    target = rng.integers(0, 256, logits.shape).astype(np.uint8)
    target[0, 0], target[1, 2] = 0, 0
    target[1, 2, 0, 0] = 255
    share = target / 255.0
    prob = 1 / (1 + np.exp(-logits.astype(np.float64)))
    wrong = -(share * np.log(prob) + (1 - share) * np.log(1 - prob)).sum((2, 3))
    both, area = (prob * share).sum((2, 3)), share.sum((2, 3))
    union = np.maximum(prob.sum((2, 3)) + area - both, 0.01 * 80)
    wanted = np.mean(1 - both / union + evidence_step.ENTROPY * wrong / union)
    assert float(evidence_step.loss(logits, target)) == pytest.approx(wanted, rel=1e-4)


def test_kinship_is_that_of_the_patches_on_either_side_of_the_target():
    rng = np.random.default_rng(1)
    affinity = rng.normal(size=(1, 3, 2, 3)).astype(np.float32)
    target = np.zeros((1, 3, 4, 6), np.uint8)
    target[0, 0, :2, :4] = target[0, 1, 2:] = target[0, 2, :, 2:] = 255  # whole patches
    kinds = np.array([[1, -1, 1]], np.float32)
    wanted = []
    for k in (0, 2):
        inside = target[0, k, ::2, ::2] > 0
        right = 1 / (1 + np.exp(-np.where(inside, 1, -1) * affinity[0, k]))
        wanted.append(-(np.log(right[inside]).mean() + np.log(right[~inside]).mean()) / 2)
    found = evidence_step.kinship(affinity, kinds, target)
    assert float(found) == pytest.approx(np.mean(wanted), rel=1e-5)
    assert float(evidence_step.kinship(affinity, -abs(kinds), target)) == 0


def test_a_batch_can_be_learnt(steps):
    loss = [m["loss"] for m in steps[1]]
    assert np.mean(loss[-3:]) < 0.95 * loss[0]


def test_the_metrics_of_a_step(steps):
    for m in steps[1]:
        assert sorted(m) == METRICS
        assert all(0 <= m[name] <= 1 for name in METRICS if name.endswith("iou"))
        assert m["grad_norm"] > 0
        assert m["lr"] == pytest.approx(3e-3)
    first = steps[1][0]  # hardly anything is learnt yet
    assert first["first_iou"] == pytest.approx(first["first_evidence_iou"], abs=0.05)


def test_every_round_of_a_group_is_an_update_and_all_of_them_a_step(steps):
    for number, state in enumerate(steps[0]):
        assert int(state["step"]) == number
        counts = optax.tree.get_all_with_path(state["opt_state"], "count")
        assert {int(count) for _, count in counts} == {2 * 2 * number}


def test_the_running_mean_is_over_what_there_is(steps):
    first, second, *_, last = steps[0]
    jax.tree.map(np.testing.assert_array_equal, first["ema"], first["params"])
    close = functools.partial(np.testing.assert_allclose, atol=1e-6)
    jax.tree.map(close, second["ema"], second["params"])
    assert (
        max(
            jax.tree.leaves(
                jax.tree.map(lambda a, b: np.abs(a - b).max(), last["ema"], last["params"])
            )
        )
        > 0
    )


def test_the_same_state_and_batch_give_the_same_step(steps, made, batch):
    states, metrics = steps
    again, values = made[0](jax.device_put(states[5], made[3]), batch)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), states[6])
    assert {name: float(x) for name, x in values.items()} == metrics[5]


@pytest.mark.parametrize("bad", [np.nan, 1e30])
def test_a_step_that_goes_wrong_changes_nothing(made, batch, steps, bad):
    state = jax.tree.map(np.copy, steps[0][3])
    state["params"]["correct"]["bias"][:] = bad
    after, metrics = made[0](jax.device_put(state, made[3]), batch)
    assert not (np.isfinite(metrics["loss"]) and metrics["loss"] < 1e3)
    assert int(after["step"]) == -4
    jax.tree.map(np.testing.assert_array_equal, after["params"], state["params"])


def test_a_picture_shows_clicks_and_answers(mesh, batch, steps):
    look = evidence_step.make_look(settings(), mesh)
    seen = look(steps[0][-1]["params"], 3, batch)
    assert seen["image"].shape == (4, 64, 64, 3)
    for name in ("mask", "prev", "prob"):
        assert seen[name].shape == (4, 64, 64), name
    clicked = seen["points"][(seen["points"] >= 0).all(-1)]
    assert 4 <= len(clicked) <= 8
    for k in range(4):
        half = len(seen["points"][k]) // 2
        for number, (row, col, _) in enumerate(seen["points"][k]):
            if row >= 0 and number < half:  # on the object
                assert seen["mask"][k, int(row), int(col)] > 0.5
    assert monitor.picture(seen).shape == (256, 256, 3)


def test_clicks_on_held_out_objects(tmp_path):
    scenes.write_benchmark(tmp_path, 2, size=(64, 64))
    c = settings(**{"train.noc_objects": 1, "eval.max_clicks": 4})
    found = monitor.HeldOut([f"mine={tmp_path}"], c)(small_evidence.parameters())
    assert sorted(found) == ["mine noc85", "mine noc90"]
    assert 1 <= found["mine noc85"] <= found["mine noc90"] <= 4


def test_batches_that_devices_cannot_share(mesh):
    c = settings(**{"optim.batch_size": 8})
    with pytest.raises(InputError, match=r"batch_size=8 in 1 processes on 8 devices; .* of 2 obj"):
        evidence_step.make_step(c, sharding.make_mesh(1))


@pytest.mark.parametrize(
    ("start", "fields", "message"),
    [
        ("evidence", {"model.evidence": 0}, "width 4, and this config's model is SimpleClick"),
        ("evidence", {"model.evidence": 6}, "of width 4, and .* an evidence network of width 6"),
        ("simple", {}, "is SimpleClick, and this config's model is an evidence network of width 4"),
    ],
)
def test_a_model_of_another_kind_is_no_start(tmp_path, monkeypatch, start, fields, message):
    file = small_evidence.write_file(tmp_path / "evidence.safetensors")
    if start == "simple":
        found = config.default(), {}
        monkeypatch.setattr(loading, "load", lambda _: found)
    c = small_evidence.settings(**fields, **{"model.start": str(file)})
    with pytest.raises(InputError, match=message):
        initial.start_from(c.model, {})


def test_a_run_begins_from_the_parameters_of_another(tmp_path, mesh):
    file = small_evidence.write_file(tmp_path / "evidence.safetensors")
    state = evidence_step.make_step(settings(**{"model.start": str(file)}), mesh)[1]()
    jax.tree.map(np.testing.assert_array_equal, state["params"], small_evidence.parameters())


# ---- whole runs, on all virtual devices


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Runs of this module share their programs, as a run that is resumed does."""
    kept = {"jax_compilation_cache_dir": str(tmp_path_factory.mktemp("cache"))}
    kept |= {"jax_persistent_cache_min_compile_time_secs": 0}
    before = {name: getattr(jax.config, name) for name in kept}
    for name, value in kept.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def run_config():
    return settings(**{"optim.batch_size": 16})  # two objects on each of eight devices


def metrics_of(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def whole(files, folder, run_config):
    train.train(files, folder / "whole", run_config)
    return folder / "whole"


@pytest.mark.slow
def test_a_run_is_trained_and_opened(whole, files, tmp_path):
    assert [m["step"] for m in metrics_of(whole)] == [1, 2, 3, 4]
    assert sorted(metrics_of(whole)[0]) == sorted([*METRICS, "step"])
    predictor = Predictor.load(whole)
    assert isinstance(predictor, CorrectedPredictor)
    export(whole, tmp_path / "mine.safetensors")
    again = Predictor.load(tmp_path / "mine.safetensors")
    assert again.settings == predictor.settings
    with pytest.raises(InputError, match=r"the public code has no evidence network"):
        export(whole, tmp_path / "mine.pth")


@pytest.mark.slow
def test_the_end_is_compared_with_the_start(files, tmp_path, run_config, capsys, monkeypatch):
    """Also where it is all that is left to do; not twice, and not without the start."""
    run, start = tmp_path / "run", small_evidence.write_file(tmp_path / "start.safetensors")
    c = settings(**{"optim.batch_size": 16, "train.made_up": 2, "model.start": str(start)})
    given, measure = [], made_up.measure

    def spy(files, config, before, after):
        given.append(jax.device_get((before, after)))
        return measure(files, config, before, after)

    monkeypatch.setattr(made_up, "measure", spy)
    train.train(files, run, c)
    text = (run / "made_up.json").read_text()
    found = json.loads(text)
    assert (found["step"], found["n"], found["kept_out"]) == (4, 2, False)
    assert made_up.sentence(found) in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, given[0][0], small_evidence.parameters())
    jax.tree.map(np.testing.assert_array_equal, given[0][1], loading.load(run)[1])  # the mean
    train.train(files, run, c)
    assert len(given) == 1
    (run / "made_up.json").unlink()
    train.train(files, run, c)
    assert (run / "made_up.json").read_text() == text
    (run / "made_up.json").unlink()
    start.unlink()
    train.train(files, run, c)
    assert "made-up targets were not clicked on: " in capsys.readouterr().out
    assert not (run / "made_up.json").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    whole, files, tmp_path, run_config, monkeypatch
):
    report = train._report

    def killed(shown, run, state, step, *rest):
        if step == 3:
            raise KeyboardInterrupt
        report(shown, run, state, step, *rest)

    monkeypatch.setattr(train, "_report", killed)
    with pytest.raises(KeyboardInterrupt):
        train.train(files, tmp_path / "run", run_config)
    assert loading.latest_step(tmp_path / "run") == 2
    monkeypatch.setattr(train, "_report", report)
    c = settings(**{"optim.batch_size": 16, "train.picture_every": 4})
    train.train(files, tmp_path / "run", c)
    assert metrics_of(tmp_path / "run") == metrics_of(whole)
    a, b = (loading.load(run)[1] for run in (whole, tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert (tmp_path / "run/pictures/4.jpg").exists()


@pytest.mark.slow
def test_a_run_whose_loss_explodes_ends_in_a_sentence(files, tmp_path):
    c = settings(**{"optim.batch_size": 16, "optim.lr": 1e30})
    with pytest.raises(
        InputError, match=r"(loss|grad_norm) is .* at step \d \(records .* lower con"
    ):
        train.train(files, tmp_path / "run", c)
    assert len(list((tmp_path / "run" / "failed").iterdir())) == 1
