"""`mis-jax inspect`: figures against plain recomputation, the page, and what it refuses."""

import base64
import csv
import itertools
import json
import re
import shutil

import cv2
import numpy as np
import pytest
import tiny_run

from mis_jax import config
from mis_jax.datasets import benchmarks, scenes
from mis_jax.errors import InputError
from mis_jax.evaluation import clicker, metrics
from mis_jax.features import descriptor, extractors
from mis_jax.inspection import gallery, inspect, measure, oracle, page, survey
from mis_jax.proposals import snap
from mis_jax.proposals.tree import build_tree
from mis_jax.records import store


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """records/ of six scenes, and their images/ and masks/."""
    folder = tmp_path_factory.mktemp("scenes")
    tiny_run.write_records(folder)
    return folder


@pytest.fixture(scope="module")
def result(folder, tmp_path_factory):
    """What is printed and where it is written, for records and a dataset."""
    output = tmp_path_factory.mktemp("inspect")
    opened = [benchmarks.open_benchmark("mine", folder)]
    return inspect.inspect(str(folder / "records"), opened, output, embedded()), output


def embedded(**changes):
    c = config.default()
    c.features.update({"model": "embedded", "stride": 8} | changes)
    return c


def trees(folder):
    return [record.tree for record in store.read_records(folder / "records")]


def test_figures_are_those_of_all_masks(folder, result):
    rows = list(csv.DictReader((result[1] / "mine.csv").open()))
    samples = list(benchmarks.open_benchmark("mine", folder))
    assert [row["id"] for row in rows] == [sample.id for sample in samples]
    ious, needed = [], []
    for row, sample, tree in zip(rows, samples, trees(folder), strict=True):
        masks = (tree.pixel_mask(node, *sample.mask.shape) for node in range(tree.num_nodes))
        ious.append(max(clicker.iou(sample.mask, mask) for mask in masks))
        needed.append(oracle.nodes_needed(tree, sample.mask, 0.9, 20))
        assert float(row["iou"]) == pytest.approx(ious[-1], abs=1e-6)
        best = tree.mask(oracle.best_node(tree, sample.mask)[1])
        snapped = clicker.iou(sample.mask, snap(sample.image, best) > 0.5)
        assert float(row["snapped"]) == pytest.approx(snapped, abs=1e-6)
        assert row["nodes90"] == ("" if needed[-1] is None else str(needed[-1]))
    figures = json.loads((result[1] / "inspect.json").read_text())["datasets"]["mine"]
    assert figures["iou"]["mean"] == pytest.approx(np.mean(ious))
    assert (figures["iou"]["low"], figures["iou"]["high"]) == metrics.bootstrap_interval(ious)
    assert figures["noc90"]["mean"] == pytest.approx(np.mean([k or 20 for k in needed]))
    assert figures["never90"]["mean"] == pytest.approx(np.mean([k is None for k in needed]))
    assert None in needed  # of eight patches a side
    assert (figures["n"], figures["expected"], figures["skipped"]) == (6, 6, {})
    assert f"{np.mean(ious):.3f} [" in result[0]


def test_histograms_count_every_region_and_draw(folder, result):
    figures = json.loads((result[1] / "inspect.json").read_text())["trees"]
    depths = np.concatenate([t.depths()[t.n : t.root] for t in trees(folder)])
    bounds = [1, 2, 3, 4, 5, 9, 17, 33, 65, 10**6]
    expected = [sum(a <= d < b for d in depths) for a, b in itertools.pairwise(bounds)]
    assert figures["depths"] == expected
    assert figures["depth_edges"] == bounds[:-1]
    assert sum(figures["areas"]) == len(depths)
    draws = 6 * survey.DRAWS
    assert sum(figures["drawn_areas"]) == sum(figures["drawn_depths"]) == draws
    assert figures["drawn_too_small"] == sum(figures["drawn_areas"][:2]) / draws  # 5 % or less
    assert figures["patches"] == {"least": 64, "median": 64.0, "greatest": 64}
    assert figures["images"] == 6


def test_sampling_follows_the_config(folder):
    c = embedded()
    c.data.sampling = "fixed"
    found = survey.look(folder / "records", c)
    assert found.drawn_depths.tolist() == [6 * survey.DRAWS] + [0] * 8
    for photo, nodes in found.photos:
        assert set(nodes) <= set(photo.tree.merges[-1])


def test_same_seed_same_files(folder, result, tmp_path):
    opened = [benchmarks.open_benchmark("mine", folder)]
    text = inspect.inspect(str(folder / "records"), opened, tmp_path, embedded())
    assert text == result[0].replace(str(result[1]), str(tmp_path))
    for name in ("inspect.html", "inspect.json", "mine.csv"):
        assert (tmp_path / name).read_bytes() == (result[1] / name).read_bytes()


def test_page_holds_its_pictures(result):
    text = (result[1] / "inspect.html").read_text("utf-8")
    sources = re.findall(r'src="data:image/jpeg;base64,([\w+/=]+)"', text)
    photos, examples = 6 * (1 + len(page.REGIONS) + 6), 2 * 3 * gallery.EXAMPLES
    assert len(sources) == text.count("<img") == photos + examples
    for source in sources:
        pixels = np.frombuffer(base64.b64decode(source, validate=True), np.uint8)
        assert cv2.imdecode(pixels, cv2.IMREAD_COLOR) is not None
    rest = re.sub(r"base64,[\w+/=]+", "", text)
    assert not re.search(r"@import|url\(|https?:|\$", rest)
    for cell in measure.table(json.loads((result[1] / "inspect.json").read_text())["datasets"]):
        assert all(f">{word}<" in rest for word in cell)


def test_trees_of_shrunk_images_against_whole_masks(tmp_path):
    image, mask = scenes.make_scene(np.random.default_rng(0), (96, 128))
    for part, pixels in (("images", image[..., ::-1]), ("masks", mask * 255)):
        (tmp_path / part).mkdir()
        cv2.imwrite(str(tmp_path / part / "a.png"), pixels)
    (found,) = measure.measure(
        benchmarks.open_benchmark("mine", tmp_path), extractors.EmbeddedExtractor(8), 64, 4
    )
    small = cv2.resize(image, (64, 48), interpolation=cv2.INTER_AREA)
    tree = build_tree(descriptor.embedded(small, 8), borders=True)
    assert tree.grid == (6, 8)
    assert found["iou"] == oracle.best_node(tree, mask.astype(np.int32))[0]


def test_command_with_and_without_records(command, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = "--config.features.model=embedded"
    status, out, _ = command("inspect", f"--datasets=mine={folder}", model)
    assert status == 0
    assert "tree-NoC@85" in out
    assert "trees:" not in out
    page = (tmp_path / "inspect" / "inspect.html").read_text("utf-8")
    assert "Regions at several depths" not in page
    copy = shutil.copytree(folder / "records", tmp_path / "records")
    status, out, _ = command("inspect", copy)
    assert status == 0
    assert "trees: 64 patches" in out
    assert "tree-NoC" not in out
    assert "tree-NoC" not in (copy / "inspect" / "inspect.html").read_text("utf-8").lower()
    assert command("inspect", copy)[0] == 0  # the results are not taken for records


@pytest.mark.parametrize("words", [[], ["a", "b"]])
def test_usage(command, words):
    status, _, err = command("inspect", *words)
    assert status == 2
    assert "usage: mis-jax inspect RECORDS" in err


def test_records_of_other_features_are_refused(folder, tmp_path, monkeypatch):
    opened = [benchmarks.open_benchmark("mine", folder)]
    names = r'"embedded v3 stride=8".*"embedded v3 stride=4".*--config'
    with pytest.raises(InputError, match=names):
        inspect.inspect(str(folder / "records"), opened, tmp_path, embedded(stride=4))
    monkeypatch.setattr(extractors, "download_weights", lambda model: pytest.fail("a download"))
    with pytest.raises(InputError, match=r'"embedded v3 stride=8".*"dino-vits8"'):
        inspect.inspect(str(folder / "records"), opened, tmp_path, embedded(model="dino-vits8"))
    assert not list(tmp_path.iterdir())


def test_records_without_settings(folder, tmp_path):
    copy = shutil.copytree(folder / "records", tmp_path / "records")
    (copy / store.INDEX).unlink()
    opened = [benchmarks.open_benchmark("mine", folder)]
    with pytest.raises(InputError, match=rf"no {store.INDEX}.*--datasets"):
        inspect.inspect(str(copy), opened, tmp_path / "out", embedded())
    assert "trees: 64 patches" in inspect.inspect(str(copy), [], tmp_path / "out", embedded())


def test_missing_and_damaged_records(folder, tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        inspect.inspect(str(tmp_path / "none"), [], tmp_path, embedded())
    copy = shutil.copytree(folder / "records", tmp_path / "records")
    first, second = sorted(copy.glob("*.array_record"))
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 0xFF
    first.write_bytes(data)
    with pytest.raises(InputError, match=first.name):
        inspect.inspect(str(copy), [], tmp_path, embedded())
    second.unlink()
    with pytest.raises(InputError, match="1 of 2 shards"):
        inspect.inspect(str(copy), [], tmp_path, embedded())


def test_objects_that_cannot_be_used(tmp_path):
    scenes.write_benchmark(tmp_path, 2, size=(64, 64))
    cv2.imwrite(str(tmp_path / "masks" / "scene_00000.png"), np.zeros((64, 64), np.uint8))
    opened = [benchmarks.open_benchmark("mine", tmp_path)]
    text = inspect.inspect(None, opened, tmp_path / "out", embedded())
    assert "1 of 2" in text
    assert "mine: 1 left out: 1 mask without an object pixel (scene_00000)" in text
    (tmp_path / "images" / "scene_00001.png").write_bytes(b"")
    opened = [benchmarks.open_benchmark("mine", tmp_path)]
    with pytest.raises(InputError, match="mine: no object can be used; scene_00000"):
        inspect.inspect(None, opened, tmp_path / "out", embedded())
