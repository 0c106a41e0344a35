"""PyTorch's resize and sigmoid on the CPU in its own float32, so that masks agree to the bit."""

import math

import numpy as np
from numba import njit, types
from numba.extending import intrinsic


def resize_align_corners(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize of float32 [h, w] or [h, w, C] that keeps the corner pixels' centres.

    The arithmetic of PyTorch's CPU kernel (mode='bilinear', align_corners=True), bit for bit on
    processors with AVX2: float32 positions, columns before rows, fused multiply-add. Only where
    height + width is at most 128, PyTorch takes another kernel, whose last bits are different.
    """
    if x.shape[:2] == (height, width):
        return x
    channels = math.prod(x.shape[2:])  # as columns of their own
    rows = np.ascontiguousarray(x).reshape(len(x), -1)  # one compiled version
    left, right, along = _taps(x.shape[1], width)
    spread = lambda k: (k[:, None] * channels + np.arange(channels)).ravel()  # noqa: E731
    columns = spread(left), spread(right), along.repeat(channels)
    return _resize(rows, *_taps(len(x), height), *columns).reshape(height, width, *x.shape[2:])


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) of float32 [H, W], within 0.51 units in the last place."""
    return _sigmoid(np.ascontiguousarray(x).ravel()).reshape(x.shape)


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _sigmoid(x):
    out = np.empty_like(x)
    for k in range(x.size):
        t: float = np.float64(x[k])
        t = 104.0 if t > 104.0 else t  # beyond, float32 has nothing but 0 and 1
        t = -104.0 if t < -104.0 else t
        t *= -1 / 256
        e = 1 / 720 + t * (1 / 5040 + t * (1 / 40320 + t / 362880))  # exp(t), by Taylor
        e = 1 / 6 + t * (1 / 24 + t * (1 / 120 + t * e))
        e = 1 + t * (1 + t * (1 / 2 + t * e))
        for _ in range(8):
            e *= e
        out[k] = 1 / (1 + e)
    return out


@intrinsic
def _fma(context, a, b, c):
    """a * b + c, rounded once: float32."""
    signature = types.float32(types.float32, types.float32, types.float32)
    return signature, lambda context, builder, signature, args: builder.fma(*args)


@njit(nogil=True, cache=True)
def _resize(x, above, below, down, left, right, along):
    one = np.float32(1)
    wide = np.empty((x.shape[0], left.size), np.float32)
    for row in range(x.shape[0]):
        for k in range(left.size):
            t = along[k]
            wide[row, k] = _fma(x[row, left[k]], one - t, x[row, right[k]] * t)
    out = np.empty((above.size, left.size), np.float32)
    for k in range(above.size):
        t = down[k]
        first, second = wide[above[k]], wide[below[k]]
        for col in range(left.size):
            out[k, col] = _fma(first[col], one - t, second[col] * t)
    return out


def _taps(n: int, out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two source positions of each of `out` samples of an axis, and the second one's weight."""
    at = np.float32(n - 1) / np.float32(max(out - 1, 1)) * np.arange(out, dtype=np.float32)
    first = np.minimum(at.astype(np.int64), n - 1)
    return first, np.minimum(first + 1, n - 1), at - first.astype(np.float32)
