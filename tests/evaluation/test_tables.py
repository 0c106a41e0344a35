"""The paper's numbers against a second transcription; tables against what they are made of."""

import csv
import io
import re

import numpy as np
import pytest

from mis_jax.datasets.samples import Benchmark
from mis_jax.evaluation import formats, metrics, published, tables

# ---- the paper

# Table 1, typed again: name, where, how many numbers a row has, and their sum.
TABLE_1 = """
DIOS w/o GC CVPR16 6 81.33; DIOS w/ GC CVPR16 6 54.79; LD CVPR18 6 40.80; BRS CVPR19 7 41.47;
f-BRS CVPR20 7 34.58; FCA-Net CVPR20 3 13.57; IA+SA ECCV20 3 13.17; CDNet ICCV21 8 34.22;
RITM ICIP22 8 29.36; FocalClick CVPR22 7 29.63; FocusCut CVPR22 8 27.70; PseudoClick ECCV22 5 21.33;
SimpleClick arXiv22 8 24.94; GraphCut ICCV01 7 94.30; Random Walk TPAMI06 7 101.43;
Geodesic Matting IJCV09 7 114.90; GSC CVPR10 7 89.66; ESC CVPR10 7 88.73; TokenCut CVPR22 8 74.60;
FreeMask CVPR22 8 66.66; DSM CVPR22 8 58.87; MIS w/o smoothness ICCV23 8 47.71; MIS ICCV23 8 43.12
"""
COLUMNS = (91.10, 124.09, 30.90, 142.30, 170.31, 228.81, 191.23, 248.13)  # their sums
# What Tables 2 to 5 print in brackets: how far a row is below the one it is compared with.
LOWER_2 = {
    1: (0.78, 0.62, 0.41, 0.71, 2.44, 2.28, 0.45, 0.88),
    5: (0.06, 0.34, 0.02, 0.32, 0.27, 0.64, 0.60, 1.12),
    10: (0.24, 0.34, 0.24, 0.48, 0.72, 0.94, 0.63, 0.83),
}
LOWER_3 = {
    3.0: (0.06, 0.06, 0.33, 0.47, 0.54, 0.59, 0.46, 1.30),
    5.0: (0.14, 0.22, 0.39, 0.80, 0.59, 0.53, 0.39, 1.53),
    10.0: (0.14, 0.24, 0.31, 0.93, 0.47, 0.41, 0.45, 1.64),
    15.0: (-0.04, 0.06, 0.15, 0.38, 0.26, 0.07, 0.07, 0.98),
}
LOWER_4 = {
    0.8: (0.18, 0.08, 0.81, 0.53, 1.68, 1.25, 1.48, 1.35),
    0.9: (0.18, 0.16, 0.80, 0.94, 1.80, 1.36, 1.51, 1.48),
    0.95: (-0.10, -0.14, 0.70, 0.63, 1.80, 1.35, 1.75, 1.38),
}
LOWER_5 = (1.90, 2.00, 1.33, 1.62, 0.20, 0.44, 1.38, 1.66)


def test_table_1_is_the_papers():
    rows = [row for group in published.TABLE_1.values() for row in group]
    expected = [cell.rsplit(None, 3) for cell in TABLE_1.split(";")]
    for row, (name, venue, count, total) in zip(rows, expected, strict=True):
        numbers = [x for x in row.noc if x is not None]
        assert (row.method, row.venue, len(row.noc)) == (name.strip(), venue, 8)
        assert (len(numbers), f"{sum(numbers):.2f}") == (int(count), total), name
    for column, total in zip(zip(*(row.noc for row in rows), strict=True), COLUMNS, strict=True):
        assert sum(x or 0 for x in column) == pytest.approx(total)
    assert [len(group) for group in published.TABLE_1.values()] == [13, 5, 5]
    for row in rows:  # an IoU of 90 % takes more clicks than one of 85 %
        assert all(a < b for a, b in zip(row.noc[::2], row.noc[1::2], strict=True) if a and b)
    assert published.MIS.method == "MIS"
    assert published.MIS.entries()["berkeley"] == {"noc85": 3.09, "noc90": 4.58}


def test_tables_2_to_5_differ_as_the_paper_prints():
    def below(base, row, expected):
        np.testing.assert_allclose(np.subtract(base, row), expected, atol=1e-9)

    for share, expected in LOWER_2.items():
        below(published.TABLE_2[share, "MAE"], published.TABLE_2[share, "MIS"], expected)
    for key, expected in LOWER_3.items():
        below(published.TABLE_3[0.0], published.TABLE_3[key], expected)
    for key, expected in LOWER_4.items():
        below(published.TABLE_4[0.0], published.TABLE_4[key], expected)
    below(published.TABLE_5["uniform"], published.TABLE_5["top-down"], LOWER_5)
    smooth = published.TABLE_1["Deep unsupervised methods"][-2]
    assert published.TABLE_3[0.0] == smooth.noc
    for row in (published.TABLE_3[10.0], published.TABLE_4[0.9], published.TABLE_5["top-down"]):
        assert row == published.MIS.noc
    sizes = [sum(map(len, published.groups(k).values())) for k in published.NUMBERS]
    assert sizes == [23, 6, 5, 4, 2]


# ---- ours


def entry(seed=0, n=12, target=0.9, max_clicks=20, skipped=(), expected=None, random=0):
    """A summary of made-up IoUs that rise with the clicks."""

    def records(rng):
        found = []
        for k in range(n):
            ious = np.sort(rng.random(max_clicks)).tolist()
            done = next((i for i, v in enumerate(ious, 1) if v >= target), max_clicks)
            clicks = [[1, 2, 1], [3, 4, 0]] * max_clicks
            found.append({"id": f"o{k}", "digest": k, "ious": ious[:done], "seconds": 0.5})
            found[-1]["clicks"] = clicks[:done]
        return found

    benchmark = Benchmark("x", expected, {}, dict(skipped))
    seeds = [records(np.random.default_rng(100 + s)) for s in range(random)]
    rng = np.random.default_rng(seed)
    return metrics.summarize(records(rng), benchmark, target, max_clicks, seeds)


def cells_of(markdown):
    """The tables of a Markdown text, each a list of rows of cells."""
    parts = re.split(r"\n\s*\n", markdown)
    found = []
    for part in parts:
        lines = [line for line in part.splitlines() if line.startswith("|")]
        if lines:
            assert len({len(line) for line in lines}) == 1  # columns line up
            split = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
            found.append([[c.strip() for c in row] for row in split])
            assert all(re.fullmatch(r"-+:?", c) for c in found[-1].pop(1))
    return found


def test_the_overview_is_the_papers_table_with_ours_last():
    ours = entry(1)
    text = tables.text({"tree": {"GrabCut": ours}})
    assert re.match(r"\|[^\n]*\|\n\| -+ \| -+ \| -+: \| -+: \|\n", text)  # names to the left
    (table, _) = cells_of(text)
    assert table[0] == ["Method", "Backbone", "GrabCut@85", "GrabCut@90"]
    assert [row[0] for row in table if row[1:] == ["", "", ""]] == [
        "*Deep supervised methods*",
        "*Non-deep methods*",
        "*Deep unsupervised methods*",
        "*Measured here*",
    ]
    assert len(table) == 1 + 4 + 23 + 1
    rows = {row[0]: row for row in table}
    assert rows["GraphCut, ICCV01"][1:] == ["-", "7.98 (+6.04)", "10.00 (+7.68)"]
    assert rows["FCA-Net, CVPR20"][1:] == ["ResNet-101", "-", "2.08 (-0.24)"]
    assert rows["MIS, ICCV23"][2:] == ["1.94 (+0.00)", "2.32 (+0.00)"]
    a, b = ours["noc85"], ours["noc90"]
    expected = [f"{a:.2f} ({a - 1.94:+.2f})", f"{b:.2f} ({b - 2.32:+.2f})"]
    assert table[-1] == ["tree", "-", *expected]


def test_two_datasets_are_side_by_side_and_the_third_below():
    results = {
        "tree": {name: entry(k) for k, name in enumerate(["grabcut", "mine", "SBD", "davis"])}
    }
    first, second, details = cells_of(tables.text(results))
    assert first[0][2:] == ["grabcut@85", "grabcut@90", "SBD@85", "SBD@90"]
    assert second[0][2:] == ["davis@85", "davis@90"]
    assert details[0] == ["tree", "grabcut", "mine", "SBD", "davis"]
    for line in tables.text(results).splitlines():
        assert len(line) <= 112


def test_details_are_all_numbers_of_a_run():
    given = entry(3, n=9, expected=50, random=3)
    rows = {row[0]: row[1] for row in tables.details("grabcut", {"tree": given})}
    assert rows["grabcut"] == "tree"
    assert rows["objects"] == "9 of 50"
    for p in ("80", "85", "90"):
        low, high = given[f"noc{p}_interval"]
        assert rows[f"NoC@{p}"] == f"{given[f'noc{p}']:.2f} [{low:.1f}, {high:.1f}]"
    assert rows["NoC@95"] == "-"
    assert rows[">=20@85"] == str(given["nof85"])
    assert rows[">=20@90"] == str(given["nof90"])
    for k in (1, 3, 5, 10, 20):
        low, high = (100 * v for v in given["miou_interval"][k - 1])
        text = f"{100 * given['miou'][k - 1]:.1f} [{low:.1f}, {high:.1f}]"
        assert rows[f"mIoU@{k}, %"] == text
    assert rows["s/click"] == f"{given['spc']:.3f}"
    seeds = given["random"]["noc90"]
    assert rows["NoC@90, random clickers"] == f"{min(seeds):.1f}..{max(seeds):.1f} of 3"
    few = {row[0] for row in tables.details("x", {"a": entry(max_clicks=4)})}
    assert {"mIoU@1, %", "mIoU@3, %", "mIoU@4, %", ">=4@85"} <= few
    assert not {"mIoU@5, %", "NoC@85, random clickers"} & few


def test_runs_are_side_by_side_on_each_dataset():
    results = {"a|b": {"mine": entry(1), "yours": entry(2)}, "c": {"yours": entry(3, target=1.01)}}
    mine, yours = cells_of(tables.text(results))  # neither is the paper's
    assert mine[0] == ["mine", "a\\|b"]
    assert yours[0] == ["yours", "a\\|b", "c"]
    row = next(row for row in yours if row[0] == "NoC@95")
    assert row[1] == "-"
    assert float(row[2].split()[0]) == round(results["c"]["yours"]["noc95"], 2)


def test_the_footer_says_what_is_exact_and_what_is_left_out():
    skipped = {f"m{k}.png": "the mask has no object pixel" for k in range(7)}
    skipped["bare.png"] = "no mask of this name"
    text = tables.text({"a": {"grabcut": entry(skipped=skipped.items(), expected=50)}})
    flat = " ".join(text.split())
    assert "an object that reached 90 % keeps its last IoU" in flat
    assert "- grabcut: 12 of 50 objects." in flat
    assert "8 left out: 7 masks without an object pixel, 1 image without a mask (m0.png, " in flat
    assert "m4.png, ...)." in flat
    assert "m5.png" not in text
    assert "- grabcut: m0.png: the mask has no object pixel." in flat
    assert "95 % bootstrap interval" in flat
    assert ">=20@85 (NoF)" in flat
    assert "as the paper gives them" in flat
    exact = tables.footer({"a": {"mine": entry(target=1.01, max_clicks=6)}})
    assert "every object had all clicks" in exact
    assert ">=6@85 (NoF): objects that take 6 clicks or more" in exact
    assert "paper" not in exact
    assert "of 12" not in exact
    assert tables.left_out({"x": entry()}) == ""


def test_a_dataset_that_two_runs_lack_alike_is_told_once():
    one = entry(expected=50)
    text = tables.footer({"a": {"grabcut": one}, "b": {"grabcut": one}})
    assert text.count("12 of 50") == 1


# ---- files


def test_csv_has_every_number():
    results = {"tree": {"grabcut": entry(1, random=2), "mine": entry(2)}}
    rows = tables.rows(results)
    found = list(csv.DictReader(io.StringIO(formats.rows_csv(rows))))
    assert len(found) == len(rows) == 23 + 2
    assert len([r for r in found if r["dataset"] == "grabcut"]) == 24
    gsc = next(r for r in found if r["method"] == "GSC")
    assert (gsc["noc85"], gsc["noc90"], gsc["venue"], gsc["spc"]) == ("7.1", "9.12", "CVPR10", "")
    assert float(gsc["noc85_to_mis"]) == pytest.approx(5.16)
    ours, mine = found[-2:]
    given = results["tree"]["grabcut"]
    assert (ours["group"], ours["method"], ours["dataset"]) == (tables.OURS, "tree", "grabcut")
    for key in ("noc80", "noc85", "noc90", "nof85", "spc", "seconds"):
        assert float(ours[key]) == pytest.approx(given[key], abs=1e-6)
    assert [float(ours["noc85_low"]), float(ours["noc85_high"])] == given["noc85_interval"]
    assert float(ours["miou5"]) == pytest.approx(given["miou"][4], abs=1e-6)
    most = max(given["random"]["noc90"])
    assert float(ours["noc90_random_high"]) == pytest.approx(most, abs=1e-6)
    assert (ours["random_seeds"], ours["noc95"], ours["miou_exact"]) == ("2", "", "False")
    assert float(ours["noc90_to_mis"]) == pytest.approx(given["noc90"] - 2.32, abs=1e-6)
    assert mine["noc85_to_mis"] == ""
    berkeley = tables.rows({"a": {"berkeley": entry()}})  # neither DIOS nor LD was there
    assert len(berkeley) == 23 - 3 + 1


def parsed(latex):
    """The tabulars of a LaTeX text: their columns and rows of cells as they are shown."""
    shown = {"$\\geq$": ">=", "$-$": "-", "$>$": ">", "$|$": "|", "{[}": "[", "{]}": "]"}
    shown |= {"\\textbackslash{}": "\\", "\\textasciitilde{}": "~"}
    found = []
    for columns, body in re.findall(
        r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", latex, re.S
    ):
        rows = []
        assert body.count("\\toprule") == body.count("\\bottomrule") == 1
        body = re.sub(r"\\(top|mid|bottom)rule|\\cmidrule\(lr\)\{\d+-\d+\}", "", body)
        for row in body.strip().split("\\\\\n") if body.strip() else ():
            assert not row.lstrip().startswith("[")  # LaTeX would take it for a length
            cells, across = [], 0
            for cell in re.split(r"(?<!\\)&", row.strip().removesuffix("\\\\")):
                many = re.fullmatch(r"\s*\\multicolumn\{(\d+)\}\{[lc]\}\{(.*)\}\s*", cell)
                across += int(many[1]) if many else 1
                cell = re.sub(r"^\\textit\{(.*)\}$", r"\1", many[2] if many else cell.strip())
                assert not re.search(r"(?<!\\)[%#_&~^]", cell)
                for mark, char in shown.items():
                    cell = cell.replace(mark, char)
                cells.append(re.sub(r"\\([&%$#_{}])", r"\1", cell))
            assert across == len(columns)
            rows.append(cells)
        found.append((columns, rows))
    return found


def test_latex_shows_the_same_tables():
    label = "[a] r_50%~{x}\\y|"
    results = {label: {"grabcut": entry(1), "sbd": entry(2)}}
    latex = tables.latex(results)
    assert latex.count("\\midrule") == 2 + 3  # below headers, and between four groups
    (columns, rows), (_, details) = parsed(latex)
    assert columns == "llrrrr"
    assert rows[0] == ["", "", "grabcut", "sbd"]
    assert rows[1] == ["Method", "Backbone", "NoC@85", "NoC@90", "NoC@85", "NoC@90"]
    assert rows[2:] == tables.overview(results, ["grabcut", "sbd"])[1:]
    assert rows[-1][0] == label
    assert details == tables.details(label, results[label])
    assert formats.escaped("f-BRS (-0.32) a-3") == "f-BRS ($-$0.32) a-3"
    ((columns, _),) = parsed(tables.latex({"a": {"mine": entry()}}))
    assert columns == "lr"


def test_everything_is_written(tmp_path):
    results = {"tree": {"grabcut": entry(1)}, "b": {"grabcut": entry(2)}}
    text = tables.write(tmp_path, results, (3, 5), "\nmore\n")
    assert (tmp_path / "results.md").read_text() == text + "\nmore\n"
    assert text == tables.text(results, (3, 5))
    assert "*Smoothness, Table 3*" in text
    assert "| top-down " in text
    assert "GraphCut" not in text
    assert (tmp_path / "results.csv").read_text() == formats.rows_csv(tables.rows(results, (3, 5)))
    assert (tmp_path / "results.tex").read_text() == tables.latex(results, (3, 5))


def test_a_row_for_each_object():
    given = {
        "ious": {"a": [0.5, 0.86, 0.91], "b": [0.1] * 4},
        "clicks": {"a": [[1, 2, 1], [3, 4, 0], [5, 6, 1]], "b": [[7, 8, 1]] * 4},
        "times": {"a": 0.25, "b": 1.0},
    }
    text = formats.per_image_csv(given, 0.9, 4)
    a, b = csv.DictReader(io.StringIO(text))
    assert (a["id"], a["clicks_85"], a["clicks_90"], a["seconds"]) == ("a", "2", "3", "0.250")
    assert [a[f"iou_{k}"] for k in range(1, 5)] == ["0.500000", "0.860000", "0.910000", ""]
    assert a["clicks"] == "1:2:+ 3:4:- 5:6:+"
    assert (b["clicks_85"], b["clicks_90"], b["iou_4"]) == ("", "", "0.100000")
    below = next(csv.DictReader(io.StringIO(formats.per_image_csv(given, 0.85, 4))))
    assert (below["clicks_85"], below["clicks_90"]) == ("2", "")
