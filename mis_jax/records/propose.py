"""Binary: a folder of images -> features -> merge trees -> shards of records; resumes where it was.

    mis-jax propose IMAGES --records DIR [--shard i/n] [--config NAME --config.field=value]

Shard k holds the k-th `shard_size` images of the sorted list, and belongs to process k mod n. It
appears when it is complete, so a killed run loses at most its unfinished shard; the same command
makes what is missing, with the same bytes in every record.
"""

import collections
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

from mis_jax import features, options
from mis_jax.datasets import Notes, Reading, images
from mis_jax.errors import InputError
from mis_jax.files import write_file
from mis_jax.proposals import build_tree
from mis_jax.records import schema
from mis_jax.records.report import AREA_EDGES, Report, Summary, describe

_BATCHES = 8  # in one call of an extractor on devices, which sorts its images by size


class _Item(NamedTuple):
    """One image on its way: filled from left to right."""

    shard: int
    id: str
    path: Path
    reason: str = ""  # why it is skipped
    encoded: bytes = b""  # what the record keeps; after merging, the record
    image: np.ndarray | None = None
    notes: Notes = ()  # what is odd about the file
    features: np.ndarray | None = None
    report: Report | None = None


def define_flags() -> None:
    """Flags of `mis-jax propose`."""
    options.define_config("sbd_vitb16")
    flags.DEFINE_string("records", None, "Folder that the shards of records go to.")
    options.define_shard()


def main(argv: list[str]) -> None:
    """Makes the records of the images that argv[1] names and prints a summary."""
    folder, config = flags.FLAGS.records, flags.FLAGS.config
    if len(argv) != 2 or not folder:
        raise InputError(
            "usage: mis-jax propose IMAGES --records DIR, where IMAGES is one word: a folder, "
            "a .txt list of files or a glob pattern in quotes."
        )
    shard = options.parse_shard(flags.FLAGS.shard)
    summary = propose(
        argv[1],
        folder,
        extractor=features.make_extractor(**config.features),
        max_side=config.propose.max_side,
        shard_size=config.propose.shard_size,
        batch_size=config.features.batch_size,
        threads=config.propose.threads,
        shard=shard,
        reading=Reading.of(config.images),
    )
    print(summary)


def propose(
    source: str | Path,
    folder: str | Path,
    *,
    extractor: features.Extractor,
    max_side: int,
    shard_size: int,
    batch_size: int,
    threads: int,
    shard: tuple[int, int] = (0, 1),
    reading: Reading | None = None,
) -> Summary:
    """Makes the records of all images, except those of shards that are there.

    Args:
      source: a folder, list file or glob, see `images.find_images`.
      folder: where the shards go; made if need be.
      extractor: image -> features; its name is part of what a resumed run has to agree with.
      max_side: longer images are shrunk to this many pixels; 0: never.
      shard_size: images a shard.
      batch_size: images that an extractor on devices computes at once on each.
      threads: that decode and merge; 0: one per core.
      shard: (i, n): make shards i, i + n, i + 2n, ...
      reading: how image files are read that leave it open.

    Raises:
      InputError: nothing to read, or the folder was begun with other images or settings.
      OSError: the folder cannot be written; finished shards stay.
    """
    if min(shard_size, batch_size) < 1 or (max_side and max_side < images.MIN_SIDE):
        least = f"max_side 0 or at least {images.MIN_SIDE}"
        raise InputError(f"shard_size and batch_size have to be at least 1, and {least}.")
    threads = threads or os.cpu_count() or 1
    paths = images.find_images(source)
    ids = images.image_ids(source, paths)
    reading = reading or Reading()
    settings = {"extractor": extractor.name, "max_side": max_side, "shard_size": shard_size}
    for name in ("range", "bands"):
        if getattr(reading, name):
            settings[name] = list(getattr(reading, name))
    index = _index(source, paths, ids, settings)
    schema.begin(folder, index)
    shards = index["shards"]
    mine = range(shard[0], shards, shard[1])
    done = {k for k in mine if _finished(folder, k, shards)}
    items = [_Item(i // shard_size, *one) for i, one in enumerate(zip(ids, paths, strict=True))]
    items = [item for item in items if item.shard in mine]
    todo = [item for item in items if item.shard not in done]
    pool = ThreadPoolExecutor(threads)
    with tqdm(total=len(items), initial=len(items) - len(todo), unit=" images") as bar:
        try:
            results = _results(todo, extractor, max_side, batch_size, pool, threads, reading)
            _write(results, folder, shards, bar)
        finally:
            pool.shutdown(cancel_futures=True)
    return _summarise(folder, source, shards, settings)


def _index(source: str | Path, paths: list[Path], ids: list[str], settings: dict) -> dict:
    """What `records.begin` keeps of a run."""
    sizes = (os.path.getsize(p) if os.path.isfile(p) else -1 for p in paths)
    pairs = "".join(f"{name}\0{size}\n" for name, size in zip(ids, sizes, strict=True))
    return {
        "version": schema.VERSION,
        "shards": -(-len(ids) // settings["shard_size"]),
        "images": len(ids),
        "digest": hashlib.sha256(pairs.encode()).hexdigest(),
        "settings": settings,
        "source": str(source),
    }


def _finished(folder: str | Path, shard: int, shards: int) -> Report | None:
    """The report of a shard if the shard is there and whole."""
    path = Path(folder, schema.shard_name(shard, shards))
    try:
        report = Report(**json.loads(path.with_suffix(".json").read_text("utf-8")))
        reader = schema.open_shard(path)
    except (FileNotFoundError, ValueError, TypeError):  # InputError is a ValueError
        return None
    count = reader.num_records()
    reader.close()
    return report if count == len(report.patches) else None


def _results(
    items: Iterable[_Item],
    extractor: features.Extractor,
    max_side: int,
    batch_size: int,
    pool: ThreadPoolExecutor,
    threads: int,
    reading: Reading,
) -> Iterator[_Item]:
    """Decodes, extracts and merges, each overlapping the others; yields in the order of `items`."""
    load = functools.partial(_load, max_side=max_side, reading=reading)
    if not extractor.device:

        def work(item: _Item) -> _Item:
            return _merge(next(_extract_batch([load(item)], extractor)))

        return _in_order(pool, work, items, 2 * threads)
    call = _BATCHES * batch_size * jax.local_device_count()
    loaded = _in_order(pool, load, items, threads + call)
    return _in_order(pool, _merge, _extract(loaded, extractor, call), threads + call)


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


def _load(item: _Item, max_side: int, reading: Reading) -> _Item:
    try:
        encoded, image, notes = images.prepare(item.path, max_side, reading)
    except InputError as error:
        return item._replace(reason=str(error).removeprefix(f"{item.path}: "))
    return item._replace(encoded=encoded, image=image, notes=notes)


def _extract(items: Iterable[_Item], extractor: features.Extractor, call: int) -> Iterator[_Item]:
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


def _extract_batch(batch: list[_Item], extractor: features.Extractor) -> Iterator[_Item]:
    pictures = [item.image for item in batch if item.image is not None]
    found = iter(extractor(pictures) if pictures else [])
    for item in batch:
        yield item if item.reason else item._replace(features=next(found))


def _merge(item: _Item) -> _Item:
    if item.reason:
        return item
    assert item.features is not None
    assert item.image is not None
    tree = build_tree(item.features, overwrite=True)
    height, width = item.image.shape[:2]
    record = schema.Record(item.id, item.encoded, height, width, tree)
    return _Item(
        item.shard,
        item.id,
        item.path,
        encoded=schema.encode(record),
        notes=item.notes,
        report=describe(tree),
    )


def _write(results: Iterable[_Item], folder: str | Path, shards: int, bar: tqdm) -> None:
    began = time.perf_counter()
    for shard, group in itertools.groupby(results, key=lambda item: item.shard):
        path = Path(folder, schema.shard_name(shard, shards))
        report = Report()
        with schema.ShardWriter(path) as writer:
            for item in group:
                if item.report is None:
                    report.skipped.append([item.id, item.reason])
                else:
                    writer.write(item.encoded)
                    report.add(item.report)
                    report.notes += [[item.id, note] for note in item.notes]
                bar.update()
            report.seconds = time.perf_counter() - began
            write_file(path.with_suffix(".json"), json.dumps(dataclasses.asdict(report)))
            writer.commit()
        began = time.perf_counter()


def _summarise(folder: str | Path, source: str | Path, shards: int, settings: dict) -> Summary:
    """Joins the reports of all finished shards; writes report.json and skipped.txt."""
    reports = [r for r in (_finished(folder, k, shards) for k in range(shards)) if r]
    report = Report()
    for one in reports:
        report.add(one)
    count = len(report.patches)
    if not count and len(reports) == shards:
        _clear(Path(folder), shards)
        named = "; ".join(f"{name}: {reason}" for name, reason in report.skipped[:3])
        raise InputError(f"none of {len(report.skipped)} images in {source} can be used ({named}).")
    rate = (count + len(report.skipped)) / max(report.seconds, 1e-9)
    ignored = images.ignored_files(source)
    summary = Summary(str(folder), shards, len(reports), count, rate, ignored, report)
    document = dataclasses.asdict(summary) | {"settings": settings, "area_edges": AREA_EDGES}
    write_file(Path(folder, "report.json"), json.dumps(document))
    if report.skipped:
        lines = "".join(f"{name}\t{reason}\n" for name, reason in report.skipped)
        write_file(Path(folder, "skipped.txt"), lines)
    return summary


def _clear(folder: Path, shards: int) -> None:
    """Removes shards without any record, so that the command can be given again."""
    for shard in range(shards):
        path = folder / schema.shard_name(shard, shards)
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
    (folder / schema.INDEX).unlink(missing_ok=True)
