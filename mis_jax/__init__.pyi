from .errors import InputError
from .evaluation import noc
from .predictors import CorrectedPredictor, FusedPredictor, Predictor, TreePredictor
from .proposals import Tree, build_tree

__version__: str
__all__ = [
    "CorrectedPredictor",
    "FusedPredictor",
    "InputError",
    "Predictor",
    "Tree",
    "TreePredictor",
    "build_tree",
    "noc",
]
