"""Click-based segmentation from unlabelled images: merge trees, simulated clicks, SimpleClick."""

import importlib

__version__ = "0.1.0"

_EXPORTS = {
    "InputError": "mis_jax.errors",
    "Predictor": "mis_jax.predictor",
    "Tree": "mis_jax.tree",
    "TreePredictor": "mis_jax.tree_predictor",
    "build_tree": "mis_jax.tree",
    "noc": "mis_jax.metrics",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str):
    """Loads a public name at first use, so that `import mis_jax` stays instant."""
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'mis_jax' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*globals(), *_EXPORTS]
