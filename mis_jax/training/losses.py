"""What the model minimises: binary cross entropy and bilateral smoothness (paper, Eq. 6 to 8).

Also the normalised focal loss of supervised SimpleClick, in place of the cross entropy.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Rows R, G, B -> columns Y, U, V. The public MIS code multiplies by its transpose.
RGB_TO_YUV = np.asarray(
    [[0.299, -0.147, 0.615], [0.587, -0.289, -0.515], [0.114, 0.436, -0.100]], np.float32
)


def bce(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Mean binary cross entropy (Eq. 6) of logits [B, H, W] and target [B, H, W] in {0, 1}."""
    logits = logits.astype(jnp.float32)
    return jnp.mean(jax.nn.softplus(logits) - logits * target)


def normalized_focal(
    logits: jax.Array, target: jax.Array, *, alpha: float = 0.5, gamma: float = 2.0
) -> jax.Array:
    """Normalised focal loss (Sofiiuk et al. 2019), with the parameters of SimpleClick.

    The focal weights |target - probability|^gamma of an image are divided by their mean, through
    which no gradient flows (`NormalizedFocalLossSigmoid` of isegm/model/losses.py).

    Args:
        logits: [B, H, W].
        target: [B, H, W] in {0, 1}, or -1 where a pixel is ignored.
        alpha: weight of the pixels of the object; 1 - alpha is that of the others.
        gamma: exponent of the focal weights.

    Returns:
        A float32 scalar: the mean over images of the mean over pixels that are not ignored.
    """
    tiny, axes = 1e-12, (1, 2)
    used = target != -1
    prob = jax.nn.sigmoid(logits.astype(jnp.float32))
    # Without the barrier, XLA may add `tiny` to the 1, where it is lost, and the log is of 0.
    right = jax.lax.optimization_barrier(jnp.where(used, 1 - jnp.abs(target - prob), 1.0))
    focus = (1 - right) ** gamma
    count = jnp.sum(used, axes, keepdims=True)
    scale = jax.lax.stop_gradient(count / (jnp.sum(focus, axes, keepdims=True) + tiny))
    weight = jnp.where(target > 0.5, alpha, 1 - alpha) * used
    terms = -weight * focus * scale * jnp.log(jnp.minimum(right + tiny, 1.0))
    return jnp.mean(jnp.sum(terms, axes) / (count[:, 0, 0] + tiny))


MASK_LOSSES = {"bce": bce, "nfl": normalized_focal}  # values of config.loss.mask


def smoothness(
    logits: jax.Array,
    image: jax.Array,
    *,
    smooth_on: str = "logits",
    kernel: int = 3,
    dilation: int = 2,
    square_sigma: bool = False,
    yuv: str = "official_transposed",
    reduction: str = "mean",
    sigma_xy: float = 16.0,
    sigma_luma: float = 16.0,
    sigma_chroma: float = 8.0,
) -> jax.Array:
    """Bilateral smoothness: neighbours of like colour should be predicted alike (Eq. 7).

    The defaults are those of the public code (`mis/model/losses.py`), with which the published
    numbers come; the paper's own words are `smooth_on="probs"`, `kernel=5, dilation=1`,
    `square_sigma=True`, `yuv="correct"`, `reduction="sum"`.

    Args:
        logits: float32 [B, H, W].
        image: float32 [B, H, W, 3], RGB in 0..255, as augmented for the input.
        smooth_on: "logits" or "probs", what is made smooth.
        kernel, dilation: neighbours at offsets dilation * {-(kernel//2)..kernel//2} per axis.
        square_sigma: divide by 2 sigma^2 instead of 2 sigma.
        yuv: "official_transposed" or "correct" colour matrix.
        reduction: "mean" over images, neighbours and pixels; "sum" over pixels of the mean over
            neighbours, averaged over images.
        sigma_xy, sigma_luma, sigma_chroma: extents in pixels and in levels.

    Returns:
        A float32 scalar. Maps are continued over the border by their edge values, positions too.
    """
    values = jax.nn.sigmoid(logits) if smooth_on == "probs" else logits
    matrix = RGB_TO_YUV if yuv == "correct" else RGB_TO_YUV.T
    spread = [2 * (s * s if square_sigma else s) for s in (sigma_xy, sigma_luma, sigma_chroma)]
    height, width = values.shape[1:]
    channels = [image @ matrix[:, c] for c in range(3)]  # three maps [B, H, W]
    reach = dilation * (kernel // 2)
    pad = lambda x: jnp.pad(x, ((0, 0), (reach, reach), (reach, reach)), mode="edge")  # noqa: E731
    padded = [pad(x.astype(jnp.float32)) for x in (values, *channels)]
    rows, cols = np.arange(height), np.arange(width)
    total: jax.Array | float = 0.0
    for dy in range(-reach, reach + 1, dilation):
        for dx in range(-reach, reach + 1, dilation):
            if dy == dx == 0:
                continue
            window = np.s_[:, reach + dy : reach + dy + height, reach + dx : reach + dx + width]
            other, luma, u, v = (x[window] for x in padded)
            step_y = np.clip(rows + dy, 0, height - 1) - rows
            step_x = np.clip(cols + dx, 0, width - 1) - cols
            distance = (step_y**2)[:, None] + (step_x**2)[None]
            exponent = (
                jnp.asarray(distance / spread[0], jnp.float32)
                + (luma - channels[0]) ** 2 / spread[1]
                + ((u - channels[1]) ** 2 + (v - channels[2]) ** 2) / spread[2]
            )
            total += jnp.sum(jnp.exp(-exponent) * (other - values) ** 2)
    total /= values.shape[0] * (kernel**2 - 1)
    assert isinstance(total, jax.Array)  # a kernel of 1 was divided by 0
    return total if reduction == "sum" else total / (height * width)
