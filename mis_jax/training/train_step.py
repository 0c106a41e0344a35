"""The train step, one compiled program: simulated clicks, augmentation, losses and update."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from mis_jax.errors import InputError
from mis_jax.models import simpleclick
from mis_jax.training import color, losses, next_clicks, sharding
from mis_jax.training.initial import initial_backbone, start_from

State = dict  # {"step", "params", "opt_state"} and "ema" where one is kept
EXPLODED = 1e3  # a loss from which no run comes back
PICTURED = 4  # samples of a picture


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
        return state_of(params, tx, config.optim)

    shapes = jax.eval_shape(fresh)
    places = sharding.state_sharding(mesh, shapes)

    def init() -> State:
        place = run_once(fresh, places)
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


def state_of(params: dict, tx: optax.GradientTransformation, fields: ConfigDict) -> State:
    """The state that training with `config.optim` begins in, with these parameters."""
    state = {"step": jnp.int32(0), "params": params, "opt_state": tx.init(params)}
    # A copy: two leaves of a donated state must not share a buffer.
    return {**state, "ema": jax.tree.map(jnp.copy, params)} if fields.ema else state


def run_once(fresh: Callable, places: State) -> Callable:
    """An initialiser, compiled without optimization on a CPU, where that is six times as fast."""
    quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(fresh, out_shardings=places, compiler_options=quick)


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
    network: next_clicks.Network,
    mesh: Mesh | None = None,
) -> dict:
    """Image, previous mask and clicks as the differentiated forward pass sees them."""
    image = batch["image"].astype(jnp.float32) / 255
    rounds = jax.random.randint(
        jax.random.fold_in(key, 0), (), 0, config.clicks.max_next + 1, jnp.int32
    )
    prev, points = next_clicks.iterate_clicks(
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


def optimizer(
    fields: ConfigDict, updates: int = 1
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Adam with the piecewise constant rate of `config.optim`, after a linear warm-up.

    `updates` of it are a step; the schedule is of updates.
    """
    drops = {int(step) * updates: fields.decay for step in fields.milestones}
    constant = optax.piecewise_constant_schedule(fields.lr, drops)
    warmup = max(fields.warmup * updates, 1)
    rise = lambda step: jnp.minimum((step + 1) / warmup, 1.0)  # noqa: E731
    schedule = lambda step: constant(step) * rise(step)  # noqa: E731
    adam = optax.adam(schedule, fields.b1, fields.b2, fields.eps)
    clip = [optax.clip_by_global_norm(fields.clip)] if fields.clip else []
    return optax.chain(*clip, adam), schedule


def make_look(config: ConfigDict, mesh: Mesh) -> Callable:
    """`look(params, step, batch)`: what the network sees and says of a few samples of a batch.

    It returns uint8 "image" [n, H, W, 3] and "mask" [n, H, W], float32 "prev" and "prob" [n, H, W]
    and "points" [n, 2k, 3], on every device.
    """
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: _model(config, nnx.Rngs(0))))

    def look(params: dict, step: int, batch: dict) -> dict:
        few = {k: v[:PICTURED] for k, v in batch.items()}
        network = lambda *args: nnx.merge(graphdef, params)(*args)  # noqa: E731
        key = jax.random.fold_in(jax.random.key(config.seed), step)
        sample = prepare(config, key, few, network)
        prob = jax.nn.sigmoid(network(sample["image"], sample["prev"], sample["points"]))
        return {**sample, "prob": prob, "image": few["image"], "mask": few["mask"]}

    return jax.jit(look, out_shardings=NamedSharding(mesh, PartitionSpec()))
