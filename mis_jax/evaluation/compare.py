"""Several evaluations in one table, beside the paper's: `mis-jax compare RESULTS [RESULTS ...]`.

    mis-jax compare RUN/eval OTHER/eval [--labels ours,theirs] [--paper 1,3] [--output DIR]

RESULTS is a folder that `mis-jax evaluate` wrote, or its results.json; of older ones, whatever they
lack is computed from their IoUs. Every run is also compared with the first one object by object, so
that the interval of the difference is far narrower than those of the two means. With --output:
results.md, .csv, .tex and .json, iou_per_click.png, and clicks_and_masks.png of objects that
`mis-jax evaluate --pictures` kept.
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from mis_jax.errors import InputError
from mis_jax.evaluation import figures, formats, metrics, published, tables
from mis_jax.evaluation.results import Run, load_all
from mis_jax.files import write_file

OBJECTS = 6  # shown in clicks_and_masks.png
AFTER = 5  # clicks after which the difference of mean IoU is told
COMPARISON = "differences"  # a key that results.json of a comparison has


def define_flags() -> None:
    """Flags of `mis-jax compare`."""
    flags.DEFINE_list("labels", [], "A name for each RESULTS; by default what was evaluated.")
    flags.DEFINE_string("output", "", "Folder for tables and figures; if none, they are printed.")
    flags.DEFINE_string("paper", "1", "Tables of the paper to show beside, such as 3,4,5.")


def main(argv: Sequence[str]) -> None:
    """Binary: `mis-jax compare RESULTS [RESULTS ...]`."""
    if len(argv) < 2:
        raise InputError(
            "usage: mis-jax compare RESULTS [RESULTS ...] [--labels NAME,NAME] [--output DIR], "
            "where RESULTS are folders that mis-jax evaluate wrote."
        )
    numbers = {str(number): number for number in published.NUMBERS}
    chosen = flags.FLAGS.paper.split(",")
    if not set(chosen) <= numbers.keys():
        raise InputError(
            f"--paper={flags.FLAGS.paper}: the paper has the tables {', '.join(numbers)}."
        )
    runs = load_all([Path(word) for word in argv[1:]], flags.FLAGS.labels)
    output = Path(flags.FLAGS.output) if flags.FLAGS.output else None
    print(compare(runs, output, [numbers[word] for word in chosen]))


def compare(runs: Sequence[Run], output: Path | None = None, paper: Sequence[int] = (1,)) -> str:
    """Compares runs, and writes tables and figures if there is a folder for them.

    Args:
        runs: at least one, with labels of their own.
        output: a folder, made if need be.
        paper: tables of the paper to show beside.

    Returns:
        The tables, for a terminal.

    Raises:
        InputError: runs of unlike numbers of clicks, or of unlike pixels of one object; an output
            folder that holds the results of an evaluation; damaged stories.
    """
    _check_output(output)
    _check_alike(runs)
    results = {run.label: run.entries for run in runs}
    found = differences(runs)
    more = _differences_text(found) if len(runs) > 1 else ""
    if output is None:
        return tables.text(results, paper) + more
    stories = _stories(runs)
    links = "\n![IoU after each click](iou_per_click.png)\n"
    links += "![Clicks and masks](clicks_and_masks.png)\n" if stories else ""
    output.mkdir(parents=True, exist_ok=True)
    document = {"rows": tables.rows(results, paper), COMPARISON: found}
    write_file(output / "results.json", formats.compact_json(document))
    text = tables.write(output, results, paper, more + links)
    write_file(output / "iou_per_click.png", figures.png(figures.curves(results)))
    if stories:
        picture = figures.png(figures.clicks_and_masks(stories))
        write_file(output / "clicks_and_masks.png", picture)
    return f"{text}{more}\nWritten to {output}"


# ---- checks


def _check_output(output: Path | None) -> None:
    """Keeps results of evaluations from being overwritten."""
    file = output / "results.json" if output else None
    if file is None or not file.exists():
        return
    try:
        known = json.loads(file.read_text("utf-8"))
    except ValueError:
        known = None
    if not isinstance(known, dict) or COMPARISON not in known:
        raise InputError(f"{output} holds other results; give another folder as --output.")


def _check_alike(runs: Sequence[Run]) -> None:
    """Refuses what cannot be compared: unlike numbers of clicks, unlike pixels of an object."""
    first = runs[0]
    for run in runs[1:]:
        ours, theirs = (next(iter(r.entries.values()))["max_clicks"] for r in (first, run))
        if ours != theirs:
            raise InputError(
                f"{first.label} had up to {ours} clicks an object, {run.label} {theirs}; evaluate "
                "again with one --config.eval.max_clicks."
            )
    for a, b in itertools.combinations(runs, 2):
        for name in a.entries.keys() & b.entries.keys():
            ours, theirs = (r.entries[name].get("digests", {}) for r in (a, b))
            for id in ours.keys() & theirs.keys():
                if ours[id] != theirs[id]:
                    raise InputError(
                        f"{name}: {id} has other pixels in {a.label} than in {b.label}; evaluate "
                        "both on the same images."
                    )


# ---- differences


def differences(runs: Sequence[Run]) -> dict[str, dict[str, dict]]:
    """Dataset -> run -> `difference` to the first run that has the dataset, which is left out.

    `to` of each tells which run that is.
    """
    found: dict[str, dict[str, dict]] = {}
    for name in tables.datasets({run.label: run.entries for run in runs}):
        first, *others = [run for run in runs if name in run.entries]
        if others:
            found[name] = {
                run.label: {"to": first.label, **difference(first.entries[name], run.entries[name])}
                for run in others
            }
    return found


def difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The second entry less the first, paired over the objects that both have.

    Returns:
        `common`, how many those are; `noc85` and so on, [difference, low, high] with the 95 %
        bootstrap interval over pairs, as far as both targets allow; the same of `miou`, one for
        each click, unless clicks ended at unlike targets. Only `common` if it is 0.
    """
    common = [id for id in first["ious"] if id in second["ious"]]
    if not common:
        return {"common": 0}
    most = first["max_clicks"]
    pair = [[entry["ious"][id] for id in common] for entry in (first, second)]
    percents = metrics.thresholds(first["target"]).keys() & metrics.thresholds(second["target"])
    columns = {}
    for percent, threshold in metrics.thresholds(first["target"]).items():
        if percent in percents:
            before, after = (metrics.clicks_to(ious, threshold, most) for ious in pair)
            columns[f"noc{percent}"] = after - before
    counted = len(columns)
    stack = [np.stack(list(columns.values()), axis=1)]
    if first["target"] == second["target"] or min(first["target"], second["target"]) > 1:
        before, after = (metrics.held(ious, most) for ious in pair)
        stack.append(after - before)
    values = np.concatenate(stack, axis=1)
    found = np.column_stack([values.mean(axis=0), metrics.bootstrap_intervals(values)])
    triples = np.round(found, 6).tolist()
    result = {"common": len(common), **dict(zip(columns, triples, strict=False))}
    return result | ({"miou": triples[counted:]} if len(stack) > 1 else {})


def _differences_text(found: Mapping[str, Mapping[str, dict]]) -> str:
    """A table for each dataset, and what it tells."""
    if not found:
        return "\nNo dataset is common to two runs, so that there are no differences.\n"
    parts = []
    for name, others in found.items():
        head = [f"{name}, minus {next(iter(others.values()))['to']}", "objects"]
        table = [[*head, "NoC@85", "NoC@90", f"mIoU@{AFTER}, %"]]
        for label, values in others.items():
            cells = [_triple(values.get(f"noc{p}"), 1) for p in tables.COMPARED]
            miou = values.get("miou", [])
            cells.append(_triple(miou[AFTER - 1] if len(miou) >= AFTER else None, 100))
            table.append([label, str(values["common"]), *cells])
        parts.append(formats.aligned(table, left=1))
    told = (
        "- Differences are means over the objects that both runs have, with the 95 % bootstrap\n"
        "  interval over these pairs. Fewer clicks are better, a higher IoU is.\n"
    )
    return "\n" + "\n".join([*parts, told])


def _triple(values: Sequence[float] | None, factor: float) -> str:
    if values is None:
        return "-"
    mean, low, high = (factor * value for value in values)
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


# ---- pictures


def _stories(runs: Sequence[Run]) -> dict[str, dict[str, figures.Story]]:
    """Of each run that kept any, the stories of the first objects that all of these kept."""
    kept = {run.label: found for run in runs if (found := _kept(run))}
    if not kept:
        return {}
    common = [key for key in next(iter(kept.values())) if all(key in f for f in kept.values())]
    common = common[:: max(1, math.ceil(len(common) / OBJECTS))]  # spread over all
    several = len({name for name, _ in common}) > 1
    return {
        label: {
            f"{name} {id}" if several else id: figures.load_story(found[name, id])
            for name, id in common
        }
        for label, found in kept.items()
        if common
    }


def _kept(run: Run) -> dict[tuple[str, str], Path]:
    """The stories that a run kept, by dataset and object."""
    found = {}
    for name, entry in run.entries.items():
        if isinstance(entry.get("stories"), str):
            for id in entry["ious"]:
                path = figures.story_path(run.folder / entry["stories"], id)
                if path.is_file():
                    found[name, id] = path
    return found
