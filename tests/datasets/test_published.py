"""published: values that the published sets do not have are read as published, and noted."""

import numpy as np
import pytest
from PIL import Image

from mis_jax.datasets import published
from mis_jax.datasets.reading import Reading
from mis_jax.errors import InputError


def test_other_values_are_read_as_published_and_noted(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[255, 128, 129, 64, 1, 0]], np.uint8)).save(path)
    found = published.read_grabcut(path, Reading())
    assert (found.pixels.tolist(), found.notes) == ([[1, -1, 1, 0, 1, 0]], (published.ODD,))
    Image.fromarray(np.array([[255, 128, 1, 0]], np.uint8)).save(path)
    assert published.read_grabcut(path, Reading()).notes == ()


def test_soft_edges_of_davis_are_read_as_published_and_noted(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[255, 128, 0]], np.uint8)).save(path)
    found = published.read_davis(path, Reading())
    assert (found.pixels.tolist(), found.notes) == ([[1, 1, 0]], (published.ANY,))
    Image.fromarray(np.array([[255, 0, 0]], np.uint8)).save(path)
    assert published.read_davis(path, Reading()).notes == ()


def test_a_palette_is_read_by_its_colours(tmp_path):
    """As `cv2.imread` does, of whose channels the first is blue."""
    picture = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8))
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255, 9, 9, 128])
    picture.save(tmp_path / "a.png")
    assert published.read_grabcut(tmp_path / "a.png", Reading()).pixels.tolist() == [[0, 0, 1, -1]]
    assert published.read_davis(tmp_path / "a.png", Reading()).pixels.tolist() == [[0, 1, 1, 1]]


@pytest.mark.parametrize("read", [published.read_davis, published.read_grabcut])
def test_files_that_cannot_be_read_are_named(tmp_path, read):
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("missing.png", "empty.png"):
        with pytest.raises(InputError, match=f"{name} cannot be read; save it as PNG"):
            read(tmp_path / name, Reading())
