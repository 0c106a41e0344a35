"""The tree predictor: marginals against enumeration, clicks kept, and the protocol end to end."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mis_jax.datasets import scenes
from mis_jax.datasets.samples import Sample
from mis_jax.errors import InputError
from mis_jax.evaluation import clicker, metrics
from mis_jax.predictors import merge_trees as lib
from mis_jax.predictors.clicks import Click
from mis_jax.predictors.merge_trees import TreePredictor
from mis_jax.proposals.tree import Tree, build_tree


def random_tree(n, rng):
    """Any binary tree over a row of n patches."""
    alive, merges = list(range(n)), []
    for m in range(n - 1):
        a, b = rng.choice(len(alive), 2, replace=False)
        merges.append((alive[a], alive[b]))
        alive = [v for v in alive if v not in merges[-1]] + [n + m]
    return Tree(np.reshape(merges, (n - 1, 2)), rng.exponential(1, n - 1) ** 2, (1, n))


def enumerated(tree, cuts, evidence, prior):
    """Every choice of cuts, and of labels of the regions that they leave."""
    parents = tree.parents()
    edges = range(tree.root)  # above each node but the root
    weight = np.zeros((tree.n, 2))
    for cut in itertools.product((False, True), repeat=len(edges)):
        region = np.arange(tree.num_nodes)
        for v in reversed(edges):  # parents have higher numbers
            if not cut[v]:
                region[v] = region[parents[v]]
        chance = np.prod([cuts[v] if cut[v] else 1 - cuts[v] for v in edges])
        kinds = np.unique(region)
        for labels in itertools.product((0, 1), repeat=len(kinds)):
            label = dict(zip(kinds, labels, strict=True))
            leaves = np.array([label[region[leaf]] for leaf in range(tree.n)])
            likely = np.where(leaves == 1, evidence, 1 - evidence).prod()
            before = np.prod([prior if x else 1 - prior for x in labels])
            weight[np.arange(tree.n), leaves] += chance * likely * before
    return weight[:, 1] / weight.sum(1)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.floats(0.05, 0.95), st.integers(0, 2**32 - 1))
def test_posterior_is_that_of_all_cuts_and_labels_of_the_regions(n, prior, seed):
    rng = np.random.default_rng(seed)
    tree = random_tree(n, rng)
    cuts = rng.choice([1e-6, 0.05, 0.5, 1.0], tree.num_nodes)
    evidence = rng.choice([0.0, 0.3, 0.5, 0.5, 0.9, 1.0], n)
    found = lib.posterior(tree.merges, cuts, evidence, prior)
    np.testing.assert_allclose(found, enumerated(tree, cuts, evidence, prior), atol=1e-9)


def test_posterior_stays_finite_in_the_deepest_tree_without_cuts():
    n = 5000
    merges = np.stack([np.r_[0, np.arange(n, 2 * n - 2)], np.arange(1, n)], axis=1)
    evidence = np.full(n, 0.5)
    evidence[[0, n - 1]] = 1, 0
    found = lib.posterior(merges.astype(np.int32), np.full(2 * n - 1, 1e-6), evidence, 0.3)
    assert np.isfinite(found).all()
    assert found[0] == 1
    assert found[-1] == 0


def test_cuts_grow_with_the_cost_of_the_merge_above_and_ignore_the_scale_of_features():
    features = np.random.default_rng(0).normal(size=(6, 7, 3)).astype(np.float32)
    tree = build_tree(features)
    cuts = lib.cut_probabilities(tree, 0.01)
    costs = tree.costs[tree.parents()[:-1] - tree.n].astype(np.float64)  # the root has no parent
    odds = 0.01 * (costs / tree.costs.mean(dtype=np.float64)) ** lib.CUT_POWER
    np.testing.assert_allclose(cuts[:-1], np.maximum(odds / (1 + odds), lib.LEAST), rtol=1e-6)
    np.testing.assert_allclose(
        lib.cut_probabilities(build_tree(8 * features), 0.01), cuts, rtol=1e-4
    )
    flat = build_tree(np.zeros((4, 5, 3), np.float32))
    assert (lib.cut_probabilities(flat, 0.01)[:-1] == lib.LEAST).all()


def test_evidence_is_certain_at_clicks_and_fades_with_distance_and_unlikeness():
    rng = np.random.default_rng(0)
    colours = rng.normal(0, 0.05, (40, 50, 4)).astype(np.float32)
    tree = build_tree(colours)
    clicks = [Click(41, 21.5, True), Click(70, 61, False)]
    logits = np.zeros((40, 50))
    for c in clicks:
        patch = colours[int(c.row / 2), int(c.col / 2)].astype(np.float64)
        squared = (np.arange(40)[:, None] * 2 + 0.5 - c.row) ** 2 / 4
        squared = squared + (np.arange(50) * 2 + 0.5 - c.col) ** 2 / 4  # in patches of 2 pixels
        near = np.exp(-squared / (2 * 40 * 50 * lib.NEAR_RADIUS**2))
        like = np.exp(-squared / (2 * 40 * 50 * lib.LIKE_RADIUS**2))
        like *= np.exp(-((colours - patch) ** 2).sum(-1) / (2 * lib.LIKENESS**2))
        logits += (2 * c.positive - 1) * (lib.NEAR_LOGIT * near + lib.LIKE_LOGIT * like)
    expected = 1 / (1 + np.exp(-logits))
    expected[20, 10], expected[35, 30] = 1, 0
    found = lib.click_evidence(tree, colours, clicks, 80, 100).reshape(40, 50)
    np.testing.assert_allclose(found, expected, atol=0.003)  # what is left beyond its reach
    for both in ([*clicks, Click(40, 20, False)], [Click(40, 20, False), *clicks]):
        contested = lib.click_evidence(tree, colours, both, 80, 100)[20 * 50 + 10]
        assert 0.3 < contested < 0.7  # a patch of clicks of both kinds is sure of neither


def image_of(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def scene(k):
    image, mask = scenes.make_scene(np.random.default_rng([105, k]))
    return image, mask.astype(np.int32)


def started(image, **kwargs):
    predictor = TreePredictor(**kwargs)
    predictor.set_image(image)
    return predictor


CLICKS = [(160, 120, True), (20, 30, False), (161, 120, False), (300, 200, True), (170, 90, True)]


@pytest.mark.parametrize("snapping", [False, True])
def test_every_clicked_pixel_has_its_label(snapping):
    for image in (scene(0)[0], image_of(240, 320)):
        predictor = started(image, snapping=snapping)
        for k, click in enumerate(CLICKS):
            mask = predictor.click(*click)
            assert mask.dtype == bool
            assert mask.shape == (240, 320)
            for x, y, positive in CLICKS[: k + 1]:
                assert mask[y, x] == positive


@pytest.mark.parametrize("snapping", [False, True])
def test_the_protocol_reaches_the_objects_of_made_up_scenes(snapping):
    ious = []
    for k in range(6):
        image, truth = scene(k)
        predictor = TreePredictor(snapping)
        sample = Sample(str(k), image, truth)
        ious.append([r.iou for r in clicker.rounds(predictor, sample, 0.9, 20)])
    assert metrics.noc(ious, 0.85) <= 4
    assert metrics.noc(ious, 0.90) <= 5


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2), (700, 900), (1500, 1100), (2000, 7)])
def test_images_of_any_size(shape):
    noise = image_of(*shape)
    for image in (noise, noise[..., :1].repeat(3, 2), np.full_like(noise, 90)):
        predictor = started(image)
        y, x = shape[0] - 1, shape[1] - 1
        mask = predictor.click(x, y)
        assert mask.shape == shape
        assert mask[y, x]
        assert not predictor.click(x, y, positive=False)[y, x]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: p.click(320, 0), "outside the image of 320 x 240"),
        (lambda p: p.click(np.nan, 0), "outside"),
        (lambda p: p.predict([(1, 2)], [2]), "labels"),
        (lambda p: p.predict([(1, 2)], [1], mask_input=np.zeros((240, 320))), "clicks only"),
        (lambda p: p.predict([(1, 2)], [1], multimask_output=True), "one mask"),
        (lambda p: p.set_image(np.zeros((4, 4), np.uint8)), "uint8 RGB"),
    ],
)
def test_wrong_use_is_said_in_a_sentence(call, words):
    predictor = started(image_of(240, 320))
    before = predictor.click(3, 3)
    with pytest.raises(InputError, match=words):
        call(predictor)
    np.testing.assert_array_equal(predictor.mask, before)


def test_clicks_need_an_image():
    for call in (lambda p: p.click(1, 1), lambda p: p.predict([(1, 1)], [1]), TreePredictor.reset):
        with pytest.raises(InputError, match="set_image"):
            call(TreePredictor())
