"""Meshes, placements, and the train step, which must not depend on how it is spread."""

import functools
import itertools

import jax
import numpy as np
import pytest

from mis_jax import config as configs
from mis_jax.errors import InputError
from mis_jax.models import simpleclick
from mis_jax.training import checkpoint, sharding, train, train_step

pytestmark = pytest.mark.skipif(jax.device_count() != 8, reason="needs the 8 devices of conftest")


def mesh_of(data, fsdp):
    """Of the first data * fsdp devices."""
    return sharding.make_mesh(fsdp, jax.devices()[: data * fsdp])


@pytest.mark.parametrize("fsdp", [1, 2, 8])
def test_make_mesh(fsdp):
    mesh = sharding.make_mesh(fsdp)
    assert dict(mesh.shape) == {"data": 8 // fsdp, "fsdp": fsdp}
    assert set(mesh.devices.ravel()) == set(jax.devices())


@pytest.mark.parametrize("fsdp", [3, 16, 0, -2])
def test_fsdp_must_divide_the_devices(fsdp):
    with pytest.raises(InputError, match=rf"config\.mesh\.fsdp={fsdp} .* 8 devices"):
        sharding.make_mesh(fsdp)


def test_state_sharding():
    """Large arrays are split along their largest axis that can be, all others are copied."""
    shapes = {
        "long": (64, 512),
        "wide": (1, 785, 768),  # 785 is odd
        "cube": (2, 2, 128, 256),
        "odd": (301, 303),
        "small": (32, 32),
        "scalar": (),
    }
    expected = {
        "long": (None, "fsdp"),
        "wide": (None, None, "fsdp"),
        "cube": (None, None, None, "fsdp"),
        "odd": (),
        "small": (),
        "scalar": (),
    }
    arrays = {key: jax.ShapeDtypeStruct(shape, np.float32) for key, shape in shapes.items()}
    places = sharding.state_sharding(sharding.make_mesh(4), arrays)
    assert {key: tuple(place.spec) for key, place in places.items()} == expected
    whole = sharding.state_sharding(sharding.make_mesh(1), arrays)
    assert all(place.is_fully_replicated for place in whole.values())


def test_state_of_a_published_model_is_split():
    """With 8 devices to a copy, each holds little more than an eighth."""
    shapes = simpleclick.shapes("xTiny", 0, 448)
    places = sharding.state_sharding(sharding.make_mesh(8), shapes)
    leaves = list(zip(jax.tree.leaves(shapes), jax.tree.leaves(places), strict=True))
    held = sum(np.prod(place.shard_shape(x.shape)) for x, place in leaves)
    assert held < sum(x.size for x, _ in leaves) / 8 * 1.1


def test_to_devices():
    """Rows are spread over all devices, of both axes, in order."""
    batch = {"image": np.arange(16 * 3).reshape(16, 3).astype(np.uint8), "index": np.arange(16)}
    arrays = sharding.to_devices(batch, sharding.batch_sharding(sharding.make_mesh(2)))
    for key, x in batch.items():
        np.testing.assert_array_equal(arrays[key], x)
        assert arrays[key].dtype == x.dtype or key == "index"
        shards = arrays[key].addressable_shards
        assert [s.data.shape[0] for s in shards] == [2] * 8
        assert len({s.index[0].start for s in shards}) == 8


@pytest.mark.parametrize(
    ("arguments", "variables", "calls"),
    [
        (("", 1, 0), {}, []),
        (("host:99", 4, 2), {}, [("host:99", 4, 2)]),
        (("auto", 1, 0), {}, [()]),
        (("", 1, 0), {"SLURM_STEP_NUM_TASKS": "2"}, [()]),
        (("host:99", 4, 2), {"SLURM_STEP_NUM_TASKS": "2"}, [("host:99", 4, 2)]),
    ],
)
def test_start(monkeypatch, arguments, variables, calls):
    """Nothing is joined on a single machine; an address comes before what a launcher says."""
    found = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args: found.append(args))
    for name in sharding.CLUSTER:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    sharding.start(*arguments)
    assert found == calls


def tiny_config():
    c = configs.default()
    c.model.update(variant="tiny", dtype="float32")
    c.data.crop = 32
    c.optim.update(batch_size=8, lr=1e-2)
    return c


def batches(steps):
    rng = np.random.default_rng(0)
    for _ in range(steps):
        points = np.full((8, 12, 3), -1, "f")
        points[:, 0] = np.pad(rng.integers(0, 32, (8, 2)), ((0, 0), (0, 1)), constant_values=100)
        image = rng.integers(0, 256, (8, 8, 8, 3), np.uint8).repeat(4, 1).repeat(4, 2)
        yield {"image": image, "mask": (image[..., 0] > 127).astype("u1"), "points": points}


@pytest.fixture(scope="module")
def tiny():
    """A model so small that arrays must count as large early."""
    variant = simpleclick.Variant(16, 1, 2, 8, (8, 8, 8, 8), 8, 2, window=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(simpleclick.VARIANTS, "tiny", variant)
        patch.setattr(sharding, "SMALL", 2**8)
        yield


@pytest.fixture(scope="module")
def program(tiny):
    """Mesh shape -> what `make_step` makes and the sharding of batches; compiled once each."""

    @functools.cache
    def make(*shape):
        mesh = mesh_of(*shape)
        return *train_step.make_step(tiny_config(), mesh), sharding.batch_sharding(mesh)

    return make


def go_on(program, state, steps=range(3)):
    """Metrics of some of the three steps, and the state then."""
    step_fn, _, _, places, place = program
    history = []
    for batch in itertools.islice(batches(3), steps.start, steps.stop):
        state, metrics = step_fn(state, sharding.to_devices(batch, place))
        history.append({k: float(v) for k, v in metrics.items()})
    assert jax.tree.map(lambda x: x.sharding, state) == places
    return history, state


def assert_same_metrics(history, expected):
    for found, metrics in zip(history, expected, strict=True):
        assert found.keys() == metrics.keys()
        for key, value in metrics.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-5, err_msg=key)


@pytest.fixture(scope="module")
def alone(program):
    """On one device: the state at first, metrics of three steps, and the state then."""
    state = program(1, 1)[1]()
    start = jax.device_get(state)
    history, state = go_on(program(1, 1), state)
    assert len({m["loss"] for m in history}) == 3
    return start, history, jax.device_get(state)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 1), (1, 4), (4, 2)])
def test_steps_do_not_depend_on_the_mesh(program, alone, shape):
    start, expected, end = alone
    _, init, _, places, _ = program(*shape)
    split = shape[1] > 1
    assert split != all(place.is_fully_replicated for place in jax.tree.leaves(places))
    if shape == (4, 2):  # it compiles for long
        state = init()
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state, start)
    else:
        state = jax.device_put(start, places)
    history, state = go_on(program(*shape), state)
    assert_same_metrics(history, expected)
    # Of the keys' biases, whose gradients are rounding errors, Adam makes steps: not compared.
    for item in ("step", "opt_state"):
        same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)  # noqa: E731
        jax.tree.map(same, jax.device_get(state[item]), end[item])


class Stream:
    """In place of the samples' stream, whose position a checkpoint holds too."""

    def set_state(self, state):
        self.state = state


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [((4, 2), (1, 4)), ((8, 1), (4, 2))])
def test_a_checkpoint_of_one_mesh_goes_on_on_another(program, alone, tmp_path, before, after):
    start, expected, _ = alone
    _, state = go_on(program(*before), jax.device_put(start, program(*before)[3]), range(2))
    saved = jax.device_get(state)
    with checkpoint.checkpointer(tmp_path, 2, 1) as saver:
        saver.save_checkpointables(2, {**state, "data": {"next": 16}})
        _, _, shapes, places, _ = program(*after)
        stream = Stream()
        state = train._restore(saver, tmp_path, shapes, places, stream)
    assert stream.state == {"next": 16}
    assert jax.tree.map(lambda x: x.sharding, state) == places
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), saved)
    history, _ = go_on(program(*after), state, range(2, 3))
    assert_same_metrics(history, expected[2:])
