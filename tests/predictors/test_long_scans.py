"""Long scans and large photos: small things in them take a click or two, as in a cut-out."""

import cv2
import numpy as np
import pytest

from mis_jax.datasets.samples import Sample
from mis_jax.evaluation import clicker
from mis_jax.predictors import FusedPredictor, TreePredictor, classics, views


def scan(height, width, bar, at, seed=0):
    """A dark bar of (rows, columns) at (row, column) on paper with noise and shading."""
    rng = np.random.default_rng(seed)
    shading = cv2.GaussianBlur(rng.normal(0, 40, (height, width)), (0, 0), 6)[..., None]
    image = rng.normal(225, 6, (height, width, 3)) + shading
    mask = np.zeros((height, width), np.int32)
    mask[at[0] : at[0] + bar[0], at[1] : at[1] + bar[1]] = 1
    image[mask == 1] = rng.normal(60, 12, (mask.sum(), 3))
    return Sample("scan", np.clip(image, 0, 255).astype(np.uint8), mask)


SCANS = [
    (200, 8000, (20, 120), (90, 4000)),
    (200, 8000, (120, 20), (40, 1313)),
    (200, 8000, (20, 120), (5, 37)),
    (200, 8000, (20, 120), (170, 7870)),
    (8000, 200, (120, 20), (3001, 77)),
    (8000, 200, (20, 120), (6003, 11)),
]

BOTH = pytest.mark.parametrize("make", [FusedPredictor, TreePredictor])


@BOTH
@pytest.mark.parametrize("case", SCANS)
def test_a_bar_in_a_long_scan_is_found_and_stays_found(case, make):
    rounds = clicker.rounds(make(), scan(*case), 1.01, 24)
    ious = [r.iou for r in rounds]
    assert max(ious[:3]) >= 0.85
    first = next(k for k, iou in enumerate(ious) if iou >= 0.8)
    assert len(ious[first:]) > 20
    assert min(ious[first:]) >= 0.5


@pytest.mark.parametrize("name", list(classics.PREDICTORS))
def test_the_classics_find_it_as_well(name):
    for case in SCANS[1::3]:
        rounds = clicker.rounds(classics.PREDICTORS[name](), scan(*case), 0.85, 3)
        assert [r.iou for r in rounds][-1] >= 0.85


@BOTH
def test_clicks_far_apart_join_their_parts_of_a_scan(make):
    sample = scan(100, 6000, (20, 80), (40, 1000))
    sample.image[40:60, 3000:3080] = 50
    predictor = make()
    predictor.set_image(sample.image)
    predictor.click(1040, 50)
    mask = predictor.click(3040, 50)
    assert mask[50, 1040] == mask[50, 3040] == 1
    with_far_away = predictor.click(5900, 50, positive=False)
    np.testing.assert_array_equal(with_far_away, mask)


@pytest.mark.parametrize(("make", "bar"), [(FusedPredictor, (30, 20)), (TreePredictor, (60, 40))])
def test_a_small_thing_in_a_large_photo_is_seen_from_near_by(monkeypatch, make, bar):
    sample = scan(1500, 2000, bar, (700, 900))
    near = [r.iou for r in clicker.rounds(make(), sample, 0.97, 8)]
    monkeypatch.setattr(views, "CLOSER", np.inf)
    far = [r.iou for r in clicker.rounds(make(), sample, 0.97, 8)]
    assert len(near) < len(far)
    assert near[-1] >= 0.97
    assert far[len(near) - 1] < 0.7


@pytest.mark.parametrize(
    ("make", "side", "tree"),
    [
        (FusedPredictor, 512, lambda view: view._ground.trees[0][0]),
        (TreePredictor, 448, lambda view: view._trees[0][0]),
    ],
)
def test_usual_photos_are_seen_once_at_the_size_that_settings_were_chosen_at(make, side, tree):
    """Up to 448 or 512 pixels as they are, larger ones of 3 : 2 or less by their longer side."""
    rng = np.random.default_rng(0)
    for shape in [(300, side), (side, side), (480, 640), (20, side)]:
        small = cv2.resize(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8), shape[::-1])
        predictor = make()
        predictor.set_image(small)
        predictor.click(10, 10)
        view = predictor._look((0, shape[0] - 1, 0, shape[1] - 1))
        scale = side / max(shape)
        expected = tuple(-(-round(n * scale) // 2) for n in shape)
        assert tree(view).grid == expected
        assert predictor._look.cache_info().currsize == 1  # nothing but the whole image
