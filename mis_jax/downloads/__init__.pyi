from .weights import download_weights, find_weights

__all__ = [
    "download_weights",
    "find_weights",
]
