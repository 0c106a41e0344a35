"""Labelled objects of an image, which fine-tuning draws in place of a merge tree's proposals.

`Objects` holds those of any image; `without_buggy` is a rule of SBD's alone.
"""

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mis_jax.errors import InputError

_HEADER = struct.Struct("<4sBIII")  # magic, bytes of a label, rows, columns, CRC32 of all others
_FLAT, _LAYERED = b"MOBJ", b"MOBL"  # one map; several, as many as the data is long for


@dataclass(frozen=True, eq=False)
class Objects:
    """Maps of labels that samples are drawn from as from a `tree.Tree`, each pixel a patch.

    Attributes:
      labels: uint8 or uint16 [H, W], 0 where there is no object; or [L, H, W], layers that objects
        which overlap are spread over, each with a label of its own in one of them; read-only.

    Raises:
      InputError: labels of another shape or type, or no object.
    """

    labels: np.ndarray

    def __post_init__(self) -> None:
        labels = np.array(self.labels, order="C")
        shaped = labels.ndim in (2, 3) and labels.dtype in (np.uint8, np.uint16)
        if not shaped or not labels.any():
            raise InputError(
                "A map of objects takes labels [H, W] or [L, H, W] in uint8 or uint16, some of "
                "them over 0."
            )
        labels.flags.writeable = False
        object.__setattr__(self, "labels", labels)

    @classmethod
    def of(cls, masks: Iterable[np.ndarray]) -> "Objects":
        """The objects of some masks bool [H, W], labelled 1, 2, ... in their order.

        Each is put into the first layer where it overlaps no other.

        Raises:
          InputError: there is no mask, or an empty one, or more than 65,535.
        """
        layers: list[np.ndarray] = []
        for label, mask in enumerate(masks, 1):
            if label > np.iinfo(np.uint16).max or not mask.any():
                raise InputError(f"mask {label} of an image is empty, or one too many.")
            layer = next((one for one in layers if not one[mask].any()), None)
            if layer is None:
                layer = np.zeros(mask.shape, np.uint16)
                layers.append(layer)
            layer[mask] = label
        if not layers:
            raise InputError("an image without a mask has no objects.")
        labels = np.stack(layers) if len(layers) > 1 else layers[0]
        return cls(labels.astype(np.uint8) if labels.max() < 256 else labels)

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.labels.shape[-2:]

    @property
    def count(self) -> int:
        """How many objects there are."""
        return len(np.unique(self.labels[self.labels > 0]))

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
        layers = self.labels.reshape(-1, self.grid[0] * self.grid[1])
        most = int(self.labels.max()) + 1
        areas = np.sum([np.bincount(layer, weights, most) for layer in layers], axis=0)
        there = np.bincount(self.labels.ravel()) > 0
        whole, areas[0], there[0] = areas.sum() / len(layers), 0, False
        large = np.flatnonzero(areas > min_area * whole)
        found = next(x for x in (large, np.flatnonzero(areas), np.flatnonzero(there)) if len(x))
        return int(found[rng.integers(len(found))])

    def mask(self, label: int) -> np.ndarray:
        """bool [H, W]: the pixels of an object."""
        own = self.labels == label
        return own if own.ndim == 2 else own.any(0)

    def to_bytes(self) -> bytes:
        """Little-endian: magic, bytes of a label, rows, columns, CRC32; then the labels, deflated.

        The magic is "MOBJ" for one map, "MOBL" for layers. The same labels give the same bytes.
        """
        little = self.labels.astype(self.labels.dtype.newbyteorder("<"))
        body = zlib.compress(little.tobytes(), 6)
        magic = _FLAT if self.labels.ndim == 2 else _LAYERED
        fields = magic, self.labels.itemsize, *self.grid
        return _HEADER.pack(*fields, _checksum(fields, body)) + body

    @classmethod
    def from_bytes(cls, data: bytes) -> "Objects":
        """Reads what `to_bytes` wrote.

        Raises:
          InputError: bytes that are damaged, cut short or of another kind.
        """
        body = data[_HEADER.size :]
        whole = len(data) >= _HEADER.size and data[:4] in (_FLAT, _LAYERED)
        *fields, checksum = _HEADER.unpack_from(data) if whole else (b"", 0, 0, 0, 0)
        if not whole or checksum != _checksum(fields, body):
            raise InputError("These bytes hold no objects, or are damaged; make the records again.")
        magic, size, *grid = fields
        labels = np.frombuffer(zlib.decompress(body), f"<u{size}").astype(f"u{size}")
        return cls(labels.reshape(grid if magic == _FLAT else (-1, *grid)))


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
