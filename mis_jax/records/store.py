"""Shards of records on disk: their names, notes and index, whole or not there at all."""

import contextlib
import errno
import hashlib
import json
import os
import re
import resource
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from mis_jax.errors import InputError
from mis_jax.files import publish, write_file
from mis_jax.records.schema import Record, decode

ANOTHER = "give another --records folder (to train: another --workdir), or delete this one"
INDEX = "propose.json"  # what a folder of shards is made of; see plan.py
_BLOCK = 1 << 16  # bytes; an ArrayRecord file is a number of blocks
_SHARD = re.compile(r"trees-(\d{5,})-of-(\d{5,})\.array_record")


def shard_name(shard: int, shards: int) -> str:
    """File name of a shard, counted from 0: trees-00003-of-00015.array_record."""
    return f"trees-{shard:05d}-of-{shards:05d}.array_record"


def shard_files(folder: str | Path) -> list[str]:
    """Paths of all shards of a folder, in order.

    A folder that has grown has shards of several totals: 00000-of-00001 and 00001-of-00002.

    Raises:
      InputError: if the folder has none, not all, or shards of two different runs.
    """
    matches = [m for m in map(_SHARD.fullmatch, sorted(_names(folder))) if m]
    index, totals = read_index(folder), {int(m[2]) for m in matches}
    names = [m[0] for m in matches]
    planned = list(index.get("plan", names))
    mixed = len(totals) > 1 and [int(m[1]) for m in matches] != list(range(max(totals)))
    if set(names) - set(planned) or ("plan" not in index and mixed):
        raise InputError(f"{folder} mixes shards of runs of {sorted(totals)} shards; use one run.")
    total = index.get("shards", 0) if "plan" in index or not totals else max(totals)
    if not total:
        raise InputError(f"{folder} holds no records; make them: {_command(folder)}")
    if len(matches) < total:
        remedy = f"finish with: {_command(folder)}"
        raise InputError(f"{folder} holds {len(matches)} of {total} shards; {remedy}")
    return [str(Path(folder, name)) for name in planned]


def fingerprint(files: Sequence[str]) -> str:
    """SHA-256 of the records of shards in their order, in hexadecimal, wherever they lie.

    It is made of the digests beside the shards. A shard without one, as an older mis_jax made it,
    or with another end than is said beside it, is read.

    Raises:
      InputError: names the shard that has to be read and is damaged.
    """
    digests = (_noted_digest(path) or _digest(path) for path in files)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def read_records(folder: str | Path) -> Iterator[Record]:
    """All records of a folder, in the order in which they were proposed.

    Raises:
      InputError: names the shard that is missing or damaged.
    """
    for path in shard_files(folder):
        reader = open_shard(path)
        try:
            for index in range(reader.num_records()):
                yield decode(reader.read([index])[0])
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except RuntimeError as error:  # the checksum of a record
            raise InputError(f"{path} is damaged; delete it and propose again.") from error
        finally:
            reader.close()


def open_shard(path: str | Path) -> ArrayRecordReader:
    """A reader of one shard, that is closed when it is not used any more.

    ArrayRecordReader itself takes a file that it cannot read for one without records.

    Raises:
      InputError: the file is missing, truncated or no shard, or too many files are open.
      OSError: the system does not let it be opened.
    """
    reader = ArrayRecordReader(str(path))
    if reader.ok():
        return reader
    try:
        reader.close()
        cause = OSError(errno.ENOENT, "")
    except RuntimeError as error:
        cause = _os_error(error, Path(path), errno.ENOENT)
    if cause.errno in (errno.EMFILE, errno.ENFILE):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        raise InputError(
            f"{path} cannot be opened ({cause.strerror}); this process may open {limit}: raise "
            "that with ulimit -n."
        )
    if cause.errno not in (errno.ENOENT, errno.EISDIR):
        raise cause
    raise InputError(f"{path} is missing or damaged; delete it and propose again.")


class ShardWriter:
    """Writes a shard that appears under its name only when it is complete and on the disk.

    A context manager: without `commit`, nothing is left of it. Failures are OSError with filename.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._partial = Path(f"{path}.{secrets.token_hex(4)}.partial")
        self._digest = hashlib.sha256()
        self._writer = ArrayRecordWriter(str(self._partial), "group_size:1,uncompressed")

    def __enter__(self) -> "ShardWriter":
        return self

    def write(self, data: bytes) -> None:
        """Adds one encoded record."""
        self._digest.update(_framed(data))
        self._call(lambda: self._writer.write(data))

    def commit(self, said: Mapping[str, object] | None = None) -> None:
        """Gives the shard its name, and clears what killed runs left of it.

        The file beside it, which is there first, gets the digest of its records, that of its end,
        by which it is known again, and what is `said`.
        """
        self._call(self._writer.close)
        end = _end(self._partial)
        note = {"digest": self._digest.hexdigest(), "end": end, **(said or {})}
        write_file(note_path(self._path), json.dumps(note))
        publish(self._partial, self._path)
        for leftover in self._path.parent.glob(f"{self._path.stem}.*.partial"):
            leftover.unlink(missing_ok=True)

    def __exit__(self, *_) -> None:
        if self._writer.is_open():
            with contextlib.suppress(RuntimeError):  # what was wrong has been raised before
                self._writer.close()
        self._partial.unlink(missing_ok=True)

    def _call(self, function: Callable[[], object]) -> None:
        try:
            function()
        except RuntimeError as error:
            raise _os_error(error, self._path) from error


def note_path(shard: str | Path) -> Path:
    """The file beside a shard that says what is in it and what it was made of, as JSON."""
    return Path(shard).with_suffix(".json")


def read_note(shard: str | Path) -> dict:
    """What the file beside a shard says; empty if it is missing or damaged."""
    try:
        note = json.loads(note_path(shard).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(note, dict) or not isinstance(note.get("files", []), list):
        return {}
    words = [note.get("digest", ""), note.get("end", "")]
    for file in note.get("files", []):  # id, digest, size and times
        words += file[:2] if isinstance(file, list) and len(file) > 1 else [None]
    return note if all(isinstance(word, str) for word in words) else {}


def begin(folder: str | Path, index: dict) -> None:
    """Makes a folder and writes its index, or checks that an index begun before says the same.

    Args:
      folder: for the shards.
      index: {"version", "shards", "images": how many, "digest": of their names, "settings":
        {name: value}, "source": where the images are, which may change, "command": other than
        propose, that makes the records}.

    Raises:
      InputError: says what differs.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    old = read_index(folder)
    if not old:
        write_file(Path(folder, INDEX), json.dumps(index, indent=1))
    check(folder, old, index)


def check(folder: str | Path, old: dict, index: dict) -> None:
    """Checks that a folder's index, `old` or empty, has the fields and settings of `index`.

    "images" and "digest" are compared where `index` has them.

    Raises:
      InputError: says what differs.
    """
    if not old:
        return
    names = [k for k in ("version", "images") if k in index]
    then = {k: old.get(k) for k in names} | old.get("settings", {})
    now = {k: index[k] for k in names} | index["settings"]
    changes = [f"{k} was {then.get(k)} and is {now[k]}" for k in now if then.get(k) != now[k]]
    changes += [f"{k} was {then[k]} and is not given" for k in then if k not in now]
    if not changes and "digest" in index and old.get("digest") != index["digest"]:
        changes = ["as many images, of other names or sizes"]
    if changes:
        raise InputError(
            f"{folder} was begun with other images or settings ({'; '.join(changes)}); {ANOTHER}."
        )


def read_index(folder: str | Path) -> dict:
    """The index of a folder of shards; empty if it has none.

    Raises:
      InputError: if it is damaged.
    """
    path = Path(folder, INDEX)
    try:
        index = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        index = None
    if not isinstance(index, dict) or not _fits(index):
        raise InputError(f"{path} is damaged; delete {folder} and run mis-jax propose again.")
    return index


def _fits(index: dict) -> bool:
    """Whether the fields of an index that others rely on are of their types."""
    plan, settings = index.get("plan", {}), index.get("settings", {})
    if type(index.get("shards")) is not int or not isinstance(settings, dict):
        return False
    if not isinstance(plan, dict) or not all(isinstance(held, list) for held in plan.values()):
        return False
    return all(isinstance(id, str) for held in plan.values() for id in held)


def _names(folder: str | Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder} is no folder; make it: {_command(folder)}") from None


def _command(folder: str | Path) -> str:
    index = read_index(folder) if Path(folder).is_dir() else {}
    command, source = index.get("command", "propose"), index.get("source", "IMAGES")
    return f"mis-jax {command} {source} --records {folder}"


def _framed(data: bytes) -> bytes:
    """A record for its shard's digest, so that no two lists of records give the same bytes."""
    return hashlib.sha256(data).digest()


def _noted_digest(path: str | Path) -> str:
    note = read_note(path)
    return note.get("digest", "") if note.get("end") == _end(path) else ""


def _end(path: str | Path) -> str:
    """Digest of the last two blocks of a shard, which tell where each of its records lies."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * _BLOCK))
        return hashlib.sha256(b"%d " % size + file.read()).hexdigest()


def _digest(path: str | Path) -> str:
    """What `ShardWriter` would have written as the digest of a shard's records."""
    found, reader = hashlib.sha256(), open_shard(path)
    try:
        for index in range(reader.num_records()):
            found.update(_framed(reader.read([index])[0]))
    except RuntimeError as error:
        raise InputError(f"{path} is damaged; delete it and propose again.") from error
    finally:
        with contextlib.suppress(RuntimeError):
            reader.close()
    return found.hexdigest()


def _os_error(error: RuntimeError, path: Path, otherwise: int = errno.EIO) -> OSError:
    """What reader and writer, which know only RuntimeError, want to say."""
    text = str(error)
    for number in errno.errorcode:
        if os.strerror(number) in text:
            return OSError(number, os.strerror(number), str(path))
    return OSError(otherwise, text, str(path))
