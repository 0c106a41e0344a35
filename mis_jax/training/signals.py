"""Signals to a training run: stop and save (SIGTERM, a preemption notice), or trace (SIGUSR1)."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils


class Signals:
    """Notices signals while it is entered; the handlers before it come back afterwards."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> "Signals":
        # With several processes SIGTERM is for JAX, which has its own handler.
        wanted = (signal.SIGUSR1, *([signal.SIGTERM] if jax.process_count() == 1 else []))
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for number in wanted:
                self._before[number] = signal.signal(number, lambda n, _: self._seen.add(n))
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def stop(self, step: int) -> bool:
        """Whether to save after this step and stop; processes of one run agree on the step.

        Of a run of several processes, JAX's coordination service carries a SIGTERM or preemption
        notice of any one to all.
        """
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return signal.SIGTERM in self._seen

    def trace(self) -> bool:
        """Whether a trace was asked for since the last call."""
        asked = signal.SIGUSR1 in self._seen
        self._seen.discard(signal.SIGUSR1)
        return asked
