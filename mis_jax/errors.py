"""What ends a command on purpose: bad input, said in one sentence, and a request to stop."""

import difflib
from collections.abc import Collection


class InputError(ValueError):
    """A file, folder, field or checkpoint that cannot be used.

    The message is one sentence naming what was given and what to do about it; `mis_jax.cli` prints
    it without a traceback.
    """


class Stopped(Exception):
    """The command was asked to stop, and has saved; the message says where it is."""


def last_line(error: Exception) -> str:
    """What an error of another library says, without what it says before."""
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)  # which quotes it
    return (text.strip().splitlines() or [""])[-1].rstrip(".")


def instead(word: str, known: Collection[str]) -> str:
    """The rest of a sentence about a word that is not known: one alike, or a few there are."""
    close = difflib.get_close_matches(word, known, 1)
    if close:
        return f'; did you mean "{close[0]}"?'
    few = ", ".join(known) if len(known) < 16 else "those that mis_jax/config.py explains"
    return f"; there are {few}."
