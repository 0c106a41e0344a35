"""Records of labelled images: a photo once with all its objects, SBD's rule for SBD alone."""

import json
import os

import cv2
import numpy as np
import pytest
import scipy.io
from PIL import Image, ImageOps

from mis_jax.datasets import benchmarks, images, scenes
from mis_jax.datasets.reading import Reading
from mis_jax.errors import InputError
from mis_jax.records import masks, schema, store


def write_instances(path, labels):
    inst = np.empty((1, 1), [(f, object) for f in ("Segmentation", "Boundaries", "Categories")])
    inst[0, 0] = (labels, np.zeros(2), np.zeros(2))
    scipy.io.savemat(path, {"GTinst": inst})


def sbd(folder, count=5):
    """SBD's layout with `count` images of two objects, of which the second has none."""
    for part in ("img", "inst"):
        (folder / part).mkdir(parents=True)
    scenes.write_benchmark(folder / "scenes", count, size=(64, 80))
    for k in range(count):
        labels = np.zeros((64, 80), np.uint8)
        if k != 1:
            labels[4:30, 5:40], labels[35:60, 20:70] = 1, 2
        write_instances(folder / "inst" / f"n{k}.mat", labels)
        picture = images.read_image(folder / "scenes" / "images" / f"scene_{k:05d}.png")
        (folder / "img" / f"n{k}.jpg").write_bytes(images._encode(picture, ".jpg"))
    names = [f"n{k}" for k in range(count)]
    (folder / "train.txt").write_text("\n".join(reversed(names)) + "\n")
    return folder


def test_the_first_labelled_images_of_sbd(tmp_path):
    source = sbd(tmp_path / "sbd")
    text = masks.write("sbd", source, tmp_path / "all")
    assert text.startswith("4 labelled images, 8 objects, in 1 shards")
    assert "1 left out: 1 mask without an object pixel\n  n1: the mask has no object" in text
    found = list(store.read_records(tmp_path / "all"))
    assert [r.id for r in found] == ["n4", "n3", "n2", "n0"]
    assert all(set(np.unique(r.tree.labels)) == {0, 1, 2} for r in found)
    assert found[0].image == (source / "img" / "n4.jpg").read_bytes()
    masks.write("SBD", source, tmp_path / "few", 0.59)  # 2.95 images
    assert [r.id for r in store.read_records(tmp_path / "few")] == ["n4", "n3"]
    with pytest.raises(InputError, match="begun with other images or settings"):
        masks.write("SBD", source, tmp_path / "few", 0.8)
    for few in (0.1, 0.0, 1.5):
        with pytest.raises(InputError, match=f"--few={few} keeps none of 5"):
            masks.write("sbd", source, tmp_path / "none", few)
    with pytest.raises(InputError, match=r"train\.txt does not exist"):
        masks.write("sbd", tmp_path, tmp_path / "none")


def test_what_sbds_rule_leaves_out_is_named(tmp_path):
    """Of SBD alone."""
    source = sbd(tmp_path / "sbd", 3)
    labels = np.zeros((64, 80), np.uint8)
    labels[range(3), range(3)], labels[range(10, 60), range(10, 60)] = 1, 2  # 3 of 9, 50 of 2500
    write_instances(source / "inst" / "n0.mat", labels)
    labels[:10] = 0
    write_instances(source / "inst" / "n2.mat", labels)
    text = masks.write("sbd", source, tmp_path / "records")
    assert text.startswith("1 labelled images, 1 objects")
    assert "3 left out: 2 objects too thin for SBD's rule, 1 mask without" in text
    assert "  n0_2: it fills less than 0.08 of its box, SBD's rule" in text
    (record,) = store.read_records(tmp_path / "records")
    assert record.tree.mask(1).sum() == record.tree.count + 2 == 3


@pytest.mark.parametrize("orientation", range(2, 9))
def test_sbds_objects_are_turned_with_their_photo(tmp_path, orientation):
    """Where they are drawn on the photo as stored."""
    source = sbd(tmp_path / "sbd", 1)
    stored = Image.open(source / "img" / "n0.jpg")
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(source / "img" / "n0.jpg", exif=exif)
    labels = np.zeros((64, 80), np.uint8)
    labels[4:30, 5:40] = 1
    write_instances(source / "inst" / "n0.mat", labels)
    tagged = Image.fromarray(labels)
    tagged.save(tmp_path / "labels.png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "labels.png")))
    text = masks.write(
        "sbd", source, tmp_path / "records", 1.0, Reading(masks=frozenset(["stored"]))
    )
    assert "1 file: its mask is drawn on the photo as stored, and was turned" in text
    (record,) = store.read_records(tmp_path / "records")
    np.testing.assert_array_equal(record.tree.mask(1), upright == 1)
    text = masks.write("sbd", source, tmp_path / "open")
    open = "1 file: whether its mask is drawn before or after the EXIF rotation cannot be known"
    assert (open in text) == (orientation < 5)


def test_what_is_not_counted_is_background_and_said(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    mask = np.zeros((64, 80), np.uint8)
    mask[10:30, 10:30], mask[30:33] = 255, 128
    cv2.imwrite(str(tmp_path / "images" / "a.jpg"), np.zeros((64, 80, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), mask)
    text = masks.write("mine", tmp_path, tmp_path / "records")
    assert text.endswith(f"1 file: {masks.VOID} (a.jpg)")
    (record,) = store.read_records(tmp_path / "records")
    np.testing.assert_array_equal(record.tree.mask(1), mask == 255)


def test_a_thin_object_of_any_other_folder_is_kept(tmp_path):
    (tmp_path / "mine" / "images").mkdir(parents=True)
    (tmp_path / "mine" / "masks").mkdir()
    mask = np.zeros((64, 80), np.uint8)
    mask[[0, 30, 60], [0, 35, 70]] = 255  # 3 pixels of a box of 4331
    cv2.imwrite(str(tmp_path / "mine" / "images" / "a.jpg"), np.zeros((64, 80, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "mine" / "masks" / "a.png"), mask)
    text = masks.write("mine", tmp_path / "mine", tmp_path / "records")
    assert text == f"1 labelled images, 1 objects, in 1 shards: {tmp_path / 'records'}"
    (record,) = store.read_records(tmp_path / "records")
    np.testing.assert_array_equal(record.tree.mask(1), mask > 0)
    assert record.image == (tmp_path / "mine" / "images" / "a.jpg").read_bytes()


def coco(folder, counts, suffix=".jpg", size=(120, 160), **exif):
    """Noisy photos, the k-th with counts[k] overlapping boxes, as COCO's annotations."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    entries, annotations = [], []
    for k, count in enumerate(counts):
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"p{k}{suffix}", **exif)
        entries.append({"id": k, "file_name": f"p{k}{suffix}"})
        entries[-1] |= {"height": size[0], "width": size[1]}
        for _ in range(count):
            x, y = (int(v) for v in rng.integers(0, 50, 2))
            box = [x, y, x + 60, y, x + 60, y + 40, x, y + 40]
            annotations.append({"id": len(annotations), "image_id": k, "segmentation": [box]})
    content = {"images": entries, "annotations": annotations}
    (folder / "all.json").write_text(json.dumps(content))
    return folder / "all.json"


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_record_is_a_photo_with_all_its_objects(tmp_path, suffix):
    """Its bytes once, as they are in the file, however many objects it has."""
    source = coco(tmp_path / "mine", [20], suffix, (480, 640))
    text = masks.write("mine", source, tmp_path / "records")
    assert text.startswith("1 labelled images, 20 objects, in 1 shards")
    (record,) = store.read_records(tmp_path / "records")
    photo = (tmp_path / "mine" / f"p0{suffix}").read_bytes()
    assert (record.id, record.image) == (f"p0{suffix}", photo)
    (shard,) = store.shard_files(tmp_path / "records")
    assert os.path.getsize(shard) < 2 * len(photo)
    assert len(schema.encode(record)) < 1.2 * len(photo)
    truth = list(benchmarks.open_benchmark("mine", source))
    assert record.tree.count == len(truth) == 20
    for label, sample in enumerate(truth, 1):
        np.testing.assert_array_equal(record.tree.mask(label), sample.mask == 1)


def test_few_counts_photos(tmp_path):
    source = coco(tmp_path / "mine", [1, 5, 0, 2, 3])  # the third has no object
    for few, ids in ((0.5, ["p0.jpg", "p1.jpg"]), (0.75, ["p0.jpg", "p1.jpg", "p3.jpg"])):
        masks.write("mine", source, tmp_path / str(few), few)
        records = list(store.read_records(tmp_path / str(few)))
        assert [r.id for r in records] == ids
        assert [r.tree.count for r in records] == [1, 5, 2][: len(ids)]
    with pytest.raises(InputError, match=r"--few=0\.2 keeps none of 4 images"):
        masks.write("mine", source, tmp_path / "none", 0.2)


@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_objects_lie_on_the_photo_as_it_is_seen(tmp_path, orientation):
    """Drawn on the stored pixels, they are turned with them."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = coco(tmp_path / "mine", [2], ".png", exif=exif)
    reading = Reading(masks=frozenset({"stored"}))
    text = masks.write("mine", source, tmp_path / "records", reading=reading)
    assert "1 file: its mask is drawn on the photo as stored" in text
    (record,) = store.read_records(tmp_path / "records")
    with Image.open(tmp_path / "mine" / "p0.png") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(images.decode(record.image), upright)
    content = json.loads(source.read_text())
    for label, annotation in enumerate(content["annotations"], 1):
        x0, y0, x1, _, _, y1, _, _ = annotation["segmentation"][0]
        stored = np.zeros((120, 160), np.uint8)
        stored[y0:y1, x0:x1] = 255
        turned = Image.fromarray(stored)
        turned.getexif()[0x0112] = orientation
        truth = np.asarray(ImageOps.exif_transpose(turned)) > 0
        np.testing.assert_array_equal(record.tree.mask(label), truth)


def test_objects_left_out_are_named_and_counted(tmp_path):
    source = coco(tmp_path / "mine", [2, 1, 1])
    content = json.loads(source.read_text())
    content["annotations"][0]["iscrowd"] = 1
    content["annotations"][3]["segmentation"] = [[500, 500, 510, 500, 510, 510]]
    source.write_text(json.dumps(content))
    (tmp_path / "mine" / "p1.jpg").write_bytes(b"no image")
    text = masks.write("mine", source, tmp_path / "records").splitlines()
    assert text[0].startswith("1 labelled images, 1 objects, in 1 shards")
    assert text[1].startswith("3 left out: 1 crowd of objects, ")
    assert all(kind in text[1] for kind in ("1 mask without", "1 unreadable image"))
    assert [line.split(":")[0] for line in text[2:]] == ["  p0_0", "  p1_2", "  p2_3"]


def test_all_shards_together_hold_every_photo(tmp_path, monkeypatch):
    monkeypatch.setattr(masks, "SHARD_SIZE", 2)
    source = coco(tmp_path / "mine", [1] * 7, size=(100, 120))
    assert "7 objects, in 4 shards" in masks.write("mine", source, tmp_path / "records")
    ids = [r.id for r in store.read_records(tmp_path / "records")]
    assert ids == [f"p{k}.jpg" for k in range(7)]


def test_a_folder_begun_with_other_photos_is_refused(tmp_path):
    source = coco(tmp_path / "mine", [1, 1])
    folder = tmp_path / "records"
    first = masks.write("mine", source, folder)
    assert masks.write("mine", source, folder) == first
    Image.fromarray(np.zeros((120, 160, 3), np.uint8)).save(tmp_path / "mine" / "p1.jpg")
    with pytest.raises(InputError, match="begun with other images or settings"):
        masks.write("mine", source, folder)
    with pytest.raises(InputError, match=r"masks was \[\] and is \['stored'\]"):
        masks.write("mine", source, folder, reading=Reading(masks=frozenset({"stored"})))
