"""Many objects at once: a thread for each, and their passes through the network in batches."""

import contextlib
import functools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any

import numpy as np

from mis_jax.predictors import Network, zoom_in

Inputs = tuple[np.ndarray, np.ndarray, np.ndarray]


class Batched:
    """A network that threads ask about one object each, and that answers many at once.

    Every pass has the same shape: inputs of other objects, or of the first one again, fill it up.
    A pass begins when as many threads wait as fit, or all that there are. Which objects share it is
    a matter of chance, so an answer has to depend on its own row alone.

    Args:
        network: answers `size` objects at once.
        size: number of objects a pass.
        max_clicks: an object's greatest number of clicks, for the shape of the points.
    """

    def __init__(self, network: Network, size: int, max_clicks: int) -> None:
        self._network, self._size = network, size
        self._rows = zoom_in.POINT_ROWS * math.ceil(max_clicks / zoom_in.POINT_ROWS)
        self._lock = threading.Lock()
        self._waiting: list[tuple[Inputs, Future]] = []
        self._busy = 0  # threads that do not wait for a pass to begin

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """To be entered by a thread for as long as it may ask."""
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            self._move(-1)

    def __call__(self, image: np.ndarray, previous: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Logits float32 [1, S, S] of a batch of one; see `predictors.Network`."""
        answer: Future = Future()
        self._move(-1, ((image, previous, self._padded(points)), answer))
        return answer.result()

    def _move(self, change: int, waiting: tuple[Inputs, Future] | None = None) -> None:
        """Counts a thread that waits, or is gone, and answers those for whom that was enough."""
        with self._lock:
            self._busy += change
            self._waiting += [waiting] if waiting else []
            batch = []
            if len(self._waiting) >= self._size or not self._busy:
                batch, self._waiting = self._waiting[: self._size], self._waiting[self._size :]
            self._busy += len(batch)
        if batch:
            self._answer(batch)

    def _answer(self, batch: Sequence[tuple[Inputs, Future]]) -> None:
        inputs, answers = zip(*batch, strict=True)
        inputs += inputs[:1] * (self._size - len(batch))
        try:
            logits = np.asarray(self._network(*map(np.concatenate, zip(*inputs, strict=True))))
        except BaseException as error:
            for answer in answers:
                answer.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            for k, answer in enumerate(answers):
                answer.set_result(logits[k : k + 1])

    def _padded(self, points: np.ndarray) -> np.ndarray:
        """Points with `_rows` rows of each kind."""
        halves = points.reshape(*points.shape[:2], 2, -1, 3)
        more = self._rows - halves.shape[3]
        if more > 0:
            halves = np.pad(halves, [(0, 0)] * 3 + [(0, more), (0, 0)], constant_values=-1)
        return halves.reshape(*points.shape[:2], -1, 3)


class Clock:
    """Shares the time that passes evenly among the objects in flight."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flying, self._reading, self._last = 0, 0.0, 0.0

    @contextlib.contextmanager
    def share(self) -> Iterator[Callable[[], float]]:
        """In flight while it is entered; gives the seconds of its share so far when called."""
        start = self._tick(1)
        try:
            yield lambda: self._tick(0) - start
        finally:
            self._tick(-1)

    def _tick(self, change: int) -> float:
        with self._lock:
            now = time.perf_counter()
            if self._flying:
                self._reading += (now - self._last) / self._flying
            self._last = now
            self._flying += change
            return self._reading


class Cancelled(Exception):
    """Another object failed, or the evaluation was interrupted."""


def in_flight(
    work: Callable[[Any, Callable[[], None]], Any], items: Sequence, threads: int
) -> Iterator:
    """`work` of each item, by so many threads, in the order in which they end.

    Args:
        work: gets an item, and a function to call now and then, which raises `Cancelled` when the
            work is not wanted any more.

    Raises:
        Whatever the first work that fails does, after the others have stopped.
    """
    stopped = threading.Event()

    def go_on() -> None:
        if stopped.is_set():
            raise Cancelled

    with ThreadPoolExecutor(threads) as pool:
        try:
            futures = [pool.submit(functools.partial(work, item, go_on)) for item in items]
            for future in as_completed(futures):
                yield future.result()
        finally:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
