"""The simpler rules that the tree predictor is compared with."""

import sys
from pathlib import Path

import numpy as np
from click_scenes import scene

from mis_jax.predictors import merge_trees
from mis_jax.predictors.merge_trees import TreePredictor

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "bench"))

import tree_predictor as lib

CLICKS = [(20, 20, True), (70, 40, False), (45, 30, True)]


def answers(predictor):
    predictor.set_image(scene(1, 60, 90)[0])
    masks = [predictor.click(*click) for click in CLICKS]
    return np.stack([*masks, predictor.probabilities])


def test_one_tree_is_the_predictor_with_the_finest_stride_alone(monkeypatch):
    three, one = answers(TreePredictor()), answers(lib.OneTree())
    monkeypatch.setattr(merge_trees, "STRIDES", merge_trees.STRIDES[:1])
    np.testing.assert_array_equal(one, answers(TreePredictor()))
    assert (one != three).any()
