"""pieces.py: what is cut out of a photo that holds a disc, and where it comes to lie."""

import cv2
import flat_photos
import numpy as np
import pytest

from mis_jax.training import pieces
from mis_jax.training.pieces import Photo, Piece

DISC = cv2.circle(np.zeros((128, 160), np.uint8), (83, 62), 37, 1, -1) > 0
AREA = DISC.sum() / 128**2  # of a picture of 128 pixels


@pytest.fixture(scope="module")
def photo() -> Photo:
    """A dark disc on yellow."""
    image = np.full((128, 160, 3), (230, 200, 30), np.uint8)
    cv2.circle(image, (83, 62), 37, (30, 40, 90), -1, cv2.LINE_AA)
    return Photo(flat_photos.make_record(image, noise=0.001))


@pytest.fixture(scope="module")
def scene() -> Photo:
    return Photo(flat_photos.of_scenes(1)[0])


def test_what_stands_out_is_cut_out_along_its_edge(photo, monkeypatch):
    """Of all nodes of the disc's size it is the disc, to a pixel and none of the yellow."""
    monkeypatch.setattr(pieces, "UNION", 0.0)
    monkeypatch.setattr(pieces, "SCALE", (0.99, 1.01))
    monkeypatch.setattr(pieces, "LAYER_AREA", (AREA, AREA))
    for seed in range(20):
        piece = pieces.draw_piece(np.random.default_rng(seed), photo, 128)
        inside, dark = piece.mask > pieces.TIGHT, piece.pixels.max(2) < 150
        assert abs(inside.sum() / DISC.sum() - 1) < 0.08
        assert (inside & ~dark).sum() < 0.005 * inside.sum()
        missed = dark & ~cv2.dilate(inside.view(np.uint8), np.ones((5, 5))).view(bool)
        assert not missed.any()
        assert piece.scale == pytest.approx(1, abs=0.05)


def test_nodes_are_of_about_the_area_wanted(scene):
    areas = scene.tree.areas()
    rng = np.random.default_rng(0)
    for wanted in (20, 100, 500):
        found = np.array([areas[pieces.draw_node(rng, areas, wanted)] for _ in range(20)])
        assert np.abs(np.log(found / wanted)).max() < np.log(1.3)
    assert areas[pieces.draw_node(rng, areas, 10 * areas[-1])] < 0.95 * areas[-1]


def test_a_pair_is_two_nodes_that_touch(scene):
    """Connected, of about the area wanted, and no node of the tree itself."""
    tree, rng = scene.tree, np.random.default_rng(0)
    nodes = {tree.mask(k).tobytes() for k in range(tree.root + 1)}
    sizes = []
    for _ in range(30):
        mask = pieces.draw_pair(rng, tree, tree.areas(), 300)
        if mask is not None:
            assert mask.tobytes() not in nodes
            parts = cv2.connectedComponents(mask.view(np.uint8), connectivity=4)[0] - 1
            assert parts == 1
            sizes.append(mask.sum())
    assert len(sizes) > 15
    assert 150 < np.median(sizes) < 600


def test_pieces_are_solid_and_fill_the_area_that_was_drawn(scene, monkeypatch):
    for share in (0.03, 0.2):
        monkeypatch.setattr(pieces, "LAYER_AREA", (share, share))
        made = [pieces.draw_piece(np.random.default_rng(k), scene, 96) for k in range(20)]
        areas = [(p.mask > pieces.TIGHT).sum() * p.scale**2 for p in made]
        assert np.median(areas) == pytest.approx(share * 96**2, rel=0.1)
        assert max(p.scale for p in made) <= pieces.MOST


@pytest.mark.parametrize("side", [12, 40, 90])
def test_most_of_a_piece_is_within_the_picture(side):
    """A square of known area, turned, mirrored and moved."""
    mask = np.pad(np.ones((side, side), np.float32), 6)
    pixels = np.dstack([np.full(mask.shape, 80, np.uint8)] * 3)
    shares = []
    for seed in range(60):
        placed = pieces.place(np.random.default_rng(seed), Piece(pixels, mask, 1.0), 96)
        if placed is not None:
            found, ((rows, cols), alpha) = placed
            assert (found == 80).all()
            assert alpha.shape == (rows.stop - rows.start, cols.stop - cols.start)
            assert found.shape == (*alpha.shape, 3)
            assert 0 <= rows.start < rows.stop <= 96
            assert 0 <= cols.start < cols.stop <= 96
            shares.append(alpha.sum() / side**2)
    assert len(shares) > 30
    assert min(shares) > 0.55
    assert 0.9 < max(shares) < 1.1


def test_light_changes_colours_a_little_and_keeps_flat_what_is_flat(monkeypatch):
    monkeypatch.setattr(pieces, "MATCHED", 0.0)
    pixels = np.full((20, 30, 3), (120, 60, 180), np.uint8)
    place = np.full((20, 30, 3), (20, 250, 20), np.uint8)
    alpha = np.ones((20, 30), np.float32)
    rngs = list(map(np.random.default_rng, range(40)))
    lit = np.array([pieces.relight(rng, pixels, place, alpha) for rng in rngs]).astype(int)
    assert not np.ptp(lit, (1, 2)).any()
    assert 5 < np.abs(lit[:, 0, 0] - pixels[0, 0]).mean() < 30
    monkeypatch.setattr(pieces, "MATCHED", 1.0)
    near = np.array([pieces.relight(rng, pixels, place, alpha) for rng in rngs]).astype(int)
    away = [np.abs(x[:, 0, 0] - place[0, 0]).mean() for x in (lit, near)]
    assert away[1] < 0.7 * away[0]
