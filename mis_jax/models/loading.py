"""A model from where it is kept: a run's checkpoints, or one file of ours or of the public code.

A run folder holds `config.json` and `checkpoints/STEP/{params,opt_state,...}`, by Orbax. A step
appears under its name only when it is complete. In place of a run or file, the word SHIPPED is the
model that comes with the package.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp

from mis_jax import config as configs
from mis_jax.config import SHIPPED
from mis_jax.errors import InputError
from mis_jax.models import correction, official, porting, simpleclick, state_dicts

FILES = (".safetensors", ".pth", ".pt")
SHIPPED_FILE = pathlib.Path(__file__).with_name("shipped.safetensors")


def resolve(source: str | os.PathLike[str]) -> pathlib.Path:
    """The path of a run or file; the word SHIPPED, as text, is the model that comes with mis_jax.

    Raises:
        InputError: it is that word, and the working folder has something of this name.
    """
    if source != SHIPPED:
        return pathlib.Path(source)
    if os.path.lexists(SHIPPED):
        raise InputError(
            f'"{SHIPPED}" is the model that comes with mis_jax, and there is a file or folder of '
            f"this name, too; give ./{SHIPPED} for that, or {SHIPPED_FILE} for the model."
        )
    return SHIPPED_FILE


def read_config(run: pathlib.Path) -> ConfigDict:
    """The config a run was started with; tuples come back as lists."""
    try:
        return _parse_config((run / "config.json").read_bytes(), f"{run}/config.json")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{run} holds no config.json, so it is no training run; give the folder that "
            "`mis-jax train --workdir` was given."
        ) from None


def config_of(source: str | os.PathLike[str]) -> ConfigDict | None:
    """`read_config` of a run; None of anything else, such as a weights file."""
    run = resolve(source)
    return read_config(run) if (run / "config.json").is_file() else None


def _parse_config(text: str | bytes, where: str) -> ConfigDict:
    try:
        config = ConfigDict(json.loads(text))
        configs.add_later(config)
        configs.check(config)
    except (ValueError, TypeError, AttributeError) as error:  # InputError is a ValueError
        why = str(error).rstrip(".")
        raise InputError(f"{where} is damaged or of another version ({why}).") from None
    return config


def latest_step(run: pathlib.Path) -> int:
    """The newest complete checkpoint's step."""
    if not has_begun(run):
        raise InputError(f"{run} holds no checkpoint yet; let `mis-jax train` reach one.")
    return max(_steps(run))


def has_begun(run: pathlib.Path) -> bool:
    """Whether a run has a checkpoint."""
    return bool(_steps(run))


def _steps(run: pathlib.Path) -> list[int]:
    folder = run / "checkpoints"
    names = os.listdir(folder) if folder.is_dir() else []
    return [int(name) for name in names if name.isdigit()]


def load(source: str | os.PathLike[str]) -> tuple[ConfigDict, dict]:
    """Config and parameters for inference, on one device: of a run, a weights file, or SHIPPED.

    Of a run it is the newest checkpoint; where a running mean of the parameters was kept
    (`config.optim.ema`), it is what comes back. A file is one by `mis-jax export`, or a checkpoint
    of the public code of SimpleClick or MIS, or the state dict of one (.pth, .safetensors).

    Raises:
        InputError: not a run, no checkpoint, or parameters of other shapes than the model's, or
            such that are not finite; and of `resolve`.
    """
    source = resolve(source)
    if source.is_file() or (source.suffix in FILES and not source.is_dir()):
        return _load_file(source)
    config = read_config(source)
    item = "ema" if config.optim.ema else "params"
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), _shapes(config)
    )
    step = latest_step(source)
    params = restore(source, step, {item: abstract})[item]
    remedy = f"delete {source / 'checkpoints' / str(step)} to take the checkpoint before it"
    for path, x in nnx.traversals.flatten_mapping(params).items():
        try:
            porting.check_finite(".".join(map(str, (item, *path))), np.asarray(x), remedy)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
    return config, params


def _load_file(file: pathlib.Path) -> tuple[ConfigDict, dict]:
    tensors, others = state_dicts.load(file)
    try:
        if "mis_jax" in others:
            config = _parse_config(others["mis_jax"], "its config")
        else:
            tensors = porting.unwrapped(tensors, official.KEYS)
            config = official.config_of(tensors, others.get("config"))
        params = porting.port(tensors, _shapes(config), porting.UNUSED_SIMPLECLICK)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    return config, jax.device_put(params, jax.local_devices()[0])


def digest(params: Any) -> str:
    """A fingerprint of every parameter."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()[:16]


def _shapes(config: ConfigDict) -> dict:
    if config.model.evidence:
        return correction.shapes(config.model.evidence)
    return simpleclick.shapes(config.model.variant, config.model.patch, config.data.crop)


def restore(run: pathlib.Path, step: int, abstract: Mapping[str, object]) -> dict:
    """Items of a checkpoint: {name: tree of `jax.ShapeDtypeStruct` with shardings, or None}.

    Raises:
        InputError: an array is absent or has another shape, or the checkpoint cannot be read.
    """
    folder = (run / "checkpoints" / str(step)).absolute()
    try:
        metadata = ocp.checkpointables_metadata(folder).metadata
        for item, tree in abstract.items():
            if metadata[item] is None:
                raise ValueError(f"{item} cannot be read")
            if tree is not None:
                _check_shapes(folder, item, metadata[item], tree)
        return ocp.load_checkpointables(folder, dict(abstract))
    except InputError:
        raise
    except Exception as error:  # of many kinds, from Orbax and TensorStore
        raise InputError(
            f"{folder} is damaged ({type(error).__name__}); delete it to go on from the "
            "checkpoint before it."
        ) from error


def _check_shapes(folder: pathlib.Path, item: str, metadata: object, tree: object) -> None:
    saved, wanted = _flat(metadata), _flat(tree)
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            raise InputError(
                f"{folder}: {item}.{name} is {saved.get(name, 'absent')} in the checkpoint and "
                f"{wanted.get(name, 'absent')} in the model of the config; use the config the run "
                "was trained with, or another --workdir."
            )


def _flat(tree: object) -> dict[str, list[int]]:
    """Shape by name; numbers and strings are the same as keys, since Orbax gives back strings."""
    leaves = jax.tree.leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
    names = ("key", "idx", "name")  # of an entry of a dict, a list, a named tuple
    key = lambda part: str(next(getattr(part, n) for n in names if hasattr(part, n)))  # noqa: E731
    return {".".join(map(key, path)): list(x.shape) for path, x in leaves}
