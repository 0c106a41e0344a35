"""The one exception a person can cause: bad input, said in one sentence that names the remedy."""


class InputError(ValueError):
    """A file, folder, field or checkpoint that cannot be used.

    The message is one sentence naming what was given and what to do about it; `mis_jax.cli` prints
    it without a traceback.
    """
