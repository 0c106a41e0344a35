"""Proposals, crops, clicks and colours against the published ones (tools/fidelity/samples.py)."""

import cv2
import fidelity
import jax
import numpy as np
import pytest
import training_inputs
from random_trees import Minstd

from mis_jax import config
from mis_jax.proposals import Tree, sampling
from mis_jax.training import augment, color, first_clicks, next_clicks

PUBLISHED = fidelity.load("samples")
UNLIKELY = 1e-5  # p-value, of about 70 tests with fixed seeds
GROUPS = ("no resize, no rotation", "no rotation", "all")
CLICKS, DATA = config.clicks(), config.data()


@pytest.mark.parametrize("kind", training_inputs.ERRORS)
def test_next_click(kind):
    """Where it may be, and the row that it is written to."""
    prob, mask = training_inputs.predictions(kind)
    found, positive = jax.jit(next_clicks.click_candidates, static_argnums=(2, 3))(
        prob, mask, CLICKS["threshold"], "chamfer"
    )
    expected = np.unpackbits(PUBLISHED[f"next_clicks: {kind} candidates"], count=mask.size)
    np.testing.assert_array_equal(found, expected.reshape(mask.shape).astype(bool))
    row = np.where(positive, 23, 47)
    row = np.where(np.any(found, (1, 2)), row, -1)
    np.testing.assert_array_equal(row, PUBLISHED[f"next_clicks: {kind} written"])


@pytest.mark.parametrize("kind", training_inputs.CLICK_MASKS)
def test_first_clicks(kind):
    mask, rng = training_inputs.click_mask(kind), np.random.default_rng(0)
    options = {"max_points": CLICKS["max_points"], "gamma": CLICKS["gamma"]}
    samples = [first_clicks.sample_clicks(mask, rng, **options) for _ in range(6000)]
    for name, counts in training_inputs.click_counts(mask, samples).items():
        expected = PUBLISHED[f"first_clicks: {kind} {name}"]
        assert not counts[expected == 0].sum() > 3, name
        assert training_inputs.p_value(counts, expected) > UNLIKELY, name


def augmentation(crop, **chances):
    names = ("scale", "flip", "flip_vertical", "rotate90", "shift_scale_rotate",
             "brightness_contrast", "rgb_shift", "keep_background")  # fmt: skip
    return augment.Augmentation(crop, **{k: DATA[k] for k in names} | chances)


@pytest.mark.parametrize("group", GROUPS)
def test_crops(group):
    """Masks are equal, images too where nothing is interpolated."""
    cases = list(enumerate(training_inputs.AUGMENTED * 2))
    start = GROUPS.index(group) * len(cases)
    differing = 0
    for i, shape in cases:
        image, proposal = training_inputs.augmented(i, *shape)
        rng = training_inputs.Replay(PUBLISHED["crops: parameters"][start + i])
        a = augmentation(96)
        place = a.draw_place(rng, *shape)
        mask = augment.warp_mask(proposal.view(bool), place, *shape, 96)
        crop = augment.Crop(place, mask, a.draw_table(rng))
        expected = np.unpackbits(PUBLISHED[f"crops: {group} {i} mask"]).reshape(96, 96)
        differing += (mask != expected).sum()
        png = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
        pixels = fidelity.some(augment.cut(png, crop, *shape), 600).astype(int)
        off = np.abs(pixels - PUBLISHED[f"crops: {group} {i} image"])
        assert off.max() <= {GROUPS[0]: 0, GROUPS[1]: 3, GROUPS[2]: 40}[group], i
        assert off.mean() < {GROUPS[0]: 1e-9, GROUPS[1]: 0.3, GROUPS[2]: 2.5}[group], i
    assert differing <= (1 if group == "all" else 0)  # a coordinate may be a tie


def our_table(parameters):
    rng = training_inputs.Replay(parameters)
    rng.skip_place()
    return augmentation(96).draw_table(rng)


def test_colour_tables():
    expected = PUBLISHED["tables: tables"]
    found = [our_table(p) for p in PUBLISHED["tables: table parameters"]]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", training_inputs.PLACED)
def test_crop_parameters(kind):
    height, width, reach = training_inputs.PLACED[kind]
    a, rng = augmentation(64), np.random.default_rng(0)
    places = [a.draw_place(rng, height, width) for _ in range(3000)]
    tables = [a.draw_table(rng) for _ in range(3000)]
    for name, counts in training_inputs.place_counts(places, tables, reach).items():
        expected = PUBLISHED[f"parameter_draws: {kind} {name}"]
        assert training_inputs.p_value(counts, expected) > UNLIKELY, name


def test_rules_and_chances():
    names = ("keep_background", "min_object_area", "flip", "rotate90", "shift_scale_rotate",
             "brightness_contrast", "rgb_shift")  # fmt: skip
    found = [DATA[name] for name in names]
    np.testing.assert_array_equal(found, PUBLISHED["parameter_draws: rules"])


@pytest.mark.parametrize("name", ["regions", "random"])
def test_proposals(name):
    """The same nodes for the same random numbers, and the same rule for small ones."""
    merges = PUBLISHED[f"proposals: {name} merges"].astype(np.int32)
    tree = Tree(merges, np.zeros(len(merges), np.float32), (20, 24))
    walk, alpha = sampling._walk.py_func, np.float32(DATA["alpha"])
    nodes = PUBLISHED[f"proposals: {name} nodes"]
    found = [walk(merges, tree.areas(), alpha, Minstd(seed)) for seed in range(len(nodes))]
    np.testing.assert_array_equal(found, nodes)
    rng = np.random.default_rng(0)
    drawn = [
        tree.sample(rng, DATA["alpha"], DATA["min_area"], DATA["sampling"], DATA["max_tries"])
        for _ in range(10_000)
    ]
    expected = PUBLISHED[f"proposals: {name} counts"]
    counts = np.bincount(drawn, minlength=tree.num_nodes)
    assert (tree.areas()[(counts > 0) | (expected > 0)] / tree.n > 0.05).all()
    assert training_inputs.p_value(counts, expected) > UNLIKELY
    depths = [np.bincount(tree.depths(), x) for x in (counts, expected)]
    assert training_inputs.p_value(*depths) > UNLIKELY


def test_colours():
    image, order, factors, turn, sigma = training_inputs.coloured()
    found = {
        "jitter": jax.jit(color.adjust)(image, order, factors, turn),
        "grey": color._grey(image),
        "blur": jax.jit(color.blur)(image, sigma),
    }
    for name, array in found.items():
        np.testing.assert_allclose(array, PUBLISHED[f"colours: {name}"], atol=5e-6, err_msg=name)
    chances = (color.JITTER, color.GREYED, color.BLURRED)
    np.testing.assert_array_equal(chances, PUBLISHED["colours: chances"])
    low, high = 1 - color.STRENGTH, 1 + color.STRENGTH
    ranges = [(low, high)] * 3 + [(-color.HUE, color.HUE), (1, 2)]
    np.testing.assert_allclose(ranges, PUBLISHED["colours: ranges"], atol=1e-12)
