from . import export, licences, loading, official, porting, simpleclick, state_dicts, vit
from .licences import LICENCES

__all__ = [
    "LICENCES",
    "export",
    "licences",
    "loading",
    "official",
    "porting",
    "simpleclick",
    "state_dicts",
    "vit",
]
