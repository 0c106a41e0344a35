"""The ViT against a float64 transcription of PyTorch's forward pass; published layouts."""

import dataclasses
import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf
from vit_reference import (
    assert_close,
    random_state_dict,
    reference_forward,
    reference_pos_embed,
    torch_shapes,
)

from mis_jax.errors import InputError
from mis_jax.models import layers, porting, vit

TINY = vit.Variant(dim=24, depth=2, heads=3, patch=4, grid=3)
GIANT = vit.Variant(dim=24, depth=2, heads=3, patch=4, grid=3, layer_scale=True, swiglu=True)


def ported(variant):
    """PyTorch's tensors, and the ported model as a jitted function."""
    graphdef, shapes = vit.abstract(variant)
    tensors = random_state_dict(variant)
    params = porting.port(tensors, shapes)

    @functools.partial(jax.jit, static_argnames="final_norm")
    def forward(image, pos_embed, mask=None, final_norm=True):
        with jax.default_matmul_precision("highest"):
            return nnx.merge(graphdef, params)(image, pos_embed, mask, final_norm)

    return tensors, forward


@pytest.fixture(scope="module")
def tiny():
    return ported(TINY)


resize_pos_embed = jax.jit(vit.resize_pos_embed, static_argnames=("grid", "mode"))


@pytest.mark.parametrize(
    ("size", "mode", "final_norm"),
    [
        ((12, 12), "bicubic_offset", True),  # the grid of the pretraining: no interpolation
        ((8, 28), "bicubic_offset", True),
        ((20, 20), "bilinear", False),
        ((4, 36), "bicubic", True),  # as many patches as the pretraining has, in another grid
    ],
)
def test_forward_is_pytorchs(tiny, size, mode, final_norm):
    tensors, forward = tiny
    images = np.random.default_rng(1).normal(size=(2, *size, 3)).astype("f")
    grid = (size[0] // 4, size[1] // 4)
    pos_embed = resize_pos_embed(tensors["pos_embed"], grid=grid, mode=mode)
    actual = forward(images, pos_embed, final_norm=final_norm)
    for image, found in zip(images, actual, strict=True):
        assert_close(found, reference_forward(tensors, image, TINY, mode, final_norm))


def test_layer_scale_and_gated_mlp():
    tensors, forward = ported(GIANT)
    image = np.random.default_rng(1).normal(size=(12, 12, 3)).astype("f")
    found = forward(image[None], tensors["pos_embed"])
    assert_close(found[0], reference_forward(tensors, image, GIANT))


def test_masked_tokens_have_no_influence(tiny):
    _, forward = tiny
    rng = np.random.default_rng(2)
    small = rng.normal(size=(1, 8, 12, 3)).astype("f")
    large = 9 * rng.normal(size=(1, 16, 20, 3)).astype("f")
    large[:, :8, :12] = small
    table = rng.normal(size=(1, 1 + 4 * 5, TINY.dim)).astype("f")
    inside = np.zeros((4, 5), bool)
    inside[:2, :3] = True
    mask = np.concatenate([[True], inside.ravel()])[None]
    alone = forward(small, table[:, mask[0]])
    padded = forward(large, table, mask)
    assert_close(padded[:, :2, :3], np.asarray(alone))


@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_chunks(monkeypatch, masked):
    """Long sequences are computed in chunks of queries, the last of them padded."""
    rng = np.random.default_rng(3)
    q, k, v = rng.normal(size=(3, 2, 41, 3, 8)).astype("f")
    mask = rng.random((2, 41)) < 0.5 if masked else None
    scores = np.exp(np.einsum("bqhd,bkhd->bhqk", q, k, dtype="d") / math.sqrt(8))
    scores = scores if mask is None else scores * mask[:, None, None, :]
    expected = np.einsum("bhqk,bkhd->bqhd", scores / scores.sum(-1, keepdims=True), v)
    with jax.default_matmul_precision("highest"):
        assert_close(layers.attention(q, k, v, mask), expected)
        monkeypatch.setattr(layers, "QUERY_CHUNK", 9)
        assert_close(layers.attention(q, k, v, mask), expected)


@pytest.mark.parametrize(
    ("platform", "capability", "dtype", "channels", "fits"),
    [
        ("gpu", "9.0", "bfloat16", 64, True),
        ("gpu", "8.0", "float16", 128, True),
        ("gpu", "10.0", "bfloat16", 40, True),
        ("gpu", "9.0", "float32", 64, False),
        ("gpu", "7.5", "float16", 64, False),
        ("gpu", "10.3", "bfloat16", 64, False),
        ("gpu", "gfx942", "bfloat16", 64, False),
        ("gpu", "9.0", "bfloat16", 60, False),
        ("gpu", "9.0", "bfloat16", 136, False),
        ("tpu", None, "bfloat16", 64, False),
        ("cpu", None, "bfloat16", 64, False),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_fused_attention_where_the_gpu_has_it(
    monkeypatch, platform, capability, dtype, channels, fits, masked
):
    fields = {} if capability is None else {"compute_capability": capability}
    device = types.SimpleNamespace(platform=platform, **fields)
    assert layers.fits_cudnn(device, jnp.dtype(dtype), channels) == fits
    if platform == "cpu":
        return
    used, called = jax.nn.dot_product_attention, []

    def spy(*args, implementation=None, **kwargs):
        called.append(implementation)
        return used(*args, **kwargs)

    monkeypatch.setattr(jax, "devices", lambda: [device])
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(jax.nn, "dot_product_attention", spy)
    x = jnp.ones((1, 2, 1, channels), dtype)
    layers.attention(x, x, x, jnp.asarray([[True, False]]) if masked else None)
    assert called == ["cudnn" if fits and not masked else None]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gelu_and_its_slope(dtype):
    x = np.linspace(-12, 12, 2001).astype(dtype).astype("f")
    wide = x.astype("d")
    below = (1 + erf(wide / math.sqrt(2))) / 2
    exact = wide * below
    slope = below + wide * np.exp(-0.5 * wide**2) / math.sqrt(2 * math.pi)
    tolerance = 1e-6 if dtype == "float32" else 0.03
    values, pull = jax.vjp(layers.gelu, jnp.asarray(x, dtype))
    assert values.dtype == dtype
    np.testing.assert_allclose(values.astype("f"), exact, rtol=tolerance, atol=tolerance)
    (slopes,) = pull(jnp.ones_like(values))
    np.testing.assert_allclose(slopes.astype("f"), slope, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("grid", "mode"),
    [
        ((47, 63), "bicubic_offset"),
        ((28, 28), "bicubic_offset"),
        ((14, 56), "bicubic_offset"),  # 28 * 28 patches, but not that grid
        ((1, 5), "bicubic_offset"),
        ((42, 30), "bicubic"),
        ((42, 20), "bilinear"),
    ],
)
def test_resize_pos_embed(grid, mode):
    table = np.random.default_rng(4).normal(size=(1, 1 + 28 * 28, 5)).astype("f")
    actual = resize_pos_embed(table, grid=grid, mode=mode)
    assert actual.shape == (1, 1 + grid[0] * grid[1], 5)
    np.testing.assert_array_equal(actual[:, 0], table[:, 0])
    assert_close(actual[0], reference_pos_embed(table, grid, mode))


def test_unknown_mode():
    with pytest.raises(ValueError, match="nearest"):
        vit.resize_pos_embed(jnp.zeros((1, 5, 2)), (3, 3), "nearest")


SIZES = {  # channels, blocks, patch, grid, head dimension, parameters, keys of the published file
    "dino-vits8": (384, 12, 8, 28, 64, 21_670_272, 150),
    "dino-vits16": (384, 12, 16, 14, 64, 21_665_664, 150),
    "dino-vitb8": (768, 12, 8, 28, 64, 85_807_872, 150),
    "dino-vitb16": (768, 12, 16, 14, 64, 85_798_656, 150),
    "dinov2-vits14": (384, 12, 14, 37, 64, 22_056_576, 175),
    "dinov2-vitb14": (768, 12, 14, 37, 64, 86_580_480, 175),
    "dinov2-vitl14": (1024, 24, 14, 37, 64, 304_368_640, 343),
    "dinov2-vitg14": (1536, 40, 14, 37, 64, 1_136_480_768, 567),
    "mocov3-vits16": (384, 12, 16, 14, 32, 21_665_664, 150),
    "mocov3-vitb16": (768, 12, 16, 14, 64, 85_798_656, 150),
    "mae-vitb16": (768, 12, 16, 14, 64, 85_798_656, 150),
    "mae-vitl16": (1024, 24, 16, 14, 64, 303_301_632, 294),
    "mae-vith14": (1280, 32, 14, 16, 80, 630_764_800, 390),
}


def published_shapes(name, depth):
    """Keys and shapes of the published file, or of one with fewer blocks."""
    dim, _, patch, grid, *_ = SIZES[name]
    v2 = name.startswith("dinov2")
    shapes = torch_shapes(dim, depth, patch, grid, v2, 4096 if name == "dinov2-vitg14" else 0)
    return shapes | ({"mask_token": (1, dim)} if v2 else {})


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes(name):
    v = vit.VARIANTS[name]
    *sizes, count, keys = SIZES[name]
    assert [v.dim, v.depth, v.patch, v.grid, v.dim // v.heads] == sizes
    published = published_shapes(name, v.depth)
    assert len(published) == keys
    assert sum(map(math.prod, published.values())) == count


@pytest.mark.parametrize("name", SIZES)
def test_published_names(name, monkeypatch):
    """A published state dict fits without anything left over; of two blocks, as all are alike."""
    monkeypatch.setitem(vit.VARIANTS, name, dataclasses.replace(vit.VARIANTS[name], depth=2))
    shapes = published_shapes(name, depth=2)
    vit.port_published(
        name, {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    )


def small(name):
    """A few thin blocks under a published name."""
    v = vit.VARIANTS[name]
    return dataclasses.replace(v, dim=24, depth=2, heads=3, patch=4, grid=3)


def published(name, monkeypatch):
    """What `port_published` has to make of a small model, and that model's tensors."""
    monkeypatch.setitem(vit.VARIANTS, name, small(name))
    tensors = random_state_dict(small(name))
    _, shapes = vit.abstract(small(name))
    return porting.port(tensors, shapes), tensors


def assert_same(actual, expected):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), actual, expected)


def test_official_moco_file(monkeypatch):
    """Momentum encoder, projection heads and predictor are dropped, and nothing else is."""
    expected, tensors = published("mocov3-vits16", monkeypatch)
    junk = np.zeros(3, "f")
    wrapped = {f"module.base_encoder.{key}": x for key, x in tensors.items()}
    wrapped |= {f"module.momentum_encoder.{key}": junk for key in tensors}
    for head in ("base_encoder.head", "momentum_encoder.head", "predictor"):
        wrapped |= {f"module.{head}.0.weight": junk, f"module.{head}.1.running_mean": junk}
        wrapped |= {f"module.{head}.1.num_batches_tracked": np.array(7)}
    assert_same(vit.port_published("mocov3-vits16", wrapped), expected)
    with pytest.raises(InputError, match=r"left over: module\.queue"):
        vit.port_published("mocov3-vits16", wrapped | {"module.queue": junk})
    del wrapped["module.base_encoder.norm.bias"]
    with pytest.raises(InputError, match=r"missing: norm\.bias;|missing: norm\.bias$|norm\.bias"):
        vit.port_published("mocov3-vits16", wrapped)


def test_official_dinov2_file(monkeypatch):
    expected, tensors = published("dinov2-vits14", monkeypatch)
    found = vit.port_published("dinov2-vits14", tensors | {"mask_token": np.zeros((1, 24), "f")})
    assert_same(found, expected)
    with pytest.raises(InputError, match="left over: register_tokens"):
        vit.port_published("dinov2-vits14", tensors | {"register_tokens": np.zeros((1, 4, 24))})


def test_timms_giant(monkeypatch):
    """timm names the gated MLP like an ordinary one, and has no mask token."""
    expected, tensors = published("dinov2-vitg14", monkeypatch)
    names = {"mlp.w12.": "mlp.fc1.", "mlp.w3.": "mlp.fc2."}
    timm = {}
    for key, x in tensors.items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        timm[key] = x
    assert timm.keys() != tensors.keys()
    assert_same(vit.port_published("dinov2-vitg14", timm), expected)
    assert_same(vit.port_published("dinov2-vitg14", tensors), expected)


def test_whole_mae_file(monkeypatch):
    expected, tensors = published("mae-vitl16", monkeypatch)
    decoder = ("mask_token", "decoder_pos_embed", "decoder_blocks.0.norm1.bias")
    found = vit.port_published("mae-vitl16", tensors | dict.fromkeys(decoder, np.zeros(3, "f")))
    assert_same(found, expected)
    del tensors["norm.weight"]
    with pytest.raises(InputError, match=r"missing: norm\.weight"):
        vit.port_published("mae-vitl16", tensors)


def test_sincos_pos_embed():
    """MAE's table: columns before rows, sines before cosines."""
    table = vit.sincos_pos_embed(16, 5)
    assert table.shape == (1, 26, 16)
    assert not table[0, 0].any()
    for row in range(5):
        for column in range(5):
            omega = 1 / 10000 ** (np.arange(4) / 4)
            parts = [f(x * omega) for x in (column, row) for f in (np.sin, np.cos)]
            np.testing.assert_allclose(table[0, 1 + 5 * row + column], np.concatenate(parts), 1e-6)
