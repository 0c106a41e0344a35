"""Porting of PyTorch state dicts onto NNX modules and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from mis_jax.errors import InputError
from mis_jax.models import porting
from mis_jax.models.state_dicts import load_state_dict


class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (2, 3), strides=(2, 3), padding="VALID", rngs=rngs)
        options = {"strides": (2, 2), "padding": "VALID", "transpose_kernel": True}
        self.up = nnx.ConvTranspose(4, 5, (2, 2), **options, rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(5, rngs=rngs)])
        self.fc = nnx.Linear(5, 2, rngs=rngs)
        self.token = nnx.Param(jnp.zeros((1, 1, 2)))

    def __call__(self, x):
        return self.fc(self.norms[0](self.up(self.conv(x)))) + self.token[...]


TORCH_SHAPES = {
    "conv.weight": (4, 3, 2, 3),
    "conv.bias": (4,),
    "up.weight": (4, 5, 2, 2),  # (in, out, height, width)
    "up.bias": (5,),
    "norms.0.weight": (5,),
    "norms.0.bias": (5,),
    "fc.weight": (2, 5),
    "fc.bias": (2,),
    "token": (1, 1, 2),
}


@pytest.fixture
def net():
    graphdef, state = nnx.split(nnx.eval_shape(lambda: Net(nnx.Rngs(0))))
    rng = np.random.default_rng(0)
    tensors = {key: rng.normal(size=shape).astype("f") for key, shape in TORCH_SHAPES.items()}
    return graphdef, nnx.to_pure_dict(state), tensors


def test_port_gives_torch_outputs(net):
    graphdef, shapes, t = net
    image = np.random.default_rng(1).normal(size=(1, 6, 9, 3)).astype("f")
    params = porting.port(t, shapes)
    with jax.default_matmul_precision("highest"):
        actual = nnx.merge(graphdef, params)(image)
    t = {key: x.astype(np.float64) for key, x in t.items()}
    tiles = image.reshape(1, 3, 2, 3, 3, 3)
    x = np.einsum("biujvc,ocuv->bijo", tiles, t["conv.weight"]) + t["conv.bias"]
    x = np.einsum("bijc,couv->biujvo", x, t["up.weight"]).reshape(1, 6, 6, 5) + t["up.bias"]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = x * t["norms.0.weight"] + t["norms.0.bias"]
    expected = x @ t["fc.weight"].T + t["fc.bias"] + t["token"]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_unport_is_the_inverse_and_can_be_saved(net, tmp_path):
    _, shapes, tensors = net
    params = porting.port(tensors, shapes)
    back = porting.unport(jax.tree.map(jnp.asarray, params))
    save_file(back, tmp_path / "x.safetensors")
    back = load_state_dict(tmp_path / "x.safetensors")
    assert set(back) == set(tensors)
    for key, x in tensors.items():
        np.testing.assert_array_equal(back[key], x, strict=True)


def test_port_casts_and_copies(net):
    _, shapes, tensors = net
    half = {key: x.astype(np.float16) for key, x in tensors.items()}
    leaves = jax.tree.leaves(porting.port(half, shapes))
    assert all(x.dtype == np.float32 and x.flags.c_contiguous for x in leaves)
    params = porting.port(tensors, shapes)
    params["token"][:] = 7
    assert not (tensors["token"] == 7).any()


def test_port_is_strict_and_names_the_keys(net):
    _, shapes, tensors = net
    bad = {**tensors, "fc.bias": np.zeros(3, "f"), "head.weight": np.zeros(2, "f")}
    del bad["norms.0.weight"]
    with pytest.raises(InputError) as error:
        porting.port(bad, shapes)
    for part in ("missing: norms.0.weight", "left over: head.weight", "shape: fc.bias (here (3,))"):
        assert part in str(error.value)
    many = {f"other.{i}": np.zeros(1) for i in range(99)}
    with pytest.raises(InputError, match="and 91 more") as error:
        porting.port({**tensors, **many}, shapes)
    assert len(str(error.value)) < 300
    swapped = {**tensors, "conv.weight": tensors["conv.weight"].transpose(2, 3, 1, 0)}
    with pytest.raises(InputError, match=r"conv\.weight"):
        porting.port(swapped, shapes)


def test_drop_takes_only_what_the_module_has_not(net):
    _, shapes, tensors = net
    extra = {**tensors, "head.mlp.0.weight": np.zeros(2), "headless": np.zeros(2)}
    with pytest.raises(InputError, match="left over: headless;"):
        porting.port(extra, shapes, drop=("head.*", "fc.*"))
    del extra["headless"]
    params = porting.port(extra, shapes, drop=("head.*", "fc.*"))
    np.testing.assert_array_equal(params["fc"]["bias"], tensors["fc.bias"])
