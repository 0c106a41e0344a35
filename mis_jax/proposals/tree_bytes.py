"""The bytes of a merge tree on disk.

Little-endian: "MTRE", version and bytes of an index (uint8), rows and columns (uint32), largest
cost (float32), CRC32 of all other bytes (uint32), the merges row by row (uint16 or uint32), the
level of each cost (uint8): 0 is no cost, else the largest over 2 ** ((255 - level) / 8), which
keeps costs to 5 %.
"""

import struct
import zlib
from collections.abc import Sequence

import numpy as np

from mis_jax.errors import InputError

# Magic, version, bytes of an index, rows, columns, largest cost, CRC32 of all other bytes.
_HEADER = struct.Struct("<4sBBIIfI")
_MAGIC = b"MTRE"
_VERSION = 2
_LEVELS = 8  # of a cost on disk, in each factor of 2


def encode(merges: np.ndarray, costs: np.ndarray, grid: tuple[int, int]) -> bytes:
    """The bytes of merges int32 [n - 1, 2] and their costs float32 [n - 1] over a grid (h, w)."""
    size = _index_size(len(merges) + 1)
    largest = np.max(costs, initial=0)
    body = merges.astype(f"<u{size}").tobytes() + _cost_levels(costs, largest).tobytes()
    fields = (_MAGIC, _VERSION, size, *grid, largest)
    return _HEADER.pack(*fields, _checksum(fields, body)) + body


def decode(data: bytes) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Merges, costs and grid of what `encode` wrote.

    Raises:
      InputError: bytes that are damaged, cut short or of another kind or version.
    """
    again = "; propose the trees of this data set again."
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise InputError("These bytes hold no merge tree" + again)
    *fields, checksum = _HEADER.unpack_from(data)
    _, version, size, height, width, largest = fields
    if version != _VERSION:
        raise InputError(f"The merge tree has version {version}, not {_VERSION}" + again)
    n = height * width
    body = data[_HEADER.size :]
    whole = n >= 1 and size == _index_size(n) and len(body) == (2 * size + 1) * (n - 1)
    if not whole or checksum != _checksum(fields, body):
        raise InputError("The merge tree is damaged or cut short" + again)
    merges = np.frombuffer(body, f"<u{size}", 2 * (n - 1)).reshape(n - 1, 2)
    levels = np.frombuffer(body, np.uint8, n - 1, offset=2 * size * (n - 1))
    return merges, _costs_of_levels(levels, largest), (height, width)


def _index_size(n: int) -> int:
    """Bytes of a node number on disk."""
    return 2 if 2 * n - 1 <= 65535 else 4


def _checksum(fields: Sequence, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(_HEADER.pack(*fields, 0)))


def _cost_levels(costs: np.ndarray, largest: float) -> np.ndarray:
    """uint8 [n - 1]; see the module."""
    levels = np.zeros(len(costs), np.uint8)
    some = costs > 0
    octaves = np.log2(costs[some].astype(np.float64) / largest)
    levels[some] = np.maximum(np.rint(255 + _LEVELS * octaves), 1)
    return levels


def _costs_of_levels(levels: np.ndarray, largest: float) -> np.ndarray:
    """float32 [n - 1], the inverse of `_cost_levels`."""
    costs = largest * np.exp2((levels.astype(np.float64) - 255) / _LEVELS)
    return np.where(levels == 0, 0, costs).astype(np.float32)
