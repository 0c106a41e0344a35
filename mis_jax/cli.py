"""The `mis-jax` command: one word picks the binary; an error a person can mend is one sentence."""

import difflib
import importlib
import importlib.resources
import logging as std_logging
import os
import pathlib
import re
import runpy
import sys
import textwrap
from collections.abc import Collection

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from mis_jax import config
from mis_jax.errors import InputError, Stopped

COMMANDS = {
    "quickstart": "the whole flow on pictures that ship with it; CPU, minutes, no network",
    "download": "[NAME ...] [DIR]: published weights and evaluation sets; lists them if none",
    "propose": "IMAGES --records DIR: a folder, list file or glob of images -> merge trees",
    "masks": "NAME=DIR --records DIR: labelled images -> records to fine-tune on",
    "inspect": "RECORDS --datasets mine=DIR: how good merge trees are, before any training",
    "train": "IMAGES_OR_RECORDS --workdir RUN: train a click model; resumes where it was",
    "evaluate": "[RUN] --datasets grabcut,mine=DIR: simulated clicks -> NoC table",
    "compare": "RESULTS ...: what evaluate wrote of several runs, in one table, beside the paper",
    "export": "RUN FILE.safetensors|FILE.pth: trained weights in one file; .pth: PyTorch's",
    "annotate": "IMAGES [--run RUN]: outline photos with clicks in the browser",
}
# A file inspect.py would hide Python's own module from scripts that are run in its folder.
MODULES = {"inspect": "inspection"}
HELP = ("-h", "--help", "help")
INTERRUPTED, STOPPED = 130, 143  # exit status after Ctrl-C and SIGTERM, as shells have it


def main() -> None:
    """Console entry: `mis-jax COMMAND ...`."""
    _leave(command(sys.argv[1:]))


def run(name: str) -> None:
    """Entry of `python -m mis_jax.MODULE ...`, by the name of its command."""
    _leave(command([name, *sys.argv[1:]]))


def command(words: list[str]) -> int:
    """Runs `mis-jax WORDS`, prints what went wrong, if it did, and returns the exit status."""
    try:
        if words and words[0] not in HELP:
            _run(words[0], words[1:])
        else:
            print(_usage())
        return 0
    except KeyboardInterrupt:
        print("\nmis-jax: interrupted; the same command resumes it.", file=sys.stderr)
        return INTERRUPTED
    except Stopped as stop:
        print(f"mis-jax: {stop}; the same command goes on from there.", file=sys.stderr)
        return STOPPED
    except InputError as error:
        message = str(error)
    except OSError as error:
        if error.errno is None:
            raise
        message = (
            f"{error.filename or 'while writing'}: {os.strerror(error.errno)}; what was finished "
            "before is kept, and the same command goes on from there."
        )
    print(f"mis-jax: error: {message}", file=sys.stderr)
    return 2


def define_config(default: str) -> None:
    """Defines `--config`: a name of `mis_jax/configs/` or a file, with overrides below it."""
    chosen = [word.partition("=")[2] for word in sys.argv if word.startswith("--config=")]
    file = (chosen or [str(_config_file(default))])[-1]
    known = config.fields(_load_config(file))
    for word in sys.argv:
        field = re.match(r"--?(?:no)?config\.([^=]*)", word)
        if field and field[1] not in known:
            raise InputError(f"there is no field config.{field[1]}{_instead(field[1], known)}")
    names = f"{', '.join(config_names())}, or a file of your own"
    config_flags.DEFINE_config_file("config", file, f"{names}; {pathlib.Path(file).stem} if none.")


def config_names() -> list[str]:
    """Names of the experiments that ship in `mis_jax/configs/`."""
    return sorted(p.stem for p in _config_folder().glob("*.py") if p.stem != "__init__")


def define_shard() -> None:
    """Defines `--shard`, for commands that several processes share."""
    flags.DEFINE_string(
        "shard", None, "i/n: this process, counted from 0, of n; default: the JAX process."
    )


def parse_shard(text: str | None) -> tuple[int, int]:
    """(i, n) of a `--shard`, by default the index and number of JAX processes."""
    if text is None:
        import jax

        return jax.process_index(), jax.process_count()
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise InputError(f"--shard={text} is not i/n with i from 0 to n - 1, such as 0/4.")
    return int(match[1]), int(match[2])


def _run(name: str, words: list[str]) -> None:
    """Runs `main(argv)` of a command's module, with the flags of its `define_flags` parsed."""
    if name not in COMMANDS:
        raise InputError(f'there is no command "{name}"{_instead(name, COMMANDS)}')
    module = importlib.import_module(f"mis_jax.{MODULES.get(name, name)}")
    help_wanted = any(word in HELP for word in words)
    sys.argv = [f"mis-jax {name}", *([] if help_wanted else _arguments(words))]
    others = set(flags.FLAGS)
    try:
        module.define_flags()
        arguments = flags.FLAGS(sys.argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        hint = f"mis-jax {name} --help lists the flags"
        raise InputError(f"{_last_line(error)} ({hint}).") from error
    if help_wanted:
        print(_help(name, sorted(set(flags.FLAGS) - others)))
        return
    logging.use_absl_handler()
    if flags.FLAGS.verbosity < logging.INFO:
        logging.get_absl_handler().addFilter(_is_brief)
    if "config" in flags.FLAGS:
        config.check(flags.FLAGS.config)
    module.main(arguments)


def _is_brief(record: std_logging.LogRecord) -> bool:
    """Whether to show a warning of another library.

    Tracebacks and long reports, as of Orbax's threads, tell what is raised here too.
    """
    return not record.exc_info and "\n" not in record.getMessage()


def _arguments(words: list[str]) -> list[str]:
    """`--config NAME`, in one word or two, becomes `--config=FILE` and comes first."""
    file, rest, todo = [], [], iter(words)
    for word in todo:
        match = re.fullmatch(r"--?config(?:=(.*))?", word)
        if match:
            choice = match[1] if match[1] is not None else next(todo, "")
            file = [f"--config={_config_file(choice)}"]
            continue
        rest.append(word)
    return file + rest


def _config_file(choice: str) -> pathlib.Path:
    """The file of a shipped experiment, or the user's own."""
    if choice in config_names():
        return _config_folder() / f"{choice}.py"
    if not os.path.isfile(choice):
        raise InputError(f'there is no config or file "{choice}"{_instead(choice, config_names())}')
    return pathlib.Path(choice)


def _config_folder() -> pathlib.Path:
    return pathlib.Path(str(importlib.resources.files("mis_jax") / "configs"))


def _load_config(file: str) -> ConfigDict:
    try:
        return runpy.run_path(file)["get_config"]()
    except Exception as error:  # it is the user's program
        raise InputError(f"{file}: {type(error).__name__}: {_last_line(error)}") from error


def _last_line(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)  # which quotes it
    return (text.strip().splitlines() or [""])[-1].rstrip(".")


def _instead(word: str, known: Collection[str]) -> str:
    """The rest of a sentence about a word that is not known: one alike, or a few there are."""
    close = difflib.get_close_matches(word, known, 1)
    if close:
        return f'; did you mean "{close[0]}"?'
    few = ", ".join(known) if len(known) < 12 else "those that mis_jax/config.py explains"
    return f"; there are {few}."


def _usage() -> str:
    lines = [f"  {name:<11} {text}" for name, text in COMMANDS.items()]
    last = "mis-jax COMMAND --help lists the flags of a command."
    return "\n".join(["usage: mis-jax COMMAND ...\n", *lines, "", last])


def _help(name: str, own: list[str]) -> str:
    """The flags of a command, and the fields of its config."""
    lines = [f"usage: mis-jax {name} {COMMANDS[name]}", ""]
    for flag in (flags.FLAGS[key] for key in own):
        default = f" [{flag.default}]" if flag.default and flag.name != "config" else ""
        lines += _paragraph(f"--{flag.name}", flag.help + default)
    if "config" in own:
        lines += ["", "--config.FIELD=VALUE changes a field; mis_jax/config.py explains them:"]
        for section, value in flags.FLAGS.config.items():
            inner = ", ".join(value) if isinstance(value, ConfigDict) else ""
            lines += _paragraph(f"{section}." if inner else section, inner)
    return "\n".join(lines)


def _paragraph(head: str, text: str) -> list[str]:
    return textwrap.wrap(f"  {head:<16} {text}", 98, subsequent_indent=" " * 19) or [head]


def _leave(status: int) -> None:
    """Ends the process; the threads of a failed command must not keep it alive."""
    sys.stdout.flush()
    sys.stderr.flush()
    if status:
        os._exit(status)
