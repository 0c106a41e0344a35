"""One array of a MATLAB file of level 5, without trust in what the file says of itself.

`scipy.io.loadmat` ends the process at some damaged files (SIGSEGV), and makes room for gigabytes
that others promise. Here every length is compared with what is there. The format is described in
"MAT-File Format" by The MathWorks.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

MOST = 1 << 26  # bytes of a variable; no photo's labels need more
_HEADER = 128  # bytes
_MATRIX, _COMPRESSED = 14, 15  # kinds of elements
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8"}
_NUMBERS |= {13: "u8"}
_STRUCT, _CLASSES, _COMPLEX = 2, range(6, 16), 0x800  # classes of arrays; those of numbers; a flag


class _Array(NamedTuple):
    kind: int  # its class
    shape: tuple[int, ...]
    name: str
    content: list[tuple[int, memoryview]]


def read_field(data: bytes, variable: str, field: str) -> np.ndarray:
    """The numbers in a field of a struct [1, 1], of the bytes of a file; of the type it stores.

    Raises:
        ValueError: says what is wrong with the file.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[_HEADER - 2 : _HEADER])
    if order is None:
        raise ValueError("it is no MATLAB file of level 5")
    for kind, body in _elements(memoryview(data)[_HEADER:], order):
        for inner, content in _unpacked(body, order) if kind == _COMPRESSED else [(kind, body)]:
            array = _array(content, order) if inner == _MATRIX else None
            if array and array.name == variable:
                return _numbers(_field(array, field, order), order)
    raise ValueError(f"it has no {variable}")


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Kind and content of each element."""
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise ValueError("it is cut off")
        kind, size = struct.unpack_from(order + "II", data, at)
        start = at + 8
        if kind >> 16:  # a small one: its size is in the same word, its content in the next
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        padding = 0 if kind == _COMPRESSED else -size % 8
        if start + size > len(data) or (start == at + 4 and size > 4):
            raise ValueError("it is cut off or damaged")
        yield kind, data[start : start + size]
        at = at + 8 if start == at + 4 else start + size + padding


def _unpacked(data: memoryview, order: str) -> list[tuple[int, memoryview]]:
    inflate = zlib.decompressobj()
    plain = inflate.decompress(data, MOST)
    if not inflate.eof:
        raise ValueError(f"it is cut off, or holds more than {MOST} bytes")
    return list(_elements(memoryview(plain), order))


def _array(data: memoryview, order: str) -> _Array:
    parts = list(_elements(data, order))
    if len(parts) < 3 or len(parts[0][1]) != 8 or len(parts[1][1]) % 4:
        raise ValueError("an array is damaged")
    (_, flags), (_, sizes), (_, name), *content = parts
    (flag,) = struct.unpack_from(order + "I", flags)
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    if min(shape, default=-1) < 0 or flag & _COMPLEX:
        raise ValueError("an array is damaged, or of complex numbers")
    return _Array(flag & 0xFF, shape, bytes(name).decode("latin-1"), content)


def _field(array: _Array, field: str, order: str) -> _Array:
    if array.kind != _STRUCT or array.shape != (1, 1) or len(array.content) < 2:
        raise ValueError(f"its {array.name} is no struct")
    (_, length), (_, text), *values = array.content
    size = int.from_bytes(length, "little" if order == "<" else "big")
    if not size or len(text) % size or len(text) // size != len(values):
        raise ValueError(f"its {array.name} is damaged")
    starts = range(0, len(text), size)
    names = [bytes(text[at : at + size]).partition(b"\0")[0].decode("latin-1") for at in starts]
    if field not in names:
        raise ValueError(f"its {array.name} has no {field}")
    return _array(values[names.index(field)][1], order)


def _numbers(array: _Array, order: str) -> np.ndarray:
    if array.kind not in _CLASSES or len(array.content) != 1 or len(array.shape) != 2:
        raise ValueError("its labels are no array of numbers")
    kind, body = array.content[0]
    stored = np.dtype(order + _NUMBERS.get(kind, "u1"))
    if kind not in _NUMBERS or len(body) != math.prod(array.shape) * stored.itemsize:
        raise ValueError("its labels are not as many as it says")
    values = np.frombuffer(body, stored).reshape(array.shape, order="F")
    return values.astype(stored.newbyteorder("="))
