from . import classics, evidence, fused, maps, zoom_in
from .classics.maxflow import Grid
from .clicks import Click
from .corrected import CorrectedPredictor, shipped
from .fused import FusedPredictor
from .merge_trees import TreePredictor
from .network import Network, Predictor, make_network, make_program, mirrored, plain

__all__ = [
    "Click",
    "CorrectedPredictor",
    "FusedPredictor",
    "Grid",
    "Network",
    "Predictor",
    "TreePredictor",
    "classics",
    "evidence",
    "fused",
    "make_network",
    "make_program",
    "maps",
    "mirrored",
    "plain",
    "shipped",
    "zoom_in",
]
