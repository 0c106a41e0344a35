"""Trained weights into one file for this project or for the public code: `mis-jax export`."""

import json
import os
import pathlib
from collections.abc import Sequence

import safetensors.numpy
from ml_collections import ConfigDict

from mis_jax.errors import InputError
from mis_jax.models import licences, loading, official, porting, state_dicts


def export(source: str | os.PathLike[str], file: str | os.PathLike[str]) -> ConfigDict:
    """Writes what `loading.load(source)` gives, the config included, into one file.

    `mis_jax.Predictor.load` and `mis-jax evaluate` open what is written. FILE.safetensors has
    PyTorch's names and layouts; FILE.pth is a checkpoint that the public code of SimpleClick and
    MIS loads strictly.

    Returns:
        The config.

    Raises:
        InputError: of `loading.load`; another suffix; a model that the public code lacks.
    """
    file = pathlib.Path(file)
    if file.suffix not in (".safetensors", ".pth"):
        raise InputError(f"{file}: the name of an exported file ends in .safetensors or .pth.")
    config, params = loading.load(source)
    if config.model.evidence and file.suffix == ".pth":
        raise InputError(f"{file}: the public code has no evidence network; write a .safetensors.")
    tensors = porting.unport(params)
    metadata = {"mis_jax": json.dumps(config.to_dict()), **licences.origin(config)}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(f"{file}.partial")
    try:
        if file.suffix == ".pth":
            tensors, settings = official.content(tensors, config)
            state_dicts.save(partial, tensors, config=settings, **metadata)
        else:
            safetensors.numpy.save_file(tensors, partial, metadata)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return config


def define_flags() -> None:
    """`mis-jax export` has none."""


def main(argv: Sequence[str]) -> None:
    """Binary: `mis-jax export RUN FILE`."""
    if len(argv) != 3:
        raise InputError(
            "A run or weights file, or the word shipped, and the file to write: mis-jax export RUN "
            "FILE.safetensors, or FILE.pth for the public code."
        )
    config = export(argv[1], argv[2])
    evidence, variant = config.model.evidence, config.model.variant
    name = f"the evidence network of width {evidence}" if evidence else f"SimpleClick {variant}"
    print(f"{argv[2]}: {name}, trained at {config.data.crop} pixels")
    if licence := licences.origin(config).get("licence"):
        print(f"Its backbone began from {config.model.init}'s weights; their licence is {licence}.")
