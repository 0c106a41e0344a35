"""Comparisons of runs: what is read, what is refused, and paired differences against SciPy's."""

import csv
import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.stats
from absl import flags

from mis_jax import cli
from mis_jax.datasets.samples import Benchmark
from mis_jax.errors import InputError
from mis_jax.evaluation import compare, figures, metrics, results, tables
from mis_jax.evaluation.clicker import Round

OLD = {"target", "max_clicks", "miou", "miou_interval", "miou_exact", "clicks", "digests"}


def made(seed, ids=range(10), target=0.9, max_clicks=20, better=0.0):
    """A summary of made-up IoUs of these objects; another seed shares much of them."""
    records = []
    for k in ids:
        common, own = np.random.default_rng(k), np.random.default_rng([k, seed])
        ious = np.sort(
            np.clip(common.random(max_clicks) + 0.1 * own.random(max_clicks) + better, 0, 1)
        )
        done = next((i for i, v in enumerate(ious, 1) if v >= target), max_clicks)
        records.append({"id": f"o{k}", "digest": k, "ious": ious[:done].tolist()})
        records[-1] |= {"clicks": [[0, 0, 1]] * done, "seconds": 1.0}
    return metrics.summarize(records, Benchmark("x", None, {}, {}), target, max_clicks)


def write(folder, entries, target=0.9, max_clicks=20, **meta):
    """A folder as `mis-jax evaluate` leaves it."""
    folder.mkdir(parents=True)
    meta = {"predictor": "tree", "eval": {"target": target, "max_clicks": max_clicks}} | meta
    (folder / "results.json").write_text(json.dumps(entries | {"meta": meta}))
    return folder


def loaded(*folders, labels=()):
    return results.load_all([Path(f) for f in folders], labels)


# ---- reading


def test_old_and_new_results_are_read_alike(tmp_path):
    new = made(1)
    old = {k: v for k, v in new.items() if k not in OLD and not k.endswith("_interval")}
    old |= {"noc85": -1.0}  # IoUs count
    (a,) = results.load(write(tmp_path / "new", {"grabcut": new}))
    (b,) = results.load(write(tmp_path / "old", {"grabcut": old}))
    assert a.entries["grabcut"] == new
    numbers = metrics.numbers(list(new["ious"].values()), 0.9, 20)
    assert {k: b.entries["grabcut"][k] for k in numbers} == numbers
    assert b.entries["grabcut"]["spc"] == new["spc"]
    (c,) = results.load(tmp_path / "old" / "results.json")
    assert c == b
    bare = {"ious": new["ious"]}  # nothing else
    (d,) = results.load(write(tmp_path / "bare", {"grabcut": bare}))
    rows = dict(tables.details("x", d.entries))
    assert (rows["objects"], rows["s/click"]) == ("10", "-")


@pytest.mark.parametrize(
    "names", [("trained", "untrained"), ("trees", "fused", "shipped", "trained")]
)
def test_quickstart_compares_several_runs(tmp_path, names):
    config = {"eval": {"target": 0.9, "max_clicks": 20}}
    entries = {name: made(seed) for seed, name in enumerate(names)}
    text = json.dumps({**entries, "seconds": {}, "config": config})
    (tmp_path / "results.json").write_text(text)
    runs = results.load(tmp_path)
    assert [run.label for run in runs] == list(names)
    assert [run.entries for run in runs] == [{"scenes": entries[name]} for name in names]


def test_labels(tmp_path):
    first = write(tmp_path / "a", {"x": made(1)}, predictor="network", run="runs/large")
    second, third = (write(tmp_path / name, {"x": made(2)}) for name in "bc")
    labels = lambda *f, **k: [run.label for run in loaded(*f, **k)]  # noqa: E731
    assert labels(first, second) == ["network (large)", "tree"]
    assert labels(second, first, third) == [f"tree, {second}", "network (large)", f"tree, {third}"]
    assert labels(second, third, labels=["u", "v"]) == ["u", "v"]
    with pytest.raises(InputError, match="is given twice"):
        labels(second, second)
    for wrong in (["u"], ["u", "u"], ["u", "v", "w"], ["u", ""]):
        with pytest.raises(InputError, match=r"--labels=.*2 different names"):
            labels(second, third, labels=wrong)


META = {"eval": {"target": 0.9, "max_clicks": 20}}
IOUS = {"ious": {"a": [0.5]}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("\x80", "is damaged"),
        ("[1]", "not written by mis-jax evaluate"),
        ('{"a": 1}', "not written by mis-jax evaluate"),
        ({"x": IOUS}, "not written by mis-jax evaluate"),
        ({"x": IOUS, "meta": 3}, "not written by mis-jax evaluate"),
        ({"x": IOUS, "meta": {"eval": {"target": 0.9}}}, "no target and max_clicks"),
        ({"x": IOUS, "meta": {"eval": {"target": "high", "max_clicks": 20}}}, "no target"),
        ({"meta": META}, "has no dataset yet"),
        ({"x": {"ious": {}}, "meta": META}, "not written by mis-jax evaluate"),
        ({"x": [], "meta": META}, "not written by mis-jax evaluate"),
        ({"x": {"ious": {"a": []}}, "meta": META}, "x has no IoUs of a"),
        ({"x": {"ious": {"a": [0.5, 1.5]}}, "meta": META}, "x has no IoUs of a"),
        ({"x": {"ious": {"a": [float("nan")]}}, "meta": META}, "x has no IoUs of a"),
        ({"x": {"ious": {"a": ["0.5"]}}, "meta": META}, "x has no IoUs of a"),
        ({"x": {"ious": {"a": 0.5}}, "meta": META}, "x has no IoUs of a"),
    ],
)
def test_files_that_are_no_results_are_named(tmp_path, text, message):
    content = text if isinstance(text, str) else json.dumps(text)
    (tmp_path / "results.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=rf"results\.json.* {message}"):
        results.load(tmp_path)


def test_folders_that_are_not_there_are_named(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match=f"{path}.* does not exist"):
            results.load(path)


# ---- differences


def test_differences_are_paired():
    first, second = made(1, range(30)), made(2, range(5, 40), better=0.1)
    found = compare.difference(first, second)
    assert found["common"] == 25
    for percent, threshold in (("80", 0.8), ("85", 0.85), ("90", 0.9)):
        counts = []
        for entry in (first, second):
            ious = [entry["ious"][f"o{k}"] for k in range(5, 30)]
            counts.append(metrics.clicks_to(ious, threshold, 20))
        away = counts[1] - counts[0]
        mean, low, high = found[f"noc{percent}"]
        assert mean == pytest.approx(away.mean(), abs=1e-6)
        expected = scipy.stats.bootstrap(
            (away,), np.mean, method="percentile", rng=np.random.default_rng(3)
        ).confidence_interval
        width = expected.high - expected.low
        assert (low, high) == pytest.approx(tuple(expected), abs=0.05 * width)
    assert len(found["miou"]) == 20
    ious = [[e["ious"][f"o{k}"][0] for k in range(5, 30)] for e in (first, second)]
    assert found["miou"][0][0] == pytest.approx(np.mean(ious[1]) - np.mean(ious[0]), abs=1e-6)
    assert "noc95" not in found
    same = compare.difference(first, first)
    assert same["noc85"] == [0, 0, 0]


def test_differences_of_unlike_targets_and_objects():
    found = compare.difference(made(1, target=0.85), made(2, target=1.01))
    assert {"common", "noc80", "noc85"} == set(found)
    exact = compare.difference(made(1, target=1.01), made(2, target=1.5))
    assert {"noc95", "miou"} <= set(exact)
    assert compare.difference(made(1, range(3)), made(1, range(3, 6))) == {"common": 0}


def test_every_run_is_compared_with_the_first_that_has_the_dataset(tmp_path):
    runs = loaded(
        write(tmp_path / "a", {"x": made(1)}, predictor="a"),
        write(tmp_path / "b", {"x": made(2), "y": made(3)}, predictor="b"),
        write(tmp_path / "c", {"y": made(4, range(5, 15)), "z": made(5)}, predictor="c"),
    )
    found = compare.differences(runs)
    told = [(n, k, v["to"], v["common"]) for n, some in found.items() for k, v in some.items()]
    assert told == [("x", "b", "a", 10), ("y", "c", "b", 5)]
    text = compare.compare(runs)
    mean, low, high = found["x"]["b"]["noc85"]
    assert f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]" in text
    mean, low, high = (100 * v for v in found["x"]["b"]["miou"][4])
    assert re.search(rf"\| b  .*\| {re.escape(f'{mean:+.2f} [{low:+.2f}, {high:+.2f}]')} \|", text)
    assert "| x, minus a | objects |" in text


def test_nothing_in_common_is_said(tmp_path):
    a, b = write(tmp_path / "a", {"x": made(1)}), write(tmp_path / "b", {"y": made(2)})
    assert "No dataset is common to two runs" in compare.compare(loaded(a, b))
    assert "common" not in compare.compare(loaded(a))
    c = write(tmp_path / "c", {"x": made(1, range(20, 25))})
    text = compare.compare(loaded(a, c, labels=["a", "c"]))
    assert re.search(r"\| c +\| +0 \| +- \| +- \| +- \|", text)


def test_unlike_clicks_and_pixels_are_refused(tmp_path):
    a = write(tmp_path / "a", {"x": made(1)})
    b = write(tmp_path / "b", {"x": made(1, max_clicks=10)}, max_clicks=10, predictor="blocks")
    with pytest.raises(InputError, match="tree had up to 20 clicks an object, blocks 10"):
        compare.compare(loaded(a, b))
    other = made(1) | {"digests": made(1)["digests"] | {"o3": 99}}
    c = write(tmp_path / "c", {"x": other}, predictor="blocks")
    with pytest.raises(InputError, match="x: o3 has other pixels in tree than in blocks"):
        compare.compare(loaded(a, c))


# ---- what is written


def keep_stories(folder, ids, shape=(40, 60)):
    mask = np.zeros(shape, bool)
    mask[10:20, 10:30] = True
    for id in ids:
        rounds = [Round(15, 20, True, mask, 0.7)]
        image = np.full((*shape, 3), 99, np.uint8)
        figures.save_story(folder / "kept" / f"{id}.npz", image, np.int32(mask), rounds)


def test_everything_is_written(tmp_path):
    a = write(tmp_path / "a", {"grabcut": made(1) | {"stories": "kept"}})
    b = write(tmp_path / "b", {"grabcut": made(2) | {"stories": "kept"}}, predictor="blocks")
    c = write(tmp_path / "c", {"grabcut": made(3)}, predictor="third")
    keep_stories(a, ["o1", "o2", "o3"])
    keep_stories(b, ["o2", "o3", "o4"])
    output, runs = tmp_path / "out", loaded(a, b, c)
    text = compare.compare(runs, output, [1, 3])
    for _ in range(2):  # what a comparison wrote may be written again
        assert compare.compare(runs, output, [1, 3]) == text
    assert {p.name for p in output.iterdir()} == {
        "results.json", "results.md", "results.csv", "results.tex",
        "iou_per_click.png", "clicks_and_masks.png",
    }  # fmt: skip
    document = json.loads((output / "results.json").read_text())
    assert document["differences"] == compare.differences(runs)
    assert document["rows"] == tables.rows({r.label: r.entries for r in runs}, [1, 3])
    with (output / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 23 + 5 + 3
    markdown = (output / "results.md").read_text()
    for words in ("*Smoothness, Table 3*", "minus tree", "(iou_per_click.png)", "(clicks_and_"):
        assert words in markdown
    assert "blocks" in (output / "results.tex").read_text()
    grid = cv2.imread(str(output / "clicks_and_masks.png"))
    row = 40 + round(40 * 224 / 60) + 5
    assert grid.shape == (4 * row, 2 * 224 + 5, 3)  # o2 and o3, of two runs
    assert cv2.imread(str(output / "iou_per_click.png")).std() > 1


def test_without_stories_there_is_no_picture_of_clicks(tmp_path):
    a = write(tmp_path / "a", {"x": made(1) | {"stories": "kept"}})
    compare.compare(loaded(a), tmp_path / "out")
    assert not (tmp_path / "out" / "clicks_and_masks.png").exists()
    assert "clicks_and_masks" not in (tmp_path / "out" / "results.md").read_text()
    keep_stories(a, [f"o{k}" for k in range(10)])
    stories = compare._stories(loaded(a))
    assert list(stories["tree"]) == [f"o{k}" for k in range(0, 10, 2)]  # six at most, spread


def test_results_of_an_evaluation_are_not_overwritten(tmp_path):
    a = write(tmp_path / "a", {"x": made(1)})
    before = (a / "results.json").read_bytes()
    with pytest.raises(InputError, match="holds other results"):
        compare.compare(loaded(a), a)
    assert (a / "results.json").read_bytes() == before
    compare.compare(loaded(a), tmp_path / "out")
    with pytest.raises(InputError, match="not written by mis-jax evaluate"):
        results.load(tmp_path / "out")


# ---- the command


@pytest.fixture
def command(monkeypatch, capsys):
    """`mis-jax compare WORDS` -> exit status, what was printed, and what went wrong."""
    monkeypatch.setattr(cli.logging, "use_absl_handler", lambda: None)  # it outlives the test

    def run(*words):
        before = set(flags.FLAGS)
        monkeypatch.setattr(sys, "argv", ["mis-jax"])
        try:
            status = cli.command(["compare", *map(str, words)])
        finally:
            for name in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, name)
        return status, *capsys.readouterr()

    return run


def test_the_command(tmp_path, command):
    a, b = (write(tmp_path / n, {"grabcut": made(k)}) for k, n in enumerate("ab"))
    status, out, err = command(a, b, "--labels=one,two", f"--output={tmp_path / 'out'}")
    assert (status, err) == (0, "")
    assert "| grabcut, minus one |" in out
    assert "GraphCut, ICCV01" in out
    assert f"Written to {tmp_path / 'out'}" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "usage: mis-jax compare RESULTS"),
        (["{0}", "--paper=1,7"], "--paper=1,7: the paper has the tables 1, 2, 3, 4, 5"),
        (["{0}", "--labels=a,b"], "give 1 different names"),
        (["{0}/none"], "none does not exist"),
    ],
)
def test_wrong_words_end_the_command(tmp_path, command, words, message):
    folder = write(tmp_path / "a", {"x": made(1)})
    status, _, err = command(*(word.format(folder) for word in words))
    assert status == 2
    assert message in err
