"""The published evaluation sets from their archives: `mis-jax download grabcut berkeley davis sbd`.

A set is unpacked beside its folder, checked, and renamed into place: it is there whole or not.
"""

import gzip
import http.client
import lzma
import shutil
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from mis_jax.datasets import benchmarks, sbd
from mis_jax.downloads.fetch import File, fetch, verify
from mis_jax.errors import InputError
from mis_jax.files import cache_folder, locked

MOST_BYTES = 8 << 30  # of a set; what unpacks to more is none of these
_DAMAGED: tuple[type[Exception], ...]
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)
_DAMAGED += (EOFError, NotImplementedError, RuntimeError, struct.error)


@dataclass(frozen=True)
class Archive:
    """A published set: terms, mirrors of one archive, pairs of an image and its labels, contents.

    `parts` are the folders and files that it must have, `extra` those that are taken as well.
    """

    terms: str
    files: tuple[File, ...]
    pairs: int
    parts: tuple[str, ...]
    extra: tuple[str, ...] = ()


def _fbrs(name: str) -> tuple[File, ...]:
    """An asset of f-BRS, to which the READMEs of RITM and SimpleClick link; its owner was renamed.

    Nobody has published a digest of these.
    """
    path = f"fbrs_interactive_segmentation/releases/download/v1.0/{name}.zip"
    return tuple(
        File(f"https://github.com/{owner}/{path}") for owner in ("saic-vul", "SamsungLabs")
    )


_BSDS = "terms of the BSDS: non-commercial research and education"
# MD5 of SBD: torchvision/datasets/sbd.py. Numbers of pairs: README.md of RITM.
SETS = {
    "grabcut": Archive("no licence stated", _fbrs("GrabCut"), 50, benchmarks.LAYOUTS["grabcut"]),
    "berkeley": Archive(_BSDS, _fbrs("Berkeley"), 100, benchmarks.LAYOUTS["berkeley"]),
    "davis": Archive("no licence stated", _fbrs("DAVIS"), 345, benchmarks.LAYOUTS["davis"]),
    "sbd": Archive(
        "no licence stated; the images are PASCAL VOC's",
        tuple(
            File(
                f"{host}/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
                "md5:82b4d87ceb2ed10f6038a1cba92111cb",
            )
            for host in ("https://www2.eecs.berkeley.edu", "http://www.eecs.berkeley.edu")
        ),
        2857,
        ("img", "inst", "val.txt"),
        ("train.txt",),
    ),
}


def find(name: str, cache: str | Path | None = None) -> Path | None:
    """The folder of set `name` (a key of `SETS`) in the cache folder, if it is there."""
    folder = cache_folder(cache) / name
    return folder if folder.is_dir() else None


def download(name: str, cache: str | Path | None = None) -> Path:
    """Puts set `name` (a key of `SETS`) into a folder of that name, unless it is there.

    Tries each mirror in turn, and goes on where an interrupted download stopped; an archive that
    lies in the cache folder already is used, and kept.

    Args:
        cache: folder; by default $MIS_JAX_CACHE, else ~/.cache/mis_jax.

    Returns:
        The folder, as `benchmarks.open_benchmark` takes it.

    Raises:
        InputError: no URL gave the set, which says what to fetch by hand and where to put it; what
            lies there is damaged or another archive; or the disk refuses.
    """
    source, folder = SETS[name], cache_folder(cache) / name
    archive = folder.with_name(source.files[0].url.rpartition("/")[2])
    try:
        with locked(folder.with_name(f"{name}.lock")):
            if folder.exists():
                return _there(folder, name)
            if archive.is_file():
                return _install_own(archive, folder, name)
            return _download(archive, folder, name)
    except OSError as error:
        raise InputError(
            f"{name} cannot be written to {folder} ({error}); set MIS_JAX_CACHE to another folder."
        ) from error


def _there(folder: Path, name: str) -> Path:
    try:
        _check(folder, name)
    except InputError as error:
        reason = str(error).rstrip(".")
        raise InputError(f"{folder} is not the whole set {name} ({reason}); remove it.") from error
    return folder


def _install_own(archive: Path, folder: Path, name: str) -> Path:
    try:
        return _install(archive, folder, name, verify(archive, SETS[name].files[0]))
    except InputError as error:
        reason = str(error).rstrip(".")
        raise InputError(f"{archive} is no archive of {name} ({reason}); remove it.") from error


def _download(archive: Path, folder: Path, name: str) -> Path:
    source, failures = SETS[name], []
    part = archive.with_name(archive.name + ".part")
    for file in source.files:
        print(f"downloading {name} ({source.terms}): {file.url}", file=sys.stderr)
        try:
            fetch(file.url, part, name)
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{file.url}: {error}".rstrip("."))
            continue
        try:
            by = verify(part, file)
            part.replace(archive)
            _install(archive, folder, name, by)
        except InputError as error:
            part.unlink(missing_ok=True)
            archive.unlink(missing_ok=True)
            failures.append(f"{file.url}: {error}".rstrip("."))
            continue
        archive.unlink()
        return folder
    raise InputError(
        f"{name} could not be downloaded ({'; '.join(failures)}); fetch {source.files[0].url} by "
        f"hand, put it at {archive} and run mis-jax download {name} again."
    )


def _install(archive: Path, folder: Path, name: str, by: list[str]) -> Path:
    """Unpacks a verified archive into `folder`, which appears whole or not at all."""
    source, partial = SETS[name], folder.with_name(f".{name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _unpack(archive, partial, source.parts, source.extra, name)
        _check(partial, name)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    by = [*by, f"its {source.pairs:,} images with their masks"]
    print(f"{name}: verified by {', '.join(by)}", file=sys.stderr)
    return folder


def _check(folder: Path, name: str) -> None:
    """Raises `InputError` unless the folder has all images of the set, each with its labels."""
    if name == "sbd":
        names = sbd.names(folder)
        pairs = [(folder / "img" / f"{n}.jpg", folder / "inst" / f"{n}.mat") for n in names]
        count = sum(image.is_file() and labels.is_file() for image, labels in pairs)
    else:
        count = len(benchmarks.open_benchmark(name, folder))
    if count != SETS[name].pairs:
        raise InputError(f"it has {count:,} images with masks, not {SETS[name].pairs:,}")


# ---- archives


@dataclass(frozen=True)
class _Member:
    """A file of an archive; `open` is None for links, devices and the like."""

    path: PurePosixPath
    size: int
    open: Callable[[], IO[bytes]] | None


def _unpack(
    archive: Path, folder: Path, parts: tuple[str, ...], extra: tuple[str, ...], name: str
) -> None:
    """Writes the named parts of an archive, wherever in it they lie together, into `folder`.

    Raises:
        InputError: it is damaged or has not those parts; a path leads out of it; a link is a part.
    """
    try:
        with _opened(archive) as opened:
            members = list(_members(opened))
            root = _root([m.path for m in members], parts)
            depth, wanted = len(root.parts), {*parts, *extra}
            chosen = [
                m
                for m in members
                if m.path.parts[:depth] == root.parts
                and wanted.intersection(m.path.parts[depth : depth + 1])
                and not m.path.name.startswith(".")
            ]
            if sum(m.size for m in chosen) > MOST_BYTES:
                raise InputError(f"it unpacks to more than {MOST_BYTES >> 30} GiB")
            for member in tqdm(chosen, f"unpacking {name}", unit="file", disable=None):
                _write(member, folder / member.path.relative_to(root))
    except _DAMAGED as error:
        raise InputError(f"it is no archive that can be read ({error})") from error


def _opened(archive: Path) -> zipfile.ZipFile | tarfile.TarFile:
    if archive.suffix == ".zip":
        return zipfile.ZipFile(archive)
    return tarfile.open(archive)


def _members(opened: zipfile.ZipFile | tarfile.TarFile) -> Iterator[_Member]:
    """The members that are no folders; `InputError` for a path that leads out of the archive."""
    if isinstance(opened, zipfile.ZipFile):
        for info in opened.infolist():
            link = stat.S_ISLNK(info.external_attr >> 16)
            read = None if link else lambda info=info: opened.open(info)
            if not info.is_dir():
                yield _Member(_inside(info.filename), info.file_size, read)
    else:
        for entry in opened:
            read = (lambda entry=entry: _extract(opened, entry)) if entry.isfile() else None
            if not entry.isdir():
                yield _Member(_inside(entry.name), entry.size, read)


def _extract(opened: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    content = opened.extractfile(entry)
    assert content is not None  # it is a file's
    return content


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not path.parts:
        raise InputError(f"the path of its member {name!r} leads out of it")
    return path


def _root(paths: list[PurePosixPath], parts: tuple[str, ...]) -> PurePosixPath:
    """The folder nearest to the top that has all the parts."""
    found: dict[PurePosixPath, set[str]] = {}
    for path in paths:
        for level, part in enumerate(path.parts):
            if part in parts:
                found.setdefault(PurePosixPath(*path.parts[:level]), set()).add(part)
    whole = [folder for folder, there in found.items() if there == set(parts)]
    if not whole:
        raise InputError(f"it has no {', '.join(parts)} together in one folder")
    return min(whole, key=lambda folder: len(folder.parts))


def _write(member: _Member, path: Path) -> None:
    if member.open is None:
        raise InputError(f"its member {member.path} is a link or no plain file")
    if path.exists():
        raise InputError(f"it has two members {member.path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as source, open(path, "xb") as target:
        shutil.copyfileobj(source, target)
    if path.stat().st_size != member.size:
        raise InputError(f"its member {member.path} is cut off")
