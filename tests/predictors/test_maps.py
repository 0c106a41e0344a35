"""What the evidence network sees, cell by cell."""

import numpy as np
import pytest

from mis_jax.datasets import scenes
from mis_jax.predictors import evidence, maps
from mis_jax.predictors.clicks import Click
from mis_jax.predictors.evidence import Answered, Channels, Ground
from mis_jax.proposals import contours


def ground(height, width):
    return Ground.of(scenes.make_scene(np.random.default_rng(0), (height, width))[0])


@pytest.fixture(scope="module")
def even():
    return ground(60, 84)


def test_the_pixels_of_each_cell(even):
    picture = maps.picture(even)
    assert (picture.dtype, picture.shape) == (np.float32, (30, 42, 22))
    for row, col in np.ndindex(30, 42):
        part = even.image[2 * row : 2 * row + 2, 2 * col : 2 * col + 2].astype(float)
        np.testing.assert_allclose(picture[row, col, :12], part.ravel() / 127.5 - 1, atol=1e-6)


def test_how_alike_neighbours_are_and_the_borders_of_the_finest_tree(even):
    picture = maps.picture(even)
    np.testing.assert_allclose(picture[..., 12:16], 2 * even.links[..., 4:] - 1)
    strong = contours(even.trees[0][0])
    np.testing.assert_allclose(picture[..., 16:18], np.log(strong + 0.01) / 4, atol=1e-6)


def test_the_borders_of_the_other_trees_are_those_of_the_patch_that_holds_the_cell(even):
    picture = maps.picture(even)
    for k in (1, 2):
        tree = even.trees[k][0]
        strong = contours(tree)
        for row, col in ((0, 0), (7, 11), (29, 41), (13, 40)):
            patch = row * tree.grid[0] // 30, col * tree.grid[1] // 42
            shown = picture[row, col, 16 + 2 * k : 18 + 2 * k]
            np.testing.assert_allclose(shown, np.log(strong[patch] + 0.01) / 4, atol=1e-6)


@pytest.mark.parametrize("shape", [(61, 84), (1, 1), (33, 7)])
def test_images_of_any_size(shape):
    found = ground(*shape) if min(shape) > 40 else Ground.of(np.zeros((*shape, 3), np.uint8))
    picture = maps.picture(found)
    assert picture.shape == (*found.grid, 22)
    assert np.isfinite(picture).all()
    assert np.abs(picture[..., :16]).max() <= 1


def test_what_clicks_say():
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 4, (3, 5, 6)).astype(np.float32)
    certain = rng.integers(-1, 2, (5, 6)).astype(np.int8)
    answer = rng.random((5, 6)) > 0.5
    found = maps.said(Channels(*odds, certain), answer)
    assert (found.dtype, found.shape) == (np.float32, (5, 6, 5))
    for row, col in np.ndindex(5, 6):
        wanted = [max(-1, min(1, x / 4)) for x in odds[:, row, col]]
        wanted += [{1: 1, 0: -1, -1: 0}[int(certain[row, col])], 1 if answer[row, col] else -1]
        np.testing.assert_allclose(found[row, col], wanted, atol=1e-6)


def test_clicks_are_told_the_last_first(even):
    answered = [
        Answered(Click(10.5, 20.9, True), np.inf),
        Answered(Click(31.0, 83.9, False), 6.0),
        Answered(Click(59.9, 0.0, True), 1.0),
    ]
    found = maps.points(even, answered)
    assert (found.dtype, found.shape) == (np.float32, (maps.POINTS, 4))
    told = [(29, 0, 1, 0.5), (15, 41, -1, 3), (5, 10, 1, 0)]
    np.testing.assert_allclose(found[:3], told)
    assert not found[3:].any()
    many = [Answered(Click(k, k, True), 2.0) for k in range(30)]
    np.testing.assert_allclose(maps.points(even, many)[:, 0], np.arange(29, 5, -1) // 2)
    assert evidence.CELL == 2
