"""Results of evaluations as tables, the paper's rows beside them: Markdown, LaTeX and CSV.

Results are {label: {dataset: entry}}, a label for each run, entries as `metrics.summarize` gives.
"""

import dataclasses
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mis_jax.datasets import count_left_out, first_reasons, note_lines
from mis_jax.evaluation import published
from mis_jax.evaluation.formats import aligned, escaped, rows_csv, tabular
from mis_jax.evaluation.metrics import THRESHOLDS, thresholds
from mis_jax.files import write_file

Results = Mapping[str, Mapping[str, dict]]

OURS = "Measured here"
PERCENTS = tuple(thresholds(max(THRESHOLDS)))
COMPARED = ("85", "90")  # that the paper gives
AFTER = (1, 3, 5, 10)  # clicks whose mean IoU is told, and the last
DATASETS_ACROSS, COLUMNS_ACROSS = 2, 4  # in a table of text, about 110 characters
FIRST = 5  # objects named of those left out


@dataclasses.dataclass(frozen=True)
class Line:
    """A method and what is known of it, by dataset: an entry, or its `noc85` and `noc90` alone."""

    group: str
    method: str
    venue: str
    backbone: str
    entries: Mapping[str, Mapping[str, Any]]


def write(folder: Path, results: Results, paper: Sequence[int] = (1,), more: str = "") -> str:
    """Writes results.md, results.csv and results.tex.

    Args:
        folder: where; it is there.
        paper: the tables of the paper to show beside, of `published.NUMBERS`.
        more: Markdown to end results.md with.

    Returns:
        The text of results.md without `more`, for a terminal.
    """
    shown = text(results, paper)
    write_file(folder / "results.md", shown + more)
    write_file(folder / "results.csv", rows_csv(rows(results, paper)))
    write_file(folder / "results.tex", latex(results, paper))
    return shown


def text(results: Results, paper: Sequence[int] = (1,)) -> str:
    """All tables and what their words mean, as Markdown that a terminal shows well."""
    known = [name for name in datasets(results) if is_known(name)]
    tables = [
        aligned(overview(results, part, paper), left=2) for part in _parts(known, DATASETS_ACROSS)
    ]
    for corner, columns in _columns(results).items():
        for part in _parts(list(columns), COLUMNS_ACROSS):
            some = {title: columns[title] for title in part}
            tables.append(aligned(details(corner, some), left=1))
    return "\n".join([*tables, footer(results)])


# ---- what is known


def datasets(results: Results) -> list[str]:
    """The names of all datasets, in the order in which they first come."""
    return list(dict.fromkeys(name for entries in results.values() for name in entries))


def is_known(dataset: str) -> bool:
    """Whether the paper has numbers of it."""
    return dataset.lower() in published.DATASETS


def lines(results: Results, paper: Sequence[int] = (1,)) -> list[Line]:
    """The paper's rows of the datasets in the results, then ours."""
    known = [name for name in datasets(results) if is_known(name)]
    found = []
    for group, members in (pair for table in paper for pair in published.groups(table).items()):
        for row in members if known else ():
            numbers = row.entries()
            entries = {name: numbers[name.lower()] for name in known}
            found.append(Line(group, row.method, row.venue, row.backbone, entries))
    return found + [Line(OURS, label, "", "", entries) for label, entries in results.items()]


def to_mis(entry: Mapping[str, Any], dataset: str, percent: str) -> float | None:
    """NoC less that of MIS in the paper, None if either is not known."""
    mis = published.MIS.entries().get(dataset.lower(), {}).get(f"noc{percent}")
    ours = entry.get(f"noc{percent}")
    return None if mis is None or ours is None else ours - mis


def rows(results: Results, paper: Sequence[int] = (1,)) -> list[dict[str, Any]]:
    """A dict for each method and dataset, with the same keys, None where nothing is known.

    Beside what `metrics.numbers` names, with `noc85_low` and `noc85_high` for intervals: `group`,
    `method`, `venue`, `backbone`, `dataset`, `objects`, `expected`, `noc85_to_mis`, `miou5` and so
    on, `random_seeds`, and `noc85_random_low` and `noc85_random_high`, the extremes over seeds.
    """
    return [
        {
            "group": line.group,
            "method": line.method,
            "venue": line.venue,
            "backbone": line.backbone,
            "dataset": name,
            **_flat(line.entries[name], name),
        }
        for line in lines(results, paper)
        for name in datasets(results)
        if any(value is not None for value in line.entries.get(name, {}).values())
    ]


def _flat(entry: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The columns of an entry."""
    spread, miou = entry.get("random", {}), entry.get("miou", [])
    flat = {"objects": entry.get("n")} | {k: entry.get(k) for k in ("expected", "max_clicks")}
    flat["target"] = entry.get("target")
    for p in PERCENTS:
        low, high = entry.get(f"noc{p}_interval", (None, None))
        flat |= {f"noc{p}": entry.get(f"noc{p}"), f"noc{p}_low": low, f"noc{p}_high": high}
        flat[f"nof{p}"] = entry.get(f"nof{p}")
    for p in COMPARED:
        seeds = spread.get(f"noc{p}")
        flat[f"noc{p}_to_mis"] = to_mis(entry, dataset, p)
        flat[f"noc{p}_random_low"] = min(seeds) if seeds else None
        flat[f"noc{p}_random_high"] = max(seeds) if seeds else None
    flat["random_seeds"] = spread.get("seeds")
    for k in (*AFTER, 20):
        flat[f"miou{k}"] = miou[k - 1] if k <= len(miou) else None
    return flat | {key: entry.get(key) for key in ("miou_exact", "spc", "seconds")}


# ---- tables of cells


def overview(results: Results, names: Sequence[str], paper: Sequence[int] = (1,)) -> list[list]:
    """A header and a row for each method: NoC on some datasets and how far it is from MIS.

    A row of one cell is the name of a group.
    """
    head = ["Method", "Backbone"]
    table = [head + [f"{name}@{p}" for name in names for p in COMPARED]]
    group = None
    for line in lines(results, paper):
        if not any(name in line.entries for name in names):
            continue
        if line.group != group:
            group = line.group
            table.append([group])
        cells = [f"{line.method}, {line.venue}" if line.venue else line.method]
        cells.append(line.backbone or "-")
        for name, p in ((name, p) for name in names for p in COMPARED):
            entry = line.entries.get(name, {})
            far = to_mis(entry, name, p)
            cells.append("-" if far is None else f"{entry[f'noc{p}']:.2f} ({_signed(far)})")
        table.append(cells)
    return table


def _columns(results: Results) -> dict[str, dict[str, Mapping[str, Any]]]:
    """The columns of each table of details: datasets of one run, or runs on each dataset."""
    if len(results) == 1:
        return {label: dict(entries) for label, entries in results.items()}
    return {
        name: {label: found[name] for label, found in results.items() if name in found}
        for name in datasets(results)
    }


def details(corner: str, columns: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """A header and a row for each number; columns are titles and entries, all of as many clicks."""
    entries = list(columns.values())
    most = entries[0]["max_clicks"]
    after = sorted({k for k in AFTER if k < most} | {most})
    table = [[corner, *columns], ["objects", *map(_count, entries)]]
    for p in PERCENTS:
        table.append([f"NoC@{p}", *(_with_interval(e, f"noc{p}") for e in entries)])
    for p in COMPARED:
        table.append([f">={most}@{p}", *(_number(e.get(f"nof{p}"), "{:d}") for e in entries)])
    for k in after:
        table.append([f"mIoU@{k}, %", *(_miou(e, k) for e in entries)])
    table.append(["s/click", *(_number(e.get("spc"), "{:.3f}") for e in entries)])
    if any("random" in e for e in entries):
        for p in COMPARED:
            cells = [_spread(e.get("random", {}), f"noc{p}") for e in entries]
            table.append([f"NoC@{p}, random clickers", *cells])
    return table


def _count(entry: Mapping[str, Any]) -> str:
    return f"{entry['n']} of {entry['expected']}" if _lacks(entry) else f"{entry['n']}"


def _lacks(entry: Mapping[str, Any]) -> bool:
    return entry["n"] != entry["expected"]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _signed(difference: float) -> str:
    return f"{round(difference, 2) + 0.0:+.2f}"  # no -0.00


def _with_interval(entry: Mapping[str, Any], key: str) -> str:
    if entry.get(key) is None:
        return "-"
    low, high = entry[f"{key}_interval"]
    return f"{entry[key]:.2f} [{low:.1f}, {high:.1f}]"


def _miou(entry: Mapping[str, Any], clicks: int) -> str:
    low, high = entry["miou_interval"][clicks - 1]
    return f"{100 * entry['miou'][clicks - 1]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _spread(random: Mapping[str, Any], key: str) -> str:
    found = random.get(key)
    return f"{min(found):.1f}..{max(found):.1f} of {len(found)}" if found else "-"


def _parts(names: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    return (names[k : k + size] for k in range(0, len(names), size))


def footer(results: Results) -> str:
    """What the words of the tables mean, and what datasets lack: a line each."""
    entries = [entry for found in results.values() for entry in found.values()]
    most = entries[0]["max_clicks"]
    told = [
        f"NoC@85: mean clicks to 85 % IoU, {most} for an object that is never there; in brackets "
        "the 95 % bootstrap interval over objects.",
        f">={most}@85 (NoF): objects that take {most} clicks or more. s/click (SPC): seconds a "
        "click.",
        f"mIoU@5: mean IoU after 5 clicks; {_held(entries)}.",
    ]
    if any("random" in entry for entry in entries):
        told.append("Random clickers: the lowest and highest NoC, and of how many of them.")
    if any(map(is_known, datasets(results))):
        told.append(
            "In parentheses: clicks more than MIS. Rows of other methods: Li et al., ICCV 2023, as "
            "the paper gives them."
        )
    for found in results.values():
        told += [f"{name}: {_count(e)} objects." for name, e in found.items() if _lacks(e)]
        told += left_out(found).splitlines()
    once = dict.fromkeys(told)  # two runs may lack the same
    return "".join(textwrap.fill(f"- {t}", 100, subsequent_indent="  ") + "\n" for t in once)


def _held(entries: Sequence[Mapping[str, Any]]) -> str:
    """Whether mean IoUs are of objects that had all clicks."""
    stopped = sorted({e["target"] for e in entries if not e["miou_exact"]})
    if not stopped:
        return "every object had all clicks"
    targets = " or ".join(f"{100 * target:.4g} %" for target in stopped)
    return f"an object that reached {targets} keeps its last IoU"


def left_out(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Lines for each dataset: objects left out, why, and the first; what was odd about others."""
    lines = []
    for name, entry in entries.items():
        if skipped := entry["skipped"]:
            first = ", ".join([*list(skipped)[:FIRST], *(["..."] if len(skipped) > FIRST else [])])
            lines.append(f"{name}: {count_left_out(skipped)} ({first}).\n")
            lines.append(f"{name}: {first_reasons(skipped)[0]}.\n")
        lines += [f"{name}: {line}.\n" for line in note_lines(entry.get("notes", {}))]
    return "".join(lines)


# ---- LaTeX


def latex(results: Results, paper: Sequence[int] = (1,)) -> str:
    """The same tables for a document that uses booktabs, the first as in the paper."""
    known = [name for name in datasets(results) if is_known(name)]
    told = ["Needs \\usepackage{booktabs}.", *footer(results).splitlines()]
    parts = ["".join(f"% {line}\n" for line in told)]
    if known:
        head = ["", "", *(f"\\multicolumn{{2}}{{c}}{{{escaped(name)}}}" for name in known)]
        rules = "".join(f"\\cmidrule(lr){{{k}-{k + 1}}}" for k in range(3, 3 + 2 * len(known), 2))
        table = overview(results, known, paper)
        table[0][2:] = ["NoC@85", "NoC@90"] * len(known)
        parts.append(tabular(table, 2, [" & ".join(head) + " \\\\", rules]))
    parts += [tabular(details(*table), 1) for table in _columns(results).items()]
    return "\n".join(parts)
