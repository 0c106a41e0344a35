"""Damage to the bytes of a file, as transfers, disks and half-finished writers do it."""

import copy

import numpy as np

HUGE = (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\x40", b"\x40\0\0\0")


def damaged(data: bytes, rng: np.random.Generator, header: int = 64) -> bytes:
    """Bytes cut off, changed anywhere or in the header, left out, added, zeroed, or made huge."""
    changed = bytearray(data)
    at, how = int(rng.integers(len(data))), rng.integers(7)
    if how == 0:
        return bytes(changed[:at])
    if how == 1:
        for place in rng.integers(len(data), size=rng.integers(1, 9)):
            changed[place] ^= int(rng.integers(1, 256))
    elif how == 2:
        for place in rng.integers(min(header, len(data)), size=3):
            changed[place] = int(rng.integers(256))
    elif how == 3:
        del changed[at : at + int(rng.integers(1, 20))]
    elif how == 4:
        changed[at:at] = rng.bytes(int(rng.integers(1, 20)))
    elif how == 5:
        end = min(len(data), at + max(1, len(data) // 16))
        changed[at:end] = bytes(end - at)
    else:
        changed[at : at + 4] = HUGE[rng.integers(len(HUGE))][: len(data) - at]
    return bytes(changed)


ODD = (None, True, -1, 0, 2**40, 1.5, float("nan"), "", "x", [], [[]], [1], {}, {"x": 1})


def odd_json(content: object, rng: np.random.Generator) -> object:
    """JSON with one of its values replaced by one of another kind, or left out."""
    places: list[tuple] = []

    def walk(value: object) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value)  # type: ignore
        for key, inner in items:
            places.append((value, key))
            if isinstance(inner, dict | list):
                walk(inner)

    content = copy.deepcopy(content)
    if isinstance(content, dict | list):
        walk(content)
    if not places or rng.integers(20) == 0:
        return ODD[rng.integers(len(ODD))]
    holder, key = places[rng.integers(len(places))]
    if rng.integers(4) == 0:
        del holder[key]
    else:
        holder[key] = ODD[rng.integers(len(ODD))]
    return content
