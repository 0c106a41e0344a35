"""Layers that the ViT and SimpleClick are made of, with the attribute names of PyTorch's."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

QUERY_CHUNK = 600  # queries at once on the CPU: keeps the scores of long sequences in the cache
CUDNN_CAPABILITIES = ("8.0", "8.6", "8.9", "9.0", "10.0")  # NVIDIA GPUs with fused attention


def attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Softmax attention; [B, N, H, D] each, `mask` bool [B, N] of the keys that count.

    It is cuDNN's fused attention where `fits_cudnn` and nothing is masked, else that of XLA. On the
    CPU, `jax.nn.dot_product_attention` is about twice as slow as dividing after the second product,
    in chunks of queries where there are many.
    """
    if jax.default_backend() != "cpu":
        if mask is None and fits_cudnn(jax.devices()[0], q.dtype, q.shape[-1]):
            return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
        keys = None if mask is None else mask[:, None, None, :]
        return jax.nn.dot_product_attention(q, k, v, mask=keys)
    q, k, v = (jnp.moveaxis(x, 2, 1) for x in (q, k, v))  # [B, H, N, D]
    bias = 0.0 if mask is None else jnp.where(mask, 0.0, -1e30)[:, None, None, :].astype(q.dtype)
    length = q.shape[2]
    if length <= 2 * QUERY_CHUNK:
        return jnp.moveaxis(_attend(q, k, v, bias), 1, 2)
    chunks = math.ceil(length / QUERY_CHUNK)
    size = math.ceil(length / chunks)
    padded = jnp.pad(q, ((0, 0), (0, 0), (0, chunks * size - length), (0, 0)))
    queries = jnp.moveaxis(padded.reshape(*q.shape[:2], chunks, size, -1), 2, 0)
    out = jax.lax.map(lambda chunk: _attend(chunk, k, v, bias), queries)
    out = jnp.moveaxis(out, 0, 2).reshape(*q.shape[:2], chunks * size, -1)[:, :, :length]
    return jnp.moveaxis(out, 1, 2)


def fits_cudnn(device: jax.Device, dtype: jax.typing.DTypeLike, channels: int) -> bool:
    """Whether cuDNN's fused attention can run on a device for heads of so many channels.

    It takes float16 and bfloat16, multiples of 8 channels up to 128, on NVIDIA GPUs of
    `CUDNN_CAPABILITIES`; newer and older ones are left to XLA, as is what needs a newer cuDNN.
    """
    return (
        device.platform == "gpu"
        and getattr(device, "compute_capability", "") in CUDNN_CAPABILITIES
        and dtype in (jnp.float16, jnp.bfloat16)
        and channels % 8 == 0
        and channels <= 128
    )


def _attend(q, k, v, bias):
    scores = jnp.matmul(q * q.shape[-1] ** -0.5, jnp.swapaxes(k, -1, -2)) + bias
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    return jnp.matmul(weights, v) / weights.sum(-1, keepdims=True)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU by erf, in float32 inside.

    `jax.nn.gelu` takes erfc, which is several times slower on the CPU and, as a TPU's compiler
    counts its cycles, adds a quarter to a block's MLP. Far below 0 the two differ by some 1e-7.
    """
    wide = x.astype(jnp.float32)
    return (wide * _normal_cdf(wide)).astype(x.dtype)


def _gelu_backward(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    # The barrier has the factor computed again: waiting in memory for its turn takes longer.
    wide = jax.lax.optimization_barrier(x).astype(jnp.float32)
    density = np.float32((2 * np.pi) ** -0.5) * jnp.exp(-0.5 * wide * wide)
    slope = _normal_cdf(wide) + wide * density
    return ((gradient.astype(jnp.float32) * slope).astype(x.dtype),)


def _normal_cdf(x: jax.Array) -> jax.Array:
    return 0.5 * (1 + jax.lax.erf(x * np.float32(0.5**0.5)))


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


class PatchConv(nnx.Module):
    """Convolution whose stride is its kernel size: a reshape and one matrix product.

    [B, H, W, I] -> [B, H/k, W/k, O]; `kernel` is [k, k, I, O].
    """

    def __init__(self, din: int, dout: int, size: int, *, dtype, kernel_init, bias_init, rngs):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (size, size, din, dout), jnp.float32))
        self.bias = nnx.Param(bias_init(rngs.params(), (dout,), jnp.float32))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        k = self.kernel.shape[0]
        b, c = x.shape[0], x.shape[3]
        h, w = x.shape[1] // k, x.shape[2] // k
        x = x[:, : h * k, : w * k].astype(self.dtype).reshape(b, h, k, w, k, c)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(b * h * w, k * k * c)
        kernel = self.kernel[...].astype(self.dtype).reshape(k * k * c, -1)
        return (x @ kernel + self.bias[...].astype(self.dtype)).reshape(b, h, w, -1)


def torch_uniform(fan_in: int):
    """PyTorch's default initialisation of convolutions: uniform in +-1/sqrt(fan_in)."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


def patch_embed_init(dim: int, patch: int, channels: int = 3):
    """MAE's initialisation: Xavier uniform of the kernel seen as a [p*p*channels, dim] matrix."""
    bound = math.sqrt(6 / (dim + channels * patch * patch))
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


class PatchEmbed(nnx.Module):
    """Image [B, H, W, 3] -> patch tokens [B, H/p, W/p, D]."""

    def __init__(self, patch: int, dim: int, *, dtype=jnp.float32, kernel_init=None, rngs):
        kernel_init = kernel_init or patch_embed_init(dim, patch)
        bias_init = torch_uniform(3 * patch * patch)
        self.proj = PatchConv(
            3, dim, patch, dtype=dtype, kernel_init=kernel_init, bias_init=bias_init, rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.proj(x)


class Linear(nnx.Linear):
    """`nnx.Linear` over flattened tokens: twice as fast to differentiate on the CPU."""

    # Without the sharding of its result, which nobody here asks for.
    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        return super().__call__(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


class Attention(nnx.Module):
    """Multi-head self-attention with one packed projection, rows q, k, v."""

    def __init__(self, dim: int, heads: int, *, dtype, rngs):
        self.heads = heads
        self.qkv = _linear(dim, 3 * dim, dtype, rngs)
        self.proj = _linear(dim, dim, dtype, rngs)

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        b, n, dim = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, dim // self.heads)
        # Not three slices: of one transposition, a TPU's compiler fuses the scores' softmax.
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        out = attention(q, k, v, mask)
        return self.proj(out.reshape(b, n, dim))


class Mlp(nnx.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, dim: int, *, dtype, rngs):
        self.fc1 = _linear(dim, 4 * dim, dtype, rngs)
        self.fc2 = _linear(4 * dim, dim, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(gelu(self.fc1(x)))


class SwiGLU(nnx.Module):
    """Gated MLP of DINOv2's giant: w3(silu(a) * b), where w12 gives a and b side by side."""

    def __init__(self, dim: int, *, dtype, rngs):
        hidden = math.ceil((8 * dim // 3) / 8) * 8
        self.w12 = _linear(dim, 2 * hidden, dtype, rngs)
        self.w3 = _linear(hidden, dim, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        a, b = jnp.split(self.w12(x), 2, -1)
        return self.w3(jax.nn.silu(a) * b)


class LayerScale(nnx.Module):
    """A factor per channel."""

    def __init__(self, dim: int):
        self.gamma = nnx.Param(jnp.ones(dim, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.gamma[...].astype(x.dtype)


class Block(nnx.Module):
    """Pre-norm transformer block; tokens [B, N, D]."""

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        layer_scale: bool = False,
        swiglu: bool = False,
        dtype=jnp.float32,
        rngs,
    ):
        self.norm1 = layer_norm(dim, dtype, rngs)
        self.attn = Attention(dim, heads, dtype=dtype, rngs=rngs)
        self.ls1 = LayerScale(dim) if layer_scale else _identity
        self.norm2 = layer_norm(dim, dtype, rngs)
        self.mlp = (SwiGLU if swiglu else Mlp)(dim, dtype=dtype, rngs=rngs)
        self.ls2 = LayerScale(dim) if layer_scale else _identity

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        x = x + self.ls1(self.attn(self.norm1(x), mask))
        return x + self.ls2(self.mlp(self.norm2(x)))


def _identity(x: jax.Array) -> jax.Array:
    return x


def _linear(din: int, dout: int, dtype, rngs) -> Linear:
    init = nnx.initializers.xavier_uniform()
    return Linear(din, dout, dtype=dtype, kernel_init=init, rngs=rngs)


def layer_norm(dim: int, dtype, rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(dim, epsilon=1e-6, use_fast_variance=False, dtype=dtype, rngs=rngs)
