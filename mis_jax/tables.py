"""Results of evaluations as tables, the paper's rows beside them."""

import csv
import io
from collections.abc import Sequence

import numpy as np

from mis_jax import benchmarks
from mis_jax.metrics import clicks_to

# NoC@85 and NoC@90 of Table 1 of the paper.
PAPER = {
    "grabcut": {"MIS": (1.94, 2.32), "GraphCut": (7.98, 10.00)},
    "berkeley": {"MIS": (3.09, 4.58), "GraphCut": (None, 14.22)},
    "sbd": {"MIS": (6.91, 9.51), "GraphCut": (13.60, 15.96)},
    "davis": {"MIS": (6.33, 8.44), "GraphCut": (15.13, 17.41)},
}


def table(results: dict[str, dict], label: str, max_clicks: int = 20) -> str:
    """Results as a Markdown table with aligned columns, the paper's rows beside ours."""
    head = ["Dataset", "Method", "Objects", "NoC@85", "NoC@90"]
    head += [f">={max_clicks}@85", f">={max_clicks}@90", "s/click"]
    rows = [head]
    for name, r in results.items():
        count = f"{r['n']}" if r["n"] == r["expected"] else f"{r['n']} of {r['expected']}"
        numbers = [_number(r.get(key), 2) for key in ("noc85", "noc90")]
        numbers += [_number(r.get(key), 0) for key in ("nof85", "nof90")]
        rows.append([name, label, count, *numbers, _number(r["spc"], 3)])
        for method, values in PAPER.get(name.lower(), {}).items():
            count = str(benchmarks.EXPECTED[name.lower()])
            numbers = [_number(value, 2) for value in values]
            rows.append([name, f"{method} (the paper's)", count, *numbers, "-", "-", "-"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * w if i < 2 else "-" * (w - 1) + ":" for i, w in enumerate(widths)])
    lines = []
    for row in rows:
        cells = [
            c.ljust(w) if i < 2 else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def left_out(results: dict[str, dict]) -> str:
    """One line for each of the first objects that each dataset had to leave out."""
    lines = []
    for name, r in results.items():
        lines += [f"{name} leaves out {key}: {why}" for key, why in list(r["skipped"].items())[:5]]
        if len(r["skipped"]) > 5:
            lines.append(f"{name} leaves out {len(r['skipped']) - 5} more, named in results.json")
    return "".join(f"{line}\n" for line in lines)


def per_image_csv(records: Sequence[dict], target: float, max_clicks: int) -> str:
    """A row for each object: clicks to 85 and 90 % (empty: never), seconds, every IoU and click."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"iou_{k}" for k in range(1, max_clicks + 1)]
    writer.writerow(["id", "clicks_85", "clicks_90", "seconds", *columns, "clicks"])
    for r in records:
        counts = []
        for threshold in (0.85, 0.90):
            solved = threshold <= target and np.float32(max(r["ious"])) >= np.float32(threshold)
            counts.append(clicks_to([r["ious"]], threshold, max_clicks)[0] if solved else "")
        ious = [f"{v:.6f}" for v in r["ious"]] + [""] * (max_clicks - len(r["ious"]))
        clicks = " ".join(f"{row}:{col}:{'+' if sign else '-'}" for row, col, sign in r["clicks"])
        writer.writerow([r["id"], *counts, f"{r['seconds']:.3f}", *ious, clicks])
    return text.getvalue()
