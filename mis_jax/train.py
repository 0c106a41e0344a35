"""BINARY: records of merge trees -> a trained click model, its checkpoints and metrics.

`mis-jax train IMAGES_OR_RECORDS --workdir RUN [--config NAME --config.field=value]`. Everything
between two batches is one compiled program: simulated clicks, augmentation, losses, update. A run
stopped at any moment goes on from its last checkpoint, with the batches it would have seen.
"""

import contextlib
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import optax
from absl import flags
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp

from mis_jax import (
    checkpoint,
    cli,
    color,
    download,
    features,
    losses,
    monitor,
    records,
    sharding,
    signals,
    simpleclick,
    simulate,
    state_dicts,
)
from mis_jax.errors import InputError, Stopped
from mis_jax.input import train_stream
from mis_jax.propose import propose

State = dict  # {"step", "params", "opt_state"} and "ema" where one is kept
FREE = (  # fields that may change when a run is resumed
    "train.log_every", "train.checkpoint_every", "train.keep", "train.picture_every",
    "train.noc_every", "train.noc_objects", "train.tensorboard", "data.threads", "data.prefetch",
    "optim.steps", "mesh.fsdp", "features.", "propose.", "eval.",
)  # fmt: skip
EXPLODED = 1e3  # a loss from which no run comes back


def define_flags() -> None:
    """The flags of `mis-jax train`."""
    flags.DEFINE_string("workdir", "", "The run's folder; a run that is there is resumed.")
    found = "host:port of process 0, where no launcher says it, or auto."
    flags.DEFINE_string("coordinator", "", found)
    flags.DEFINE_integer("num_processes", 1, "Processes of the run, with --coordinator.")
    flags.DEFINE_list("held_out", [], "NAME=FOLDER, ...: objects whose NoC is shown on the way.")
    flags.DEFINE_integer("process_id", 0, "Number of this process, with --coordinator.")
    cli.define_config("sbd_vitb16")


def main(argv: list[str]) -> None:
    """Trains on argv[1]: a folder of records, or images to make records of first."""
    if len(argv) != 2 or not flags.FLAGS.workdir:
        raise InputError("usage: mis-jax train IMAGES_OR_RECORDS --workdir RUN [--config NAME].")
    f = flags.FLAGS
    sharding.start(f.coordinator, f.num_processes, f.process_id)
    run = pathlib.Path(f.workdir)
    if run.is_file():
        raise InputError(f"--workdir={run} is a file; give a folder, new or of a run.")
    if not jax.config.jax_compilation_cache_dir:  # a run that goes on need not compile again
        jax.config.update("jax_compilation_cache_dir", str(run.absolute() / "xla_cache"))
    train(shards(argv[1], run, f.config), run, f.config, f.held_out)


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
        multihost_utils.sync_global_devices("records")
    return records.shard_files(folder)


def train(
    files: list[str], run: pathlib.Path, config: ConfigDict, held_out: Sequence[str] = ()
) -> State:
    """Trains to `config.optim.steps`, from the last checkpoint of `run` if there is one.

    Args:
        files: shards of records.
        run: the run's folder.
        config: see mis_jax/config.py.
        held_out: NAME=FOLDER of benchmarks, clicked on every `config.train.noc_every` steps.

    Raises:
        InputError: a run that is there has another config or size, a checkpoint cannot be written
            or read, or the loss is not finite or explodes; what the run had before is kept.
        Stopped: after SIGTERM or a preemption notice; the run has saved.
    """
    checkpoint.agree(run, config, FREE)
    mesh = sharding.make_mesh(config.mesh.fsdp)
    if bool(held_out) != bool(config.train.noc_every):
        raise InputError("--held_out and config.train.noc_every need each other; give both.")
    clicked = monitor.HeldOut(held_out, config) if held_out else None
    step_fn, init, shapes, places = make_step(config, mesh)
    stream = make_stream(files, config)
    with contextlib.closing(stream), checkpoint.writing(run):
        run.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            checkpoint.write_config(run, config)
        with checkpoint.checkpointer(
            run, config.train.checkpoint_every, config.train.keep
        ) as saver:
            state = _restore(saver, run, shapes, places, stream) or init()
            return _loop(state, step_fn, stream, saver, run, config, mesh, clicked)


def make_step(config: ConfigDict, mesh: Mesh) -> tuple[Callable, Callable, State, State]:
    """Compiles nothing yet: the train step, the initialiser, and shapes and shardings of the state.

    `step_fn(state, batch) -> (state, metrics)` donates `state`; `batch` is that of
    `input.train_stream`, global arrays; metrics are float32 scalars.
    """
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: _model(config, nnx.Rngs(0))))
    tx, schedule = optimizer(config.optim)
    seed = jax.random.key(config.seed)

    def fresh(params=None) -> State:
        if params is None:
            params = nnx.to_pure_dict(nnx.state(_model(config, nnx.Rngs(seed)), nnx.Param))
        state = {"step": jnp.int32(0), "params": params, "opt_state": tx.init(params)}
        # A copy: two leaves of a donated state must not share a buffer.
        return {**state, "ema": jax.tree.map(jnp.copy, params)} if config.optim.ema else state

    shapes = jax.eval_shape(fresh)
    places = sharding.state_sharding(mesh, shapes)

    def init() -> State:
        # It runs once: without optimization it compiles six times as fast on a CPU.
        cpu = jax.default_backend() == "cpu"
        quick = {"xla_backend_optimization_level": 0} if cpu else None
        place = jax.jit(fresh, out_shardings=places, compiler_options=quick)
        state = place()
        if config.model.start:
            return place(start_from(config.model, state["params"]))
        pretrained = initial_backbone(config.model, state["params"])
        return place(pretrained) if pretrained else state

    def gradients(params, key, batch: dict) -> tuple[dict, dict]:
        forward = lambda params, *args, **kw: nnx.merge(graphdef, params)(*args, **kw)  # noqa: E731
        sample = prepare(config, key, batch, lambda *args: forward(params, *args), mesh)

        def loss_fn(params):
            logits = forward(
                params, sample["image"], sample["prev"], sample["points"],
                rngs=nnx.Rngs(dropout=jax.random.fold_in(key, 3)),
            )  # fmt: skip
            return loss(config.loss, logits, batch)

        grads, metrics = jax.grad(loss_fn, has_aux=True)(params)
        return grads, metrics

    def step_fn(state: State, batch: dict) -> tuple[State, dict]:
        key = jax.random.fold_in(seed, state["step"])
        parts = config.optim.accumulate
        grads, metrics = accumulated(gradients, parts, state["params"], key, batch)
        updates, opt_state = tx.update(grads, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        new = {"step": state["step"] + 1, "params": params, "opt_state": opt_state}
        if config.optim.ema:
            new["ema"] = optax.incremental_update(params, state["ema"], 1 - config.optim.ema)
        metrics |= {"grad_norm": optax.tree.norm(grads), "lr": schedule(state["step"])}
        sound = jnp.isfinite(metrics["grad_norm"]) & (metrics["loss"] < EXPLODED)
        return kept_unless(sound, new, state), metrics

    step_fn = jax.jit(step_fn, donate_argnums=0, out_shardings=(places, None))
    return step_fn, init, shapes, places


def _model(config: ConfigDict, rngs: nnx.Rngs) -> simpleclick.SimpleClick:
    m = config.model
    return simpleclick.build(
        m.variant, m.patch, config.data.crop, rngs=rngs, dtype=m.dtype, remat=m.remat,
        binary_prev_mask=m.binary_prev_mask,
    )  # fmt: skip


def accumulated(gradients: Callable, parts: int, params: dict, key: jax.Array, batch: dict):
    """Means of `gradients(params, key, batch)` over equal parts of a batch, one after the other.

    Each part takes some samples of every device, so that none of them has to move.
    """
    if parts == 1:
        return gradients(params, key, batch)
    split = lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)  # noqa: E731

    def add(total, numbered):
        number, part = numbered
        new = gradients(params, jax.random.fold_in(key, number), part)
        return jax.tree.map(lambda a, b: a + b / parts, total, new), None

    shapes = jax.eval_shape(gradients, params, key, jax.tree.map(lambda x: x[::parts], batch))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    numbered = jnp.arange(parts), jax.tree.map(split, batch)
    return jax.lax.scan(add, zeros, numbered)[0]


def kept_unless(sound: jax.Array, new: State, old: State) -> State:
    """`new` after a sound step; else `old`, whose step -1 - k says that it stays as it is."""
    going = old["step"] >= 0
    kept = jax.tree.map(lambda a, b: jnp.where(sound & going, a, b), new, old)
    failed = going & ~sound
    return {**kept, "step": jnp.where(failed, -1 - old["step"], kept["step"])}


def prepare(
    config: ConfigDict,
    key: jax.Array,
    batch: dict,
    network: simulate.Network,
    mesh: Mesh | None = None,
) -> dict:
    """Image, previous mask and clicks as the differentiated forward pass sees them."""
    image = batch["image"].astype(jnp.float32) / 255
    rounds = jax.random.randint(
        jax.random.fold_in(key, 0), (), 0, config.clicks.max_next + 1, jnp.int32
    )
    prev, points = simulate.iterate_clicks(
        network, image, batch["mask"], batch["points"], rounds, jax.random.fold_in(key, 1),
        config.clicks.threshold, config.clicks.distance, mesh,
    )  # fmt: skip
    if config.train.color_aug:
        image = color.augment(jax.random.fold_in(key, 2), image)
    return {"image": image, "prev": prev, "points": points}


def loss(fields: ConfigDict, logits: jax.Array, batch: dict) -> tuple[jax.Array, dict]:
    """Eq. 8 on the dataset's image, and its parts; `fields` are `config.loss`."""
    target = batch["mask"].astype(jnp.float32)
    switches = dict(fields)
    weight, kind = switches.pop("smooth_weight"), switches.pop("mask")
    if kind not in losses.MASK_LOSSES:
        raise InputError(f'config.loss.mask is "{kind}"; give {" or ".join(losses.MASK_LOSSES)}.')
    parts = {kind: losses.MASK_LOSSES[kind](logits, target)}
    total = parts[kind]
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
    path = fields.weights or download.download(known[fields.init, fields.variant])
    return simpleclick.with_backbone(params, state_dicts.load_state_dict(path))


def start_from(fields: ConfigDict, params: dict) -> dict:
    """The parameters of the run or file `config.model.start`, of the shapes of `params`."""
    config, found = checkpoint.load(fields.start)
    if config.model.init != fields.init:
        raise InputError(
            f"config.model.start={fields.start} began from {config.model.init}, and "
            f"config.model.init is {fields.init}; give --config.model.init={config.model.init}."
        )
    shapes = [jax.tree.map(lambda x: x.shape, tree) for tree in (found, params)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"config.model.start={fields.start} is a model of variant {config.model.variant} for "
            f"crops of {config.data.crop} pixels, not {fields.variant} and this config's crops; "
            "give it the same config.model and config.data.crop."
        )
    return jax.device_get(found)


def make_stream(files: list[str], config: ConfigDict) -> Iterator[dict]:
    """This process's part of the training stream of `config.data` and `config.clicks`."""
    batch = config.optim.batch_size
    if batch % (jax.device_count() * config.optim.accumulate):
        raise InputError(
            f"config.optim.batch_size={batch} is no multiple of the {jax.device_count()} devices "
            f"times config.optim.accumulate={config.optim.accumulate}."
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


def _loop(
    state, step_fn, stream, saver, run: pathlib.Path, config: ConfigDict, mesh, held_out
) -> State:
    """Steps until done. Metrics are read one step late, so that the device rarely waits."""
    first, steps, fields = int(state["step"]), config.optim.steps, config.train
    place = sharding.batch_sharding(mesh)
    look = make_look(config, mesh) if fields.picture_every else None
    pending = []
    with signals.Signals() as asked, monitor.Monitor(run, config, first) as shown:
        if first >= steps:
            shown.say(f"{run} has been trained for {first} steps; config.optim.steps is no more.")
        for step in range(first + 1, steps + 1):
            shown.before(step, asked.trace())
            host = next(stream)
            batch = sharding.to_devices(host, place)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, metrics = step_fn(state, batch)
            pending.append((step, metrics, host))
            stopping = asked.stop(step)
            # All is reported before a checkpoint: none is kept of a step that went wrong, and a
            # killed run's metrics reach as far as its checkpoint.
            saves = stopping or step == steps or step % fields.checkpoint_every == 0
            while len(pending) > (0 if saves else 1):
                _report(shown, run, state, *pending.pop(0))
            if saves:
                items = {**state, "data": stream.get_state()}
                said = checkpoint.origin(config)
                saver.save_checkpointables_async(step, items, force=True, custom_metadata=said)
            if look and step % fields.picture_every == 0:
                shown.picture(step, jax.device_get(look(state["params"], step, batch)))
            if held_out and step % fields.noc_every == 0:
                shown.noc(step, held_out(sharding.gathered(state.get("ema", state["params"]))))
            if stopping and step < steps:
                saver.wait()
                raise Stopped(f"stopped and saved at step {step} of {run}")
    return state


def _report(shown: monitor.Monitor, run: pathlib.Path, state, step, metrics, host: dict) -> None:
    """Shows the metrics of a step; one that went wrong ends the run, and leaves what it saw."""
    values = {k: round(float(v), 7) for k, v in jax.device_get(metrics).items()}
    shown.step(step, values)
    bad = [k for k in ("loss", "grad_norm") if not math.isfinite(values[k])]
    if not bad and values["loss"] < EXPLODED:
        return
    name, folder = (bad or ["loss"])[0], run / "failed" / str(step)
    checkpoint.save_failed(folder, state, host)
    raise InputError(
        f"{name} is {values[name]} at step {step} (records {sorted(map(int, host['index']))}); the "
        f"last checkpoint is kept, and the state before this step and its batch are in {folder}: "
        "train in a new --workdir with a lower config.optim.lr."
    )


def make_look(config: ConfigDict, mesh: Mesh) -> Callable:
    """`look(params, step, batch)`: what the network sees and says of a few samples of a batch.

    It returns uint8 "image" [n, H, W, 3] and "mask" [n, H, W], float32 "prev" and "prob" [n, H, W]
    and "points" [n, 2k, 3], on every device.
    """
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: _model(config, nnx.Rngs(0))))

    def look(params: dict, step: int, batch: dict) -> dict:
        few = {k: v[: monitor.PICTURED] for k, v in batch.items()}
        network = lambda *args: nnx.merge(graphdef, params)(*args)  # noqa: E731
        key = jax.random.fold_in(jax.random.key(config.seed), step)
        sample = prepare(config, key, few, network)
        prob = jax.nn.sigmoid(network(sample["image"], sample["prev"], sample["points"]))
        return {**sample, "prob": prob, "image": few["image"], "mask": few["mask"]}

    return jax.jit(look, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _restore(saver: ocp.training.Checkpointer, run, shapes, places, stream) -> State | None:
    if saver.latest is None:
        return None
    abstract = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places
    )
    state = checkpoint.restore(run, saver.latest.step, {**abstract, "data": None})
    stream.set_state(state.pop("data"))
    return state


if __name__ == "__main__":
    cli.run("train")
