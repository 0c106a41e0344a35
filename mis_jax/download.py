"""Published weights from where they are published: known sources, mirrors, digests, licences."""

import contextlib
import fcntl
import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from mis_jax.errors import InputError
from mis_jax.state_dicts import load_state_dict


@dataclass(frozen=True)
class Source:
    """Where a published checkpoint is: its licence, and (URL, digest) of equivalent files.

    A digest is `md5:PREFIX` or `sha256:PREFIX` as somebody published it, or empty: such a file is
    verified by its own structure here, and key by key when it is ported.
    """

    licence: str
    files: tuple[tuple[str, str], ...]


def _source(licence: str, official: str, digest: str, timm: str) -> Source:
    timm_url = f"https://huggingface.co/timm/{timm}/resolve/main/model.safetensors"
    return Source(licence, ((f"https://dl.fbaipublicfiles.com/{official}", digest), (timm_url, "")))


def _dino(folder: str, digest: str, timm: str) -> Source:
    return _source("Apache-2.0", f"dino/{folder}/{folder}.pth", digest, timm)


def _mae(size: str, digest: str, timm: str) -> Source:
    return _source("CC-BY-NC-4.0", f"mae/pretrain/mae_pretrain_vit_{size}.pth", digest, timm)


# MD5 prefixes: of MAE from its README.md, of DINO from oml/models/vit_dino/extractor.py of OML.
KNOWN = {
    "dino-vits8": _dino("dino_deitsmall8_pretrain", "md5:230cd5", "vit_small_patch8_224.dino"),
    "dino-vits16": _dino("dino_deitsmall16_pretrain", "md5:cf0f22", "vit_small_patch16_224.dino"),
    "dino-vitb8": _dino("dino_vitbase8_pretrain", "md5:556550", "vit_base_patch8_224.dino"),
    "dino-vitb16": _dino("dino_vitbase16_pretrain", "md5:552daf", "vit_base_patch16_224.dino"),
    "mae-vitb16": _mae("base", "md5:8cad7c", "vit_base_patch16_224.mae"),
    "mae-vitl16": _mae("large", "md5:b8b06e", "vit_large_patch16_224.mae"),
    "mae-vith14": _mae("huge", "md5:9bdbb0", "vit_huge_patch14_224.mae"),
}


def find(name: str, cache: str | Path | None = None) -> Path | None:
    """The file of checkpoint `name` (a key of `KNOWN`) in the cache folder, if it is there."""
    paths = [_cached(name, url, cache) for url, _ in KNOWN[name].files]
    return next((path for path in paths if path.is_file()), None)


def download(name: str, cache: str | Path | None = None) -> Path:
    """Puts checkpoint `name` (a key of `KNOWN`) into the cache folder, unless it is there.

    Tries each URL in turn; goes on where an interrupted download stopped; installs a file only
    whole, with the published digest where there is one, and readable.

    Args:
        cache: folder; by default $MIS_JAX_CACHE, else ~/.cache/mis_jax.

    Raises:
        InputError: no URL gave the file; says what to fetch by hand, and where to put it.
    """
    if name not in KNOWN:
        raise InputError(f'there are no known weights "{name}"; there are {", ".join(KNOWN)}.')
    source, failures = KNOWN[name], []
    with _locked(_folder(cache) / f"{name}.lock"):
        if found := find(name, cache):
            return found
        for url, digest in source.files:
            path = _cached(name, url, cache)
            part = path.with_name(path.name + ".part")
            print(f"downloading {name} (licence {source.licence}): {url}", file=sys.stderr)
            try:
                _fetch(url, part, name)
                _verify(part, digest)
                part.replace(path)
                return path
            except (OSError, http.client.HTTPException, InputError) as error:
                failures.append(f"{url}: {error}".rstrip("."))
    url = source.files[0][0]
    raise InputError(
        f"{name} could not be downloaded ({'; '.join(failures)}); "
        f"fetch {url} by hand and put it at {_cached(name, url, cache)}."
    )


def _folder(cache: str | Path | None) -> Path:
    return Path(cache or os.environ.get("MIS_JAX_CACHE") or "~/.cache/mis_jax").expanduser()


def _cached(name: str, url: str, cache: str | Path | None) -> Path:
    return _folder(cache) / (name + Path(url).suffix)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Processes of one machine that want the same file wait for each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(url: str, part: Path, name: str) -> None:
    """Downloads `url` into `part`, going on after the bytes that are there."""
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


def _verify(part: Path, digest: str) -> None:
    """Removes `part` and raises if it is not the published file, or not readable."""
    kind, _, expected = digest.partition(":")
    try:
        if digest:
            with open(part, "rb") as file:
                actual = hashlib.file_digest(file, kind).hexdigest()
            if not actual.startswith(expected):
                raise InputError(f"its {kind} is {actual}, not {expected}")
        load_state_dict(part)
    except InputError:
        part.unlink()
        raise
