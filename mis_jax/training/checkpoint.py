"""Checkpoints of a run: config, parameters, optimizer and stream position, by Orbax.

A run folder holds `config.json`, `records.json` (which records it is trained on), `metrics.jsonl`
and `checkpoints/STEP/{params,opt_state,...}`. A step appears under its name only when it is
complete, so a killed save leaves the one before it.
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
from mis_jax.errors import InputError
from mis_jax.files import write_file
from mis_jax.models import loading


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
    write_file(run / "config.json", json.dumps(config.to_dict(), indent=1) + "\n")


def agree(run: pathlib.Path, config: ConfigDict, free: tuple[str, ...]) -> None:
    """Raises `InputError` where a run that is there has another config.

    Fields may differ whose names start with one of `free`, such as "optim.steps" or "eval.".
    """
    if not (run / "config.json").exists():
        return
    old = configs.fields(loading.read_config(run))
    new = configs.fields(ConfigDict(json.loads(json.dumps(config.to_dict()))))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name) and not name.startswith(free):
            raise InputError(
                f"{run} was started with config.{name}={old.get(name)!r}, and now it is "
                f"{new.get(name)!r}; resume it with the same value, or give another --workdir."
            )


def agree_records(run: pathlib.Path, now: Mapping[str, object]) -> str:
    """Checks that a run with a checkpoint goes on with the records that it was trained on.

    Args:
        run: the run's folder.
        now: "digest" (`records.fingerprint`), "records" (how many) and "folder"; the last may
            differ, since folders are moved.

    Returns:
        A line if the run is of before this was kept, else "".

    Raises:
        InputError: they are others.
    """
    if not loading.has_begun(run):
        return ""
    try:
        then = json.loads((run / "records.json").read_text("utf-8"))
        digest, count, folder = (then[name] for name in ("digest", "records", "folder"))
    except FileNotFoundError:
        return (
            f"{run} does not say which records it was trained on; from now on it does: "
            f"{now['records']:,} of {now['folder']}"
        )
    except (ValueError, TypeError, LookupError):
        raise InputError(
            f"{run}/records.json is damaged; delete it if the records are the same as before."
        ) from None
    if digest != now["digest"]:
        raise InputError(
            f"{run} was trained on other records, {count} of {folder}, and now they are "
            f"{now['records']:,} of {now['folder']}; give the records it was trained on, or "
            f"another --workdir, where --config.model.start={run} begins from its parameters."
        )
    return ""


def write_records(run: pathlib.Path, now: Mapping[str, object]) -> None:
    """Writes what `agree_records` compares, whole or not at all."""
    write_file(run / "records.json", json.dumps(now, indent=1) + "\n")


def save_failed(folder: pathlib.Path, state: dict, batch: Mapping[str, np.ndarray]) -> None:
    """Keeps a train state as after its last sound step, and the batch that it could not take.

    `state` is what `train_step.make_step` leaves after a step that went wrong: its step is -1 - k.
    """
    state = {**state, "step": -1 - state["step"]}
    ocp.save_checkpointables(folder.absolute() / "state", state, overwrite=True)
    # NumPy's types take each array for its flag allow_pickle too.
    np.savez(folder / f"batch_{jax.process_index()}.npz", **batch)  # type: ignore[arg-type]
