"""Made-up scenes: deterministic, exact masks within the stated limits, textured, hard enough."""

import cv2
import numpy as np
import pytest

from mis_jax.datasets import scenes
from mis_jax.errors import InputError


def scene(seed: int, size: tuple[int, int] = (120, 160)) -> tuple[np.ndarray, np.ndarray]:
    return scenes.make_scene(np.random.default_rng(seed), size)


@pytest.mark.parametrize("size", [(240, 320), (97, 131), (32, 32), (200, 60)])
def test_shapes_and_target_limits(size):
    for seed in range(6):
        image, mask = scene(seed, size)
        assert image.shape == (*size, 3)
        assert image.dtype == np.uint8
        assert mask.shape == size
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 1}
        assert 0.05 <= mask.mean() <= 0.45
        pieces = cv2.connectedComponentsWithStats(mask, connectivity=4)[2][1:, cv2.CC_STAT_AREA]
        assert pieces.max() >= 0.9 * mask.sum()


def test_same_seed_same_scene_on_any_thread_count():
    threads = cv2.getNumThreads()
    try:
        first = scene(3)
        cv2.setNumThreads(1)
        again = scene(3)
    finally:
        cv2.setNumThreads(threads)
    other = scene(4)
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, two)
        assert (one != three).any()


def test_mask_follows_an_edge_of_the_image():
    # Colour steps across the true outline are larger than across the same outline moved sideways.
    on, off = [], []
    for seed in range(12):
        image, mask = scene(seed)
        steps = np.abs(np.diff(image.astype(float), axis=1)).sum(-1)
        outline = np.diff(mask.astype(int), axis=1) != 0
        on.append(steps[outline].mean())
        off.append(steps[np.roll(outline, 9, axis=1)].mean())
    assert np.mean(on) > 1.5 * np.mean(off)


def test_targets_are_textured_and_occluded_at_times():
    deviations, solidity = [], []
    for seed in range(12):
        image, mask = scene(seed)
        deviations.append(image[mask == 1].std(0).mean())
        outline = max(cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0], key=len)
        solidity.append(mask.sum() / cv2.contourArea(cv2.convexHull(outline)))
    assert min(deviations) > 2
    assert min(solidity) < 0.8


def test_too_small_a_scene_is_refused():
    with pytest.raises(ValueError, match="32"):
        scene(0, (31, 100))


def test_write_benchmark_round_trip(tmp_path):
    scenes.write_benchmark(tmp_path, 3, seed=5, size=(60, 80))
    names = [f"scene_{index:05d}.png" for index in range(3)]
    assert [path.name for path in sorted((tmp_path / "images").iterdir())] == names
    assert [path.name for path in sorted((tmp_path / "masks").iterdir())] == names
    image, mask = scenes.make_scene(np.random.default_rng([5, 2]), (60, 80))
    written = cv2.imread(str(tmp_path / "images" / names[2]))[..., ::-1]
    np.testing.assert_array_equal(written, image)
    written = cv2.imread(str(tmp_path / "masks" / names[2]), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(written, 255 * mask)


def test_write_benchmark_names_the_file_it_cannot_write(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "imwrite", lambda *_: False)
    with pytest.raises(InputError, match=r"images/scene_00000\.png"):
        scenes.write_benchmark(tmp_path, 1, size=(40, 40))
