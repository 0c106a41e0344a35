"""`mis-jax check`: what it counts, that propose and evaluate say the same, and the page."""

import json
import re

import cv2
import numpy as np
import pytest
from image_files import encoded, picture, png, saved
from PIL import Image

from mis_jax import config
from mis_jax.datasets import Reading, benchmarks, images
from mis_jax.errors import InputError
from mis_jax.features import extractors
from mis_jax.inspection import check, contact_sheet, readings
from mis_jax.records import propose

DISC = cv2.circle(np.zeros((120, 160), np.uint8), (80, 60), 40, 255, -1)


def turned(tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    return exif


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos of every oddity that is counted, in one folder."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    photo = picture(120, 160)
    plain = encoded(photo, "JPEG", quality=95)
    put = {
        "a.jpg": plain,
        "b.jpg": plain,
        "turned.jpg": encoded(picture(120, 160, 1), "JPEG", exif=turned(6)),
        "deep.png": png(picture(120, 160, 2).astype(np.uint16) << 4),
        "small.png": png(picture(40, 50, 3)),
        "cut.jpg": plain[: len(plain) // 2],
        "white.png": png(np.full((90, 90, 3), 255, np.uint8)),
        "empty.jpg": b"",
        "flat.bmp": encoded(DISC, "BMP"),
    }
    for name, data in put.items():
        saved(folder / "images" / name, data)
    saved(folder / "images" / "readme.txt", b"not an image")
    for name, mask in {"a": DISC, "b": DISC, "deep": DISC // 2, "turned": DISC.T}.items():
        cv2.imwrite(str(folder / "masks" / f"{name}.png"), mask)
    cv2.imwrite(str(folder / "masks" / "small.png"), picture(40, 50, 3)[..., 0])
    return folder


@pytest.fixture(scope="module")
def result(folder, tmp_path_factory):
    """The lines, check.json and check.html."""
    output = tmp_path_factory.mktemp("check")
    opened = [benchmarks.open_benchmark("mine", folder)]
    text = check.check(str(folder), opened, output, config.load("tiny_cpu"), Reading())
    page = (output / "check.html").read_text("utf-8")
    return text.splitlines(), json.loads((output / "check.json").read_text("utf-8")), page


def test_images_are_counted_by_kind(folder, result):
    lines, document, _ = result
    found = document["images"]
    assert lines[0] == f"{folder}: 9 images, 6 can be used"
    assert found["kinds"] == {"JPEG": 3, "PNG of 16 bits": 1, "PNG": 1, "BMP": 1}
    assert found["sizes"] == {"160x120": 4, "120x160": 1, "50x40": 1}
    assert found["orientations"] == {"1": 5, "6": 1}
    assert found["copies"] == {"images/b.jpg": "images/a.jpg"}
    assert found["ignored"] == {".txt": 1}
    assert set(found["skipped"]) == {
        *(f"images/{name}" for name in ("cut.jpg", "white.png", "empty.jpg")),
        *(f"masks/{name}.png" for name in ("a", "b", "deep", "turned", "small")),
    }
    assert "1 have a side under 64 pixels (images/small.png)" in lines
    assert "1 are turned by EXIF: 1 tag 6" in lines
    assert "1 hold the same bytes as another (images/b.jpg as images/a.jpg)" in lines
    assert "sizes: 50 x 40 to 160 x 120 pixels, median 160 x 120" in lines


def test_propose_says_the_same(folder, result, tmp_path):
    summary = propose.propose(
        folder,
        tmp_path / "records",
        extractor=extractors.EmbeddedExtractor(8),
        max_side=448,
        shard_size=4,
        batch_size=1,
        threads=1,
    )
    lines = str(summary).splitlines()
    said = [line for line in lines if re.match(r"  images/|left out |\d+ files?: ", line)]
    assert len(said) == 3 + 1 + 2
    assert set(said) <= set(result[0])
    skipped = result[1]["images"]["skipped"]
    assert dict(summary.report.skipped) == {k: v for k, v in skipped.items() if "masks/" not in k}


def test_objects_are_counted_as_evaluate_counts_them(folder, result):
    lines, document, _ = result
    found = document["datasets"]["mine"]
    benchmark = benchmarks.open_benchmark("mine", folder)
    assert {s.id: round(float((s.mask == 1).mean()), 6) for s in benchmark} == found["areas"]
    assert found["skipped"] == benchmark.skipped
    assert "values from" in found["skipped"]["small"]
    assert found["copies"] == {"b": "a"}
    assert "mine: 4 objects can be read" in lines
    assert "mine: copies of other objects: 1 (b of a)" in lines
    assert any(line.startswith("mine: 5 left out: ") for line in lines)
    assert any("turned along" in line or "16 bits" in line for line in lines)


def test_every_kind_of_reason_is_told_once(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for k in range(3):
        cv2.imwrite(str(tmp_path / "images" / f"soft{k}.png"), picture(120, 160))
        cv2.imwrite(str(tmp_path / "masks" / f"soft{k}.png"), cv2.blur(DISC, (9, 9)))
    cv2.imwrite(str(tmp_path / "images" / "alone.png"), picture(120, 160))
    lines = readings.look_at_objects(benchmarks.open_benchmark("mine", tmp_path), 1).lines()
    assert lines[1].startswith("mine: 4 left out: 3 masks whose object is open")
    assert lines[2].startswith(f"mine: soft0: the mask {tmp_path / 'masks' / 'soft0.png'} has ")
    assert lines[3:] == ["mine: alone.png: no mask of this name"]


def test_many_images_that_cannot_be_used_are_counted_by_the_reason():
    skipped = [[f"{k}.jpg", "blank: every pixel is nearly alike"] for k in range(23)]
    skipped += [[f"x{k}.jpg", f"truncated or damaged (byte {k})"] for k in range(1_005)]
    lines = readings.skipped_lines(skipped)
    assert lines[0] == "skipped 1,028 that cannot be used: 1,005 truncated or damaged, 23 blank"
    assert lines[-1] == "  and 1,008 more"


def test_the_page_holds_the_readings_and_needs_nothing_else(result):
    _, _, page = result
    assert page.count("data:image/jpeg;base64,") == 6 + 4
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    for text in ("images/deep.png", "160 x 120, JPEG", "$"):
        assert (text in page) == (text != "$")


def test_masks_lie_on_things_in_the_page():
    image = np.full((60, 80, 3), 200, np.uint8)
    mask = np.zeros((60, 80), np.int32)
    mask[20:40, 20:60], mask[:5] = 1, -1
    panel = contact_sheet._marked(image, mask)
    np.testing.assert_array_equal(panel[25:35, 25:55], image[25:35, 25:55])
    assert panel[50, 10].max() < 120
    assert panel[2, 10, 0] > panel[2, 10, 1] + 50


def test_examples_have_every_kind_of_note():
    notes = {k: ("odd",) for k in (40, 41, 90)} | {77: ("odd", "even")}
    chosen = readings.examples(range(100), lambda k: notes.get(k, ()), 10)
    assert chosen[:2] == [40, 77]
    assert chosen[2:5] == [0, 11, 22]
    assert len(chosen) == 10
    assert readings.examples([], lambda k: (), 10) == []


def test_the_command(command, folder, tmp_path):
    status, out, _ = command("check", folder, "--output", tmp_path / "out", "--masks=half")
    assert status == 0
    assert out.endswith(f"Open {tmp_path / 'out' / 'check.html'} in a browser.\n")
    assert not (folder / "check").exists()
    status, _, err = command("check")
    assert (status, "usage: mis-jax check IMAGES" in err) == (2, True)
    status, _, err = command("check", tmp_path / "nowhere")
    assert (status, "does not exist" in err) == (2, True)


def test_values_that_the_user_fixes_are_read_so(command, folder, tmp_path):
    words = folder / "images" / "deep.png", "--config.images.range=(0, 65535)"
    assert command("check", *words, "--output", tmp_path)[0] == 0
    found = json.loads((tmp_path / "check.json").read_text("utf-8"))["images"]
    assert found["notes"] == {}
    with pytest.raises(InputError, match="range"):
        images.read_picture(folder / "images" / "deep.png", Reading(range=(1, 0)))
