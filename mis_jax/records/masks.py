"""BINARY: labelled images -> shards of records whose objects, not proposals, a run is trained on.

    mis-jax masks sbd=SBD --records DIR [--few 0.05]

`sbd=FOLDER` takes the instances of the images of FOLDER/train.txt, in its order; any other name a
folder that `mis-jax evaluate` takes. `--few r` keeps the first int(r * N) of the N images.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from absl import flags
from tqdm import tqdm

from mis_jax import options
from mis_jax.datasets import Objects, Reading, benchmarks, images, sbd, without_buggy
from mis_jax.errors import InputError
from mis_jax.records import schema

SHARD_SIZE = 256  # images a shard
Reader = Callable[[], tuple[bytes, np.ndarray]]  # of an encoded image and its labels


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
    """Writes the records of a labelled data set; one sentence says how many, and what is left out.

    Objects that fill less than 0.08 of their bounding boxes are no objects, and what a mask does
    not count is background. Images without an object are left out.

    Args:
      name: "sbd" for SBD's own layout, else as `benchmarks.open_benchmark` takes it.
      source: the folder.
      folder: where the shards go; made if need be.
      few: fraction of the images, of which the first int(few * images) are kept.
      reading: how files are read that leave it open.

    Raises:
      InputError: nothing to read, or the folder was begun with other images or settings.
    """
    reading = reading or Reading()
    readers = (
        _sbd(Path(source), reading) if name.lower() == "sbd" else _pairs(name, source, reading)
    )
    kept = dict(list(readers.items())[: int(len(readers) * few)])
    if not 0 < few <= 1 or not kept:
        raise InputError(f"--few={few} keeps none of {len(readers)} images; give more, up to 1.")
    shards = -(-len(kept) // SHARD_SIZE)
    schema.begin(
        folder,
        {
            "version": schema.OBJECTS,
            "shards": shards,
            "images": len(kept),
            "digest": hashlib.sha256("\n".join(kept).encode()).hexdigest(),
            "settings": {"dataset": name, "shard_size": SHARD_SIZE},
            "source": f"{name}={source}",
            "command": "masks",
        },
    )
    count, left_out = 0, []
    with tqdm(kept.items(), unit=" images", disable=None) as bar:
        todo = iter(bar)
        for shard in range(shards):
            with schema.ShardWriter(Path(folder, schema.shard_name(shard, shards))) as writer:
                for key, read in (one for one, _ in zip(todo, range(SHARD_SIZE), strict=False)):
                    try:
                        writer.write(schema.encode(_record(key, *read())))
                        count += 1
                    except InputError as error:
                        left_out.append(f"{key}: {error}")
                writer.commit()
    if not count:
        raise InputError(f"none of the {len(kept)} images can be used ({left_out[0]}).")
    text = f"{count:,} labelled images in {shards} shards: {folder}"
    return "\n".join([text, *(f"left out {line}" for line in left_out)])


def _record(key: str, encoded: bytes, labels: np.ndarray) -> schema.Record:
    image = images.decode(encoded)
    (h, w), (height, width) = image.shape[:2], labels.shape
    if (h, w) != (height, width):
        raise InputError(f"the image is {w} x {h} pixels, its labels {width} x {height}")
    labels = without_buggy(labels)
    if not labels.any():
        raise InputError("no object in it")
    return schema.Record(key, encoded, height, width, Objects(labels))


def _sbd(folder: Path, reading: Reading) -> dict[str, Reader]:
    """Readers of the images of train.txt."""
    listing = folder / "train.txt"
    if not listing.is_file():
        raise InputError(f"{listing} does not exist; sbd needs img/, inst/ and train.txt.")

    def reader(name: str) -> Reader:
        def read() -> tuple[bytes, np.ndarray]:
            labels = sbd.segmentation(folder / "inst" / f"{name}.mat")
            encoded = images.prepare(folder / "img" / f"{name}.jpg", 0, reading).encoded
            return encoded, labels.astype(np.uint16)

        return read

    return {name: reader(name) for name in listing.read_text().split()}


def _pairs(name: str, folder: str | Path, reading: Reading) -> dict[str, Reader]:
    """Readers of a benchmark's images, each with its one object."""

    def reader(pair: Callable) -> Reader:
        def read() -> tuple[bytes, np.ndarray]:
            image, mask, _ = pair()
            encoded = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
            return encoded, (mask == 1).astype(np.uint8)

        return read

    found = benchmarks.open_benchmark(name, folder, reading).readers
    return {key: reader(pair) for key, pair in found.items()}
