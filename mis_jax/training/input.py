"""The training stream: shards of records -> batches of crops, proposals and first clicks.

Sample k depends on the seed and k alone: records are shuffled over all shards, anew every epoch,
and the random generator of a sample comes from its position. Hosts take their rows last, so they
may come and go, and the state of the stream is the position of the next sample.
"""

import bisect
import dataclasses
import itertools
import resource
import threading
from collections.abc import Callable, Sequence

import cv2
import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from mis_jax import records
from mis_jax.errors import InputError
from mis_jax.training import augment, empty_targets, first_clicks


@dataclasses.dataclass(frozen=True)
class Item:
    """A record of a `Source`."""

    index: int
    where: str  # shard and position, for messages
    record: records.Record


OPEN = 128  # shards at once, or a quarter of the files that the process may open


class Source:
    """Random access to the records of shards, in the order of `files`, for any number of threads.

    The shards that were used last are kept open. Raises `InputError` that names the shard, and the
    record, which cannot be read.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self._files = list(files)
        counts = []
        for file in self._files:
            reader = records.open_shard(file)
            counts.append(reader.num_records())
            reader.close()
        self._starts = [0, *itertools.accumulate(counts)]
        if not len(self):
            raise InputError(f"the {len(self._files)} shards given hold no records; propose again.")
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = max(1, min(OPEN, allowed // 4)) if allowed > 0 else OPEN  # -1: any number
        self._lock = threading.Lock()
        self._open: dict[int, ArrayRecordReader] = {}  # shard -> its reader, the latest last

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Item:
        shard = bisect.bisect_right(self._starts, index) - 1
        position = int(index) - self._starts[shard]
        where = f"record {position} of {self._files[shard]}"
        reader = self._reader(shard)
        try:
            return Item(int(index), where, records.decode(reader.read([position])[0]))
        except (RuntimeError, InputError) as error:
            raise _damaged(where, error) from error

    def _reader(self, shard: int) -> ArrayRecordReader:
        """An open reader; one that is dropped is closed when its last thread is done with it."""
        with self._lock:
            reader = self._open.pop(shard, None)
            if reader is not None:
                self._open[shard] = reader
                return reader
        reader = records.open_shard(self._files[shard])
        with self._lock:
            self._open[shard] = reader
            if len(self._open) > self._most:
                del self._open[next(iter(self._open))]
        return reader


@dataclasses.dataclass(frozen=True)
class Sample(grain.transforms.RandomMap):
    """Record -> a proposal or object of it, cropped, with first clicks; fields: `train_stream`."""

    augmentation: augment.Augmentation
    sampling: str
    alpha: float
    min_area: float
    max_tries: int
    area_of: str
    min_object_area: int
    max_points: int
    gamma: float

    def random_map(
        self, element: Item, rng: np.random.Generator
    ) -> dict[str, np.ndarray | np.int32]:
        """One element of the stream, without its batch axis."""
        crop, points = self.target(element, rng)
        record, index = element.record, np.int32(element.index)
        try:
            image = augment.cut(record.image, crop, record.height, record.width)
        except InputError as error:
            raise _damaged(element.where, error) from error
        return {"image": image, "mask": crop.mask, "points": points, "index": index}

    def target(self, element: Item, rng: np.random.Generator) -> tuple[augment.Crop, np.ndarray]:
        """What of an element needs no pixels: the crop with its mask, and the first clicks."""
        record, tree = element.record, element.record.tree

        def sample(seen: np.ndarray | None) -> np.ndarray:
            limits = self.alpha, self.min_area, self.sampling, self.max_tries
            return tree.mask(tree.sample(rng, *limits, seen))

        size = record.height, record.width
        if self.area_of == "crop":
            crop = self.augmentation.draw_first(rng, sample, tree.grid, *size)
        else:
            crop = self.augmentation.draw(rng, sample(None), *size)
        points = first_clicks.sample_clicks(
            crop.mask,
            rng,
            max_points=self.max_points,
            gamma=self.gamma,
            min_area=self.min_object_area,
        )
        if cv2.countNonZero(crop.mask) < self.min_object_area:
            crop.mask[:] = 0
        return crop, points


@dataclasses.dataclass(frozen=True)
class _Look(grain.transforms.RandomMap):
    """Record -> the target that `sample` makes of it."""

    sample: Sample

    def random_map(self, element: Item, rng: np.random.Generator) -> empty_targets.Target:
        mask, record = self.sample.target(element, rng)[0].mask, element.record
        return empty_targets.Target(
            record.id, (record.height, record.width), cv2.countNonZero(mask)
        )


def train_stream(
    files: Sequence[str],
    *,
    seed: int,
    batch_size: int,
    crop: int,
    sampling: str,
    alpha: float,
    min_area: float,
    max_tries: int,
    area_of: str,
    scale: tuple[float, float],
    rotate90: float,
    flip: float,
    flip_vertical: bool,
    shift_scale_rotate: float,
    brightness_contrast: float,
    rgb_shift: float,
    keep_background: float,
    min_object_area: int,
    max_points: int,
    gamma: float,
    threads: int,
    prefetch: int,
    shard: tuple[int, int] = (0, 1),
    say: Callable[[str], object] | None = None,
) -> grain.DatasetIterator:
    """Endless batches; `mis_jax.config` explains the fields of `data` and `clicks`.

    Args:
        files: all shards, in the same order on every host; see `records.shard_files`.
        seed: of the order and of every random draw.
        batch_size: samples a step over all hosts.
        threads: that prepare batches, each one at a time; 0 prepares them when they are asked for.
        prefetch: batches kept ready besides those the threads work on.
        shard: number of this host and of all hosts.
        say: is given a line where many of the first targets are empty; they are only looked at,
            which takes a second, where there is a `say`.

    Returns:
        An iterator of `{"image": uint8 [B, crop, crop, 3] RGB, "mask": uint8 [B, crop, crop] of 0
        and 1, "points": float32 [B, 2 * max_points, 3] rows (row, col, order), "index": int32 [B]
        in Source(files)}`, where B = batch_size / hosts. `get_state()` is a dict of one integer
        that `set_state` takes on any number of hosts; `close()` ends the threads.

    Raises:
        InputError: a shard or record that cannot be read, a batch that hosts cannot share, or
            nothing but empty targets.
    """
    if batch_size % shard[1]:
        raise InputError(f"batch_size {batch_size} is no multiple of the {shard[1]} hosts.")
    cv2.setNumThreads(0)  # each sample is one thread's work; OpenCV's own would only contend
    augmentation = augment.Augmentation(
        crop=crop,
        scale=scale,
        flip=flip,
        flip_vertical=flip_vertical,
        rotate90=rotate90,
        shift_scale_rotate=shift_scale_rotate,
        brightness_contrast=brightness_contrast,
        rgb_shift=rgb_shift,
        keep_background=keep_background,
    )
    sample = Sample(
        augmentation,
        sampling,
        alpha,
        min_area,
        max_tries,
        area_of,
        min_object_area,
        max_points,
        gamma,
    )
    items = grain.MapDataset.source(Source(files)).seed(seed).shuffle().repeat()
    if say:
        targets = items.random_map(_Look(sample))
        looked = [targets[k] for k in range(empty_targets.COUNT)]
        if line := empty_targets.describe(looked, min_object_area, keep_background):
            say(line)
    ds = items.random_map(sample)
    # A thread makes a whole batch, so a buffer shorter than `threads` would leave some idle.
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + prefetch)
    hosts = grain.sharding.ShardOptions(*shard)
    return iter(grain.experimental.ElasticIterator(ds, batch_size, hosts, read_options=options))


def _damaged(where: str, error: Exception) -> InputError:
    return InputError(f"{where} is damaged ({error}); delete the shard and propose again.")
