"""PNG files: every chunk's checksum, which other readers leave out, and the values of 16 bits."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from mis_jax.datasets.bands import Bands
from mis_jax.errors import InputError

_MAGIC = b"\x89PNG\r\n\x1a\n"


def is_png(data: bytes) -> bool:
    """Whether these are the first bytes of a PNG file."""
    return data[:8] == _MAGIC


def check(data: bytes, name: str) -> dict[bytes, bytes]:
    """The first chunk of each kind, IDAT's aside.

    Raises:
        InputError: names the file, and the chunk that is damaged or missing.
    """
    chunks: dict[bytes, bytes] = {}
    for kind, body in _chunks(data, name):
        if kind != b"IDAT":
            chunks.setdefault(kind, body)
    if len(chunks.get(b"IHDR", b"")) != 13:
        raise InputError(f"{name}: truncated or damaged (no header)")
    return chunks


def _chunks(data: bytes, name: str) -> Iterator[tuple[bytes, bytes]]:
    at, kind = 8, b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise InputError(f"{name}: truncated or damaged (it ends before IEND)")
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        end = at + 8 + length
        if end + 4 > len(data):
            raise InputError(f"{name}: truncated or damaged (it ends before IEND)")
        body = data[at + 8 : end]
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(data[end : end + 4], "big"):
            word = kind.decode("ascii", "replace")
            raise InputError(f"{name}: truncated or damaged (the checksum of {word})")
        yield kind, body
        at = end + 4


def deep(data: bytes, chunks: dict[bytes, bytes], name: str) -> Bands:
    """What is in a PNG of 16 bits; a colour that is transparent (tRNS) becomes a band.

    Raises:
        InputError: it is damaged.
    """
    import imagecodecs

    try:
        values = np.atleast_3d(imagecodecs.png_decode(data))
    except Exception as error:
        raise InputError(f"{name}: truncated or damaged ({error})") from error
    colours = 3 if chunks[b"IHDR"][9] & 2 else 1
    return Bands(values, 16, colours, alpha=colours if values.shape[-1] > colours else None)
