import errno
import json
import os
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
import tiny_run
from damage import damaged, odd_json

from mis_jax import config
from mis_jax.errors import InputError
from mis_jax.models import loading, simpleclick
from mis_jax.training import checkpoint

PLACE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def abstract(tree):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(np.shape(x), jnp.result_type(x), sharding=PLACE), tree
    )


def state_of(params):
    """A train state with all kinds of nodes: dicts, lists, numbers as keys, named tuples."""
    chain = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(lambda step: 1e-3))
    return {"step": jnp.int32(7), "params": params, "opt_state": chain.init(params)}


def nested(width=3):
    layers = {i: {"kernel": jnp.arange(2.0 * width).reshape(2, width) + i} for i in range(12)}
    return {"blocks": layers, "list": [jnp.ones(4), jnp.zeros(2)]}


def save(run, step, items):
    with checkpoint.writing(run), checkpoint.checkpointer(run, every=1, keep=2) as saver:
        saver.save_checkpointables_async(step, items)


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with two checkpoints of the tiny model, filled with numbers instead of trained."""
    run = tmp_path_factory.mktemp("runs") / "run"
    run.mkdir()
    c = tiny_run.get_config()
    checkpoint.write_config(run, c)
    shapes = simpleclick.shapes(c.model.variant, c.model.patch, c.data.crop)
    rng = np.random.default_rng(0)
    fill = lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype)  # noqa: E731
    for step in (2, 4):
        params, ema = jax.tree.map(fill, shapes), jax.tree.map(fill, shapes)
        save(run, step, {"step": jnp.int32(step), "params": params, "ema": ema})
    return run, params, ema


def copied(run, tmp_path):
    return shutil.copytree(run[0], tmp_path / "copy")


def test_a_state_comes_back_as_it_was(tmp_path):
    state = state_of(nested())
    save(tmp_path, 3, {**state, "data": {"next": 12}})
    back = loading.restore(tmp_path, 3, {**abstract(state), "data": None})
    assert back.pop("data") == {"next": 12}
    assert_equal(back, state)


@pytest.mark.parametrize(
    ("other", "name"),
    [
        (nested(width=4), r"params.blocks.0.kernel is \[2, 3\] in the checkpoint and \[2, 4\] in"),
        ({**nested(), "new": jnp.ones(3)}, r"params.new is absent in the checkpoint and \[3\] in"),
        ({"blocks": nested()["blocks"]}, r"params.list.0 is \[4\] in the checkpoint and absent in"),
    ],
)
def test_a_state_of_another_size_is_refused_by_name(tmp_path, other, name):
    save(tmp_path, 3, state_of(nested()))
    items = abstract(state_of(other))
    with pytest.raises(InputError, match=f"checkpoints/3: {name}"):
        loading.restore(tmp_path, 3, {"params": items["params"]})
    with pytest.raises(InputError, match=r"checkpoints/3: opt_state\.1\.0\.mu"):
        loading.restore(tmp_path, 3, {"opt_state": items["opt_state"]})


def test_the_newest_whole_checkpoint_counts_and_leftovers_go(tmp_path):
    with pytest.raises(InputError, match="no checkpoint yet"):
        loading.latest_step(tmp_path)
    for step in (9, 10, 11):
        (tmp_path / "checkpoints" / "12.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
        save(tmp_path, step, {"params": nested()})
        assert loading.latest_step(tmp_path) == step
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["10", "11"]


def test_a_disk_that_fills_up_leaves_the_last_checkpoint(tmp_path):
    state = {"params": {"x": jnp.asarray(np.random.default_rng(0).normal(size=300_000))}}
    save(tmp_path, 1, state)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"cannot be written .*last complete checkpoint"):
            save(tmp_path, 2, state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert loading.latest_step(tmp_path) == 1
    assert_equal(loading.restore(tmp_path, 1, abstract(state)), state)
    save(tmp_path, 2, state)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["1", "2"]


def test_only_errors_of_the_disk_are_reworded(tmp_path):
    with pytest.raises(InputError, match="No space left"), checkpoint.writing(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(PermissionError), checkpoint.writing(tmp_path):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), "weights.pth")  # not of the run
    with pytest.raises(ZeroDivisionError), checkpoint.writing(tmp_path):
        raise ZeroDivisionError


def test_load_gives_the_running_mean_or_else_the_parameters(run, tmp_path):
    folder, params, ema = run
    c, loaded = loading.load(folder)
    assert c.optim.ema == 0.5
    assert_equal(loaded, ema)
    copy = copied(run, tmp_path)
    c.optim.ema = 0.0
    checkpoint.write_config(copy, c)
    assert_equal(loading.load(str(copy))[1], params)


def test_a_run_of_another_size_is_refused(run, tmp_path):
    copy = copied(run, tmp_path)
    c = loading.read_config(copy)
    c.data.crop = 64
    checkpoint.write_config(copy, c)
    with pytest.raises(InputError, match=r"pos_embed is \[1, 37, 16\] .* and \[1, 65, 16\]"):
        loading.load(copy)


def test_a_damaged_checkpoint_is_named(run, tmp_path):
    copy = copied(run, tmp_path)
    for path in (copy / "checkpoints" / "4").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(InputError, match=r"checkpoints/4 is damaged .* delete it"):
        loading.load(copy)
    shutil.rmtree(copy / "checkpoints" / "4")
    loading.load(copy)


def test_files_that_hold_no_model(tmp_path):
    for name in ("none.safetensors", "none.pth"):
        with pytest.raises(InputError, match=f"no weights file .*{name}"):
            loading.load(tmp_path / name)
    file = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"x": np.ones(3, np.float32)}, file)
    with pytest.raises(InputError, match=r"other\.safetensors: it holds no SimpleClick"):
        loading.load(file)
    metadata = {"mis_jax": json.dumps(tiny_run.get_config().to_dict())}
    safetensors.numpy.save_file({"x": np.ones(3, np.float32)}, file, metadata)
    with pytest.raises(InputError, match=r"other\.safetensors: .*do not fit the model"):
        loading.load(file)
    safetensors.numpy.save_file({"x": np.ones(3, np.float32)}, file, {"mis_jax": "{}"})
    with pytest.raises(InputError, match="its config is damaged or of another version"):
        loading.load(file)


def test_a_folder_that_is_no_run(run, tmp_path):
    for source in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="no training run"):
            loading.load(source)
    checkpoint.write_config(tmp_path, config.default())
    with pytest.raises(InputError, match="holds no checkpoint yet"):
        loading.load(tmp_path)
    for text in ("", "{", "[]", "3", '{"optim": 1}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match=r"config\.json is damaged or of another version"):
            loading.read_config(tmp_path)


def test_500_damaged_configs(tmp_path):
    """Each is read as a config whose fields have their types, or named."""
    checkpoint.write_config(tmp_path, config.default())
    file = tmp_path / "config.json"
    data, rng, said = file.read_bytes(), np.random.default_rng(0), []
    usual = config.fields(loading.read_config(tmp_path))
    for number in range(500):
        odd = json.dumps(odd_json(json.loads(data), rng)).encode()
        file.write_bytes(odd if number % 2 else damaged(data, rng, len(data)))
        try:
            fields = config.fields(loading.read_config(tmp_path))
        except InputError as error:
            said.append(str(error))
            continue
        for name, value in usual.items():
            wanted = (float, int) if isinstance(value, float) else (type(value), tuple)
            assert isinstance(fields[name], wanted), name
    assert len(said) > 250
    assert all(str(file) in text for text in said)


def test_a_resumed_run_agrees_on_all_but_the_free_fields(tmp_path):
    free = ("optim.steps", "eval.")
    c = config.default()
    checkpoint.agree(tmp_path, c, free)  # a new run
    checkpoint.write_config(tmp_path, c)
    c.optim.steps, c.eval.size = 1, 96
    checkpoint.agree(tmp_path, c, free)
    for field, value in {"optim.lr": 1.0, "seed": 1, "data.scale": (1.0, 2.0)}.items():
        other = c.copy_and_resolve_references()
        other.update_from_flattened_dict({field: value})
        with pytest.raises(InputError, match=f"started with config.{field}="):
            checkpoint.agree(tmp_path, other, free)
