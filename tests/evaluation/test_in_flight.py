"""Batches that threads fill together, the clock they share, and work that fails or is cancelled."""

import threading
import time

import numpy as np
import pytest

from mis_jax.evaluation import in_flight as lib


class Counting:
    """A network whose logits tell which inputs a row had; keeps the shapes of its passes."""

    def __init__(self, wait=0.0):
        self.shapes, self.lock, self.wait = [], threading.Lock(), wait

    def __call__(self, image, previous, points):
        with self.lock:
            self.shapes.append((len(image), points.shape))
        time.sleep(self.wait)
        return image[..., 0] + 10 * previous + 100 * points[:, 0, 0, 0][:, None, None]


def inputs(k, rows=48):
    points = np.full((1, 2, rows, 3), -1.0)
    points[:, :, 0, 0] = k
    return np.full((1, 4, 4, 3), k, np.float32), np.full((1, 4, 4), k, np.float32), points


def ask(batched, k, passes):
    with batched.asking():
        return [batched(*inputs(100 * k + i)).max() for i in range(passes)]


@pytest.mark.parametrize("threads", [1, 3, 8, 20])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_each_thread_gets_its_own_answers(threads, size):
    network = Counting(0.001)
    batched = lib.Batched(network, size, 20)
    passes = np.random.default_rng(threads).integers(0, 6, 30)  # uneven, some with none
    work = lambda k, go_on: (k, ask(batched, k, passes[k]))  # noqa: E731
    answers = dict(lib.in_flight(work, range(30), threads))
    for k in range(30):
        assert answers[k] == [111 * (100 * k + i) for i in range(passes[k])]
    assert set(network.shapes) == {(size, (size, 2, 48, 3))}  # one shape, so one compilation
    if threads >= 2 * size > 2:
        assert len(network.shapes) < 0.8 * passes.sum()


def test_points_of_many_clicks_have_one_shape_too():
    network = Counting()
    batched = lib.Batched(network, 1, 25)
    with batched.asking():
        batched(*inputs(1, 48))
        batched(*inputs(1, 96))
    assert set(network.shapes) == {(1, (1, 2, 96, 3))}


def test_padding_keeps_points_in_their_halves():
    seen = []

    def network(image, previous, points):
        seen.append(points)
        return previous

    points = np.full((1, 2, 48, 3), -1.0)
    points[0, :, 24:26] = 7  # the first negative clicks
    with (batched := lib.Batched(network, 1, 40)).asking():
        batched(*inputs(0)[:2], points)
    assert (seen[0][0, :, 48:50] == 7).all()
    assert (seen[0] == 7).sum() == 2 * 2 * 3


def test_a_failing_network_fails_every_object_and_hangs_none():
    def network(*_):
        raise MemoryError("no room")

    batched = lib.Batched(network, 4, 20)
    with pytest.raises(MemoryError, match="no room"):
        list(lib.in_flight(lambda k, go_on: ask(batched, k, 2), range(20), 6))


def test_other_work_stops_soon_after_one_failed():
    started, ended = [], []

    def work(k, go_on):
        started.append(k)
        if k == 2:
            raise ValueError("two")
        for _ in range(1000):
            time.sleep(0.005)
            go_on()
        ended.append(k)

    with pytest.raises(ValueError, match="two"):
        list(lib.in_flight(work, range(100), 3))
    assert not ended
    assert len(started) <= 5


def test_the_clock_shares_the_time_among_those_in_flight(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(lib.time, "perf_counter", lambda: now[0])
    clock = lib.Clock()
    with clock.share() as first:
        now[0] += 1  # alone
        with clock.share() as second:
            now[0] += 4  # two
            assert second() == 2
        assert first() == 3
        now[0] += 10
        assert first() == 13
    now[0] += 50  # nobody
    with clock.share() as third:
        now[0] += 7
        assert third() == 7
