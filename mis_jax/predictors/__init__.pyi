from . import classics, click_list, zoom_in
from .click_list import ClickListPredictor
from .clicks import Click
from .merge_trees import TreePredictor
from .network import Network, Predictor, make_network, make_program, mirrored, plain

__all__ = [
    "Click",
    "ClickListPredictor",
    "Network",
    "Predictor",
    "TreePredictor",
    "classics",
    "click_list",
    "make_network",
    "make_program",
    "mirrored",
    "plain",
    "zoom_in",
]
