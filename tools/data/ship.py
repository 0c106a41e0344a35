"""Puts the model of a run into the package, with its model card: what `mis_jax.Predictor()` opens.

    python tools/data/ship.py RUN

It writes mis_jax/models/shipped.safetensors: parameters, config, licence, and the text of
mis_jax/models/shipped.md.
"""

import sys
from pathlib import Path

import safetensors
import safetensors.numpy

from mis_jax.errors import InputError
from mis_jax.models import export, loading

LICENCE = "Apache-2.0"
MOST = 8_000_000  # bytes


def ship(run: str, file: Path = loading.SHIPPED_FILE) -> None:
    """Exports a run, and adds the licence and the card to the file's metadata."""
    export.export(run, file)
    with safetensors.safe_open(file, "numpy") as opened:
        metadata = opened.metadata()
    metadata |= {"licence": LICENCE, "model_card": file.with_suffix(".md").read_text("utf-8")}
    safetensors.numpy.save_file(safetensors.numpy.load_file(file), file, metadata)
    file.chmod(0o644)  # it is everybody's
    if file.stat().st_size > MOST:
        raise InputError(f"{file} has {file.stat().st_size:,} bytes; at most {MOST:,} are shipped.")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        ship(sys.argv[1])
    except InputError as error:
        sys.exit(str(error))
