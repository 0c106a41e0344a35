"""SimpleClick: image, clicks and previous mask -> logits, with a plain ViT (Liu et al., ICCV 2023).

Two patch embeddings (image; click maps and previous mask), a ViT whose blocks attend in windows but
for every g-th, a simple feature pyramid and an MLP head. Parameter names and values are those of
the public PyTorch model, so its state dicts port by name (porting.py).
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mis_jax.errors import InputError
from mis_jax.models import porting
from mis_jax.models.click_maps import click_maps, with_remainders
from mis_jax.models.layers import Block, PatchEmbed, patch_embed_init, torch_uniform
from mis_jax.models.pyramid import Head, SimpleFPN, inner_channels, resize_align_corners
from mis_jax.models.vit import resize_pos_embed, sincos_pos_embed

MEAN = np.asarray([0.485, 0.456, 0.406], np.float32)
STD = np.asarray([0.229, 0.224, 0.225], np.float32)


@dataclasses.dataclass(frozen=True)
class Variant:
    """Sizes of a model: ViT, pyramid channels at strides p/4, p/2, p and 2p, head channels."""

    dim: int
    depth: int
    heads: int
    patch: int
    pyramid: tuple[int, int, int, int]
    head: int
    period: int  # every `period`-th block attends globally
    window: int = 224  # pixels; nominal side of an attention window


VARIANTS = {
    "B": Variant(768, 12, 12, 16, (128, 256, 512, 1024), 256, 6),
    "L": Variant(1024, 24, 16, 16, (192, 384, 768, 1536), 256, 6),
    "H": Variant(1280, 32, 16, 14, (240, 480, 960, 1920), 256, 8),
    "xTiny": Variant(160, 8, 4, 16, (96, 192, 288, 384), 128, 2),
    # Ours: S between xTiny and B; Nano and Pico for training from nothing on two CPU cores.
    "S": Variant(384, 12, 6, 16, (96, 192, 384, 768), 192, 6),
    "Nano": Variant(96, 6, 3, 8, (24, 48, 96, 192), 32, 3, window=48),
    "Pico": Variant(64, 4, 2, 4, (16, 32, 64, 128), 24, 2, window=32),
}


class SimpleClick(nnx.Module):
    """Click-based segmentation network; see `__call__`."""

    def __init__(
        self,
        variant: Variant,
        size: int = 448,
        *,
        dtype=jnp.float32,
        remat: str = "none",
        binary_prev_mask: bool = False,
        rngs: nnx.Rngs,
    ):
        """Builds the network for square inputs of `size` pixels (others work, see `resized`)."""
        self.binary_prev_mask = binary_prev_mask
        self.backbone = Backbone(variant, size, dtype=dtype, remat=remat, rngs=rngs)
        self.patch_embed_coords = PatchEmbed(
            variant.patch,
            variant.dim,
            dtype=dtype,
            kernel_init=torch_uniform(3 * variant.patch**2),
            rngs=rngs,
        )
        self.neck = SimpleFPN(variant.dim, variant.pyramid, dtype=dtype, rngs=rngs)
        self.head = Head(variant.pyramid, variant.head, dtype=dtype, rngs=rngs)

    def __call__(
        self, image: jax.Array, prev: jax.Array, points: jax.Array, *, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """Logits of the object that the clicks mean.

        Args:
            image: float32 [B, H, W, 3], RGB in [0, 1]; sides as at construction.
            prev: float32 [B, H, W], probabilities of the previous prediction, zeros at first.
            points: float32 [B, 2n, 3], rows (row, column, order) in pixels: n positive clicks,
                then n negative ones, unused rows -1; or [B, 2n, 5], see `click_maps`.
            rngs: key for the head's dropout; None: no dropout.

        Returns:
            float32 [B, H, W].
        """
        prev = (prev > 0.5).astype(prev.dtype) if self.binary_prev_mask else prev
        size = prev.shape[1], prev.shape[2]
        coords = jnp.concatenate([prev[..., None], click_maps(points, size)], -1)
        tokens = self.backbone((image - MEAN) / STD, self.patch_embed_coords(coords))
        logits = self.head(self.neck(tokens), rngs)
        return resize_align_corners(logits.astype(jnp.float32), size)


def build(
    variant: str,
    patch: int,
    size: int,
    *,
    dtype: str = "auto",
    remat: str = "none",
    binary_prev_mask: bool = False,
    rngs: nnx.Rngs,
) -> SimpleClick:
    """The network of `config.model` for square inputs of `size` pixels."""
    sizes = check_size(variant, patch, size)
    if dtype == "auto":
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return SimpleClick(
        sizes, size, dtype=jnp.dtype(dtype), remat=remat, binary_prev_mask=binary_prev_mask,
        rngs=rngs,
    )  # fmt: skip


def shapes(variant: str, patch: int, size: int) -> dict:
    """Parameters of a network as a nested dict of `jax.ShapeDtypeStruct`, nothing computed."""
    model = nnx.eval_shape(lambda: build(variant, patch, size, rngs=nnx.Rngs(0)))
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def network(params: dict, variant: str, patch: int, size: int, crop: int, **options):
    """Compiled (image, prev, points) -> logits of trained parameters, for inputs of `size` pixels.

    Position embeddings learnt at `crop` pixels are resized as the reference does at inference.
    Points are float32 or, to be exact where a pixel is on the rim of a click's disk, float64.
    """
    run = program(variant, patch, size, crop, **options)
    return lambda image, prev, points: run(params, image, prev, points)


def program(
    variant: str, patch: int, size: int, crop: int, around: Callable = lambda f: f, **options
) -> Callable:
    """(params, image, prev, points) -> logits, compiled once for all parameters; see `network`.

    `around` wraps the network before it is compiled.
    """
    check_size(variant, patch, size)
    graphdef, _ = nnx.split(
        nnx.eval_shape(lambda: build(variant, patch, crop, rngs=nnx.Rngs(0), **options))
    )

    run = jax.jit(
        lambda p, image, prev, points: around(nnx.merge(graphdef, p))(image, prev, points)
    )
    return lambda p, image, prev, points: run(p, image, prev, with_remainders(points))


def flops(variant: str, patch: int, size: int) -> float:
    """Operations of the forward pass of one image: two for each product in matrix products."""
    v = check_size(variant, patch, size)
    side, split = size // v.patch, max(size // v.patch // max(v.window // v.patch, 1), 1)
    n, window, everywhere = side**2, (side // split) ** 2, v.depth // v.period
    keys = everywhere * n + (v.depth - everywhere) * window
    blocks = 12 * v.depth * v.dim**2 + 2 * v.dim * keys  # products a token
    embedding = 2 * v.dim * 3 * v.patch**2
    c4, c8, c32 = inner_channels(v.dim, v.pyramid)
    out4, out8, out16, out32 = v.pyramid
    pyramid = (
        4 * v.dim * c4 + 8 * c4**2 + 8 * c4 * out4
        + 4 * v.dim * c8 + 4 * c8 * out8 + v.dim * out16 + v.dim * c32 + c32 * out32 / 4
    )  # fmt: skip
    maps = zip((16, 4, 1, 0.25), v.pyramid, strict=True)  # positions a token, channels
    head = sum(positions * (c + v.head) * v.head for positions, c in maps) + 16 * v.head
    return 2.0 * n * (embedding + blocks + pyramid + head)


def with_backbone(params: dict, tensors: dict[str, np.ndarray]) -> dict:
    """`params` with the ViT of a PyTorch state dict (MAE, DINO) in its backbone.

    Only the backbone changes; position embeddings are resized to its grid (bicubic), and the
    encoder's last LayerNorm, which SimpleClick has none of, is left out.
    """
    backbone = params["backbone"]
    side = math.isqrt(backbone["pos_embed"].shape[1] - 1)
    tensors = porting.unwrapped(tensors, porting.keys(backbone))
    if "pos_embed" in tensors:
        pos = jnp.asarray(tensors["pos_embed"], jnp.float32)
        pos = resize_pos_embed(pos, (side, side), "bicubic")
        tensors = {**tensors, "pos_embed": np.asarray(pos)}
    unused = ("cls_token", *porting.UNUSED_MAE)
    return {**params, "backbone": porting.port(tensors, backbone, unused)}


def from_state_dict(tensors: dict[str, np.ndarray], variant: str, patch: int, size: int) -> dict:
    """Parameters of the public PyTorch model (SimpleClick, MIS) that was trained at `size` pixels.

    Raises:
        InputError: the state dict is not of this variant and size.
    """
    return porting.port(tensors, shapes(variant, patch, size), porting.UNUSED_SIMPLECLICK)


def check_size(variant: str, patch: int, size: int) -> Variant:
    """The variant with its patch size, or `InputError` where inputs of `size` do not fit it."""
    if variant not in VARIANTS:
        raise InputError(f'config.model.variant "{variant}" is none of {", ".join(VARIANTS)}.')
    v = VARIANTS[variant]
    v = dataclasses.replace(v, patch=patch or v.patch)
    side, window = size // v.patch, max(v.window // v.patch, 1)
    if size % v.patch or side < 2 or side % max(side // window, 1):
        raise InputError(
            f"an input of {size} pixels (config.data.crop, config.eval.size) does not split evenly "
            f"into patches of {v.patch} and windows of about {window} patches; "
            f"use a multiple of {window * v.patch}."
        )
    return v


class Backbone(nnx.Module):
    """ViT over patch tokens, attending in windows except in every `period`-th block."""

    def __init__(self, v: Variant, size: int, *, dtype, remat: str, rngs):
        side = size // v.patch
        self.period, self.window, self.remat = v.period, max(v.window // v.patch, 1), remat
        self.pos_embed = nnx.Param(jnp.asarray(sincos_pos_embed(v.dim, side)))
        self.patch_embed = PatchEmbed(
            v.patch, v.dim, dtype=dtype, kernel_init=patch_embed_init(v.dim, v.patch), rngs=rngs
        )
        self.blocks = nnx.List(
            [Block(v.dim, v.heads, dtype=dtype, rngs=rngs) for _ in range(v.depth)]
        )

    def __call__(self, image: jax.Array, coords: jax.Array) -> jax.Array:
        """[B, H, W, 3] normalised and click tokens [B, h, w, D] -> tokens [B, h, w, D]."""
        x = self.patch_embed(image) + coords
        b, h, w, dim = x.shape
        pos = resize_pos_embed(self.pos_embed[...], (h, w), "bicubic")[:, 1:]
        x = x + pos.reshape(1, h, w, dim).astype(x.dtype)
        split = (max(h // self.window, 1), max(w // self.window, 1))
        block = _rematted(self.remat)
        for start in range(0, len(self.blocks), self.period):
            group = list(self.blocks)[start : start + self.period]
            x = _to_windows(x, split)
            for module in group[:-1]:
                x = block(module, x)
            x = _from_windows(x, split, (b, h, w)).reshape(b, h * w, dim)
            x = block(group[-1], x).reshape(b, h, w, dim)
        return x


def _to_windows(x: jax.Array, split: tuple[int, int]) -> jax.Array:
    b, h, w, dim = x.shape
    nh, nw = split
    x = x.reshape(b, nh, h // nh, nw, w // nw, dim).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b * nh * nw, -1, dim)


def _from_windows(x: jax.Array, split: tuple[int, int], shape: tuple[int, int, int]) -> jax.Array:
    (nh, nw), (b, h, w) = split, shape
    x = x.reshape(b, nh, nw, h // nh, w // nw, -1).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h, w, -1)


def _rematted(policy: str):
    call = lambda module, x: module(x)  # noqa: E731
    if policy == "none":
        return call
    return nnx.remat(call, policy=getattr(jax.checkpoint_policies, policy))
