"""PyTorch state dicts <-> parameters of NNX modules, by equal names."""

import collections
import fnmatch
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
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
    permutation as `nnx.Conv`. A prefix that wrappers put before all names is taken off
    (`unwrapped`).

    Args:
        tensors: PyTorch key -> array.
        shapes: nested dict of `jax.ShapeDtypeStruct` (or arrays), as
            `nnx.to_pure_dict(nnx.state(nnx.eval_shape(make_model), nnx.Param))`.
        drop: shell patterns of keys that may be in `tensors` although the module has none such.

    Returns:
        Nested dict like `shapes` of C-contiguous arrays, in the dtypes of `shapes`.

    Raises:
        InputError: keys are missing, left over, of another shape, or with values that are not
            finite; it names them.
    """
    flat, wanted = nnx.traversals.flatten_mapping(shapes), keys(shapes)
    tensors = unwrapped(tensors, wanted)
    if not any(key in tensors for key in wanted):
        raise InputError(
            f"the weights do not fit the model, but are another's: found {some(tensors, 4)}, "
            f"wanted {some(wanted, 4)}; give a state dict of the model that is asked for."
        )
    rest, params = dict(tensors), {}
    missing, misshapen = [], []
    for key, (path, leaf) in zip(wanted, flat.items(), strict=True):
        if key not in rest:
            missing.append(key)
            continue
        x = rest.pop(key)
        x = x.transpose(_AXES[x.ndim]) if path[-1] == "kernel" and x.ndim in _AXES else x
        if x.shape == leaf.shape:
            params[path] = _cast(x, leaf.dtype)
        else:
            misshapen.append(f"{key} (here {tensors[key].shape})")
    unused = [key for key in rest if not any(fnmatch.fnmatchcase(key, p) for p in drop)]
    faults = {"missing": missing, "left over": unused, "of another shape": misshapen}
    if any(faults.values()):
        text = "; ".join(f"{kind}: {some(names)}" for kind, names in faults.items() if names)
        raise InputError(
            f"the weights do not fit the model, {text}; choose the variant the file is of."
        )
    for key, x in zip(wanted, params.values(), strict=True):
        check_finite(key, x)
    return nnx.traversals.unflatten_mapping(params)


def _cast(x: np.ndarray, dtype: Any) -> np.ndarray:
    with np.errstate(over="ignore"):  # the infinite is found afterwards
        return np.array(x, dtype, order="C")


def check_finite(name: str, x: np.ndarray, remedy: str = "download or export them again") -> None:
    """Raises `InputError` where an array has NaN or infinite values."""
    bad = int(x.size - np.isfinite(x).sum())
    if bad:
        raise InputError(
            f"the weights are damaged: {name} has {bad:,} of {x.size:,} values that are NaN or "
            f"infinite; {remedy}."
        )


def unwrapped(tensors: Mapping[str, np.ndarray], wanted: Collection[str]) -> dict[str, np.ndarray]:
    """The tensors of the module of a file that has the most of the `wanted` keys, named as there.

    What wraps a network puts a prefix before its names: `module.` (DataParallel), `_orig_mod.`
    (torch.compile), `model.` (Lightning), `teacher.backbone.` (DINO), several of them, or any
    other. The tensors beside it are of other modules, and left out. Of DINO's teacher and student
    the teacher is meant, as in its published weights. Where any of the keys has no prefix, nothing
    is taken off or left out.

    Raises:
        InputError: several modules, none of them a teacher, have most of the keys.
    """
    names, found = set(wanted), collections.Counter[str]()
    for key in tensors:
        parts = key.split(".")
        for k in range(len(parts)):
            if ".".join(parts[k:]) in names:
                found[key.removesuffix(".".join(parts[k:]))] += 1
    most = max(found.values(), default=0)
    fit = [prefix for prefix, count in found.items() if 2 * count > most]
    if "" in found or not fit:
        return dict(tensors)
    fit = [prefix for prefix in fit if "teacher" in prefix.split(".")] or fit
    if len(fit) > 1:
        raise InputError(
            f"the weights hold several such networks, under {some(fit)}; save the one that is "
            "meant alone."
        )
    prefix = fit[0]
    chosen = {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)}
    if beside := len(tensors) - len(chosen):
        said = f"weights: those under {prefix} are taken, {beside:,} tensors beside them left out"
        print(said, file=sys.stderr)
    return chosen


def unport(params: Mapping) -> dict[str, np.ndarray]:
    """The PyTorch state dict of a nested dict of parameters: the inverse of `port`."""
    tensors = {}
    for path, leaf in nnx.traversals.flatten_mapping(params).items():
        x = np.asarray(jax.device_get(leaf))
        x = x.transpose(np.argsort(_AXES[x.ndim])) if path[-1] == "kernel" else x
        tensors[_torch_key(path)] = np.array(x, order="C")
    return tensors


def keys(shapes: Mapping) -> list[str]:
    """PyTorch's names of the parameters, in the order of the nested dict."""
    return [_torch_key(path) for path in nnx.traversals.flatten_mapping(shapes)]


def _torch_key(path: tuple) -> str:
    return ".".join(map(str, (*path[:-1], _TORCH_NAMES.get(path[-1], path[-1]))))


def some(keys: Iterable[str], limit: int = 8) -> str:
    """The first of the keys, for a message."""
    keys = list(keys)
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more
