from . import correction, licences, loading, simpleclick, state_dicts, vit

__all__ = [
    "correction",
    "licences",
    "loading",
    "simpleclick",
    "state_dicts",
    "vit",
]
