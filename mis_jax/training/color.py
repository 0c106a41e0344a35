"""Colour augmentation on the device: jitter, grey, blur (MISModel of the public code).

Each image of the batch gets its own draws; images are float32 [B, H, W, 3], RGB in [0, 1].
"""

import jax
import jax.numpy as jnp
import numpy as np

GREY = np.asarray([0.2989, 0.587, 0.114], np.float32)
JITTER, GREYED, BLURRED = 0.3, 0.2, 0.2  # probabilities
STRENGTH, HUE = 0.8, 0.2


def augment(key: jax.Array, image: jax.Array) -> jax.Array:
    """With probabilities 0.3, 0.2 and 0.2: jitters colours, removes them, blurs."""
    chosen, jittering, sigma = jax.random.split(key, 3)
    draws = jax.random.uniform(chosen, (3, len(image), 1, 1, 1))
    image = jnp.where(draws[0] <= JITTER, jitter(jittering, image), image)
    image = jnp.where(draws[1] <= GREYED, _grey(image), image)
    spread = jax.random.uniform(sigma, (len(image),), minval=1.0, maxval=2.0)
    return jnp.where(draws[2] <= BLURRED, blur(image, spread), image)


def jitter(key: jax.Array, image: jax.Array) -> jax.Array:
    """Brightness, contrast, saturation (factors 0.2 to 1.8), hue (within 0.2 turns), any order."""
    ordering, factors, turns = jax.random.split(key, 3)
    batch = len(image)
    order = jnp.argsort(jax.random.uniform(ordering, (batch, 4)), -1)
    factors = jax.random.uniform(factors, (3, batch), minval=1 - STRENGTH, maxval=1 + STRENGTH)
    turn = jax.random.uniform(turns, (batch,), minval=-HUE, maxval=HUE)
    return adjust(image, order, factors, turn)


def adjust(image: jax.Array, order: jax.Array, factors: jax.Array, turn: jax.Array) -> jax.Array:
    """Brightness (0), contrast (1), saturation (2) and hue (3), each image in its `order`.

    Args:
        image: float32 [B, H, W, 3] in [0, 1].
        order: int [B, 4], permutations of 0..3.
        factors: float32 [3, B] of the first three.
        turn: float32 [B] of the hue, 1 is a full turn.

    Returns:
        The images after the four operations of torchvision's `ColorJitter`.
    """
    each = lambda x: x[..., None, None, None]  # noqa: E731
    brightness, contrast, saturation = each(factors)
    for slot in range(4):
        grey = _grey(image)
        mean = jnp.mean(grey, (1, 2, 3), keepdims=True)
        operation = each(order[:, slot])
        image = jnp.select(
            [operation == i for i in range(4)],
            [
                _blend(image, 0.0, brightness),
                _blend(image, mean, contrast),
                _blend(image, grey, saturation),
                rotate_hue(image, each(turn)),
            ],
        )
    return image


def rotate_hue(image: jax.Array, turn: jax.Array) -> jax.Array:
    """Turns the hue of the HSV hexcone by `turn` (1 is a full turn)."""
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value, low = image.max(-1), image.min(-1)
    chroma = value - low
    scale = jnp.where(chroma > 0, chroma, 1.0)
    hue = jnp.where(
        (red >= green) & (red >= blue),
        (green - blue) / scale,
        jnp.where(green >= blue, 2 + (blue - red) / scale, 4 + (red - green) / scale),
    )
    hue = (hue / 6 + turn[..., 0]) % 1.0
    channel = (jnp.asarray([5.0, 3.0, 1.0]) + 6 * hue[..., None]) % 6
    ramp = jnp.clip(jnp.minimum(channel, 4 - channel), 0, 1)
    return value[..., None] - chroma[..., None] * ramp


def blur(image: jax.Array, sigma: jax.Array) -> jax.Array:
    """3x3 Gaussian blur, one `sigma` [B] per image, borders reflected."""
    side = jnp.exp(-0.5 / sigma**2)
    middle = (1 / (1 + 2 * side)).reshape(-1, 1, 1, 1)
    side = side.reshape(-1, 1, 1, 1) * middle
    for axis in (1, 2):
        pad = [(0, 0)] * 4
        pad[axis] = (1, 1)
        wide = jnp.pad(image, pad, mode="reflect")
        before, after = (jax.lax.slice_in_dim(wide, s, s + image.shape[axis], axis=axis)
                         for s in (0, 2))  # fmt: skip
        image = middle * image + side * (before + after)
    return image


def _grey(image: jax.Array) -> jax.Array:
    return jnp.broadcast_to((image @ GREY)[..., None], image.shape)


def _blend(image: jax.Array, other, factor: jax.Array) -> jax.Array:
    return jnp.clip(factor * image + (1 - factor) * other, 0, 1)
