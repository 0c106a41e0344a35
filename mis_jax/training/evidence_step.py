"""The train step of the evidence network: rounds of clicks on its own errors, each an update.

A step takes a few groups of images with objects to click on. In each of its rounds every object
gets one more click; the evidence of all clicks so far is the network's input, and its answer, which
the update of its group is computed from, is also the mask that the next click answers. So clicks on
the network's own errors cost no forward pass of their own.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
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
from mis_jax.training.tracks import CELL, Asked, Place, Track
from mis_jax.training.train_step import (
    EXPLODED,
    PICTURED,
    State,
    kept_unless,
    optimizer,
    run_once,
    state_of,
)

OBJECTS = 2  # of an image that are clicked on at a time
GROUPS = 4  # of images in a step, clicked on in turns: updates one after the other differ in all
ENTROPY = 0.2  # weight of the cross-entropy beside the IoU
KINSHIP = 0.3  # weight of what the image alone says
SMALLEST = 0.01  # of the image; errors count in shares of the union, but at least of this


def make_step(config: ConfigDict, mesh: Mesh) -> tuple[Callable, Callable, State, State]:
    """As `train_step.make_step`; the batch is of host arrays, `composite_stream`'s.

    `config.clicks.max_next` is the number of rounds. Metrics are means over these; of a step that
    went wrong, those of its first round that did.

    Raises:
        InputError: several processes, or a batch that the devices cannot share.
    """
    images = config.optim.batch_size // OBJECTS
    if jax.process_count() > 1 or config.optim.batch_size % (OBJECTS * mesh.size):
        raise InputError(
            f"config.optim.batch_size={config.optim.batch_size} in {jax.process_count()} processes "
            f"on {mesh.size} devices; the evidence network trains in one process, with a multiple "
            f"of {OBJECTS} objects on each device."
        )
    rounds = config.clicks.max_next
    tx, schedule = optimizer(config.optim, rounds * GROUPS)
    width, dtype = config.model.evidence, config.model.dtype
    network = correction.graph(width, dtype)

    def fresh(params=None) -> State:
        if params is None:
            model = correction.make(width, jax.random.key(config.seed), dtype)
            params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
        return state_of(params, tx, config.optim)

    shapes = jax.eval_shape(fresh)
    places = sharding.state_sharding(mesh, shapes)

    def init() -> State:
        place = run_once(fresh, places)
        state = place()
        return place(start_from(config.model, state["params"])) if config.model.start else state

    def update(state: State, picture, said, points, target, last) -> tuple[State, dict, jax.Array]:
        """A round; `last`, 1 or 0, says whether the step ends with it."""

        def loss_fn(params):
            model = nnx.merge(network, params)
            looked = model.look(picture)
            logits = model.answer(looked, said, points)
            kin = kinship(correction.affinity(looked[1], points), points[:, :, 0, 2], target)
            return loss(logits, target) + KINSHIP * kin, (logits, kin)

        (value, (logits, kin)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state["params"])
        updates, opt_state = tx.update(grads, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        new = {"step": state["step"] + last, "params": params, "opt_state": opt_state}
        if config.optim.ema:
            # At first over fewer updates than asked for, or the start would weigh for long.
            new_share = jnp.maximum(1 - config.optim.ema, 1 / (1 + state["step"]))
            new["ema"] = optax.incremental_update(params, state["ema"], new_share)
        metrics = {"loss": value, "kinship": kin, "grad_norm": optax.tree.norm(grads)}
        sound = jnp.isfinite(metrics["grad_norm"]) & (value < EXPLODED)
        return kept_unless(sound, new, state), metrics, logits > 0

    program = jax.jit(update, donate_argnums=0, out_shardings=(places, None, None))
    place = sharding.batch_sharding(mesh)
    pool = ThreadPoolExecutor(config.data.threads or 1)

    def step_fn(state: State, batch: dict) -> tuple[State, dict]:
        step = int(state["step"])
        step = step if step >= 0 else -1 - step  # after a step that went wrong, see `kept_unless`
        parts = [{k: x[n::GROUPS] for k, x in batch.items()} for n in range(GROUPS)]
        groups = [
            _set_out(part, pool, (config.seed, step, n), OBJECTS) for n, part in enumerate(parts)
        ]
        pictures = [sharding.to_devices({"picture": picture}, place) for _, picture in groups]
        seen, found = [], []
        for k, n in itertools.product(range(rounds), range(GROUPS)):
            tracks, last = groups[n][0], (k, n) == (rounds - 1, GROUPS - 1)
            asked = list(pool.map(Track.ask, tracks))
            inputs = sharding.to_devices(_stacked(asked, images), place)
            state, metrics, masks = program(state, **pictures[n], **inputs, last=int(last))
            found.append(metrics)
            masks = np.asarray(masks).reshape(len(tracks), *masks.shape[2:])  # waits for the device
            seen += [track.see(mask) for track, mask in zip(tracks, masks, strict=True)]
        counted = list(itertools.filterfalse(_is_sound, found))[:1] or found
        mean = {name: np.mean([float(m[name]) for m in counted]) for name in found[0]}
        # Of the clicks, all and those that were an object's first.
        first = [answer for answer in seen if answer.clicks == 1]
        for name, answers in (("", seen), ("first_", first)):
            mean[f"{name}iou"] = np.mean([answer.iou for answer in answers])
            mean[f"{name}evidence_iou"] = np.mean([answer.without for answer in answers])
        return state, {**mean, "lr": schedule(step * rounds * GROUPS)}

    return step_fn, init, shapes, places


def make_look(config: ConfigDict, mesh: Mesh) -> Callable:
    """As `train_step.make_look`, of one object of each of a few images.

    It gets as many clicks as in a step, each on the worst error of the parameters given, and is
    shown as its last click found it: "prev" is what the evidence alone answers to its clicks. An
    object that is done before is followed by the next, as in a step. The mesh has no part in it.
    """
    network = correction.graph(config.model.evidence, config.model.dtype)
    program = jax.jit(lambda params, *inputs: nnx.merge(network, params)(*inputs))
    pool = ThreadPoolExecutor(config.data.threads or 1)

    def look(params: dict, step: int, batch: dict) -> dict:
        few = {name: x[:PICTURED] for name, x in batch.items()}
        tracks, picture = _set_out(few, pool, (config.seed, step), 1)
        for _ in range(config.clicks.max_next):
            asked = [track.ask() for track in tracks]
            inputs = _stacked(asked, len(tracks))
            logits = program(params, picture, inputs["said"], inputs["points"])[:, 0]
            for track, mask in zip(tracks, np.asarray(logits > 0), strict=True):
                track.see(mask)
        cells = {
            "mask": inputs["target"][:, 0] / np.float32(255),
            "prev": inputs["said"][:, 0, ..., -1] > 0,
            "prob": np.asarray(jax.nn.sigmoid(logits)),
        }
        pixels = {name: x.repeat(CELL, 1).repeat(CELL, 2) for name, x in cells.items()}
        return {"image": few["image"], "points": _by_kind(inputs["points"][:, 0]), **pixels}

    return look


def loss(logits: jax.Array, target: jax.Array) -> jax.Array:
    """1 - the soft IoU, and cross-entropy in shares of the union of object and answer.

    Both count a small object's errors as a large one's, and no error for more than the other kind.
    Cross-entropy alone would leave out what is object with less than even odds, of which the first
    click leaves much.

    Args:
        logits: float32 [B, T, h, w].
        target: uint8 [B, T, h, w], 0..255, share of each cell that is object.
    """
    share = target.astype(jnp.float32) / 255
    wrong = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, share), (2, 3))
    cells, area = logits.shape[2] * logits.shape[3], jnp.sum(share, (2, 3))
    prob = jax.nn.sigmoid(logits)
    both = jnp.sum(prob * share, (2, 3))
    union = jnp.maximum(jnp.sum(prob, (2, 3)) + area - both, SMALLEST * cells)
    return jnp.mean(1 - both / union + ENTROPY * wrong / jax.lax.stop_gradient(union))


def kinship(affinity: jax.Array, kinds: jax.Array, target: jax.Array) -> jax.Array:
    """Cross-entropy of what the image alone says of the clicked thing, either side for a half.

    It teaches the network's embedding at every patch at once, where the masks' errors are few.

    Args:
        affinity: float32 [B, T, h/2, w/2], of `correction.affinity`.
        kinds: float32 [B, T], 1 where the last click is on the object; others do not count.
        target: uint8 [B, T, h, w], as of `loss`.
    """
    share = target.astype(jnp.float32) / 255
    b, t, h, w = share.shape
    share = share.reshape(b, t, h // 2, 2, w // 2, 2).mean((3, 5))
    inside = jnp.sum(share * jax.nn.softplus(-affinity), (2, 3)) / jnp.sum(share, (2, 3))
    outside = jnp.sum((1 - share) * jax.nn.softplus(affinity), (2, 3)) / jnp.sum(1 - share, (2, 3))
    counted = kinds > 0
    each = jnp.where(counted, (inside + outside) / 2, 0)
    return jnp.sum(each) / jnp.maximum(jnp.sum(counted), 1)


def _is_sound(metrics: Mapping[str, jax.Array]) -> bool:
    """Whether the update of a round was taken."""
    return bool(np.isfinite(metrics["grad_norm"]) and metrics["loss"] < EXPLODED)


def _set_out(
    batch: dict, pool: ThreadPoolExecutor, seed: tuple[int, ...], objects: int
) -> tuple[list[Track], np.ndarray]:
    """So many tracks for each image of a batch, one image after the other, and its picture.

    The targets of an image are dealt out to its tracks, so that no two click on one.

    Args:
        batch: `composite_stream`'s, or a part of it.
        pool: that looks at the images.
        seed: of the clicks, with the numbers of image and track.
        objects: tracks of an image.

    Returns:
        B * objects tracks, and float32 [B, h, w, C] of `maps.picture`.
    """
    found = list(pool.map(Place.of, batch["image"]))
    tracks = []
    for n, (place, targets) in enumerate(zip(found, batch["targets"], strict=True)):
        for k in range(objects):
            rng = np.random.default_rng([*seed, n, k])
            tracks.append(Track(place, itertools.cycle(targets[k::objects]), rng))
    return tracks, np.stack([place.picture for place in found])


def _stacked(asked: Sequence[Asked], images: int) -> dict[str, np.ndarray]:
    """Inputs of the program: [images, objects of each, ...] of each field of `Asked`."""
    rows = [one._asdict() for one in asked]
    return {
        name: np.stack([row[name] for row in rows]).reshape(images, -1, *x.shape)
        for name, x in rows[0].items()
    }


def _by_kind(points: np.ndarray) -> np.ndarray:
    """Of `maps.points` [n, N, 4] the places in pixels, as `make_look` gives them: [n, 2N, 3]."""
    places = (points[..., :3] + 0.5) * CELL
    kinds = [np.where(points[..., 2:3] == kind, places, -1) for kind in (1, -1)]
    return np.concatenate(kinds, 1)
