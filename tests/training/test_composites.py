"""composites.py: pictures of scenes, and of flat photos, whose pixels say what targets must be."""

import dataclasses
import itertools

import cv2
import numpy as np
import pytest

from mis_jax.datasets import scenes
from mis_jax.errors import InputError
from mis_jax.proposals import build_tree
from mis_jax.records import Record
from mis_jax.training import composites
from mis_jax.training.composites import LAYER, NODE, PAIR, Layer, compose, visible

ALL = (0.5, 0.3, 0.2)


def make_record(image: np.ndarray, noise: float = 0.01) -> Record:
    """A record whose tree merges patches of 4 pixels by their colours, and by smooth noise."""
    height, width = image.shape[:2]
    grid = width // 4, height // 4
    features = cv2.resize(image, grid, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    rough = np.random.default_rng(0).normal(size=features.shape).astype(np.float32)
    features += noise * cv2.GaussianBlur(rough, (0, 0), 2)
    encoded = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    return Record("made up", encoded, height, width, build_tree(features))


def flat(*colour: int, side: int = 96) -> Record:
    return make_record(np.full((side, side, 3), colour, np.uint8))


@pytest.fixture(scope="module")
def photos() -> list[Record]:
    rngs = map(np.random.default_rng, range(6))
    return [make_record(scenes.make_scene(rng, (180, 240))[0]) for rng in rngs]


@pytest.fixture(scope="module")
def drawn(photos):
    """Many composites of scenes."""
    pictures = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        chosen = [photos[k] for k in rng.permutation(6)[:4]]
        pictures.append(compose(rng, chosen, 128, ALL, 5))
    return pictures


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


def test_the_generator_is_the_only_source_of_randomness(photos):
    first, again, other = (
        compose(np.random.default_rng(seed), photos, 96, ALL, 4) for seed in (1, 1, 2)
    )
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first.image != other.image).any()


def test_no_target_is_empty_or_everything_and_all_differ(drawn):
    for picture in drawn:
        shares = picture.targets.mean((1, 2)) / 255
        assert (shares > 0.007).all()
        assert (shares < 0.993).all()
        for a, b in itertools.combinations(picture.targets.astype(int), 2):
            assert np.minimum(a, b).sum() < 0.95 * np.maximum(a, b).sum()


def test_layers_and_what_is_behind_them_share_the_cells(drawn):
    """At most all of a cell is held by the layers and any one node together."""
    seen = 0
    for picture in drawn:
        layers = picture.targets[picture.kinds == LAYER].astype(int).sum(0)
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
    assert 0.2 < share[LAYER] < 0.5  # some pictures have fewer layers than are asked for
    assert 1.2 < share[NODE] / share[PAIR] < 2.4
    for kind in (NODE, PAIR):
        rngs = map(np.random.default_rng, range(20))
        only = [compose(rng, photos, 96, tuple(np.eye(3)[kind]), 3).kinds for rng in rngs]
        assert (np.stack(only) == kind).mean() > 0.95


def test_what_a_picture_lacks_falls_to_the_others(photos):
    for seed in range(10):
        picture = compose(np.random.default_rng(seed), photos[:2], 96, (1.0, 0.0, 0.0), 6)
        assert 2 <= (picture.kinds != LAYER).sum() <= 6  # there are at most four layers


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
    """No compression and blur, and pieces keep their colours but for their own light."""
    for name in ("COMPRESSED", "HAZY", "BLURRED", "MATCHED", "OWN"):
        monkeypatch.setattr(composites, name, 0.0)


def test_targets_are_the_shares_of_the_colours_in_the_picture(plain):
    """Flat layers over a flat background: a cell's colour is the mixture its targets tell."""
    background = np.array((40, 70, 200))
    records = [flat(*background), flat(210, 60, 50), flat(60, 190, 70)]
    seen = 0
    for seed in range(40):
        picture = compose(np.random.default_rng(seed), records, 128, (1.0, 0.0, 0.0), 4)
        cells = cv2.resize(picture.image, (64, 64), interpolation=cv2.INTER_AREA).astype(float)
        layers = picture.targets[picture.kinds == LAYER].astype(float) / 255
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


def test_pieces_end_where_the_colours_change(plain, monkeypatch):
    """A disc: what is well inside of its layers is dark, as it was, what is well outside is not."""
    monkeypatch.setattr(composites, "UNION", 0.0)
    monkeypatch.setattr(composites, "SCALE", (0.99, 1.01))
    monkeypatch.setattr(composites, "LAYER_AREA", (0.25, 0.27))  # the disc has 0.26 of the picture
    image = np.full((128, 160, 3), (230, 200, 30), np.uint8)
    cv2.circle(image, (83, 62), 37, (30, 40, 90), -1, cv2.LINE_AA)
    records = [flat(30, 200, 200), make_record(image, noise=0.001)]
    seen = 0
    for seed in range(60):
        picture = compose(np.random.default_rng(seed), records, 128, (1.0, 0.0, 0.0), 4)
        pixels = cv2.resize(picture.image, (64, 64), interpolation=cv2.INTER_AREA).max(2)
        layers = picture.targets[picture.kinds == LAYER]
        for target in layers:
            if np.median(pixels[target == 255]) < 150:
                assert np.percentile(pixels[target == 255], 99) < 160
                assert target.mean() < 0.29 * 255
                near = (cv2.dilate(target, np.ones((5, 5))) > 0) & ~layers.any(0)
                assert np.percentile(pixels[near], 5) > 160
                seen += 1
    assert seen > 20


def test_most_of_a_piece_is_within_the_picture(photos, monkeypatch):
    shares = []

    def spy(layers, size):
        shares.extend(layer.alpha.sum() / size**2 for layer in layers)
        return visible(layers, size)

    monkeypatch.setattr(composites, "visible", spy)
    monkeypatch.setattr(composites, "LAYER_AREA", (0.1, 0.1))
    for seed in range(60):
        compose(np.random.default_rng(seed), photos, 96, ALL, 1)
    assert 90 < len(shares) < 150  # two a picture
    assert 0.055 < min(shares) < 0.08
    assert 0.1 < max(shares) < 0.125


def test_the_background_is_a_crop_of_a_varying_place_and_size():
    """The red and green of a photo tell columns and rows; pictures with layers are passed."""
    rows, cols = np.mgrid[:160, :240]
    where = make_record(np.stack([cols, rows, np.zeros_like(rows)], -1).astype(np.uint8))
    ends, mirrored = [], []
    for seed in range(250):
        rng = np.random.default_rng(seed)
        picture = compose(rng, [where, flat(0, 0, 255)], 64, (1.0, 0.0, 0.0), 1)
        if picture.kinds[0] != LAYER and (picture.image[..., 2] > 128).mean() < 1e-3:
            left, right = np.median(picture.image[:, [0, -1], 0], 0)
            top, bottom = np.median(picture.image[[0, -1], :, 1], 1)
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


def test_photos_that_are_not_used_are_not_decoded():
    """A sixteenth of the pictures has no layers."""
    bad = dataclasses.replace(flat(1, 2, 3), image=b"no image")
    done = 0
    for seed in range(60):
        try:
            compose(np.random.default_rng(seed), [flat(9, 9, 9), bad], 64, ALL, 1)
            done += 1
        except InputError:
            pass
    assert 0 < done < 20
