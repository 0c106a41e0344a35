"""SimpleClick against a float64 transcription of the public model, and its published sizes."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf

from mis_jax.errors import InputError
from mis_jax.models import porting, pyramid, simpleclick
from mis_jax.models.click_maps import click_maps
from mis_jax.models.simpleclick import VARIANTS, Variant

SIZE = 64
TINY = Variant(32, 4, 2, 8, (12, 20, 24, 72), 16, 2, window=32)  # windows of 4 x 4 patches


@pytest.fixture(scope="module", autouse=True)
def tiny_variant():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, "tiny", TINY)
        yield


# ---------------------------------------------------------------------------- the public state dict


def torch_shapes(v, size, channels):
    """Keys and shapes of the public model; `channels` are the pyramid's inner c4, c8, c32."""
    (c4, c8, c32), d, p = channels, v.dim, v.patch
    shapes = {"backbone.cls_token": (1, 1, d), "backbone.pos_embed": (1, 1 + (size // p) ** 2, d)}

    def layer(name, *shape, bias=None):
        shapes[name + ".weight"] = shape
        shapes[name + ".bias"] = (bias or shape[0],)

    layer("patch_embed_coords.proj", d, 3, p, p)
    layer("backbone.patch_embed.proj", d, 3, p, p)
    for i in range(v.depth):
        block = f"backbone.blocks.{i}."
        layer(block + "norm1", d)
        layer(block + "norm2", d)
        layer(block + "attn.qkv", 3 * d, d)
        layer(block + "attn.proj", d, d)
        layer(block + "mlp.fc1", 4 * d, d)
        layer(block + "mlp.fc2", d, 4 * d)
    layer("backbone.fc_norm", d)
    layer("backbone.head", 1000, d)

    def up(name, i, o):
        layer(name, i, o, 2, 2, bias=o)

    def conv(name, i, o, k=1):
        layer(name, o, i, k, k)
        layer(name[:-1] + str(int(name[-1]) + 1), o)  # the norm after it

    up("neck.down_4.0", d, c4)
    layer("neck.down_4.1", c4)
    up("neck.down_4.3", c4, c4 // 2)
    layer("neck.down_4.4", c4 // 2)
    conv("neck.down_4.5", c4 // 2, v.pyramid[0])
    up("neck.down_8.0", d, c8)
    layer("neck.down_8.1", c8)
    conv("neck.down_8.2", c8, v.pyramid[1])
    conv("neck.down_16.0", d, v.pyramid[2])
    conv("neck.down_32.0", d, c32, 2)
    conv("neck.down_32.2", c32, v.pyramid[3])
    for i, c in enumerate(v.pyramid):
        layer(f"head.convs.{i}.conv", v.head, c, 1, 1)
    layer("head.fusion_conv.conv", v.head, 4 * v.head, 1, 1)
    layer("head.conv_seg", 1, v.head, 1, 1)
    for i, c in ((1, v.head), (2, v.head // 2)):
        up(f"head.up_conv{i}.0", c, c // 2)
        layer(f"head.up_conv{i}.1", c // 2)
        conv(f"head.up_conv{i}.2", c // 2, c // 2)
    return shapes


UNUSED = ("backbone.cls_token", "backbone.fc_norm", "backbone.head", "head.up_conv")


def split_unused(shapes):
    unused = {key: shape for key, shape in shapes.items() if key.startswith(UNUSED)}
    return {key: shape for key, shape in shapes.items() if key not in unused}, unused


shapes_of = functools.cache(simpleclick.shapes)


def count(shapes):
    return sum(map(math.prod, shapes.values()))


@pytest.mark.parametrize(
    ("name", "channels", "keys", "parameters"),
    [
        ("B", (384, 384, 1536), 214, 98_025_513),
        ("L", (512, 512, 2048), 358, 324_206_377),
        ("H", (640, 640, 2560), 454, 662_184_793),
        ("xTiny", (192, 192, 384), 166, 4_053_577),
    ],
)
def test_published_sizes(name, channels, keys, parameters):
    published = torch_shapes(VARIANTS[name], 448, channels)
    assert (len(published), count(published)) == (keys, parameters)
    used, unused = split_unused(published)
    leaves = jax.tree.leaves(shapes_of(name, 0, 448))
    assert len(leaves) == len(used) == keys - 21
    assert sum(leaf.size for leaf in leaves) == parameters - count(unused)


@pytest.mark.parametrize(("name", "channels"), [("B", (384,) * 2 + (1536,)),
                                                ("xTiny", (192, 192, 384))])  # fmt: skip
def test_published_keys_fit(name, channels):
    """Every key finds its place with its shape, and nothing but the known unused ones is left."""
    published = torch_shapes(VARIANTS[name], 448, channels)
    blank = {key: np.broadcast_to(np.float32(0), shape) for key, shape in published.items()}
    shapes = shapes_of(name, 0, 448)
    kept = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.bool_), shapes)
    porting.port(blank, kept, porting.UNUSED_SIMPLECLICK)  # as bool, to need little memory
    with pytest.raises(InputError, match=r"missing: .*up_conv|left over: .*up_conv"):
        porting.port(blank, kept)


# ---------------------------------------------------------------------------- the forward pass


def norm(x, axes, eps):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def gelu(x):
    return x * (1 + erf(x / math.sqrt(2))) / 2


def relu(x):
    return np.maximum(x, 0)


def bilinear(size, old):
    """[size, old] weights of torch's interpolation with align_corners=False."""
    matrix = np.zeros((size, old))
    for o in range(size):
        x = max((o + 0.5) * old / size - 0.5, 0)
        low = math.floor(x)
        matrix[o, min(low, old - 1)] += 1 - x + low
        matrix[o, min(low + 1, old - 1)] += x - low
    return matrix


def aligned(size, old):
    """[size, old] weights of torch's bilinear interpolation with align_corners=True."""
    at = np.arange(size) * (old - 1) / (size - 1)
    return np.stack([np.interp(at, np.arange(old), row) for row in np.eye(old)], 1)


def bicubic(size, old):
    """[size, old] weights of torch's interpolation with align_corners=False, A = -0.75."""
    matrix, a = np.zeros((size, old)), -0.75
    for o in range(size):
        x = (o + 0.5) * old / size - 0.5
        for k in range(math.floor(x) - 1, math.floor(x) + 3):
            d = abs(k - x)
            near, far = (
                ((a + 2) * d - (a + 3)) * d**2 + 1,
                ((a * d - 5 * a) * d + 8 * a) * d - 4 * a,
            )
            matrix[o, min(max(k, 0), old - 1)] += near if d <= 1 else far
    return matrix


def disks(points, height, width):
    """[height, width, 2]: pixels within 5 of a click, by its definition."""
    maps = np.zeros((height, width, 2))
    half = len(points) // 2
    for i, (row, col, _) in enumerate(points.tolist()):
        if row < 0 and col < 0:
            continue
        for y, x in np.ndindex(height, width):
            if (y - row) ** 2 + (x - col) ** 2 <= 25:
                maps[y, x, i // half] = 1
    return maps


class Reference:
    """The public model in float64, one image at a time; convolutions as loops over the kernel."""

    def __init__(self, tensors, v):
        self.t, self.v = {key: x.astype("d") for key, x in tensors.items()}, v

    def affine(self, x, name):
        return x * self.t[name + ".weight"] + self.t[name + ".bias"]

    def linear(self, x, name):
        return x @ self.t[name + ".weight"].T + self.t[name + ".bias"]

    def conv(self, x, name):
        w = self.t[name + ".weight"]
        k = w.shape[-1]
        parts = [x[a::k, b::k] @ w[:, :, a, b].T for a in range(k) for b in range(k)]
        return sum(parts) + self.t[name + ".bias"]

    def up(self, x, name):
        w = self.t[name + ".weight"]
        out = np.empty((2 * x.shape[0], 2 * x.shape[1], w.shape[1]))
        for a, b in np.ndindex(2, 2):
            out[a::2, b::2] = x @ w[:, :, a, b] + self.t[name + ".bias"]
        return out

    def group_norm(self, x, name):
        return self.affine(norm(x, (0, 1, 2), 1e-5), name)

    def attention(self, x, name):
        qkv = self.linear(x, name + "qkv").reshape(len(x), 3, self.v.heads, -1)
        q, k, v = qkv.transpose(1, 2, 0, 3)
        scores = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))
        out = (scores / scores.sum(-1, keepdims=True)) @ v
        return self.linear(out.transpose(1, 0, 2).reshape(x.shape), name + "proj")

    def block(self, x, name):
        y = self.affine(norm(x, -1, 1e-6), name + "norm1")
        x = x + self.attention(y, name + "attn.")
        y = self.affine(norm(x, -1, 1e-6), name + "norm2")
        return x + self.linear(gelu(self.linear(y, name + "mlp.fc1")), name + "mlp.fc2")

    def tokens(self, image, prev, points):
        mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
        coords = np.concatenate([prev[..., None], disks(points, *prev.shape)], -1)
        x = self.conv((image - mean) / std, "backbone.patch_embed.proj")
        x = x + self.conv(coords, "patch_embed_coords.proj")
        h, w, d = x.shape
        table = self.t["backbone.pos_embed"][0, 1:]
        side = math.isqrt(len(table))
        table = table.reshape(side, side, d)
        x = x + np.einsum("hi,wj,ijd->hwd", bicubic(h, side), bicubic(w, side), table)
        wg = self.v.window // self.v.patch
        a, b = h // (h // wg), w // (w // wg)  # sides of a window
        for i in range(self.v.depth):
            name = f"backbone.blocks.{i}."
            dy, dx = (h, w) if (i + 1) % self.v.period == 0 else (a, b)
            for y in range(0, h, dy):
                for z in range(0, w, dx):
                    window = x[y : y + dy, z : z + dx]
                    out = self.block(window.reshape(-1, d), name).reshape(window.shape)
                    x[y : y + dy, z : z + dx] = out
        return x

    def pyramid(self, x):
        n = "neck.down_"
        m4 = gelu(self.group_norm(self.up(x, n + "4.0"), n + "4.1"))
        m4 = self.group_norm(self.up(m4, n + "4.3"), n + "4.4")
        m4 = gelu(self.group_norm(self.conv(m4, n + "4.5"), n + "4.6"))
        m8 = self.group_norm(self.up(x, n + "8.0"), n + "8.1")
        m8 = gelu(self.group_norm(self.conv(m8, n + "8.2"), n + "8.3"))
        m16 = gelu(self.group_norm(self.conv(x, n + "16.0"), n + "16.1"))
        m32 = self.group_norm(self.conv(x, n + "32.0"), n + "32.1")
        m32 = gelu(self.group_norm(self.conv(m32, n + "32.2"), n + "32.3"))
        return m4, m8, m16, m32

    def features(self, image, prev, points):
        """[h, w, head] before dropout and the last convolution."""
        maps = self.pyramid(self.tokens(image.astype("d"), prev.astype("d"), points))
        maps = [relu(self.conv(m, f"head.convs.{i}.conv")) for i, m in enumerate(maps)]
        (h, w, _) = maps[0].shape
        maps = [np.einsum("hi,wj,ijd->hwd", bilinear(h, len(m)), bilinear(w, m.shape[1]), m)
                for m in maps]  # fmt: skip
        return relu(self.conv(np.concatenate(maps, -1), "head.fusion_conv.conv"))

    def __call__(self, image, prev, points):
        x = self.conv(self.features(image, prev, points), "head.conv_seg")[..., 0]
        height, width = prev.shape
        return aligned(height, len(x)) @ x @ aligned(width, x.shape[1]).T


@pytest.fixture(scope="module")
def tensors():
    """Random weights: norms and biases do something, and maps are small where GroupNorm sees them.

    So its epsilon matters; all other products keep their scale.
    """
    rng = np.random.default_rng(0)

    def draw(key, shape):
        x = rng.normal(size=shape)
        if key.startswith("neck.") and not (len(shape) == 1 and key.endswith("weight")):
            x *= 0.03
        if len(shape) == 1:
            return key.endswith("weight") + 0.3 * x
        return 0.7 * x if key == "backbone.pos_embed" else 2 * x / math.sqrt(x[0].size)

    shapes = torch_shapes(TINY, SIZE, (24, 20, 72))
    return {key: draw(key, shape).astype("f") for key, shape in shapes.items()}


@pytest.fixture(scope="module")
def params(tensors):
    return simpleclick.from_state_dict(tensors, "tiny", 0, SIZE)


def inputs(height, width, seed=1):
    """Two images with clicks inside, fractional, outside and unused."""
    rng = np.random.default_rng(seed)
    image = rng.random((2, height, width, 3), np.float32)
    prev = rng.random((2, height, width), np.float32)
    points = np.full((2, 6, 3), -1, "f")
    points[:, 0] = (20, 31, 0)
    points[0, 3] = (height - 4.5, 11.25, 1)
    points[1, 1] = (-3, 40, 1)
    points[1, 3:5] = [(-2, -2, 2), (50, 60, 3)]
    return image, prev, points


def assert_close(actual, expected, tolerance=1e-5):
    """Relative to the largest value: float32 sums of values of that size are no more exact."""
    assert actual.shape == expected.shape
    assert actual.dtype == np.float32
    error = np.abs(np.asarray(actual, "d") - expected).max()
    assert error <= tolerance * np.abs(expected).max(), error


@pytest.mark.parametrize("size", [(SIZE, SIZE), (80, 96)])
def test_logits_are_the_public_models(tensors, params, size):
    """At the training size, and where positions are resized and windows are 5 x 4 patches."""
    network = simpleclick.network(params, "tiny", 0, max(size), SIZE, dtype="float32")
    image, prev, points = inputs(*size)
    expected = [Reference(tensors, TINY)(*s) for s in zip(image, prev, points, strict=True)]
    assert np.std(expected) > 0.5
    assert_close(network(image, prev, points), np.stack(expected))


def test_options(tensors, monkeypatch):
    """A binary previous mask, in bfloat16: near the reference, and logits are float32 still."""
    shallow = dataclasses.replace(TINY, depth=2)
    monkeypatch.setitem(VARIANTS, "shallow", shallow)
    tensors = {key: x for key, x in tensors.items() if ".blocks.2." not in key}
    tensors = {key: x for key, x in tensors.items() if ".blocks.3." not in key}
    network = simpleclick.network(
        simpleclick.from_state_dict(tensors, "shallow", 0, SIZE),
        "shallow", 0, SIZE, SIZE, dtype="bfloat16", binary_prev_mask=True,
    )  # fmt: skip
    image, prev, points = inputs(SIZE, SIZE)
    reference = Reference(tensors, shallow)
    binary = np.stack([reference(*s) for s in zip(image, prev > 0.5, points, strict=True)])
    soft = np.stack([reference(*s) for s in zip(image, prev, points, strict=True)])
    actual = network(image, prev, points)
    assert_close(actual, binary, 0.1)
    assert np.abs(actual - binary).mean() < np.abs(actual - soft).mean() / 2


def test_dropout_is_of_whole_channels(tensors, params):
    """The channels that were dropped are solved for in the logits, which are linear in them."""
    image, prev, points = inputs(SIZE, SIZE)
    abstract = nnx.eval_shape(
        lambda: simpleclick.build("tiny", 0, SIZE, dtype="float32", rngs=nnx.Rngs(0))
    )
    graphdef, _ = nnx.split(abstract)

    @jax.jit
    def run(key):
        return nnx.merge(graphdef, params)(image, prev, points, rngs=nnx.Rngs(dropout=key))

    reference, kept = Reference(tensors, TINY), []
    features = [reference.features(*s) for s in zip(image, prev, points, strict=True)]
    weight = tensors["head.conv_seg.weight"][0, :, 0, 0]
    resize = aligned(SIZE, len(features[0]))
    products = [
        np.einsum("Hh,hwc,Ww->HWc", resize, x * weight, resize).reshape(-1, TINY.head)
        for x in features
    ]
    for seed in range(20):
        for terms, logits in zip(products, np.asarray(run(jax.random.key(seed)), "d"), strict=True):
            target = logits.ravel() - tensors["head.conv_seg.bias"]
            factor = np.linalg.lstsq(terms[::13], target[::13], rcond=1e-6)[0] * 0.9
            factor = factor[terms.std(0) > 0.05]
            assert len(factor) > 8
            np.testing.assert_allclose(factor, factor > 0.5, atol=0.05)
            kept.append(factor > 0.5)
    assert len({k.tobytes() for k in kept}) > 20
    assert 0.8 < np.concatenate(kept).mean() < 0.97


def test_rematted_blocks_compute_the_same():
    """Only what is stored for the gradient changes: outputs' shapes and the parameters do not."""

    def jaxpr(remat):
        model = nnx.eval_shape(
            lambda: simpleclick.build("tiny", 0, 32, remat=remat, rngs=nnx.Rngs(0))
        )
        graphdef, state = nnx.split(model)
        args = [np.zeros(x.shape, "f") for x in inputs(32, 32)]
        return str(jax.make_jaxpr(lambda s: nnx.merge(graphdef, s)(*args))(state))

    assert jaxpr("nothing_saveable").count("remat") == TINY.depth
    assert "remat" not in jaxpr("none")


# ---------------------------------------------------------------------------- parts


def test_click_maps():
    height, width = 20, 30
    rows = [
        [(5, 6), (4.5, 25.25), (-1, -1), (0, 0)],  # fractional; none; a corner
        [(-3, 10), (22, 35), (-1, 29), (10, -5)],  # outside: one coordinate negative is a click
        [(-2, -2), (-0.5, -0.5), (19, 29), (-1, -1)],  # both negative: none, even 3 pixels away
    ]
    points = np.array([[(*p, 100) for p in image] for image in rows], "f")
    actual = np.asarray(click_maps(points, (height, width)))
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, [disks(p, height, width) for p in points])
    assert actual.any((1, 2)).tolist() == [[True, True], [True, True], [False, True]]
    assert actual[0, :11, 1:12, 0].sum() == 81  # pixels of a disk of radius 5, its edge included


def test_click_maps_ignore_the_order():
    points = np.array([[(4, 6, 0), (9, 9, 3)]], "f")
    other = points * np.float32([1, 1, 0]) - np.float32([0, 0, 1])
    maps = click_maps(points, (16, 16))
    np.testing.assert_array_equal(maps, click_maps(other, (16, 16)))


@pytest.mark.parametrize(("old", "new"), [((16, 16), (64, 64)), ((3, 5), (7, 4)),
                                          ((1, 4), (3, 4)), ((4, 4), (4, 4))])  # fmt: skip
def test_resize_align_corners(old, new):
    x = np.random.default_rng(2).normal(size=(2, *old)).astype("f")
    rows, cols = (aligned(n, o) for n, o in zip(new, old, strict=True))
    assert_close(pyramid.resize_align_corners(jnp.asarray(x), new), rows @ x @ cols.T, 1e-6)


@pytest.mark.parametrize("split", [(2, 3), (1, 1), (4, 6)])
def test_windows(split):
    """Row-major windows of row-major tokens, and back."""
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    windows = simpleclick._to_windows(x, split)
    a, b = 4 // split[0], 6 // split[1]
    expected = [
        image[y : y + a, z : z + b].reshape(a * b, 3)
        for image in x
        for y in range(0, 4, a)
        for z in range(0, 6, b)
    ]
    np.testing.assert_array_equal(windows, expected)
    np.testing.assert_array_equal(simpleclick._from_windows(windows, split, (2, 4, 6)), x)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("B", [6, 12]), ("L", [6, 12, 18, 24]), ("H", [8, 16, 24, 32]), ("xTiny", [2, 4, 6, 8])],
)
def test_global_blocks(name, blocks):
    """Counted from one, as the public code does; all others attend in windows."""
    v = VARIANTS[name]
    assert [i + 1 for i in range(v.depth) if (i + 1) % v.period == 0] == blocks
    assert v.window // v.patch == (16 if name == "H" else 14)


# ---------------------------------------------------------------------------- sizes and weights


@pytest.mark.parametrize(
    ("variant", "patch", "size"),
    [("B", 0, 448), ("B", 0, 672), ("B", 0, 224), ("H", 0, 448), ("B", 0, 400), ("B", 8, 448),
     ("tiny", 0, 80)],
)  # fmt: skip
def test_sizes_that_fit(variant, patch, size):
    v = simpleclick.check_size(variant, patch, size)
    assert v == dataclasses.replace(VARIANTS[variant], patch=patch or VARIANTS[variant].patch)


@pytest.mark.parametrize(
    ("variant", "patch", "size", "message"),
    [
        ("B", 0, 450, "450 pixels.*multiple of 224"),
        ("B", 0, 464, "464 pixels.*multiple of 224"),  # 29 patches, two windows
        ("B", 0, 16, "16 pixels"),
        ("tiny", 0, 72, "72 pixels.*multiple of 32"),
        ("tiny", 16, 72, "patches of 16 and windows of about 2"),
        ("Huge", 0, 448, "config.model.variant.*Huge.*B, L, H"),
    ],
)
def test_sizes_that_do_not_fit(variant, patch, size, message):
    with pytest.raises(InputError, match=message):
        simpleclick.build(variant, patch, size, rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match=message):
        simpleclick.network({}, variant, patch, size, 448)


def mae_tensors(tensors, side, seed=3):
    """What an MAE file of this ViT holds: the encoder, at a grid of its own, and a decoder."""
    rng = np.random.default_rng(seed)
    mae = {key.removeprefix("backbone."): rng.normal(size=x.shape).astype("f")
           for key, x in tensors.items()
           if key.startswith("backbone.") and not key.startswith(UNUSED[1:])}  # fmt: skip
    mae["pos_embed"] = rng.normal(size=(1, 1 + side**2, TINY.dim)).astype("f")
    extra = {
        "norm.weight": (32,),
        "norm.bias": (32,),
        "mask_token": (1, 1, 8),
        "decoder_pos_embed": (1, 17, 8),
        "decoder_blocks.0.attn.qkv.weight": (24, 8),
    }
    return mae | {key: np.zeros(shape, "f") for key, shape in extra.items()}


@pytest.mark.parametrize("side", [4, 8])
def test_with_backbone(tensors, params, side):
    mae = mae_tensors(tensors, side)
    changed = porting.unport(simpleclick.with_backbone(params, mae))
    for key, x in porting.unport(params).items():
        name = key.removeprefix("backbone.")
        if name == key:
            np.testing.assert_array_equal(changed[key], x)
        elif name == "pos_embed":
            table = mae[name][0, 1:].reshape(side, side, -1).astype("d")
            table = np.einsum("hi,wj,ijd->hwd", bicubic(8, side), bicubic(8, side), table)
            assert_close(changed[key][0, 1:], table.reshape(64, -1), 1e-6)
            np.testing.assert_array_equal(changed[key][0, 0], mae[name][0, 0])
        else:
            np.testing.assert_array_equal(changed[key], mae[name])
    assert changed.keys() == porting.unport(params).keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.1.attn.qkv.bias": None}, r"missing: blocks.1.attn.qkv.bias"),
        ({"blocks.9.ls1.gamma": (32,)}, r"left over: blocks.9.ls1.gamma"),
        ({"patch_embed.proj.weight": (32, 3, 16, 16)}, "another shape: patch_embed.proj.weight"),
        ({"pos_embed": None}, "missing: pos_embed"),
        ({"pos_embed": (1, 17, 64)}, "another shape: pos_embed"),
    ],
)
def test_with_backbone_of_another_vit(tensors, params, change, message):
    mae = mae_tensors(tensors, 4)
    for key, shape in change.items():
        mae.pop(key, None)
        if shape:
            mae[key] = np.zeros(shape, "f")
    with pytest.raises(InputError, match=message):
        simpleclick.with_backbone(params, mae)


def test_from_state_dict_is_strict(tensors, params):
    used, _ = split_unused(tensors)
    for key, x in porting.unport(params).items():
        np.testing.assert_array_equal(x, used.pop(key))
    assert not used
    with pytest.raises(InputError, match="left over: extra"):
        simpleclick.from_state_dict(tensors | {"extra": np.zeros(1)}, "tiny", 0, SIZE)
    with pytest.raises(InputError, match=r"another shape: backbone\.pos_embed"):
        simpleclick.from_state_dict(tensors, "tiny", 0, 2 * SIZE)
