"""Features of mixed batches against single images in float64, and the choice of the extractor."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file
from vit_reference import assert_close, random_state_dict, reference_forward, reference_pos_embed

from mis_jax.errors import InputError
from mis_jax.features import descriptor, extractors, vit_extractor
from mis_jax.models import vit

TINY = {
    "dino-vits8": vit.Variant(dim=24, depth=1, heads=3, patch=8, grid=5),
    "dino-vits16": vit.Variant(dim=16, depth=1, heads=2, patch=16, grid=3),
    "dinov2-vits14": vit.Variant(dim=16, depth=1, heads=2, patch=14, grid=3, layer_scale=True),
    "mae-vitb16": vit.Variant(dim=16, depth=1, heads=2, patch=16, grid=3),
}
SIZES = [(37, 50), (40, 40), (64, 64), (50, 37), (8, 100), (5, 3), (40, 40), (61, 64), (63, 1)]


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Small models under published names, {name: (file, tensors)}, and an empty cache."""
    monkeypatch.setenv("MIS_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vit, "VARIANTS", TINY)
    files = {}
    for name, variant in TINY.items():
        tensors = random_state_dict(variant)
        save_file(tensors, tmp_path / f"{name}.safetensors")
        files[name] = tmp_path / f"{name}.safetensors", tensors
    return files


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]


def preprocess(image, patch, scale):
    """MIS `AlignedResize`, then ToTensor and Normalize."""
    height, width = (round(side * scale) for side in image.shape[:2])
    if height % patch:
        height += patch - height % patch
    if width % patch:
        width += patch - width % patch
    image = np.asarray(Image.fromarray(image).resize((width, height)), "d") / 255
    return (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]


def assert_features(actual, images, name, tensors, scale, mode="bicubic_offset", final_norm=True):
    assert len(actual) == len(images)
    for image, found in zip(images, actual, strict=True):
        pixels = preprocess(image, TINY[name].patch, scale)
        expected = reference_forward(tensors, pixels, TINY[name], mode, final_norm)
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        assert_close(found, expected)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_mixed_sizes(tiny, images, batch_size):
    """Each image gets what it would get alone, in order, out of one program per bucket."""
    path, tensors = tiny["dino-vits8"]
    extractor = vit_extractor.VitExtractor("dino-vits8", path, batch_size=batch_size, bucket=64)
    assert_features(extractor(images), images, "dino-vits8", tensors, scale=1)
    assert extractor.compiled == 2  # 64 x 64 and 64 x 128
    again = extractor(images[::-1] + images[:1])
    assert_features(again, images[::-1] + images[:1], "dino-vits8", tensors, scale=1)
    assert extractor.compiled == 2
    assert extractor([]) == []


@pytest.mark.parametrize(
    ("pos_interp", "final_norm", "scale_to_patch8"),
    [("bicubic_offset", True, True), ("bilinear", False, True), ("bilinear", True, False)],
)
def test_settings(tiny, images, pos_interp, final_norm, scale_to_patch8):
    path, tensors = tiny["dino-vits16"]
    extractor = extractors.make_extractor(
        "dino-vits16",
        str(path),
        pos_interp=pos_interp,
        final_norm=final_norm,
        scale_to_patch8=scale_to_patch8,
        bucket=50,  # made a multiple of the patch
    )
    assert extractor.device
    assert extractor.stride == (8 if scale_to_patch8 else 16)
    for setting in (f"{pos_interp=}".replace("'", ""), f"{final_norm=}", f"{scale_to_patch8=}"):
        assert setting in extractor.name
    scale = 2 if scale_to_patch8 else 1
    images = images[:4]
    assert_features(
        extractor(images), images, "dino-vits16", tensors, scale, pos_interp, final_norm
    )


@pytest.mark.parametrize(
    ("size", "aligned"),
    [((375, 500), (376, 504)), ((333, 500), (336, 504)), ((240, 320), (240, 320))],
)
def test_aligned_sizes(tiny, size, aligned):
    """Sizes that the official preprocessing gives; the grid is the same for every patch."""
    image = np.zeros((*size, 3), np.uint8)
    for name, factor in (("dino-vits8", 1), ("dino-vits16", 2), ("dinov2-vits14", 1.75)):
        extractor = vit_extractor.VitExtractor(name, tiny[name][0])
        assert extractor._prepare(image).shape[:2] == (factor * aligned[0], factor * aligned[1])


resize = jax.jit(vit_extractor.padded_pos_embed, static_argnames=("shape", "mode"))


@settings(max_examples=50, deadline=None)
@given(
    grids=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 9)), min_size=5, max_size=5),
    mode=st.sampled_from(extractors.POS_INTERP),
)
@example(grids=[(5, 5), (1, 9), (7, 9), (3, 2), (5, 6)], mode="bicubic_offset")
def test_padded_pos_embed(grids, mode):
    table = np.random.default_rng(1).normal(size=(1, 26, 4)).astype("f")
    padded = resize(jnp.asarray(table), jnp.asarray(grids), shape=(7, 9), mode=mode)
    assert padded.shape == (5, 64, 4)
    for found, (height, width) in zip(np.asarray(padded), grids, strict=True):
        expected = reference_pos_embed(table, (height, width), mode)
        np.testing.assert_array_equal(found[0], table[0, 0])
        inside = found[1:].reshape(7, 9, 4)[:height, :width].reshape(-1, 4)
        assert_close(inside, expected[1:])


def test_a_batch_starts_before_the_last_is_waited_for(tiny, images, monkeypatch):
    extractor = vit_extractor.VitExtractor("dino-vits8", tiny["dino-vits8"][0], batch_size=1)
    events, start, collect = [], extractor._start, vit_extractor._collect

    def logged_start(*arguments):
        events.append("start")
        return start(*arguments)

    def logged_collect(*arguments):
        events.append("collect")
        return collect(*arguments)

    monkeypatch.setattr(extractor, "_start", logged_start)
    monkeypatch.setattr(vit_extractor, "_collect", logged_collect)
    batches = 3
    extractor([images[2]] * batches * jax.local_device_count())
    assert events == ["start", "start", "collect", "start", "collect", "collect"]


def test_large_images_come_in_smaller_batches(tiny, images, monkeypatch):
    path, tensors = tiny["dino-vits8"]
    extractor = vit_extractor.VitExtractor("dino-vits8", path, batch_size=4)
    monkeypatch.setattr(vit_extractor, "MAX_SCORES", 2 * 3 * (1 + 8 * 8) ** 2)
    devices = jax.local_device_count()
    assert extractor._images_at_once((64, 64)) == 2 * devices
    assert extractor._images_at_once((64, 128)) == devices
    assert_features(extractor(images), images, "dino-vits8", tensors, scale=1)


# ---- which extractor


def test_auto_without_weights_says_so(tiny, images, capfd):
    extractors._say.cache_clear()
    extractor = extractors.make_extractor()
    assert "the embedded descriptor" in capfd.readouterr().err
    extractors.make_extractor()
    assert capfd.readouterr().err == ""  # once
    assert not extractor.device
    assert (extractor.stride, extractor.name) == (4, "embedded v3 stride=4")
    for image, found in zip(images[:3], extractor(images[:3]), strict=True):
        np.testing.assert_array_equal(found, descriptor.embedded(image, 4))
        assert found.shape[:2] == (-(-image.shape[0] // 4), -(-image.shape[1] // 4))


@pytest.mark.parametrize("given", [True, False])
def test_auto_with_weights(tiny, tmp_path, capfd, given):
    extractors._say.cache_clear()
    path = tiny["dino-vits8"][0]
    if not given:
        (tmp_path / "cache").mkdir()
        path = path.rename(tmp_path / "cache" / path.name)
    extractor = extractors.make_extractor(weights=str(path) if given else "")
    assert extractor.name.startswith("dino-vits8 weights=dino-vits8.safetensors:")
    assert f"dino-vits8 with the weights {path}" in capfd.readouterr().err


def test_named_models_are_downloaded(tiny, monkeypatch):
    path = tiny["dino-vits16"][0]
    asked = []
    monkeypatch.setattr(extractors, "download_weights", lambda name: asked.append(name) or path)
    assert extractors.make_extractor("dino-vits16").name.startswith("dino-vits16 ")
    assert asked == ["dino-vits16"]


def test_names_tell_weights_apart(tiny, tmp_path):
    path, tensors = tiny["dino-vits8"]
    name = extractors.make_extractor("dino-vits8", str(path)).name
    save_file({**tensors, "norm.bias": tensors["norm.bias"] + 1}, path)
    assert extractors.make_extractor("dino-vits8", str(path)).name != name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "dino-vits9"}, "dino-vits16"),
        ({"model": "mae-vitb16"}, "one of auto, embedded, dino-vits8, dino-vits16, dinov2-vits14."),
        ({"pos_interp": "nearest"}, "bicubic_offset or bilinear"),
        ({"model": "embedded", "weights": "x.pth"}, "no weights"),
        ({"model": "dino-vits8", "weights": "nowhere.pth"}, "no weights file nowhere.pth"),
    ],
)
def test_what_a_person_can_get_wrong(tiny, arguments, message):
    with pytest.raises(InputError, match=message):
        extractors.make_extractor(**arguments)


def test_weights_of_another_model(tiny):
    with pytest.raises(InputError, match="of another shape: blocks"):
        extractors.make_extractor("dino-vits16", str(tiny["dino-vits8"][0]))
