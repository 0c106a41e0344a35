"""Binary: a folder of images -> features -> merge trees -> shards of records; resumes where it was.

    mis-jax propose IMAGES --records DIR [--shard i/n] [--config NAME --config.field=value]

Shard k holds the k-th `shard_size` images of the sorted list, and belongs to process k mod n. It
appears when it is complete, so a killed run loses at most its unfinished shard; the same command
makes what is missing, with the same bytes in every record. Where images have been added, they get
shards of their own; only shards of images that have changed or gone are made anew (plan.py).
"""

import dataclasses
import itertools
import json
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from absl import flags
from tqdm import tqdm

from mis_jax import features, options
from mis_jax.datasets import Reading, images, mask_files
from mis_jax.errors import InputError
from mis_jax.files import write_file
from mis_jax.records import pipeline, plan, schema, store
from mis_jax.records.report import AREA_EDGES, Report, Summary, masks_left_out


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
      InputError: nothing to read, or the folder was begun with other settings, or of other images
        altogether.
      OSError: the folder cannot be written; finished shards stay.
    """
    if min(shard_size, batch_size) < 1 or (max_side and max_side < images.MIN_SIDE):
        least = f"max_side 0 or at least {images.MIN_SIDE}"
        raise InputError(f"shard_size and batch_size have to be at least 1, and {least}.")
    threads = threads or os.cpu_count() or 1
    paths, left_out = find(source)
    ids = [id for id in paths if id not in left_out]
    reading = reading or Reading()
    settings = {"extractor": extractor.name, "max_side": max_side, "shard_size": shard_size}
    settings |= reading.settings
    index = {"version": schema.VERSION, "settings": settings, "source": str(source)}
    shards, changes, older = plan.begin(folder, index, paths, ids)
    said = masks_left_out(left_out)
    said += [f"{changes} since the last time"] if str(changes) else []
    said += [f"{older:,} shard{'s' * (older > 1)} {plan.OLDER}"] if older else []
    names = list(shards)
    mine = range(shard[0], len(names), shard[1])
    done = {k for k in mine if _finished(folder, names[k], shards)}
    items = [pipeline.Item(k, id, paths[id]) for k in mine for id in shards[names[k]]]
    todo = [item for item in items if item.shard not in done]
    empty = [k for k in mine if not shards[names[k]] and k not in done]
    pool = ThreadPoolExecutor(threads)
    with tqdm(total=len(items), initial=len(items) - len(todo), unit=" images") as bar:
        try:
            results = pipeline.records_of(
                todo, extractor, max_side, batch_size, pool, threads, reading
            )
            _write(results, folder, names, bar)
        finally:
            pool.shutdown(cancel_futures=True)
    for k in empty:  # all of its images have gone
        _write_shard((), Path(folder, names[k]), bar)
    return _summarise(folder, source, shards, settings, said)


def changes(source: str | Path, folder: str | Path) -> plan.Changes:
    """What is new, changed or gone of the images `source` since records were made of them.

    No record is made or touched.

    Raises:
      InputError: nothing to read, or a folder of an older mis_jax that was begun with other images.
    """
    paths, left_out = find(source)
    before = plan.old_plan(folder, store.read_index(folder), paths)
    return plan.changes(folder, before, paths, [id for id in paths if id not in left_out])


def find(source: str | Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The images of `source`, id -> file, and those that are masks of others, id -> why.

    Raises:
      InputError: there is none, see `images.find_images`.
    """
    found = images.find_images(source)
    ids = images.image_ids(source, found)
    masks = mask_files(found)
    left_out = {id: masks[path] for id, path in zip(ids, found, strict=True) if path in masks}
    return dict(zip(ids, found, strict=True)), left_out


def _finished(folder: str | Path, name: str, shards: plan.Plan) -> Report | None:
    """The report of a shard if the shard is there, whole, and of the images that it should be."""
    path = Path(folder, name)
    note = store.read_note(path)
    if plan.made_of(note) != shards[name]:
        return None
    try:
        report = Report.of(note)
        reader = store.open_shard(path)
    except (ValueError, TypeError):  # InputError is a ValueError
        return None
    count = reader.num_records()
    reader.close()
    return report if count == len(report.patches) else None


def _write(
    results: Iterable[pipeline.Item], folder: str | Path, names: Sequence[str], bar: tqdm
) -> None:
    for shard, group in itertools.groupby(results, key=lambda item: item.shard):
        _write_shard(group, Path(folder, names[shard]), bar)


def _write_shard(items: Iterable[pipeline.Item], path: Path, bar: tqdm) -> None:
    began, report, files = time.perf_counter(), Report(), []
    with store.ShardWriter(path) as writer:
        for item in items:
            files.append(item.file)
            if item.report is None:
                report.skipped.append([item.id, item.reason])
            else:
                writer.write(item.encoded)
                report.add(item.report)
                report.notes += [[item.id, note] for note in item.notes]
            bar.update()
        report.seconds = time.perf_counter() - began
        writer.commit(dataclasses.asdict(report) | {"files": files})


def _summarise(
    folder: str | Path, source: str | Path, shards: plan.Plan, settings: dict, said: list[str]
) -> Summary:
    """Joins the reports of all finished shards; writes report.json and skipped.txt."""
    reports = [r for r in (_finished(folder, name, shards) for name in shards) if r]
    report = Report()
    for one in reports:
        report.add(one)
    count, total = len(report.patches), len(shards)
    if not count and len(reports) == total:
        _clear(Path(folder), shards)
        named = "; ".join(f"{name}: {reason}" for name, reason in report.skipped[:3])
        raise InputError(f"none of {len(report.skipped)} images in {source} can be used ({named}).")
    rate = (count + len(report.skipped)) / max(report.seconds, 1e-9)
    ignored = images.ignored_files(source)
    summary = Summary(str(folder), total, len(reports), count, rate, ignored, report, tuple(said))
    document = dataclasses.asdict(summary) | {"settings": settings, "area_edges": AREA_EDGES}
    write_file(Path(folder, "report.json"), json.dumps(document))
    lines = "".join(f"{name}\t{reason}\n" for name, reason in report.skipped)
    if lines:
        write_file(Path(folder, "skipped.txt"), lines)
    else:
        Path(folder, "skipped.txt").unlink(missing_ok=True)
    return summary


def _clear(folder: Path, shards: plan.Plan) -> None:
    """Removes shards without any record, so that the command can be given again."""
    for name in shards:
        (folder / name).unlink(missing_ok=True)
        store.note_path(folder / name).unlink(missing_ok=True)
    (folder / store.INDEX).unlink(missing_ok=True)
