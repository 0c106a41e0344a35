"""Graph cut: the energy as written, its least over all masks, and the border's costs."""

import itertools

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from mis_jax.predictors.classics import colours as colours_lib
from mis_jax.predictors.classics import graph_cut as lib
from mis_jax.predictors.classics.maxflow import NEIGHBOURS
from mis_jax.predictors.classics.seeds import with_frame


def energy(mask, image, seeds, smoothness, contrast):
    """Written out, for masks that keep to the seeds."""
    likely = colours_lib.object_likelihood(image, with_frame(seeds)).astype(np.float64)
    free = seeds < 0
    total = -np.log(np.where(mask, likely, 1 - likely))[free].sum()
    pairs, squared = [], []
    for row, col in np.ndindex(mask.shape):
        for step in NEIGHBOURS:
            r, c = row + step[0], col + step[1]
            if 0 <= r < mask.shape[0] and 0 <= c < mask.shape[1]:
                pairs.append(((row, col), (r, c), np.hypot(*step)))
                squared.append(((image[row, col] - image[r, c]) ** 2).sum())
    mean = np.sum(squared) / (mask.size * 8)  # pairs beyond the rim count as equal
    for (p, q, far), s in zip(pairs, squared, strict=True):
        if mask[p] and not mask[q]:
            total += smoothness / far * np.exp(-s / (contrast * mean))
    return total


@pytest.mark.parametrize("seed", range(4))
def test_no_mask_of_a_tiny_image_has_less_energy(seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)
    seeds = np.full((3, 3), -1, np.int8)
    seeds[0, 0], seeds[2, 2] = 1, 0
    predictor = type("Cut", (lib.GraphCutPredictor,), {"smoothness": 2.0})()
    predictor._look(image)
    found = predictor._label(seeds) > 0.5
    colours = image.astype(np.float32) / 255
    terms = (colours, seeds, 2.0, predictor.contrast)
    masks = [np.array(m).reshape(3, 3) for m in itertools.product((False, True), repeat=9)]
    least = min(energy(m, *terms) for m in masks if m[0, 0] and not m[2, 2])
    assert energy(found, *terms) <= least + 30 / lib.SCALE  # costs are rounded
    assert found[0, 0]
    assert not found[2, 2]


def test_differences_are_of_the_neighbours_named_and_zero_beyond():
    values = np.random.default_rng(0).random((5, 4, 3)).astype(np.float32)
    found = lib.differences(values)
    for row, col, d in np.ndindex(found.shape):
        r, c = row + NEIGHBOURS[d][0], col + NEIGHBOURS[d][1]
        inside = 0 <= r < 5 and 0 <= c < 4
        expected = np.linalg.norm(values[row, col] - values[r, c]) if inside else 0
        assert found[row, col, d] == pytest.approx(expected, abs=1e-6)


def test_density_is_that_of_the_clusters_gaussians_and_the_uniform_one():
    rng = np.random.default_rng(1)
    near, far = rng.normal(0.2, 0.02, (60, 3)), rng.normal(0.7, 0.04, (40, 3))
    points = np.concatenate([near, far]).astype(np.float32)
    at = rng.random((50, 3)).astype(np.float32)
    found = colours_lib.density(at, colours_lib.mixture(points))
    clusters = colours_lib.split(points.astype(np.float64), colours_lib.COMPONENTS)
    assert sorted(map(tuple, np.concatenate(clusters).tolist())) == sorted(
        map(tuple, points.astype(np.float64).tolist())
    )
    total = 0.0
    for c in clusters:
        spread = np.cov(c.T, bias=True) + colours_lib.FLOOR * np.eye(3)
        total = total + len(c) / 100 * multivariate_normal(c.mean(0), spread).pdf(at)
    expected = colours_lib.UNIFORM + (1 - colours_lib.UNIFORM) * total
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_two_clear_clusters_are_split_first():
    rng = np.random.default_rng(2)
    points = np.concatenate([rng.normal(0.2, 0.01, (9, 3)), rng.normal(0.8, 0.01, (5, 3))])
    assert sorted(len(c) for c in colours_lib.split(points, 2)) == [5, 9]
    assert len(colours_lib.split(np.ones((6, 3)), 5)) == 1


def test_likelihood_is_even_where_no_seed_has_the_colour():
    image = np.zeros((4, 6, 3), np.float32)
    image[:, 2:4], image[:, 4:] = (0, 1, 0), (1, 0, 0)
    seeds = np.full((4, 6), -1, np.int8)
    seeds[:, 0], seeds[:, 5] = 1, 0
    found = colours_lib.object_likelihood(image, seeds)
    assert (found[:, :2] > 0.999).all()
    np.testing.assert_allclose(found[:, 2:4], 0.5)
    assert (found[:, 4:] < 0.001).all()
