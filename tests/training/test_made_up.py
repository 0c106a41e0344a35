"""made_up.py: the made-up targets, clicks on them, and what is said of the two."""

import json

import numpy as np
import pytest
import small_evidence
import tiny_run

from mis_jax.training import made_up

HALF = {"before": 0.5, "after": 0.625}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny_run.write_records(tmp_path_factory.mktemp("data"))


def test_targets_are_pasted_things_and_always_the_same(files):
    c = small_evidence.settings()
    samples, again = (made_up.targets(files, c, 4) for _ in range(2))
    assert len({sample.image.tobytes() for sample in samples}) == 4
    for a, b in zip(samples, again, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.mask, b.mask)
        assert (a.image.dtype, a.image.shape) == (np.uint8, (64, 64, 3))
        assert (a.mask.dtype, a.mask.shape) == (np.int32, (64, 64))
        assert set(np.unique(a.mask)) == {0, 1}


def test_clicks_of_before_and_after_are_compared_in_pairs():
    before = [[0.5, 0.7, 0.86, 0.95], [0.9], [0.2] * 20]
    after = [[0.6, 0.86, 0.91], [0.8, 0.92], [0.4] * 18 + [0.85, 0.85]]
    found = made_up.compared(before, after)
    assert found["n"] == 3
    values = {name: x for name, x in found.items() if name != "n"}
    wanted = {  # before, after
        "noc85": ((3 + 1 + 20) / 3, (2 + 2 + 19) / 3),
        "noc90": ((4 + 1 + 20) / 3, (3 + 2 + 20) / 3),
        "iou1": ((0.5 + 0.9 + 0.2) / 3, (0.6 + 0.8 + 0.4) / 3),
    }
    assert values.keys() == wanted.keys()
    for name, (then, now) in wanted.items():
        assert values[name]["before"] == pytest.approx(then)
        assert values[name]["after"] == pytest.approx(now)
        assert values[name]["difference"] == pytest.approx(now - then)
        low, high = values[name]["interval"]
        assert low <= now - then <= high
    assert found["noc85"]["interval"] == [-1, 1]  # of -1, 1 and -1


@pytest.mark.parametrize(
    ("interval", "word"),
    [((-2, -1), ": better;"), ((0.5, 3), ": worse;"), ((-1, 1), "not certainly better or worse;")],
)
def test_a_sentence_says_whether_it_is_better(interval, word):
    noc = {"before": 5.0, "after": 4.0, "difference": -1.0, "interval": interval}
    found = {"n": 9, "noc85": noc, "iou1": HALF, "kept_out": True}
    said = made_up.sentence(found)
    assert said.startswith("9 made-up targets on photos kept out of training: 5.00 clicks to 85 %")
    assert word in said
    assert said.endswith("first-click IoU 50.0 % before, 62.5 % after.")
    few = made_up.sentence({**found, "kept_out": False})
    assert "on the photos it learnt from, too few to keep some out of training: 5.00" in few


def test_what_is_written_is_known_again(tmp_path):
    assert not made_up.is_there(tmp_path, 4, 2)
    made_up.write(tmp_path, 4, {"n": 2})
    assert made_up.is_there(tmp_path, 4, 2)
    assert not made_up.is_there(tmp_path, 5, 2)
    assert not made_up.is_there(tmp_path, 4, 3)
    for damaged in ('{"step": 4', "[1]", "null", '{"n": 2}'):
        (tmp_path / "made_up.json").write_text(damaged)
        assert not made_up.is_there(tmp_path, 4, 2)


def test_parameters_are_compared_by_their_clicks(files):
    c = small_evidence.settings(**{"train.made_up": 3})
    same = made_up.measure(files, c, *[small_evidence.untrained()] * 2)
    assert same["n"] == 3
    assert not same["kept_out"]
    for name in ("noc85", "noc90", "iou1"):
        assert same[name]["difference"] == 0
        assert same[name]["interval"] == [0, 0]
    random = made_up.measure(files, c, small_evidence.untrained(), small_evidence.parameters())
    assert random["iou1"]["before"] == same["iou1"]["before"]
    assert random["iou1"]["difference"] != 0
    json.dumps(random)
