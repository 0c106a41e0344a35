from . import archives, fetch
from .weights import KNOWN, download_weights, find_weights

__all__ = [
    "KNOWN",
    "archives",
    "download_weights",
    "fetch",
    "find_weights",
]
