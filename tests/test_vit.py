"""The ViT against a float64 transcription of PyTorch's forward pass, and its published sizes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf

from mis_jax import vit, weights

TINY = vit.Variant(dim=24, depth=2, heads=3, patch=4, grid=3)


def torch_shapes(dim, depth, patch, grid):
    """Keys and shapes of a DINO state dict."""
    shapes = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, 1 + grid**2, dim),
        "patch_embed.proj.weight": (dim, 3, patch, patch),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
    }
    linear = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for i in range(depth):
        for name, (rows, columns) in linear.items():
            shapes[f"blocks.{i}.{name}.weight"] = (rows * dim, columns * dim)
            shapes[f"blocks.{i}.{name}.bias"] = (rows * dim,)
        for name in ("norm1", "norm2"):
            shapes[f"blocks.{i}.{name}.weight"] = shapes[f"blocks.{i}.{name}.bias"] = (dim,)
    return shapes


def random_state_dict(variant, seed=0):
    rng = np.random.default_rng(seed)
    shapes = torch_shapes(variant.dim, variant.depth, variant.patch, variant.grid)
    return {key: rng.normal(scale=0.3, size=shape).astype("f") for key, shape in shapes.items()}


def interpolation(size, side, mode):
    """Rows of torch's interpolation along one axis, align_corners=False, antialias=False."""
    offset = 0.1 if mode == "bicubic_offset" else 0.0
    matrix = np.zeros((size, side))
    a = -0.75
    for o in range(size):
        x = (o + 0.5) * side / (size + offset) - 0.5
        if mode == "bilinear":
            x = max(x, 0)
            taps = {0: 1 - x + math.floor(x), 1: x - math.floor(x)}
        else:
            taps = {}
            for k in (-1, 0, 1, 2):
                d = abs(k - x + math.floor(x))
                near = ((a + 2) * d - (a + 3)) * d * d + 1
                taps[k] = near if d <= 1 else ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        for k, weight in taps.items():
            matrix[o, min(max(math.floor(x) + k, 0), side - 1)] += weight
    return matrix


def reference_pos_embed(pos_embed, grid, mode):
    """float64 [1 + h*w, D]."""
    side = math.isqrt(pos_embed.shape[1] - 1)
    if tuple(grid) == (side, side):
        return pos_embed[0].astype("d")
    table = pos_embed[0, 1:].reshape(side, side, -1).astype("d")
    rows, columns = (interpolation(size, side, mode) for size in grid)
    table = np.einsum("hi,wj,ijd->hwd", rows, columns, table)
    return np.concatenate([pos_embed[0, :1], table.reshape(-1, table.shape[-1])])


def reference_forward(tensors, image, variant, mode="bicubic_offset", final_norm=True):
    """float64 [h, w, D] of a normalised image [H, W, 3], from PyTorch's tensors."""
    t = {key: x.astype("d") for key, x in tensors.items()}
    p, dim, heads = variant.patch, variant.dim, variant.heads
    h, w = image.shape[0] // p, image.shape[1] // p

    def linear(x, name):
        return x @ t[name + ".weight"].T + t[name + ".bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * t[name + ".weight"] + t[name + ".bias"]

    tiles = image.astype("d").reshape(h, p, w, p, 3)
    x = np.einsum("iujvc,dcuv->ijd", tiles, t["patch_embed.proj.weight"])
    x = (x + t["patch_embed.proj.bias"]).reshape(h * w, dim)
    x = np.concatenate([t["cls_token"][0], x]) + reference_pos_embed(
        tensors["pos_embed"], (h, w), mode
    )
    for i in range(variant.depth):
        b = f"blocks.{i}."
        qkv = linear(norm(x, b + "norm1"), b + "attn.qkv").reshape(-1, 3, heads, dim // heads)
        q, k, v = qkv.transpose(1, 2, 0, 3)
        scores = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(dim // heads))
        out = (scores / scores.sum(-1, keepdims=True)) @ v
        x = x + linear(out.transpose(1, 0, 2).reshape(-1, dim), b + "attn.proj")
        y = linear(norm(x, b + "norm2"), b + "mlp.fc1")
        x = x + linear(y * (1 + erf(y / math.sqrt(2))) / 2, b + "mlp.fc2")
    x = norm(x, "norm") if final_norm else x
    return x[1:].reshape(h, w, dim)


def assert_close(actual, expected, tolerance=1e-5):
    """Relative to the largest value: float32 sums of values of that size are no more exact."""
    assert actual.shape == expected.shape
    error = np.abs(np.asarray(actual, "d") - expected).max()
    assert error <= tolerance * np.abs(expected).max(), error


def shapes_of(variant):
    graphdef, state = nnx.split(nnx.eval_shape(lambda: vit.ViT(variant, rngs=nnx.Rngs(0))))
    return graphdef, nnx.to_pure_dict(state)


@pytest.fixture(scope="module")
def tiny():
    """PyTorch's tensors, and the ported model as a jitted function."""
    graphdef, shapes = shapes_of(TINY)
    tensors = random_state_dict(TINY)
    params = weights.port(tensors, shapes)

    @functools.partial(jax.jit, static_argnames="final_norm")
    def forward(image, pos_embed, mask=None, final_norm=True):
        with jax.default_matmul_precision("highest"):
            return nnx.merge(graphdef, params)(image, pos_embed, mask, final_norm)

    return tensors, forward


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
        assert_close(vit.attention(q, k, v, mask), expected)
        monkeypatch.setattr(vit, "QUERY_CHUNK", 9)
        assert_close(vit.attention(q, k, v, mask), expected)


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


@pytest.mark.parametrize(
    ("name", "dim", "patch", "grid", "count"),
    [
        ("dino-vits8", 384, 8, 28, 21_670_272),
        ("dino-vits16", 384, 16, 14, 21_665_664),
        ("dino-vitb8", 768, 8, 28, 85_807_872),
        ("dino-vitb16", 768, 16, 14, 85_798_656),
    ],
)
def test_published_sizes(name, dim, patch, grid, count):
    """A published state dict, by its names and shapes alone, fits without anything left over."""
    assert dim // vit.DINO[name].heads == 64
    _, shapes = shapes_of(vit.DINO[name])
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == count
    published = torch_shapes(dim, 12, patch, grid)
    assert len(published) == 150
    assert sum(map(math.prod, published.values())) == count
    blank = {key: np.broadcast_to(np.float32(0), shape) for key, shape in published.items()}
    kept = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.bool_), shapes)
    weights.port(blank, kept)  # as bool, to need little memory


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
