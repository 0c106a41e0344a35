"""Click maps: a disk around each click, as the public code draws it."""

import jax
import jax.numpy as jnp
import numpy as np

CLICK_RADIUS = 5  # pixels


@jax.named_scope("click_maps")
def click_maps(points: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Disks of radius 5 around the clicks: [B, 2n, 3] -> float32 [B, H, W, 2], positive first.

    A row is no click when both its coordinates are negative; clicks may be fractional or lie
    outside the image (isegm `DistMaps`, `use_disks`). Points [B, 2n, 5] are `with_remainders`.
    """
    b, rows = points.shape[:2]
    row = jnp.arange(size[0], dtype=jnp.float32) - points[:, :, :1]  # [B, 2n, H]
    col = jnp.arange(size[1], dtype=jnp.float32) - points[:, :, 1:2]
    if points.shape[2] == 5:
        row, col = row - points[:, :, 3:4], col - points[:, :, 4:]
    valid = jnp.max(points[:, :, :2], -1) >= 0
    row2 = jnp.where(valid[:, :, None], row**2, jnp.inf).reshape(b, 2, rows // 2, size[0])
    col2 = (col**2).reshape(b, 2, rows // 2, size[1])

    def nearest(i, best):
        return jnp.minimum(best, row2[:, :, i, :, None] + col2[:, :, i, None, :])

    best = jnp.full((b, 2, *size), jnp.inf, jnp.float32)
    best = jax.lax.fori_loop(0, rows // 2, nearest, best)
    return jnp.moveaxis(best <= CLICK_RADIUS**2, 1, -1).astype(jnp.float32)


def with_remainders(points: np.ndarray) -> np.ndarray:
    """Points [..., 3] -> float32 [..., 5]: what float32 takes off the coordinates, appended.

    The public predictor subtracts clicks of float64 from the pixels' places, and only then rounds.
    """
    points = np.asarray(points)
    rounded = points.astype(np.float32)
    return np.concatenate([rounded, (points - rounded)[..., :2].astype(np.float32)], -1)
