"""quickstart.py and report.py: the whole flow in miniature, and what the page is made of."""

import base64
import html.parser
import json
import re

import cv2
import jax
import numpy as np
import pytest
import small_evidence

from mis_jax.configs import quickstart as shipped
from mis_jax.datasets import scenes
from mis_jax.errors import InputError
from mis_jax.inspection import page
from mis_jax.predictors.corrected import CorrectedPredictor
from mis_jax.predictors.fused import FusedPredictor
from mis_jax.predictors.network import Predictor
from mis_jax.proposals.tree import build_tree
from mis_jax.quickstart import quickstart, report

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


NAMES = ["trees", "fused", "shipped", "trained"]


def miniature():
    """The shipped config with as little of everything as makes sense."""
    c = shipped.get_config()
    c.quickstart.update(photos=("chelsea", "coins"), unlabelled=1, held_out=2, shown=1)
    c.quickstart.clicks = (("chelsea", 100, 80, 1), ("chelsea", 300, 90, 0))
    c.features.stride = 16
    c.propose.max_side = 160
    c.data.crop = 64
    c.clicks.max_next = 2
    c.model.update(evidence=small_evidence.WIDTH, start="")
    c.optim.update(batch_size=4 * jax.device_count(), steps=3, warmup=1, milestones=())
    c.eval.max_clicks = 3
    return c


def small():
    """In place of the model that comes with mis_jax."""
    return CorrectedPredictor(small_evidence.parameters(), small_evidence.WIDTH)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """A model that compiles in seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstart, "shipped", small)
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
    results = json.loads((output / "results.json").read_text())
    assert list(results) == [*NAMES, "seconds", "config"]
    for name in NAMES:
        assert (output / "eval" / name / "scenes.csv").exists()
        entry = results[name]
        assert entry["n"] == len(entry["ious"]) == 2
        assert 1 <= entry["noc85"] <= entry["noc90"] <= 3
    stages = ["images", "clicks on photographs", "merge trees", "training"]
    assert list(results["seconds"])[:4] == stages


@pytest.mark.slow
def test_what_is_compared_is_what_the_names_say(output):
    made = {name: make() for name, make in quickstart.predictors(output / "run").items()}
    assert list(made) == NAMES == list(report.LABELS)
    trained = Predictor.load(output / "run")
    assert isinstance(made["trained"], CorrectedPredictor)
    assert made["trained"].settings == trained.settings
    assert made["shipped"].settings == small().settings
    assert made["shipped"].settings["parameters"] != trained.settings["parameters"]
    assert type(made["fused"]) is FusedPredictor


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
def test_page_shows_clicks_trees_curves_and_table(output):
    found = Page((output / "report.html").read_text("utf-8"))
    clicked, cuts = 3, 1 + len(page.REGIONS)  # of one photograph
    assert found.tags.count("img") >= clicked + cuts + 2 * 2  # an object and a mask for two
    assert "2 clicks: not that" in found.text
    assert found.tags.count("svg") == 3
    results = json.loads((output / "results.json").read_text())
    for name in NAMES:
        assert f"{results[name]['noc85']:.2f}" in found.text
        assert report.LABELS[name] in found.text
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
    with pytest.raises(InputError, match=r"config\.optim\.lr=0\.0001.*0\.002.*--output"):
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


def test_clicks_on_photographs_are_asked_in_order_where_the_photograph_is(tmp_path):
    asked = []

    class Asked:
        def set_image(self, image):
            asked.append(image.shape)

        def click(self, x, y, positive):
            asked.append((x, y, positive))
            return np.zeros((300, 451), bool)

    quickstart.copy_photos(tmp_path, ("chelsea",))
    rows = [("nobody", 1, 2, 1), ("chelsea", 30, 40, 1), ("chelsea", 50, 60, 0)]
    (clicked,) = quickstart.click_photos(Asked(), tmp_path, rows)
    assert asked == [(300, 451, 3), (30, 40, True), (50, 60, False)]
    assert clicked.name == "chelsea"
    assert [a[:3] for a in clicked.answers] == [(40, 30, True), (60, 50, False)]


def test_shipped_clicks_are_on_shipped_photographs(tmp_path):
    c = shipped.get_config().quickstart
    quickstart.copy_photos(tmp_path, c.photos)
    sizes = {p.stem: cv2.imread(str(p)).shape for p in tmp_path.iterdir()}
    for name, x, y, positive in c.clicks:
        assert x < sizes[name][1]
        assert y < sizes[name][0]
        assert positive in (0, 1)


def test_drawings_keep_the_image_and_mark_the_clicks():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    copy, mask = image.copy(), np.zeros((40, 60), bool)
    mask[10:30, 20:50] = True
    click = report.clicker.Round(20, 35, True, mask, 0.5)
    panel = page.draw_mask(image, mask)
    marked = report.draw_clicks(panel, [click])
    assert (image == copy).all()
    assert tuple(marked[20, 35]) == report.POSITIVE
    assert (panel[20, 35] == image[20, 35]).all()
    assert tuple(panel[10, 25]) == page.OUTLINE
    assert (panel[25, 25] == image[25, 25]).all()
    assert panel[:8].mean() < 0.6 * image[:8].mean()
    found = report.draw_found(image, mask)
    assert tuple(found[10, 25]) == (255, 255, 255)
    assert np.abs(found[25, 25] - (0.5 * image[25, 25] + 0.5 * report.TINT)).max() <= 1
    assert np.abs(found[:8] - 0.8 * image[:8]).max() <= 1
    tree = build_tree(rng.standard_normal((5, 8, 3), np.float32))
    assert page.draw_cut(image, tree, 4).shape == image.shape


def test_curve_holds_the_last_iou():
    result = {"ious": {"a": [0.5, 0.9], "b": [0.1, 0.2, 0.3]}}
    assert report.mean_iou(result, 4) == pytest.approx([0.3, 0.55, 0.6, 0.6])


def test_the_table_has_a_row_for_each():
    entry = {"ious": {"a": [0.5, 0.9]}, "noc80": 2.0, "noc85": 2.0, "n": 1, "spc": 0.0204}
    head, row = report.table({"fused": entry}, 3)
    assert head == ["", "NoC@80", "NoC@85", "NoC@90", "IoU@1", "IoU@3", "ms/click"]
    assert row == [report.LABELS["fused"], "2.00", "2.00", "-", "50.0 %", "90.0 %", "20"]


def test_smoothed_values_keep_the_mean_of_what_is_around():
    assert report._smoothed([3.0]) == pytest.approx([3.0])
    assert report._smoothed([1.0, 2.0, 6.0] + [0.0] * 5) == pytest.approx(
        [1.5, 3.0, 8 / 3, 2, 0, 0, 0, 0]
    )
