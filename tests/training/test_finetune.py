"""Labelled objects in place of merge trees: their bytes, records, samples, and where runs begin."""

import jax
import numpy as np
import pytest
import scipy.io

from mis_jax import config
from mis_jax.datasets import images, objects, scenes
from mis_jax.datasets.objects import Objects
from mis_jax.errors import InputError
from mis_jax.models import loading
from mis_jax.records import masks, schema
from mis_jax.training import initial, input


def some_objects(kind="u1", seed=0):
    """Labels 0, 1, 3 and 300 or 200 in blocks of 8 x 8 pixels."""
    values = np.array([0, 1, 3, 300 if kind == "u2" else 200], kind)
    return Objects(np.random.default_rng(seed).choice(values, (5, 7)).repeat(8, 0).repeat(8, 1))


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_a_record_of_objects_comes_back(kind):
    labels = some_objects(kind)
    data = schema.encode(schema.Record("a", b"image", 40, 56, labels))
    back = schema.decode(data)
    assert (back.id, back.image, back.height, back.width) == ("a", b"image", 40, 56)
    assert back.tree.labels.dtype == labels.labels.dtype
    np.testing.assert_array_equal(back.tree.labels, labels.labels)
    assert schema.encode(back) == data


def test_damaged_objects_are_refused():
    data = some_objects().to_bytes()
    for length in range(len(data)):
        with pytest.raises(InputError, match="damaged"):
            Objects.from_bytes(data[:length])
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(InputError, match="damaged"):
            Objects.from_bytes(bytes(changed))
    for labels in (np.zeros((4, 4), "u1"), np.ones((4, 4), "i4"), np.ones(4, "u1")):
        with pytest.raises(InputError, match="labels"):
            Objects(labels)


def test_objects_are_drawn_alike_unless_too_small():
    labels = np.zeros((10, 10), np.uint8)
    labels[0, :2], labels[1, :4], labels[2:8] = 5, 7, 9  # 2, 4 and 60 % of the image
    rng, found = np.random.default_rng(0), Objects(labels)
    draw = lambda **limits: [found.sample(rng, **limits) for _ in range(600)]  # noqa: E731
    counts = np.bincount(draw(), minlength=10)
    assert counts.sum() == counts[[5, 7, 9]].sum()
    assert (counts[[5, 7, 9]] > 150).all()
    assert set(draw(min_area=0.02)) == {7, 9}  # at most this is too small
    assert set(draw(min_area=0.9)) == {5, 7, 9}  # all are
    seen = np.zeros((10, 10), int)
    seen[0], seen[9] = 3, 1
    assert set(draw(weights=seen.ravel())) == {5}
    assert set(draw(weights=np.zeros(100, int))) == {5, 7, 9}
    np.testing.assert_array_equal(found.mask(7), labels == 7)


def test_objects_that_fill_little_of_their_box_are_none():
    labels = np.zeros((100, 100), np.uint8)
    labels[:50, 0] = labels[0, :50] = 1  # 99 of 2500 pixels
    labels[60:72, 60:62] = 2
    labels[90:, 0] = labels[99, :20] = 3  # 29 of 200 pixels
    assert set(np.unique(objects.without_buggy(labels))) == {0, 2, 3}
    assert set(np.unique(objects.without_buggy(labels, 0.2))) == {0, 2}
    exact = np.zeros((10, 10), np.uint8)
    exact[0, :4] = exact[9, 6:] = 1  # exactly 0.08
    assert objects.without_buggy(exact).any()
    exact[0, 1] = 0
    assert not objects.without_buggy(exact).any()


def sbd(folder, count=5):
    """SBD's layout with `count` images of two objects, of which the second has none."""
    for part in ("img", "inst"):
        (folder / part).mkdir(parents=True)
    scenes.write_benchmark(folder / "scenes", count, size=(64, 80))
    for k in range(count):
        labels = np.zeros((64, 80), np.uint8)
        if k != 1:
            labels[4:30, 5:40], labels[35:60, 20:70] = 1, 2
        inst = np.empty((1, 1), [(f, object) for f in ("Segmentation", "Boundaries", "Categories")])
        inst[0, 0] = (labels, np.zeros(2), np.zeros(2))
        scipy.io.savemat(folder / "inst" / f"n{k}.mat", {"GTinst": inst})
        picture = images.read_image(folder / "scenes" / "images" / f"scene_{k:05d}.png")
        (folder / "img" / f"n{k}.jpg").write_bytes(images._encode(picture, ".jpg"))
    names = [f"n{k}" for k in range(count)]
    (folder / "train.txt").write_text("\n".join(reversed(names)) + "\n")
    return folder


def test_the_first_labelled_images_of_sbd(tmp_path):
    source = sbd(tmp_path / "sbd")
    text = masks.write("sbd", source, tmp_path / "all")
    assert text.startswith("4 labelled images in 1 shards")
    assert "left out n1: no object" in text
    found = list(schema.read_records(tmp_path / "all"))
    assert [r.id for r in found] == ["n4", "n3", "n2", "n0"]
    assert all(set(np.unique(r.tree.labels)) == {0, 1, 2} for r in found)
    assert found[0].image == (source / "img" / "n4.jpg").read_bytes()
    masks.write("SBD", source, tmp_path / "few", 0.59)  # 2.95 images
    assert [r.id for r in schema.read_records(tmp_path / "few")] == ["n4", "n3"]
    with pytest.raises(InputError, match="begun with other images or settings"):
        masks.write("SBD", source, tmp_path / "few", 0.8)
    for few in (0.1, 0.0, 1.5):
        with pytest.raises(InputError, match=f"--few={few} keeps none of 5"):
            masks.write("sbd", source, tmp_path / "none", few)
    with pytest.raises(InputError, match=r"train\.txt does not exist"):
        masks.write("sbd", tmp_path, tmp_path / "none")


def test_samples_of_labelled_scenes(tmp_path):
    """Unmoved crops show the image and its mask as they are; moved ones some of the object."""
    scenes.write_benchmark(tmp_path, 4, size=(64, 64))
    masks.write("mine", tmp_path, tmp_path / "records")
    c = config.default()
    fields = {**c.data, "max_points": 24, "gamma": 0.8, "seed": 0, "threads": 0, "crop": 64}
    fields |= {"batch_size": 4, "min_area": 0.0, "min_object_area": 1, "keep_background": 0.0}
    still = {k: 0.0 for k in ("rotate90", "flip", "shift_scale_rotate", "brightness_contrast")}
    still |= {"rgb_shift": 0.0, "scale": (1.0, 1.0)}
    files = schema.shard_files(tmp_path / "records")
    batch = next(input.train_stream(files, **fields | still))
    for image, mask, index in zip(batch["image"], batch["mask"], batch["index"], strict=True):
        name = f"scene_{index:05d}.png"
        picture, truth = (images.read_image(tmp_path / p / name) for p in ("images", "masks"))
        np.testing.assert_array_equal(image, picture)
        np.testing.assert_array_equal(mask, truth[..., 0] > 0)
    assert next(input.train_stream(files, **fields))["mask"].any((1, 2)).all()


def test_a_run_begins_from_another_of_its_kind(monkeypatch):
    c, params = config.default(), {"a": {"b": np.ones((2, 3), np.float32)}}
    monkeypatch.setattr(loading, "load", lambda source: (c, params))
    fields = config.default().model
    fields.start = "RUN"
    shapes = jax.tree.map(np.zeros_like, params)
    jax.tree.map(np.testing.assert_array_equal, initial.start_from(fields, shapes), params)
    with pytest.raises(InputError, match=r"start=RUN is a model of variant B .* 448"):
        initial.start_from(fields, {"a": {"b": np.ones((3, 2))}})
    c.model.init = "mae"
    with pytest.raises(InputError, match=r"began from mae, .*give --config\.model\.init=mae"):
        initial.start_from(fields, shapes)
