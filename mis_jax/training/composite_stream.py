"""The stream that the evidence network learns from: shards of records -> batches of composites.

As of input.py, composite k depends on the seed and k alone: it is that of record k of the shuffled
records, with pieces of others that its own random generator draws. Every HELD_OUT-th record is kept
out, as background and for pieces, for made-up targets to measure on (made_up.py); of fewer than FEW
records none is.
"""

import dataclasses
from collections.abc import Sequence

import cv2
import grain
import numpy as np

from mis_jax.errors import InputError
from mis_jax.proposals import Tree
from mis_jax.training import composites
from mis_jax.training.input import Item, Source

PIECES = 4  # photos whose pieces a composite may hold, besides its background
COUNT = 6  # targets of a composite
HELD_OUT = 20
FEW = 4 * HELD_OUT  # records, below which all are learnt from


@dataclasses.dataclass(frozen=True)
class Part:
    """Some of the records of a source, by their indices."""

    source: Source
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, k: int) -> Item:
        return self.source[self.indices[k]]


def keeps_out(source: Source) -> bool:
    """Whether some records are kept out of training."""
    return len(source) >= FEW


def learning(source: Source) -> Part:
    """The records that training learns from."""
    every = range(len(source))
    return Part(source, [k for k in every if k % HELD_OUT] if keeps_out(source) else every)


def held_out(source: Source) -> Part:
    """Those that are kept out of it, or all where none is."""
    return Part(source, range(0, len(source), HELD_OUT if keeps_out(source) else 1))


@dataclasses.dataclass(frozen=True)
class Compose(grain.transforms.RandomMap):
    """Record -> a composite on it, as a dict of arrays; `shares` as of `composites.compose`."""

    part: Part
    size: int
    shares: tuple[float, float, float]

    def random_map(self, element: Item, rng: np.random.Generator) -> dict:
        """One element of the stream, without its batch axis.

        Raises:
            InputError: a record that cannot be read, is damaged, or holds labelled objects.
        """
        others = rng.integers(len(self.part), size=PIECES)
        taken = [element, *(self.part[int(k)] for k in others)]
        for item in taken:
            if not isinstance(item.record.tree, Tree):
                raise InputError(
                    f"{item.where} holds labelled objects, and the evidence network learns from "
                    "photos alone; give records by mis-jax propose."
                )
        photos = [item.record for item in taken]
        try:
            made = composites.compose(rng, photos, self.size, self.shares, COUNT)
        except InputError as error:
            places = ", ".join(sorted({item.where for item in taken}))
            raise InputError(
                f"a record is damaged ({error}), one of {places}; delete its shard and propose "
                "again."
            ) from error
        return {**made._asdict(), "index": np.int32(element.index)}


def composite_stream(
    files: Sequence[str],
    *,
    seed: int,
    images: int,
    size: int,
    shares: tuple[float, float, float],
    threads: int,
    prefetch: int,
) -> grain.DatasetIterator:
    """Endless batches of composites; `mis_jax.config` explains the fields of `data`.

    Args:
        files: all shards; see `records.shard_files`.
        seed: of the order and of every random draw.
        images: composites of a batch, B.
        size: S, their side, pixels.
        shares: as of `composites.compose`.
        threads: that prepare batches, each one at a time.
        prefetch: batches kept ready besides those the threads work on.

    Returns:
        An iterator of `{"image": uint8 [B, S, S, 3] RGB, "targets": uint8 [B, M, S/2, S/2],
        "kinds": int8 [B, M], "index": int32 [B], records of the backgrounds}`. `get_state()` is a
        dict that `set_state` takes.

    Raises:
        InputError: a shard or record that cannot be read.
    """
    cv2.setNumThreads(0)  # the stream's own threads are enough
    part = learning(Source(files))
    items = grain.MapDataset.source(part).seed(seed).shuffle().repeat()
    ds = items.random_map(Compose(part, size, tuple(shares)))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + prefetch)
    hosts = grain.sharding.ShardOptions(0, 1)  # the evidence network trains in one process
    return iter(grain.experimental.ElasticIterator(ds, images, hosts, read_options=options))
