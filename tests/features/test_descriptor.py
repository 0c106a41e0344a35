"""The embedded descriptor: shapes, determinism, invariances, and better trees than plain colour."""

import cv2
import numpy as np
import pytest
import scipy.linalg

from mis_jax.datasets.scenes import make_scene
from mis_jax.features import descriptor
from mis_jax.inspection import oracle
from mis_jax.proposals.tree import build_tree

CUTS = np.s_[..., 51:59]


def scene(seed: int, size: tuple[int, int] = (96, 128)) -> tuple[np.ndarray, np.ndarray]:
    return make_scene(np.random.default_rng(seed), size)


def best_overlap(features: np.ndarray, mask: np.ndarray) -> float:
    return oracle.best_node(build_tree(features, borders=True), mask.astype(np.int32))[0]


def laplacian(across: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """D - W and D of the links of a grid, float64 [n, n]."""
    height, width = len(across), down.shape[1]
    links = np.zeros((height, width, height, width))
    for row in range(height):
        for column in range(width):
            if column + 1 < width:
                links[row, column, row, column + 1] = across[row, column]
            if row + 1 < height:
                links[row, column, row + 1, column] = down[row, column]
    links = links.reshape(height * width, -1)
    degrees = np.diag((links + links.T).sum(1))
    return degrees - links - links.T, degrees


@pytest.mark.parametrize(
    "size", [(96, 128), (97, 131), (33, 8), (1, 1), (5, 200), (8, 4), (200, 3)]
)
@pytest.mark.parametrize("stride", [4, 7, 8, 16])
def test_shape_and_finite(size, stride):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    features = descriptor.embedded(image, stride)
    assert features.shape == (-(-size[0] // stride), -(-size[1] // stride), 61)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_deterministic_on_any_thread_count_and_input_untouched():
    image = scene(1)[0]
    copy = image.copy()
    threads = cv2.getNumThreads()
    try:
        first = descriptor.embedded(image)
        cv2.setNumThreads(1)
        again = descriptor.embedded(image)
    finally:
        cv2.setNumThreads(threads)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(image, copy)


def test_view_equals_its_copy():
    image = scene(2)[0][:, ::-1]
    np.testing.assert_array_equal(
        descriptor.embedded(image), descriptor.embedded(np.ascontiguousarray(image))
    )


def test_mirrored_image_gives_mirrored_features():
    image = scene(3)[0]
    features = descriptor.embedded(image)
    mirrored = descriptor.embedded(image[:, ::-1])[:, ::-1]
    signs = np.sign((mirrored[CUTS] * features[CUTS]).sum((0, 1)))  # of eigenvectors: either
    mirrored[CUTS] *= signs
    np.testing.assert_allclose(mirrored[..., :60], features[..., :60], atol=5e-3)


def test_flat_image_differs_by_place_only():
    features = descriptor.embedded(np.full((64, 96, 3), (180, 90, 40), np.uint8))
    np.testing.assert_allclose(
        features[..., :51], np.broadcast_to(features[0, 0, :51], (16, 24, 51)), atol=1e-4
    )
    first = features[..., 51]  # cuts the longer side in the middle
    assert (first[:, :12] * first[:, 12:][:, ::-1] < 0).all()
    assert (np.diff(features[..., 59], axis=0) > 0).all()
    assert (np.diff(features[..., 60], axis=1) > 0).all()


def test_merge_tree_is_by_borders_and_comes_with_its_colours():
    image = scene(4)[0]
    tree, colours = descriptor.merge_tree(image, 3)
    features = descriptor.embedded(image, 3)
    np.testing.assert_array_equal(tree.merges, build_tree(features, borders=True).merges)
    np.testing.assert_array_equal(colours, features[..., :48])


def test_squared_distance_of_flat_colours_is_the_gaussian_kernels():
    lab = np.float32([[20, 5, -10], [24, 9, -16], [45, 30, 25]])
    features = descriptor._colours(lab[None])[0]
    steps = lab[:, None] - lab[None]
    kernel = np.exp(-np.square(steps).sum(-1) / (2 * descriptor.BANDWIDTH**2))
    np.testing.assert_allclose(np.square(features).sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(features @ features.T, kernel, atol=0.3)  # 24 random frequencies
    frequencies = np.random.default_rng(2).standard_normal((24, 3)) / descriptor.BANDWIDTH
    exact = np.cos(steps @ frequencies.T).mean(-1)
    np.testing.assert_allclose(features @ features.T, exact, atol=1e-5)


def test_deviations_tell_fine_texture_from_flat_colour_of_the_same_mean():
    lab = np.full((16, 32, 3), 40, np.float32)
    lab[:, 16:] += np.float32([6, 0, 0]) * (-1.0) ** np.indices((16, 16)).sum(0)[..., None]
    deviations = descriptor._deviations(lab, 2, 4)
    np.testing.assert_allclose(deviations[:, 0], np.log(0.5), atol=1e-4)
    np.testing.assert_allclose(deviations[:, 3, 0], np.log(6.5), atol=0.05)
    np.testing.assert_allclose(deviations[:, 3, 1:], np.log(0.5), atol=1e-4)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (3, 14), (12, 1), (1, 12)])
def test_cuts_solve_the_generalized_eigenproblem(shape):
    rng = np.random.default_rng(5)
    across, down = rng.random((shape[0], shape[1] - 1)), rng.random((shape[0] - 1, shape[1]))
    matrix, degrees = laplacian(across + descriptor.CUT_FLOOR, down + descriptor.CUT_FLOOR)
    values, expected = scipy.linalg.eigh(matrix, degrees)
    vectors = descriptor._eigenvectors(np.float32(across), np.float32(down)).reshape(-1, 8)
    scales = vectors.std(0)
    np.testing.assert_allclose(scales, np.sqrt(values[1] / values[1:9]), rtol=1e-2)
    for k in range(4):
        ours, exact = vectors[:, k] / scales[k], expected[:, k + 1] / expected[:, k + 1].std()
        np.testing.assert_allclose(ours * np.sign(ours @ exact), exact, atol=2e-2)


def test_first_cut_follows_the_outline():
    cells = np.random.default_rng(1).normal(0, 1, (20, 30, 3)).astype(np.float32)
    inside = np.zeros((20, 30), bool)
    inside[4:15, 3:17] = True
    cells[inside, 0] += 25
    first = descriptor._cuts(cells)[..., 0]
    assert first[inside].max() < first[~inside].min() or first[inside].min() > first[~inside].max()


@pytest.mark.parametrize("count", [7, 2, 1])
def test_relaxation_matches_a_dense_solution(count):
    rng = np.random.default_rng(4)
    values, links = rng.random((3, count, 2), np.float32), rng.random((3, count - 1), np.float32)
    expected = [
        np.linalg.solve(np.eye(count) + 5 * laplacian(row[None], np.zeros((0, count)))[0], value)
        for value, row in zip(values, links, strict=True)
    ]
    columns, factors = values.swapaxes(0, 1).copy(), descriptor._elimination(links, np.float32(5))
    descriptor._relax_rows(values, *factors)
    descriptor._relax_columns(columns, *factors)
    np.testing.assert_allclose(values, expected, atol=1e-5)
    np.testing.assert_allclose(columns.swapaxes(0, 1), expected, atol=1e-5)


def test_smoothing_moves_values_and_neither_makes_nor_loses_any():
    rng = np.random.default_rng(6)
    features = rng.random((9, 7, 4), np.float32)
    across, down = rng.random((9, 6), np.float32), rng.random((8, 7), np.float32)
    smoothed = features.copy()
    descriptor._smooth(smoothed, across, down)
    np.testing.assert_allclose(smoothed.sum((0, 1)), features.sum((0, 1)), rtol=1e-4)
    assert smoothed.std() < 0.3 * features.std()
    flat = np.ones((9, 7, 1), np.float32)
    descriptor._smooth(flat, across, down)
    np.testing.assert_allclose(flat, 1, atol=1e-4)


def test_smoothing_stops_at_a_strong_edge():
    cells = np.zeros((6, 8, 3), np.float32)
    cells[:, 4:] = 60
    features = np.random.default_rng(0).random((6, 8, 2), np.float32)
    features[:, 4:] += 10
    smoothed = features.copy()
    descriptor._smooth(smoothed, *descriptor._links(cells))
    assert smoothed[:, :4].max() < 1.001
    assert smoothed[:, 4:].min() > 9.999
    assert smoothed[:, :4].std() < 0.5 * features[:, :4].std()


def test_grey_image_keeps_its_structure():
    image, mask = np.full((96, 96, 3), 70, np.uint8), np.zeros((96, 96), np.uint8)
    mask[24:72, 32:64] = 1
    image[mask == 1] = 150
    noisy = image + np.random.default_rng(0).integers(-12, 13, (96, 96, 1))
    assert best_overlap(descriptor.embedded(noisy.astype(np.uint8)), mask) == 1


def test_trees_hold_the_objects_better_than_plain_colour():
    better, plain = [], []
    for seed in range(30):
        image, mask = scene(seed, (160, 208))
        cells = cv2.resize(image, (52, 40), interpolation=cv2.INTER_AREA).astype(np.float32)
        better.append(best_overlap(descriptor.embedded(image), mask))
        plain.append(best_overlap(cells, mask))
    assert np.mean(better) > np.mean(plain) + 0.05
