"""Runs on labelled objects in place of merge trees: their samples, and where runs begin."""

import itertools
import json

import jax
import numpy as np
import pytest
from PIL import Image

from mis_jax import config
from mis_jax.datasets import images, scenes
from mis_jax.errors import InputError
from mis_jax.models import loading
from mis_jax.records import masks, store
from mis_jax.training import initial, input


def still_stream(folder, **fields):
    """The stream of the records of a folder of images of 64 x 64 pixels; by default unmoved."""
    fields = {**config.default().data, "max_points": 24, "gamma": 0.8, "seed": 0, **fields}
    fields |= {"threads": 0, "crop": 64, "batch_size": 4, "min_area": 0.0, "min_object_area": 1}
    fields |= {"keep_background": 0.0}
    del fields["targets"]  # of the evidence network
    return input.train_stream(store.shard_files(folder), **fields)


STILL = {k: 0.0 for k in ("rotate90", "flip", "shift_scale_rotate", "brightness_contrast")}
STILL |= {"rgb_shift": 0.0, "scale": (1.0, 1.0)}


def test_samples_of_labelled_scenes(tmp_path):
    """Unmoved crops show the image and its mask as they are; moved ones some of the object."""
    scenes.write_benchmark(tmp_path, 4, size=(64, 64))
    masks.write("mine", tmp_path, tmp_path / "records")
    batch = next(still_stream(tmp_path / "records", **STILL))
    for image, mask, index in zip(batch["image"], batch["mask"], batch["index"], strict=True):
        name = f"scene_{index:05d}.png"
        picture, truth = (images.read_image(tmp_path / p / name) for p in ("images", "masks"))
        np.testing.assert_array_equal(image, picture)
        np.testing.assert_array_equal(mask, truth[..., 0] > 0)
    assert next(still_stream(tmp_path / "records"))["mask"].any((1, 2)).all()


def test_samples_of_overlapping_objects(tmp_path):
    """Each is drawn whole, whatever lies over it."""
    boxes = [(4, 4, 40, 40), (20, 20, 60, 60), (24, 24, 36, 36)]
    outlines = [[x, y, X, y, X, Y, x, Y] for x, y, X, Y in boxes]
    annotations = [{"id": k, "image_id": 1, "segmentation": [o]} for k, o in enumerate(outlines)]
    content = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": annotations}
    (tmp_path / "all.json").write_text(json.dumps(content))
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "a.png")
    masks.write("mine", tmp_path / "all.json", tmp_path / "records")
    areas = set()
    stream = still_stream(tmp_path / "records", **STILL)
    for batch in itertools.islice(stream, 8):
        for mask in batch["mask"]:
            rows, columns = np.nonzero(mask)
            box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            assert box in boxes
            assert mask.sum() == (box[2] - box[0]) * (box[3] - box[1])
            areas.add(box)
    assert areas == set(boxes)


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
