"""Star convexity: every pixel of the mask has its path to a click in the mask."""

import itertools

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from mis_jax.datasets import scenes
from mis_jax.predictors.classics import star as lib
from mis_jax.predictors.classics.graph_cut import GraphCutPredictor
from mis_jax.predictors.classics.maxflow import NEIGHBOURS
from mis_jax.predictors.classics.seeds import seed_map

PREDICTORS = [lib.GeodesicStarPredictor, lib.EuclideanStarPredictor]
CLICKS = [(160, 120, True), (20, 30, False), (60, 200, True), (150, 20, False)]


def path(parent, row, col):
    """The pixels from (row, col) to a star's centre."""
    pixels = [(row, col)]
    while parent[pixels[-1]] >= 0:
        d = parent[pixels[-1]]
        pixels.append((pixels[-1][0] + NEIGHBOURS[d][0], pixels[-1][1] + NEIGHBOURS[d][1]))
        assert len(pixels) <= parent.size
    return pixels


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12))
def test_rays_lead_to_the_nearest_centre_and_keep_to_the_line(seed, height, width):
    rng = np.random.default_rng(seed)
    centres = rng.random((height, width)) < 0.1
    centres[rng.integers(height), rng.integers(width)] = True
    parent = lib.ray_parents(centres)
    away, nearest = scipy.ndimage.distance_transform_edt(~centres, return_indices=True)
    for row, col in np.ndindex(height, width):
        pixels = path(parent, row, col)
        assert centres[pixels[-1]]
        steps = [away[p] for p in pixels]
        assert all(a > b for a, b in itertools.pairwise(steps))
        if len(pixels) > 1:
            line = nearest[:, row, col] - np.array([row, col])
            step = np.array(pixels[1]) - np.array([row, col])
            off = abs(line[0] * step[1] - line[1] * step[0]) / max(abs(line))
            assert off <= 0.5


@pytest.mark.parametrize("make", PREDICTORS)
def test_every_pixel_of_the_mask_has_its_path_in_the_mask(make):
    image = scenes.make_scene(np.random.default_rng([105, 3]))[0]
    predictor, free = make(), GraphCutPredictor()
    broken = 0
    for p in (predictor, free):
        p.set_image(image)
    for k in range(1, len(CLICKS) + 1):
        points, labels = [c[:2] for c in CLICKS[:k]], [c[2] for c in CLICKS[:k]]
        mask = predictor.predict(points, labels)[0][0]
        scaled = [(y, x, positive) for x, y, positive in CLICKS[:k]]
        parent = predictor._parents(seed_map(scaled, mask.shape, predictor.radius) == 1)
        assert mask.any()
        rows, cols = np.nonzero((parent >= 0) & mask)
        steps = np.array(NEIGHBOURS)[parent[rows, cols]].T
        assert mask[rows + steps[0], cols + steps[1]].all()
        loose = free.predict(points, labels)[0][0]
        rows, cols = np.nonzero((parent >= 0) & loose)
        steps = np.array(NEIGHBOURS)[parent[rows, cols]].T
        broken += not loose[rows + steps[0], cols + steps[1]].all()
    assert broken  # the constraint binds in this scene
