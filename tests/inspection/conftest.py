"""What the tests of this room share: its commands."""

import sys

import pytest
from absl import flags

from mis_jax import cli


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `mis-jax NAME WORDS`: exit status, stdout and stderr."""
    monkeypatch.setattr(cli.logging, "use_absl_handler", lambda: None)  # it outlives the test

    def command(name, *words):
        before = set(flags.FLAGS)
        monkeypatch.setattr(sys, "argv", ["mis-jax", name, *map(str, words)])
        try:
            status = cli.command(sys.argv[1:])
        finally:
            for flag in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, flag)
        return status, *capsys.readouterr()

    return command
