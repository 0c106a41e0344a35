"""Published files into the cache folder: resumed, verified, one process at a time."""

import hashlib
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from mis_jax.errors import InputError


@dataclass(frozen=True)
class File:
    """A published file: what somebody published of its content, as far as anybody did.

    `digest` is `md5:PREFIX` or `sha256:PREFIX`, or empty; `size` is in bytes, or 0.
    """

    url: str
    digest: str = ""
    size: int = 0


def fetch(url: str, part: Path, name: str) -> None:
    """Downloads `url` into `part`, going on after the bytes that are there.

    Raises:
        OSError, http.client.HTTPException: it did not come whole; `part` keeps what did.
    """
    have = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "mis-jax"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # 416: there is nothing after those bytes
            raise
        return
    with response:
        if response.status != 206:  # the server sends everything
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=name, disable=None)
        with open(part, "ab" if have else "wb") as file, bar:
            while chunk := response.read(1 << 20):
                file.write(chunk)
                bar.update(len(chunk))
    size = part.stat().st_size
    if total is not None and size != total:
        raise OSError(f"ended after {size} of {total} bytes")


def verify(path: Path, file: File) -> list[str]:
    """What the file at `path` was verified by, as far as anything of it is published.

    Raises:
        InputError: it is not the published file.
    """
    kind, _, expected = file.digest.partition(":")
    by = []
    if file.size:
        if (size := path.stat().st_size) != file.size:
            raise InputError(f"it has {size} bytes, not {file.size}")
        by.append("its size")
    if file.digest:
        with open(path, "rb") as opened:
            actual = hashlib.file_digest(opened, kind).hexdigest()
        if not actual.startswith(expected):
            raise InputError(f"its {kind} is {actual}, not {expected}")
        by.append(f"its {kind} ({expected})")
    return by
