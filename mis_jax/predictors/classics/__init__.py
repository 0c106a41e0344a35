"""Five interactive segmentation methods from before deep learning, as predictors of clicks."""

from collections.abc import Callable

from mis_jax.predictors.classics.geodesic import GeodesicPredictor
from mis_jax.predictors.classics.graph_cut import GraphCutPredictor
from mis_jax.predictors.classics.random_walk import RandomWalkPredictor
from mis_jax.predictors.classics.seeds import SeedPredictor
from mis_jax.predictors.classics.star import EuclideanStarPredictor, GeodesicStarPredictor

PREDICTORS: dict[str, Callable[[], SeedPredictor]] = {
    "graphcut": GraphCutPredictor,
    "random_walk": RandomWalkPredictor,
    "geodesic": GeodesicPredictor,
    "gsc": GeodesicStarPredictor,
    "esc": EuclideanStarPredictor,
}
