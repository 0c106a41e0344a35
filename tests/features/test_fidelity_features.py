"""Feature extractors and MAE's encoder beside the public classes, by recorded outputs of these.

The small models are of their published sizes; of the others, all designs have their published
heads, patches and grids, but two blocks and few channels.
"""

import dataclasses

import fidelity
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from vit_reference import variant_shapes

from mis_jax.features import vit_extractor
from mis_jax.models import vit

REAL = {  # model -> sizes of images; 112 x 112 is the grid of the pretraining, at patch 16
    "dino-vits8": [(93, 171)],
    "dino-vits16": [(93, 171), (112, 112)],
    "dinov2-vits14": [(93, 171)],
    "mocov3-vits16": [(93, 171), (112, 112)],
}
TOLERANCE = 1e-5  # of the largest feature
GRIDS = {  # side of the pretraining grid -> grids
    14: [(12, 22), (14, 14), (7, 28), (28, 28), (47, 63), (1, 5)],
    28: [(47, 63), (14, 56), (60, 45)],
    37: [(12, 22), (63, 47), (37, 37), (74, 50)],
}
SIDES = range(1, 1201)


def thin(model):
    v = vit.VARIANTS[model]
    return dataclasses.replace(v, dim=16 * v.heads, depth=2)


def thin_sizes(model):
    if model.startswith("mae-"):
        return [(224, 224)]
    oblong = vit.VARIANTS[model].patch == 16  # as many patches as the pretraining has
    return [(93, 171), (56, 224) if oblong else (80, 80)]


def make_weights(shapes, faint=False):
    """From a seed; `faint`: with tokens so small that the epsilon of LayerNorm matters."""
    scale = np.float32(0.01 if faint else 1)
    tokens = ("cls_token", "pos_embed", "patch_embed.")
    tensors = fidelity.state_dict(shapes)
    return {key: scale * x if key.startswith(tokens) else x for key, x in tensors.items()}


def pictures(sizes):
    return [fidelity.image("features", *size) for size in sizes]


def make_extractor(kind, model, path):
    """One compiled program for all images of `REAL`, or of `thin_sizes`."""
    side = (28 if kind == "thin" else 22) * vit.VARIANTS[model].patch
    scaled = not model.startswith("mae-")
    return vit_extractor.VitExtractor(
        model, path, scale_to_patch8=scaled, batch_size=1, bucket=side
    )


def position_table(side):
    return fidelity.generator("positions", side).standard_normal((1, 1 + side**2, 2)).astype("f")


@pytest.fixture
def one_device(monkeypatch):
    """The others would compute blank images."""
    first = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: first)


@pytest.fixture(scope="module")
def recorded():
    return fidelity.load("features")


def check(kind, model, sizes, tmp_path, recorded):
    tensors = make_weights(variant_shapes(vit.VARIANTS[model]), faint=kind == "thin")
    save_file(tensors, tmp_path / "weights.safetensors")
    extractor = make_extractor(kind, model, tmp_path / "weights.safetensors")
    images = pictures(sizes)
    for size, image, found in zip(sizes, images, extractor(images), strict=True):
        name = f"{kind} {model} {size}"
        pixels = fidelity.some(extractor._prepare(image))
        np.testing.assert_array_equal(pixels, recorded[f"{name} pixels"], strict=True)
        expected = recorded[f"{name} features"]
        assert fidelity.relative_error(fidelity.some(found), expected) < TOLERANCE, name


@pytest.mark.parametrize("model", REAL)
def test_published_models(model, tmp_path, recorded, one_device):
    check("real", model, REAL[model], tmp_path, recorded)


@pytest.mark.parametrize("model", list(vit.VARIANTS))
def test_every_design(model, tmp_path, recorded, one_device, monkeypatch):
    monkeypatch.setitem(vit.VARIANTS, model, thin(model))
    check("thin", model, thin_sizes(model), tmp_path, recorded)


@pytest.mark.parametrize("side", GRIDS)
def test_position_embeddings(side, recorded):
    grids, table = GRIDS[side], jnp.asarray(position_table(side))
    shape = tuple(int(n) + 2 for n in np.max(grids, 0))
    resize = jax.jit(vit.resize_pos_embed, static_argnums=1)
    pad = jax.jit(vit_extractor.padded_pos_embed, static_argnums=(2, 3))
    padded = pad(table, jnp.asarray(grids), shape, "bicubic_offset")
    for grid, together in zip(grids, padded, strict=True):
        inside = together[1:].reshape(*shape, 2)[: grid[0], : grid[1]].reshape(1, -1, 2)
        together = jnp.concatenate([table[:, :1], inside], 1)
        for found in (resize(table, grid), together):
            expected = recorded[f"positions {side} {grid}"]
            assert fidelity.relative_error(fidelity.some(found, 2048), expected) < 3e-5, grid


@pytest.mark.parametrize("patch", [8, 14, 16])
def test_aligned_sides(patch, recorded):
    found = [vit_extractor.aligned_side(side, patch / 8, patch) for side in SIDES]
    assert found == recorded[f"sides {patch}"].tolist()
