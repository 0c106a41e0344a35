"""SimpleClick's feature pyramid and the head that mixes its maps, with the names of PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mis_jax.models.layers import PatchConv, gelu, torch_uniform


class SimpleFPN(nnx.Module):
    """Tokens [B, h, w, D] -> four maps at 4, 2, 1 and 1/2 times the grid (ViTDet)."""

    def __init__(self, dim: int, out: tuple[int, int, int, int], *, dtype, rngs):
        c4, c8, c32 = inner_channels(dim, out)
        up = lambda i, o: UpConv(i, o, dtype=dtype, rngs=rngs)  # noqa: E731
        conv = lambda i, o, k=1: _conv(i, o, k, dtype, rngs)  # noqa: E731
        norm = lambda c: _group_norm(c, dtype, rngs)  # noqa: E731
        self.down_4 = nnx.List(
            [up(dim, c4), norm(c4), Gelu(), up(c4, c4 // 2), norm(c4 // 2),
             conv(c4 // 2, out[0]), norm(out[0]), Gelu()]
        )  # fmt: skip
        self.down_8 = nnx.List([up(dim, c8), norm(c8), conv(c8, out[1]), norm(out[1]), Gelu()])
        self.down_16 = nnx.List([conv(dim, out[2]), norm(out[2]), Gelu()])
        self.down_32 = nnx.List(
            [conv(dim, c32, 2), norm(c32), conv(c32, out[3]), norm(out[3]), Gelu()]
        )

    def __call__(self, tokens: jax.Array) -> list[jax.Array]:
        maps = []
        for layers in (self.down_4, self.down_8, self.down_16, self.down_32):
            x = tokens
            for layer in layers:
                x = layer(x)
            maps.append(x)
        return maps


def inner_channels(dim: int, out: tuple[int, int, int, int]) -> tuple[int, int, int]:
    """Channels between the layers of the pyramid at strides p/4, p/2 and 2p."""
    return max(2 * out[0], dim // 2), max(out[1], dim // 2), max(out[3], 2 * dim)


class Head(nnx.Module):
    """Four maps -> logits [B, H/4, W/4] (for patch 16): per-map 1x1, fusion, class.

    The reference resizes each map to the finest one, concatenates, and applies the fusion's 1x1
    convolution. Bilinear resizing and a 1x1 convolution commute, so here each map meets its slice
    of the fusion kernel at its own resolution: the same sum for a third of the arithmetic.
    """

    def __init__(self, pyramid: tuple[int, ...], channels: int, *, dtype, rngs):
        init = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
        module = lambda i: ConvModule(i, channels, init, dtype=dtype, rngs=rngs)  # noqa: E731
        self.convs = nnx.List([module(c) for c in pyramid])
        self.fusion_conv = module(channels * len(pyramid))
        self.conv_seg = _conv(channels, 1, 1, dtype, rngs)
        self.dropout = nnx.Dropout(0.1, broadcast_dims=(1, 2))

    def __call__(self, maps: list[jax.Array], rngs: nnx.Rngs | None) -> jax.Array:
        fusion = self.fusion_conv.conv
        kernels = jnp.split(fusion.kernel[0, 0].astype(fusion.dtype), len(maps))
        _, height, width, _ = maps[0].shape
        x = sum(
            _resize(jax.nn.relu(module.conv(m)) @ kernel, (height, width))
            for m, module, kernel in zip(maps, self.convs, kernels, strict=True)
        )
        assert isinstance(x, jax.Array)  # there are maps: not the 0 of an empty sum
        x = jax.nn.relu(x + fusion.bias[...].astype(x.dtype))
        x = self.dropout(x, deterministic=rngs is None, rngs=rngs)
        return self.conv_seg(x)[..., 0]


class ConvModule(nnx.Module):
    """Holds a 1x1 convolution under the name `conv`, as mmcv does."""

    def __init__(self, din: int, dout: int, kernel_init, *, dtype, rngs):
        zeros = nnx.initializers.zeros_init()
        self.conv = PatchConv(
            din, dout, 1, dtype=dtype, kernel_init=kernel_init, bias_init=zeros, rngs=rngs
        )


class UpConv(nnx.Module):
    """Transposed convolution, kernel 2, stride 2: [B, h, w, I] -> [B, 2h, 2w, O].

    `kernel` is [2, 2, O, I], which is PyTorch's (I, O, 2, 2) under the permutation of all others.
    """

    def __init__(self, din: int, dout: int, *, dtype, rngs):
        init = torch_uniform(dout * 4)
        self.kernel = nnx.Param(init(rngs.params(), (2, 2, dout, din), jnp.float32))
        self.bias = nnx.Param(init(rngs.params(), (dout,), jnp.float32))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, _ = x.shape
        kernel = self.kernel[...].astype(self.dtype)
        y = jnp.einsum("bhwi,kloi->bhkwlo", x.astype(self.dtype), kernel)
        return y.reshape(b, 2 * h, 2 * w, -1) + self.bias[...].astype(self.dtype)


class Gelu(nnx.Module):
    """Exact GELU as a layer, so that the layers' indices are the reference's."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return gelu(x)


def resize_align_corners(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Bilinear resize of [B, h, w] to [B, *size] in which corner pixels keep their places."""
    if x.shape[1:] == size:
        return x
    rows, cols = (_lerp_matrix(o, n) for o, n in zip(x.shape[1:], size, strict=True))
    return jnp.einsum("Hh,bhw,Ww->bHW", rows, x, cols, precision="highest")


def _lerp_matrix(old: int, new: int) -> jax.Array:
    """[new, old] weights: output i samples input i * (old - 1) / (new - 1)."""
    source = np.arange(new, dtype=np.float32) * np.float32((old - 1) / max(new - 1, 1))
    low = np.minimum(source.astype(np.int32), max(old - 2, 0))
    matrix = np.zeros((new, old), np.float32)
    matrix[np.arange(new), low] = 1 - (source - low)
    if old > 1:
        matrix[np.arange(new), low + 1] = source - low
    return jnp.asarray(matrix)


def _resize(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), "bilinear", antialias=False)


def _conv(din: int, dout: int, size: int, dtype, rngs) -> PatchConv:
    init = torch_uniform(din * size * size)
    return PatchConv(din, dout, size, dtype=dtype, kernel_init=init, bias_init=init, rngs=rngs)


def _group_norm(channels: int, dtype, rngs) -> nnx.GroupNorm:
    return nnx.GroupNorm(
        channels, num_groups=1, epsilon=1e-5, use_fast_variance=False, dtype=dtype, rngs=rngs
    )
