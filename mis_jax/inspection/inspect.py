"""BINARY: how good merge trees are, before any training: `mis-jax inspect [RECORDS]`.

    mis-jax inspect RECORDS [--datasets grabcut=DIR,mine=DIR] [--output DIR]

Of records: pictures of regions at several depths and of the proposals that training draws, with
histograms. Of images with masks: how near one region of their trees comes to each mask, and how
few regions make it. All of it goes to OUTPUT/inspect.html and inspect.json, and a CSV a dataset.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

import mis_jax
from mis_jax import features, options, records
from mis_jax.datasets import Benchmark, Reading
from mis_jax.errors import InputError
from mis_jax.evaluation import evaluate, tables
from mis_jax.files import write_file
from mis_jax.inspection.gallery import examples, render
from mis_jax.inspection.measure import measure, per_image_csv, summarize, text_table
from mis_jax.inspection.survey import look, numbers


def define_flags() -> None:
    """Flags of `mis-jax inspect`."""
    options.define_config("tiny_cpu")
    flags.DEFINE_list("datasets", [], "NAME=FOLDER,... of images and masks, as in evaluate.")
    options.define_masks()
    flags.DEFINE_string("output", "", "Folder for the results; RECORDS/inspect by default.")


def main(argv: Sequence[str]) -> None:
    """Looks at the records that argv[1] names, if any, and measures on --datasets, if any."""
    datasets, config = flags.FLAGS.datasets, flags.FLAGS.config
    if len(argv) > 2 or (len(argv) == 1 and not datasets):
        raise InputError(
            "usage: mis-jax inspect RECORDS [--datasets NAME=FOLDER,...], where RECORDS is a "
            "folder that mis-jax propose made; it may be left out to measure on datasets alone."
        )
    folder = argv[1] if len(argv) == 2 else None
    reading = Reading.of(config.images, flags.FLAGS.masks)
    opened = evaluate.open_datasets(datasets, reading) if datasets else []
    output = Path(flags.FLAGS.output or Path(folder or ".", "inspect"))
    print(inspect(folder, opened, output, config))


def inspect(
    folder: str | None, opened: Sequence[Benchmark], output: Path, config: ConfigDict
) -> str:
    """Writes the page, the figures and the CSV files, and returns what a terminal should show.

    Args:
        folder: of records, or None.
        opened: images with masks; their trees are built as those of the records were.
        output: folder for the results, made if need be.
        config: `features` (and `propose.max_side` without records), `data` and `seed`.

    Raises:
        InputError: records or images that cannot be read, or records of other features.
    """
    survey = None
    if opened:
        extractor, max_side = _how_trees_are_made(folder, config)
    if folder:
        survey = look(folder, config)
    results, cards = {}, []
    for benchmark in opened:
        objects = measure(benchmark, extractor, max_side, config.features.batch_size)
        results[benchmark.name] = summarize(objects, benchmark)
        cards.append(examples(benchmark, objects, extractor, max_side))
        output.mkdir(parents=True, exist_ok=True)
        write_file(output / f"{benchmark.name}.csv", per_image_csv(objects))
    document: dict[str, object] = {"version": mis_jax.__version__, "datasets": results}
    if opened:
        document |= {"extractor": extractor.name, "max_side": max_side}
    if survey:
        document |= {"records": str(folder), "trees": numbers(survey)}
    output.mkdir(parents=True, exist_ok=True)
    write_file(output / "inspect.json", json.dumps(document, indent=1))
    write_file(output / "inspect.html", render(folder, survey, results, cards, config))
    lines = records.describe_trees(survey.trees) if survey else []
    lines += [text_table(results), tables.left_out(results)] if results else []
    return "\n".join([*lines, f"Open {output / 'inspect.html'} in a browser."])


def _how_trees_are_made(folder: str | None, config: ConfigDict) -> tuple[features.Extractor, int]:
    """The extractor and max_side of records, or of the config without records."""
    model = config.features.model
    if folder is None:
        return features.make_extractor(**config.features), config.propose.max_side
    made = records.read_index(folder).get("settings")
    if not isinstance(made, dict) or not {"extractor", "max_side"} <= made.keys():
        raise InputError(
            f"{folder} has no {records.INDEX} that says how its trees were made; leave out "
            f"--datasets, or leave out {folder} to measure by --config alone."
        )
    if model in ("auto", made["extractor"].partition(" ")[0]):  # else nothing need be downloaded
        extractor = features.make_extractor(**config.features)
        if extractor.name == made["extractor"]:
            return extractor, made["max_side"]
        model = extractor.name
    raise InputError(
        f'{folder} holds trees of the features "{made["extractor"]}", and --config gives '
        f'"{model}"; give the --config and --config.features.* that mis-jax propose was given.'
    )
