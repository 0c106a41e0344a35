"""Where the images of an annotation file of COCO's lie, whatever its exporter wrote of them."""

import collections
import contextlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from mis_jax.datasets import images
from mis_jax.datasets.reading import Notes
from mis_jax.errors import InputError

LOOSE = "file_name is not its way from the folder, the only such file below it was taken"
_ENOUGH = 20  # images that tell where the others lie


class Found(NamedTuple):
    """An image's file, or why there is none."""

    path: Path
    why: str = ""  # empty where there is one
    notes: Notes = ()


def places(where: str) -> tuple[Path, list[Path]]:
    """The annotation file of FILE.json or FILE.json:IMAGES, and the folders its images may lie in.

    These are IMAGES alone, or those where the exporters put them: `images`, `data`, a folder of the
    subset's name (`val2017` for instances_val2017.json), beside the file or its folder, and the
    folder of the file itself.

    Raises:
        InputError: the file or the folder does not exist.
    """
    file, folder = where, ""
    if not Path(where).is_file():
        match = re.fullmatch(r"(.*\.json):(.+)", where, re.IGNORECASE | re.DOTALL)
        file, folder = match.groups() if match else (where, "")
    path = Path(file).expanduser()
    if not path.is_file():
        raise InputError(f"the annotation file {path} does not exist.")
    if folder:
        pictures = Path(folder).expanduser()
        if not pictures.is_dir():
            raise InputError(f"the image folder {pictures} does not exist.")
        return path, [pictures]
    here, subset = path.parent, path.stem.partition("_")[2]
    possible = [here / "images", here / "data"]
    if here.name.lower() == "annotations":
        possible = [here.parent / "images", *possible]
        if subset:
            possible = [here.parent / "images" / subset, here.parent / subset, *possible]
    if subset:
        possible.append(here / subset)
    return path, [*(p for p in possible if p.is_dir()), here]


def name_of(entry: Any) -> str | None:
    """The way to an image that its entry in the file gives: file_name, or LVIS's coco_url."""
    if not isinstance(entry, dict):
        return None
    name, url = entry.get("file_name"), entry.get("coco_url")
    if isinstance(name, str) and name:
        return name
    if isinstance(url, str) and url:
        return "/".join(urlsplit(url).path.split("/")[-2:])
    return None


def locate(path: Path, folders: list[Path], names: Iterable[str]) -> dict[str, Found]:
    """What became of the names of an annotation file's images.

    Args:
        path: the annotation file.
        folders: where they may lie; the first that has most of the first images is taken.
        names: of images, as `name_of` gives them.

    Raises:
        InputError: none of them is in any of the folders; names the places.
    """
    names = list(dict.fromkeys(names))
    listed = {folder: _Listing(folder) for folder in folders}
    first = names[:_ENOUGH]
    folder = None
    for search, some in ((_exact, first), (_loose, first), (_exact, names)):
        counts = [sum(search(listed[f], name) is not None for name in some) for f in folders]
        if any(counts):
            folder = folders[counts.index(max(counts))]
            break
    if folder is None:
        looked = " or ".join(str(f) for f in folders)
        raise InputError(
            f"none of the images of {path} lies in {looked}, not even {names[0]}; name their "
            f"folder: {path}:FOLDER."
        )
    found = {name: _find(listed[folder], name) for name in names}
    claims = collections.Counter(os.path.normcase(f.path) for f in found.values() if not f.why)
    for name, one in found.items():
        if one.notes and claims[os.path.normcase(one.path)] > 1:
            why = f"its image {folder / name} does not exist, and {one.path} may be another's"
            found[name] = Found(folder / name, why)
    return found


class _Listing:
    """A folder, and all images below it by their names, listed when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_name: dict[str, list[Path]] | None = None

    def called(self, name: str) -> list[Path]:
        """Images below the folder of this name, in any case of letters and composition."""
        if self._by_name is None:
            self._by_name = collections.defaultdict(list)
            with contextlib.suppress(InputError):  # there are none
                for path in images.find_images(self.folder):
                    self._by_name[_folded(path.name)].append(path)
        return self._by_name.get(_folded(name), [])


def _find(listing: _Listing, name: str) -> Found:
    exact = _exact(listing, name)
    if exact:
        return Found(exact)
    loose = _loose(listing, name)
    if loose:
        return Found(loose, notes=(LOOSE,))
    missing = listing.folder / name
    count = len(listing.called(PurePosixPath(_forms(name)[-1]).name))
    several = f", and {count} files below the folder have its name" if count > 1 else ""
    return Found(missing, f"its image {missing} does not exist{several}")


def _exact(listing: _Listing, name: str) -> Path | None:
    """The file that a name leads to, from the folder or, where it begins with it, beside it."""
    for form in _forms(name):
        head, _, rest = form.partition("/")
        ways = [form, rest] if head == listing.folder.name and rest else [form]
        for way in ways:
            if os.path.isfile(listing.folder / way):  # False for names that no file can have
                return listing.folder / way
    return None


def _loose(listing: _Listing, name: str) -> Path | None:
    """The file at the end of a name, as far as it leads, or the only one of its last part."""
    for form in _forms(name):
        parts = [part for part in form.split("/") if part not in ("", ".", "..")]
        for start in range(1, len(parts)):
            way = listing.folder.joinpath(*parts[start:])
            if os.path.isfile(way):
                return way
    for form in _forms(name):
        same = listing.called(PurePosixPath(form).name)
        if len(same) == 1:
            return same[0]
    return None


def _forms(name: str) -> list[str]:
    """A name as it stands, with slashes for Windows' backslashes, as a URL's path, unquoted."""

    def forms() -> Iterator[str]:
        yield name
        slashes = name.replace("\\", "/")
        yield slashes
        try:
            url = urlsplit(slashes)
        except ValueError:  # a bracket that is no IPv6 address
            yield unquote(slashes)
            return
        yield from parse_qs(url.query).get("d", [])  # Label Studio's files on its own disk
        if url.scheme or url.query:
            yield url.path.lstrip("/")
            yield unquote(url.path).lstrip("/")
        yield unquote(slashes)

    return list(dict.fromkeys(forms()))


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
