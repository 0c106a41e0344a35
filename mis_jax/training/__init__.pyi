from . import checkpoint, sharding, train, train_step
from .input import Source

__all__ = [
    "Source",
    "checkpoint",
    "sharding",
    "train",
    "train_step",
]
