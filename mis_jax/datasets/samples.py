"""What is clicked on: an object and its image, a benchmark of them, and why some are left out."""

import collections
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mis_jax.datasets.reading import Notes
from mis_jax.errors import InputError

# Why objects are left out: words of the reason -> kind, "{s}" where its plural has an s.
_KINDS = {
    "has no object pixel": "mask{s} without an object pixel",
    "pixels, its mask": "mask{s} of another size than the image",
    "no mask of this name": "image{s} without a mask",
    "no image of this name": "mask{s} without an image",
    "a second image called": "second image{s} of a name",
    "a second mask called": "second mask{s} of a name",
    "cannot be known": "mask{s} whose object is open (--masks ids or half)",
    "the mask ": "unreadable mask{s}",
    "SBD instance file": "unreadable SBD file{s}",
    "a crowd (iscrowd)": "crowd{s} of objects",
    "its image ": "object{s} of missing images",
    "of its box, SBD": "object{s} too thin for SBD's rule",
    "its annotation": "unusable annotation{s}",
    "its entry has no": "image{s} without a file name",
    "named twice": "name{s} listed twice",
}
_OTHER = "unreadable image{s}"


@dataclasses.dataclass(frozen=True)
class Sample:
    """One object: its image uint8 RGB [H, W, 3] and its mask int32 [H, W].

    The mask is 1 on the object, 0 elsewhere and -1 where it does not count.
    """

    id: str
    image: np.ndarray
    mask: np.ndarray


class Labelled(NamedTuple):
    """What a reader of one object gives: image and mask as in `Sample`, and what was odd."""

    image: np.ndarray
    mask: np.ndarray
    notes: Notes = ()


Reader = Callable[[], Labelled]


@dataclasses.dataclass
class Benchmark:
    """The objects of an evaluation set, read when they are asked for, by any number of threads.

    Iterating leaves out what cannot be used and names it, with the reason, in `skipped`. It can be
    pickled, for other processes.

    Attributes:
        name: as the user calls it.
        expected: number of objects of a known benchmark, else None.
        readers: object id -> function that reads its image and mask.
        skipped: object or file -> why it is left out.
        notes: object or file that was read -> what was odd about it (reading.py).
        photos: object id -> its image's file, of objects that are of one.
    """

    name: str
    expected: int | None
    readers: dict[str, Reader]
    skipped: dict[str, str]
    notes: dict[str, Notes] = dataclasses.field(default_factory=dict)
    photos: dict[str, Path] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.readers)

    def nothing_usable(self) -> InputError:
        """What to raise where iterating left everything out."""
        name, why = next(iter(self.skipped.items()))
        return InputError(f"{self.name}: no object can be used; {name}: {why}.")

    @property
    def ids(self) -> list[str]:
        """The ids of the objects, in the order of the evaluation; some may prove unusable."""
        return list(self.readers)

    def read(self, id: str) -> Sample:
        """One object.

        Raises:
            InputError: it cannot be used, which `skipped` then says too; or there is none such.
        """
        if id not in self.readers:
            raise InputError(f'{self.name} has no object "{id}".')
        try:
            image, mask, notes = self.readers[id]()
            _check(image, mask)
        except InputError as error:
            self.skipped[id] = str(error)
            raise
        if notes:
            self.notes[id] = notes
        return Sample(id, np.ascontiguousarray(image), np.ascontiguousarray(mask))

    def __iter__(self) -> Iterator[Sample]:
        for name in self.readers:
            with contextlib.suppress(InputError):
                yield self.read(name)


def photos_of(readers: Mapping[str, Reader]) -> dict[str, Path]:
    """`Benchmark.photos` of readers that are partials with the image's path as first argument."""
    found = {id: r.args[0] for id, r in readers.items() if isinstance(r, functools.partial)}
    return {id: path for id, path in found.items() if isinstance(path, Path)}


def reasons(skipped: Mapping[str, str]) -> dict[str, int]:
    """How many of `Benchmark.skipped` are of which kind, the most frequent first.

    The kinds are as they read behind their number: {"masks without an object pixel": 2,
    "unreadable image": 1}.
    """
    counts = collections.Counter(map(_kind, skipped.values())).most_common()
    return {kind.format(s="s" if count > 1 else ""): count for kind, count in counts}


def _kind(reason: str) -> str:
    return next((kind for words, kind in _KINDS.items() if words in reason), _OTHER)


def count_left_out(skipped: Mapping[str, str]) -> str:
    """`reasons` in words, "3 left out: 2 masks without an object pixel, 1 unreadable image"."""
    counts = ", ".join(f"{count:,} {kind}" for kind, count in reasons(skipped).items())
    return f"{len(skipped):,} left out: {counts}" if skipped else ""


def first_reasons(skipped: Mapping[str, str]) -> list[str]:
    """One of each kind with its reason in full: "a: the mask a.png has 0, 1 and 2".

    The most frequent kind comes first, as in `reasons`.
    """
    kinds = collections.Counter(map(_kind, skipped.values()))
    first: dict[str, str] = {}
    for id, reason in skipped.items():
        first.setdefault(_kind(reason), f"{id}: {reason}")
    return [first[kind] for kind, _ in kinds.most_common()]


def _check(image: np.ndarray, mask: np.ndarray) -> None:
    if image.shape[:2] != mask.shape:
        (h, w), (mask_h, mask_w) = image.shape[:2], mask.shape
        raise InputError(f"the image is {w} x {h} pixels, its mask {mask_w} x {mask_h}")
    if not (mask == 1).any():
        raise InputError("the mask has no object pixel (0 is background, 128 is not counted)")
