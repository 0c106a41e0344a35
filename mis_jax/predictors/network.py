"""Clicks on an image -> a mask: ZoomIn, previous mask and mirrored copy around a click network.

The protocol is that of SimpleClick's evaluation (`isegm/inference/predictors` of its code), number
for number: the network sees a crop around the previous mask (zoom_in.py), stretched to a square.
"""

import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mis_jax.errors import InputError
from mis_jax.predictors import corrected
from mis_jax.predictors.clicks import (
    Click,
    checked_clicks,
    checked_image,
    read_only,
    refuse_box,
    sam_answer,
)
from mis_jax.predictors.torch_arithmetic import resize_align_corners, sigmoid
from mis_jax.predictors.zoom_in import (
    POINT_ROWS,
    Answer,
    Roi,
    crop,
    mirror_points,
    next_roi,
    restore,
    zoomed_points,
)

# (image float32 [B, S, S, 3] in 0..1, previous probabilities float32 [B, S, S], points float64
# [B, 2, 2n, 3]) -> logits [B, S, S]. Points are those of the image and of its mirror image: n
# positive, then n negative rows (row, col, order of the click from 0), padded with -1.
Network = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]
ROWS = 3 * POINT_ROWS  # of each kind, where nobody knows how many clicks there will be


class Predictor:
    """Answers clicks on one image with a mask.

    `Predictor()`, without arguments, opens the model that comes with the package: it gives a
    `CorrectedPredictor`, which is used the same way.

    Args:
        network: answers a batch of one; see `Network`, `plain` and `mirrored`.
        size: side S of the square the network sees, pixels.
        threshold: probability above which a pixel is foreground.
    """

    def __new__(cls, network: Any = None, *settings: Any, **more: Any) -> Any:
        if cls is not Predictor or network is not None or "network" in more:
            return super().__new__(cls)
        if settings or more:
            raise InputError(
                "size and threshold belong to a network; mis_jax.Predictor() alone opens the model "
                "that comes with the package, which has neither."
            )
        return corrected.shipped()

    def __getnewargs__(self) -> tuple:
        return (self.network,)  # else a copy would be made of the model that comes with the package

    def __init__(
        self, network: Network | None = None, size: int = 448, threshold: float = 0.5
    ) -> None:
        assert network is not None  # see __new__
        self.network: Network = network
        self.size, self.threshold = size, threshold
        self._image: np.ndarray | None = None
        self._probs = np.zeros((0, 0), np.float32)
        self._history: list[Answer] = []
        self._crop: tuple[Roi, np.ndarray] | None = None  # what the network saw last

    @classmethod
    def load(
        cls, run_or_file: str | os.PathLike[str]
    ) -> "Predictor | corrected.CorrectedPredictor":
        """The predictor of a training run or a weights file, with the settings it was made with.

        "shipped" is the model that comes with the package; a file or folder of that name, beside
        which the word is refused, is "./shipped". An evidence network gives a `CorrectedPredictor`.
        """
        from mis_jax.models import loading

        config, params = loading.load(run_or_file)
        e, m = config.eval, config.model
        if m.evidence:
            return corrected.CorrectedPredictor(params, m.evidence, m.dtype)
        network = at_any_click(make_network(config, params, e.size, e.flip))
        return cls(network, e.size, e.threshold)

    def set_image(self, image: np.ndarray) -> None:
        """Starts on an image, uint8 RGB [H, W, 3], without clicks; it is copied."""
        self._image = checked_image(image)
        self._crop = None
        self.reset()

    def reset(self) -> None:
        """Forgets the clicks, keeps the image."""
        self._restart(np.zeros(self._shape, np.float32))

    def click(self, x: float, y: float, positive: bool = True) -> np.ndarray:
        """Adds a click at column x, row y and returns the mask, bool [H, W]."""
        self._answer(checked_clicks([(x, y)], [positive], self._shape))
        return self.mask

    def undo(self) -> np.ndarray:
        """Takes the last click (or the last call with a mask) back; the mask before it, [H, W]."""
        if len(self._history) > 1:
            self._history.pop()
            self._probs = restore(self._history[-1], self._shape)
        return self.mask

    @property
    def probabilities(self) -> np.ndarray:
        """Probability of the object at each pixel, float32 [H, W]; 0 outside the region.

        It cannot be written to, and stays as it is at further clicks.
        """
        return read_only(self._probs)

    @property
    def mask(self) -> np.ndarray:
        """The present mask, bool [H, W]."""
        return self._probs > self.threshold

    @property
    def roi(self) -> Roi | None:
        """The region the network last looked at, inclusive; None before the first click."""
        return self._history[-1].roi if self._history else None

    def predict(
        self,
        point_coords: np.ndarray | Sequence,
        point_labels: np.ndarray | Sequence,
        mask_input: np.ndarray | None = None,
        multimask_output: bool = False,
        box: None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The mask for a list of clicks, in the call convention of Segment Anything.

        A list that begins with the clicks already answered adds its new ones, one at a time; any
        other list is answered from the start, one at a time, so the same list gives the same mask.

        Args:
            point_coords: [N, 2], (x, y) in pixels.
            point_labels: [N], 1 object or 0 background.
            mask_input: [H, W] or [1, H, W], a bool mask or logits as this method returns. All the
                clicks are then answered in one pass that starts from this mask.
            multimask_output: must be False; there is one mask.
            box: must be None; boxes are not supported.

        Returns:
            masks bool [1, H, W]; scores float32 [1], the soft IoU of the mask and its
            probabilities, which is no calibrated estimate; logits float32 [1, H, W], within about
            +-16.
        """
        refuse_box(box)
        if multimask_output:
            raise InputError("Clicks give one mask here; call predict with multimask_output=False.")
        clicks = checked_clicks(point_coords, point_labels, self._shape)
        if mask_input is not None:
            self._restart(self._as_probabilities(mask_input))
            self._answer(clicks)
        else:
            done = self._history[-1].clicks
            from_mask = self._history[0].probs.any() or len(self._history) != len(done) + 1
            if from_mask or clicks[: len(done)] != done:
                self.reset()
                done = ()
            for click in clicks[len(done) :]:
                self._answer((click,))
        return sam_answer(self.mask, self._probs)

    @property
    def _shape(self) -> tuple[int, int]:
        if self._image is None:
            raise InputError("Predictor.set_image has to be called before the first click.")
        return self._image.shape[0], self._image.shape[1]

    def _restart(self, probs: np.ndarray) -> None:
        self._probs = probs
        self._history = [Answer((), None, probs)]

    def _as_probabilities(self, mask: np.ndarray) -> np.ndarray:
        mask = np.asarray(mask)
        if mask.shape[-2:] != self._shape or mask.size != math.prod(self._shape):
            raise InputError(
                f"mask_input has the shape {list(mask.shape)}; it has to be {list(self._shape)}, "
                "the image's."
            )
        mask = mask.reshape(self._shape)
        return mask.astype(np.float32) if mask.dtype == bool else sigmoid(mask.astype(np.float32))

    def _answer(self, new: tuple[Click, ...]) -> None:
        """One pass of the network over all clicks, the new ones last."""
        clicks = self._history[-1].clicks + new
        roi = next_roi(self.roi, self._probs, clicks)
        assert self._image is not None  # or there is no `_shape` either
        if self._crop is None or self._crop[0] != roi:
            pixels = crop(self._image, roi).astype(np.float32) / np.float32(255)
            self._crop = (roi, resize_align_corners(pixels, self.size, self.size)[None])
        previous = resize_align_corners(crop(self._probs, roi), self.size, self.size)
        points = zoomed_points(clicks, roi, self.size)
        points = np.stack([points, mirror_points(points, self.size)])
        logits = self.network(self._crop[1], previous[None], points[None])
        probs = sigmoid(np.asarray(logits, np.float32)[0])
        self._history.append(Answer(clicks, roi, probs))
        self._probs = restore(self._history[-1], self._shape)


def make_network(config: Any, params: Any, size: int, flip: bool) -> Network:
    """The compiled SimpleClick of a checkpoint for inputs of size x size pixels.

    With `flip`, logits are averaged with those of the mirrored image.
    """
    return functools.partial(make_program(config, size, flip), params)


def at_any_click(network: Network) -> Network:
    """A network that is asked with as many rows at the first click as at the 72nd of a kind.

    So it is compiled once, at the first click, and no later one waits for that; the rows cost no
    time that can be measured. Evaluation knows how many clicks there will be, and needs fewer rows.
    """

    def answer(image, previous, points):
        halves = points.reshape(*points.shape[:2], 2, -1, points.shape[-1])
        more = -halves.shape[3] % ROWS
        halves = np.pad(halves, [(0, 0)] * 3 + [(0, more), (0, 0)], constant_values=-1)
        return network(image, previous, halves.reshape(*points.shape[:2], -1, points.shape[-1]))

    return answer


def make_program(config: Any, size: int, flip: bool) -> Callable:
    """(params, image, previous, points) -> logits, compiled once for all parameters.

    It computes in float32 unless the config names another type: rounding to bfloat16 moves masks,
    and with them the clicks. On the CPU, objects of a batch are computed one after the other, so
    that each gets the logits that it has alone, to the last bit.
    """
    from mis_jax.models import simpleclick

    m = config.model
    return simpleclick.program(
        variant=m.variant,
        patch=m.patch,
        crop=config.data.crop,
        size=size,
        around=lambda network: _steady(mirrored(network) if flip else plain(network)),
        dtype="float32" if m.dtype == "auto" else m.dtype,
        binary_prev_mask=m.binary_prev_mask,
    )


def _steady(network: Network) -> Network:
    """A network whose digits move as little as the device allows.

    TPUs multiply float32 in three passes of bfloat16 instead of one, and the CPU computes one
    object of a batch after the other.
    """
    import jax

    def answer(*inputs):
        with jax.default_matmul_precision("high"):
            return network(*inputs)

    if jax.default_backend() != "cpu":
        return answer
    one = lambda inputs: answer(*(x[None] for x in inputs))[0]  # noqa: E731
    return lambda *inputs: jax.lax.map(one, inputs)


def plain(network: Callable) -> Network:
    """A network of points [B, 2n, ...] that sees each object once, without its mirror image."""
    return lambda image, previous, points: network(image, previous, points[:, 0])


def mirrored(network: Callable) -> Network:
    """A network of points [B, 2n, ...], its logits averaged with those of the mirror image.

    It sees a batch of 2B, each object before its mirror image (`AddHorizontalFlip` of
    isegm/inference/transforms/flip.py). NumPy and JAX arrays are both welcome.
    """

    def both(image, previous, points):
        xp = points.__array_namespace__()
        size = image.shape[0]

        def pairs(x):
            return xp.stack([x, xp.flip(x, 2)], 1).reshape(2 * size, *x.shape[1:])

        points = points.reshape(2 * size, *points.shape[2:])
        logits = network(pairs(image), pairs(previous), points)
        logits = logits.reshape(size, 2, *logits.shape[1:])
        return (logits[:, 0] + xp.flip(logits[:, 1], 2)) * np.float32(0.5)

    return both
