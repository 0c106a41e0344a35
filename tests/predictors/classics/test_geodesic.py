"""Shortest paths on the grid against scipy's Dijkstra; colours that tell two seeds apart."""

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.csgraph import dijkstra

from mis_jax.predictors.classics import geodesic as lib
from mis_jax.predictors.classics.maxflow import NEIGHBOURS


def scipy_distances(costs, sources):
    height, width = sources.shape
    rows, cols, values = [], [], []
    for row, col, d in np.ndindex(costs.shape):
        r, c = row + NEIGHBOURS[d][0], col + NEIGHBOURS[d][1]
        if 0 <= r < height and 0 <= c < width:
            rows.append(row * width + col)
            cols.append(r * width + c)
            values.append(costs[row, col, d])
    graph = scipy.sparse.csr_matrix((values, (rows, cols)), shape=(sources.size,) * 2)
    found = dijkstra(graph, indices=np.flatnonzero(sources), min_only=True)
    return found.reshape(sources.shape)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (6, 5), (13, 20)])
def test_distances_and_paths_are_shortest(shape):
    rng = np.random.default_rng(shape[1])
    costs = rng.exponential(1, (*shape, 8)).astype(np.float32)
    sources = rng.random(shape) < 0.05
    sources[0, 0] = True
    distance, parent = lib.shortest_paths(costs, sources)
    np.testing.assert_allclose(distance, scipy_distances(costs, sources), rtol=1e-5)
    assert (parent[sources] == -1).all()
    for row, col in np.argwhere(~sources):
        d = parent[row, col]
        r, c = row + NEIGHBOURS[d][0], col + NEIGHBOURS[d][1]
        assert distance[row, col] == distance[r, c] + costs[r, c, 7 - d]


def test_the_nearer_seeds_across_likelihoods_win():
    image = np.full((40, 60, 3), (200, 60, 60), np.uint8)
    image[:, 30:] = 60, 60, 200
    predictor = lib.GeodesicPredictor()
    predictor.set_image(image)
    predictor.click(8, 20)
    mask = predictor.click(52, 20, False)
    np.testing.assert_array_equal(mask, np.arange(60) < 30 * np.ones((40, 1)))
