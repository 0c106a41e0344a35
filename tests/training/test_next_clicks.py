"""Simulated clicks against scipy's and OpenCV's distance transforms, numpy, and statistics."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from mis_jax.errors import InputError
from mis_jax.training import next_clicks, sharding

squared_distance = jax.jit(next_clicks.squared_distance)
chamfer_distance = jax.jit(next_clicks.chamfer_distance)
DRAWS = 3000
SHAPES = [(2, 9, 5), (3, 4, 19)]


def edt(region):
    """Distance to the nearest pixel outside; the image is surrounded by outside."""
    return ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]


def assert_distances(labels):
    actual = np.asarray(squared_distance(labels))
    assert actual.dtype == np.int32
    for found, image in zip(actual, labels, strict=True):
        for label in set(np.unique(image)) - {0}:
            own = image == label
            np.testing.assert_array_equal(found[own], np.rint(edt(own)[own] ** 2))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_distance_of_random_labels(shape, kinds, block, seed):
    """From speckles to one label everywhere; every image of the batch is of another."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, kinds, [shape[0], *(-(-n // block) for n in shape[1:])])
    labels = coarse.repeat(block, 1).repeat(block, 2)[:, : shape[1], : shape[2]]
    assert_distances((labels + rng.integers(0, 2)).astype(np.int32))


def test_distance_of_large_regions():
    """The deepest pixel decides how far is searched, in whichever image of the batch it is."""
    rows, cols = np.mgrid[:61, :80]
    disk = (rows - 30) ** 2 + (cols - 40) ** 2 < 29**2
    labels = np.stack([np.ones_like(rows), disk, 2 - disk, 0 * rows, (cols > 9) * 2]).astype("i4")
    assert_distances(labels)
    assert np.asarray(squared_distance(labels))[0].max() == 31**2


def test_distance_in_the_widest_image():
    """Labels and distances share a word; both are as large as they may be."""
    labels = np.full((1, 3, 8189), 126, np.int32)
    labels[0, 1, ::1000] = 125
    assert_distances(labels)


@pytest.fixture
def without_ipp():
    """OpenCV's own code; Intel's library rounds floats instead."""
    before = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    yield
    cv2.ipp.setUseIPP(before)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from([(1, 1, 1), (2, 1, 8), (2, 9, 1), (2, 13, 40), (2, 40, 13)]),
    st.integers(1, 12), st.floats(0.05, 1), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_chamfer_is_opencv(without_ipp, shape, block, share, seed):
    coarse = np.random.default_rng(seed).random([shape[0], *(-(-n // block) for n in shape[1:])])
    region = (coarse < share).repeat(block, 1).repeat(block, 2)[:, : shape[1], : shape[2]]
    for found, image in zip(np.asarray(chamfer_distance(region)), region, strict=True):
        padded = np.pad(image, 1).astype(np.uint8)
        expected = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
        np.testing.assert_array_equal(found, expected)


def expected_click(prob, mask, threshold=0.49):
    """Whether a positive click is next, and the pixels it may fall on."""
    missed, wrong = mask & (prob < threshold), ~mask & (prob > threshold)
    depths = edt(missed), edt(wrong)
    positive = depths[0].max() > depths[1].max()
    depth = depths[0] if positive else depths[1]
    return positive, depth > max(depth.max(), 0) / 2


@functools.partial(jax.jit, static_argnames="draws")
def many_clicks(prob, mask, threshold, draws, seed=0):
    uniform = jax.random.uniform(jax.random.key(seed), (draws, len(prob)))
    return jax.vmap(lambda draw: next_clicks.next_click(draw, prob, mask, threshold))(uniform)


def error_maps():
    """Targets and predictions [B, 13, 17]: blobs, and cases of their own."""
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.normal(size=(2, 20, 13, 17)), (0, 0, 2, 2))
    mask, prob = noise[0] > 0, 1 / (1 + np.exp(-20 * noise[1]))
    mask[0], prob[0] = False, 0.1  # nothing wrong: no click
    mask[1], prob[1] = True, 0.1  # everything missed; its edge is the image's
    mask[2], prob[2] = False, 0.9  # everything wrong
    mask[3], prob[3] = False, 0.1
    mask[3, 2:7, 2:7], prob[3, 2:7, 10:15] = True, 0.9  # a tie, away from the border: negative
    mask[4, :, :8], mask[4, :, 8:], prob[4, :, :8], prob[4, :, 8:] = True, False, 0.1, 0.9
    mask[5], prob[5] = True, np.float32(0.49)  # at the threshold: not missed, and not wrong
    mask[6], prob[6] = False, np.float32(0.49)
    mask[7], prob[7] = True, np.nextafter(np.float32(0.49), np.float32(0))
    return mask, prob.astype("f")


def test_clicks_are_uniform_over_the_candidates():
    mask, prob = error_maps()
    position, positive, found = map(np.asarray, many_clicks(prob, mask.astype("u1"), 0.49, DRAWS))
    assert position.dtype == np.int32
    assert positive[0, [0, 1, 2, 3]].tolist() == [False, True, False, False]
    assert found[0].tolist() == [i not in (0, 5, 6) for i in range(len(mask))]
    signs, pvalues = set(), []
    for i in np.flatnonzero(found[0]):
        sign, candidates = expected_click(prob[i].astype("d"), mask[i], float(np.float32(0.49)))
        assert (positive[:, i] == sign).all()
        assert found[:, i].all()
        hits = np.zeros(mask[i].shape, int)
        np.add.at(hits, tuple(position[:, i].T), 1)
        np.testing.assert_array_equal(hits > 0, candidates)
        signs.add(bool(sign))
        if candidates.sum() > 1:
            pvalues.append(stats.chisquare(hits[candidates]).pvalue)
    assert signs == {True, False}
    assert min(pvalues) > 1e-3 / len(pvalues)
    assert stats.kstest(pvalues, "uniform").pvalue > 1e-3


def test_unknown_distance_is_named():
    mask, prob = error_maps()
    with pytest.raises(InputError, match=r'config\.clicks\.distance is "l1"; give "exact" or'):
        next_clicks.next_click(np.zeros(len(prob)), prob, mask, distance="l1")


def test_threshold():
    """The same predictions are errors, or none."""
    mask, _ = error_maps()
    prob = np.full(mask.shape, 0.6, "f")
    for threshold in (0.49, 0.7):
        _, positive, found = many_clicks(prob, mask.astype("u1"), threshold, DRAWS)
        missing, missed = mask.all((1, 2)), threshold > 0.6
        assert found[0].tolist() == (mask.any((1, 2)) if missed else ~missing).tolist()
        assert not (positive[0] != missed)[np.asarray(found[0])].any()


def network(image, prev, points):
    """Depends on all that it is given; wrong in places."""
    used = jnp.where(points[..., 2] >= 0, points[..., 2] + points[..., 0] / 7, 0).sum(1)
    wave = jnp.sin(3 * used)[:, None, None]
    return 12 * (image[..., 0] - 0.5) + 4 * (image[..., 1] - 0.5) * wave + prev


@pytest.fixture(scope="module")
def rounds():
    """Inputs, and from one compiled function: results for counts 0 to 3, slopes, traces."""
    rng = np.random.default_rng(1)
    noise = ndimage.gaussian_filter(rng.normal(size=(6, 16, 18, 4)), (0, 2, 2, 0))
    image = (1 / (1 + np.exp(-9 * noise[..., :3]))).astype("f")
    mask = (noise[..., 3] > 0).astype("u1")
    mask[5] = image[5, :, :, 0] > 0.5
    image[5, :, :, 0], image[5, :, :, 1] = mask[5], 0.5  # always right: never a click
    points = np.full((6, 10, 3), -1, "f")
    points[:, :2] = points[::2, 5:8] = (3, 4, 100)
    points[3] = (5, 6, 100)  # no row is free
    traces = []

    @jax.jit
    def run(count):
        traces.append(count)

        def total(scale):
            scaled = lambda *args: scale * network(*args)  # noqa: E731
            result = next_clicks.iterate_clicks(
                scaled, image, mask, points, count, jax.random.key(2)
            )
            return result[0].sum(), result

        return jax.grad(total, has_aux=True)(1.0)

    slopes, results = zip(
        *(jax.device_get(run(jnp.int32(count))) for count in range(4)), strict=True
    )
    return image, mask, points, results, slopes, len(traces)


def test_count_is_traced(rounds):
    assert rounds[-1] == 1


def test_no_gradient_flows(rounds):
    """Predictions depend on the network's parameters, here one factor, but are constants."""
    *_, slopes, _ = rounds
    assert slopes == (0, 0, 0, 0)


def test_no_rounds(rounds):
    _, mask, points, results, *_ = rounds
    prev, after = results[0]
    assert prev.shape == mask.shape
    assert prev.dtype == np.float32
    assert not prev.any()
    np.testing.assert_array_equal(after, points)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_round_adds_one_click(rounds, count):
    """Round t continues round t - 1: its prediction is made before its click."""
    image, mask, _, results, *_ = rounds
    before, (prev, after) = results[count - 1], results[count]
    logits = np.asarray(network(image, *before), "d")
    np.testing.assert_allclose(prev, 1 / (1 + np.exp(-logits)), atol=1e-6)
    clicked = np.zeros(len(image), bool)
    for i in range(len(image)):
        sign, candidates = expected_click(prev[i].astype("d"), mask[i] > 0)
        changed = np.flatnonzero((after[i] != before[1][i]).any(-1))
        if not candidates.any():
            assert not len(changed)
            continue
        assert changed.tolist() == [(5 if sign else 10) - count]
        row, col, order = after[i, changed[0]]
        assert candidates[int(row), int(col)]
        assert order == count
        clicked[i] = True
    assert clicked.tolist() == [True] * 5 + [False]


@pytest.mark.parametrize("distance", ["exact", "chamfer"])
def test_devices_do_not_wait_for_each_other(rounds, distance):
    """Each chooses the clicks of its samples: the same clicks, with nothing sent."""
    image, mask, points, *_ = rounds
    mesh = sharding.make_mesh(1, jax.devices()[:3])
    place = sharding.batch_sharding(mesh)

    def run(mesh, *sample):
        key, count = jax.random.key(2), jnp.int32(3)
        return next_clicks.iterate_clicks(
            network, *sample, count, key, distance=distance, mesh=mesh
        )

    alone = jax.jit(functools.partial(run, None))(image, mask, points)
    together = functools.partial(run, mesh)
    program = jax.jit(together, in_shardings=place, out_shardings=place)
    program = program.lower(image, mask, points).compile()
    for name in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
        assert name not in program.as_text()
    for found, expected in zip(program(image, mask, points), alone, strict=True):
        assert len(found.sharding.device_set) == 3
        np.testing.assert_array_equal(found, expected)
