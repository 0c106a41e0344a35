from . import classics, zoom_in
from .clicks import Click
from .merge_trees import TreePredictor
from .network import Network, Predictor, make_network, make_program, mirrored, plain

__all__ = [
    "Click",
    "Network",
    "Predictor",
    "TreePredictor",
    "classics",
    "make_network",
    "make_program",
    "mirrored",
    "plain",
    "zoom_in",
]
