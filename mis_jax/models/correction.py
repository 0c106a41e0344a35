"""The evidence network: what an image and its clicks say (predictors/evidence.py) -> a correction.

A U-Net of the image alone and one of the clicks. The image's is computed once for all clicks on it;
at each of its scales it tells that of the clicks what it found, and its embedding says what else
looks like the clicked places. Evidence comes in cells of two pixels; four of them are a patch, the
finest scale, and the correction has a value for each of the four. It is added to the evidence's own
answer and is zero at the start, so that training begins with the fused predictor. Cells that are
certain by the clicks are not corrected.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

PICTURE, SAID = 22, 5  # channels of the inputs, which predictors/maps.py makes
NEARNESS, LIKENESS = 8, 3  # channels of `_nearness` and `_likeness`
DEEP = (2, 3, 4, 4)  # in halves of the width: channels of patches of 4, 8, 16 and 32 pixels
EMBEDDING = 16  # channels of what `_likeness` compares
MULTIPLE = 2 ** len(DEEP)  # of which h and w have to be multiples
BELIEF = 2.0  # log-odds of the evidence's own answer
NEAR, FAR = 3.0, 12.0  # patches over which a click's nearness falls off

Scales = list[jax.Array]


class Correction(nnx.Module):
    """Evidence -> log-odds of the object.

    Args:
        width: channels of the finest scale, even.
        dtype: in which it computes; parameters are float32.
        rngs: of the initial parameters.
    """

    def __init__(self, width: int, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs) -> None:
        widths = [width * k // 2 for k in DEEP]
        made: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        # Of four cells each, and whether they are in the image.
        self.image = UNet(4 * PICTURE + 1, widths, **made)
        self.embed = nnx.Linear(width, EMBEDDING, **made)
        self.tell = nnx.List([nnx.Linear(c, c, **made) for c in widths])
        self.clicks = UNet(4 * SAID + NEARNESS + LIKENESS + 1, widths, **made)
        zero = nnx.initializers.zeros_init()
        self.correct = nnx.Linear(width, 4, kernel_init=zero, **made)

    def __call__(
        self,
        picture: jax.Array,
        said: jax.Array,
        points: jax.Array,
        inside: jax.Array | None = None,
    ) -> jax.Array:
        """Log-odds that each cell is object, float32 [B, T, h, w].

        Args:
            picture: float32 [B, h, w, PICTURE], of B images alone; h, w multiples of MULTIPLE.
            said: float32 [B, T, h, w, SAID], of T lists of clicks on each. The last channel is the
                evidence's own answer, 1 or -1. The one before is 1 or -1 where that is certain,
                and there the answer stays; 0 elsewhere.
            points: float32 [B, T, N, 4], the clicks, the last one first: row and column in cells, 1
                object, -1 background or 0 none, and depth in cells, 0 if it is infinite.
            inside: float32 [B, h, w], 1 in the image and 0 in what pads it; None: all is image.
        """
        return self.answer(self.look(picture, inside), said, points, inside)

    def look(self, picture: jax.Array, inside: jax.Array | None = None) -> tuple[Scales, jax.Array]:
        """What clicks need of an image: its scales, and embedding [B, h/2, w/2, EMBEDDING]."""
        there = _there(picture.shape[:3], inside)
        x = jnp.concatenate([_gathered(picture), there[0]], -1) * there[0]
        scales = self.image(x, there)
        told = [tell(nnx.relu(x)) for tell, x in zip(self.tell, scales, strict=True)]
        return told, self.embed(nnx.relu(scales[0]))

    def answer(
        self,
        looked: tuple[Scales, jax.Array],
        said: jax.Array,
        points: jax.Array,
        inside: jax.Array | None = None,
    ) -> jax.Array:
        """As `__call__`, of what `look` found; that of an image serves all its lists of clicks."""
        (told, embedding), (b, t, h, w, _) = looked, said.shape
        there = [jnp.repeat(x, t, 0) for x in _there((b, h, w), inside)]
        told = [jnp.repeat(x, t, 0) for x in told]
        flat = lambda x: x.reshape(b * t, *x.shape[2:])  # noqa: E731
        points = _in_patches(points)
        near, like = _nearness(flat(points), h // 2, w // 2), flat(_likeness(embedding, points))
        x = jnp.concatenate([_gathered(flat(said)), near, like, there[0]], -1) * there[0]
        x = nnx.relu(self.clicks(x, there, told)[0])
        change = _scattered(self.correct(x).astype(jnp.float32))[..., 0]
        certain, own = said[..., -2], BELIEF * said[..., -1]
        return jnp.where(certain != 0, own, own + change.reshape(b, t, h, w))


def affinity(embedding: jax.Array, points: jax.Array) -> jax.Array:
    """Log-odds that each patch and the last clicked one are of one thing, float32 [B, T, h, w].

    As far as the image tells: `embedding` [B, h, w, EMBEDDING] is of `Correction.look`, `points`
    are as of `Correction.__call__`.
    """
    return _alike(embedding, _in_patches(points[:, :, :1]))[:, :, 0]


class UNet(nnx.Module):
    """Down to the coarsest scale and back, with what was found on the way down added."""

    def __init__(self, channels: int, widths: list[int], **made) -> None:
        pairs = list(itertools.pairwise(widths))
        self.first = nnx.Conv(channels, widths[0], (3, 3), **made)
        self.down = nnx.List([nnx.Linear(4 * a, b, **made) for a, b in pairs])
        self.going = nnx.List([Block(b, **made) for b in widths[1:]])
        self.up = nnx.List([nnx.Linear(b, a, **made) for a, b in pairs])
        self.coming = nnx.List([Block(a, **made) for a in widths[:-1]])

    def __call__(self, x: jax.Array, there: Scales, told: Scales | None = None) -> Scales:
        """[B, h, w, channels] -> [B, h / 2^k, w / 2^k, widths[k]] for each k, the finest first.

        `told` are arrays of these shapes, added on the way down; `there` is 0 outside the image.
        """
        add = lambda x, k: (x if told is None else x + told[k]) * there[k]  # noqa: E731
        scales = [add(self.first(x), 0)]
        for k, (down, going) in enumerate(zip(self.down, self.going, strict=True), start=1):
            scales.append(going(add(down(_gathered(nnx.relu(scales[-1]))), k), there[k]))
        for k in range(len(scales) - 2, -1, -1):
            found = (scales[k] + _repeated(self.up[k](nnx.relu(scales[k + 1])))) * there[k]
            scales[k] = self.coming[k](found, there[k])
        return scales


class Block(nnx.Module):
    """A residual of two convolutions, zero at the start."""

    def __init__(self, channels: int, **made) -> None:
        self.conv1 = nnx.Conv(channels, channels, (3, 3), **made)
        zero = nnx.initializers.zeros_init()
        self.conv2 = nnx.Conv(channels, channels, (3, 3), kernel_init=zero, **made)

    def __call__(self, x: jax.Array, there: jax.Array) -> jax.Array:
        return (x + self.conv2(nnx.relu(self.conv1(nnx.relu(x)) * there))) * there


def _there(shape: tuple[int, ...], inside: jax.Array | None) -> Scales:
    """1 in the image, else 0, at each scale: float32 [B, h / 2^k, w / 2^k, 1], k from 1."""
    x = (jnp.ones(shape) if inside is None else inside)[..., None]
    return [x[:, :: 2**k, :: 2**k] for k in range(1, len(DEEP) + 1)]


def _in_patches(points: jax.Array) -> jax.Array:
    """Clicks [..., 4] in cells -> in patches."""
    return points * jnp.array([0.5, 0.5, 1, 0.5])


def _gathered(x: jax.Array) -> jax.Array:
    """[B, h, w, C] -> [B, h / 2, w / 2, 4 C]: four cells become one."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c).swapaxes(2, 3)
    return x.reshape(b, h // 2, w // 2, 4 * c)


def _scattered(x: jax.Array) -> jax.Array:
    """The inverse of `_gathered`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, 2, 2, c // 4).swapaxes(2, 3)
    return x.reshape(b, 2 * h, 2 * w, c // 4)


def _repeated(x: jax.Array) -> jax.Array:
    """Every cell of [B, h, w, C] becomes four."""
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)


def _nearness(points: jax.Array, h: int, w: int) -> jax.Array:
    """How near each patch is to the clicks, float32 [B, h, w, NEARNESS]; `points` are [B, N, 4].

    To the nearest of either kind, within NEAR and FAR; to the last, signed, within NEAR and within
    its depth; whether the last is of no depth, and its depth.
    """
    rows, cols, kinds, depths = jnp.moveaxis(points, -1, 0)[..., None, None]

    def away(n):
        return (jnp.arange(h)[:, None] - rows[:, n]) ** 2 + (jnp.arange(w) - cols[:, n]) ** 2

    least = dict.fromkeys((1, -1), jnp.full((len(points), h, w), jnp.inf))
    for n in range(points.shape[1]):  # one at a time: together they would fill the memory
        of = {kind: jnp.where(kinds[:, n] == kind, away(n), jnp.inf) for kind in least}
        least = {kind: jnp.minimum(least[kind], of[kind]) for kind in least}
    near = [jnp.exp(-jnp.sqrt(x) / reach) for x in least.values() for reach in (NEAR, FAR)]
    last, kind, depth = jnp.sqrt(away(0)), kinds[:, 0], depths[:, 0]
    fading = kind * jnp.exp(-last / jnp.where(depth > 0, depth, FAR))
    flat = lambda x: jnp.broadcast_to(x, last.shape)  # noqa: E731
    more = [kind * jnp.exp(-last / NEAR), fading, flat(depth == 0), flat(jnp.log1p(depth) / 2)]
    return jnp.stack([*near, *more], -1)


def _alike(embedding: jax.Array, points: jax.Array) -> jax.Array:
    """Products of the embedding [B, h, w, C] with that at places of it: [B, T, N, h, w]."""
    b, h, w, c = embedding.shape
    row = jnp.clip(points[..., 0], 0, h - 1).astype(jnp.int32)
    col = jnp.clip(points[..., 1], 0, w - 1).astype(jnp.int32)
    clicked = embedding[jnp.arange(b)[:, None, None], row, col]  # [B, T, N, C]
    return jnp.einsum("bijc,btnc->btnij", embedding, clicked) / jnp.sqrt(c * 1.0)


def _likeness(embedding: jax.Array, points: jax.Array) -> jax.Array:
    """How much each patch's embedding is like those of the clicks, float32 [B, T, h, w, LIKENESS].

    Of the last click, signed, and the most of either kind, 0 where there is none. `embedding` is
    [B, h, w, EMBEDDING] and `points` are [B, T, N, 4].
    """
    like = _alike(embedding, points)
    kinds = points[..., 2, None, None]
    most = lambda kind: jnp.max(jnp.where(kinds == kind, like, -jnp.inf), 2)  # noqa: E731
    of = [jnp.where(jnp.isfinite(x), x, 0) for x in (most(1), most(-1))]
    return jnp.stack([kinds[:, :, 0] * like[:, :, 0], *of], -1).astype(embedding.dtype)


def make(width: int, seed: int | jax.Array = 0, dtype: str = "auto") -> Correction:
    """A new network; "auto" computes in bfloat16 on accelerators and in float32 on the CPU."""
    if dtype == "auto":
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return Correction(width, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(seed))


def graph(width: int, dtype: str = "auto") -> nnx.GraphDef:
    """A network without its parameters, for `nnx.merge`."""
    return nnx.split(nnx.eval_shape(lambda: make(width, dtype=dtype)))[0]


@functools.cache
def shapes(width: int) -> dict:
    """The parameters as `jax.ShapeDtypeStruct`."""
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: make(width)), nnx.Param))


def program(width: int, dtype: str = "auto") -> tuple[Callable, Callable]:
    """`look(params, picture, inside)` and `answer(params, looked, said, points, inside)`."""
    network = graph(width, dtype)

    def look(params, *inputs):
        return nnx.merge(network, params).look(*inputs)

    def answer(params, *inputs):
        return nnx.merge(network, params).answer(*inputs)

    return look, answer
