"""Which image is in which shard, and what has changed since the shards were made.

The plan is a part of the folder's index (propose.json): shard -> ids of its images, usable or not.
The file beside each shard says which files it was made of: id, SHA-256 (empty where one cannot be
read), size and times. A file of the same size and times is the same, as for git; else its digest
decides.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mis_jax.datasets import stamp
from mis_jax.errors import InputError
from mis_jax.files import write_file
from mis_jax.records import store

Plan = dict[str, list[str]]  # file name of a shard, in order -> ids of its images
OLDER = "made by an older mis_jax, their files compared by name and size alone"


@dataclasses.dataclass(frozen=True)
class Changes:
    """Ids of images that are not as they were when the records were made."""

    new: list[str] = dataclasses.field(default_factory=list)
    changed: list[str] = dataclasses.field(default_factory=list)
    gone: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        """Such as "3 new, 2 gone"; empty if there are none."""
        counts = {name: len(ids) for name, ids in dataclasses.asdict(self).items()}
        return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)


def grown(plan: Plan, ids: Sequence[str], size: int) -> Plan:
    """The plan for the images `ids`: what is gone leaves its shard, what is new gets new shards.

    The same plan and ids give the same plan, and again the same when it is grown once more, so
    processes that do it at the same time agree.
    """
    there, known = set(ids), {id for held in plan.values() for id in held}
    new = [id for id in ids if id not in known]
    result = {name: [id for id in held if id in there] for name, held in plan.items()}
    total = len(plan) + -(-len(new) // size)
    for first in range(0, len(new), size):
        result[store.shard_name(len(result), total)] = new[first : first + size]
    return result


def old_plan(folder: str | Path, index: dict, paths: Mapping[str, Path]) -> Plan:
    """The plan of a folder that was begun, from its index.

    Args:
      folder: of the shards.
      index: `store.read_index` of it.
      paths: id -> file of the images that are there now, in order.

    Raises:
      InputError: the index is older than plans, and of other images.
    """
    if not index or "plan" in index:
        return index.get("plan", {})
    if index.get("digest") != _names_and_sizes(paths):
        raise InputError(
            f"{folder} was begun by an older mis_jax with other images ({index.get('images')} "
            f"then, {len(paths)} now, or other names or sizes), and does not know which; "
            f"{store.ANOTHER}."
        )
    return grown({}, list(paths), index["settings"]["shard_size"])


def changes(
    folder: str | Path, plan: Plan, everything: Mapping[str, Path], ids: Sequence[str]
) -> Changes:
    """What has changed of the images of a plan, where these are `ids` now.

    `everything` is id -> file. Files are read only where their stamp differs, and the file beside
    their shard is given the new stamp where their content does not.
    """
    there, known = set(ids), [id for held in plan.values() for id in held]
    if not plan:
        return Changes()
    changed = [
        id
        for name in plan
        for id in _changed(Path(folder, name), {i: everything[i] for i in plan[name] if i in there})
    ]
    old = set(known)
    return Changes(
        [id for id in ids if id not in old], changed, [id for id in known if id not in there]
    )


def begin(
    folder: str | Path, index: dict, everything: Mapping[str, Path], ids: Sequence[str]
) -> tuple[Plan, Changes, int]:
    """Makes a folder and its plan, or grows the plan that it has; shards to be made anew go first.

    Killed at any moment it leaves a folder that `store.shard_files` calls unfinished, or the one
    before.

    Args:
      folder: of the shards.
      index: "version", "settings" (with shard_size) and "source", see `store.begin`.
      everything: id -> file, of all images that were found.
      ids: those of them that get records.

    Returns:
      The plan, what has changed since the last time, and how many shards an older mis_jax left.

    Raises:
      InputError: the folder has other settings, or was made of other images altogether, or most of
        its images have gone, as from a disk that is not there.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    old = store.read_index(folder)
    store.check(folder, old, index)
    before = old_plan(folder, old, everything)
    older = _adopt(Path(folder), before, everything) if old and "plan" not in old else 0
    found = changes(folder, before, everything, ids)
    known = sum(map(len, before.values()))
    moved = old.get("source") != index["source"]
    if known and moved and len(found.changed) + len(found.gone) == known:
        raise InputError(
            f"{folder} holds records of other images ({old.get('source')}): not one of those "
            f"{known:,} is as it was in {index['source']}; {store.ANOTHER}."
        )
    if 2 * len(found.gone) > known:
        raise InputError(
            f"{folder} holds records of {known:,} images, and {len(found.gone):,} of these are not "
            f"in {index['source']} any more ({found.gone[0]}); put them back, or {store.ANOTHER}."
        )
    plan = grown(before, ids, index["settings"]["shard_size"])
    changed = set(found.changed)
    for name in before:
        held = plan[name]
        if held != before[name] or not changed.isdisjoint(held):
            _remove(Path(folder, name), {id: everything[id] for id in held})
    if plan != old.get("plan"):
        counts = {"shards": len(plan), "images": len(ids), "plan": plan}
        write_file(Path(folder, store.INDEX), json.dumps(index | counts, indent=1))
    return plan, found, older


def made_of(note: dict) -> list[str]:
    """Ids of the images that a shard was made of, as the file beside it says."""
    return [id for id, *_ in note.get("files", [])]


def digest(path: Path) -> str:
    """SHA-256 of a file; empty if it cannot be read."""
    if not path.is_file():  # a pipe would block for ever
        return ""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _changed(shard: Path, paths: Mapping[str, Path]) -> list[str]:
    """Those of `paths` whose content is not what the shard was made of."""
    note = store.read_note(shard)
    changed, touched, files = [], False, note.get("files", [])
    for entry in files:
        id, then, *seen = entry
        if id not in paths or (now := list(stamp(paths[id]))) == seen:
            continue
        if not then or digest(paths[id]) != then:
            changed.append(id)
        else:
            entry[2:], touched = now, True
    if touched and not changed and len(paths) == len(files):  # else it is made again
        write_file(store.note_path(shard), json.dumps(note))
    return changed


def _adopt(folder: Path, plan: Plan, paths: Mapping[str, Path]) -> int:
    """Notes the stamps of the files that an older mis_jax made shards of; how many shards."""
    count = 0
    for name, ids in plan.items():
        note = store.read_note(folder / name)
        if note and "files" not in note:
            files = [[id, "", *stamp(paths[id])] for id in ids]
            write_file(store.note_path(folder / name), json.dumps(note | {"files": files}))
            count += 1
    return count


def _remove(shard: Path, paths: Mapping[str, Path]) -> None:
    """Removes a shard, unless another process has just made it anew."""
    if made_of(store.read_note(shard)) != list(paths) or _changed(shard, paths):
        shard.unlink(missing_ok=True)
        store.note_path(shard).unlink(missing_ok=True)


def _names_and_sizes(paths: Mapping[str, Path]) -> str:
    """What the index of an older mis_jax says of its images."""
    sizes = (os.path.getsize(p) if os.path.isfile(p) else -1 for p in paths.values())
    pairs = "".join(f"{name}\0{size}\n" for name, size in zip(paths, sizes, strict=True))
    return hashlib.sha256(pairs.encode()).hexdigest()
