import contextlib
import json
import os
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_run
from orbax.checkpoint import v1 as ocp

from mis_jax import config, records
from mis_jax.datasets import scenes, stamp
from mis_jax.errors import InputError
from mis_jax.models import loading
from mis_jax.training import initial, losses, sharding, train, train_step

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny_run.write_records(tmp_path_factory.mktemp("data"))


def tiny_config(**fields):
    c = tiny_run.get_config()
    c.optim.batch_size = 8  # a multiple of the virtual devices
    c.update_from_flattened_dict(fields)
    return c


def metrics_of(run):
    """Lines of metrics.jsonl without the seconds, which no two runs share."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


# ---- optimizer and loss


@pytest.mark.parametrize("warmup", [0, 1, 4])
@pytest.mark.parametrize("milestones", [(), (3,), (2, 6)])
def test_the_schedule_equals_a_naive_one(warmup, milestones):
    c = tiny_config()
    c.optim.update(lr=0.5, warmup=warmup, milestones=milestones, decay=0.1)
    _, schedule = train_step.optimizer(c.optim)
    for step in range(10):  # steps done before this one
        rate = 0.5
        for milestone in milestones:
            rate *= 0.1 if step >= milestone else 1.0
        if step < warmup:
            rate *= (step + 1) / warmup
        assert float(schedule(jnp.int32(step))) == pytest.approx(rate, rel=1e-6), step


@pytest.mark.parametrize("clip", [0.0, 1.5])
def test_the_optimizer_equals_adam_in_numpy(clip):
    c = tiny_config()
    c.optim.update(lr=0.1, warmup=2, milestones=(3,), clip=clip, b1=0.8, b2=0.95, eps=1e-3)
    tx, schedule = train_step.optimizer(c.optim)
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=5), "b": rng.normal(size=(2, 3))}
    ours = jax.tree.map(jnp.float32, params)
    state = tx.init(ours)
    mean, square = jax.tree.map(np.zeros_like, params), jax.tree.map(np.zeros_like, params)
    for step in range(5):
        grads = jax.tree.map(lambda x: rng.normal(size=x.shape), params)
        updates, state = tx.update(jax.tree.map(jnp.float32, grads), state, ours)
        ours = optax.apply_updates(ours, updates)
        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        for k, g in grads.items():
            g = g * min(1.0, clip / norm) if clip else g
            mean[k] = 0.8 * mean[k] + 0.2 * g
            square[k] = 0.95 * square[k] + 0.05 * g**2
            m, v = mean[k] / (1 - 0.8 ** (step + 1)), square[k] / (1 - 0.95 ** (step + 1))
            params[k] = params[k] - float(schedule(step)) * m / (np.sqrt(v) + 1e-3)
    for k in params:
        np.testing.assert_allclose(ours[k], params[k], atol=1e-5)


def test_the_loss_is_the_weighted_sum_of_its_parts(monkeypatch):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 4, 5)).astype(np.float32)
    batch = {
        "image": rng.integers(0, 256, (3, 4, 5, 3), np.uint8),
        "mask": rng.integers(0, 2, (3, 4, 5), np.uint8),
    }
    batch["mask"][2], logits[2] = 0, -1  # nothing there and nothing found: no overlap, no error
    seen = {}

    def smoothness(logits, image, **switches):
        seen.update(switches, image=image)
        return jnp.float32(0.25)

    monkeypatch.setattr(losses, "smoothness", smoothness)
    fields = config.default().loss
    fields.smooth_weight = 3.0
    total, metrics = train_step.loss(fields, logits, batch)
    prob = 1 / (1 + np.exp(-logits.astype(np.float64)))
    bce = -np.where(batch["mask"], np.log(prob), np.log(1 - prob)).mean()
    found, there = logits > 0, batch["mask"] > 0
    unions = (found | there).sum((1, 2))
    iou = np.mean((found & there).sum((1, 2)) / np.maximum(unions, 1))
    expected = {"loss": bce + 3 * 0.25, "bce": bce, "smooth": 0.25, "iou": iou}
    assert {k: float(v) for k, v in metrics.items()} == pytest.approx(expected, rel=1e-5)
    assert float(total) == float(metrics["loss"])
    np.testing.assert_array_equal(seen.pop("image"), batch["image"].astype(np.float32))  # 0..255
    assert seen == {k: v for k, v in fields.items() if k not in ("smooth_weight", "mask")}
    fields.smooth_weight = 0.0
    _, metrics = train_step.loss(fields, logits, batch)
    assert sorted(metrics) == ["bce", "iou", "loss"]


# ---- the compiled step


@pytest.fixture(scope="module")
def steps(files):
    """Thirty steps on one batch by one device: config, states of the first three, metrics, donated.

    Nothing may be moved between the host and the device inside a step, and all of them are one
    compiled program, whatever their number of simulated clicks.
    """
    c = tiny_config(**{"optim.batch_size": 2, "optim.lr": 3e-3, "optim.milestones": (25,)})
    c.loss.smooth_weight = 2.0
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    step_fn, init, _, _ = train_step.make_step(c, mesh)
    c.optim.batch_size = 8  # of the stream, which counts all devices
    stream = train.make_stream(files, c)
    batch = {k: v[:2] for k, v in next(stream).items()}
    stream.close()
    state = init()
    batch = sharding.to_devices(batch, sharding.batch_sharding(mesh))
    states, metrics, donated = [jax.device_get(state)], [], []
    with quick(), compilations() as compiled:
        for _ in range(30):
            before = state
            with jax.transfer_guard("disallow"):
                state, values = step_fn(state, batch)
            metrics.append({k: float(v) for k, v in values.items()})
            donated.append(all(x.is_deleted() for x in jax.tree.leaves(before)))
            states = [*states, jax.device_get(state)][:3]
    return c, states, metrics, donated, compiled


@contextlib.contextmanager
def quick():
    """Programs are compiled six times as fast."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@contextlib.contextmanager
def compilations():
    """A list that grows with each program that is compiled."""
    found = []

    def listen(event, *_, **__):
        found.extend([event] if event == COMPILED else [])

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def test_all_steps_are_one_program(steps):
    assert len(steps[4]) == 1


def test_a_batch_can_be_learnt_by_heart(steps):
    loss = [m["loss"] for m in steps[2]]
    assert np.mean(loss[-5:]) < 0.6 * np.mean(loss[:5])


def test_the_metrics_of_a_step(steps):
    c, _, metrics, *_ = steps
    for m in metrics:
        assert sorted(m) == ["bce", "grad_norm", "iou", "loss", "lr", "smooth"]
        assert m["loss"] == pytest.approx(m["bce"] + c.loss.smooth_weight * m["smooth"], rel=1e-5)
        assert 0 <= m["iou"] <= 1
        assert m["grad_norm"] > 0
    _, schedule = train_step.optimizer(c.optim)
    assert [m["lr"] for m in metrics] == pytest.approx([float(schedule(s)) for s in range(30)])


def test_the_state_is_donated_and_counts_its_steps(steps):
    _, states, _, donated, _ = steps
    assert all(donated[3:])  # the first ones are still looked at, by `states`
    assert [int(s["step"]) for s in states] == [0, 1, 2]


def test_only_a_sound_step_changes_the_state():
    old = {"step": jnp.int32(4), "w": jnp.zeros(2)}
    new = {"step": jnp.int32(5), "w": jnp.ones(2)}
    kept = train_step.kept_unless(jnp.bool_(True), new, old)
    assert int(kept["step"]) == 5
    assert kept["w"].tolist() == [1, 1]
    failed = train_step.kept_unless(jnp.bool_(False), new, old)
    assert int(failed["step"]) == -5
    assert failed["w"].tolist() == [0, 0]
    for sound in (True, False):  # it stays so
        again = train_step.kept_unless(
            jnp.bool_(sound), {**new, "step": failed["step"] + 1}, failed
        )
        assert int(again["step"]) == -5
        assert again["w"].tolist() == [0, 0]


def test_parts_of_a_batch_give_the_mean_of_its_gradients():
    batch = {"x": np.arange(24, dtype=np.float32).reshape(12, 2)}
    seen = []

    def gradients(params, key, part):
        seen.append(part["x"].shape)
        return {"w": params["w"] * part["x"].mean(0)}, {"loss": part["x"].sum() / len(part["x"])}

    params, key = {"w": jnp.float32(3)}, jax.random.key(0)
    whole = train_step.accumulated(gradients, 1, params, key, batch)
    parts = train_step.accumulated(gradients, 3, params, key, batch)
    assert seen == [(12, 2), (4, 2), (4, 2)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), parts, whole)


def test_the_running_mean_of_the_parameters(steps):
    first, second, third = steps[1]
    jax.tree.map(np.testing.assert_array_equal, first["ema"], first["params"])
    for old, new in ((first, second), (second, third)):
        mean = jax.tree.map(lambda e, p: 0.5 * e + 0.5 * p, old["ema"], new["params"])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), mean, new["ema"])


# ---- the loop, with an arithmetic step in place of the model's


def arithmetic(trouble):
    """A `make_step`: the loss depends on all samples so far; `trouble(step)` changes or raises."""

    def make_step(c, mesh):
        place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        fresh = {"step": np.int32(0), "params": {"w": np.zeros(3, np.float32)}}
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), fresh)
        places = jax.tree.map(lambda x: place, fresh)

        def step_fn(state, batch):
            w = 0.5 * np.asarray(state["params"]["w"]) + float(jnp.mean(batch["image"]))
            step = int(state["step"]) + 1
            loss = trouble(step, float(w.sum()))
            new = {"step": np.int32(step), "params": {"w": w}}
            return jax.device_put(new, places), {"loss": loss, "iou": 0.5, "grad_norm": 1.0}

        return step_fn, lambda: jax.device_put(fresh, places), shapes, places

    return make_step


@pytest.fixture
def loop(files, monkeypatch):
    """Trains by `arithmetic` steps."""

    def run(folder, trouble=lambda step, loss: loss, **fields):
        monkeypatch.setattr(train, "make_step", arithmetic(trouble))
        return train.train(files, folder, tiny_config(**fields))

    return run


def test_a_run_stopped_anywhere_goes_on_as_if_it_had_not_been(loop, tmp_path):
    loop(tmp_path / "whole")
    expected = metrics_of(tmp_path / "whole")
    assert [m["step"] for m in expected] == list(range(1, 9))
    assert len({m["loss"] for m in expected}) == 8
    for stop in (1, 2, 5, 8):

        def stopped(step, loss, stop=stop):
            if step == stop:
                raise KeyboardInterrupt
            return loss

        run = tmp_path / f"stopped{stop}"
        with pytest.raises(KeyboardInterrupt):
            loop(run, stopped)
        loop(run)
        assert metrics_of(run) == expected, stop


def test_a_finished_run_is_left_alone_and_can_be_prolonged(loop, tmp_path, capsys):
    loop(tmp_path / "whole", **{"optim.steps": 11})
    state = loop(tmp_path / "run", **{"optim.steps": 7})
    assert int(state["step"]) == 7
    before = metrics_of(tmp_path / "run")
    capsys.readouterr()
    loop(tmp_path / "run", **{"optim.steps": 7})
    assert "has been trained for 7 steps" in capsys.readouterr().out
    assert metrics_of(tmp_path / "run") == before
    fields = {"optim.steps": 11, "train.checkpoint_every": 5, "train.keep": 1, "data.threads": 0}
    loop(tmp_path / "run", **fields)
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "whole")
    assert os.listdir(tmp_path / "run" / "checkpoints") == ["11"]
    folder = (tmp_path / "run" / "checkpoints" / "11").absolute()
    assert ocp.checkpointables_metadata(folder).custom_metadata == {"init": "random"}


def test_the_progress_line_shows_the_rate_and_the_time_left(loop, tmp_path, capsys):
    loop(tmp_path / "run")
    err = capsys.readouterr().err
    assert re.search(r"64/64 \[\d\d:\d\d<00:00, +[\d.]+ images/s, .*loss=[\d.]+, step=8\]", err)


def test_a_resumed_run_keeps_its_settings(loop, tmp_path):
    loop(tmp_path, **{"optim.steps": 2})
    before = metrics_of(tmp_path)
    with pytest.raises(InputError, match=r"config\.optim\.lr=0\.001, and now it is 0\.1"):
        loop(tmp_path, **{"optim.lr": 0.1})
    assert loading.read_config(tmp_path).optim.lr == 1e-3
    assert metrics_of(tmp_path) == before


def other_records(folder, count: int = 6):
    """Records of other images, of which there may be as many."""
    scenes.write_benchmark(folder, count, size=(64, 80))
    return tiny_run.propose_images(folder / "images", folder / "records")


def train_on(files, folder, monkeypatch, **fields):
    monkeypatch.setattr(train, "make_step", arithmetic(lambda step, loss: loss))
    return train.train(files, folder, tiny_config(**fields))


def test_a_resumed_run_keeps_its_records(loop, files, tmp_path, monkeypatch):
    run = tmp_path / "run"
    loop(run, **{"optim.steps": 2})
    before, kept = metrics_of(run), (run / "records.json").read_text()
    assert json.loads(kept)["records"] == 6
    others = other_records(tmp_path / "other")
    said = (
        rf"{run} was trained on other records, 6 of .*, and now they are 6 of {tmp_path}/other/rec"
    )
    with pytest.raises(InputError, match=said + r".*config\.model\.start="):
        train_on(others, run, monkeypatch, **{"optim.steps": 4})
    assert (metrics_of(run), (run / "records.json").read_text()) == (before, kept)
    shutil.copytree(pathlib.Path(files[0]).parent, tmp_path / "moved")
    moved = records.shard_files(tmp_path / "moved")
    train_on(moved, run, monkeypatch, **{"optim.steps": 4})
    assert [m["step"] for m in metrics_of(run)] == [1, 2, 3, 4]


def test_a_run_without_a_checkpoint_may_change_its_records(loop, tmp_path, monkeypatch):
    def killed(step, loss):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop(tmp_path / "run", killed)
    others = other_records(tmp_path / "other", 3)
    train_on(others, tmp_path / "run", monkeypatch, **{"optim.steps": 1})
    assert json.loads((tmp_path / "run/records.json").read_text())["records"] == 3


def test_an_older_run_says_so_and_keeps_its_records_from_then_on(
    loop, tmp_path, capsys, monkeypatch
):
    loop(tmp_path, **{"optim.steps": 2})
    kept = (tmp_path / "records.json").read_text()
    (tmp_path / "records.json").unlink()
    capsys.readouterr()
    loop(tmp_path, **{"optim.steps": 4})
    assert "does not say which records it was trained on; from now on it does: 6 of" in (
        capsys.readouterr().out
    )
    assert (tmp_path / "records.json").read_text() == kept
    (tmp_path / "records.json").write_text("{")
    with pytest.raises(InputError, match=r"records\.json is damaged"):
        loop(tmp_path, **{"optim.steps": 5})


def test_images_that_have_changed_are_not_proposed_into_a_run_s_records(tmp_path, monkeypatch):
    """Before the first checkpoint they are; after it nothing is touched."""
    scenes.write_benchmark(tmp_path, 6, size=(64, 64))
    source, run, c = tmp_path / "images", tmp_path / "run", tiny_config()
    first = train.shards(str(source), run, c)
    scenes.write_benchmark(tmp_path / "more", 1, size=(64, 96))
    picture = next((tmp_path / "more/images").iterdir())
    shutil.copy(picture, source / "new1.png")
    files = train.shards(str(source), run, c)
    assert files[:-1] == first
    train_on(files, run, monkeypatch, **{"optim.steps": 2})
    assert train.shards(str(source), run, c) == files
    before = {path: stamp(path) for path in run.rglob("*") if path.is_file()}
    shutil.copy(picture, source / "new2.png")
    sorted(source.iterdir())[0].unlink()
    with pytest.raises(
        InputError, match=r"images has changed since .* \(1 new, 1 gone\); give "
    ) as e:
        train.shards(str(source), run, c)
    assert f"--config.model.start={run}" in str(e.value)
    assert f"give {run}/records in its place" in str(e.value)
    assert {path: stamp(path) for path in run.rglob("*") if path.is_file()} == before
    assert train.shards(str(run / "records"), run, c) == files


def test_images_are_not_read_otherwise_into_a_run_s_records(tmp_path, monkeypatch):
    """Each is told by the option that `mis-jax train` has."""
    scenes.write_benchmark(tmp_path, 6, size=(64, 64))
    source, run = str(tmp_path / "images"), tmp_path / "run"
    files = train.shards(source, run, tiny_config())
    for field in ({"images.range": (0, 4095)}, {"propose.max_side": 32}):
        with pytest.raises(InputError, match=r"was begun with other .*another --workdir"):
            train.shards(source, run, tiny_config(**field))
    train_on(files, run, monkeypatch, **{"optim.steps": 2})
    with pytest.raises(InputError, match=r"config\.images\.range=\[\].*another --workdir"):
        train.shards(source, run, tiny_config(**{"images.range": (0, 4095)}))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 2e3])
def test_a_loss_that_explodes_stops_and_keeps_the_last_checkpoint(loop, tmp_path, bad):
    with pytest.raises(InputError, match=rf"loss is {bad} at step 6 \(records \[.*lower") as error:
        loop(tmp_path, lambda step, loss: bad if step == 6 else loss)
    assert loading.latest_step(tmp_path) == 4  # and not 6
    assert metrics_of(tmp_path)[-1]["step"] == 6
    with np.load(tmp_path / "failed" / "6" / "batch_0.npz") as batch:
        assert str(sorted(batch["index"].tolist())) in str(error.value)
        assert batch["image"].shape == (8, 48, 48, 3)
    kept = ocp.load_checkpointables(
        (tmp_path / "failed" / "6" / "state").absolute(), {"params": None}
    )
    assert kept["params"]["w"].shape == (3,)


def test_batches_are_shared_among_all_devices(files, tmp_path):
    c = tiny_config(**{"optim.batch_size": 3})
    with pytest.raises(InputError, match=r"batch_size=3 is no multiple of the 8 devices"):
        train.train(files, tmp_path / "run", c)
    assert not (tmp_path / "run").exists()


def test_held_out_objects_and_when_to_click_on_them_go_together(files, tmp_path):
    for held_out, every in ((["mine=nowhere"], 0), ([], 2)):
        with pytest.raises(InputError, match=r"--held_out and config\.train\.noc_every need each"):
            train.train(files, tmp_path, tiny_config(**{"train.noc_every": every}), held_out)
    with pytest.raises(InputError, match="nowhere does not exist"):
        train.train(files, tmp_path, tiny_config(**{"train.noc_every": 2}), ["mine=nowhere"])


def test_a_backbone_without_known_weights_is_refused():
    fields = config.default().model
    assert initial.initial_backbone(fields, {}) is None
    fields.update(init="mae", variant="xTiny")
    with pytest.raises(InputError, match=r"config\.model\.init=mae .* xTiny; .*mae/B"):
        initial.initial_backbone(fields, {})
