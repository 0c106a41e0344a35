"""PyTorch state dicts <-> parameters of NNX modules, by equal names."""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from mis_jax.errors import InputError

# OIHW -> HWIO (of ConvTranspose IOHW -> HWOI); [out, in] -> [in, out]
_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}
_TORCH_NAMES = {"kernel": "weight", "scale": "weight"}

# Keys of published files that no forward pass of ours reads, for `port(drop=...)`.
UNUSED_DINO = ("head.*",)
UNUSED_DINOV2 = ("mask_token",)
UNUSED_MOCOV3 = ("head.*", "module.momentum_encoder.*", "module.predictor.*")
UNUSED_MAE = ("norm.*", "fc_norm.*", "head.*", "mask_token", "decoder_*")
UNUSED_SIMPLECLICK = (
    "backbone.cls_token",
    "backbone.fc_norm.*",
    "backbone.head.*",
    "head.up_conv1.*",
    "head.up_conv2.*",
)


def port(
    tensors: Mapping[str, np.ndarray], shapes: Mapping, drop: Sequence[str] = ()
) -> dict[str, Any]:
    """Renames and permutes a PyTorch state dict onto the parameters of an NNX module, strictly.

    Attribute names equal PyTorch's, so two rules do: the leaf `kernel` or `scale` is `weight`
    there, and kernels change their axes. `nnx.ConvTranspose(transpose_kernel=True)` takes the same
    permutation as `nnx.Conv`.

    Args:
        tensors: PyTorch key -> array.
        shapes: nested dict of `jax.ShapeDtypeStruct` (or arrays), as
            `nnx.to_pure_dict(nnx.state(nnx.eval_shape(make_model), nnx.Param))`.
        drop: shell patterns of keys that may be in `tensors` although the module has none such.

    Returns:
        Nested dict like `shapes` of C-contiguous arrays, in the dtypes of `shapes`.

    Raises:
        InputError: keys are missing, left over, or of another shape; it names them.
    """
    rest, params = dict(tensors), {}
    missing, misshapen = [], []
    for path, leaf in nnx.traversals.flatten_mapping(shapes).items():
        key = _torch_key(path)
        if key not in rest:
            missing.append(key)
            continue
        x = rest.pop(key)
        x = x.transpose(_AXES[x.ndim]) if path[-1] == "kernel" and x.ndim in _AXES else x
        if x.shape == leaf.shape:
            params[path] = np.array(x, leaf.dtype, order="C")
        else:
            misshapen.append(f"{key} (here {tensors[key].shape})")
    unused = [key for key in rest if not any(fnmatch.fnmatchcase(key, p) for p in drop)]
    faults = {"missing": missing, "left over": unused, "of another shape": misshapen}
    if any(faults.values()):
        text = "; ".join(f"{kind}: {some(keys)}" for kind, keys in faults.items() if keys)
        raise InputError(
            f"the weights do not fit the model, {text}; choose the variant the file is of."
        )
    return nnx.traversals.unflatten_mapping(params)


def unport(params: Mapping) -> dict[str, np.ndarray]:
    """The PyTorch state dict of a nested dict of parameters: the inverse of `port`."""
    tensors = {}
    for path, leaf in nnx.traversals.flatten_mapping(params).items():
        x = np.asarray(jax.device_get(leaf))
        x = x.transpose(np.argsort(_AXES[x.ndim])) if path[-1] == "kernel" else x
        tensors[_torch_key(path)] = np.array(x, order="C")
    return tensors


def _torch_key(path: tuple) -> str:
    return ".".join(map(str, (*path[:-1], _TORCH_NAMES.get(path[-1], path[-1]))))


def some(keys: Sequence[str] | Iterator[str], limit: int = 8) -> str:
    """The first of the keys, for a message."""
    keys = list(keys)
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more
