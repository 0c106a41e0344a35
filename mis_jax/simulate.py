"""Next clicks inside jit: exact distance transform, choice of the click, and the iterative loop.

Statistics after RITM's iterative training (isegm `engine/trainer.py`, `get_next_points`): the model
answers the clicks so far, and the next one falls deep inside the larger of its two errors.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Network = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def squared_distance(labels: jax.Array) -> jax.Array:
    """Exact squared Euclidean distance of each pixel to the nearest one of another label.

    Pixels outside the image count as another label. Rows are solved by running maxima; then offsets
    k = 1, 2, ... between rows are tried until k^2 reaches the largest distance left, so the cost
    follows the thickest labelled region (label 0 is not waited for: its distances are upper
    bounds).

    Args:
        labels: int32 [B, H, W].

    Returns:
        float32 [B, H, W], exact where `labels` is not 0.
    """
    _, height, width = labels.shape
    along = _row_distance(labels, width).astype(jnp.float32) ** 2
    pad = ((0, 0), (height, height), (0, 0))
    far = jnp.pad(along, pad)
    other = jnp.pad(labels, pad, constant_values=-1)  # outside: no pixel's label
    own = labels != 0

    def unfinished(state):
        k, best = state
        return k.astype(jnp.float32) ** 2 < jnp.max(jnp.where(own, best, 0.0))

    def widen(state):
        k, best = state
        for start in (height - k, height + k):
            window = lambda x: jax.lax.dynamic_slice_in_dim(x, start, height, 1)  # noqa: B023, E731
            reach = jnp.where(window(other) == labels, window(far), 0.0)
            best = jnp.minimum(best, reach + k.astype(jnp.float32) ** 2)
        return k + 1, best

    return jax.lax.while_loop(unfinished, widen, (jnp.int32(1), along))[1]


def _row_distance(labels: jax.Array, width: int) -> jax.Array:
    """int32 [B, H, W]: columns to the nearest pixel of another label in the same row."""
    column = jax.lax.broadcasted_iota(jnp.int32, labels.shape, 2)
    starts = jnp.concatenate(
        [jnp.ones_like(labels[..., :1], bool), labels[..., 1:] != labels[..., :-1]], -1
    )
    first = jax.lax.cummax(jnp.where(starts, column, 0), axis=2)
    ends = jnp.concatenate([starts[..., 1:], jnp.ones_like(starts[..., :1])], -1)
    last = jax.lax.cummin(jnp.where(ends, column, width), axis=2, reverse=True)
    return jnp.minimum(column - first, last - column) + 1


def next_click(
    key: jax.Array, prob: jax.Array, mask: jax.Array, threshold: float = 0.49
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws one corrective click per image.

    The click is uniform among the pixels of the deeper error (false negatives, or false positives,
    which win a tie) whose distance to its edge exceeds half the greatest.

    Args:
        key: random key.
        prob: float32 [B, H, W], prediction.
        mask: [B, H, W] in {0, 1}, target.
        threshold: probability above which a pixel is predicted foreground.

    Returns:
        position: int32 [B, 2], (row, column).
        positive: bool [B].
        found: bool [B], False where the prediction has no error.
    """
    target = mask > 0.5
    missed = target & (prob < threshold)
    wrong = ~target & (prob > threshold)
    distance = squared_distance(missed.astype(jnp.int32) + 2 * wrong.astype(jnp.int32))
    depth = lambda error: jnp.max(jnp.where(error, distance, 0.0), (1, 2))  # noqa: E731
    missed_depth, wrong_depth = depth(missed), depth(wrong)
    positive = missed_depth > wrong_depth
    deepest = jnp.maximum(missed_depth, wrong_depth)
    error = jnp.where(positive[:, None, None], missed, wrong)
    candidates = error & (4 * distance > deepest[:, None, None])  # distance > deepest / 2, squared
    rank = jnp.cumsum(candidates.reshape(len(prob), -1).astype(jnp.int32), -1)
    count = rank[:, -1]
    uniform = jax.random.uniform(key, count.shape)
    pick = jnp.minimum((uniform * count).astype(jnp.int32), count - 1)
    index = jnp.argmax(rank > pick[:, None], -1)
    position = jnp.stack([index // prob.shape[2], index % prob.shape[2]], -1)
    return position.astype(jnp.int32), positive, count > 0


def iterate_clicks(
    network: Network,
    image: jax.Array,
    mask: jax.Array,
    points: jax.Array,
    count: jax.Array,
    key: jax.Array,
    threshold: float = 0.49,
) -> tuple[jax.Array, jax.Array]:
    """Lets the network answer `count` times and clicks on its errors.

    Args:
        network: (image, prev, points) -> logits, without dropout; no gradient flows through it.
        image: float32 [B, H, W, 3] in [0, 1].
        mask: [B, H, W] in {0, 1}.
        points: float32 [B, 2n, 3], the first clicks; click t overwrites row n - t or 2n - t.
        count: int32 scalar, traced: the program is the same for every count.
        key: random key.
        threshold: see `next_click`.

    Returns:
        prev float32 [B, H, W]: the last prediction, made before the last click; zeros for count 0.
        points float32 [B, 2n, 3] with the new clicks, rows (row, column, t).
    """
    half = points.shape[1] // 2
    batch = jnp.arange(len(points))

    def click(i, state):
        prev, points = state
        prob = jax.lax.stop_gradient(jax.nn.sigmoid(network(image, prev, points)))
        position, positive, found = next_click(jax.random.fold_in(key, i), prob, mask, threshold)
        order = jnp.full((len(points), 1), i + 1, jnp.float32)
        row = jnp.where(positive, half, 2 * half) - (i + 1)
        new = jnp.concatenate([position.astype(jnp.float32), order], -1)
        new = jnp.where(found[:, None], new, points[batch, row])
        return prob, points.at[batch, row].set(new)

    return jax.lax.fori_loop(0, count, click, (jnp.zeros(mask.shape, jnp.float32), points))
