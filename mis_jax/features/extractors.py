"""Images -> one feature per patch: pretrained ViTs in batches on the devices, or the descriptor."""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import jax
import numpy as np
from absl import logging

from mis_jax.downloads import download_weights, find_weights
from mis_jax.errors import InputError
from mis_jax.features import descriptor
from mis_jax.features.vit_extractor import POS_INTERP, VitExtractor
from mis_jax.models import vit


class Extractor(Protocol):
    """What turns images into features.

    Attributes:
        name: model, weights and settings; features of equal names are comparable.
        stride: pixels of the image between two neighbouring features.
        device: True if it runs batches in JAX, and so wants long lists.
        borders: whether trees of its features are merged by their borders (`build_tree`).
    """

    name: str
    stride: int
    device: bool
    borders: bool

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """uint8 [H, W, 3] RGB images of any sizes -> float32 [h, w, C] each, in order."""
        ...


def make_extractor(
    model: str = "auto",
    weights: str = "",
    stride: int = 4,
    pos_interp: str = "bicubic_offset",
    final_norm: bool = True,
    scale_to_patch8: bool = True,
    batch_size: int = 8,
    bucket: int = 64,
) -> Extractor:
    """The extractor of `config.features`; the arguments are its fields.

    `auto` is dino-vits8 if its weights are given or in the cache folder, else the embedded
    descriptor, and says which; it downloads nothing. A ViT named without weights is downloaded.

    Raises:
        InputError: an unknown model or mode, or weights that cannot be had or do not fit.
    """
    vits = (name for name in vit.VARIANTS if not name.startswith("mae-"))
    known = ("auto", "embedded", *vits)
    if model not in known:
        raise InputError(f'features.model is "{model}"; it must be one of {", ".join(known)}.')
    if pos_interp not in POS_INTERP:
        modes = " or ".join(POS_INTERP)
        raise InputError(f'features.pos_interp is "{pos_interp}"; it must be {modes}.')
    if model == "embedded" and weights:
        raise InputError("features.weights is set, but the embedded descriptor has no weights.")
    if model == "auto":
        model, weights = _choose(weights)
    if model == "embedded":
        return EmbeddedExtractor(stride)
    return VitExtractor(
        model,
        Path(weights) if weights else download_weights(model),
        pos_interp=pos_interp,
        final_norm=final_norm,
        scale_to_patch8=scale_to_patch8,
        # A CPU computes a batch no faster than its images, and would compute the padding too.
        batch_size=1 if jax.default_backend() == "cpu" else batch_size,
        bucket=bucket,
    )


def _choose(weights: str) -> tuple[str, str]:
    """What `auto` is here: a model and its weights."""
    if weights := weights or str(find_weights("dino-vits8") or ""):
        _say(f"features: dino-vits8 with the weights {weights}")
        return "dino-vits8", weights
    _say(
        "features: the embedded descriptor, as no dino-vits8 weights are at hand "
        "(--config.features.model=dino-vits8 downloads them)"
    )
    return "embedded", ""


@functools.cache  # once
def _say(message: str) -> None:
    logging.info(message)
    print(message, file=sys.stderr)


class EmbeddedExtractor:
    """`descriptor.embedded`, image by image on the host."""

    device = False
    borders = True

    def __init__(self, stride: int):
        self.name = f"{descriptor.NAME} stride={stride}"
        self.stride = stride

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """uint8 [H, W, 3] -> float32 [ceil(H / stride), ceil(W / stride), C] each."""
        return [descriptor.embedded(image, self.stride) for image in images]
