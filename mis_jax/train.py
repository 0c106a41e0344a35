"""BINARY: records of merge trees -> a trained click model, its checkpoints and metrics.

`mis-jax train IMAGES_OR_RECORDS --workdir RUN [--config NAME --config.field=value]`. Everything
between two batches is one compiled program: simulated clicks, augmentation, losses, update. A run
stopped at any moment goes on from its last checkpoint, with the batches it would have seen.
"""

import json
import pathlib
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import optax
from absl import flags
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp
from tqdm import tqdm

from mis_jax import (
    checkpoint,
    cli,
    color,
    features,
    losses,
    records,
    sharding,
    simpleclick,
    simulate,
    weights,
)
from mis_jax.errors import InputError
from mis_jax.input import train_stream
from mis_jax.propose import propose

State = dict  # {"step", "params", "opt_state"} and "ema" where one is kept
FREE = {  # fields that may change when a run is resumed
    "train": ("log_every", "checkpoint_every", "keep"),
    "data": ("threads", "prefetch"),
    "optim": ("steps",),
    "mesh": ("fsdp",),
}


def define_flags() -> None:
    """The flags of `mis-jax train`."""
    flags.DEFINE_string("workdir", "", "The run's folder; a run that is there is resumed.")
    flags.DEFINE_string("coordinator", "", "host:port of process 0, where no launcher says it.")
    flags.DEFINE_integer("num_processes", 1, "Processes of the run, with --coordinator.")
    flags.DEFINE_integer("process_id", 0, "Number of this process, with --coordinator.")
    cli.define_config("sbd_vitb16")


def main(argv: list[str]) -> None:
    """Trains on argv[1]: a folder of records, or images to make records of first."""
    if len(argv) != 2 or not flags.FLAGS.workdir:
        raise InputError("usage: mis-jax train IMAGES_OR_RECORDS --workdir RUN [--config NAME].")
    f = flags.FLAGS
    sharding.start(f.coordinator, f.num_processes, f.process_id)
    run = pathlib.Path(f.workdir)
    train(shards(argv[1], run, f.config), run, f.config)


def shards(source: str, run: pathlib.Path, config: ConfigDict) -> list[str]:
    """The shards of a records folder; of images, they are made first, in RUN/records."""
    if (pathlib.Path(source) / records.INDEX).exists():
        return records.shard_files(source)
    folder = run / "records"
    summary = propose(
        source,
        folder,
        extractor=features.make_extractor(**config.features),
        batch_size=config.features.batch_size,
        shard=(jax.process_index(), jax.process_count()),
        **config.propose,
    )
    if jax.process_index() == 0:
        print(summary)
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("records")
    return records.shard_files(folder)


def train(files: list[str], run: pathlib.Path, config: ConfigDict) -> State:
    """Trains to `config.optim.steps`, from the last checkpoint of `run` if there is one."""
    run.mkdir(parents=True, exist_ok=True)
    config = _agreed_config(run, config)
    mesh = sharding.make_mesh(config.mesh.fsdp)
    step_fn, init, shapes, places = make_step(config, mesh)
    stream = make_stream(files, config)
    saver = checkpoint.checkpointer(run, config.train.checkpoint_every, config.train.keep)
    with saver:
        state = _restore(saver, run, shapes, places, stream) or init()
        try:
            return _loop(state, step_fn, stream, saver, run, config, mesh)
        finally:
            stream.close()


def make_step(config: ConfigDict, mesh: Mesh) -> tuple[Callable, Callable, State, State]:
    """Compiles nothing yet: the train step, the initialiser, and shapes and shardings of the state.

    `step_fn(state, batch) -> (state, metrics)` donates `state`; `batch` is that of
    `input.train_stream`, global arrays; metrics are float32 scalars.
    """
    m = config.model
    options = {"dtype": m.dtype, "remat": m.remat, "binary_prev_mask": m.binary_prev_mask}
    build = lambda rngs: simpleclick.build(  # noqa: E731
        m.variant, m.patch, config.data.crop, rngs=rngs, **options
    )
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
    tx, schedule = optimizer(config.optim)
    seed = jax.random.key(config.seed)

    def fresh(params=None) -> State:
        if params is None:
            params = nnx.to_pure_dict(nnx.state(build(nnx.Rngs(seed)), nnx.Param))
        state = {"step": jnp.int32(0), "params": params, "opt_state": tx.init(params)}
        # A copy: two leaves of a donated state must not share a buffer.
        return {**state, "ema": jax.tree.map(jnp.copy, params)} if config.optim.ema else state

    shapes = jax.eval_shape(fresh)
    places = sharding.state_sharding(mesh, shapes)

    def init() -> State:
        state = jax.jit(fresh, out_shardings=places)()
        pretrained = initial_backbone(m, state["params"])
        if pretrained:
            state = jax.jit(fresh, out_shardings=places)(pretrained)
        return state

    def step_fn(state: State, batch: dict) -> tuple[State, dict]:
        key = jax.random.fold_in(seed, state["step"])
        forward = lambda params, *args, **kw: nnx.merge(graphdef, params)(*args, **kw)  # noqa: E731
        sample = prepare(config, key, batch, lambda *args: forward(state["params"], *args))

        def loss_fn(params):
            logits = forward(
                params, sample["image"], sample["prev"], sample["points"],
                rngs=nnx.Rngs(dropout=jax.random.fold_in(key, 3)),
            )  # fmt: skip
            return loss(config.loss, logits, batch)

        (_, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(state["params"])
        updates, opt_state = tx.update(grads, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        new = {"step": state["step"] + 1, "params": params, "opt_state": opt_state}
        if config.optim.ema:
            new["ema"] = optax.incremental_update(params, state["ema"], 1 - config.optim.ema)
        metrics |= {"grad_norm": optax.global_norm(grads), "lr": schedule(state["step"])}
        return new, metrics

    step_fn = jax.jit(step_fn, donate_argnums=0, out_shardings=(places, None))
    return step_fn, init, shapes, places


def prepare(config: ConfigDict, key: jax.Array, batch: dict, network: simulate.Network) -> dict:
    """Image, previous mask and clicks as the differentiated forward pass sees them."""
    image = batch["image"].astype(jnp.float32) / 255
    rounds = jax.random.randint(
        jax.random.fold_in(key, 0), (), 0, config.clicks.max_next + 1, jnp.int32
    )
    prev, points = simulate.iterate_clicks(
        network, image, batch["mask"], batch["points"], rounds, jax.random.fold_in(key, 1),
        config.clicks.threshold,
    )  # fmt: skip
    if config.train.color_aug:
        image = color.augment(jax.random.fold_in(key, 2), image)
    return {"image": image, "prev": prev, "points": points}


def loss(fields: ConfigDict, logits: jax.Array, batch: dict) -> tuple[jax.Array, dict]:
    """Eq. 8 on the dataset's image, and its parts; `fields` are `config.loss`."""
    target = batch["mask"].astype(jnp.float32)
    switches = dict(fields)
    weight = switches.pop("smooth_weight")
    parts = {"bce": losses.bce(logits, target)}
    total = parts["bce"]
    if weight:
        image = batch["image"].astype(jnp.float32)
        parts["smooth"] = losses.smoothness(logits, image, **switches)
        total += weight * parts["smooth"]
    found = (logits > 0) & (target > 0)
    union = jnp.maximum(jnp.sum((logits > 0) | (target > 0), (1, 2)), 1)
    iou = jnp.mean(jnp.sum(found, (1, 2)) / union)
    return total, {"loss": total, **parts, "iou": iou}


def optimizer(fields: ConfigDict) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Adam with the piecewise constant rate of `config.optim`, after a linear warm-up."""
    drops = {int(step): fields.decay for step in fields.milestones}
    constant = optax.piecewise_constant_schedule(fields.lr, drops)
    rise = lambda step: jnp.minimum((step + 1) / max(fields.warmup, 1), 1.0)  # noqa: E731
    schedule = lambda step: constant(step) * rise(step)  # noqa: E731
    adam = optax.adam(schedule, fields.b1, fields.b2, fields.eps)
    clip = [optax.clip_by_global_norm(fields.clip)] if fields.clip else []
    return optax.chain(*clip, adam), schedule


def initial_backbone(fields: ConfigDict, params: dict) -> dict | None:
    """`params` with the backbone of MAE or DINO weights, for `config.model.init`; None: random."""
    if fields.init == "random":
        return None
    known = {
        ("mae", "B"): "mae-vitb16", ("mae", "L"): "mae-vitl16", ("mae", "H"): "mae-vith14",
        ("dino", "B"): "dino-vitb16", ("dino", "S"): "dino-vits16",
    }  # fmt: skip
    if not fields.weights and (fields.init, fields.variant) not in known:
        raise InputError(
            f"config.model.init={fields.init} has no known weights for variant {fields.variant}; "
            f"give config.model.weights, or one of {', '.join(map('/'.join, known))}."
        )
    path = fields.weights or weights.download(known[fields.init, fields.variant])
    return simpleclick.with_backbone(params, weights.load_state_dict(path))


def make_stream(files: list[str], config: ConfigDict) -> Iterator[dict]:
    """This process's part of the training stream of `config.data` and `config.clicks`."""
    batch = config.optim.batch_size
    if batch % jax.device_count():
        raise InputError(
            f"config.optim.batch_size={batch} is no multiple of the {jax.device_count()} devices."
        )
    return train_stream(
        files,
        seed=config.seed,
        batch_size=batch,
        shard=(jax.process_index(), jax.process_count()),
        max_points=config.clicks.max_points,
        gamma=config.clicks.gamma,
        **config.data,
    )


def _loop(state, step_fn, stream, saver, run: pathlib.Path, config: ConfigDict, mesh) -> State:
    """Steps until done. Metrics are read one step late, so that the device never waits."""
    first, steps, batch = int(state["step"]), config.optim.steps, config.optim.batch_size
    lead = jax.process_index() == 0
    log = MetricLog(run / "metrics.jsonl", first) if lead else None
    place = sharding.batch_sharding(mesh)
    bar = tqdm(total=steps * batch, initial=first * batch, unit="img", smoothing=0.02,
               disable=not lead, mininterval=1.0)  # fmt: skip
    pending = None
    for step in range(first + 1, steps + 1):
        host = next(stream)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            state, metrics = step_fn(state, sharding.to_devices(host, place))
        if pending and lead:
            _report(log, bar, config, *pending)
        saver.save_checkpointables_async(
            step, {**state, "data": stream.get_state()}, force=step == steps
        )
        pending = step, metrics, host["index"]
        bar.update(batch)
    if pending and lead:
        _report(log, bar, config, *pending)
    bar.close()
    return state


class MetricLog:
    """Appends one JSON line a step; lines after the resumed step are taken back first."""

    def __init__(self, path: pathlib.Path, step: int):
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if _step_of(line) <= step]
        records.write_file(path, "".join(line + "\n" for line in kept))
        self._file = path.open("a", buffering=1)
        self._start = time.monotonic()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Adds a line with the seconds since this process began to train."""
        seconds = round(time.monotonic() - self._start, 3)
        self._file.write(json.dumps({"step": step, "seconds": seconds, **metrics}) + "\n")


def _step_of(line: str) -> float:
    """The step of a metrics line; a line that a kill cut short belongs to no step."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")


def _report(log: MetricLog, bar: tqdm, config: ConfigDict, step: int, metrics, index) -> None:
    values = {k: round(float(v), 7) for k, v in jax.device_get(metrics).items()}
    log.write(step, values)
    if values["loss"] != values["loss"] or values["loss"] == float("inf"):
        bar.close()
        raise InputError(
            f"the loss is {values['loss']} at step {step} (records {sorted(map(int, index))}); "
            "the last checkpoint is kept: lower config.optim.lr and train from it in a new workdir."
        )
    if step % config.train.log_every == 0:
        bar.set_postfix(step=step, loss=f"{values['loss']:.4f}", iou=f"{values['iou']:.3f}")


def _restore(saver: ocp.training.Checkpointer, run, shapes, places, stream) -> State | None:
    if saver.latest is None:
        return None
    step = saver.latest.step
    for item in shapes:
        checkpoint.check_shapes(run / "checkpoints" / str(step), item, shapes[item])
    abstract = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places
    )
    state = saver.load_checkpointables(step, {**abstract, "data": None})
    stream.set_state(state.pop("data"))
    return state


def _agreed_config(run: pathlib.Path, config: ConfigDict) -> ConfigDict:
    """Writes a new run's config; of a run that is there, only fields in FREE may differ."""
    if (run / "config.json").exists():
        old = checkpoint.read_config(run).to_dict()
        new = json.loads(json.dumps(config.to_dict()))
        for section, name, value in _differences(old, new):
            raise InputError(
                f"{run} was started with config.{section}.{name}={value!r}; give the same value "
                "to resume it, or another --workdir to start anew."
            )
    if jax.process_index() == 0:
        checkpoint.write_config(run, config)
    return config


def _differences(old: dict, new: dict) -> Iterator[tuple[str, str, object]]:
    ignored = ("features", "propose", "eval")  # of other binaries
    for section in (s for s in new if s not in ignored):
        if not isinstance(new[section], dict):
            if old.get(section) != new[section]:
                yield section, "", old.get(section)
            continue
        before = old.get(section, {})
        for name in sorted(before.keys() | new[section].keys()):
            free = name in FREE.get(section, ())
            if not free and before.get(name) != new[section].get(name):
                yield section, name, before.get(name)


if __name__ == "__main__":
    cli.run("train")
