"""Which image files a folder, a list or a pattern names, and what they are called."""

import collections
import glob
import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from mis_jax.errors import InputError

# What a photo can be: no PDF, EPS or other documents that Pillow would take as well.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset(s for s, kind in Image.registered_extensions().items() if kind in FORMATS)
SUFFIXES |= {".avif", ".heic", ".heif"}  # images as well, and named where they cannot be read


def find_images(source: str | Path) -> list[Path]:
    """Paths of the images that `source` names, sorted, each once.

    Args:
      source: a folder (searched recursively for the usual suffixes, hidden files left out), a .txt
        file of one path a line (relative ones from the folder of the list), a glob pattern
        (`**` crosses folders), or one image file. Lists and patterns take whatever they name.

    Raises:
      InputError: where a path does not exist, or no image is found.
    """
    path = Path(source)
    if os.path.isdir(path):  # unlike pathlib's, it takes names too long for any file
        found = [p for p in _walk(path) if p.suffix.lower() in SUFFIXES]
        remedy = f"the folder is searched for {' '.join(sorted(SUFFIXES))}"
    elif os.path.isfile(path) and path.suffix.lower() == ".txt":
        found = _read_list(path)
        remedy = "give it one image path a line"
    elif os.path.isfile(path):
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"{source} is neither a folder, an image nor a .txt list of images.")
        found, remedy = [path], ""
    elif glob.has_magic(str(source)):
        found = [Path(p) for p in glob.glob(str(source), recursive=True) if os.path.isfile(p)]
        remedy = "quote the pattern, and use ** to cross folders"
    else:
        raise InputError(f"{source} does not exist; give a folder, a .txt list or a glob pattern.")
    if not found:
        raise InputError(f"{source} names no image; {remedy}.")
    return sorted(set(found))


def ignored_files(source: str | Path) -> dict[str, int]:
    """How many files of a folder `find_images` left out, by suffix; empty unless it is a folder."""
    if not Path(source).is_dir():
        return {}
    found = (p.suffix.lower() for p in _walk(Path(source)))
    counts = collections.Counter(s or "no suffix" for s in found if s not in SUFFIXES)
    return dict(sorted(counts.items()))


def image_ids(source: str | Path, paths: list[Path]) -> list[str]:
    """Unique names of images: the posix path below the folder `source`, or below what all share."""
    absolute = [os.path.abspath(p) for p in paths]
    shared = {os.path.dirname(p) for p in absolute}
    root = os.path.abspath(source) if Path(source).is_dir() else os.path.commonpath(shared)
    names = (Path(p).relative_to(root).as_posix() for p in absolute)
    return [os.fsencode(n).decode("utf-8", "backslashreplace") for n in names]


def _walk(folder: Path) -> Iterator[Path]:
    """The files below a folder; links to folders are followed, each folder is entered once."""
    seen = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield from (Path(here, f) for f in files if not f.startswith("."))


def _read_list(path: Path) -> list[Path]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text; give it one image path a line.") from None
    found = [path.parent / line.strip() for line in lines if line.strip()]
    missing = [p for p in found if not os.path.isfile(p)]
    if missing:
        raise InputError(
            f"{path} names {len(missing)} of {len(found)} files that do not exist, the first is "
            f"{missing[0]}; correct the list (its relative paths start at {path.parent})."
        )
    return found
