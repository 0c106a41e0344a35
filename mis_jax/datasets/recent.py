"""The last few files that were read, so that the objects of one image share its pixels."""

import concurrent.futures
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """The results of `read(path, *how)` for the last `size` files, for any number of threads.

    Threads that want the same file at the same time read it once. A file that has changed is read
    again; errors are not kept.
    """

    def __init__(self, read: Callable[..., T], size: int = 8) -> None:
        self._read, self._size = read, size
        self._lock = threading.Lock()
        self._kept: dict[tuple, concurrent.futures.Future] = {}  # the latest last

    def __call__(self, path: Path, *how: Hashable) -> T:
        key = (str(path), stamp(path), *how)
        with self._lock:
            future = self._kept.pop(key, None)
            missing = future is None
            future = self._kept[key] = future or concurrent.futures.Future()
            for old in list(self._kept)[: -self._size]:
                del self._kept[old]
        if missing:
            try:
                future.set_result(self._read(path, *how))
            except BaseException as error:
                with self._lock:
                    self._kept.pop(key, None)
                future.set_exception(error)
        return future.result()


def stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file does: its size and its times; zeros if it is not there."""
    try:
        stat = path.stat()
    except (OSError, ValueError):  # of a name with a zero in it
        return 0, 0, 0
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
