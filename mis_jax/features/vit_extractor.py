"""Images -> patch tokens of a pretrained ViT, in batches of a few shapes on all devices."""

import functools
import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from PIL import Image

from mis_jax.models import state_dicts, vit

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
POS_INTERP = ("bicubic_offset", "bilinear")
MAX_SCORES = 2**30  # attention scores of a layer that a device holds at once: 4 GiB


class VitExtractor:
    """Patch tokens of the last block of a ViT, as in MIS `mis/model/feature_extractor.py`.

    Images of any sizes share a few compiled programs: each is padded to a multiple of `bucket`
    pixels, with position embeddings of its own grid, and no token attends to padding, so its
    features are those it has alone. Batches are always full, with blank images where needed.

    Attributes:
        compiled: number of programs compiled so far.
    """

    device = True
    borders = False  # as published

    def __init__(
        self,
        model: str,
        path: Path,
        *,
        pos_interp: str = "bicubic_offset",
        final_norm: bool = True,
        scale_to_patch8: bool = True,
        batch_size: int = 8,
        bucket: int = 64,
    ):
        self._variant = vit.VARIANTS[model]
        self._scale = self._variant.patch / 8 if scale_to_patch8 else 1.0
        self._pos_interp, self._final_norm = pos_interp, final_norm
        self._bucket = _ceil(max(bucket, 1), self._variant.patch)
        self._batch_size = batch_size
        self.stride = 8 if scale_to_patch8 else self._variant.patch
        self.compiled = 0
        self._graphdef, _ = vit.abstract(self._variant)
        params = vit.port_published(model, state_dicts.load_state_dict(path))
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.name = (
            f"{model} weights={path.name}:{digest[:12]} pos_interp={pos_interp} "
            f"final_norm={final_norm} scale_to_patch8={scale_to_patch8}"
        )
        devices = jax.local_devices()
        mesh = jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)
        self._sharding = NamedSharding(mesh, P("data"))
        self._params = jax.device_put(params, NamedSharding(mesh, P()))
        self._program = jax.jit(self._forward)

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """uint8 [H, W, 3] -> float32 [h, w, D] each; h, w are H / stride, W / stride rounded up."""
        features: dict[int, np.ndarray] = {}
        groups, running = defaultdict(list), None
        for index, image in enumerate(images):
            groups[self._bucket_of(image)].append(index)
        with ThreadPoolExecutor() as pool:
            for shape, group in groups.items():
                size = self._images_at_once(shape)
                for start in range(0, len(group), size):
                    chunk = group[start : start + size]
                    ready = list(pool.map(self._prepare, (images[i] for i in chunk)))
                    started = chunk, *self._start(ready, shape, size)  # before waiting for the last
                    if running:
                        _collect(features, *running)
                    running = started
        if running:
            _collect(features, *running)
        return [features[index] for index in range(len(images))]

    def _aligned(self, image: np.ndarray) -> tuple[int, int]:
        """Height and width that the network sees, multiples of its patch (MIS `AlignedResize`)."""
        height, width = image.shape[:2]
        side = functools.partial(aligned_side, scale=self._scale, patch=self._variant.patch)
        return side(height), side(width)

    def _bucket_of(self, image: np.ndarray) -> tuple[int, int]:
        height, width = self._aligned(image)
        return _ceil(height, self._bucket), _ceil(width, self._bucket)

    def _prepare(self, image: np.ndarray) -> np.ndarray:
        """Pillow's bicubic resize to the aligned size."""
        height, width = self._aligned(image)
        if image.shape[:2] == (height, width):
            return image
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(resized)

    def _images_at_once(self, shape: tuple[int, int]) -> int:
        tokens = 1 + math.prod(side // self._variant.patch for side in shape)
        fit = MAX_SCORES // (self._variant.heads * tokens**2)
        return max(1, min(self._batch_size, fit)) * self._sharding.mesh.size

    def _start(self, images: list[np.ndarray], shape: tuple[int, int], size: int):
        """Sends a batch to the devices; returns grids [size, 2] and features still being made."""
        batch = np.zeros((size, *shape, 3), np.uint8)
        grids = np.tile(np.array(shape) // self._variant.patch, (size, 1)).astype(np.int32)
        for i, image in enumerate(images):
            batch[i, : image.shape[0], : image.shape[1]] = image
            grids[i] = np.array(image.shape[:2]) // self._variant.patch
        device_batch, device_grids = jax.device_put((batch, grids), self._sharding)
        return grids, self._program(self._params, device_batch, device_grids)

    def _forward(self, params: dict, images: jax.Array, grids: jax.Array) -> jax.Array:
        """Padded uint8 [B, H, W, 3] and true grids [B, 2] -> [B, H / p, W / p, D]."""
        self.compiled += 1  # Python runs this once a program: while tracing
        height, width = (side // self._variant.patch for side in images.shape[1:3])
        rows = jnp.arange(height) < grids[:, :1]  # [B, h]
        columns = jnp.arange(width) < grids[:, 1:]  # [B, w]
        inside = (rows[:, :, None] & columns[:, None, :]).reshape(len(images), -1)
        mask = jnp.concatenate([jnp.ones_like(inside[:, :1]), inside], 1)  # the class token first
        pixels = (images.astype(jnp.float32) / 255 - MEAN) / STD
        with jax.default_matmul_precision("highest"):
            model = nnx.merge(self._graphdef, params)
            table = padded_pos_embed(params["pos_embed"], grids, (height, width), self._pos_interp)
            return model(pixels, table, mask, self._final_norm)


def aligned_side(side: int, scale: float, patch: int) -> int:
    """Pixels of a side after scaling, rounded half to even, then up to a multiple of the patch."""
    return _ceil(round(side * scale), patch)


def padded_pos_embed(
    pos_embed: jax.Array, grids: jax.Array, shape: tuple[int, int], mode: str
) -> jax.Array:
    """Position embeddings of images of different grids, each in a corner of a grid of one shape.

    Like `vit.resize_pos_embed` to each grid, but the grids may be traced: what lies outside is
    unspecified.

    Args:
        pos_embed: [1, 1 + g*g, D], the class row first.
        grids: int [B, 2], rows and columns of each image.
        shape: rows and columns (h, w) of the padded grid.
        mode: "bicubic_offset" or "bilinear".

    Returns:
        [B, 1 + h*w, D].
    """
    side, dim = math.isqrt(pos_embed.shape[1] - 1), pos_embed.shape[-1]
    offset, method = (0.1, "cubic-pytorch") if mode == "bicubic_offset" else (0.0, "bilinear")
    own = (grids == side).all(1, keepdims=True)  # the grid of the pretraining stays as it is
    scales = jnp.where(own, 1.0, (grids.astype(jnp.float32) + offset) / side)

    def resize(scale: jax.Array) -> jax.Array:
        table = pos_embed[0, 1:].reshape(side, side, dim)
        return jax.image.scale_and_translate(
            table, (*shape, dim), (0, 1), scale, jnp.zeros(2), method, antialias=False
        ).reshape(-1, dim)

    cls = jnp.broadcast_to(pos_embed[:, 0], (len(grids), dim))[:, None]
    return jnp.concatenate([cls, jax.vmap(resize)(scales)], 1)


def _collect(
    features: dict[int, np.ndarray], indices: list[int], grids: np.ndarray, batch: jax.Array
) -> None:
    """Waits for a batch and puts its features, without the padding, where they belong."""
    for index, (height, width), tokens in zip(indices, grids, np.asarray(batch), strict=False):
        features[index] = tokens[:height, :width].copy()


def _ceil(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
