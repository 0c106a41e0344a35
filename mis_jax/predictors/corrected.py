"""Clicks on an image -> a mask: the fused predictor's answer, corrected by a trained network.

Everything about clicks and views is as in fused.py; only what the cut of the evidence says of each
cell is corrected by the network (models/correction.py), which sees it with the evidence and the
image (maps.py). An untrained one leaves it as it is, but for roundings.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit

from mis_jax.predictors import maps
from mis_jax.predictors.evidence import Answered, Channels, Ground
from mis_jax.predictors.fused import Answer, FusedPredictor

QUANTUM = 32  # cells, of which sides are padded to a multiple: images of like sizes share a program


class CorrectedPredictor(FusedPredictor):
    """Answers clicks on one image with a mask; used as `mis_jax.Predictor` is.

    `Predictor.load` gives that of a run or file, `Predictor()` and `shipped()` the one that comes
    with the package.

    Args:
        params: of the network, nested dict.
        width: `config.model.evidence`.
        dtype: in which it computes, `config.model.dtype`; auto: float32, as rounding moves masks.
    """

    def __init__(self, params: Any, width: int, dtype: str = "auto") -> None:
        super().__init__()
        self._dtype = "float32" if dtype == "auto" else dtype
        self._params, self._width = params, width
        self._program = _program(width, self._dtype)

    @property
    def settings(self) -> dict:
        """All that the masks depend on, for the record; with a digest of the parameters."""
        from mis_jax.models import loading

        own = {"width": self._width, "dtype": self._dtype, "points": maps.POINTS}
        return {**super().settings, **own, "parameters": loading.digest(self._params)}

    def _answers(self, ground: Ground) -> Answer:
        (look, answer), cuts = self._program, super()._answers(ground)
        height, width = ground.grid
        size = tuple(-(-side // QUANTUM) * QUANTUM for side in ground.grid)
        inside = _padded(np.ones(ground.grid, np.float32), size)[None]
        looked = look(self._params, _padded(maps.picture(ground), size)[None], inside)

        def corrected(answered: Sequence[Answered], channels: Channels) -> np.ndarray:
            said = _padded(maps.said(channels, cuts(answered, channels)), size)
            points = maps.points(ground, answered)
            odds = answer(self._params, looked, said[None, None], points[None, None], inside)
            return expit(np.asarray(odds[0, 0, :height, :width]))

        return corrected


def shipped() -> CorrectedPredictor:
    """With the model that comes with the package, `mis_jax/models/shipped.safetensors`."""
    config, params = _shipped()
    return CorrectedPredictor(params, config.model.evidence, config.model.dtype)


@functools.lru_cache(maxsize=1)
def _shipped() -> tuple[Any, Any]:
    from mis_jax.models import loading

    return loading.load(loading.SHIPPED_FILE)


@functools.lru_cache(maxsize=4)
def _program(width: int, dtype: str) -> tuple[Any, Any]:
    import jax

    from mis_jax.models import correction

    def steady(function):
        def answer(*inputs):
            with jax.default_matmul_precision("high"):  # as of network.py
                return function(*inputs)

        return jax.jit(answer)

    look, answer = correction.program(width, dtype)
    return steady(look), steady(answer)


def _padded(x: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """[h, w, ...] with zeros at the right and below."""
    more = [(0, s - n) for s, n in zip(size, x.shape, strict=False)]
    return np.pad(x, more + [(0, 0)] * (x.ndim - 2))
