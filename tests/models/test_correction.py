"""The evidence network: what it is at the start, padding, its inputs of clicks against NumPy."""

import functools

import jax
import numpy as np
import pytest
import small_evidence

from mis_jax.models import correction

H, W, IMAGES, LISTS, POINTS = 32, 48, 2, 3, 4
CERTAIN = 3  # of the channels of `said`: 1 or -1 where the answer is not to be corrected, else 0


@functools.cache
def network():
    """(params, picture, said, points, inside) -> log-odds."""
    look, answer = correction.program(small_evidence.WIDTH, "float32")

    def logits(params, picture, said, points, inside):
        return answer(params, look(params, picture, inside), said, points, inside)

    return jax.jit(logits)


def clicks(rng, *shape):
    """Places on the grid, kinds of 1, -1 and 0, depths of which some are 0."""
    place = rng.integers(0, (H, W), (*shape, POINTS, 2))
    kind = rng.choice([1, -1, 0], (*shape, POINTS, 1))
    kind[..., 0, 0] = rng.choice([1, -1], shape)  # the last click is one
    depth = rng.uniform(0.5, 9, (*shape, POINTS, 1)) * rng.integers(0, 2, (*shape, POINTS, 1))
    return np.concatenate([place, kind, depth], -1).astype(np.float32)


def inputs(seed=0, h=H, w=W):
    rng = np.random.default_rng(seed)
    picture = rng.normal(size=(IMAGES, h, w, correction.PICTURE)).astype(np.float32)
    said = rng.uniform(-1, 1, (IMAGES, LISTS, h, w, correction.SAID)).astype(np.float32)
    said[..., -1] = np.sign(said[..., -1])
    said[..., CERTAIN] = rng.choice([0, 0, 0, 1, -1], said.shape[:-1])
    return picture, said, clicks(rng, IMAGES, LISTS), np.ones((IMAGES, h, w), np.float32)


def test_an_untrained_network_says_what_the_evidence_does():
    given = inputs()
    found = network()(small_evidence.untrained(), *given)
    np.testing.assert_array_equal(found, correction.BELIEF * given[1][..., -1])


def test_a_trained_one_corrects_it():
    given = inputs()
    found = network()(small_evidence.parameters(), *given)
    away = np.abs(found - correction.BELIEF * given[1][..., -1])
    assert 0.01 < np.median(away[given[1][..., CERTAIN] == 0]) < 100


def test_what_is_certain_keeps_the_answer_of_the_evidence():
    given = inputs(5)
    found = np.asarray(network()(small_evidence.parameters(), *given))
    own, certain = given[1][..., -1], given[1][..., CERTAIN] != 0
    assert 0.2 < certain.mean() < 0.6
    np.testing.assert_array_equal(found[certain], correction.BELIEF * own[certain])
    assert (np.sign(found[~certain]) != own[~certain]).any()


def test_the_whole_is_a_look_and_an_answer():
    model = correction.make(small_evidence.WIDTH, dtype="float32")
    picture, said, points, inside = inputs()
    found = jax.jit(lambda *x: model(*x))(picture, said, points)
    wanted = network()(small_evidence.untrained(), picture, said, points, inside)
    np.testing.assert_array_equal(found, wanted)


def test_padding_changes_nothing():
    """At the right and below, of sides that are multiples of 16; whatever the padding holds."""
    picture, said, points, inside = inputs(1)
    wanted = network()(small_evidence.parameters(), picture, said, points, inside)
    for h, w, fill in ((64, 64, 0), (32, 96, 7)):
        more = [(0, 0), (0, h - H), (0, w - W), (0, 0)]
        padded = network()(
            small_evidence.parameters(),
            np.pad(picture, more, constant_values=fill),
            np.pad(said, [(0, 0), *more], constant_values=fill),
            points,
            np.pad(inside, more[:3]),
        )
        np.testing.assert_allclose(padded[..., :H, :W], wanted, atol=1e-4)


def test_lists_and_images_do_not_mix():
    picture, said, points, inside = inputs(2)
    whole = network()(small_evidence.parameters(), picture, said, points, inside)
    one = network()(
        small_evidence.parameters(), picture[1:], said[1:, 2:], points[1:, 2:], inside[1:]
    )
    np.testing.assert_allclose(whole[1:, 2:], one, atol=1e-4)


def test_only_the_last_click_has_a_place_in_the_order():
    """The others may be in any order, and rows without a click anywhere and of any place."""
    picture, said, points, inside = inputs(3)
    wanted = network()(small_evidence.parameters(), picture, said, points, inside)
    mixed = points[:, :, [0, 3, 1, 2]]
    empty = mixed[..., 2] == 0
    mixed[empty] = (5, 5, 0, 3)
    found = network()(small_evidence.parameters(), picture, said, mixed, inside)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    swapped = points.copy()
    swapped[:, :, 1, 2] = 1
    swapped = swapped[:, :, [1, 0, 2, 3]]
    found = network()(small_evidence.parameters(), picture, said, swapped, inside)
    assert np.abs(found - wanted).max() > 1e-2


def test_likeness_is_that_of_the_clicked_cells():
    rng = np.random.default_rng(4)
    embedding = rng.normal(size=(IMAGES, H, W, 16)).astype(np.float32)
    points = clicks(rng, IMAGES, LISTS)
    found = correction._likeness(embedding, points)
    for b, t in np.ndindex(IMAGES, LISTS):
        like = {1: [], -1: [], 0: []}
        for row, col, kind, _ in points[b, t]:
            at = embedding[b, int(row), int(col)]
            like[int(kind)].append(np.einsum("ijc,c->ij", embedding[b], at) / 4)
        last = points[b, t, 0, 2]
        wanted = [last * like[int(last)][0]]
        wanted += [np.max(like[k], 0) if like[k] else np.zeros((H, W)) for k in (1, -1)]
        np.testing.assert_allclose(found[b, t], np.stack(wanted, -1), atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_nearness_falls_off_with_the_distance(seed):
    points = clicks(np.random.default_rng(seed), 5)
    found = correction._nearness(points, H, W)
    grid = np.stack(np.mgrid[:H, :W], -1)
    for b in range(5):
        away = [np.hypot(*np.moveaxis(grid - p[:2], -1, 0)) for p in points[b]]
        wanted = []
        for kind in (1, -1):
            mine = [d for d, p in zip(away, points[b], strict=True) if p[2] == kind]
            near = np.min(mine, 0) if mine else np.full((H, W), np.inf)
            wanted += [np.exp(-near / 3), np.exp(-near / 12)]
        kind, depth = points[b, 0, 2:]
        wanted += [kind * np.exp(-away[0] / 3), kind * np.exp(-away[0] / (depth or 12))]
        wanted += [np.full((H, W), depth == 0), np.full((H, W), np.log1p(depth) / 2)]
        np.testing.assert_allclose(found[b], np.stack(wanted, -1), atol=1e-5)


def test_shapes_are_those_of_a_network():
    made, told = small_evidence.untrained(), correction.shapes(small_evidence.WIDTH)
    assert jax.tree.map(np.shape, made) == jax.tree.map(lambda x: x.shape, told)
