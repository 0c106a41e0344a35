from .contours import contours
from .snapping import snap
from .tree import Tree, build_tree, nearest_patches

__all__ = [
    "Tree",
    "build_tree",
    "contours",
    "nearest_patches",
    "snap",
]
