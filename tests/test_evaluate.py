"""The click protocol against a literal transcription of it, the metrics, and what is written."""

import csv
import itertools
import json
import types

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from ml_collections import ConfigDict
from scipy import ndimage

from mis_jax import clicker, descriptor, evaluate, figures, metrics, tables
from mis_jax.benchmarks import Benchmark, Sample, open_benchmark
from mis_jax.errors import InputError
from mis_jax.predictor import Predictor, mirrored
from mis_jax.tree_predictor import TreePredictor

SIZE = 48
SETTINGS = {
    "size": SIZE,
    "davis_size": 64,
    "max_clicks": 6,
    "target": 0.90,
    "threshold": 0.5,
    "flip": True,
}
IDENTITY = {"run": "runs/x", "predictor": "network", "parameters": "abc"}


# ---- a network, and the protocol written out again


def colour_network(image, previous, points):
    """Logits from likeness to the clicked colours; not symmetric, and pulled to the last mask."""
    side = image.shape[1]
    grid = np.stack(np.mgrid[:side, :side], -1).astype(np.float64)
    logits = []
    for picture, prev, rows in zip(image, previous, points, strict=True):
        support = []
        for half in np.split(np.asarray(rows, np.float64), 2):
            best = np.zeros((side, side))
            for y, x, _ in half[half[:, 2] >= 0]:
                row, col = (int(np.clip(round(v), 0, side - 1)) for v in (y, x))
                unlike = ((picture - picture[row, col]) ** 2).sum(-1).astype(np.float64)
                far = ((grid - (y, x)) ** 2).sum(-1)
                likeness = np.exp(-unlike / 0.1 - far / (0.5 * side) ** 2) + np.exp(-far / 12)
                best = np.maximum(best, likeness)
            support.append(best)
        slope = 0.4 * grid[..., 1] / side
        logits.append(6 * support[0] - 7 * support[1] + 1.5 * prev - 2.2 + slope)
    return np.stack(logits)


def oracle_resize(x, height, width):
    """Four weighted neighbours in float32, fused as in PyTorch's CPU kernel."""

    def between(p, q, weight):
        exact = (1 - weight).astype(np.float64) * p + (weight * q)
        return exact.astype(np.float32)  # rounded once

    taps = []
    for n, out in zip(x.shape, (height, width), strict=False):
        at = (np.float32(n - 1) / np.float32(out - 1)) * np.arange(out, dtype=np.float32)
        first = np.floor(at).astype(int)
        taps.append((first, first + (first < n - 1), at - first.astype(np.float32)))
    (r0, r1, u), (c0, c1, v) = taps
    u, v = u.reshape(-1, 1), v.reshape(1, -1)
    if x.ndim == 3:
        u, v = u[..., None], v[..., None]
    a, b, c, d = (x[np.ix_(r, q)] for r in (r0, r1) for q in (c0, c1))
    return between(between(a, b, v), between(c, d, v), u)


def oracle_candidate(probs, clicks):
    height, width = probs.shape
    seen = probs > 0.5
    if not seen.sum():
        return 0, height - 1, 0, width - 1
    for row, col, positive in clicks:
        if positive:
            seen[int(row), int(col)] = True
    box = []
    for axis, side in ((1, height), (0, width)):
        hit = np.where(seen.any(axis))[0]
        centre = 0.5 * (hit[0] + hit[-1])
        extent = max(1.4 * (hit[-1] - hit[0] + 1), 200)
        first, last = round(centre - 0.5 * extent), round(centre + 0.5 * extent)
        box += [max(0, first), min(side - 1, last)]
    return tuple(box)


def oracle_overlap(a, b):
    product = 1.0
    for k in (0, 2):
        inner = max(0, min(a[k + 1], b[k + 1]) - max(a[k], b[k]) + 1)
        product *= inner / max(1e-6, max(a[k + 1], b[k + 1]) - min(a[k], b[k]) + 1)
    return product


class OraclePredictor:
    """ZoomIn, flip and previous mask, one state variable for each of the published code."""

    def __init__(self, image):
        self.image = image.astype(np.float32) / 255
        self.roi = self.probs = None
        self.previous = np.zeros(image.shape[:2], np.float32)

    def answer(self, clicks):
        height, width = self.previous.shape
        candidate = (0, height - 1, 0, width - 1)
        if self.probs is not None:
            candidate = oracle_candidate(self.probs, clicks)
        outside = self.roi is not None and any(
            p and (y < self.roi[0] or y >= self.roi[1] or x < self.roi[2] or x >= self.roi[3])
            for y, x, p in clicks
        )
        if self.roi is None or outside or oracle_overlap(candidate, self.roi) < 0.5:
            self.roi = candidate
        r0, r1, c0, c1 = self.roi
        stack = np.dstack([self.image, self.previous])[r0 : r1 + 1, c0 : c1 + 1]
        x = oracle_resize(stack, SIZE, SIZE)
        kinds = {True: [], False: []}
        for order, (row, col, positive) in enumerate(clicks):
            y = SIZE * (row - r0) / (r1 - r0 + 1)
            kinds[positive].append((y, SIZE * (col - c0) / (c1 - c0 + 1), order))
        n = max(1, *map(len, kinds.values()))
        points = np.array([p for k in (True, False) for p in (kinds[k] + [(-1, -1, -1)] * n)[:n]])
        flipped = np.array([(y, SIZE - c - 1 if o >= 0 else -1, o) for y, c, o in points])
        batch = np.stack([x, x[:, ::-1]])
        logits = colour_network(
            batch[..., :3], batch[..., 3], np.stack([points, flipped]).astype(np.float32)
        )
        logits = logits.astype(np.float32)
        mean = 0.5 * (logits[0] + logits[1][:, ::-1]).astype(np.float64)
        probs = (1 / (1 + np.exp(-mean))).astype(np.float32)
        inner = oracle_resize(probs, r1 - r0 + 1, c1 - c0 + 1)
        result = inner
        if self.probs is not None:
            result = np.zeros((height, width), np.float32)
            result[r0 : r1 + 1, c0 : c1 + 1] = inner
        self.probs = self.previous = result
        return result


def oracle_click(truth, pred, free):
    fn = np.logical_and(np.logical_and(truth == 1, ~pred), truth != -1)
    fp = np.logical_and(np.logical_and(truth != 1, pred), truth != -1)
    depth = []
    for region in (fn, fp):
        exact = np.rint(ndimage.distance_transform_edt(np.pad(region, 1)) ** 2)
        depth.append(np.sqrt(exact.astype(np.float32))[1:-1, 1:-1] * free)
    positive = depth[0].max() > depth[1].max()
    chosen = depth[0] if positive else depth[1]
    rows, cols = np.where(chosen == chosen.max())
    return rows[0], cols[0], bool(positive)


def oracle_rounds(image, truth, target, max_clicks):
    predictor, free = OraclePredictor(image), np.ones(truth.shape, bool)
    pred, clicks, rois, ious = np.zeros(truth.shape, bool), [], [], []
    for _ in range(max_clicks):
        click = oracle_click(truth, pred, free)
        free[click[:2]] = False
        clicks.append(click)
        pred = predictor.answer(clicks) > 0.5
        rois.append(predictor.roi)
        counted = truth != -1
        inter = np.sum(pred & (truth == 1) & counted)
        ious.append(inter / np.sum((pred | (truth == 1)) & counted))
        if ious[-1] >= target:
            break
    return clicks, rois, ious


def scene(seed, smallest=280, largest=460):
    """An image with a target of one to four pieces, some at the border, and a ring not counted."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(smallest, largest, 2)
    grid = np.mgrid[:height, :width].astype(np.float64)
    target = np.zeros((height, width), bool)
    anchor = rng.uniform(0, 1, 2) * (height, width)
    for _ in range(rng.integers(1, 5)):
        centre = anchor + rng.uniform(-80, 80, 2)
        radii = rng.uniform(14, 45, 2)
        target |= (((grid - centre[:, None, None]) / radii[:, None, None]) ** 2).sum(0) < 1
    if seed % 3 == 0:
        target[-25:, 5:30] = True
    noise = ndimage.gaussian_filter(rng.normal(0, 400, (height, width, 3)), (4, 4, 0))
    image = rng.uniform(60, 200, 3) + noise
    image[target] += rng.choice([-45, 45], 3)
    truth = target.astype(np.int32)
    if seed % 2:
        ring = ndimage.binary_dilation(target, iterations=4) & ~ndimage.binary_erosion(target)
        truth[ring] = -1
    return np.clip(image, 0, 255).astype(np.uint8), truth


def test_protocol_equals_the_transcription():
    moves = 0
    for seed in range(10):
        image, truth = scene(seed)
        clicks, rois, ious = oracle_rounds(image, truth, 0.97, 10)
        predictor, seen = Predictor(mirrored(colour_network), SIZE), []
        done = []
        for r in clicker.rounds(predictor, Sample("", image, truth), 0.97, 10):
            done.append(r)
            seen.append(predictor.roi)
        assert [(r.row, r.col, r.positive) for r in done] == clicks
        assert seen == rois
        assert [r.iou for r in done] == ious
        moves += sum(a != b for a, b in itertools.pairwise(rois))
    assert moves >= 10  # the crops did move


# ---- clicks and metrics


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_next_click_equals_the_full_image_transform(data):
    shape = data.draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    truth = data.draw(arrays.arrays(np.int32, shape, elements=st.sampled_from([1, 1, 1, 0, -1])))
    mask = data.draw(arrays.arrays(bool, shape))
    if data.draw(st.booleans()):
        mask[:] = False
    free = ~data.draw(arrays.arrays(bool, shape)) | data.draw(st.booleans())
    clicked = [tuple(p) for p in np.argwhere(~free).tolist()]
    assert clicker.next_click(truth, mask, clicked) == oracle_click(truth, mask, free)


def test_first_of_equally_deep_pixels_is_clicked_and_ties_are_negative():
    truth = np.zeros((40, 60), np.int32)
    truth[20:31, 30:41] = truth[5:16, 40:51] = truth[5:16, 10:21] = 1
    mask = np.zeros((40, 60), bool)
    assert clicker.next_click(truth, mask, []) == (10, 15, True)
    assert clicker.next_click(truth, mask, [(10, 15)]) == (10, 45, True)
    mask[26:37, 0:11] = True
    assert clicker.next_click(truth, mask, []) == (31, 5, False)
    assert clicker.next_click(truth, truth == 1, [(0, 0)]) == (0, 0, False)


def test_rounding_of_the_distance_transform_decides_no_tie(monkeypatch):
    rng = np.random.default_rng(0)
    transform = cv2.distanceTransform

    def rounded(*args):  # OpenCV's other code paths are off by this much
        distance = transform(*args)
        return distance * (1 + rng.uniform(-1e-7, 1e-7, distance.shape)).astype(np.float32)

    monkeypatch.setattr(evaluate.cv2, "distanceTransform", rounded)
    for _ in range(5):
        blob = ndimage.gaussian_filter(rng.normal(size=(60, 60)), 5) > 0
        truth = np.tile(np.pad(blob, 1), (4, 5)).astype(np.int32)  # twenty times the same depth
        empty = np.zeros(truth.shape, bool)
        expected = oracle_click(truth, empty, np.ones(truth.shape, bool))
        assert clicker.next_click(truth, empty, []) == expected


def test_iou_leaves_out_what_does_not_count():
    truth = np.array([[1, 1, 1, 0, 0, -1]], np.int32)
    assert clicker.iou(truth, np.array([[1, 1, 0, 1, 0, 1]], bool)) == 2 / 4
    assert clicker.iou(truth, np.zeros((1, 6), bool)) == 0
    assert clicker.iou(np.zeros((1, 2), np.int32), np.zeros((1, 2), bool)) == 1


def test_noc_of_the_published_code():
    ious = [[0.5, 0.86, 0.91], [0.95], [0.1] * 18 + [0.82, 0.84]]
    for target, mean, failures in ((0.80, 7.3333, 0), (0.85, 7.6667, 1), (0.90, 8.0, 1)):
        assert metrics.noc(ious, target) == pytest.approx(mean, abs=1e-4)
        assert metrics.nof(ious, target) == failures
    assert metrics.noc([[0.1] * 19 + [0.95]]) == 20
    assert metrics.nof([[0.1] * 19 + [0.95]]) == 1  # as there: solved by the very last click
    assert metrics.noc([[0.1, 0.2, 0.3, 0.95]], max_clicks=3) == 3


def test_thresholds_are_compared_in_float32():
    just_below = float(np.nextafter(np.float64(0.9), 0))
    assert metrics.noc([[just_below, 0.99]], 0.90) == 1
    assert metrics.noc([[0.8999999, 0.99]], 0.90) == 2


# ---- what is written


class Colours(Predictor):
    """The test's predictor; counts the objects it was given, and can be killed after some."""

    killed_after = 10**9

    def __init__(self, size):
        super().__init__(mirrored(colour_network), size)
        self.objects = 0

    def set_image(self, image):
        if self.objects > self.killed_after:  # the first one is the warm-up
            raise KeyboardInterrupt
        self.objects += 1
        super().set_image(image)


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


def evaluated(folder, output, make=Colours, names=("mine",), **kwargs):
    opened = [open_benchmark(name, folder) for name in names]
    settings = SETTINGS | kwargs.pop("settings", {})
    return evaluate.run(make, opened, output, settings, IDENTITY | kwargs, kwargs.get("n", 0))


def test_everything_is_written(folder, tmp_path):
    opened = [open_benchmark("mine", folder), open_benchmark("berkeley", folder)]
    text = evaluate.run(Colours, opened, tmp_path, SETTINGS, IDENTITY, pictures=2)
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
    check_table(text, mine, (tmp_path / "results.md").read_text())
    check_csv(tmp_path / "mine.csv", mine["ious"])
    assert cv2.imread(str(tmp_path / "iou_per_click.png")).std() > 1
    assert len(list((tmp_path / "pictures").glob("mine-*/s[01].png"))) == 2
    assert len(list((tmp_path / "pictures").glob("mine-*/*"))) == 2
    assert not list(tmp_path.rglob("*.partial"))


def check_table(text, mine, markdown):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1  # columns line up
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    assert cells[0][3:7] == ["NoC@85", "NoC@90", ">=6@85", ">=6@90"]
    assert cells[2][:5] == ["mine", "network (x)", "3 of 4", f"{mine['noc85']:.2f}",
                            f"{mine['noc90']:.2f}"]  # fmt: skip
    assert cells[3][2] == "3 of 100"
    assert cells[4][:5] == ["berkeley", "MIS (the paper's)", "100", "3.09", "4.58"]
    assert cells[5][:5] == ["berkeley", "GraphCut (the paper's)", "100", "-", "14.22"]
    assert "mine leaves out bare.png: no mask" in text
    assert lines == [line for line in markdown.splitlines() if line.startswith("|")]


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


def made(killed_after=10**9):
    """A maker of predictors, and the predictors that it made."""
    predictors = []

    def make(size):
        predictors.append(Colours(size))
        predictors[-1].killed_after = killed_after
        return predictors[-1]

    return make, predictors


def test_a_killed_evaluation_goes_on_with_the_next_object(folder, tmp_path):
    evaluated(folder, tmp_path / "whole")
    make, _ = made(killed_after=2)
    with pytest.raises(KeyboardInterrupt):
        evaluated(folder, tmp_path / "cut", make)
    assert not (tmp_path / "cut" / "results.json").exists()
    (journal,) = (tmp_path / "cut" / "objects").glob("mine-*.jsonl")
    assert len(journal.read_text().splitlines()) == 2
    with journal.open("a") as file:
        file.write('{"id": "s2", "digest": 12')  # killed in the middle of a line
    make, predictors = made()
    evaluated(folder, tmp_path / "cut", make)
    assert predictors[0].objects == 2  # a warm-up and the third object
    whole, cut = (
        json.loads((tmp_path / n / "results.json").read_text())["mine"] for n in ("whole", "cut")
    )
    assert whole["ious"] == cut["ious"]
    make, predictors = made()
    evaluated(folder, tmp_path / "cut", make)
    assert predictors[0].objects == 0


def test_finished_objects_count_only_for_the_same_network_settings_and_pixels(tmp_path):
    folder = write_set(tmp_path / "set", seeds=(0, 1))

    def objects(**kwargs):
        make, predictors = made()
        evaluated(folder, tmp_path / "out", make, **kwargs)
        return predictors[0].objects

    assert objects() == 3
    assert objects(run="the same, moved") == 0
    assert objects(parameters="others") == 3
    assert objects(settings={"threshold": 0.4}) == 3
    mask = cv2.imread(str(folder / "masks" / "s1.png"), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(folder / "masks" / "s1.png"), np.roll(mask, 3, 0))
    assert objects() == 2
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["mine"]["n"] == 2


def test_a_finished_benchmark_is_kept_when_the_next_one_fails(folder, tmp_path):
    class Broken(Colours):
        def click(self, *args, **kwargs):
            if self.size == SETTINGS["davis_size"]:
                raise KeyboardInterrupt
            return super().click(*args, **kwargs)

    pair = {"s0": lambda: small_scene(0)}
    opened = [open_benchmark("mine", folder), Benchmark("DAVIS", 345, pair, {})]
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(Broken, opened, tmp_path, SETTINGS, IDENTITY)
    assert set(json.loads((tmp_path / "results.json").read_text())) == {"mine", "meta"}


def test_nothing_usable_is_an_error():
    def unreadable():
        raise InputError("the mask a.png cannot be read")

    benchmark = Benchmark("mine", None, {"a": unreadable}, {})
    journal = types.SimpleNamespace(done={})
    with pytest.raises(InputError, match=r"mine: no object can be used; a: the mask a\.png"):
        evaluate.evaluate_benchmark(Colours(SIZE), benchmark, journal)


@pytest.mark.parametrize(("target", "keys"), [(0.85, "80 85"), (0.95, "80 85 90 95"),
                                              (1.01, "80 85 90")])  # fmt: skip
def test_noc_above_the_target_is_not_known(target, keys):
    records = [{"id": "a", "ious": [0.5, 0.97], "seconds": 3.0}]
    result = metrics.summarize(records, Benchmark("x", None, {}, {}), target)
    assert [k[3:] for k in result if k.startswith("noc")] == keys.split()
    assert result["spc"] == 1.5
    assert "-" in tables.table({"x": result}, "ours") or target > 0.85


def test_curve_holds_the_last_value():
    axes = figures.plot({"x": {"ious": {"a": [0.5, 0.9], "b": [0.1, 0.2, 0.3]}}}, 0.9, 4).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.3, 0.55, 0.6, 0.6])


def test_pictures_show_clicks_and_outline():
    image = np.full((100, 160, 3), 90, np.uint8)
    mask = np.zeros((100, 160), bool)
    mask[40:60, 50:90] = True
    done = [clicker.Round(50, 70, True, mask, 0.5), clicker.Round(10, 20, False, mask, 0.6)] * 3
    strip = figures.draw(image, done)
    assert strip.shape == (2 * 120, 5 * 164, 3)
    assert tuple(strip[20 + 50, 70]) == (0, 160, 0)
    assert tuple(strip[20 + 40, 50]) == (255, 220, 0)
    assert tuple(strip[20 + 10, 20]) == (90, 90, 90)  # the second click is not there yet
    assert tuple(strip[20 + 10, 164 + 20]) == (220, 0, 0)
    assert (strip[120:, 164:] == 255).all()


# ---- the command


def flag_values(monkeypatch, present=False, overrides=None, **values):
    config = ConfigDict({"eval": SETTINGS | {"size": 99}})
    flag = types.SimpleNamespace(present=present, override_values=overrides or {})
    table = {"config": flag}

    class Flags:
        def __getitem__(self, name):
            return table[name]

    fake = Flags()
    for key, value in {"config": config, **values}.items():
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
    "pairs", [[], ["grabcut"], ["=x"], ["a/b=x"], ["meta=x"], ["mine={0}", "mine={0}"]]
)
def test_datasets_that_are_no_pairs(folder, pairs):
    with pytest.raises(InputError, match="--datasets"):
        evaluate.open_datasets([p.format(folder) for p in pairs])


@pytest.mark.parametrize(
    ("predictor", "output", "words", "message"),
    [
        ("network", "out", [], "mis-jax evaluate RUN"),
        ("tree", "out", ["runs/x"], "tree takes no run"),
        ("tree-blocks", "", [], "--predictor tree-blocks .* --output FOLDER"),
    ],
)
def test_a_network_needs_a_run_and_a_tree_a_folder_alone(
    folder, monkeypatch, predictor, output, words, message
):
    flag_values(monkeypatch, predictor=predictor, output=output, datasets=[f"mine={folder}"])
    with pytest.raises(InputError, match=message):
        evaluate.main(["mis-jax evaluate", *words])


def test_settings_of_the_network_are_not_those_of_a_tree(folder, monkeypatch):
    flag_values(
        monkeypatch,
        predictor="tree",
        output="out",
        datasets=[f"mine={folder}"],
        overrides={"eval.flip": False},
    )
    with pytest.raises(InputError, match=r"eval\.flip has no effect on --predictor tree"):
        evaluate.main(["mis-jax evaluate"])


@pytest.mark.parametrize("name", ["tree", "tree-blocks"])
def test_trees_are_evaluated_without_a_run(folder, tmp_path, monkeypatch, capsys, name):
    flag_values(
        monkeypatch,
        predictor=name,
        output=str(tmp_path),
        datasets=[f"mine={folder}"],
        pictures=1,
        overrides={"eval.max_clicks": 3},
    )
    evaluate.main(["mis-jax evaluate"])
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["meta"]["eval"] == {"max_clicks": 3, "target": 0.9}
    assert results["meta"]["predictor"] == name
    assert bool(results["meta"]["snap_side"]) == (name == "tree")
    assert results["meta"]["descriptor"] == descriptor.NAME
    assert "run" not in results["meta"]
    assert str(folder) not in (tmp_path / "results.json").read_text()
    sample = next(s for s in open_benchmark("mine", folder) if s.id == "s2")
    rounds = clicker.rounds(TreePredictor(name == "tree"), sample, 0.9, 3)
    np.testing.assert_allclose(results["mine"]["ious"]["s2"], [r.iou for r in rounds], rtol=1e-6)
    assert f"| mine    | {name} " in capsys.readouterr().out
