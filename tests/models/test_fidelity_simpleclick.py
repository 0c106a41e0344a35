"""SimpleClick against numbers of the public PyTorch model for the same weights and inputs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fidelity import generator, image, load, relative_error, some, state_dict
from flax import nnx

from mis_jax.models import loading, official, porting, simpleclick
from mis_jax.models.click_maps import click_maps, with_remainders
from mis_jax.models.simpleclick import VARIANTS, Variant
from mis_jax.models.vit import resize_pos_embed

CROP = 448  # pixels, of the stored position embeddings
# Designs of B (12 blocks) and of H (patches of 14, windows of 16 x 16) with few channels.
NARROW = {
    "narrow B": Variant(48, 12, 3, 16, (12, 24, 48, 96), 16, 6),
    "narrow H": Variant(32, 16, 2, 14, (8, 16, 32, 64), 16, 4),
    "file": Variant(16, 4, 2, 4, (8, 8, 8, 8), 8, 1),
}
FORWARD = [("xTiny", (448, 448)), ("xTiny", (448, 672)), ("narrow B", (448, 448)),
           ("narrow H", (448, 448))]  # fmt: skip
GRIDS = [(14, (28, 28)), (16, (32, 32)), (28, (42, 42)), (28, (56, 14))]
GRADIENT_SIDE = 224
PARTS = ("patch_embed_coords", "backbone.patch_embed", "backbone.pos_embed", "backbone.blocks.0",
         "backbone.blocks.7", "neck.down_4", "neck.down_8", "neck.down_16", "neck.down_32",
         "head.convs", "head.fusion_conv", "head.conv_seg")  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def narrow_variants():
    with pytest.MonkeyPatch.context() as patch:
        for name, variant in NARROW.items():
            patch.setitem(VARIANTS, name, variant)
        yield


@pytest.fixture(scope="module")
def recorded():
    return load("simpleclick")


def inputs(size):
    """Image [1, H, W, 3] in 0..1, a previous mask [1, H, W], and clicks [1, 10, 3] of all kinds."""
    height, width = size
    rng = generator(f"inputs {height} {width}")
    pixels = image(f"simpleclick {height} {width}", height, width).astype(np.float32) / 255
    points = np.full((1, 10, 3), -1, np.float32)
    points[0, 0] = (height // 2, width // 3, 0)
    points[0, 1] = (33.6, 41.2, 2)  # fractional
    points[0, 2] = (-3.5, 200, 3)  # outside, near enough to show
    points[0, 5] = (height - 7.25, width - 90.5, 1)
    points[0, 6] = (height + 40, 60, 4)  # outside, far
    points[0, 7] = (300, width - 1, 5)
    return pixels[None], rng.uniform(size=(1, height, width)).astype(np.float32), points


def tensors_of(name, shapes):
    """Weights from a seed for PyTorch keys; of narrow B, small where GroupNorm's epsilon counts."""
    tensors = state_dict(shapes)
    if name == "narrow B":
        for key, x in tensors.items():
            if key.startswith("neck.") and (x.ndim > 1 or key.endswith("bias")):
                x *= np.float32(0.02)
    return tensors


def our_parameters(name):
    """Those weights as parameters; the keys are those of the public model that we have."""
    shapes = simpleclick.shapes(name, 0, CROP)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    tensors = tensors_of(name, {key: x.shape for key, x in porting.unport(zeros).items()})
    return porting.port(tensors, shapes)


def our_logits(name, size, params):
    """float32 [H, W] for `inputs(size)`."""
    network = simpleclick.network(params, name, 0, CROP, CROP, dtype="float32")
    return np.asarray(network(*inputs(size)))[0]


def clicks():
    """Clicks [4, 24, 3] on 64 x 80 pixels: integer, fractional, on ties, outside and none."""
    rng = generator("clicks")
    points = rng.uniform(-12, 92, (4, 24, 3)).astype(np.float32)
    points[0] = points[0].round()
    points[1] = (points[1] * 5).round() / 5  # such as (1.4, 4.8) away from a pixel: a distance of 5
    points[2, ::2] = -1
    points[3, :, 0] = -rng.uniform(0, 4, 24)
    points[:, 4:12] = points[:, 16:] = -1
    return points


def zoomed_clicks():
    """Clicks float64 [1, 48, 3] on 64 x 80 pixels: multiples of 1/5, many at 5 from a pixel."""
    places = generator("zoomed clicks").randint(0, (64 * 5, 80 * 5), (48, 2)) / 5
    return np.pad(places, ((0, 0), (0, 1)))[None]


def table(side):
    """Position embeddings [1, 1 + side * side, 8]."""
    return generator(f"table {side}").standard_normal((1, 1 + side**2, 8)).astype(np.float32)


def target(side):
    """A mask [1, H, W] of zeros and ones."""
    row, col = np.mgrid[:side, :side]
    return ((row - 90) ** 2 + (col - 120) ** 2 < 60**2)[None].astype(np.float32)


@functools.cache
def our_gradients():
    """PyTorch key -> gradient of the mean BCE of xTiny, without dropout."""
    size = (GRADIENT_SIDE, GRADIENT_SIDE)
    abstract = nnx.eval_shape(
        lambda: simpleclick.build("xTiny", 0, CROP, dtype="float32", rngs=nnx.Rngs(0))
    )
    graphdef, _ = nnx.split(abstract)
    truth = target(GRADIENT_SIDE)

    def loss(params):
        logits = nnx.merge(graphdef, params)(*inputs(size))
        return (jax.nn.softplus(logits) - truth * logits).mean()

    return porting.unport(jax.jit(jax.grad(loss))(our_parameters("xTiny")))


def norm_of(gradients, part):
    """The norm of the gradients of a part."""
    squares = [np.sum(np.square(x, dtype="d")) for k, x in gradients.items() if _is_of(k, part)]
    return np.sqrt(np.sum(squares))


def _is_of(key, part):
    return key == part or key.startswith(f"{part}.")


def key_of(name, size):
    """Where the fixture has the logits of a case."""
    return f"logits {name} {size[0]} {size[1]}"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), FORWARD)
def test_logits(recorded, name, size):
    ours = our_logits(name, size, our_parameters(name))
    assert relative_error(some(ours, 2048), recorded[key_of(name, size)]) < 1e-5


def test_click_maps(recorded):
    maps = np.asarray(click_maps(jnp.asarray(clicks()), (64, 80)))
    theirs = np.unpackbits(recorded["click_maps"])[: maps.size].reshape(4, 2, 64, 80)
    np.testing.assert_array_equal(maps.transpose(0, 3, 1, 2), theirs)


def test_click_maps_of_unrounded_clicks(recorded):
    points = with_remainders(zoomed_clicks())
    maps = np.asarray(click_maps(jnp.asarray(points), (64, 80)))
    theirs = np.unpackbits(recorded["zoomed_click_maps"])[: maps.size].reshape(1, 2, 64, 80)
    np.testing.assert_array_equal(maps.transpose(0, 3, 1, 2), theirs)


@pytest.mark.parametrize(("side", "grid"), GRIDS)
def test_position_embeddings(recorded, side, grid):
    """At inference and from MAE's grid; each has the public code's kernel."""
    ours = jax.jit(resize_pos_embed, static_argnums=(1, 2))(table(side), grid, "bicubic")
    assert relative_error(some(ours), recorded[f"pos_embed {side} {grid[0]} {grid[1]}"]) < 2e-6


@pytest.mark.slow
def test_gradients(recorded):
    gradients = our_gradients()
    norms = np.array([norm_of(gradients, part) for part in PARTS])
    np.testing.assert_allclose(norms, recorded["gradient_norms"], rtol=1e-4)


def test_a_file_by_torch(recorded, tmp_path):
    """The public code's checkpoint of a small model, with an object of its own in the config."""
    file = tmp_path / "small.pth"
    file.write_bytes(recorded["checkpoint"].tobytes())
    config, params = loading.load(file)
    assert (config.model.variant, config.model.patch, config.data.crop) == ("file", 0, 32)
    keys = {key: x.shape for key, x in porting.unport(params).items()}
    for key, x in state_dict(keys).items():
        np.testing.assert_array_equal(porting.unport(params)[key], x)
    tensors, settings = official.content(porting.unport(params), config)
    assert list(recorded["keys"]) == sorted(f"{key} {x.shape}" for key, x in tensors.items())
    assert settings["class"] == str(recorded["class"])
    assert sorted(settings["params"]) == list(recorded["settings"])
