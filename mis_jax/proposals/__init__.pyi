from . import sampling, ward
from .snapping import snap
from .tree import Tree, build_tree, nearest_patches

__all__ = [
    "Tree",
    "build_tree",
    "nearest_patches",
    "sampling",
    "snap",
    "ward",
]
