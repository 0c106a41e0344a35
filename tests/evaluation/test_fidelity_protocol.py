"""Clicks, crops, network inputs, masks, IoUs, NoC and readers of benchmarks, as published."""

import numpy as np
import protocol_pairs
import pytest
from fidelity import load
from protocol_pairs import PAIRS, SETS, SMALL_PAIRS, TARGETS, pair

FEW = 4  # clicks, of the network that takes long


@pytest.fixture(scope="module")
def recorded():
    return load("protocol")


def part(recorded, key, number, passes="passes"):
    """The rows of one pair."""
    end = recorded[passes][: number + 1].sum()
    return recorded[key][end - recorded[passes][number] : end]


@pytest.mark.parametrize("index", range(PAIRS))
def test_every_click_is_the_published_one(recorded, index):
    done = protocol_pairs.ours(pair(index)).arrays()
    for key in ("clicks", "rois", "sums", "ious"):
        np.testing.assert_array_equal(done[key], part(recorded, key, index), key)


def test_pairs_ask_for_what_they_should(recorded):
    moves = sum(
        (np.diff(part(recorded, "rois", k).astype(int), axis=0) != 0).any(axis=1).sum()
        for k in range(PAIRS)
    )
    assert moves >= 100
    assert (recorded["ious"] == 1).sum() >= 20
    assert sum((pair(k).truth == -1).any() for k in range(8)) >= 3


@pytest.mark.parametrize("row", range(len(TARGETS)))
def test_figures_of_the_table(recorded, row):
    ious = [part(recorded, "ious", k).astype(np.float32) for k in range(PAIRS)]
    chosen = [x for k, x in enumerate(ious) if protocol_pairs.target(k) == TARGETS[row]]
    figures = protocol_pairs.metrics(chosen, TARGETS[row])
    np.testing.assert_array_equal(figures, recorded["noc"][row])
    table = protocol_pairs.printed_table(chosen, TARGETS[row])
    np.testing.assert_array_equal(table, recorded["table"][row])


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 4])
def test_simpleclick_is_clicked_alike(recorded, number):
    given = pair(SMALL_PAIRS[number])
    done = protocol_pairs.ours(given, protocol_pairs.small_network(given.size), FEW)
    expected = {key: part(recorded, f"small_{key}", number, "small_passes")[:FEW]
                for key in ("clicks", "rois", "ious")}  # fmt: skip
    np.testing.assert_array_equal(done.clicks, expected["clicks"])
    np.testing.assert_array_equal(done.rois, expected["rois"])
    np.testing.assert_allclose(done.ious, expected["ious"], atol=1e-4)  # pixels at 0.5 may flip


@pytest.mark.parametrize("name", SETS)
def test_objects_of_a_benchmark(recorded, tmp_path, name):
    protocol_pairs.write_sets(tmp_path)
    objects = protocol_pairs.read_set(name, tmp_path / name)
    np.testing.assert_array_equal(protocol_pairs.set_sums(objects), recorded[f"set_{name}"])
