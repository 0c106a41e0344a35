"""An evidence network that a test can afford: narrow, with a correction that is not zero."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import safetensors.numpy
from flax import nnx

from mis_jax import config
from mis_jax.models import correction, porting

WIDTH = 4


@functools.cache
def parameters(seed: int = 0, width: int = WIDTH) -> dict:
    """Of the shapes of a network, drawn so that its values stay of about one size."""
    rng = np.random.default_rng(seed)
    draw = lambda x: rng.normal(0, (np.prod(x.shape[:-1]) or 100.0) ** -0.5, x.shape)  # noqa: E731
    return jax.tree.map(lambda x: draw(x).astype(np.float32), correction.shapes(width))


def untrained(width: int = WIDTH) -> dict:
    """As training begins: its correction is zero."""
    make = lambda: nnx.to_pure_dict(nnx.state(correction.make(width), nnx.Param))  # noqa: E731
    return jax.tree.map(np.asarray, jax.jit(make)())


def settings(**fields):
    """A config of such a network."""
    c = config.default()
    c.update_from_flattened_dict({"model.evidence": WIDTH, "data.crop": 64, **fields})
    return c


def write_file(path: Path, seed: int = 0) -> Path:
    """A file as `mis-jax export` writes it."""
    metadata = {"mis_jax": json.dumps(settings().to_dict()), "init": "random"}
    safetensors.numpy.save_file(porting.unport(parameters(seed)), path, metadata)
    return path
