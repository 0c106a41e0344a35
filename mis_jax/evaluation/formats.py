"""Cells and rows as Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mis_jax.evaluation.metrics import clicks_to

# ---- Markdown


def aligned(table: Sequence[Sequence[str]], left: int) -> str:
    """A table of cells as Markdown with aligned columns, the first `left` of them to the left."""
    across = len(table[0])
    rows = [[c.replace("|", "\\|") for c in row] for row in table]
    rows = [row if len(row) == across else [f"*{row[0]}*"] + [""] * (across - 1) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)])
    lines = []
    for row in rows:
        cells = [
            c.ljust(w) if i < left else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


# ---- LaTeX


def tabular(table: Sequence[Sequence[str]], left: int, above: Sequence[str] = ()) -> str:
    """A tabular; a row of one cell is the name of a group."""
    across = len(table[0])
    lines = [f"\\begin{{tabular}}{{{'l' * left}{'r' * (across - left)}}}", "\\toprule", *above]
    for number, row in enumerate(table):
        cells = [escaped(cell) for cell in row]
        if len(row) != across:
            cells = [f"\\multicolumn{{{across}}}{{l}}{{\\textit{{{cells[0]}}}}}"]
            lines += ["\\midrule"] if number > 1 else []
        lines.append(" & ".join(cells) + " \\\\")
        lines += ["\\midrule"] if number == 0 else []
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def escaped(words: str) -> str:
    """Words as LaTeX shows them; "[" must not begin what follows the end of a row."""
    marks = {c: f"\\{c}" for c in "&%$#_{}"}
    marks |= {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    marks |= {"[": "{[}", "]": "{]}", ">": "$>$", "<": "$<$", "|": "$|$"}
    written = "".join(marks.get(c, c) for c in words).replace("$>$=", "$\\geq$")
    return re.sub(r"(?<![^\s(])-(?=\d)", "$-$", written)  # a minus


# ---- JSON and CSV


def compact_json(document: Mapping[str, Any]) -> str:
    """JSON with a line for each list of numbers, or of lists of these."""
    text = json.dumps(document, indent=1)
    for inner in (r"[^][{}\"]+", r"(?:\[[^][{}\"]+\],?\s*)+"):
        text = re.sub(rf"\[\s+({inner}?)\s*\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    return text


def rows_csv(found: Sequence[Mapping[str, Any]]) -> str:
    """`rows` as CSV, six decimals, empty where nothing is known."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()} for row in found
    )
    return out.getvalue()


def per_image_csv(entry: Mapping[str, Any], target: float, max_clicks: int) -> str:
    """A row for each object: clicks to 85 and 90 % (empty: never), seconds, every IoU and click."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = [f"iou_{k}" for k in range(1, max_clicks + 1)]
    writer.writerow(["id", "clicks_85", "clicks_90", "seconds", *columns, "clicks"])
    for id, ious in entry["ious"].items():
        counts = []
        for threshold in (0.85, 0.90):
            solved = threshold <= target and np.float32(max(ious)) >= np.float32(threshold)
            counts.append(clicks_to([ious], threshold, max_clicks)[0] if solved else "")
        cells = [f"{v:.6f}" for v in ious] + [""] * (max_clicks - len(ious))
        clicks = (f"{r}:{c}:{'+' if sign else '-'}" for r, c, sign in entry["clicks"][id])
        writer.writerow([id, *counts, f"{entry['times'][id]:.3f}", *cells, " ".join(clicks)])
    return out.getvalue()
