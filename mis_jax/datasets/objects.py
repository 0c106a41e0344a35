"""Labelled objects of an image, which fine-tuning draws in place of a merge tree's proposals."""

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from mis_jax.errors import InputError

_HEADER = struct.Struct("<4sBIII")  # magic, bytes of a label, rows, columns, CRC32 of all others
_MAGIC = b"MOBJ"


@dataclass(frozen=True, eq=False)
class Objects:
    """A map of labels that samples are drawn from as from a `tree.Tree`, each pixel a patch.

    Attributes:
      labels: uint8 or uint16 [H, W], 0 where there is no object; read-only.

    Raises:
      InputError: labels of another shape or type, or no object.
    """

    labels: np.ndarray

    def __post_init__(self) -> None:
        labels = np.array(self.labels, order="C")
        if labels.ndim != 2 or labels.dtype not in (np.uint8, np.uint16) or not labels.any():
            raise InputError(
                "A map of objects takes labels [H, W] in uint8 or uint16, some of them over 0."
            )
        labels.flags.writeable = False
        object.__setattr__(self, "labels", labels)

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.labels.shape

    def sample(
        self,
        rng: np.random.Generator,
        alpha: float = 0.0,
        min_area: float = 0.0,
        mode: str = "",
        max_tries: int = 1,
        weights: np.ndarray | None = None,
    ) -> int:
        """Draws the label of an object, each as likely; an object has no depth, and no modes.

        Args:
          rng: the only source of randomness.
          min_area: an object of at most this fraction of the image is drawn only if all are such.
          weights: how much of each pixel is seen, [H * W]; objects unseen count as too small.
        """
        flat = self.labels.ravel()
        areas = np.bincount(flat, weights)
        whole, areas[0] = areas.sum(), 0
        there = np.bincount(flat) > 0
        there[0] = False
        large = np.flatnonzero(areas > min_area * whole)
        found = next(x for x in (large, np.flatnonzero(areas), np.flatnonzero(there)) if len(x))
        return int(found[rng.integers(len(found))])

    def mask(self, label: int) -> np.ndarray:
        """bool [H, W]: the pixels of an object."""
        return self.labels == label

    def to_bytes(self) -> bytes:
        """Little-endian: "MOBJ", bytes of a label, rows, columns, CRC32; then the labels, deflated.

        The same labels give the same bytes.
        """
        little = self.labels.astype(self.labels.dtype.newbyteorder("<"))
        body = zlib.compress(little.tobytes(), 6)
        fields = _MAGIC, self.labels.itemsize, *self.grid
        return _HEADER.pack(*fields, _checksum(fields, body)) + body

    @classmethod
    def from_bytes(cls, data: bytes) -> "Objects":
        """Reads what `to_bytes` wrote.

        Raises:
          InputError: bytes that are damaged, cut short or of another kind.
        """
        body = data[_HEADER.size :]
        whole = len(data) >= _HEADER.size and data[:4] == _MAGIC
        *fields, checksum = _HEADER.unpack_from(data) if whole else (b"", 0, 0, 0, 0)
        if not whole or checksum != _checksum(fields, body):
            raise InputError("These bytes hold no objects, or are damaged; make the records again.")
        _, size, height, width = fields
        labels = np.frombuffer(zlib.decompress(body), f"<u{size}").reshape(height, width)
        return cls(labels.astype(f"u{size}"))


def without_buggy(labels: np.ndarray, least: float = 0.08) -> np.ndarray:
    """Labels without the objects that fill less than `least` of their bounding boxes.

    As SBDDataset of the public code leaves them out (isegm/data/datasets/sbd.py, SimpleClick).
    """
    labels = labels.copy()
    for label in np.unique(labels[labels > 0]).tolist():
        rows, cols = np.nonzero(labels == label)
        box = (np.ptp(rows) + 1) * (np.ptp(cols) + 1)
        if len(rows) / box < least:
            labels[rows, cols] = 0
    return labels


def _checksum(fields: tuple | list, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(_HEADER.pack(*fields, 0)))
