from . import descriptor
from .extractors import Extractor, make_extractor

__all__ = [
    "Extractor",
    "descriptor",
    "make_extractor",
]
