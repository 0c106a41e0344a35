from . import (
    augment,
    checkpoint,
    color,
    first_clicks,
    losses,
    next_clicks,
    sharding,
    train,
    train_step,
)
from .input import Source, train_stream

__all__ = [
    "Source",
    "augment",
    "checkpoint",
    "color",
    "first_clicks",
    "losses",
    "next_clicks",
    "sharding",
    "train",
    "train_step",
    "train_stream",
]
