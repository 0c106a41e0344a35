"""The train step of the evidence network: rounds of clicks on its own errors, each an update.

A step takes a few images with objects to click on. In each of its rounds every object gets one more
click; the evidence of all clicks so far is the network's input, and its answer, which the update is
computed from, is also the mask that the next click answers. So the clicks of use cost no forward
pass of their own.
"""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mis_jax.errors import InputError
from mis_jax.models import correction
from mis_jax.training import sharding
from mis_jax.training.initial import start_from
from mis_jax.training.tracks import Asked, Place, Track
from mis_jax.training.train_step import EXPLODED, State, kept_unless, optimizer

OBJECTS = 4  # of an image that are clicked on at a time
SMALLEST = 0.01  # of the image; errors count in shares of the object's area, but at least of this


def make_step(config: ConfigDict, mesh: Mesh) -> tuple[Callable, Callable, State, State]:
    """As `train_step.make_step`; the batch is of host arrays, `composites.stream`'s.

    `config.clicks.max_next` is the number of rounds.

    Raises:
        InputError: several processes, or a batch that the devices cannot share.
    """
    images = config.optim.batch_size // OBJECTS
    if jax.process_count() > 1 or config.optim.batch_size % (OBJECTS * jax.device_count()):
        raise InputError(
            f"config.optim.batch_size={config.optim.batch_size} in {jax.process_count()} processes "
            f"on {jax.device_count()} devices; the evidence network trains in one process, with a "
            f"multiple of {OBJECTS} objects on each device."
        )
    rounds = config.clicks.max_next
    tx, schedule = optimizer(config.optim, rounds)
    width, dtype = config.model.evidence, config.model.dtype
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: correction.make(width, dtype=dtype)))

    def fresh(params=None) -> State:
        if params is None:
            model = correction.make(width, jax.random.key(config.seed), dtype)
            params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
        state = {"step": jnp.int32(0), "params": params, "opt_state": tx.init(params)}
        return {**state, "ema": jax.tree.map(jnp.copy, params)} if config.optim.ema else state

    shapes = jax.eval_shape(fresh)
    places = sharding.state_sharding(mesh, shapes)

    def init() -> State:
        place = jax.jit(fresh, out_shardings=places)
        state = place()
        return place(start_from(config.model, state["params"])) if config.model.start else state

    def update(state: State, picture, said, points, target, last) -> tuple[State, dict, jax.Array]:
        def loss_fn(params):
            logits = nnx.merge(graphdef, params)(picture, said, points)
            return loss(logits, target), logits

        (value, logits), grads = jax.value_and_grad(loss_fn, has_aux=True)(state["params"])
        updates, opt_state = tx.update(grads, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        new = {"step": state["step"] + last, "params": params, "opt_state": opt_state}
        if config.optim.ema:
            # A mean over what there is by now, until that is as long as asked for.
            new_share = jnp.maximum(1 - config.optim.ema, 1 / (1 + state["step"]))
            new["ema"] = optax.incremental_update(params, state["ema"], new_share)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads)}
        sound = jnp.isfinite(metrics["grad_norm"]) & (value < EXPLODED)
        return kept_unless(sound, new, state), metrics, logits > 0

    program = jax.jit(update, donate_argnums=0, out_shardings=(places, None, None))
    place = sharding.batch_sharding(mesh)
    pool = ThreadPoolExecutor(config.data.threads or 1)

    def step_fn(state: State, batch: dict) -> tuple[State, dict]:
        step = int(state["step"])
        tracks, picture = _set_out(batch, pool, (config.seed, step))
        pictures = sharding.to_devices({"picture": picture}, place)
        seen, found = [], []
        for k in range(rounds):
            asked = list(pool.map(Track.ask, tracks))
            inputs = sharding.to_devices(_stacked(asked, images), place)
            state, metrics, masks = program(state, **pictures, **inputs, last=int(k == rounds - 1))
            found.append(metrics)
            masks = np.asarray(masks).reshape(len(tracks), *masks.shape[2:])
            seen += [track.see(mask) for track, mask in zip(tracks, masks, strict=True)]
        mean = {name: np.mean([float(m[name]) for m in found]) for name in found[0]}
        first = [answer for answer in seen if answer.clicks == 1]
        for name, answers in (("", seen), ("first_", first)):
            mean[f"{name}iou"] = np.mean([answer.iou for answer in answers])
            mean[f"{name}evidence_iou"] = np.mean([answer.without for answer in answers])
        return state, {**mean, "lr": schedule(step * rounds)}

    return step_fn, init, shapes, places


def loss(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Cross-entropy in shares of the object: a small one's errors count as a large one's.

    Args:
        logits: float32 [B, T, h, w].
        target: uint8 [B, T, h, w], 0..255, share of each cell that is object.
    """
    share = target.astype(jnp.float32) / 255
    wrong = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, share), (2, 3))
    cells = logits.shape[2] * logits.shape[3]
    return jnp.mean(wrong / jnp.maximum(jnp.sum(share, (2, 3)), SMALLEST * cells))


def _set_out(
    batch: dict, pool: ThreadPoolExecutor, seed: tuple[int, int]
) -> tuple[list[Track], np.ndarray]:
    """OBJECTS tracks for each image of a batch, and the pictures [B, h, w, C]."""
    found = list(pool.map(Place.of, batch["image"]))
    tracks = []
    for n, (place, targets) in enumerate(zip(found, batch["targets"], strict=True)):
        for k in range(OBJECTS):
            rng = np.random.default_rng([*seed, n, k])
            tracks.append(Track(place, itertools.cycle(targets[k::OBJECTS]), rng))
    return tracks, np.stack([place.picture for place in found])


def _stacked(asked: Sequence[Asked], images: int) -> dict[str, np.ndarray]:
    """Inputs of the program: [images, OBJECTS, ...] of each field."""
    arrays = zip(Asked._fields, zip(*asked, strict=True), strict=True)
    return {k: np.stack(x).reshape(images, OBJECTS, *x[0].shape) for k, x in arrays}
