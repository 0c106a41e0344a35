from . import clicker, clicking, compare, evaluate, figures, metrics, published, results, tables
from .metrics import noc

__all__ = [
    "clicker",
    "clicking",
    "compare",
    "evaluate",
    "figures",
    "metrics",
    "noc",
    "published",
    "results",
    "tables",
]
