from . import clicker, clicking, evaluate, metrics, tables
from .metrics import noc

__all__ = [
    "clicker",
    "clicking",
    "evaluate",
    "metrics",
    "noc",
    "tables",
]
