"""The `mis-jax` command: one word picks the module; an error a person can mend is one sentence.

A command's module has `define_flags()` and `main(argv)`, and is imported only when it is asked for.
"""

import importlib
import logging as std_logging
import os
import re
import sys
import textwrap

from absl import flags, logging
from ml_collections import ConfigDict

from mis_jax import config
from mis_jax.errors import InputError, Stopped, instead, last_line

COMMANDS = {  # word -> its module, and what follows the word
    "quickstart": (
        "quickstart.quickstart",
        "the whole flow on pictures that ship with it; CPU, minutes, no network",
    ),
    "download": (
        "downloads.download",
        "[NAME ...] [DIR]: published weights and evaluation sets; lists them if none",
    ),
    "check": (
        "inspection.check",
        "IMAGES --datasets mine=DIR: how images and masks are read, before hours of work",
    ),
    "propose": (
        "records.propose",
        "IMAGES --records DIR: a folder, list file or glob of images -> merge trees",
    ),
    "masks": (
        "records.masks",
        "NAME=DIR --records DIR: labelled images -> records to fine-tune on",
    ),
    "inspect": (
        "inspection.inspect",
        "RECORDS --datasets mine=DIR: how good merge trees are, before any training",
    ),
    "train": (
        "training.train",
        "IMAGES_OR_RECORDS --workdir RUN: train a click model; resumes where it was",
    ),
    "evaluate": (
        "evaluation.evaluate",
        "[RUN] --datasets grabcut,mine=DIR: simulated clicks -> NoC table",
    ),
    "compare": (
        "evaluation.compare",
        "RESULTS ...: what evaluate wrote of several runs, in one table, beside the paper",
    ),
    "export": (
        "models.export",
        "RUN FILE.safetensors|FILE.pth: trained weights in one file; .pth: PyTorch's",
    ),
    "annotate": (
        "annotator.server",
        "IMAGES [--run RUN]: outline photos with clicks in the browser",
    ),
}
HELP = ("-h", "--help", "help")
INTERRUPTED, STOPPED = 130, 143  # exit status after Ctrl-C and SIGTERM, as shells have it


def main() -> None:
    """Console entry: `mis-jax COMMAND ...`, or `python -m mis_jax COMMAND ...`."""
    _leave(command(sys.argv[1:]))


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


def _run(name: str, words: list[str]) -> None:
    """Runs `main(argv)` of a command's module, with the flags of its `define_flags` parsed."""
    if name not in COMMANDS:
        raise InputError(f'there is no command "{name}"{instead(name, COMMANDS)}')
    module = importlib.import_module(f"mis_jax.{COMMANDS[name][0]}")
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
        raise InputError(f"{last_line(error)} ({hint}).") from error
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
            file = [f"--config={config.find(choice)}"]
            continue
        rest.append(word)
    return file + rest


def _usage() -> str:
    lines = [f"  {name:<11} {text}" for name, (_, text) in COMMANDS.items()]
    last = "mis-jax COMMAND --help lists the flags of a command."
    return "\n".join(["usage: mis-jax COMMAND ...\n", *lines, "", last])


def _help(name: str, own: list[str]) -> str:
    """The flags of a command, and the fields of its config."""
    lines = [f"usage: mis-jax {name} {COMMANDS[name][1]}", ""]
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
