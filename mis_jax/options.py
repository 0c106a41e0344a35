"""Flags that several commands share: `--config`, `--masks` and `--shard`."""

import pathlib
import re
import sys
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from mis_jax import config
from mis_jax.errors import InputError, instead


def define_config(default: str) -> None:
    """Defines `--config`: a name of `configs/` or a file, with overrides below it."""
    chosen = [word.partition("=")[2] for word in sys.argv if word.startswith("--config=")]
    file = (chosen or [str(config.find(default))])[-1]
    known = config.fields(config.load(file))
    for word in sys.argv:
        field = re.match(r"--?(?:no)?config\.([^=]*)", word)
        if field and field[1] not in known:
            raise InputError(f"there is no field config.{field[1]}{instead(field[1], known)}")
    names = f"{', '.join(config.names())}, or a file of your own"
    config_flags.DEFINE_config_file("config", file, f"{names}; {pathlib.Path(file).stem} if none.")


def section(name: str, of_run: ConfigDict | None) -> dict[str, Any]:
    """The fields of a section: a run's own, those of a `--config` given, and overrides above both.

    Args:
        name: of the section.
        of_run: the config of a run, if there is one.
    """
    flag: Any = flags.FLAGS["config"]  # of ml_collections, which has no types
    chosen = flags.FLAGS.config if of_run is None or flag.present else of_run
    fields = dict(chosen[name])
    for field, value in flag.override_values.items():
        group, _, leaf = field.partition(".")
        if group == name:
            fields[leaf] = value
    return fields


def define_masks() -> None:
    """Defines `--masks`, for commands that read masks (datasets/reading.py)."""
    flags.DEFINE_list(
        "masks",
        [],
        "Where masks leave it open: ids (every value is an object), half (the object is above half "
        "of the range), stored or upright (drawn before or after the EXIF rotation).",
    )


def define_shard() -> None:
    """Defines `--shard`, for commands that several processes share."""
    flags.DEFINE_string(
        "shard", None, "i/n: this process, counted from 0, of n; default: the JAX process."
    )


def parse_shard(text: str | None) -> tuple[int, int]:
    """(i, n) of a `--shard`, by default the index and number of JAX processes."""
    if text is None:
        import jax

        return jax.process_index(), jax.process_count()
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise InputError(f"--shard={text} is not i/n with i from 0 to n - 1, such as 0/4.")
    return int(match[1]), int(match[2])
