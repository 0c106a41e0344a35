"""Checkpoints of a run: config, parameters, optimizer and stream position, by Orbax.

A run folder holds `config.json`, `metrics.jsonl` and `checkpoints/STEP/{params,opt_state,...}`. A
step appears under its name only when it is complete, so a killed save leaves the one before it.
"""

import json
import pathlib

import jax
import numpy as np
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp

from mis_jax import simpleclick
from mis_jax.errors import InputError


def checkpointer(run: pathlib.Path, every: int, keep: int) -> ocp.training.Checkpointer:
    """Saves every `every` steps and keeps the last `keep`; use it in a `with` statement."""
    return ocp.training.Checkpointer(
        (run / "checkpoints").absolute(),
        save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(every),
        preservation_policy=ocp.training.preservation_policies.LatestN(keep),
    )


def write_config(run: pathlib.Path, config: ConfigDict) -> None:
    """Writes the run's config, whole or not at all."""
    temporary = run / "config.json.partial"
    temporary.write_text(json.dumps(config.to_dict(), indent=1) + "\n")
    temporary.replace(run / "config.json")


def read_config(run: pathlib.Path) -> ConfigDict:
    """The config a run was started with."""
    try:
        return ConfigDict(json.loads((run / "config.json").read_text()))
    except FileNotFoundError:
        raise InputError(
            f"{run} holds no config.json, so it is no training run; give the folder that "
            "`mis-jax train --workdir` was given."
        ) from None
    except json.JSONDecodeError as error:
        raise InputError(f"{run}/config.json is damaged ({error}).") from None


def latest_step(run: pathlib.Path) -> int:
    """The newest complete checkpoint's step."""
    with ocp.training.Checkpointer((run / "checkpoints").absolute()) as saved:
        if saved.latest is None:
            raise InputError(f"{run} holds no checkpoint yet; let `mis-jax train` reach one.")
        return saved.latest.step


def load(run: str | pathlib.Path) -> tuple[ConfigDict, dict]:
    """Config and parameters of the newest checkpoint, on one device, for inference.

    Where a running mean of the parameters was kept (`config.optim.ema`), it is what comes back.

    Raises:
        InputError: not a run, no checkpoint, or parameters of other shapes than the config's model.
    """
    run = pathlib.Path(run)
    config = read_config(run)
    step = latest_step(run)
    item = "ema" if config.optim.ema else "params"
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device),
        simpleclick.shapes(config.model.variant, config.model.patch, config.data.crop),
    )
    check_shapes(run / "checkpoints" / str(step), item, shapes)
    with ocp.training.Checkpointer((run / "checkpoints").absolute()) as saved:
        return config, saved.load_checkpointables(step, {item: shapes})[item]


def check_shapes(folder: pathlib.Path, item: str, shapes) -> None:
    """Raises `InputError` where a saved item's arrays are not those of `shapes`."""
    metadata = ocp.checkpointables_metadata(folder).metadata[item]
    saved, wanted = _flat(metadata), _flat(shapes)
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            raise InputError(
                f"{folder}: {item}.{name} is {saved.get(name, 'absent')} in the checkpoint and "
                f"{wanted.get(name, 'absent')} in the model of the config; use the config the run "
                "was trained with, or another --workdir."
            )


def _flat(tree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree.leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
    name = lambda path: ".".join(str(getattr(p, "key", getattr(p, "idx", p))) for p in path)  # noqa: E731
    return {name(path): tuple(np.asarray(x.shape).tolist()) for path, x in leaves}
