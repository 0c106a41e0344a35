"""How files are read where they leave it open, and the lines that say what was odd about them."""

import dataclasses
import math
import numbers
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mis_jax.errors import InputError

MASKS = {  # what can be said of masks whose meaning cannot be known
    "ids": "every value above 0 is an object of its own, 255 not counted where a palette has it",
    "half": "the object is what is above half of the greatest value the pixels can have",
    "stored": "masks are drawn on the pixels as stored, before the EXIF rotation",
    "upright": "masks are drawn on the photo as it is seen",
}
Notes = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the user says of files that leave it open.

    Attributes:
        range: the values that become black and white in files of more than 8 bits; None: by the
            rule of depth.py.
        bands: which bands, from 0, are red, green and blue, or the one that is grey; None: by the
            rule of bands.py.
        masks: words of `MASKS`.

    Raises:
        InputError: says which is senseless.
    """

    range: tuple[float, float] | None = None
    bands: tuple[int, ...] | None = None
    masks: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.range is not None and not _is_range(self.range):
            raise InputError(
                f"config.images.range is {self.range}; it has to be (black, white), such as "
                "(0, 4095), or empty."
            )
        if self.bands is not None and not _are_bands(self.bands):
            raise InputError(
                f"config.images.bands is {self.bands}; it has to be one band or three, counted "
                "from 0, such as (3, 2, 1), or empty."
            )
        for word in self.masks:
            if word not in MASKS:
                raise InputError(f'--masks: there is no "{word}"; there are {", ".join(MASKS)}.')
        if {"stored", "upright"} <= self.masks or {"ids", "half"} <= self.masks:
            raise InputError(
                f"--masks={','.join(sorted(self.masks))}: stored and upright, or ids and half, "
                "exclude each other; give one."
            )

    @property
    def settings(self) -> dict[str, list]:
        """What records of images depend on, for their index; empty where all is by the rules."""
        fixed = {"range": self.range, "bands": self.bands}
        return {name: list(value) for name, value in fixed.items() if value}

    @classmethod
    def of(cls, images: Mapping, masks: Collection[str] = ()) -> "Reading":
        """The reading of `config.images` and `--masks`."""
        lists = tuple(images["range"]) or None, tuple(images["bands"]) or None
        return cls(*lists, frozenset(masks))


def _is_range(values: Sequence) -> bool:
    found: list[Any] = [v for v in values if isinstance(v, numbers.Real) and type(v) is not bool]
    return len(values) == len(found) == 2 and -math.inf < found[0] < found[1] < math.inf


def _are_bands(values: Sequence) -> bool:
    found: list[Any] = [
        v for v in values if isinstance(v, numbers.Integral) and type(v) is not bool
    ]
    return len(values) == len(found) in (1, 3) and min(found) >= 0


def note_lines(notes: Mapping[str, Notes]) -> list[str]:
    """A counted line for each kind of note, the most frequent first, with the first file's name.

    {"a.png": ("several pages, the first is read",), "b.png": (...)} gives
    ["2 files: several pages, the first is read (a.png, ...)"].
    """
    names: dict[str, list[str]] = {}
    for name, found in notes.items():
        for note in dict.fromkeys(found):
            names.setdefault(note, []).append(name)
    ordered = sorted(names.items(), key=lambda item: -len(item[1]))
    return [_line(note, files) for note, files in ordered]


def _line(note: str, files: Sequence[str]) -> str:
    first = files[0] + (", ..." if len(files) > 1 else "")
    return f"{len(files):,} file{'s' if len(files) > 1 else ''}: {note} ({first})"
