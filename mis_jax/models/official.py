"""Checkpoints in the layout of the public code of SimpleClick and MIS: recognised and written.

Such a file is `torch.save({"state_dict": ..., "config": ...})`; reading and writing of PyTorch
files is state_dicts.py's, names and axes of parameters are weights.py's.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mis_jax import config as configs
from mis_jax.errors import InputError
from mis_jax.models import click_maps, porting, simpleclick
from mis_jax.models.simpleclick import VARIANTS, Variant

CLASS = "isegm.model.is_plainvit_model.PlainVitModel"  # known to SimpleClick's and MIS's code
WINDOW = 224  # pixels, of the public code's attention windows
KEYS = ("backbone.pos_embed", "backbone.patch_embed.proj.weight", "head.conv_seg.weight")
MAE = ("B", "L", "H")  # variants that the public training scripts start from MAE's weights


def config_of(tensors: Mapping[str, np.ndarray], settings: Any = None) -> ConfigDict:
    """The config of a public checkpoint: its model, and this project's defaults for the rest.

    Args:
        tensors: its state dict; variant, patch and training size are told from their shapes.
        settings: what the file has under "config", if it has; what of it cannot be told from
            shapes has to be what is computed here.

    Raises:
        InputError: no SimpleClick, of an unknown size, or with a setting that is not supported.
    """
    name, patch, size = _identify(tensors)
    variant = simpleclick.check_size(name, patch, size)
    _check(settings, parameters(variant, size))
    config = configs.default()
    config.model.variant = name
    config.model.patch = 0 if patch == VARIANTS[name].patch else patch
    config.model.init = "mae" if name in MAE else "random"
    config.data.crop = size
    return config


def _identify(tensors: Mapping[str, np.ndarray]) -> tuple[str, int, int]:
    """Variant, patch and training size, pixels."""
    missing = [key for key in KEYS if key not in tensors]
    if missing:
        raise InputError(
            f"it holds no SimpleClick (missing: {', '.join(missing)}; found: "
            f"{porting.some(tensors, 4)}); give a checkpoint of SimpleClick, of MIS or of mis_jax."
        )
    table, kernel = (tensors[key].shape for key in KEYS[:2])
    side = math.isqrt(max(table[-2] - 1, 0)) if len(table) == 3 else 0
    if not side or table[-2] != side * side + 1 or len(kernel) != 4:
        raise InputError(
            f"it holds no SimpleClick of a square image: {KEYS[0]} is {list(table)}, {KEYS[1]} "
            f"{list(kernel)}."
        )
    dim, patch = table[-1], kernel[-1]
    blocks = len({key.split(".")[2] for key in tensors if key.startswith("backbone.blocks.")})
    known = [name for name, v in VARIANTS.items() if v.dim == dim]
    if not known:
        raise InputError(
            f"its {KEYS[0]} has {dim} channels, as none of the variants {', '.join(VARIANTS)}."
        )
    return min(known, key=lambda name: abs(VARIANTS[name].depth - blocks)), patch, patch * side


def parameters(v: Variant, size: int) -> dict[str, Any]:
    """What the public model's constructor is given for a variant at `size` pixels."""
    pyramid = list(v.pyramid)
    return {
        "use_disks": True,
        "norm_radius": click_maps.CLICK_RADIUS,
        "with_prev_mask": True,
        "backbone_params": {
            "img_size": (size, size), "patch_size": (v.patch, v.patch), "in_chans": 3,
            "embed_dim": v.dim, "depth": v.depth, "num_heads": v.heads, "mlp_ratio": 4,
            "qkv_bias": True,
        },
        "neck_params": {"in_dim": v.dim, "out_dims": pyramid},
        "head_params": {
            "in_channels": pyramid, "in_index": [0, 1, 2, 3], "dropout_ratio": 0.1,
            "num_classes": 1, "loss_decode": None, "align_corners": False, "upsample": "x1",
            "channels": v.head,
        },
        "random_split": False,
        "with_aux_output": False,
        "cpu_dist_maps": False,
        "use_rgb_conv": False,
        "use_leaky_relu": False,
        "norm_mean_std": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    }  # fmt: skip


UNREAD = ("head_params.loss_decode", "head_params.dropout_ratio", "cpu_dist_maps", "use_leaky_relu")


def _check(settings: Any, wanted: Mapping[str, Any]) -> None:
    """Raises `InputError` for a setting in the file that is not what is computed here."""
    given = settings.get("params") if isinstance(settings, Mapping) else None
    if not isinstance(given, Mapping):
        return
    given = {k: p["value"] for k, p in given.items() if isinstance(p, Mapping) and "value" in p}
    found = dict(_flat(given))
    for name, value in _flat(wanted):
        if name not in UNREAD and name in found and found[name] != value:
            raise InputError(
                f"its config has {name} = {found[name]!r}, and only {value!r} is supported."
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _lists(value)


def _lists(x: Any) -> Any:
    return [_lists(y) for y in x] if isinstance(x, list | tuple) else x


def content(
    tensors: Mapping[str, np.ndarray], config: ConfigDict
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """State dict and "config" with which the public code builds and strictly fills its model.

    Args:
        tensors: our parameters under PyTorch's names (`porting.unport`).
        config: the config they belong to.

    Raises:
        InputError: the public code has no such model.
    """
    m, size = config.model, config.data.crop
    v = simpleclick.check_size(m.variant, m.patch, size)
    reason = _inexpressible(v, m.binary_prev_mask)
    if reason:
        raise InputError(
            f"the public code cannot express this model ({reason}); export it to .safetensors."
        )
    specified = ("backbone_params", "neck_params", "head_params", "use_disks", "norm_radius",
                 "with_prev_mask", "random_split")  # fmt: skip
    params = {
        name: {"type": "builtin", "value": value, "specified": name in specified}
        for name, value in parameters(v, size).items()
    }
    return {**tensors, **_unused(v)}, {"class": CLASS, "params": params}


def _inexpressible(v: Variant, binary_prev_mask: bool) -> str:
    period = 6 if v.depth == 12 else v.depth / 4
    if v.period != period:
        return f"{v.depth} blocks in groups of {v.period}"
    if v.window != WINDOW:
        return f"attention windows of {v.window} pixels, not {WINDOW}"
    return "a binary previous mask" if binary_prev_mask else ""


def _unused(v: Variant) -> dict[str, np.ndarray]:
    """Parameters that the public model has and never reads: norms at one, all others at zero."""
    c = v.head
    shapes: dict[str, tuple[int, ...]] = {"backbone.cls_token": (1, 1, v.dim)}
    layers: dict[str, tuple[int, ...]]
    layers = {"backbone.fc_norm": (v.dim,), "backbone.head": (1000, v.dim)}
    for i, wide in ((1, c), (2, c // 2)):
        half, name = wide // 2, f"head.up_conv{i}"
        layers |= {f"{name}.0": (wide, half, 2, 2), f"{name}.1": (half,),
                   f"{name}.2": (half, half, 1, 1), f"{name}.3": (half,)}  # fmt: skip
    for name, shape in layers.items():
        outputs = shape[1] if name.endswith(".0") else shape[0]  # transposed: in, out, 2, 2
        shapes |= {f"{name}.weight": shape, f"{name}.bias": (outputs,)}
    norms = {f"{name}.weight" for name, shape in layers.items() if len(shape) == 1}
    return {key: np.full(shape, key in norms, np.float32) for key, shape in shapes.items()}
