"""The ViT in float64 NumPy, transcribed from PyTorch's, and random weights by its names."""

import math

import numpy as np
from scipy.special import erf


def torch_shapes(dim, depth, patch, grid, layer_scale=False, gated=0):
    """Keys and shapes of the state dict of an encoder; `gated`: channels of its SwiGLU."""
    shapes = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, 1 + grid**2, dim),
        "patch_embed.proj.weight": (dim, 3, patch, patch),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
    }
    linear = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim)}
    if gated:
        linear |= {"mlp.w12": (2 * gated, dim), "mlp.w3": (dim, gated)}
    else:
        linear |= {"mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim)}
    for i in range(depth):
        for name, shape in linear.items():
            shapes[f"blocks.{i}.{name}.weight"] = shape
            shapes[f"blocks.{i}.{name}.bias"] = shape[:1]
        for name in ("norm1", "norm2"):
            shapes[f"blocks.{i}.{name}.weight"] = shapes[f"blocks.{i}.{name}.bias"] = (dim,)
        for name in ("ls1", "ls2") if layer_scale else ():
            shapes[f"blocks.{i}.{name}.gamma"] = (dim,)
    return shapes


def variant_shapes(v):
    """Keys and shapes of the state dict of a `vit.Variant`."""
    gated = (8 * v.dim // 3 + 7) // 8 * 8 if v.swiglu else 0
    return torch_shapes(v.dim, v.depth, v.patch, v.grid, v.layer_scale, gated)


def random_state_dict(variant, seed=0):
    rng = np.random.default_rng(seed)
    shapes = variant_shapes(variant)
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
        out = linear(out.transpose(1, 0, 2).reshape(-1, dim), b + "attn.proj")
        x = x + out * t.get(b + "ls1.gamma", 1)
        y = norm(x, b + "norm2")
        if variant.swiglu:
            y, gate = np.split(linear(y, b + "mlp.w12"), 2, axis=-1)
            y = linear(y / (1 + np.exp(-y)) * gate, b + "mlp.w3")
        else:
            y = linear(y, b + "mlp.fc1")
            y = linear(y * (1 + erf(y / math.sqrt(2))) / 2, b + "mlp.fc2")
        x = x + y * t.get(b + "ls2.gamma", 1)
    x = norm(x, "norm") if final_norm else x
    return x[1:].reshape(h, w, dim)


def assert_close(actual, expected, tolerance=1e-5):
    """Relative to the largest value: float32 sums of values of that size are no more exact."""
    assert actual.shape == expected.shape
    error = np.abs(np.asarray(actual, "d") - expected).max()
    assert error <= tolerance * np.abs(expected).max(), error
