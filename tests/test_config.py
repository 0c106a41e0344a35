import inspect
import itertools
import re
from pathlib import Path

import pytest

import mis_jax
from mis_jax import config
from mis_jax.errors import InputError
from mis_jax.features import extractors
from mis_jax.records import propose
from mis_jax.training import input, losses

PACKAGE = Path(mis_jax.__file__).parent
# Sections, or parts of them, that are passed on whole as keyword arguments.
PASSED_ON = {"features", "propose", "data", "loss"}


def parameters(function):
    return set(inspect.signature(function).parameters)


def test_sections_passed_on_whole_fit_their_functions():
    assert set(config.features()) == parameters(extractors.make_extractor)
    rest = {"source", "folder", "extractor", "batch_size", "shard", "reading"}
    assert set(config.propose()) == parameters(propose.propose) - rest
    rest = {"files", "seed", "batch_size", "max_points", "gamma", "shard", "say"}
    assert set(config.data()) - {"targets"} == parameters(input.train_stream) - rest
    own = {"mask", "smooth_weight"}
    assert set(config.loss()) - own == parameters(losses.smoothness) - {"logits", "image"}


def test_every_other_field_is_used():
    modules = [p for p in PACKAGE.rglob("*.py") if p.name != "config.py"]
    source = "".join(p.read_text() for p in modules)
    for name in config.fields(config.default()):
        section, _, leaf = name.rpartition(".")
        if section not in PASSED_ON:
            assert re.search(rf"\.{leaf}\b|\"{leaf}\"", source), name


def test_every_field_is_explained():
    lines = (PACKAGE / "config.py").read_text().splitlines()
    explained = {}
    for before, line in itertools.pairwise(lines):
        if match := re.match(r'        "(\w+)": ', line):
            explained[match[1]] = "#" in line or before.strip().startswith("#")
    leaves = {name.rpartition(".")[2] for name in config.fields(config.default())} - {"seed"}
    assert leaves <= explained.keys()
    assert [name for name, told in explained.items() if not told] == []


def test_fields_are_flat():
    values = config.fields(config.default())
    assert values["seed"] == 0
    assert values["optim.lr"] == 5e-5
    assert values["data.scale"] == (0.75, 1.25)
    assert "optim" not in values


@pytest.mark.parametrize("name", config.names())
def test_shipped_configs_pass(name):
    config.check(config.load(str(config.find(name))))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("loss.yuv", "corect"),
        ("loss.mask", "dice"),
        ("clicks.distance", "l1"),
        ("model.dtype", "float64"),
        ("model.remat", "all"),
        ("optim.batch_size", 0),
        ("train.log_every", 0),
        ("data.scale", (2.0, 1.0)),
    ],
)
def test_senseless_values_are_named(field, value):
    c = config.default()
    c.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=re.escape(f"config.{field} is ")):
        config.check(c)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model.evidence", -2),
        ("model.evidence", 15),
        ("model.init", "dino"),
        ("data.crop", 100),
        ("optim.batch_size", 7),
        ("optim.accumulate", 2),
        ("clicks.max_next", 0),
        ("train.made_up", -1),
        ("data.targets", (1.0, 0.0)),
        ("data.targets", (1.0, -0.5, 0.5)),
        ("data.targets", (0.0, 0.0, 0.0)),
        ("data.targets", (float("nan"), 0.5, 0.5)),
    ],
)
def test_what_makes_no_sense_with_an_evidence_network_is_named(field, value):
    c = config.default()
    c.update_from_flattened_dict({"model.evidence": 16})
    config.check(c)
    c.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=re.escape(f"config.{field} is ")):
        config.check(c)


def test_other_models_may_have_what_it_may_not():
    c = config.default()
    c.update_from_flattened_dict({"data.crop": 100, "optim.batch_size": 6, "model.init": "dino"})
    config.check(c)


def test_fields_too_many_or_too_few_are_named():
    c = config.default()
    c.optim.lrr = 1
    with pytest.raises(InputError, match=r"config\.optim\.lrr is no field"):
        config.check(c)
    c = config.default()
    del c.optim.lr
    with pytest.raises(InputError, match=r"there is no config\.optim\.lr;"):
        config.check(c)
    c = config.default()
    c.mine = {"own": 1}  # a section that another program adds
    config.check(c)


def test_older_runs_do_what_is_the_default():
    c = config.default()
    for name in config.LATER:
        section, leaf = name.split(".")
        del c[section][leaf]
    config.add_later(c)
    assert config.fields(c) == config.fields(config.default())
