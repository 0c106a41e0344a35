from . import classics, evidence, zoom_in
from .clicks import Click
from .fused import FusedPredictor
from .merge_trees import TreePredictor
from .network import Network, Predictor, make_network, make_program, mirrored, plain

__all__ = [
    "Click",
    "FusedPredictor",
    "Network",
    "Predictor",
    "TreePredictor",
    "classics",
    "evidence",
    "make_network",
    "make_program",
    "mirrored",
    "plain",
    "zoom_in",
]
