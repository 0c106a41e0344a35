"""Which objects are shown, how hard they look against scikit-image, and what the sheet shows."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.color import rgb2lab

from mis_jax.datasets import Sample
from mis_jax.errors import InputError
from mis_jax.evaluation import results

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "studies"))

import failures as lib


class Square:
    """Answers any click with the same square."""

    def set_image(self, image):
        self._mask = np.zeros(image.shape[:2], bool)
        self._mask[20:60, 20:60] = True

    def click(self, x, y, positive):
        return self._mask


def written(folder: Path, ious: dict[str, list[float]], predictor: str = "square") -> Path:
    entry = {"ious": ious, "clicks": {id: [[40, 40, 1]] * len(v) for id, v in ious.items()}}
    meta = {"predictor": predictor, "eval": {"target": 0.9, "max_clicks": 20}}
    (folder / "results.json").write_text(json.dumps({"mine": entry, "meta": meta}))
    return folder / "results.json"


def test_most_clicks_come_first_then_the_least_iou(tmp_path):
    ious = {"good": [0.5, 0.95], "slow": [0.1] * 19 + [0.92], "bad": [0.8] * 20, "fast": [0.9]}
    (run,) = results.load(written(tmp_path, ious))
    assert lib.worst(run, 3) == [("mine", "bad"), ("mine", "slow"), ("mine", "good")]


def test_looks_of_a_disc():
    rows, cols = np.mgrid[:200, :300]
    away = np.hypot(rows - 100, cols - 120)
    image = np.random.default_rng(0).integers(90, 130, (200, 300, 3), np.uint8)
    image[away <= 50] += 60
    mask = (away <= 50).astype(np.int32)
    uncounted = (away > 50) & (cols > 150)
    image[uncounted], mask[uncounted] = 255, -1
    share, thickness, contrast = lib.looks(Sample("a", image, mask))
    assert share == pytest.approx(np.pi * 50**2 / 60_000, rel=0.01)
    assert thickness == pytest.approx(1 / np.sqrt(np.pi), rel=0.02)
    lab, ring = rgb2lab(image), (away > 50) & (away <= 56) & ~uncounted
    colours = lab[away <= 50], lab[ring]
    apart = np.linalg.norm(np.subtract(*(c.mean(0) for c in colours)))
    spread = np.sqrt(np.mean([c.var(0).sum() for c in colours]))
    assert contrast == pytest.approx(apart / spread, rel=0.02)


def test_the_sheet_shows_object_mask_and_clicks(tmp_path, monkeypatch, capsys):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    image, mask = np.full((100, 400, 3), 90, np.uint8), np.zeros((100, 400), np.uint8)
    mask[20:60, 30:70] = 255
    cv2.imwrite(str(tmp_path / "images/a.png"), image)
    cv2.imwrite(str(tmp_path / "masks/a.png"), mask)
    monkeypatch.setitem(lib.ALONE, "square", Square)
    file = written(tmp_path, {"a": [0.6] * 3})
    monkeypatch.setattr(sys, "argv", ["", str(file), f"mine={tmp_path}", f"{tmp_path}/s.png"])
    lib.main()
    out = capsys.readouterr().out.splitlines()
    assert out[1].split()[:4] == ["a", "0.600", "0.600", "0.040"]
    assert out[4].split() == ["thick", "0.500", "to", "0.500", "1", "20.00", "1"]
    panel = cv2.imread(str(tmp_path / "s.png"))[lib.BAR :, : lib.PANEL, ::-1]
    assert (panel[30, [69, 20]] == [lib.OBJECT, lib.MASK]).all()
    assert (panel[40, 40] == lib.figures.POSITIVE).all()
    written(tmp_path, {"a": [0.7] * 3})
    with pytest.raises(InputError, match="a got other masks"):
        lib.main()


def test_quarters_of_all_objects(tmp_path, monkeypatch):
    ious = {f"{k}": [0.5] * 19 + [0.8 + k / 40] for k in range(8)} | {"flat": [0.9]}
    (run,) = results.load(written(tmp_path, ious))
    found = {f"{k}": (0.1, 1 - k / 10, k / 10) for k in range(8)} | {"flat": (0.1, 0.1, np.nan)}
    monkeypatch.setattr(lib, "looks", found.get)

    class Names:
        def read(self, id):
            return id

    rows = [line.split() for line in lib.quarters(run, {"mine": Names()})]
    assert [row[0] for row in rows] == ["thick"] * 4 + ["contrast"] * 4
    assert rows[0][1:] == ["0.100", "to", "0.400", "3", "13.67", "0"]
    assert rows[3][1:] == ["0.900", "to", "1.000", "2", "20.00", "2"]
    assert [row[-3:] for row in rows[4:]] == [["2", "20.00", "2"]] * 2 + [["2", "20.00", "0"]] * 2


def test_a_data_set_is_missing(tmp_path, monkeypatch):
    file = written(tmp_path, {"a": [0.6]})
    monkeypatch.setattr(sys, "argv", ["", str(file), "other=x", f"{tmp_path}/s.png"])
    monkeypatch.setattr(lib, "open_datasets", lambda datasets: [])
    with pytest.raises(InputError, match="mine was evaluated"):
        lib.main()


def test_a_network_is_refused(tmp_path):
    (run,) = results.load(written(tmp_path, {"a": [0.5]}, "network"))
    with pytest.raises(InputError, match="network is none of shipped, fused, "):
        lib.again(run, {}, "mine", "a")
