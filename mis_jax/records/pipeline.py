"""Images -> features -> merge trees -> records, each step overlapping the others; and why not."""

import collections
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from mis_jax import features
from mis_jax.datasets import Notes, Reading, images, stamp
from mis_jax.errors import InputError
from mis_jax.proposals import build_tree
from mis_jax.records import schema
from mis_jax.records.report import Report, describe

BLANK = "blank: every pixel is nearly alike"
FLAT = "looks like a mask: few flat colours"
FEW_COLOURS = 8  # at most so many
TWO_GREYS, NEAR = 0.8, 8  # share of a soft mask's pixels, levels around its two greys
LOSSY = (".jpg", ".jpeg")
_BATCHES = 8  # in one call of an extractor on devices, which sorts its images by size


class Item(NamedTuple):
    """One image on its way: filled from left to right."""

    shard: int
    id: str
    path: Path
    file: list | None = None  # id, digest and stamp, kept beside the shard (plan.py)
    reason: str = ""  # why it is skipped
    encoded: bytes = b""  # what the record keeps; after merging, the record
    image: np.ndarray | None = None
    notes: Notes = ()  # what is odd about the file
    features: np.ndarray | None = None
    report: Report | None = None


def records_of(
    items: Iterable[Item],
    extractor: features.Extractor,
    max_side: int,
    batch_size: int,
    pool: ThreadPoolExecutor,
    threads: int,
    reading: Reading,
) -> Iterator[Item]:
    """Decodes, extracts and merges, each overlapping the others; yields in the order of `items`."""
    load = functools.partial(_load, max_side=max_side, reading=reading)
    merge = functools.partial(_merge, borders=extractor.borders)
    if not extractor.device:

        def work(item: Item) -> Item:
            return merge(next(_extract_batch([load(item)], extractor)))

        return _in_order(pool, work, items, 2 * threads)
    call = _BATCHES * batch_size * jax.local_device_count()
    loaded = _in_order(pool, load, items, threads + call)
    return _in_order(pool, merge, _extract(loaded, extractor, call), threads + call)


def _in_order(
    pool: ThreadPoolExecutor, function: Callable, items: Iterable, ahead: int
) -> Iterator:
    """Like map over the threads of `pool`, with at most `ahead` items begun and not yet taken."""
    window: collections.deque[Future] = collections.deque()
    for item in items:
        window.append(pool.submit(function, item))
        if len(window) >= ahead:
            yield window.popleft().result()
    while window:
        yield window.popleft().result()


def _load(item: Item, max_side: int, reading: Reading) -> Item:
    seen, digest = stamp(item.path), ""  # stamped first, so that no later change goes unseen
    try:
        data = images.read_file(item.path)
        digest = hashlib.sha256(data).hexdigest()
        found = usable(item.path, max_side, reading, data)
    except InputError as error:
        reason = str(error).removeprefix(f"{item.path}: ")
        return item._replace(reason=reason, file=[item.id, digest, *seen])
    file = [item.id, digest, *seen]
    return item._replace(encoded=found.encoded, image=found.image, notes=found.notes, file=file)


def usable(path: Path, max_side: int, reading: Reading, data: bytes) -> images.Prepared:
    """What a record keeps of the image file `path` of the bytes `data`.

    Raises:
      InputError: why no record is made of it.
    """
    found = images.prepare(path, max_side, reading, data)
    if images.is_blank(found.image):
        raise InputError(f"{path}: {BLANK}")
    if not looks_flat(found.image):
        return found
    photo = _lossy_sibling(path)
    if photo:
        raise InputError(f"{path}: a mask, {path.suffix} of few colours beside {photo.suffix}")
    return found._replace(notes=(*found.notes, FLAT))


def _lossy_sibling(path: Path) -> Path | None:
    """The JPEG of the same name, beside which a lossless file is a mask, as in evaluation."""
    if path.suffix.lower() in LOSSY:
        return None
    others = (path.with_suffix(s) for suffix in LOSSY for s in (suffix, suffix.upper()))
    return next((other for other in others if other.is_file()), None)


def looks_flat(image: np.ndarray) -> bool:
    """Whether an image uint8 [H, W, 3] has as few colours as a mask, by 64 x 64 of its pixels.

    A mask that has soft edges, or was a JPEG, has two greys and a few pixels between them.
    """
    if _colours(_some(image, 8)) <= FEW_COLOURS and _colours(_some(image, 64)) <= FEW_COLOURS:
        return True
    if not _has_two_greys(_some(image, 16), 0.5):  # a few pixels tell most
        return False
    return _has_two_greys(_some(image, 64), TWO_GREYS)


def _some(image: np.ndarray, most: int) -> np.ndarray:
    """`most` x `most` pixels, spread over the image: int32 [h, w, 3]."""
    rows, cols = (np.linspace(0, n - 1, min(n, most)).astype(int) for n in image.shape[:2])
    return image[rows[:, None], cols].astype(np.int32)


def _colours(pixels: np.ndarray) -> int:
    return len(np.unique(pixels @ (1 << 16, 1 << 8, 1)))


def _has_two_greys(pixels: np.ndarray, share: float) -> bool:
    """Whether pixels are grey, so many of them near to the darkest or to the brightest."""
    grey = pixels[..., 1]
    if (np.ptp(pixels, axis=2) > NEAR).any() or np.ptp(grey) < 128:
        return False
    dark, bright = grey <= grey.min() + NEAR, grey >= grey.max() - NEAR
    return bool((dark | bright).mean() >= share)


def _extract(items: Iterable[Item], extractor: features.Extractor, call: int) -> Iterator[Item]:
    """Adds features, `call` images at once; no call crosses shards, so resumed runs repeat them."""
    for _, group in itertools.groupby(items, key=lambda item: item.shard):
        batch, readable = [], 0
        for item in group:
            batch.append(item)
            readable += not item.reason
            if readable == call:
                yield from _extract_batch(batch, extractor)
                batch, readable = [], 0
        yield from _extract_batch(batch, extractor)


def _extract_batch(batch: list[Item], extractor: features.Extractor) -> Iterator[Item]:
    pictures = [item.image for item in batch if item.image is not None]
    found = iter(extractor(pictures) if pictures else [])
    for item in batch:
        yield item if item.reason else item._replace(features=next(found))


def _merge(item: Item, borders: bool) -> Item:
    if item.reason:
        return item
    assert item.features is not None
    assert item.image is not None
    tree = build_tree(item.features, borders=borders, overwrite=True)
    height, width = item.image.shape[:2]
    record = schema.Record(item.id, item.encoded, height, width, tree)
    return Item(
        item.shard,
        item.id,
        item.path,
        item.file,
        encoded=schema.encode(record),
        notes=item.notes,
        report=describe(tree),
    )
