"""Files that appear whole or not at all, locks, the cache folder, and files beside the code."""

import contextlib
import fcntl
import importlib.resources
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def write_file(path: str | Path, content: str | bytes) -> None:
    """Writes a file, text as UTF-8, that appears complete or not at all."""
    data = content.encode() if isinstance(content, str) else content
    partial = Path(f"{path}.{secrets.token_hex(4)}.partial")
    try:
        partial.write_bytes(data)
        publish(partial, Path(path))
    finally:
        partial.unlink(missing_ok=True)


def publish(partial: Path, path: Path) -> None:
    """Renames a complete file, first making sure that its content is on the disk."""
    _sync(partial)
    os.replace(partial, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cache_folder(cache: str | Path | None = None) -> Path:
    """`cache`, else $MIS_JAX_CACHE, else ~/.cache/mis_jax; it need not be there."""
    return Path(cache or os.environ.get("MIS_JAX_CACHE") or "~/.cache/mis_jax").expanduser()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Processes of one machine that want the same file wait for each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def resource(package: str, name: str) -> str:
    """The text of a file that ships beside the modules of a package."""
    return importlib.resources.files(package).joinpath(name).read_text("utf-8")
