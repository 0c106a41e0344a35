"""Curves against their numbers, pictures against colours at known places, stories."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from mis_jax.errors import InputError
from mis_jax.evaluation import figures, metrics
from mis_jax.evaluation.clicker import Round

GREY = 90


def entry(*ious, target=0.9, clicks=4):
    return metrics.numbers(list(ious), target, clicks)


def flat_image(height=100, width=160):
    return np.full((height, width, 3), GREY, np.uint8)


def square(top=40, bottom=60, left=50, right=90, shape=(100, 160)):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def story(count, shape=(100, 160), iou=0.5):
    """Alternate clicks in and off a square, of a grey image."""
    mask = square(shape=shape)
    rounds = [
        Round(50, 70, True, mask, iou + k / 100) if k % 2 == 0
        else Round(10, 20, False, mask, iou + k / 100)
        for k in range(count)
    ]  # fmt: skip
    return figures.Story(flat_image(*shape), mask.astype(np.int32), rounds)


# ---- curves


def test_a_curve_is_the_mean_and_its_interval():
    one, two = entry([0.5, 0.9], [0.1, 0.2, 0.3]), entry([0.2], [0.4])
    figure = figures.curves({"a": {"x": one}, "b": {"x": two, "y": one}})
    left, right = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["x", "y"]
    np.testing.assert_allclose(left.lines[0].get_ydata(), [0.3, 0.55, 0.6, 0.6])
    np.testing.assert_allclose(left.lines[1].get_ydata(), [0.3] * 4)
    np.testing.assert_array_equal(left.lines[0].get_xdata(), [1, 2, 3, 4])
    assert [line.get_label() for line in left.lines] == ["a", "b"]
    assert right.lines[0].get_color() == left.lines[1].get_color() != left.lines[0].get_color()
    band = left.collections[0].get_paths()[0].vertices
    for k, (low, high) in enumerate(one["miou_interval"], 1):
        at = band[np.isclose(band[:, 0], k), 1]
        assert (at.min(), at.max()) == pytest.approx((low, high))
    assert "keep their last IoU" in figure.get_supxlabel()


def test_panels_of_many_datasets():
    exact = entry([0.5] * 4, target=1.01)
    figure = figures.curves({"a": {name: exact for name in "xyz"}})
    assert [axes.get_title() for axes in figure.axes] == ["x", "y", "z"]
    assert "last IoU" not in figure.get_supxlabel()
    data = figures.png(figure)
    assert figures.png(figure) == data
    picture = np.array(Image.open(io.BytesIO(data)))
    assert picture.shape[1] == 1500
    assert picture.std() > 1


# ---- strips and grids


def panel_of(grid, row, column, shape, rows=1):
    """A panel of the grid, found by what the module says of its layout."""
    high = grid.shape[0] // rows
    left = column * (figures.PANEL + figures.GAP)
    scale = figures.PANEL / max(shape)
    height, width = round(shape[0] * scale), round(shape[1] * scale)
    top = row * high + 2 * figures.BAR
    return grid[top : top + height, left : left + width], scale


def test_a_grid_shows_an_object_click_by_click():
    given, shape = story(12), (100, 160)
    grid = figures.clicks_and_masks({"tree": {"a": given}})
    assert grid.shape[1] == 1598
    tinted = np.rint(0.55 * GREY + 0.45 * np.array(figures.TINT))
    for column, count in enumerate([0, 1, 2, 3, 5, 10, 12]):
        panel, scale = panel_of(grid, 0, column, shape)
        at = lambda row, col: tuple(panel[round(row * scale), round(col * scale)])  # noqa: B023, E731
        inside = tinted if column else (GREY,) * 3
        assert at(45, 55) == tuple(inside), column
        assert at(80, 120) == (GREY,) * 3
        assert at(50, 70) == (figures.POSITIVE if count >= 1 else (GREY,) * 3)
        assert at(10, 20) == (figures.NEGATIVE if count >= 2 else (GREY,) * 3)
        edge = panel[round(50 * scale), round(50 * scale) - 2 : round(50 * scale) + 3]
        assert (edge == figures.OUTLINE).all(axis=1).any()


def test_a_grid_has_a_row_for_each_object_and_run():
    runs = {"a": {"o": story(1), "p": story(2)}, "b": {"p": story(3), "o": story(7)}}
    grid, shape = figures.clicks_and_masks(runs), (100, 160)
    shown = [[], [], [], []]
    for row in range(4):
        for column in range(6):
            panel, _ = panel_of(grid, row, column, shape, rows=4)
            shown[row].append(bool((panel != 255).any()))
    assert [sum(row) - 1 for row in shown] == [1, 5, 2, 3]  # o: 1 and 1 2 3 5 7; p: 1 2 and 1 2 3
    titles = [grid[k * grid.shape[0] // 4 :][: figures.BAR] for k in range(4)]
    assert all((t < 128).any() for t in titles)
    assert len({t.tobytes() for t in titles}) == 4


@pytest.mark.parametrize("shape", [(300, 100), (60, 70), (101, 163)])
def test_panels_fit_whatever_the_image(shape):
    given = figures.Story(flat_image(*shape), square(shape=shape).astype(np.int32),
                          story(2, shape).rounds)  # fmt: skip
    grid = figures.clicks_and_masks({"tree": {"ö": given}})
    assert grid.shape == (2 * 20 + round(shape[0] * 224 / max(shape)) + 5, 3 * 229 - 5, 3)


# ---- stories


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_story_keeps_everything(tmp_path_factory, data):
    shape = data.draw(st.tuples(st.integers(1, 19), st.integers(1, 19)))
    truth = data.draw(arrays.arrays(np.int32, shape, elements=st.sampled_from([1, 0, -1])))
    masks, signs = arrays.arrays(bool, shape), st.booleans()
    rounds = [
        Round(k, 2 * k, data.draw(signs), data.draw(masks), 1 / (k + 3))
        for k in range(data.draw(st.integers(1, 4)))
    ]
    path = tmp_path_factory.mktemp("stories") / "deep" / "o.npz"
    figures.save_story(path, np.full((*shape, 3), (200, 100, 50), np.uint8), truth, rounds)
    found = figures.load_story(path)
    assert abs(found.image.astype(int) - (200, 100, 50)).max() <= 4  # JPEG
    np.testing.assert_array_equal(found.truth, truth)
    assert found.truth.dtype == np.int32
    for ours, theirs in zip(found.rounds, rounds, strict=True):
        assert (ours.row, ours.col, ours.positive) == (theirs.row, theirs.col, theirs.positive)
        assert ours.iou == theirs.iou
        np.testing.assert_array_equal(ours.mask, theirs.mask)
        assert ours.mask.dtype == bool
    assert [p.name for p in path.parent.iterdir()] == ["o.npz"]


def test_ids_are_file_names(tmp_path):
    ids = ["a", "a/b", "../a", "ä b", "a%2Fb"]
    paths = {figures.story_path(tmp_path, id) for id in ids}
    assert len(paths) == len(ids)
    assert all(path.parent == tmp_path for path in paths)
    assert figures.story_path(tmp_path, "a").name == "a.npz"


def damage(path, kind):
    if kind == "missing":
        path.unlink()
    elif kind == "text":
        path.write_text("no story")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "bits":
        data = bytearray(path.read_bytes())
        for k in range(60, len(data), 50):
            data[k] ^= 255
        path.write_bytes(data)
    elif kind == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        arrays = dict(np.load(path))
        if kind == "version":
            arrays["version"] = np.int64(99)
        elif kind == "no image":
            arrays["image"] = np.zeros(40, np.uint8)
        elif kind in ("larger", "smaller"):
            side = 300 if kind == "larger" else 40
            arrays["image"] = cv2.imencode(".jpg", flat_image(side, side))[1]
        elif kind == "fewer masks":
            arrays["masks"] = arrays["masks"][:1]
        elif kind == "no clicks":
            arrays |= {key: arrays[key][:0] for key in ("clicks", "ious", "masks")}
        else:
            del arrays["clicks"]
        np.savez(path, **arrays)


@pytest.mark.parametrize(
    "kind",
    ["missing", "text", "cut", "bits", "array", "version", "no image", "larger", "smaller",
     "fewer masks", "no clicks", "no key"],
)  # fmt: skip
def test_damaged_stories_are_named(tmp_path, kind):
    path, given = tmp_path / "o.npz", story(3)
    figures.save_story(path, given.image, given.truth, given.rounds)
    assert len(figures.load_story(path).rounds) == 3
    damage(path, kind)
    with pytest.raises(InputError, match=r"o\.npz is .*evaluate again\."):
        figures.load_story(path)
