"""What ends a command on purpose: bad input, said in one sentence, and a request to stop."""


class InputError(ValueError):
    """A file, folder, field or checkpoint that cannot be used.

    The message is one sentence naming what was given and what to do about it; `mis_jax.cli` prints
    it without a traceback.
    """


class Stopped(Exception):
    """The command was asked to stop, and has saved; the message says where it is."""
