"""Random walks: probabilities against the equations, solved densely, and skimage's."""

import numpy as np
import pytest
from skimage.segmentation import random_walker

from mis_jax.predictors.classics import random_walk as lib


def seeded(rng, height, width, background=True):
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    seeds = np.full((height, width), -1, np.int8)
    seeds[1, 1] = 1
    if background:
        seeds[height - 2, width - 3 :] = 0
    return image, seeds


def dense(image, seeds, beta, least):
    """Every unknown pixel is the mean of its neighbours, weighted."""
    colours = image / 255
    height, width = seeds.shape
    links = {}
    for row, col in np.ndindex(height, width):
        for r, c in ((row + 1, col), (row, col + 1)):
            if r < height and c < width:
                links[row, col, r, c] = ((colours[row, col] - colours[r, c]) ** 2).sum()
    largest = max(links.values())
    matrix, right = np.zeros((seeds.size, seeds.size)), np.zeros(seeds.size)
    for (row, col, r, c), squared in links.items():
        weight = np.exp(-beta * squared / largest) + least
        a, b = row * width + col, r * width + c
        matrix[a, a] += weight
        matrix[b, b] += weight
        matrix[a, b] -= weight
        matrix[b, a] -= weight
    for p, label in enumerate(seeds.ravel()):
        if label >= 0:
            matrix[p], right[p] = 0, label
            matrix[p, p] = 1
    return np.linalg.solve(matrix, right).reshape(height, width)


@pytest.mark.parametrize("shape", [(8, 9), (3, 12), (13, 4)])
def test_probabilities_are_those_of_the_equations(shape):
    image, seeds = seeded(np.random.default_rng(shape[0]), *shape)
    predictor = lib.RandomWalkPredictor()
    predictor._look(image)
    found = predictor._label(seeds)
    expected = dense(image, seeds, predictor.beta, predictor.least)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_probabilities_are_those_of_skimage():
    image, seeds = seeded(np.random.default_rng(1), 30, 41)
    seeds[10:15, 20:24] = 1
    data = image / 255
    largest = max((np.diff(data, axis=axis) ** 2).sum(2).max() for axis in (0, 1))
    predictor = type("Walk", (lib.RandomWalkPredictor,), {"least": 1e-10})()  # skimage's
    predictor._look(image)
    beta = 10 * data.std() * np.sqrt(3) * predictor.beta / largest  # as skimage scales it
    labels = np.choose(seeds + 1, (0, 2, 1))
    theirs = random_walker(
        data, labels, beta=beta, mode="bf", channel_axis=-1, return_full_prob=True
    )
    np.testing.assert_allclose(predictor._label(seeds), theirs[0], atol=1e-4)


def test_order_of_elimination_names_every_pixel_once():
    for shape in ((1, 1), (1, 50), (7, 3), (40, 61)):
        assert sorted(lib.dissection(*shape)) == list(range(shape[0] * shape[1]))
