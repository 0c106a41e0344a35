"""Next clicks inside jit: distance transforms, choice of the click, and the iterative loop.

Statistics after RITM's iterative training (isegm `engine/trainer.py`, `get_next_points`): the model
answers the clicks so far, and the next one falls deep inside the larger of its two errors.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mis_jax.errors import InputError
from mis_jax.training import sharding

Network = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
ROWS = 16  # rows above and below that a pass of the distance transform tries
LABEL_BITS = 24  # where the label begins in a word of the distance transform
UNIT = 1 << 16  # OpenCV's fixed point
# Its lengths of a straight, a diagonal and a knight's step: 1, 1.4 and 2.1969.
STEPS = tuple(int(np.rint(np.float32(x) * UNIT)) for x in (1.0, 1.4, 2.1969))


@jax.named_scope("distance_transform")
def squared_distance(labels: jax.Array) -> jax.Array:
    """Exact squared Euclidean distance of each pixel to the nearest one of another label.

    Pixels outside the image count as another label. Rows are solved by running maxima; then rows
    1, 2, ... above and below are tried, `ROWS` of them in one pass over memory, until the square of
    their distance reaches the largest one left, so the cost follows the thickest labelled region
    (label 0 is not waited for: its distances are upper bounds).

    Args:
        labels: int32 [B, H, W], 0 to 126; W below 8190.

    Returns:
        int32 [B, H, W], exact where `labels` is not 0.
    """
    _, height, width = labels.shape
    along = _row_distance(labels, width) ** 2
    own = labels << LABEL_BITS
    reach = (height + 1) // 2 + ROWS
    # A label and its distance in one word; what is outside has a label of its own.
    words = jnp.pad(
        own | along, ((0, 0), (reach, reach), (0, 0)), constant_values=127 << LABEL_BITS
    )

    def unfinished(state):
        k, best = state
        return k**2 < jnp.max(jnp.where(labels != 0, best, 0))

    def widen(state):
        k, best = state
        for away in [k + i for i in range(ROWS)]:
            for start in (reach - away, reach + away):
                word = jax.lax.dynamic_slice_in_dim(words, start, height, 1) ^ own
                far = jnp.where(word < 1 << LABEL_BITS, word, 0)  # 0: another label
                best = jnp.minimum(best, far + away**2)
        return k + ROWS, best

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


@jax.named_scope("distance_transform")
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
    _, height, width = region.shape
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

    rows = far.astype(jnp.int32).transpose(1, 0, 2)
    outside = jnp.zeros_like(rows[0])
    for _ in range(2):  # down and to the right, then, on the turned image, up and to the left
        rows = jax.lax.scan(row, (outside, outside), rows)[1][::-1, :, ::-1]
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
    depth_of_missed, depth_of_wrong = depths
    depth = jnp.where(positive[:, None, None], depth_of_missed, depth_of_wrong)
    candidates = half * depth > deepest
    return candidates, positive


def next_click(
    draw: jax.Array,
    prob: jax.Array,
    mask: jax.Array,
    threshold: float = 0.49,
    distance: str = "exact",
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One corrective click per image, by a draw, uniform among the `click_candidates`.

    Args:
        draw: float32 [B] in [0, 1).
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
    pick = jnp.minimum((draw * count).astype(jnp.int32), count - 1)
    index = jnp.argmax(rank > pick[:, None], -1)
    position = jnp.stack([index // prob.shape[2], index % prob.shape[2]], -1)
    return position.astype(jnp.int32), positive, count > 0


def _depths(missed: jax.Array, wrong: jax.Array, distance: str) -> tuple[jax.Array, int]:
    """[2, B, H, W], growing with the depth in either error, and its ratio at half of it."""
    errors = jnp.stack([missed, wrong])
    if distance == "chamfer":
        return chamfer_distance(errors.reshape(-1, *missed.shape[1:])).reshape(errors.shape), 2
    if distance != "exact":
        raise InputError(f'config.clicks.distance is "{distance}"; give "exact" or "chamfer".')
    squared = squared_distance(missed.astype(jnp.int32) + 2 * wrong.astype(jnp.int32))
    return jnp.where(errors, squared, 0), 4


@jax.named_scope("simulated_clicks")
def iterate_clicks(
    network: Network,
    image: jax.Array,
    mask: jax.Array,
    points: jax.Array,
    count: jax.Array,
    key: jax.Array,
    threshold: float = 0.49,
    distance: str = "exact",
    mesh: Mesh | None = None,
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
        mesh: devices that share the samples; each chooses the clicks of its own, without waiting
            for the distance transforms of the others.

    Returns:
        prev float32 [B, H, W]: the last prediction, made before the last click; zeros for count 0.
        points float32 [B, 2n, 3] with the new clicks, rows (row, column, t).
    """
    half = points.shape[1] // 2

    def correct(draw, prob, mask, points, number):
        position, positive, found = next_click(draw, prob, mask, threshold, distance)
        new = jnp.concatenate([position, number[:, None]], -1).astype(jnp.float32)
        batch, row = jnp.arange(len(points)), jnp.where(positive, half, 2 * half) - number
        new = jnp.where(found[:, None], new, points[batch, row])
        return points.at[batch, row].set(new)

    correct = sharding.each_on_its_own(correct, mesh)

    def click(i, state):
        prev, points = state
        prob = jax.lax.stop_gradient(jax.nn.sigmoid(network(image, prev, points)))
        draw = jax.random.uniform(jax.random.fold_in(key, i), mask.shape[:1])
        number = jnp.full(mask.shape[:1], i + 1)
        return prob, correct(draw, prob, mask, points, number)

    return jax.lax.fori_loop(0, count, click, (jnp.zeros(mask.shape, jnp.float32), points))
