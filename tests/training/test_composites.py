"""composites.py: pictures of scenes, and of flat photos, whose pixels say what targets must be."""

import dataclasses
import itertools

import cv2
import numpy as np
import pytest
from flat_photos import flat, make_record, of_scenes

from mis_jax.errors import InputError
from mis_jax.records import Record
from mis_jax.training import composites, pieces
from mis_jax.training.composites import LAYER, NODE, PAIR, compose, visible
from mis_jax.training.pieces import Layer

ALL = (0.5, 0.3, 0.2)


@pytest.fixture(scope="module")
def photos() -> list[Record]:
    return of_scenes(6)


@pytest.fixture(scope="module")
def drawn(photos):
    """Many composites of scenes, of exact targets."""
    pictures = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composites, "BY_HAND", 0.0)
        for seed in range(200):
            rng = np.random.default_rng(seed)
            chosen = [photos[k] for k in rng.permutation(6)[:4]]
            pictures.append(compose(rng, chosen, 128, ALL, 5))
    return pictures


def layers_of(picture) -> np.ndarray:
    """The targets that are layers, each once: uint8 [L, h, w]."""
    layers = picture.targets[picture.kinds == LAYER]
    return np.unique(layers, axis=0)


def shares_of(picture, kind: int) -> list[float]:
    return [t.mean() / 255 for t, k in zip(*picture[1:], strict=True) if k == kind]


@pytest.mark.parametrize(("size", "count"), [(64, 1), (96, 3), (256, 7)])
def test_shapes_and_types(photos, size, count):
    picture = compose(np.random.default_rng(0), photos, size, ALL, count)
    assert (picture.image.dtype, picture.image.shape) == (np.uint8, (size, size, 3))
    assert (picture.targets.dtype, picture.targets.shape) == (
        np.uint8,
        (count, size // 2, size // 2),
    )
    assert (picture.kinds.dtype, picture.kinds.shape) == (np.int8, (count,))
    assert set(picture.kinds) <= {LAYER, NODE, PAIR}


def test_patches_may_be_smaller_than_pixels(photos):
    """As those of a photo that is shrunk by more than a patch has pixels."""
    for seed in range(30):
        picture = compose(np.random.default_rng(seed), photos, 32, (0.0, 0.7, 0.3), 4)
        assert all(0 < target.mean() < 255 for target in picture.targets)


def test_the_generator_is_the_only_source_of_randomness(photos):
    first, again, other = (
        compose(np.random.default_rng(seed), photos, 96, ALL, 4) for seed in (1, 1, 2)
    )
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first.image != other.image).any()


def test_no_target_is_empty_or_everything(drawn):
    for picture in drawn:
        shares = picture.targets.mean((1, 2)) / 255
        assert (shares > 0.007).all()
        assert (shares < 0.993).all()


def test_all_targets_differ_but_layers_that_come_again(drawn):
    for picture in drawn:
        others = picture.targets[picture.kinds != LAYER]
        for a, b in itertools.combinations([*layers_of(picture), *others], 2):
            assert np.minimum(a, b).sum(dtype=int) < 0.95 * np.maximum(a, b).sum(dtype=int)


def test_layers_come_again_one_after_the_other(drawn):
    again = 0
    for picture in drawn:
        layers = picture.targets[picture.kinds == LAYER]
        there = len(layers_of(picture))
        np.testing.assert_array_equal(layers[there:], layers[: len(layers) - there])
        again += len(layers) > there
    assert again > 20


def test_layers_and_what_is_behind_them_share_the_cells(drawn):
    """At most all of a cell is held by the layers and any one node together."""
    seen = 0
    for picture in drawn:
        layers = layers_of(picture).astype(int).sum(0)
        for target in picture.targets[picture.kinds != LAYER].astype(int):
            assert (layers + target).max() <= 255 + 3  # each is rounded
            seen += 1
    assert seen > 300


def test_all_sizes_are_drawn_about_as_often(drawn):
    for kind, edges in (LAYER, (0.012, 0.035, 0.1, 0.3)), (NODE, (0.012, 0.041, 0.14, 0.5)):
        shares = [share for picture in drawn for share in shares_of(picture, kind)]
        counts = np.histogram(shares, edges)[0]
        assert counts.min() > 40
        assert counts.max() < 2 * counts.min()


def test_kinds_are_drawn_by_their_shares(drawn, photos):
    kinds = np.concatenate([picture.kinds for picture in drawn])
    share = np.bincount(kinds, minlength=3) / len(kinds)
    assert 0.45 < share[LAYER] < 0.6
    assert 1.2 < share[NODE] / share[PAIR] < 2.4
    for kind in (NODE, PAIR):
        rngs = map(np.random.default_rng, range(20))
        only = [compose(rng, photos, 96, tuple(np.eye(3)[kind]), 3).kinds for rng in rngs]
        assert (np.stack(only) == kind).mean() > 0.95


def test_a_picture_has_one_to_five_layers(photos, monkeypatch):
    counts = []

    def spy(layers, size):
        counts.append(len(layers))
        return visible(layers, size)

    monkeypatch.setattr(composites, "visible", spy)
    for seed in range(80):
        compose(np.random.default_rng(seed), photos, 64, ALL, 1)
    assert set(counts) == {1, 2, 3, 4, 5}
    assert 2.5 < np.mean(counts) < 3.5


def test_where_layers_alone_are_asked_for_they_come_again(photos):
    for seed in range(10):
        picture = compose(np.random.default_rng(seed), photos[:2], 96, (1.0, 0.0, 0.0), 6)
        assert (picture.kinds == LAYER).all()


def test_what_a_picture_lacks_falls_to_the_others(photos, monkeypatch):
    monkeypatch.setattr(pieces, "place", lambda *_: None)
    for seed in range(10):
        picture = compose(np.random.default_rng(seed), photos[:2], 96, (1.0, 0.0, 0.0), 4)
        assert (picture.kinds != LAYER).all()


def test_visible_parts_are_those_of_the_over_operator():
    """Each layer is pasted in a colour of its own, one pixel after the other."""
    rng = np.random.default_rng(0)
    layers = []
    for _ in range(4):
        top, left = rng.integers(0, 12, 2)
        rows, cols = slice(top, top + rng.integers(3, 9)), slice(left, left + rng.integers(3, 9))
        alpha = rng.random((rows.stop - top, cols.stop - left)).astype(np.float32)
        layers.append(Layer((rows, cols), alpha))
    canvas = np.zeros((20, 20, 5))
    canvas[..., 4] = 1
    for number, ((rows, cols), alpha) in enumerate(layers):
        for y, x in np.ndindex(alpha.shape):
            there = canvas[rows.start + y, cols.start + x]
            there[:] = alpha[y, x] * np.eye(5)[number] + (1 - alpha[y, x]) * there
    parts, clear = visible(layers, 20)
    np.testing.assert_allclose(np.stack([*parts, clear], -1), canvas, atol=1e-6)


@pytest.fixture
def plain(monkeypatch):
    """Exact targets, no compression and blur; pieces are in their colours but for their light."""
    for name in ("BY_HAND", "COMPRESSED", "HAZY", "OWN"):
        monkeypatch.setattr(composites, name, 0.0)
    for name in ("BLURRED", "MATCHED"):
        monkeypatch.setattr(pieces, name, 0.0)


def test_targets_are_the_shares_of_the_colours_in_the_picture(plain):
    """Flat layers over a flat background: a cell's colour is the mixture its targets tell."""
    background = np.array((40, 70, 200))
    records = [flat(*background), flat(210, 60, 50), flat(60, 190, 70)]
    seen = 0
    for seed in range(40):
        picture = compose(np.random.default_rng(seed), records, 128, (1.0, 0.0, 0.0), 4)
        cells = cv2.resize(picture.image, (64, 64), interpolation=cv2.INTER_AREA).astype(float)
        layers = layers_of(picture).astype(float) / 255
        mixture = background * (1 - layers.sum(0)[..., None])
        for layer in layers:
            inside = cells[layer > 0.999]
            if len(inside) < 10:
                break
            assert inside.std(0).max() < 4
            assert np.argmax(inside.mean(0)) in (0, 1)  # it is red or green
            mixture += layer[..., None] * inside.mean(0)
        else:
            border = ((layers > 0.02) & (layers < 0.98)).any(0)
            if border.any():
                assert np.median(np.abs(cells - mixture)[border]) < 4
                seen += 1
    assert seen > 20


def test_nodes_end_where_the_colours_change(plain, monkeypatch):
    """Two halves that meet within a patch; no node of the tree is worth crossing the border."""
    image = np.full((96, 96, 3), (200, 60, 40), np.uint8)
    image[:, 38:] = (30, 90, 180)
    records = [make_record(image, noise=0.0), flat(40, 160, 40)]
    monkeypatch.setattr(composites, "NODE_AREA", (0.3, 0.7))
    good = []
    for seed in range(60):
        picture = compose(np.random.default_rng(seed), records, 128, (0.0, 1.0, 0.0), 1)
        (target,) = picture.targets > 127
        red, green, blue = np.moveaxis(picture.image[::2, ::2].astype(int), 2, 0)
        halves = (red > np.maximum(green, blue) + 40), (blue > np.maximum(red, green) + 40)
        if min(half.sum() for half in halves) > 400:
            inner = cv2.erode(target.view(np.uint8), np.ones((3, 3))).view(bool)
            held = [(half & inner).sum() / inner.sum() for half in halves]
            good.append(min(held) < 0.005)
    assert len(good) > 20
    assert np.mean(good) > 0.9


def test_the_background_is_a_crop_of_a_varying_place_and_size(monkeypatch):
    """The red and green of a photo tell columns and rows."""
    monkeypatch.setattr(pieces, "place", lambda *_: None)
    rows, cols = np.mgrid[:160, :240]
    where = make_record(np.stack([cols, rows, np.zeros_like(rows)], -1).astype(np.uint8))
    ends, mirrored = [], []
    for seed in range(40):
        image = compose(np.random.default_rng(seed), [where], 64, ALL, 1).image
        left, right = np.median(image[:, [0, -1], 0], 0)
        top, bottom = np.median(image[[0, -1], :, 1], 1)
        assert abs(abs(right - left) - (bottom - top)) < 12  # it is square
        ends.append((min(left, right), max(left, right), top, bottom))
        mirrored.append(left > right)
    first, last, top, bottom = np.array(ends).T
    assert 0.2 < np.mean(mirrored) < 0.8
    assert np.ptp(first) > 40
    assert np.ptp(top) > 20
    sides = last - first
    assert 0.5 * 160 < sides.min() < 0.75 * 160
    assert 0.8 * 160 < sides.max() < 1.05 * 160


@pytest.mark.parametrize("shape", [(8, 8), (16, 40), (64, 24)])
def test_small_photos_do(shape):
    rng = np.random.default_rng(0)
    records = [make_record(rng.integers(0, 256, (*shape, 3), np.uint8)) for _ in range(3)]
    for _ in range(10):
        picture = compose(rng, records, 64, ALL, 3)
        assert 0 < picture.targets.mean((1, 2)).min() <= picture.targets.mean((1, 2)).max() < 255


def test_the_picture_shows_the_background_and_its_pieces():
    """Where no layer is, the background's colours are; pieces come from the other photos, too."""
    records = [flat(128, 128, 128), flat(250, 20, 20)]
    coloured = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        image = compose(rng, records, 64, ALL, 1).image.astype(int)
        grey = np.ptp(image, axis=2) < 40
        assert abs(np.median(image[grey]) - 128) < 12
        coloured += (~grey).mean() > 0.01
    assert coloured > 8


@pytest.mark.parametrize("change", [{"image": b"no image"}, {"image": b""}, {"height": 92}])
def test_a_bad_image_is_an_input_error(change):
    bad = dataclasses.replace(flat(1, 2, 3), **change)
    with pytest.raises(InputError, match="made up"):
        compose(np.random.default_rng(0), [bad, flat(9, 9, 9)], 64, ALL, 1)


def test_photos_that_are_not_used_are_not_decoded(monkeypatch):
    bad = dataclasses.replace(flat(1, 2, 3), image=b"no image")
    monkeypatch.setattr(composites, "OWN", 1.0)
    compose(np.random.default_rng(0), [flat(9, 9, 9), bad], 64, ALL, 1)
    monkeypatch.setattr(composites, "OWN", 0.0)
    with pytest.raises(InputError, match="made up"):
        compose(np.random.default_rng(0), [flat(9, 9, 9), bad], 64, ALL, 1)


# ---- targets as a hand might draw them


def blob(seed: int, rough: float = 0.0) -> np.ndarray:
    """A disc-like target of about 20 cells across, of an outline that is rough in places."""
    rows, cols = np.mgrid[:64, :64] - 31.5
    noise = np.random.default_rng(seed).normal(size=(64, 64)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 1)
    away = np.hypot(rows, cols) - 10 + rough * noise / noise.std()
    return np.uint8(255 * np.clip(0.5 - away, 0, 1))


def by_hand(seed: int, cells: np.ndarray) -> np.ndarray:
    return composites._by_hand(np.random.default_rng(seed), cells)


def outline(cells: np.ndarray) -> float:
    """Length of all outlines of the cells that are held for the greater part."""
    found = cv2.findContours(np.uint8(cells > 127), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
    return sum(cv2.arcLength(x, closed=True) for x in found)


AWAY = np.abs(np.hypot(*(np.mgrid[:64, :64] - 31.5)) - 10)  # of the border of the disc, cells


def test_a_hand_moves_the_border_by_less_than_three_cells():
    disc, moved, ratios = blob(0), [], []
    for seed in range(100):
        found = by_hand(seed, disc)
        assert (found.dtype, found.shape) == (disc.dtype, disc.shape)
        moved.append(AWAY[(found > 127) != (disc > 127)].max(initial=0))
        near = AWAY < 5
        ratios.append(found[near].sum(dtype=int) / disc[near].sum(dtype=int))
    assert np.median(moved) < 1.5
    assert np.mean(np.array(moved) < 3) > 0.9
    assert 0.5 < min(ratios) < 0.9
    assert 1.1 < max(ratios) < 1.7
    assert 0.9 < np.mean(ratios) < 1.1


def test_a_hand_leaves_what_is_far_from_the_border():
    disc, far = blob(0), AWAY > 6
    for seed in range(100):
        np.testing.assert_array_equal(by_hand(seed, disc)[far], disc[far])


def test_a_hand_draws_all_of_it_too_large_or_too_small():
    """Where one half is too large, so is the other, most often."""
    disc = blob(0).astype(int)
    more = np.array([(by_hand(seed, blob(0)) - disc).reshape(2, -1).sum(1) for seed in range(60)])
    assert np.corrcoef(more.T)[0, 1] > 0.6


def test_a_hand_draws_smoother_outlines():
    for seed in range(20):
        rough = blob(seed, rough=2.0)
        assert outline(by_hand(seed, rough)) < 0.95 * outline(rough)


def test_a_hand_draws_the_same_from_the_same_generator():
    np.testing.assert_array_equal(by_hand(3, blob(0)), by_hand(3, blob(0)))
    assert (by_hand(3, blob(0)) != by_hand(4, blob(0))).any()


def test_a_hand_leaves_what_would_vanish():
    """A line of a cell's width, and all but one."""
    line = np.zeros((64, 64), np.uint8)
    line[:, 30] = 255
    for target in (line, 255 - line):
        for seed in range(40):
            assert composites._proper(by_hand(seed, target))
            if (by_hand(seed, target) == target).all():
                break
        else:
            pytest.fail("no hand lost it")


def test_half_of_the_targets_are_drawn_by_hand(photos, monkeypatch):
    hands = []
    monkeypatch.setattr(composites, "_by_hand", lambda _, cells: hands.append(1) or cells)
    for seed in range(20):
        compose(np.random.default_rng(seed), photos, 64, ALL, 10)
    assert 70 < len(hands) < 130
