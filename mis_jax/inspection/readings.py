"""What reading some images, or the objects of a benchmark, showed: counts, oddities, examples."""

import collections
import dataclasses
import hashlib
import itertools
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mis_jax.datasets import (
    Benchmark,
    Notes,
    Reading,
    count_left_out,
    first_reasons,
    images,
    note_lines,
)
from mis_jax.errors import InputError
from mis_jax.records import ignored_lines, masks_left_out, propose, skipped_lines, usable

SMALL = 64  # pixels; many targets of photos with a shorter side are empty
FEW = 0.01  # of the image; objects that cover less are counted
_AHEAD = 1024  # files that are begun and not yet taken


@dataclasses.dataclass(frozen=True)
class Photo:
    """What one image file was read as; `size` is (0, 0) where it cannot be used, for `reason`."""

    id: str
    path: Path
    kind: str = ""  # such as "JPEG", "TIFF of 16 bits"
    size: tuple[int, int] = (0, 0)  # width, height in pixels, upright
    orientation: int = 1
    digest: str = ""
    notes: Notes = ()
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Photos:
    """All image files of a source, those left out as masks of others, and files of other kinds."""

    source: str
    photos: list[Photo]
    masks: dict[str, str]  # id -> why
    ignored: dict[str, int]  # suffix -> how many
    reading: Reading

    @property
    def used(self) -> list[Photo]:
        """Those that records can be made of."""
        return [p for p in self.photos if not p.reason]

    @property
    def copies(self) -> dict[str, str]:
        """Files that hold the same bytes as one before: id -> id of that."""
        return _copies((p.id, p.digest) for p in self.used)

    def numbers(self) -> dict[str, Any]:
        """What check.json tells of them."""
        used = self.used
        return {
            "source": self.source,
            "images": len(self.photos),
            "usable": len(used),
            "kinds": _counts(p.kind for p in used),
            "sizes": _counts(f"{p.size[0]}x{p.size[1]}" for p in used),
            "small": sum(min(p.size) < SMALL for p in used),
            "orientations": _counts(str(p.orientation) for p in used),
            "copies": self.copies,
            "skipped": {p.id: p.reason for p in self.photos if p.reason} | self.masks,
            "notes": {p.id: list(p.notes) for p in used if p.notes},
            "ignored": self.ignored,
        }

    def lines(self) -> list[str]:
        """The same for a terminal."""
        used, copies = self.used, self.copies
        lines = [f"{self.source}: {len(self.photos):,} images, {len(used):,} can be used"]
        if used:
            lines.append("kinds: " + _told(_counts(p.kind for p in used)))
            ordered = sorted((p.size for p in used), key=lambda size: (size[0] * size[1], size))
            least, middle, most = (
                f"{w} x {h}" for w, h in (ordered[0], ordered[len(ordered) // 2], ordered[-1])
            )
            lines.append(f"sizes: {least} to {most} pixels, median {middle}")
        small = [p.id for p in used if min(p.size) < SMALL]
        if small:
            lines.append(f"{len(small):,} have a side under {SMALL} pixels ({_first(small)})")
        turned = _counts(f"tag {p.orientation}" for p in used if p.orientation != 1)
        if turned:
            lines.append(f"{sum(turned.values()):,} are turned by EXIF: {_told(turned)}")
        if copies:
            id, other = next(iter(copies.items()))
            more = ", ..." if len(copies) > 1 else ""
            lines.append(f"{len(copies):,} hold the same bytes as another ({id} as {other}{more})")
        lines += skipped_lines([[p.id, p.reason] for p in self.photos if p.reason])
        lines += masks_left_out(self.masks)
        lines += note_lines({p.id: p.notes for p in used})
        return lines + ignored_lines(self.ignored)


@dataclasses.dataclass(frozen=True)
class Object:
    """What one object of a benchmark was read as."""

    id: str
    size: tuple[int, int]  # of the photo: width, height in pixels
    area: float  # of the photo, as a fraction
    digest: str  # of photo and mask
    notes: Notes


@dataclasses.dataclass(frozen=True)
class Objects:
    """The objects of a benchmark that can be read; `benchmark` says why others cannot."""

    benchmark: Benchmark
    objects: list[Object]

    @property
    def copies(self) -> dict[str, str]:
        """Objects of the same photo and mask as one before: id -> id of that."""
        return _copies((o.id, o.digest) for o in self.objects)

    def numbers(self) -> dict[str, Any]:
        """What check.json tells of them."""
        return {
            "objects": len(self.objects),
            "expected": self.benchmark.expected,
            "skipped": dict(self.benchmark.skipped),
            "notes": {id: list(notes) for id, notes in self.benchmark.notes.items()},
            "copies": self.copies,
            "areas": {o.id: round(o.area, 6) for o in self.objects},
        }

    def lines(self) -> list[str]:
        """The same for a terminal."""
        name, b = self.benchmark.name, self.benchmark
        known = f" of {b.expected:,}" if b.expected else ""
        lines = [f"{name}: {len(self.objects):,}{known} objects can be read"]
        if self.objects:
            areas = [o.area for o in self.objects]
            least, middle, most = min(areas), statistics.median(areas), max(areas)
            lines.append(
                f"{name}: objects cover {least:.2%} to {most:.2%} of their photo, median "
                f"{middle:.2%}; {sum(a < FEW for a in areas):,} under {FEW:.0%}"
            )
        if self.copies:
            id, other = next(iter(self.copies.items()))
            lines.append(f"{name}: copies of other objects: {len(self.copies):,} ({id} of {other})")
        if b.skipped:
            lines.append(f"{name}: {count_left_out(b.skipped)}")
            lines += [f"{name}: {reason}" for reason in first_reasons(b.skipped)]
        return lines + [f"{name}: {line}" for line in note_lines(b.notes)]


def look_at_images(source: str, max_side: int, threads: int, reading: Reading) -> Photos:
    """Reads all images of a folder, list file or glob as `mis-jax propose` does.

    Args:
        source: as `images.find_images` takes it.
        max_side: pixels that records are shrunk to.
        threads: that read; 0: one per core.
        reading: how files are read that leave it open.

    Raises:
        InputError: there is none.
    """
    paths, masks = propose.find(source)
    todo = [(id, path) for id, path in paths.items() if id not in masks]
    found = _each(lambda one: _photo(one[0], one[1], max_side, reading), todo, threads, "images")
    return Photos(source, list(found), masks, images.ignored_files(source), reading)


def _photo(id: str, path: Path, max_side: int, reading: Reading) -> Photo:
    try:
        data = images.read_file(path)
        read = usable(path, max_side, reading, data)
    except InputError as error:
        return Photo(id, path, reason=str(error).removeprefix(f"{path}: "))
    digest = hashlib.sha256(data).hexdigest()
    return Photo(id, path, read.kind, read.size, read.orientation, digest, read.notes)


def look_at_objects(benchmark: Benchmark, threads: int) -> Objects:
    """Reads all objects of a benchmark as `mis-jax evaluate` does; 0 threads: one per core."""

    def read(id: str) -> Object | None:
        try:
            sample = benchmark.read(id)
        except InputError:
            return None  # `benchmark.skipped` has it
        height, width = sample.mask.shape
        digest = hashlib.sha256(sample.image.data)
        digest.update(sample.mask.data)
        area = float((sample.mask == 1).mean())
        notes = benchmark.notes.get(id, ())
        return Object(id, (width, height), area, digest.hexdigest(), notes)

    found = _each(read, benchmark.ids, threads, benchmark.name)
    return Objects(benchmark, [o for o in found if o is not None])


def examples(items: Sequence, notes: Callable[[Any], Notes], count: int) -> list:
    """At most `count` of the items: the first of each kind of note, then some evenly apart."""
    if not items:
        return []
    kinds: dict[Notes, Any] = {}
    for item in items:
        if notes(item):
            kinds.setdefault(notes(item), item)
    apart = [items[k] for k in np.unique(np.linspace(0, len(items) - 1, count).astype(int))]
    chosen = [*kinds.values(), *(item for item in apart if item not in kinds.values())]
    return chosen[:count]


def _each(read: Callable, items: Sequence, threads: int, what: str) -> Iterator:
    """Like map over some threads, with progress; few results wait to be taken."""
    with ThreadPoolExecutor(threads or None) as pool:
        bar = tqdm(total=len(items), desc=what, disable=None)
        for first in range(0, len(items), _AHEAD):
            for result in pool.map(read, items[first : first + _AHEAD]):
                bar.update()
                yield result
        bar.close()


def _copies(digests: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Of (id, digest): ids of a digest that came before -> the first id of it."""
    first: dict[str, str] = {}
    found = ((id, first.setdefault(digest, id)) for id, digest in digests)
    return {id: other for id, other in found if id != other}


def _counts(words: Iterable[str]) -> dict[str, int]:
    return dict(collections.Counter(words).most_common())


def _told(counts: dict[str, int], most: int = 8) -> str:
    shown = [f"{count:,} {word}" for word, count in itertools.islice(counts.items(), most)]
    return ", ".join([*shown, *(["..."] if len(counts) > most else [])])


def _first(names: Sequence[str]) -> str:
    return names[0] + (", ..." if len(names) > 1 else "")
