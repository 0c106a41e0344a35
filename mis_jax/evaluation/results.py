"""Results that `mis-jax evaluate` or `quickstart` wrote, read back and checked."""

import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mis_jax.errors import InputError
from mis_jax.evaluation import clicking, metrics


@dataclasses.dataclass(frozen=True)
class Run:
    """An evaluation: its entries by dataset, as `metrics.summarize` gives, and its folder."""

    label: str
    entries: dict[str, dict]
    folder: Path


def load_all(paths: Sequence[Path], labels: Sequence[str] = ()) -> list[Run]:
    """`load` of several, with labels of their own: those given, or else longer ones where needed.

    Raises:
        InputError: of `load`; labels that are too few, too many or equal.
    """
    found = [(path, run) for path in paths for run in load(path)]
    if labels:
        if len(labels) != len(found) or len(set(labels)) != len(labels) or not all(labels):
            raise InputError(
                f"--labels={','.join(labels)}: give {len(found)} different names, one for each of "
                f"{', '.join(run.label for _, run in found)}."
            )
        pairs = zip(found, labels, strict=True)
        return [dataclasses.replace(run, label=label) for (_, run), label in pairs]
    names = collections.Counter(run.label for _, run in found)
    runs: list[Run] = []
    for path, run in found:
        label = f"{run.label}, {path}" if names[run.label] > 1 else run.label
        if label in (other.label for other in runs):
            raise InputError(f"{label} is given twice; give every folder once, or --labels.")
        runs.append(dataclasses.replace(run, label=label))
    return runs


def load(path: Path) -> list[Run]:
    """The run of a folder or results.json, or those that `mis-jax quickstart` compares.

    Raises:
        InputError: it is not there, damaged, or not written by `mis-jax evaluate`.
    """
    file = path / "results.json" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{file} does not exist; give folders that mis-jax evaluate wrote.")
    try:
        document = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is damaged; evaluate again.") from error
    if not isinstance(document, dict):
        raise _foreign(file)
    if {"trained", "config"} <= document.keys():
        settings = _settings(document["config"], file)
        names = [name for name in document if name not in ("seconds", "config")]
        found = {name: {"scenes": document[name]} for name in names}
    else:
        meta = document.pop("meta", {})
        settings, found = _settings(meta, file), {_label(meta, path): document}
        if not document:
            raise InputError(f"{file} has no dataset yet; evaluate again, which goes on.")
    return [
        Run(label, {name: _entry(e, settings, name, file) for name, e in some.items()}, file.parent)
        for label, some in found.items()
    ]


def _foreign(file: Path) -> InputError:
    return InputError(f"{file} was not written by mis-jax evaluate; give a folder that was.")


def _settings(meta: Any, file: Path) -> dict:
    """`target` and `max_clicks` that clicks ended at."""
    settings = meta.get("eval") if isinstance(meta, dict) else None
    if not isinstance(settings, dict):
        raise _foreign(file)
    target, most = settings.get("target"), settings.get("max_clicks")
    if not (isinstance(target, int | float) and target > 0 and isinstance(most, int) and most > 0):
        raise InputError(f"{file}: meta.eval has no target and max_clicks; evaluate again.")
    return {"target": target, "max_clicks": most}


def _label(meta: Mapping[str, Any], path: Path) -> str:
    """What was evaluated, as `mis-jax evaluate` prints it."""
    return clicking.label({"predictor": path, **meta})


def _entry(raw: Any, settings: Mapping[str, Any], name: str, file: Path) -> dict:
    """An entry with all that `metrics.summarize` gives, as far as IoUs tell it."""
    ious = raw.get("ious") if isinstance(raw, dict) else None
    if not isinstance(ious, dict) or not ious:
        raise _foreign(file)
    for id, values in ious.items():
        if not (isinstance(values, list) and values and all(map(_is_iou, values))):
            raise InputError(
                f"{file}: {name} has no IoUs of {id} that are numbers from 0 to 1; evaluate again."
            )
    numbers = metrics.numbers(list(ious.values()), settings["target"], settings["max_clicks"])
    return {"expected": len(ious), "skipped": {}} | raw | {"n": len(ious)} | numbers


def _is_iou(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
