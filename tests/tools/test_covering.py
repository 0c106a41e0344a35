"""Region covering against its definition, and the two layouts of what people drew."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from mis_jax.errors import InputError
from mis_jax.proposals import Tree, build_tree

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "bench"))

import covering as lib


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def cut(tree: Tree, threshold: float) -> list[int]:
    """Nodes of a cut, found from the root down."""
    costs, whole, todo = np.append(np.zeros(tree.n), tree.costs), [], [tree.root]
    while todo:
        node = todo.pop()
        below, stack = [], [node]
        while stack:
            below.append(stack.pop())
            stack += list(tree.merges[below[-1] - tree.n]) if below[-1] >= tree.n else []
        if max(costs[below]) <= threshold:
            whole.append(node)
        else:
            todo += list(tree.merges[node - tree.n])
    return whole


def covered(tree: Tree, nodes: list[int], drawn: list[np.ndarray]) -> float:
    masks = [tree.pixel_mask(node, *drawn[0].shape) for node in nodes]
    regions = [one == k for one in drawn for k in range(one.max() + 1)]
    return sum(region.sum() * max(iou(mask, region) for mask in masks) for region in regions)


@pytest.mark.parametrize(("seed", "grid", "size"), [(0, (5, 6), (17, 20)), (1, (1, 1), (3, 4))])
def test_covering_is_that_of_the_definition(seed, grid, size):
    rng = np.random.default_rng(seed)
    tree = build_tree(rng.normal(size=(*grid, 2)).astype(np.float32), borders=True)
    drawn = [np.arange(np.prod(size)).reshape(size) * k // np.prod(size) for k in (1, 3, 5)]
    thresholds = np.array([0, *np.quantile([0, *tree.costs], [0.2, 0.5, 0.8, 1])])
    cuts, best, ious = lib.covering(tree, drawn, thresholds)
    expected = [covered(tree, cut(tree, t), drawn) for t in np.float32(thresholds)]
    np.testing.assert_allclose(cuts, expected)
    nodes = range(tree.num_nodes)
    np.testing.assert_allclose(best, covered(tree, list(nodes), drawn))
    regions = [one == k for one in drawn for k in range(one.max() + 1)]
    masks = [tree.pixel_mask(node, *size) for node in nodes]
    np.testing.assert_allclose(
        ious, [max(iou(mask, region) for region in regions) for mask in masks]
    )


def test_both_layouts_are_measured_alike(tmp_path, monkeypatch):
    image = np.full((32, 48, 3), 40, np.uint8)
    image[8:24, 8:32] = (200, 60, 30)
    drawn = np.ones((32, 48), np.uint16)
    drawn[8:24, 8:32] = 700
    for name in ("photos", "png", "mat"):
        (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / "photos/a_1.png"), image[:, :, ::-1])
    cv2.imwrite(str(tmp_path / "png/a_1_0.png"), drawn)
    cv2.imwrite(str(tmp_path / "png/a_1_1.png"), np.zeros((32, 48), np.uint8))
    cells = np.empty((1, 2), object)
    cells[0] = {"Segmentation": drawn}, {"Segmentation": np.zeros_like(drawn)}
    scipy.io.savemat(tmp_path / "mat/a_1.mat", {"groundTruth": cells})
    monkeypatch.setattr(lib, "METHODS", {"m": lib.METHODS["by borders, stride 4"]})
    results = []
    for layout in ("png", "mat"):
        found = lib.find(tmp_path / layout, tmp_path / "photos")
        results.append(lib.measure(found)["m"])
        assert results[-1].pop("seconds") > 0
    assert results[0] == results[1]
    assert results[0]["best"] == pytest.approx(1)
    assert results[0]["ods"] == results[0]["ois"] == pytest.approx(0.875)
    assert 0 < results[0]["proposals"] < 1
    row = results[0] | {"seconds": 1, "proposals": 0.8}
    assert "| m | 0.875 | 0.875 | 1.000 | 0.800 | 1.000 |" in lib.table({"m": row})


def test_missing_photos_are_named(tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("photos/b.png", "a_0.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((32, 32), np.uint8))
    with pytest.raises(InputError, match="no photo a "):
        lib.find(tmp_path, tmp_path / "photos")
