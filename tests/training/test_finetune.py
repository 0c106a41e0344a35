"""Runs on labelled objects in place of merge trees: their samples, and where runs begin."""

import jax
import numpy as np
import pytest

from mis_jax import config
from mis_jax.datasets import images, scenes
from mis_jax.errors import InputError
from mis_jax.models import loading
from mis_jax.records import masks, schema
from mis_jax.training import initial, input


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
