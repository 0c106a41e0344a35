"""The `mis-jax` command: one word picks the binary, and errors a person can mend are one sentence."""

import difflib
import importlib
import importlib.resources
import os
import pathlib
import re
import sys

from absl import app, flags

from mis_jax.errors import InputError

COMMANDS = {
    "quickstart": "the whole flow on pictures that ship with it; CPU, minutes, no network",
    "propose": "IMAGES --records DIR: a folder, list file or glob of images -> merge trees",
    "train": "IMAGES_OR_RECORDS --workdir RUN: train a click model; resumes where it was",
    "evaluate": "RUN --datasets grabcut=DIR,mine=DIR: simulated clicks -> NoC table",
}


def main() -> None:
    """Console entry: `mis-jax COMMAND ...`."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help", "help"):
        print("usage: mis-jax COMMAND ...\n")
        for name, text in COMMANDS.items():
            print(f"  {name:<11} {text}")
        print("\nmis-jax COMMAND --help lists the flags of a command.")
        return
    name = sys.argv.pop(1)
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f'; did you mean "{close[0]}"?' if close else ""
        _fail(f'there is no command "{name}"{hint} Commands: {", ".join(COMMANDS)}.')
    run(name)


def run(name: str) -> None:
    """Runs the `main(argv)` of binary `mis_jax.<name>` with its flags parsed."""
    module = importlib.import_module(f"mis_jax.{name}")
    module.define_flags()
    argv = [f"mis-jax {name}", *map(_config_path, sys.argv[1:])]
    app.run(lambda args: _guarded(module.main, args), argv=argv, flags_parser=_parse)


def define_config(default: str) -> None:
    """Defines `--config`: a name of `mis_jax/configs/` or a file, with overrides below it."""
    from ml_collections import config_flags

    config_flags.DEFINE_config_file(
        "config",
        str(config_file(default)),
        f"Experiment: {', '.join(config_names())}, or a file of your own.",
        lock_config=True,
    )


def config_names() -> list[str]:
    """Names of the experiments that ship in `mis_jax/configs/`."""
    return sorted(p.stem for p in _config_folder().glob("*.py") if p.stem != "__init__")


def config_file(name: str) -> pathlib.Path:
    """The file of a shipped experiment."""
    return _config_folder() / f"{name}.py"


def _config_folder() -> pathlib.Path:
    return pathlib.Path(str(importlib.resources.files("mis_jax") / "configs"))


def _config_path(argument: str) -> str:
    """Replaces `--config=NAME` by the file of the shipped experiment of that name."""
    match = re.fullmatch(r"(--?config=)(\w+)", argument)
    if not match:
        return argument if argument not in config_names() else _path_after_flag(argument)
    if match[2] not in config_names():
        _fail(f'there is no config "{match[2]}"; there are {", ".join(config_names())}.')
    return match[1] + str(config_file(match[2]))


def _path_after_flag(argument: str) -> str:
    """`--config NAME` in two words: the word after the flag is a name, any other word is itself."""
    words = sys.argv[1:]
    follows = any(a in ("--config", "-config") and b == argument
                  for a, b in zip(words, words[1:], strict=False))
    return str(config_file(argument)) if follows else argument


def _parse(argv: list[str]) -> list[str]:
    try:
        return app.parse_flags_with_usage(argv) if _wants_help(argv) else flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, OSError) as error:
        _fail(f"{' '.join(str(error).split())} (mis-jax COMMAND --help lists the flags)")


def _wants_help(argv: list[str]) -> bool:
    return any(re.fullmatch(r"--?help(short|full|xml)?", a) for a in argv)


def _guarded(function, argv: list[str]) -> None:
    try:
        function(argv)
    except InputError as error:
        _fail(str(error))
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        _fail(f"{error.strerror}: {error.filename or 'while writing'}; "
              "what was finished before is kept, and the same command goes on from there.")


def _fail(message: str) -> None:
    print(f"mis-jax: error: {message}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(2) if _threads_left() else sys.exit(2)


def _threads_left() -> bool:
    """Background threads of a failed command must not keep the process alive."""
    import threading

    return any(t is not threading.main_thread() and not t.daemon for t in threading.enumerate())
