import errno
import logging as std_logging
import sys
import types

import cv2
import numpy as np
import pytest
import tiny_run
from absl import flags

from mis_jax import cli, options
from mis_jax.errors import InputError


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs `mis-jax WORDS`: exit status and stderr. `run.seen` is what command `fake` got."""

    def define_flags():
        flags.DEFINE_string("workdir", "", "Where to.")
        options.define_config("tiny_cpu")

    def main(argv):
        run.seen = types.SimpleNamespace(
            argv=argv,
            workdir=flags.FLAGS.workdir,
            config=flags.FLAGS.config,
            overrides=flags.FLAGS["config"].override_values,
        )
        if run.error:
            raise run.error

    def run(*words):
        before = set(flags.FLAGS)
        monkeypatch.setattr(sys, "argv", ["mis-jax", *words])
        try:
            status = cli.command(list(words))
        finally:
            for name in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, name)
        captured = capsys.readouterr()
        run.printed = captured.out
        return status, captured.err

    monkeypatch.setattr(cli.logging, "use_absl_handler", lambda: None)  # it outlives the test
    fake = types.ModuleType("mis_jax.fake.fake")
    fake.define_flags, fake.main = define_flags, main
    monkeypatch.setitem(sys.modules, "mis_jax.fake.fake", fake)
    monkeypatch.setitem(cli.COMMANDS, "fake", ("fake.fake", "WORDS: a command of this test"))
    run.seen = run.error = None
    return run


def fails(result, *parts):
    """Whether a command printed one sentence with these parts, and nothing else."""
    status, err = result
    assert status == 2
    assert err.startswith("mis-jax: error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err


@pytest.mark.parametrize("words", [(), ("--help",), ("help",)])
def test_usage_lists_the_commands(run, words):
    assert run(*words) == (0, "")
    for name in ("propose", "train", "evaluate", "quickstart"):
        assert f"\n  {name} " in run.printed


def test_help_of_a_command_lists_its_flags_and_the_configs(run):
    assert run("train", "--help") == (0, "")
    for word in ("--workdir", "--coordinator", "--config ", "tiny_cpu", "sbd_vitb16", "warmup"):
        assert word in run.printed
    assert "--records" not in run.printed  # of another command


@pytest.mark.parametrize("words", [["--config", "tiny_cpu"], ["--config=tiny_cpu"], []])
def test_a_config_by_name(run, words):
    assert run("fake", "a", *words, "--workdir=x", "b") == (0, "")
    assert run.seen.argv == ["mis-jax fake", "a", "b"]
    assert run.seen.workdir == "x"
    assert run.seen.config.model.variant == "Nano"


@pytest.mark.parametrize("joined", [True, False])
def test_a_config_by_file_and_overrides_before_and_after_it(run, tmp_path, joined):
    file = str(tiny_run.write_config(tmp_path))
    words = [f"--config={file}"] if joined else ["--config", file]
    changes = ["--config.optim.lr=1e-4", *words, "--config.data.scale=(0.1, 0.2)"]
    assert run("fake", *changes, "--noconfig.train.color_aug") == (0, "")
    c = run.seen.config
    assert (c.model.variant, c.optim.lr, c.data.scale) == ("Test", 1e-4, (0.1, 0.2))
    assert c.train.color_aug is False
    assert run.seen.overrides["optim.lr"] == 1e-4


def test_evaluate_takes_no_run_for_granted(run, tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        cv2.imwrite(str(tmp_path / part / "a.png"), np.tri(8, 9, dtype=np.uint8) * 255)
    words = [
        "evaluate",
        "--config",
        str(tiny_run.write_config(tmp_path)),
        f"--datasets=mine={tmp_path}",
    ]
    fails(
        run(*words), "Without a run", "--predictor shipped --datasets NAME=FOLDER --output FOLDER"
    )


def test_unknown_words_are_named_with_one_alike(run, tmp_path):
    fails(run("trian"), '"trian"', 'did you mean "train"?')
    fails(run("xyz"), '"xyz"', "propose, masks, inspect, train, evaluate")
    fails(run("fake", "--wrokdir=x"), "wrokdir", "Did you mean: workdir", "mis-jax fake --help")
    fails(run("fake", "--config", "tiny_gpu"), '"tiny_gpu"', 'did you mean "tiny_cpu"?')
    fails(run("fake", "--config=no/such.py"), "no/such.py", "sbd_vitb16")
    fails(run("fake", "--config"), 'config or file ""')
    fails(run("fake", "--config.optim.lrr=1"), "config.optim.lrr", '"optim.lr"')
    fails(run("fake", "--config.zzz=1"), "config.zzz", "mis_jax/config.py")
    assert run.seen is None


def test_values_of_a_wrong_type_or_choice_are_named(run):
    fails(run("fake", "--config.optim.lr=abc"), "--config.optim.lr=abc", "'abc'")
    fails(run("fake", "--config.optim.steps=1.5"), "--config.optim.steps=1.5")
    fails(run("fake", "--config.data.scale=1"), "config.data.scale")
    fails(run("fake", "--config.loss.yuv=corect"), "loss.yuv", "official_transposed, correct")
    assert run.seen is None


def test_faults_of_a_config_file_are_named(run, tmp_path):
    file = tmp_path / "mine.py"
    for text, part in [
        ("x = (", "SyntaxError: '(' was never closed"),
        ("def get_config(): return foo", "name 'foo' is not defined"),
        ("x = 1", "KeyError: get_config"),
        (tiny_run.CONFIG.replace("lr=1e-3", "lrr=1"), "config.optim.lrr is no field"),
        (tiny_run.CONFIG.replace("lr=1e-3", "lr='x'"), "TypeError"),
    ]:
        file.write_text(text)
        fails(run("fake", f"--config={file}"), part)


def test_what_a_command_raises(run):
    run.error = InputError("no images in x.")
    assert run("fake") == (2, "mis-jax: error: no images in x.\n")
    run.error = OSError(errno.ENOSPC, "No space left on device", "x/y")
    fails(run("fake"), "x/y: No space left on device", "same command goes on")
    run.error = OSError(errno.ENOSPC, "No space left on device")  # as of a write
    fails(run("fake"), "No space left on device")
    run.error = KeyboardInterrupt()
    status, err = run("fake")
    assert status == 130
    assert "the same command resumes" in err
    run.error = ZeroDivisionError()  # a fault of ours keeps its traceback
    with pytest.raises(ZeroDivisionError):
        run("fake")
    run.error = OSError("not of the system")
    with pytest.raises(OSError, match="not of the system"):
        run("fake")


def test_long_reports_of_other_libraries_are_not_shown():
    record = std_logging.makeLogRecord
    assert cli._is_brief(record({"msg": "checkpoint less %s", "args": ("often",)}))
    assert not cli._is_brief(record({"msg": "failed", "exc_info": (ValueError, None, None)}))
    assert not cli._is_brief(record({"msg": "failed: %s", "args": ("a\nb",)}))
