"""Published weights and evaluation sets from where they are: `mis-jax download [NAME ...]`."""

import os
from collections.abc import Sequence
from pathlib import Path

from mis_jax.downloads import archives
from mis_jax.downloads.weights import KNOWN, download_weights, find_weights
from mis_jax.errors import InputError
from mis_jax.files import cache_folder


def define_flags() -> None:
    """`mis-jax download` has none."""


def main(argv: Sequence[str]) -> None:
    """Downloads the checkpoints and evaluation sets argv[1:], or lists all that are known.

    A last word that is a path, not a name, is the folder for them instead of the cache folder.
    """
    names, cache = list(argv[1:]), None
    if names and (os.sep in names[-1] or Path(names[-1]).is_dir()):
        cache = names.pop()
    for name in names:
        if name not in KNOWN.keys() | archives.SETS.keys():
            known = ", ".join([*KNOWN, *archives.SETS])
            raise InputError(f'there are no known weights or sets "{name}"; there are {known}.')
    if not names:
        print(f"in {cache_folder(cache)} ($MIS_JAX_CACHE); mis-jax download NAME ... adds to it:")
        print("\n".join(_line(name, cache) for name in [*KNOWN, *archives.SETS]))
    for name in names:
        if name in archives.SETS:
            folder = archives.download(name, cache)
            print(f"{name}: --datasets {name}={folder} ({archives.SETS[name].terms})")
        else:
            print(f"{name}: {download_weights(name, cache)} (licence {KNOWN[name].licence})")


def _line(name: str, cache: str | Path | None) -> str:
    if name in KNOWN:
        terms, found = KNOWN[name].licence, find_weights(name, cache)
    else:
        terms, found = archives.SETS[name].terms, archives.find(name, cache)
    return f"  {name:<14} {'there' if found else '':<6} {terms}"
