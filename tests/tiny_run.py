"""A run that a test can afford: made-up records, a model of one block, commands as processes."""

import os
import subprocess
import sys
from pathlib import Path

from mis_jax.datasets import scenes
from mis_jax.features.extractors import make_extractor
from mis_jax.records import propose, shard_files

CONFIG = """
from mis_jax import config
from mis_jax.models import simpleclick


def get_config():
    simpleclick.VARIANTS["Test"] = simpleclick.Variant(16, 1, 2, 8, (8, 8, 8, 8), 8, 1, 24)
    c = config.default()
    c.features.update(model="embedded", stride=8)
    c.propose.update(shard_size=3, threads=1)
    c.data.update(crop=48, scale=(0.5, 1.0), min_object_area=20, threads=1, prefetch=1)
    c.model.variant = "Test"
    c.optim.update(batch_size=2, steps=8, lr=1e-3, warmup=2, milestones=(5,), ema=0.5)
    c.loss.smooth_weight = 0.0
    c.train.update(log_every=1, checkpoint_every=2, color_aug=False)
    c.eval.update(size=48, davis_size=48)
    return c
"""


def get_config():
    """The config of CONFIG; its model is known from here on."""
    scope = {}
    exec(CONFIG, scope)
    return scope["get_config"]()


def write_config(folder: Path) -> Path:
    """A file for `--config`."""
    (folder / "tiny.py").write_text(CONFIG)
    return folder / "tiny.py"


def write_records(folder: Path) -> list[str]:
    """Shards of six small scenes in `folder`/records; their images are in `folder`/images."""
    scenes.write_benchmark(folder, 6, size=(64, 64))
    return propose_images(folder / "images", folder / "records")


def propose_images(source: Path, folder: Path) -> list[str]:
    """Shards of the images of a folder."""
    propose.propose(
        source,
        folder,
        extractor=make_extractor("embedded", stride=8),
        batch_size=1,
        max_side=0,
        shard_size=3,
        threads=1,
    )
    return shard_files(folder)


def start(command: str, *words: object, cache: Path) -> subprocess.Popen:
    """`mis-jax COMMAND WORDS` with its stderr in a pipe; compiled programs are kept in `cache`."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        # As conftest.py compiles, for one device.
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1",
        "NPROC": "16",  # threads of XLA, which two processes on few cores would else starve of
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "mis_jax", command, *map(str, words)],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
