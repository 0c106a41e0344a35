"""quickstart.py and report.py: the whole flow in miniature, and what the page is made of."""

import base64
import html.parser
import json
import re

import cv2
import jax
import numpy as np
import pytest

from mis_jax.configs import quickstart as shipped
from mis_jax.datasets import scenes
from mis_jax.errors import InputError
from mis_jax.inspection import page
from mis_jax.models import simpleclick
from mis_jax.predictors.network import Predictor, make_network
from mis_jax.proposals.tree import build_tree
from mis_jax.quickstart import quickstart, report
from mis_jax.training import sharding, train_step

OUTSIDE = {"href", "src", "srcset", "action", "data", "poster", "xlink:href"}
VOID = {"meta", "img", "path", "polyline", "link", "br"}


class Page(html.parser.HTMLParser):
    """Collects what a page refers to and its pictures; fails where tags do not match."""

    def __init__(self, text):
        super().__init__()
        self.references, self.open, self.tags, self.text = [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.references += [value for name, value in attrs if name in OUTSIDE]
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def miniature():
    """The shipped config with as little of everything as makes sense."""
    c = shipped.get_config()
    c.quickstart.update(photos=("chelsea", "coins"), unlabelled=1, held_out=2, shown=1)
    c.features.stride = 16
    c.propose.max_side = 160
    c.data.update(crop=32, scale=(0.15, 0.3))
    c.model.update(variant="Dot", patch=8)
    c.loss.smooth_weight = 0.0
    c.optim.update(batch_size=jax.device_count(), steps=3, warmup=1, milestones=())
    c.eval.update(size=32, max_clicks=3)
    return c


@pytest.fixture(scope="module", autouse=True)
def dot():
    """A model that compiles in seconds."""
    with pytest.MonkeyPatch.context() as patch:
        variant = simpleclick.Variant(8, 1, 1, 8, (4, 4, 8, 8), 4, 1, window=16)
        patch.setitem(simpleclick.VARIANTS, "Dot", variant)
        yield


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart") / "out"
    assert quickstart.quickstart(folder, miniature()) == folder / "report.html"
    return folder


@pytest.mark.slow
def test_flow_leaves_what_the_single_commands_leave(output):
    assert (output / "records" / "report.json").exists()
    assert len((output / "run" / "metrics.jsonl").read_text().splitlines()) == 3
    for name in ("trained", "untrained"):
        assert (output / "eval" / name / "scenes.csv").exists()
    results = json.loads((output / "results.json").read_text())
    for name in ("trained", "untrained"):
        entry = results[name]
        assert entry["n"] == len(entry["ious"]) == 2
        assert 1 <= entry["noc85"] <= entry["noc90"] <= 3
    assert list(results["seconds"])[:3] == ["images", "merge trees", "training"]


@pytest.mark.slow
def test_networks_compared_are_those_after_and_before_training(output):
    trained, untrained = Predictor.load(output / "run"), quickstart.untrained(miniature())
    rng = np.random.default_rng(0)
    image = rng.random((2, 32, 32, 3), np.float32)
    points = np.full((2, 2, 4, 3), -1, np.float32)
    points[:, :, 0] = 16, 16, 0
    prev = np.zeros((2, 32, 32), np.float32)
    after = np.asarray(trained.network(image, prev, points))
    before = np.asarray(untrained.network(image, prev, points))
    config = miniature()
    fresh = train_step.make_step(config, sharding.make_mesh(1))[1]()["params"]
    initial = np.asarray(make_network(config, fresh, 32, config.eval.flip)(image, prev, points))
    np.testing.assert_array_equal(before, initial)
    assert np.abs(after - before).max() > 1e-4


@pytest.mark.slow
def test_page_needs_nothing_but_itself(output):
    page = Page((output / "report.html").read_text("utf-8"))
    assert page.references
    for reference in page.references:
        found = re.fullmatch(r"data:image/jpeg;base64,([\w+/=]+)", reference)
        assert found, reference[:80]
        pixels = np.frombuffer(base64.b64decode(found[1], validate=True), np.uint8)
        assert cv2.imdecode(pixels, cv2.IMREAD_COLOR) is not None
    text = (output / "report.html").read_text("utf-8")
    assert not re.search(r"@import|url\(|https?:", text)
    assert "$" not in re.sub(r"base64,[\w+/=]+", "", text)
    assert not {"script", "iframe", "object", "link"} & set(page.tags)


@pytest.mark.slow
def test_page_shows_trees_clicks_curves_and_table(output):
    found = Page((output / "report.html").read_text("utf-8"))
    cuts = 1 + len(page.REGIONS)  # of one photograph
    assert found.tags.count("img") >= cuts + 2 * 2  # an object and a mask for each network
    assert found.tags.count("svg") == 3
    results = json.loads((output / "results.json").read_text())
    for name in ("trained", "untrained"):
        assert f"{results[name]['noc85']:.2f}" in found.text
    assert str(output / "run") in found.text


@pytest.mark.slow
def test_same_command_again_changes_nothing(output, capsys):
    def stamps():
        kept = ("records/*.array_record", "images/*/*", "held_out/*/*", "run/checkpoints/*/*/*")
        return {p: p.stat().st_mtime_ns for pattern in kept for p in output.glob(pattern)}

    before, results = stamps(), json.loads((output / "results.json").read_text())
    quickstart.quickstart(output, miniature())
    assert stamps() == before
    assert json.loads((output / "results.json").read_text()) == results
    assert str(output / "report.html") in capsys.readouterr().out


@pytest.mark.slow
def test_output_of_other_settings_is_refused(output):
    c = miniature()
    c.optim.lr = 2e-3
    with pytest.raises(InputError, match=r"config\.optim\.lr=0\.001.*0\.002.*--output"):
        quickstart.quickstart(output, c)


def test_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        quickstart.quickstart(tmp_path, miniature())
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_unknown_photographs_name_those_there(tmp_path):
    with pytest.raises(InputError, match="astronaut"):
        quickstart.copy_photos(tmp_path, ("nobody",))


def test_shipped_photographs_are_there_offline(tmp_path):
    names = shipped.get_config().quickstart.photos
    quickstart.copy_photos(tmp_path, names)
    assert sorted(p.stem for p in tmp_path.iterdir()) == sorted(names)


def test_learnt_scenes_are_none_of_the_held_out(tmp_path):
    quickstart.draw_scenes(tmp_path / ".", 2)
    scenes.write_benchmark(tmp_path / "held", 2, quickstart.HELD_OUT_SEED)
    learnt = {p.read_bytes() for p in tmp_path.glob("*.png")}
    held_out = {p.read_bytes() for p in (tmp_path / "held" / "images").iterdir()}
    assert len(learnt) == len(held_out) == 2
    assert not learnt & held_out
    assert not list(tmp_path.glob("*mask*"))


def test_a_stopped_stage_adds_up_and_a_finished_one_stays(tmp_path, monkeypatch):
    clock = iter([0.0, 5.0, 10.0, 12.0, 20.0, 29.0])
    monkeypatch.setattr(quickstart.time, "monotonic", lambda: next(clock))
    path = tmp_path / "seconds.json"
    with pytest.raises(KeyboardInterrupt), quickstart.Stages(path)("trees"):
        raise KeyboardInterrupt
    for _ in range(2):
        with quickstart.Stages(path)("trees"):
            pass
    assert quickstart.Stages(path).seconds == {"trees": 7.0}


@pytest.mark.parametrize("regions", [1, 2, 5, 35, 100])
def test_cut_is_a_partition_into_the_last_regions(regions):
    rng = np.random.default_rng(0)
    tree = build_tree(rng.standard_normal((5, 7, 3), np.float32))
    nodes = page.cut(tree, regions)
    assert len(nodes) == min(regions, tree.n)
    assert np.sum([tree.mask(node) for node in nodes], axis=0).tolist() == [[1] * 7] * 5
    # Undoing the last merges leaves exactly the nodes made before them.
    assert max(nodes) < tree.num_nodes - (len(nodes) - 1)


def test_drawings_keep_the_image_and_mark_the_clicks():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    copy, mask = image.copy(), np.zeros((40, 60), bool)
    mask[10:30, 20:50] = True
    click = report.clicker.Round(20, 35, True, mask, 0.5)
    panel = report.draw_clicks(image, mask, [click])
    assert (image == copy).all()
    assert tuple(panel[20, 35]) == report.POSITIVE
    assert tuple(panel[10, 25]) == page.OUTLINE
    assert (panel[25, 25] == image[25, 25]).all()
    assert panel[:8].mean() < 0.6 * image[:8].mean()
    tree = build_tree(rng.standard_normal((5, 8, 3), np.float32))
    assert page.draw_cut(image, tree, 4).shape == image.shape


def test_curve_holds_the_last_iou():
    result = {"ious": {"a": [0.5, 0.9], "b": [0.1, 0.2, 0.3]}}
    assert report.mean_iou(result, 4) == pytest.approx([0.3, 0.55, 0.6, 0.6])
