"""Plain Vision Transformer in NNX, with the attribute names of the PyTorch originals.

The same blocks serve the feature extractors (DINO, DINOv2, MoCo v3), MAE's encoder and the backbone
of SimpleClick. Architecture after `vision_transformer.py` of facebookresearch/dino and dinov2:
pre-norm, LayerNorm eps 1e-6, exact GELU.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mis_jax.models import porting
from mis_jax.models.layers import Block, PatchEmbed, layer_norm


@dataclasses.dataclass(frozen=True)
class Variant:
    """Sizes of a ViT: channels, blocks, heads, patch, side of the grid it was trained on."""

    dim: int
    depth: int
    heads: int
    patch: int
    grid: int
    layer_scale: bool = False  # a factor per channel after attention and MLP
    swiglu: bool = False  # a gated MLP


VARIANTS = {
    "dino-vits8": Variant(384, 12, 6, 8, 28),
    "dino-vits16": Variant(384, 12, 6, 16, 14),
    "dino-vitb8": Variant(768, 12, 12, 8, 28),
    "dino-vitb16": Variant(768, 12, 12, 16, 14),
    "dinov2-vits14": Variant(384, 12, 6, 14, 37, layer_scale=True),
    "dinov2-vitb14": Variant(768, 12, 12, 14, 37, layer_scale=True),
    "dinov2-vitl14": Variant(1024, 24, 16, 14, 37, layer_scale=True),
    "dinov2-vitg14": Variant(1536, 40, 24, 14, 37, layer_scale=True, swiglu=True),
    "mocov3-vits16": Variant(384, 12, 12, 16, 14),
    "mocov3-vitb16": Variant(768, 12, 12, 16, 14),
    "mae-vitb16": Variant(768, 12, 12, 16, 14),
    "mae-vitl16": Variant(1024, 24, 16, 16, 14),
    "mae-vith14": Variant(1280, 32, 16, 14, 16),
}
_UNUSED = {
    "dino": porting.UNUSED_DINO,
    "dinov2": porting.UNUSED_DINOV2,
    "mocov3": porting.UNUSED_MOCOV3,
    "mae": porting.UNUSED_MAE,
}


class ViT(nnx.Module):
    """Vision Transformer of `VARIANTS`; parameters named as in the published state dicts."""

    def __init__(self, variant: Variant, *, dtype=jnp.float32, rngs):
        v = variant
        extras = {"layer_scale": v.layer_scale, "swiglu": v.swiglu}
        self.cls_token = nnx.Param(_normal(rngs, (1, 1, v.dim)))
        self.pos_embed = nnx.Param(_normal(rngs, (1, 1 + v.grid**2, v.dim)))
        self.patch_embed = PatchEmbed(v.patch, v.dim, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(
            [Block(v.dim, v.heads, **extras, dtype=dtype, rngs=rngs) for _ in range(v.depth)]
        )
        self.norm = layer_norm(v.dim, dtype, rngs)

    def __call__(
        self,
        image: jax.Array,
        pos_embed: jax.Array,
        mask: jax.Array | None = None,
        final_norm: bool = True,
    ) -> jax.Array:
        """Patch features of normalised images.

        Args:
            image: float [B, H, W, 3], ImageNet-normalised, sides multiples of the patch.
            pos_embed: float [B or 1, 1 + h*w, D], see `resize_pos_embed`.
            mask: bool [B, 1 + h*w] of the tokens that count; None: all.
            final_norm: False returns the tokens before the last LayerNorm.

        Returns:
            [B, h, w, D], the class token dropped.
        """
        x = self.patch_embed(image)
        b, h, w, dim = x.shape
        cls = jnp.broadcast_to(self.cls_token[...].astype(x.dtype), (b, 1, dim))
        x = jnp.concatenate([cls, x.reshape(b, h * w, dim)], 1) + pos_embed.astype(x.dtype)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x) if final_norm else x
        return x[:, 1:].reshape(b, h, w, dim)


@functools.cache  # seconds for forty blocks
def abstract(variant: Variant) -> tuple[nnx.GraphDef, dict]:
    """A ViT, nothing computed: its graph, and a nested dict of `jax.ShapeDtypeStruct`."""
    module = nnx.eval_shape(lambda: ViT(variant, rngs=nnx.Rngs(0)))
    graphdef, shapes = nnx.split(module)
    return graphdef, nnx.to_pure_dict(shapes)


def port_published(model: str, state_dict: Mapping[str, np.ndarray]) -> dict:
    """Parameters of the ViT `model`, a key of `VARIANTS`, from a published state dict.

    Returns:
        Nested dict of float32 arrays, as `abstract(VARIANTS[model])` has it.

    Raises:
        InputError: keys are missing, left over, or of another shape; it names them.
    """
    _, shapes = abstract(VARIANTS[model])
    return porting.port(tensors_of(model, state_dict), shapes, _UNUSED[model.partition("-")[0]])


def tensors_of(model: str, state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A published state dict of `model` with the names of the original's class.

    MoCo v3's encoder loses its prefix (MIS `mis/model/feature_extractor.py`), and timm's names of
    the gated MLP, `fc1` and `fc2`, become DINOv2's `w12` and `w3`. All else is named so already.
    """
    return {_original_name(model, key): x for key, x in state_dict.items()}


def _original_name(model: str, key: str) -> str:
    if model.startswith("mocov3-"):
        key = key.removeprefix("module.base_encoder.")
    if VARIANTS[model].swiglu:
        key = key.replace(".mlp.fc1.", ".mlp.w12.").replace(".mlp.fc2.", ".mlp.w3.")
    return key


def resize_pos_embed(
    pos_embed: jax.Array, grid: tuple[int, int], mode: str = "bicubic_offset"
) -> jax.Array:
    """Position embeddings [1, 1 + g*g, D] for another grid: [1, 1 + h*w, D], the class row kept.

    Modes: "bicubic_offset" is DINO's (PyTorch bicubic, scale factor (h + 0.1) / g, sampling
    positions from that factor); "bicubic" samples at g / h exactly (MAE, SimpleClick); "bilinear"
    is what the MIS paper says. None of them antialiases.
    """
    side = math.isqrt(pos_embed.shape[1] - 1)
    if grid == (side, side):
        return pos_embed
    if mode not in ("bicubic_offset", "bicubic", "bilinear"):
        raise ValueError(f'pos_interp "{mode}": must be bicubic_offset, bicubic or bilinear')
    dim = pos_embed.shape[-1]
    offset = 0.1 if mode == "bicubic_offset" else 0.0
    table = jax.image.scale_and_translate(
        pos_embed[0, 1:].reshape(side, side, dim),
        (*grid, dim),
        (0, 1),
        jnp.asarray([(n + offset) / side for n in grid], jnp.float32),
        jnp.zeros(2, jnp.float32),
        "bilinear" if mode == "bilinear" else "cubic-pytorch",
        antialias=False,
    )
    return jnp.concatenate([pos_embed[:, :1], table.reshape(1, -1, dim)], 1)


def sincos_pos_embed(dim: int, side: int) -> np.ndarray:
    """Fixed 2-D sine-cosine table [1, 1 + side*side, dim] float32, the class row zero (MAE)."""
    omega = 10000.0 ** -(np.arange(dim // 4) / (dim / 4))
    angles = np.arange(side)[:, None] * omega
    axis = np.concatenate([np.sin(angles), np.cos(angles)], 1)  # [side, dim/2]
    columns = np.broadcast_to(axis[None], (side, side, dim // 2))
    rows = np.broadcast_to(axis[:, None], (side, side, dim // 2))
    table = np.concatenate([columns, rows], -1).reshape(side * side, dim)
    return np.concatenate([np.zeros((1, dim)), table])[None].astype(np.float32)


def _normal(rngs, shape) -> jax.Array:
    return 0.02 * jax.random.normal(rngs.params(), shape, jnp.float32)
