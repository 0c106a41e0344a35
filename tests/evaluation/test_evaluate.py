"""Evaluation as a whole: what is written, what is kept, what is resumed; the command."""

import contextlib
import csv
import json
import shutil
import types

import cv2
import numpy as np
import pytest
import small_evidence
from click_scenes import SIZE, colour_network, oracle_rounds, scene
from ml_collections import ConfigDict

from mis_jax.datasets.benchmarks import open_benchmark
from mis_jax.datasets.samples import Benchmark, Labelled
from mis_jax.errors import InputError
from mis_jax.evaluation import clicker, clicking, evaluate, figures, metrics
from mis_jax.features import descriptor
from mis_jax.models import loading
from mis_jax.predictors.fused import FusedPredictor
from mis_jax.predictors.merge_trees import TreePredictor
from mis_jax.predictors.network import Predictor, mirrored

SETTINGS = {
    "size": SIZE,
    "davis_size": 64,
    "max_clicks": 6,
    "target": 0.90,
    "threshold": 0.5,
    "flip": True,
    "random": 0,
}
IDENTITY = {"run": "runs/x", "predictor": "network", "parameters": "abc"}


# ---- what is written


class Colours(Predictor):
    """The test's predictor; counts the objects it was given, and can be killed after some."""

    def __init__(self, size, killed_after=10**9):
        super().__init__(mirrored(colour_network), size)
        self.objects, self.killed_after = 0, killed_after

    def set_image(self, image):
        if self.objects > self.killed_after:  # the first one is the warm-up
            raise KeyboardInterrupt
        self.objects += 1
        super().set_image(image)


def subject(predictor=None, settings=None, batched=False, **identity):
    """What is evaluated: a predictor that all objects share, or the network in batches."""

    def open_predictor(size, at_once):
        if batched:
            network = mirrored(colour_network)
            return clicking.batched_predictors(network, size, SETTINGS, at_once)
        shared = predictor or Colours(size)
        return lambda: contextlib.nullcontext(shared)

    return clicking.Subject(open_predictor, SETTINGS | (settings or {}), IDENTITY | identity)


def small_scene(seed):
    return scene(seed, 60, 90)


def write_set(folder, seeds=range(3)):
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for seed in seeds:
        image, truth = small_scene(seed)
        cv2.imwrite(str(folder / "images" / f"s{seed}.png"), image[:, :, ::-1])
        values = np.choose(truth + 1, [128, 0, 255]).astype(np.uint8)
        cv2.imwrite(str(folder / "masks" / f"s{seed}.png"), values)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_set(tmp_path_factory.mktemp("set"))
    cv2.imwrite(str(folder / "images" / "bare.png"), np.zeros((30, 30, 3), np.uint8))
    return folder


def evaluated(folder, output, shard=(0, 1), at_once=1, **kwargs):
    """The entry of results.json of a folder, None if there is none yet."""
    opened = [open_benchmark("mine", folder)]
    evaluate.run(subject(**kwargs), opened, output, at_once=at_once, shard=shard)
    file = output / "results.json"
    return json.loads(file.read_text())["mine"] if file.exists() else None


def test_everything_is_written(folder, tmp_path):
    opened = [open_benchmark("mine", folder), open_benchmark("berkeley", folder)]
    text = evaluate.run(subject(), opened, tmp_path, pictures=2)
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results) == {"mine", "berkeley", "meta"}
    assert results["meta"]["parameters"] == "abc"
    assert results["meta"]["eval"] == SETTINGS
    assert {"device", "versions", "run"} <= set(results["meta"])
    mine = results["mine"]
    image, truth = small_scene(1)
    _, _, ious = oracle_rounds(image, truth, 0.9, 6)
    np.testing.assert_allclose(mine["ious"]["s1"], ious, rtol=1e-6)
    rows = list(mine["ious"].values())
    for percent, target in ((80, 0.8), (85, 0.85), (90, 0.9)):
        assert mine[f"noc{percent}"] == metrics.noc(rows, target, 6)
        assert mine[f"nof{percent}"] == metrics.nof(rows, target, 6)
    assert (mine["n"], mine["expected"], mine["skipped"]) == (
        3,
        4,
        {"bare.png": "no mask of this name"},
    )
    assert results["berkeley"]["expected"] == 100
    assert mine["seconds"] > 0
    assert mine["spc"] == pytest.approx(mine["seconds"] / sum(map(len, rows)))
    assert text.startswith((tmp_path / "results.md").read_text().partition("\n!")[0].strip())
    assert f"{mine['noc85']:.2f}" in text
    assert "3 of 100" in text
    assert "1 image without a mask (bare.png)" in text
    check_csv(tmp_path / "mine.csv", mine["ious"])
    for name in ("iou_per_click.png", "clicks_and_masks.png"):
        assert cv2.imread(str(tmp_path / name)).std() > 1
        assert name in (tmp_path / "results.md").read_text()
    kept = sorted(p.name for p in (tmp_path / mine["stories"]).glob("*"))
    assert kept == ["s0.npz", "s1.npz"]
    story = figures.load_story(tmp_path / mine["stories"] / "s1.npz")
    assert [r.iou for r in story.rounds] == ious
    assert not list(tmp_path.rglob("*.partial"))


def check_csv(path, ious):
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [r["id"] for r in rows] == list(ious)
    for r in rows:
        written = [float(r[f"iou_{k}"]) for k in range(1, 7) if r[f"iou_{k}"]]
        np.testing.assert_allclose(written, ious[r["id"]], atol=1e-6)
        assert len(r["clicks"].split()) == len(written)
        reached = [k for k, v in enumerate(ious[r["id"]], 1) if v >= np.float32(0.85)]
        assert r["clicks_85"] == (str(reached[0]) if reached else "")


def test_a_killed_evaluation_goes_on_with_the_next_object(folder, tmp_path):
    whole = evaluated(folder, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        evaluated(folder, tmp_path / "cut", predictor=Colours(SIZE, killed_after=2))
    assert not (tmp_path / "cut" / "results.json").exists()
    (journal,) = (tmp_path / "cut" / "objects").glob("mine-*/clicks.jsonl")
    assert len(journal.read_text().splitlines()) == 2
    with journal.open("a") as file:
        file.write('{"id": "s2", "digest": 12')  # killed in the middle of a line
    predictor = Colours(SIZE)
    cut = evaluated(folder, tmp_path / "cut", predictor=predictor)
    assert predictor.objects == 2  # a warm-up and the third object
    assert whole["ious"] == cut["ious"]
    predictor = Colours(SIZE)
    evaluated(folder, tmp_path / "cut", predictor=predictor)
    assert predictor.objects == 0


def test_finished_objects_count_only_for_the_same_network_settings_and_pixels(tmp_path):
    folder = write_set(tmp_path / "set", seeds=(0, 1))

    def objects(**kwargs):
        predictor = Colours(SIZE)
        assert evaluated(folder, tmp_path / "out", predictor=predictor, **kwargs)["n"] == 2
        return predictor.objects

    assert objects() == 3
    assert objects(run="the same, moved") == 0
    assert objects(parameters="others") == 3
    assert objects(settings={"threshold": 0.4}) == 3
    mask = cv2.imread(str(folder / "masks" / "s1.png"), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(folder / "masks" / "s1.png"), np.roll(mask, 3, 0))
    assert objects() == 2


@pytest.mark.parametrize("at_once", [2, 5, 16])
def test_objects_in_flight_get_the_digits_they_get_alone(folder, tmp_path, at_once):
    alone = evaluated(folder, tmp_path / "alone")
    together = evaluated(folder, tmp_path / "together", batched=True, at_once=at_once)
    for key in ("ious", "clicks", "digests"):
        assert together[key] == alone[key]
        assert list(together[key]) == list(alone[key])
    assert together["noc90_interval"] == alone["noc90_interval"]


def test_processes_share_the_objects_and_the_last_one_writes(folder, tmp_path):
    whole = evaluated(folder, tmp_path / "whole", settings={"random": 1})
    predictors = [Colours(SIZE), Colours(SIZE)]
    for k, predictor in enumerate(predictors):
        parts = evaluated(
            folder, tmp_path / "parts", (k, 2), predictor=predictor, settings={"random": 1}
        )
        assert (parts is None) == (k == 0)
    assert [p.objects for p in predictors] == [1 + 2 * 2, 1 + 2 * 1]
    for key in ("ious", "clicks", "random", "skipped", "n"):
        assert parts[key] == whole[key]


def test_random_clickers_are_further_rounds(folder, tmp_path):
    standard = evaluated(folder, tmp_path)
    predictor = Colours(SIZE)
    entry = evaluated(folder, tmp_path, predictor=predictor, settings={"random": 2})
    assert predictor.objects == 1 + 2 * 3  # the standard clicks are not made again
    assert entry["ious"] == standard["ious"]
    assert entry["random"]["seeds"] == len(entry["random"]["noc85"]) == 2
    lines = [p.read_text() for p in sorted((tmp_path / "objects").glob("mine-*/random*.jsonl"))]
    clicks = [{r["id"]: r["clicks"] for r in map(json.loads, s.splitlines())} for s in lines]
    assert clicks[0] != clicks[1]
    firsts = {(c["s1"][0][0], c["s1"][0][1]) for c in [*clicks, standard["clicks"]]}
    assert len(firsts) == 3


def test_what_cannot_be_used_is_counted(tmp_path):
    folder = write_set(tmp_path / "set")
    cv2.imwrite(str(folder / "masks" / "s1.png"), np.zeros((9, 9), np.uint8))
    (folder / "images" / "s2.png").write_bytes(b"no picture")
    entry = evaluated(folder, tmp_path / "out")
    assert (entry["n"], entry["expected"]) == (1, 3)
    assert entry["skipped"].keys() == {"s1", "s2"}
    text = (tmp_path / "out" / "results.md").read_text()
    assert "2 left out: " in text
    assert "1 of 3" in text


def test_a_finished_benchmark_is_kept_when_the_next_one_fails(folder, tmp_path):
    class Broken(Colours):
        def click(self, *args, **kwargs):
            raise KeyboardInterrupt

    def open_predictor(size, at_once):
        predictor = (Broken if size == SETTINGS["davis_size"] else Colours)(size)
        return lambda: contextlib.nullcontext(predictor)

    pair = {"s0": lambda: Labelled(*small_scene(0))}
    opened = [open_benchmark("mine", folder), Benchmark("DAVIS", 345, pair, {})]
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(clicking.Subject(open_predictor, SETTINGS, IDENTITY), opened, tmp_path)
    assert set(json.loads((tmp_path / "results.json").read_text())) == {"mine", "meta"}


def test_nothing_usable_is_an_error(tmp_path):
    def unreadable():
        raise InputError("the mask a.png cannot be read")

    benchmark = Benchmark("mine", None, {"a": unreadable}, {})
    with pytest.raises(InputError, match=r"mine: no object can be used; a: the mask a\.png"):
        evaluate.run(subject(), [benchmark], tmp_path)


# ---- the command


def flag_values(monkeypatch, present=False, overrides=None, **values):
    config = ConfigDict({"eval": SETTINGS | {"size": 99}, "images": {"range": (), "bands": ()}})
    flag = types.SimpleNamespace(present=present, override_values=overrides or {})
    table = {"config": flag}

    class Flags:
        def __getitem__(self, name):
            return table[name]

    fake = Flags()
    for key, value in {"config": config, "masks": [], **values}.items():
        setattr(fake, key, value)
    monkeypatch.setattr(evaluate.flags, "FLAGS", fake)


def test_settings_come_from_the_run_a_config_given_and_overrides(monkeypatch):
    run = ConfigDict({"eval": SETTINGS})
    flag_values(monkeypatch)
    assert evaluate._settings(run) == SETTINGS
    flag_values(monkeypatch, overrides={"eval.target": 0.8})
    assert evaluate._settings(run) == SETTINGS | {"target": 0.8}
    flag_values(monkeypatch, present=True, overrides={"eval.target": 0.8})
    assert evaluate._settings(run) == SETTINGS | {"target": 0.8, "size": 99}
    flag_values(monkeypatch, overrides={"model.variant": "L"})
    with pytest.raises(InputError, match=r"model\.variant"):
        evaluate._settings(run)


@pytest.mark.parametrize(
    "pairs", [[], ["mine="], ["=x"], ["a/b=x"], ["meta=x"], ["mine={0}", "mine={0}"]]
)
def test_datasets_that_are_no_pairs(folder, pairs):
    with pytest.raises(InputError, match="--datasets"):
        evaluate.open_datasets([p.format(folder) for p in pairs])


@pytest.mark.parametrize(
    ("predictor", "output", "words", "message"),
    [
        ("network", "out", [], "mis-jax evaluate RUN"),
        (None, "out", ["runs/x", "runs/y"], "one run or weights file"),
        (None, "out", ["runs/x"], "runs/x holds no config.json"),
        (None, "", [], "--output is needed.* --predictor shipped .* --output FOLDER"),
        (None, "", ["shipped"], "--output is needed.* --predictor shipped .* --output FOLDER"),
        ("network", "", ["shipped"], "--output is needed.* --predictor shipped"),
        ("shipped", "out", ["runs/x"], "shipped takes no run; leave out runs/x, or the flag"),
        ("tree", "out", ["shipped"], "tree takes no run; leave out shipped"),
        ("fused", "out", ["runs/x"], "fused takes no run; leave out runs/x, or the flag"),
        ("tree", "out", ["runs/x"], "tree takes no run"),
        ("tree-blocks", "", [], "--predictor tree-blocks .* --output FOLDER"),
    ],
)
def test_a_network_needs_a_run_and_what_needs_none_a_folder_alone(
    folder, monkeypatch, predictor, output, words, message
):
    flag_values(
        monkeypatch,
        predictor=predictor,
        output=output,
        datasets=[f"mine={folder}"],
        shard=None,
        at_once=0,
    )
    with pytest.raises(InputError, match=message):
        evaluate.main(["mis-jax evaluate", *words])


@pytest.mark.parametrize("predictor", ["tree", "shipped"])
def test_settings_of_the_network_are_not_those_of_a_tree(folder, monkeypatch, predictor):
    flag_values(
        monkeypatch,
        predictor=predictor,
        output="out",
        datasets=[f"mine={folder}"],
        shard=None,
        at_once=0,
        overrides={"eval.flip": False},
    )
    with pytest.raises(InputError, match=rf"eval\.flip has no effect on --predictor {predictor}"):
        evaluate.main(["mis-jax evaluate"])


@pytest.mark.parametrize(
    ("flag", "words", "name", "make"),
    [
        (None, [], "shipped", Predictor),
        (None, ["shipped"], "shipped", Predictor),
        ("shipped", [], "shipped", Predictor),
        ("fused", [], "fused", FusedPredictor),
        ("tree", [], "tree", TreePredictor),
        ("tree-blocks", [], "tree-blocks", lambda: TreePredictor(snapping=False)),
    ],
)
def test_images_are_evaluated_without_a_run(
    folder, tmp_path, monkeypatch, capsys, flag, words, name, make
):
    flag_values(
        monkeypatch,
        predictor=flag,
        output=str(tmp_path),
        datasets=[f"mine={folder}"],
        pictures=1,
        shard=None,
        at_once=0,
        overrides={"eval.max_clicks": 3},
    )
    evaluate.main(["mis-jax evaluate", *words])
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["meta"]["eval"] == {"max_clicks": 3, "target": 0.9, "random": 0}
    assert results["meta"]["predictor"] == name
    assert bool(results["meta"]["snap_side"]) == (name != "tree-blocks")
    assert results["meta"]["descriptor"] == descriptor.NAME
    assert "run" not in results["meta"]
    assert str(folder) not in (tmp_path / "results.json").read_text()
    sample = next(s for s in open_benchmark("mine", folder) if s.id == "s2")
    rounds = clicker.rounds(make(), sample, 0.9, 3)
    np.testing.assert_allclose(results["mine"]["ious"]["s2"], [r.iou for r in rounds], rtol=1e-6)
    assert f"| {name} " in capsys.readouterr().out


@pytest.fixture(scope="module")
def evidence_file(tmp_path_factory):
    """A file of an evidence network whose correction is not zero."""
    file = tmp_path_factory.mktemp("evidence") / "mine.safetensors"
    return small_evidence.write_file(file)


def test_an_evidence_network_is_evaluated_as_any_run(folder, tmp_path, monkeypatch, evidence_file):
    """With the same digits however many objects are in flight."""
    config, params = loading.load(evidence_file)
    found = []
    for at_once in (1, 3):
        flag_values(
            monkeypatch,
            predictor=None,
            output=str(tmp_path / str(at_once)),
            datasets=[f"mine={folder}"],
            pictures=0,
            shard=None,
            at_once=at_once,
            overrides={"eval.max_clicks": 3},
        )
        evaluate.main(["mis-jax evaluate", str(evidence_file)])
        found.append(json.loads((tmp_path / str(at_once) / "results.json").read_text()))
    assert found[0]["mine"]["ious"] == found[1]["mine"]["ious"]
    assert found[0]["mine"]["clicks"] == found[1]["mine"]["clicks"]
    meta = found[0]["meta"]
    assert meta["eval"] == {"max_clicks": 3, "target": 0.95, "random": 0}
    assert (meta["predictor"], meta["run"]) == ("network", str(evidence_file))
    assert meta["model"] == config.model.to_dict()
    assert meta["parameters"] == loading.digest(params)
    sample = next(s for s in open_benchmark("mine", folder) if s.id == "s2")
    rounds = clicker.rounds(Predictor.load(evidence_file), sample, 0.95, 3)
    np.testing.assert_allclose(found[0]["mine"]["ious"]["s2"], [r.iou for r in rounds], rtol=1e-6)


def test_other_parameters_are_another_subject(tmp_path, monkeypatch, evidence_file):
    flag_values(monkeypatch)
    other = small_evidence.write_file(tmp_path / "mine.safetensors", seed=1)
    prints = [evaluate._network([str(f)], 1)[0].fingerprint for f in (evidence_file, other)]
    assert prints[0] != prints[1]
    (tmp_path / "copy").mkdir()
    copy = shutil.copy(other, tmp_path / "copy")
    assert evaluate._network([str(copy)], 1)[0].fingerprint == prints[1]
    assert evaluate._network([str(copy)], 1)[1] == tmp_path / "copy/mine.safetensors-eval"


@pytest.mark.parametrize("field", ["size", "davis_size", "flip", "threshold"])
def test_zoom_in_has_no_effect_on_an_evidence_network(monkeypatch, evidence_file, field):
    flag_values(monkeypatch, overrides={f"eval.{field}": 1})
    with pytest.raises(InputError, match=rf"eval\.{field} has no effect on the evidence network"):
        evaluate._network([str(evidence_file)], 1)
