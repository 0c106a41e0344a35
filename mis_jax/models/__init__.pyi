from . import licences, loading, simpleclick, state_dicts, vit

__all__ = [
    "licences",
    "loading",
    "simpleclick",
    "state_dicts",
    "vit",
]
