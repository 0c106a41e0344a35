"""Damage to the bytes of a file, as transfers, disks and half-finished writers do it."""

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
