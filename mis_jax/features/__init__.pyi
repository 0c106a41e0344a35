from . import descriptor
from .extractors import EmbeddedExtractor, Extractor, make_extractor
from .vit_extractor import VitExtractor

__all__ = [
    "EmbeddedExtractor",
    "Extractor",
    "VitExtractor",
    "descriptor",
    "make_extractor",
]
