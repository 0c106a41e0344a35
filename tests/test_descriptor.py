"""The embedded descriptor: shapes, determinism, invariances, and better trees than plain colour."""

import cv2
import numpy as np
import pytest

from mis_jax import descriptor
from mis_jax.scenes import make_scene
from mis_jax.ward import ward_merges


def scene(seed: int, size: tuple[int, int] = (96, 128)) -> tuple[np.ndarray, np.ndarray]:
    return make_scene(np.random.default_rng(seed), size)


def best_overlap(features: np.ndarray, mask: np.ndarray, stride: int = 8) -> float:
    """The largest IoU of any node of the tree with the object; sides are multiples of stride."""
    height, width, channels = features.shape
    merges, _ = ward_merges(features.reshape(-1, channels), height, width)
    inside = mask.reshape(height, stride, width, stride).sum((1, 3), dtype=float).ravel()
    nodes = [(float(count), float(stride**2)) for count in inside]
    for first, second in merges:
        nodes.append((nodes[first][0] + nodes[second][0], nodes[first][1] + nodes[second][1]))
    return max(common / (area + mask.sum() - common) for common, area in nodes)


@pytest.mark.parametrize("size", [(96, 128), (97, 131), (33, 8), (1, 1), (5, 200)])
@pytest.mark.parametrize("stride", [4, 7, 8, 16])
def test_shape_and_finite(size, stride):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    features = descriptor.embedded(image, stride)
    assert features.shape == (-(-size[0] // stride), -(-size[1] // stride), 38)
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
    swapped = [*range(32), 32, 35, 34, 33, 36]  # 45 and 135 degrees change places; rows stay
    np.testing.assert_allclose(mirrored[..., swapped], features[..., :37], atol=1e-3)


def test_flat_image_differs_by_position_only():
    features = descriptor.embedded(np.full((64, 96, 3), (180, 90, 40), np.uint8))
    np.testing.assert_allclose(
        features[..., :36], np.broadcast_to(features[0, 0, :36], (8, 12, 36)), atol=1e-4
    )
    assert (np.diff(features[..., 36], axis=0) > 0).all()
    assert (np.diff(features[..., 37], axis=1) > 0).all()


def test_squared_distance_of_flat_colours_is_the_gaussian_kernels():
    lab = np.float32([[20, 5, -10], [24, 9, -16], [45, 30, 25]])
    tiles = np.repeat(np.repeat(lab[None], 2, 0), 2, 1)  # three cells of 2 x 2 equal colours
    features = descriptor._colours(tiles)[0]
    steps = lab[:, None] - lab[None]
    kernel = np.exp(-np.square(steps).sum(-1) / (2 * descriptor.BANDWIDTH**2))
    np.testing.assert_allclose(np.square(features).sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(features @ features.T, kernel, atol=0.35)  # 16 random frequencies
    frequencies = np.random.default_rng(2).standard_normal((16, 3)) / descriptor.BANDWIDTH
    exact = np.cos(steps @ frequencies.T).mean(-1)
    np.testing.assert_allclose(features @ features.T, exact, atol=1e-5)


def test_diffusion_matches_a_dense_matrix():
    rng = np.random.default_rng(4)
    features, cells = rng.random((5, 6, 3), np.float32), rng.random((5, 6, 3), np.float32)
    rows, columns = (axis.ravel() for axis in np.mgrid[:5, :6])
    apart = np.abs(rows[:, None] - rows) + 1j * np.abs(columns[:, None] - columns)
    near = np.select([np.maximum(apart.real, apart.imag) > 1, apart == 1 + 1j], [0, 0.5], 1.0)
    flat = cells.reshape(-1, 3).astype(float)
    weights = near * np.exp(-np.square(flat[:, None] - flat).sum(-1) / (2 * 0.6**2))
    weights /= weights.sum(1, keepdims=True)
    expected = np.linalg.matrix_power(weights, 3) @ features.reshape(-1, 3)
    smoothed = descriptor._diffuse(features, cells, np.float32(0.6), 3)
    np.testing.assert_allclose(smoothed.reshape(-1, 3), expected, atol=1e-5)


def test_smoothing_stops_at_a_strong_edge():
    cells = np.zeros((6, 8, 3), np.float32)
    cells[:, 4:] = 60
    features = np.random.default_rng(0).random((6, 8, 2), np.float32)
    features[:, 4:] += 10
    smoothed = descriptor._smooth(features, cells)
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
        cells = cv2.resize(image, (26, 20), interpolation=cv2.INTER_AREA).astype(np.float32)
        better.append(best_overlap(descriptor.embedded(image), mask))
        plain.append(best_overlap(cells, mask))
    assert np.mean(better) > np.mean(plain) + 0.05
