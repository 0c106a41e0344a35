"""BINARY: a dry look at images and masks before hours of work: `mis-jax check FOLDER`.

    mis-jax check IMAGES [--datasets mine=DIR,...] [--output DIR]

Images are read as `mis-jax propose` reads them, objects as `mis-jax evaluate` does, and what these
would leave out or find odd is told in their words. OUTPUT/check.html shows some of both, so that a
person sees at a glance whether masks lie on things. Nothing else is written.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

import mis_jax
from mis_jax import options
from mis_jax.datasets import Benchmark, Reading
from mis_jax.errors import InputError
from mis_jax.evaluation import evaluate
from mis_jax.files import write_file
from mis_jax.inspection import contact_sheet
from mis_jax.inspection.readings import look_at_images, look_at_objects


def define_flags() -> None:
    """Flags of `mis-jax check`."""
    options.define_config("sbd_vitb16")
    flags.DEFINE_list("datasets", [], "NAME=FOLDER,... of images and masks, as in evaluate.")
    options.define_masks()
    flags.DEFINE_string("output", "check", "Folder for check.html and check.json.")


def main(argv: Sequence[str]) -> None:
    """Looks at the images that argv[1] names, if any, and at the objects of --datasets, if any."""
    datasets, config = flags.FLAGS.datasets, flags.FLAGS.config
    if len(argv) > 2 or (len(argv) == 1 and not datasets):
        raise InputError(
            "usage: mis-jax check IMAGES [--datasets NAME=FOLDER,...], where IMAGES is one word: a "
            "folder, a .txt list of files or a glob pattern in quotes; it may be left out to look "
            "at datasets alone."
        )
    reading = Reading.of(config.images, flags.FLAGS.masks)
    opened = evaluate.open_datasets(datasets, reading) if datasets else []
    source = argv[1] if len(argv) == 2 else None
    print(check(source, opened, Path(flags.FLAGS.output), config, reading))


def check(
    source: str | None,
    opened: Sequence[Benchmark],
    output: Path,
    config: ConfigDict,
    reading: Reading,
) -> str:
    """Writes the page and the figures, and returns what a terminal should show.

    Args:
        source: a folder, list file or glob of images, or None.
        opened: images with masks.
        output: folder for the results, made if need be.
        config: `propose`: what is left out and shrunk depends on it.
        reading: how files are read that leave it open.

    Raises:
        InputError: `source` names no image.
    """
    lines: list[str] = []
    sheets: list[str] = []
    datasets: dict[str, dict] = {}
    document: dict[str, object] = {"version": mis_jax.__version__, "datasets": datasets}
    if source:
        photos = look_at_images(source, config.propose.max_side, config.propose.threads, reading)
        lines += photos.lines()
        document["images"] = photos.numbers()
        sheets.append(contact_sheet.of_images(photos))
    for benchmark in opened:
        objects = look_at_objects(benchmark, config.propose.threads)
        lines += objects.lines()
        datasets[benchmark.name] = objects.numbers()
        sheets.append(contact_sheet.of_objects(objects))
    output.mkdir(parents=True, exist_ok=True)
    write_file(output / "check.json", json.dumps(document, indent=1))
    write_file(output / "check.html", contact_sheet.page_of(source, opened, sheets))
    return "\n".join([*lines, f"Open {output / 'check.html'} in a browser."])
