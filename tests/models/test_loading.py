"""The word for the model that comes with the package, in place of a run or file."""

import os

import jax
import pytest
import small_evidence
from absl import flags

from mis_jax import Predictor, cli, config
from mis_jax.errors import InputError
from mis_jax.models import correction, loading
from mis_jax.training import checkpoint, initial


def test_the_model_that_ships_is_an_evidence_network():
    c, params = loading.load("shipped")
    assert c.model.evidence > 0
    assert c.model.init == "random"  # no licence but ours
    config.check(c)
    assert loading.digest(params) == loading.digest(loading.load(loading.SHIPPED_FILE)[1])
    wanted = correction.shapes(c.model.evidence)
    assert jax.tree.map(lambda x: x.shape, params) == jax.tree.map(lambda x: x.shape, wanted)
    assert loading.config_of("shipped") is None  # as of any file
    assert loading.SHIPPED_FILE.stat().st_size < 5e6


def test_beside_something_of_its_name_the_word_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_evidence.write_file(tmp_path / "shipped")
    for use in (loading.load, loading.config_of, loading.resolve, Predictor.load):
        with pytest.raises(
            InputError, match=rf"give \./shipped for that, or {loading.SHIPPED_FILE}"
        ):
            use("shipped")
    _, params = loading.load("./shipped")
    assert loading.digest(params) == loading.digest(small_evidence.parameters())
    assert loading.load(tmp_path / "shipped")[0].model.evidence == small_evidence.WIDTH
    assert Predictor().settings["parameters"] != loading.digest(params)
    os.remove("shipped")
    os.mkdir("shipped")
    checkpoint.write_config(tmp_path / "shipped", config.default())
    with pytest.raises(InputError, match="there is a file or folder"):
        loading.config_of("shipped")
    assert loading.config_of("./shipped").model.evidence == 0
    with pytest.raises(InputError, match="holds no checkpoint yet"):
        loading.load("./shipped")


def test_a_run_begins_from_it():
    c, params = loading.load("shipped")
    c.model.start = "shipped"
    assert loading.digest(initial.start_from(c.model, params)) == loading.digest(params)


def test_it_is_exported(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli.logging, "use_absl_handler", lambda: None)  # it outlives the test
    monkeypatch.setattr("sys.argv", ["mis-jax"])
    before = set(flags.FLAGS)
    file = tmp_path / "x.safetensors"
    assert cli.command(["export", "shipped", str(file)]) == 0
    assert "the evidence network of width" in capsys.readouterr().out
    (c, params), (found, loaded) = loading.load("shipped"), loading.load(file)
    assert found.to_dict() == c.to_dict()
    assert loading.digest(loaded) == loading.digest(params)
    assert cli.command(["export", "shipped", str(tmp_path / "x.pth")]) == 2
    assert "no evidence network; write a .safetensors" in capsys.readouterr().err
    assert set(flags.FLAGS) == before


def test_a_digest_is_of_every_parameter():
    params = small_evidence.parameters()
    other = {**params, "embed": {**params["embed"], "bias": params["embed"]["bias"] + 1}}
    assert loading.digest(params) != loading.digest(other)
