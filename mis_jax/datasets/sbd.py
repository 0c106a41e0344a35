"""SBD's labels: the instances of its .mat files, and which labels each of thousands of them has.

Listing the labels takes seconds, so they are kept in the cache folder, each with the size and the
times of its file: one that has changed since is read again.
"""

import contextlib
import hashlib
import json
import os
import time
import zlib
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mis_jax.datasets import mat
from mis_jax.datasets.recent import stamp
from mis_jax.errors import InputError
from mis_jax.files import cache_folder, write_file

SETTLED = 2_000_000_000  # nanoseconds after which a file's time tells its next change apart
WORTH_SAVING = 100  # files whose labels were not known before; fewer are soon read again
_VERSION = 1  # of the saved list


def names(folder: Path) -> list[str]:
    """The images of val.txt of SBD's folder, in its order.

    Raises:
        InputError: there is no val.txt that can be read.
    """
    listing = folder / "val.txt"
    try:
        return listing.read_text("utf-8").split()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{listing} cannot be read ({error}); sbd needs img/, inst/ and val.txt."
        ) from error


def segmentation(path: Path) -> np.ndarray:
    """Instance labels [H, W] of a file of SBD's inst folder, 0 where there is none.

    Raises:
        InputError: names the file that is no such file.
    """
    try:
        return mat.read_field(path.read_bytes(), "GTinst", "Segmentation")
    except (OSError, ValueError, zlib.error) as error:
        raise InputError(f"{path} is not a readable SBD instance file ({error})") from error


def list_labels(folder: Path, listed: list[str]) -> tuple[dict[str, list[int]], dict[str, str]]:
    """The labels of each of the images `listed`, ascending, without 0.

    Args:
        folder: of NAME.mat files.

    Returns:
        ({name: labels}, {name of a file that cannot be read: why}), both in the order of `listed`.
    """
    cache = _cache_file(folder)
    known, entries, skipped = _load(cache), {}, {}
    for name in tqdm(listed, "listing sbd", unit="image", disable=None, delay=1):
        path = folder / f"{name}.mat"
        now = list(stamp(path))
        entry = known.get(name)
        if entry is None or entry[0] != now:
            try:
                labels = segmentation(path)
            except InputError as error:
                skipped[name] = str(error)
                continue
            entry = now, np.unique(labels[labels != 0]).tolist()
        entries[name] = entry
    if sum(known.get(name) != entry for name, entry in entries.items()) >= WORTH_SAVING:
        _save(cache, entries)
    return {name: labels for name, (_, labels) in entries.items()}, skipped


def _cache_file(folder: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return cache_folder() / f"sbd-labels-{digest}.json"


def _load(cache: Path) -> dict[str, tuple[list[int], list[int]]]:
    """Name -> (stamp, labels) as they were saved; empty if that is not what the file says."""
    try:
        saved = json.loads(cache.read_text("utf-8"))
        if saved["digest"] == _digest(saved["entries"]):
            return {name: (stamped, labels) for name, (stamped, labels) in saved["entries"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        pass
    return {}


def _save(cache: Path, entries: dict[str, tuple[list[int], list[int]]]) -> None:
    """Saves what is old enough that a change from now on would change its times."""
    latest = time.time_ns() - SETTLED
    settled = {name: entry for name, entry in entries.items() if max(entry[0][1:]) < latest}
    with contextlib.suppress(OSError):  # it only saves time
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_file(cache, json.dumps({"digest": _digest(settled), "entries": settled}))


def _digest(entries: dict) -> str:
    text = json.dumps([_VERSION, entries], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
