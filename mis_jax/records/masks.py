"""BINARY: labelled images -> shards of records whose objects, not proposals, a run is trained on.

    mis-jax masks sbd=SBD --records DIR [--few 0.05]

`sbd=FOLDER` takes the instances of the images of FOLDER/train.txt, in its order; any other name
what `mis-jax evaluate` takes of it. A record is a photo with all its objects. `--few r` keeps the
first int(r * N) of the N photos.
"""

import collections
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from absl import flags
from tqdm import tqdm

from mis_jax import options
from mis_jax.datasets import (
    Benchmark,
    Notes,
    Objects,
    Reading,
    Sample,
    aligned,
    benchmarks,
    count_left_out,
    images,
    note_lines,
    sbd,
    stamp,
    without_buggy,
)
from mis_jax.errors import InputError
from mis_jax.records import schema, store

SHARD_SIZE = 256  # images a shard
VOID = "what its mask does not count is background in the record"
NAMED = 20  # of what is left out, in the printed lines


class Labels(NamedTuple):
    """A photo as a record keeps it, and its objects."""

    photo: images.Prepared
    objects: Objects
    notes: Notes = ()


Reader = Callable[[], Labels | None]  # None: all objects of the photo are left out by name


class Source(NamedTuple):
    """Photos with labels.

    Attributes:
      readers: record's id -> function that reads the photo and its objects.
      files: record's id -> its photo, where that is a file.
      skipped: object or photo -> why it is left out; grows while the readers are called.
    """

    readers: dict[str, Reader]
    files: dict[str, Path]
    skipped: dict[str, str]


def define_flags() -> None:
    """Flags of `mis-jax masks`."""
    flags.DEFINE_string("records", None, "Folder that the shards of records go to.")
    flags.DEFINE_float("few", 1.0, "Fraction of the images to keep, the first ones.")
    options.define_masks()
    options.define_config("sbd_vitb16")


def main(argv: list[str]) -> None:
    """Makes the records of the labelled images that argv[1] names, and prints how many."""
    name, _, source = argv[1].partition("=") if len(argv) == 2 else ("", "", "")
    if not source or not flags.FLAGS.records:
        raise InputError("usage: mis-jax masks NAME=FOLDER --records DIR [--few 0.05].")
    f = flags.FLAGS
    print(write(name, source, f.records, f.few, Reading.of(f.config.images, f.masks)))


def write(
    name: str,
    source: str | Path,
    folder: str | Path,
    few: float = 1.0,
    reading: Reading | None = None,
) -> str:
    """Writes the records of a labelled data set; lines say how many, and what is left out or odd.

    What a mask does not count is background. Photos without an object are left out, and so are, of
    SBD alone, objects that fill less than 0.08 of their bounding boxes.

    Args:
      name: "sbd" for SBD's own layout, else as `benchmarks.open_benchmark` takes it.
      source: the folder, or what else is taken.
      folder: where the shards go; made if need be.
      few: fraction of the photos, of which the first int(few * photos) are kept.
      reading: how files are read that leave it open.

    Raises:
      InputError: nothing to read, or the folder was begun with other images or settings.
    """
    reading = reading or Reading()
    if name.lower() == "sbd":
        found = _sbd(Path(source), reading)
    else:
        found = _photos(benchmarks.open_benchmark(name, source, reading), reading)
    kept = list(found.readers)[: int(len(found.readers) * few)]
    if not 0 < few <= 1 or not kept:
        raise InputError(
            f"--few={few} keeps none of {len(found.readers)} images; give more, up to 1."
        )
    shards = -(-len(kept) // SHARD_SIZE)
    store.begin(folder, _index(name, source, kept, found.files, reading))
    count, objects = 0, 0
    notes: dict[str, Notes] = {}
    with tqdm(kept, unit=" images", disable=None) as bar:
        todo = iter(bar)
        for shard in range(shards):
            with store.ShardWriter(Path(folder, store.shard_name(shard, shards))) as writer:
                for key in itertools.islice(todo, SHARD_SIZE):
                    labels = _read(key, found)
                    if labels:
                        writer.write(schema.encode(_record(key, labels)))
                        count, objects = count + 1, objects + labels.objects.count
                        notes[key] = (*labels.photo.notes, *labels.notes)
                writer.commit()
    if not count:
        first = next(iter(found.skipped.items()))
        raise InputError(f"none of the {len(kept)} images can be used ({': '.join(first)}).")
    text = f"{count:,} labelled images, {objects:,} objects, in {shards} shards: {folder}"
    return "\n".join([text, *_left_out(found.skipped), *note_lines(notes)])


def _index(
    name: str, source: str | Path, kept: list[str], files: Mapping[str, Path], reading: Reading
) -> dict:
    """What `store.begin` keeps of the records."""
    lines = [f"{key}\0{stamp(files[key])[:2] if key in files else ''}\n" for key in kept]
    annotations = str(stamp(Path(source))[:2]) if Path(source).is_file() else ""
    settings = {"dataset": name, "shard_size": SHARD_SIZE, "masks": sorted(reading.masks)}
    settings |= reading.settings
    return {
        "version": schema.OBJECTS,
        "shards": -(-len(kept) // SHARD_SIZE),
        "images": len(kept),
        "digest": hashlib.sha256("".join([*lines, annotations]).encode()).hexdigest(),
        "settings": settings,
        "source": f"{name}={source}",
        "command": "masks",
    }


def _left_out(skipped: Mapping[str, str]) -> list[str]:
    lines = [f"  {name}: {reason}" for name, reason in list(skipped.items())[:NAMED]]
    more = [f"  and {len(skipped) - NAMED:,} more"] if len(skipped) > NAMED else []
    return [count_left_out(skipped), *lines, *more] if skipped else []


def _read(key: str, found: Source) -> Labels | None:
    """The labels of a photo, or None and in `found.skipped` why there are none."""
    try:
        labels = found.readers[key]()
        if labels and labels.photo.image.shape[:2] != labels.objects.grid:
            (h, w), (height, width) = labels.photo.image.shape[:2], labels.objects.grid
            raise InputError(f"the image is {w} x {h} pixels, its mask {width} x {height}")
    except InputError as error:
        found.skipped[key] = str(error)
        return None
    return labels


def _record(key: str, labels: Labels) -> schema.Record:
    return schema.Record(key, labels.photo.encoded, *labels.objects.grid, labels.objects)


def _sbd(folder: Path, reading: Reading) -> Source:
    """The images of train.txt, without the objects that the public code leaves out."""
    listing = folder / "train.txt"
    if not listing.is_file():
        raise InputError(f"{listing} does not exist; sbd needs img/, inst/ and train.txt.")
    names = listing.read_text().split()
    files = {name: folder / "img" / f"{name}.jpg" for name in names}
    skipped = {f"{name} again": "named twice in train.txt" for name in _repeated(names)}

    def reader(name: str) -> Reader:
        def read() -> Labels | None:
            labels = sbd.segmentation(folder / "inst" / f"{name}.mat").astype(np.uint16)
            if not labels.any():
                raise InputError("the mask has no object pixel")
            left = without_buggy(labels)
            for label in np.setdiff1d(labels, left).tolist():
                skipped[f"{name}_{label}"] = "it fills less than 0.08 of its box, SBD's rule"
            if not left.any():
                return None
            photo = images.prepare(files[name], 0, reading)
            seen = aligned(images.Picture(photo.image, photo.orientation), left, reading)
            return Labels(photo, Objects(seen.mask), seen.notes)

        return read

    return Source({name: reader(name) for name in files}, files, skipped)


def _repeated(names: list[str]) -> list[str]:
    return [name for name, count in collections.Counter(names).items() if count > 1]


def _photos(found: Benchmark, reading: Reading) -> Source:
    """The photos of a benchmark with all their objects; an object of no file is alone."""
    paths = list(dict.fromkeys(found.photos.values()))
    names = dict(zip(paths, images.image_ids(paths[0], paths), strict=True)) if paths else {}
    groups: dict[str, list[str]] = {}
    for id in found.ids:
        groups.setdefault(names[found.photos[id]] if id in found.photos else id, []).append(id)

    def reader(ids: list[str]) -> Reader:
        def read() -> Labels | None:
            samples = _usable(found, ids)
            first = next(samples, None)
            if not first:
                return None
            voids = []

            def masks() -> Iterator[np.ndarray]:
                for sample in itertools.chain([first], samples):
                    voids.append((sample.mask == -1).any())
                    yield sample.mask == 1

            objects = Objects.of(masks())
            if ids[0] in found.photos:
                photo = images.prepare(found.photos[ids[0]], 0, reading)
            else:
                encoded = cv2.imencode(".png", first.image[..., ::-1])[1].tobytes()
                photo = images.Prepared(encoded, first.image)
            notes = itertools.chain.from_iterable(found.notes.get(id, ()) for id in ids)
            return Labels(photo, objects, (*notes, *([VOID] if any(voids) else [])))

        return read

    readers = {key: reader(ids) for key, ids in groups.items()}
    return Source(readers, {name: path for path, name in names.items()}, found.skipped)


def _usable(found: Benchmark, ids: list[str]) -> Iterator[Sample]:
    for id in ids:
        try:
            sample = found.read(id)
        except InputError:  # `found.skipped` has it
            continue
        yield sample
