"""JPEG files: decoded once by libjpeg-turbo, and refused where it warns or the data do not add up.

JPEG has no checksum. What shows in a damaged file is named: the warnings of libjpeg, which other
readers swallow, and, of baseline files, what huffman.py finds. What does not show is a wrong value
that leaves every code whole: it can shift the colours of all that follows.
"""

import numpy as np

from mis_jax.errors import InputError

# What libjpeg says of headers that say nothing of the pixels, and the TurboJPEG API of samplings
# that it does not know: such files are left to another reader.
_HARMLESS = (
    "Unknown Adobe color transform",
    "unknown JFIF revision",
    "Invalid SOS parameters for sequential",
    "bad ICC marker",
    "subsampling level",
)
_FRAMES = tuple(m for m in range(0xC0, 0xD0) if m not in (0xC4, 0xC8, 0xCC))
_ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length
_GREATEST = 1280  # magnitude of a coefficient: 1024, and what encoders overshoot


class _Damage(Exception):
    """What does not add up."""


def is_jpeg(data: bytes) -> bool:
    """Whether these are the first bytes of a JPEG file."""
    return data[:3] == b"\xff\xd8\xff"


def decode(data: bytes, name: str) -> np.ndarray | None:
    """Pixels uint8 [H, W, 3] as stored; None: it needs another reader, such as for CMYK.

    Raises:
        InputError: names the file and its damage.
    """
    import simplejpeg

    check(data, name)
    try:
        if simplejpeg.decode_jpeg_header(data)[2] not in ("CMYK", "YCCK"):
            return simplejpeg.decode_jpeg(data, "RGB")
        simplejpeg.decode_jpeg(data, "CMYK")  # for its warnings; Pillow knows how inks are meant
    except ValueError as error:
        if not any(words in str(error) for words in _HARMLESS):
            raise InputError(f"{name}: truncated or damaged ({error})") from error
    return None


def check(data: bytes, name: str) -> None:
    """Raises `InputError` where the data of a baseline file do not add up; others pass."""
    try:
        _check(data)
    except _Damage as error:
        raise InputError(f"{name}: truncated or damaged ({error})") from error


def lenient(data: bytes) -> np.ndarray | None:
    """As `decode`, of what was checked before: damage is passed over; None: it cannot be read."""
    import simplejpeg

    try:
        return simplejpeg.decode_jpeg(data, "RGB", strict=False)
    except ValueError:
        return None


def _check(data: bytes) -> None:
    """Raises `_Damage` where a baseline file does not add up; others are left to libjpeg."""
    tables = _Tables()
    frame: _Frame | None = None
    seen: set[int] = set()
    at = 2
    while True:
        marker, body, at = _segment(data, at)
        if marker == 0xD9:
            break
        if marker == 0xDB:
            tables.add_quantisation(body)
        elif marker == 0xC4:
            tables.add_huffman(body)
        elif marker == 0xDD and len(body) >= 2:
            tables.restart = body[0] << 8 | body[1]
        elif marker in _FRAMES:
            if marker not in (0xC0, 0xC1) or body[:1] != b"\x08":
                return
            frame = _Frame(body)
        elif marker == 0xDA:
            if frame is None:
                raise _Damage("a scan without a frame")
            at = _scan(data, at, body, frame, tables)
            seen.update(body[1 : 1 + 2 * body[0] : 2])
    if frame is None or set(frame.components) - seen:
        raise _Damage("a component without a scan")


def _segment(data: bytes, at: int) -> tuple[int, bytes, int]:
    """The marker at a place, its body and the place behind it."""
    if at + 1 >= len(data):
        raise _Damage("it ends without an end marker")
    if data[at] != 0xFF:
        raise _Damage("a marker is missing")
    while data[at] == 0xFF:
        at += 1
        if at >= len(data):
            raise _Damage("it ends without an end marker")
    marker = data[at]
    at += 1
    if marker == 0xD9 or marker in _ALONE:
        return marker, b"", at
    length = int.from_bytes(data[at : at + 2], "big")
    if length < 2 or at + length > len(data):
        raise _Damage("a segment is longer than the file")
    return marker, data[at + 2 : at + length], at + length


class _Frame:
    """A frame header: the size, and of each component sampling factors and quantisation table."""

    def __init__(self, body: bytes) -> None:
        count = body[5] if len(body) > 5 else 0
        if not 0 < count <= 4 or len(body) != 6 + 3 * count:
            raise _Damage("a frame header of another length")
        self._size = [int.from_bytes(body[k : k + 2], "big") for k in (3, 1)]
        rows = [body[k : k + 3] for k in range(6, len(body), 3)]
        self.components = {row[0]: (row[1] >> 4, row[1] & 15, row[2]) for row in rows}
        factors = [f for h, v, _ in self.components.values() for f in (h, v)]
        if len(self.components) != count or not all(1 <= f <= 4 for f in factors):
            raise _Damage("components that cannot be")
        if not all(self._size):
            raise _Damage("a frame without a size")
        self.most = [max(row[k] for row in self.components.values()) for k in (0, 1)]

    def units(self, name: int | None) -> int:
        """Units of a scan of one component, or of several (None)."""
        if name is None:
            blocks = [_up(n, 8 * most) for n, most in zip(self._size, self.most, strict=True)]
        else:
            parts = zip(self._size, self.components[name][:2], self.most, strict=True)
            blocks = [_up(_up(n * factor, most), 8) for n, factor, most in parts]
        return blocks[0] * blocks[1]


def _up(a: int, b: int) -> int:
    """a / b, rounded up."""
    return (a + b - 1) // b


class _Tables:
    """Quantisation and Huffman tables, and the restart interval, as they are at a place."""

    def __init__(self) -> None:
        self.quantisation: dict[int, np.ndarray] = {}
        self.known: set[int] = set()
        self.fast = np.zeros((8, 1024), np.uint16)
        self.slow = np.zeros((8, 17, 3), np.int32)
        self.symbols = np.zeros((8, 256), np.uint8)
        self.restart = 0

    def add_quantisation(self, body: bytes) -> None:
        """A DQT segment."""
        while body:
            wide, which = body[0] >> 4, body[0] & 15
            end = 65 + 64 * wide
            if wide > 1 or which > 3 or len(body) < end:
                raise _Damage("a quantisation table that cannot be")
            values = np.frombuffer(body[1:end], ">u2" if wide else np.uint8)
            if not values.all():
                raise _Damage("a quantisation table with zeros")
            self.quantisation[which] = values.astype(np.int32)
            body = body[end:]

    def add_huffman(self, body: bytes) -> None:
        """A DHT segment."""
        from mis_jax.datasets import huffman

        while body:
            counts = np.frombuffer(body[1:17], np.uint8)
            count = int(counts.sum())
            symbols = np.frombuffer(body[17 : 17 + count], np.uint8)
            which = (body[0] >> 4 & 1) * 4 + (body[0] & 3)
            if body[0] & 0xEC or len(counts) != 16 or len(symbols) != count or count > 256:
                raise _Damage("a Huffman table that cannot be")
            if not huffman.fill(counts, symbols, self.fast[which], self.slow[which]):
                raise _Damage("a Huffman table that cannot be")
            self.symbols[which, :count] = symbols
            self.known.add(which)
            body = body[17 + count :]


def _scan(data: bytes, at: int, body: bytes, frame: _Frame, tables: _Tables) -> int:
    """The place behind a scan's data."""
    from mis_jax.datasets import huffman

    count = body[0] if body else 0
    if not 0 < count <= 4 or len(body) != 4 + 2 * count:
        raise _Damage("a scan header of another length")
    names, choices = body[1 : 1 + 2 * count : 2], body[2 : 2 + 2 * count : 2]
    if len(set(names)) != count or not set(names) <= set(frame.components):
        raise _Damage("a scan of components that the frame does not have")
    used = np.array([(c >> 4 & 3, 4 + (c & 3)) for c in choices], np.int32)
    rows = [frame.components[name] for name in names]
    if not {int(u) for u in used.flat} <= tables.known:
        raise _Damage("a Huffman table is missing")
    if not {row[2] for row in rows} <= tables.quantisation.keys():
        raise _Damage("a quantisation table is missing")
    quantisation = np.stack([tables.quantisation[row[2]] for row in rows])
    several = count > 1
    blocks = [k for k, (h, v, _) in enumerate(rows) for _ in range(h * v if several else 1)]
    state, at = huffman.walk(
        np.frombuffer(data, np.uint8),
        at,
        frame.units(None if several else names[0]),
        tables.restart,
        np.array(blocks, np.int32),
        used,
        tables.fast,
        tables.slow,
        tables.symbols,
        quantisation,
        np.ceil(np.log2(_GREATEST // quantisation + 2)).astype(np.uint8),
    )
    if state != huffman.GOOD:
        raise _Damage(huffman.WORDS[state])
    return at
