"""A training run -> one .safetensors file for `mis_jax.Predictor.load` and `mis-jax evaluate`.

python tools/export.py RUN FILE.safetensors
"""

import sys

from mis_jax import checkpoint
from mis_jax.errors import InputError


def main() -> None:
    """Exports argv[1], the newest checkpoint of a run, to argv[2]."""
    if len(sys.argv) != 3:
        sys.exit("usage: python tools/export.py RUN FILE.safetensors")
    try:
        checkpoint.export(sys.argv[1], sys.argv[2])
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
