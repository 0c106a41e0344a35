"""Next clicks inside jit: distance transforms, choice of the click, and the iterative loop.

Statistics after RITM's iterative training (isegm `engine/trainer.py`, `get_next_points`): the model
answers the clicks so far, and the next one falls deep inside the larger of its two errors.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mis_jax.errors import InputError

Network = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
UNIT = 1 << 16  # OpenCV's fixed point
# Its lengths of a straight, a diagonal and a knight's step: 1, 1.4 and 2.1969.
STEPS = tuple(int(np.rint(np.float32(x) * UNIT)) for x in (1.0, 1.4, 2.1969))


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


def chamfer_distance(region: jax.Array) -> jax.Array:
    """Approximate distance of each pixel of a region to the nearest one that is not of it.

    It is that of `cv2.distanceTransform(DIST_L2, 5)`, in the integers of OpenCV's own code: the
    length of the shortest way in straight, diagonal and knight's steps. (Builds of OpenCV with
    Intel's IPP hand over to that library, whose sums are rounded floats up to 1e-4 away.)

    Args:
        region: bool [B, H, W], H and W below 2**14; pixels outside the image are not of it.

    Returns:
        float32 [B, H, W], 0 where `region` is False.
    """
    batch, height, width = region.shape
    straight, diagonal, knight = STEPS
    far = jnp.where(region, (min(height, width) // 2 + 1) * straight, 0)
    ramp = straight * jnp.arange(width, dtype=jnp.int32)

    def row(state, start):
        above, near = (jnp.pad(x, ((0, 0), (2, 2))) for x in state)  # two rows up, one row up
        best = start
        for source, step, length in (
            (above, -1, knight), (above, 1, knight), (near, -2, knight), (near, 2, knight),
            (near, -1, diagonal), (near, 1, diagonal), (near, 0, straight),
        ):  # fmt: skip
            best = jnp.minimum(best, source[:, 2 + step : 2 + step + width] + length)
        best = jnp.where(start > 0, jnp.minimum(best, ramp + straight), 0)  # from the edge
        best = jax.lax.cummin(best - ramp, axis=1) + ramp  # steps along the row
        return (state[1], best), best

    outside = jnp.zeros((2, batch, width), jnp.int32)
    rows = far.astype(jnp.int32).transpose(1, 0, 2)
    for _ in range(2):  # down and to the right, then, on the turned image, up and to the left
        rows = jax.lax.scan(row, tuple(outside), rows)[1][::-1, :, ::-1]
    return rows.transpose(1, 0, 2).astype(jnp.float32) / UNIT


def click_candidates(
    prob: jax.Array, mask: jax.Array, threshold: float, distance: str
) -> tuple[jax.Array, jax.Array]:
    """Pixels where the next click may be, bool [B, H, W], and whether it is positive, bool [B].

    They are the pixels of the deeper error (false negatives, or false positives, which win a tie)
    whose distance to its edge exceeds half the greatest. The arguments are those of `next_click`.
    """
    target = mask > 0.5
    missed = target & (prob < threshold)
    wrong = ~target & (prob > threshold)
    depths, half = _depths(missed, wrong, distance)
    missed_depth, wrong_depth = jnp.max(depths, (2, 3))
    positive = missed_depth > wrong_depth
    deepest = jnp.maximum(missed_depth, wrong_depth)[:, None, None]
    candidates = half * jnp.where(positive[:, None, None], *depths) > deepest
    return candidates, positive


def next_click(
    key: jax.Array,
    prob: jax.Array,
    mask: jax.Array,
    threshold: float = 0.49,
    distance: str = "exact",
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws one corrective click per image.

    It is uniform among the `click_candidates`.

    Args:
        key: random key.
        prob: float32 [B, H, W], prediction.
        mask: [B, H, W] in {0, 1}, target.
        threshold: probability above which a pixel is predicted foreground.
        distance: "exact", or "chamfer" as in the public code, see `chamfer_distance`.

    Returns:
        position: int32 [B, 2], (row, column).
        positive: bool [B].
        found: bool [B], False where the prediction has no error.
    """
    candidates, positive = click_candidates(prob, mask, threshold, distance)
    rank = jnp.cumsum(candidates.reshape(len(prob), -1).astype(jnp.int32), -1)
    count = rank[:, -1]
    uniform = jax.random.uniform(key, count.shape)
    pick = jnp.minimum((uniform * count).astype(jnp.int32), count - 1)
    index = jnp.argmax(rank > pick[:, None], -1)
    position = jnp.stack([index // prob.shape[2], index % prob.shape[2]], -1)
    return position.astype(jnp.int32), positive, count > 0


def _depths(missed: jax.Array, wrong: jax.Array, distance: str) -> tuple[jax.Array, int]:
    """float32 [2, B, H, W], growing with the depth in either error, and its ratio at half of it."""
    errors = jnp.stack([missed, wrong])
    if distance == "chamfer":
        return chamfer_distance(errors.reshape(-1, *missed.shape[1:])).reshape(errors.shape), 2
    if distance != "exact":
        raise InputError(f'config.clicks.distance is "{distance}"; give "exact" or "chamfer".')
    squared = squared_distance(missed.astype(jnp.int32) + 2 * wrong.astype(jnp.int32))
    return jnp.where(errors, squared, 0.0), 4


def iterate_clicks(
    network: Network,
    image: jax.Array,
    mask: jax.Array,
    points: jax.Array,
    count: jax.Array,
    key: jax.Array,
    threshold: float = 0.49,
    distance: str = "exact",
) -> tuple[jax.Array, jax.Array]:
    """Lets the network answer `count` times and clicks on its errors.

    Args:
        network: (image, prev, points) -> logits, without dropout; no gradient flows through it.
        image: float32 [B, H, W, 3] in [0, 1].
        mask: [B, H, W] in {0, 1}.
        points: float32 [B, 2n, 3], the first clicks; click t overwrites row n - t or 2n - t.
        count: int32 scalar, traced: the program is the same for every count.
        key: random key.
        threshold, distance: see `next_click`.

    Returns:
        prev float32 [B, H, W]: the last prediction, made before the last click; zeros for count 0.
        points float32 [B, 2n, 3] with the new clicks, rows (row, column, t).
    """
    half = points.shape[1] // 2
    batch = jnp.arange(len(points))

    def click(i, state):
        prev, points = state
        prob = jax.lax.stop_gradient(jax.nn.sigmoid(network(image, prev, points)))
        position, positive, found = next_click(
            jax.random.fold_in(key, i), prob, mask, threshold, distance
        )
        order = jnp.full((len(points), 1), i + 1, jnp.float32)
        row = jnp.where(positive, half, 2 * half) - (i + 1)
        new = jnp.concatenate([position.astype(jnp.float32), order], -1)
        new = jnp.where(found[:, None], new, points[batch, row])
        return prob, points.at[batch, row].set(new)

    return jax.lax.fori_loop(0, count, click, (jnp.zeros(mask.shape, jnp.float32), points))
