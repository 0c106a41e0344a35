"""Checkpoints of a run: config, parameters, optimizer and stream position, by Orbax.

A run folder holds `config.json`, `metrics.jsonl` and `checkpoints/STEP/{params,opt_state,...}`. A
step appears under its name only when it is complete, so a killed save leaves the one before it.
"""

import contextlib
import errno
import json
import os
import pathlib
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp

from mis_jax import config as configs
from mis_jax import download, official, records, simpleclick, state_dicts, weights
from mis_jax.errors import InputError

FILES = (".safetensors", ".pth", ".pt")


def checkpointer(run: pathlib.Path, every: int, keep: int) -> ocp.training.Checkpointer:
    """Saves every `every` steps and keeps the last `keep`; use it in a `with` statement.

    It removes what killed saves left.
    """
    return ocp.training.Checkpointer(
        (run / "checkpoints").absolute(),
        save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(every),
        preservation_policy=ocp.training.preservation_policies.LatestN(keep),
        cleanup_tmp_directories=True,
    )


# TensorStore and Orbax have an error of the disk in the text of one of their own.
CODES = errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO


@contextlib.contextmanager
def writing(run: pathlib.Path) -> Iterator[None]:
    """What Orbax raises about the disk, in various ways and late, becomes an `InputError`."""
    try:
        yield
    except Exception as error:
        found = [reason for reason in map(os.strerror, CODES) if reason in str(error)]
        if isinstance(error, InputError) or getattr(error, "filename", None) or not found:
            raise
        raise InputError(
            f"{run} cannot be written ({found[0]}); its last complete checkpoint is kept: make "
            "room or mend the disk, and the same command goes on from it."
        ) from error


def write_config(run: pathlib.Path, config: ConfigDict) -> None:
    """Writes the run's config, whole or not at all."""
    records.write_file(run / "config.json", json.dumps(config.to_dict(), indent=1) + "\n")


def read_config(run: pathlib.Path) -> ConfigDict:
    """The config a run was started with; tuples come back as lists."""
    try:
        return _parse_config((run / "config.json").read_text(), f"{run}/config.json")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{run} holds no config.json, so it is no training run; give the folder that "
            "`mis-jax train --workdir` was given."
        ) from None


def _parse_config(text: str, where: str) -> ConfigDict:
    try:
        config = ConfigDict(json.loads(text))
        configs.add_later(config)
        configs.check(config)
    except (ValueError, TypeError, AttributeError) as error:  # InputError is a ValueError
        text = str(error).rstrip(".")
        raise InputError(f"{where} is damaged or of another version ({text}).") from None
    return config


def agree(run: pathlib.Path, config: ConfigDict, free: tuple[str, ...]) -> None:
    """Raises `InputError` where a run that is there has another config.

    Fields may differ whose names start with one of `free`, such as "optim.steps" or "eval.".
    """
    if not (run / "config.json").exists():
        return
    old = configs.fields(read_config(run))
    new = configs.fields(ConfigDict(json.loads(json.dumps(config.to_dict()))))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name) and not name.startswith(free):
            raise InputError(
                f"{run} was started with config.{name}={old.get(name)!r}, and now it is "
                f"{new.get(name)!r}; resume it with the same value, or give another --workdir."
            )


def save_failed(folder: pathlib.Path, state: dict, batch: Mapping[str, np.ndarray]) -> None:
    """Keeps a train state as after its last sound step, and the batch that it could not take.

    `state` is what `train.make_step` leaves after a step that went wrong: its step is -1 - k.
    """
    state = {**state, "step": -1 - state["step"]}
    ocp.save_checkpointables(folder.absolute() / "state", state, overwrite=True)
    np.savez(folder / f"batch_{jax.process_index()}.npz", **batch)


def origin(config: ConfigDict) -> dict[str, str]:
    """What is kept with trained weights of those they began from: "init", and a "licence"."""
    init = config.model.init
    known = (s.licence for name, s in download.KNOWN.items() if name.startswith(f"{init}-"))
    licence = next(known, None)
    return {"init": init} | ({"licence": licence} if licence else {})


def latest_step(run: pathlib.Path) -> int:
    """The newest complete checkpoint's step."""
    folder = run / "checkpoints"
    names = os.listdir(folder) if folder.is_dir() else []
    steps = [int(name) for name in names if name.isdigit()]
    if not steps:
        raise InputError(f"{run} holds no checkpoint yet; let `mis-jax train` reach one.")
    return max(steps)


def load(source: str | pathlib.Path) -> tuple[ConfigDict, dict]:
    """Config and parameters for inference, on one device: of a run or of a weights file.

    Of a run it is the newest checkpoint; where a running mean of the parameters was kept
    (`config.optim.ema`), it is what comes back. A file is one by `mis-jax export`, or a checkpoint
    of the public code of SimpleClick or MIS, or the state dict of one (.pth, .safetensors).

    Raises:
        InputError: not a run, no checkpoint, or parameters of other shapes than the model's.
    """
    source = pathlib.Path(source)
    if source.is_file() or (source.suffix in FILES and not source.is_dir()):
        return _load_file(source)
    config = read_config(source)
    item = "ema" if config.optim.ema else "params"
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), _shapes(config)
    )
    return config, restore(source, latest_step(source), {item: abstract})[item]


def _load_file(file: pathlib.Path) -> tuple[ConfigDict, dict]:
    tensors, others = state_dicts.load(file)
    try:
        if "mis_jax" in others:
            config = _parse_config(others["mis_jax"], "its config")
        else:
            config = official.config_of(tensors, others.get("config"))
        params = weights.port(tensors, _shapes(config), weights.UNUSED_SIMPLECLICK)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    return config, jax.device_put(params, jax.local_devices()[0])


def _shapes(config: ConfigDict) -> dict:
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
