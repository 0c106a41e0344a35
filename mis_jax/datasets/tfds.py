"""Evaluation sets that were built as TFDS datasets (tfds_builders.py), read without TensorFlow.

A record holds one object, in the order of the evaluation:

    id, index     its name and its place in that order
    image         [H, W, 3] uint8, as PNG
    mask          [H, W, 1] uint8, as PNG: 1 on the object, 0 elsewhere, 255 where it does not count
"""

import functools
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mis_jax.datasets.samples import Labelled, Reader
from mis_jax.errors import InputError

SPLIT = "test"
IGNORED = 255  # in a stored mask, for -1


def imported() -> ModuleType:
    """The package tensorflow_datasets, which not everybody has.

    Raises:
        InputError: it is not installed.
    """
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise InputError(
            "TFDS is not installed; install it with pip install 'mis-jax[tfds]'."
        ) from error
    return tensorflow_datasets


def read_built(folder: Path) -> tuple[dict[str, Reader], dict[str, str]]:
    """Readers of the objects of a built set, and what was left out when it was built.

    Raises:
        InputError: the folder is damaged, or is of another dataset.
    """
    tensorflow_datasets = imported()
    try:
        builder = tensorflow_datasets.builder_from_directory(folder)
        source = builder.as_data_source(SPLIT)
        ids, skipped = (
            list(map(str, builder.info.metadata["ids"])),
            dict(builder.info.metadata["skipped"]),
        )
        count = len(source)
    except Exception as error:  # of all kinds
        raise InputError(
            f"{folder} is no set that tools/data/build_benchmarks.py made, or is damaged "
            f"({type(error).__name__}: {error}); build it again."
        ) from error
    if count != len(ids):
        raise InputError(f"{folder} has {count} of {len(ids)} records; build it again.")
    return {id: functools.partial(_read, source, k, id) for k, id in enumerate(ids)}, skipped


def _read(source: Any, position: int, id: str) -> Labelled:
    try:
        record = source[position]
    except Exception as error:  # of all kinds
        raise InputError(f"record {position} is damaged ({error}); build the set again") from error
    if record["id"] != id.encode():
        raise InputError(f"record {position} is of another object; build the set again")
    mask = record["mask"][..., 0].astype(np.int32)
    return Labelled(record["image"], np.where(mask == IGNORED, -1, mask))
