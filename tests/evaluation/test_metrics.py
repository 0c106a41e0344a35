"""Numbers of clicks against loops, intervals against the bootstrap written out and SciPy's."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from mis_jax.datasets.samples import Benchmark
from mis_jax.evaluation import metrics

EMPTY = Benchmark("x", None, {}, {})


def made(ious, seconds=1.0):
    """Records of objects a, b, ... with these IoUs."""
    return [
        {"id": f"o{k}", "digest": 7 * k, "ious": row, "clicks": [[k, 2, 1]], "seconds": seconds}
        for k, row in enumerate(ious)
    ]


def naive_clicks(row, target, max_clicks):
    for k, value in enumerate(row[:max_clicks], 1):
        if np.float32(value) >= np.float32(target):
            return k
    return max_clicks


def naive_bootstrap(values, seed, level, resamples=10_000):
    """One resample at a time; the ends by linear interpolation between order statistics."""
    rng, n = np.random.default_rng(seed), len(values)
    means = sorted(np.mean([values[i] for i in rng.integers(n, size=n)]) for _ in range(resamples))
    ends = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        place = share * (resamples - 1)
        low = int(place)
        high = min(low + 1, resamples - 1)
        ends.append(means[low] + (place - low) * (means[high] - means[low]))
    return ends


# ---- NoC and NoF


def test_noc_of_the_published_code():
    ious = [[0.5, 0.86, 0.91], [0.95], [0.1] * 18 + [0.82, 0.84]]
    for target, mean, failures in ((0.80, 7.3333, 0), (0.85, 7.6667, 1), (0.90, 8.0, 1)):
        assert metrics.noc(ious, target) == pytest.approx(mean, abs=1e-4)
        assert metrics.nof(ious, target) == failures
    assert metrics.noc([[0.1] * 19 + [0.95]]) == 20
    assert metrics.nof([[0.1] * 19 + [0.95]]) == 1  # as there: solved by the very last click
    assert metrics.noc([[0.1, 0.2, 0.3, 0.95]], max_clicks=3) == 3


def test_thresholds_are_compared_in_float32():
    just_below = float(np.nextafter(np.float64(0.9), 0))
    assert metrics.noc([[just_below, 0.99]], 0.90) == 1
    assert metrics.noc([[0.8999999, 0.99]], 0.90) == 2


ROWS = st.lists(
    st.lists(st.sampled_from([0.0, 0.3, 0.8, 0.85, 0.9, 0.949, 0.95, 1.0]), min_size=1, max_size=8),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 8), st.sampled_from([0.8, 0.85, 0.9, 0.92, 0.95, 1.0, 1.01]))
def test_summaries_are_those_of_loops(ious, max_clicks, target):
    result = metrics.summarize(made(ious), EMPTY, target, max_clicks)
    known = {"80": 0.80, "85": 0.85, "90": 0.90, "95": 0.95}
    known |= {} if target > 1 else {f"{100 * target:.4g}": target}
    for percent, threshold in known.items():
        if threshold > target:
            assert f"noc{percent}" not in result
            continue
        counts = [naive_clicks(row, threshold, max_clicks) for row in ious]
        assert result[f"noc{percent}"] == pytest.approx(sum(counts) / len(counts))
        assert result[f"nof{percent}"] == sum(c == max_clicks for c in counts)
        low, high = result[f"noc{percent}_interval"]
        assert min(counts) - 1e-6 <= low <= high <= max(counts) + 1e-6
    for k in range(max_clicks):
        after = [row[k] if k < len(row) else row[-1] for row in (r[:max_clicks] for r in ious)]
        assert result["miou"][k] == pytest.approx(np.mean(after))
    assert len(result["miou"]) == len(result["miou_interval"]) == max_clicks
    assert result["miou_exact"] == all(len(row) >= max_clicks for row in ious)


@pytest.mark.parametrize(
    ("target", "keys"),
    [
        (0.85, "80 85"),
        (0.90, "80 85 90"),
        (0.95, "80 85 90 95"),
        (0.87, "80 85 87"),
        (1.01, "80 85 90 95"),
    ],
)
def test_noc_above_the_target_is_not_known(target, keys):
    result = metrics.summarize(made([[0.5, 0.97]], 3.0), EMPTY, target)
    assert [k[3:] for k in result if k.startswith("noc") and "_" not in k] == keys.split()
    assert list(metrics.thresholds(target)) == keys.split()
    assert result["spc"] == 1.5


def test_an_entry_tells_all_of_its_objects():
    ious = [[0.2, 0.9], [0.1, 0.5, 0.7, 0.91]]
    benchmark = Benchmark("mine", None, {}, {"bare.png": "no mask of this name"})
    result = metrics.summarize(made(ious, 2.0), benchmark, 0.9, 5)
    assert result["ious"] == {"o0": ious[0], "o1": ious[1]}
    assert result["clicks"] == {"o0": [[0, 2, 1]], "o1": [[1, 2, 1]]}
    assert result["times"] == {"o0": 2.0, "o1": 2.0}
    assert result["digests"] == {"o0": 0, "o1": 7}
    assert (result["n"], result["expected"]) == (2, 3)
    assert result["skipped"] == {"bare.png": "no mask of this name"}
    assert (result["seconds"], result["spc"]) == (4.0, pytest.approx(4 / 6))
    assert (result["target"], result["max_clicks"]) == (0.9, 5)
    assert "random" not in result
    assert metrics.summarize(made(ious), Benchmark("x", 50, {}, {}))["expected"] == 50


def test_random_clickers_have_a_noc_each():
    seeds = [made([[0.5, 0.9], [0.85]]), made([[0.86], [0.1, 0.2, 0.3]]), made([[0.1], [0.95]])]
    result = metrics.summarize(made([[0.9], [0.9]]), EMPTY, 0.9, 4, seeds)["random"]
    assert result["seeds"] == 3
    assert result["noc80"] == result["noc85"] == [1.5, 2.5, 2.5]
    assert result["noc90"] == [3.0, 4.0, 2.5]
    assert "noc95" not in result


# ---- intervals


@pytest.mark.parametrize(("n", "seed", "level"), [(1, 0, 0.95), (7, 0, 0.95), (50, 3, 0.8)])
def test_the_bootstrap_is_the_one_written_out(n, seed, level):
    values = np.random.default_rng(n).gamma(2.0, 3.0, n)
    found = metrics.bootstrap_interval(values, seed, level)
    assert found == pytest.approx(naive_bootstrap(values, seed, level), abs=1e-9)


def test_the_bootstrap_is_nearly_scipys():
    values = np.random.default_rng(5).integers(1, 21, 49)
    expected = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=9_999, rng=np.random.default_rng(1)
    ).confidence_interval
    width = expected.high - expected.low
    assert metrics.bootstrap_interval(values) == pytest.approx(tuple(expected), abs=0.03 * width)
    assert metrics.bootstrap_interval(values) == metrics.bootstrap_interval(values)
    assert metrics.bootstrap_interval(values) != metrics.bootstrap_interval(values, seed=1)
    assert metrics.bootstrap_interval([2.0]) == (2.0, 2.0)


def test_fewer_resamples_of_many_objects_give_the_normal_interval():
    values = np.random.default_rng(0).gamma(2.0, 3.0, 6671)
    half = 1.96 * values.std() / np.sqrt(len(values))
    expected = values.mean() - half, values.mean() + half
    assert metrics.bootstrap_interval(values) == pytest.approx(expected, abs=0.1 * half)
    n, tenth = len(values), metrics.RESAMPLES // 10
    assert tenth < metrics.DRAWS // n < metrics.RESAMPLES  # that there are fewer, but enough


def test_columns_share_their_draws():
    x = np.random.default_rng(2).random((30, 1))
    values = np.concatenate([x, 2 * x + 1, -x, np.full_like(x, 0.25)], axis=1)
    found = metrics.bootstrap_intervals(values)
    np.testing.assert_allclose(found[1], 2 * found[0] + 1)
    np.testing.assert_allclose(found[2], -found[0][::-1], atol=1e-12)
    np.testing.assert_allclose(found[3], 0.25)
    np.testing.assert_allclose(found[0], metrics.bootstrap_interval(x[:, 0]))


def test_intervals_of_an_entry_are_of_its_objects():
    rng = np.random.default_rng(4)
    ious = [rng.random(rng.integers(1, 7)).tolist() for _ in range(20)]
    result = metrics.numbers(ious, 1.01, 6)
    counts = [naive_clicks(row, 0.85, 6) for row in ious]
    assert result["noc85_interval"] == pytest.approx(naive_bootstrap(counts, 0, 0.95), abs=1e-6)
    third = [row[2] if len(row) > 2 else row[-1] for row in ious]
    assert result["miou_interval"][2] == pytest.approx(naive_bootstrap(third, 0, 0.95), abs=1e-6)
