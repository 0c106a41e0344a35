"""What predictors share whose answer depends on the image and the list of clicks alone."""

import abc
from collections.abc import Sequence

import numpy as np

from mis_jax.errors import InputError
from mis_jax.predictors.clicks import (
    Click,
    checked_clicks,
    checked_image,
    read_only,
    refuse_box,
    sam_answer,
)

THRESHOLD = 0.5  # probability above which a pixel is object


class ClickListPredictor(abc.ABC):
    """Answers clicks on one image with a mask; used as `mis_jax.Predictor` is."""

    def __init__(self) -> None:
        self._image: np.ndarray | None = None
        self._clicks: tuple[Click, ...] = ()

    def set_image(self, image: np.ndarray) -> None:
        """Starts on an image, uint8 RGB [H, W, 3], without clicks; it is copied."""
        self._image = checked_image(image)
        self._prepare(self._image)
        self.reset()

    def reset(self) -> None:
        """Forgets the clicks, keeps the image."""
        self._set(())

    def click(self, x: float, y: float, positive: bool = True) -> np.ndarray:
        """Adds a click at column x, row y and returns the mask, bool [H, W]."""
        self._set(self._clicks + checked_clicks([(x, y)], [positive], self._shape))
        return self.mask

    def undo(self) -> np.ndarray:
        """Takes the last click back; the mask before it, bool [H, W]."""
        self._set(self._clicks[:-1])
        return self.mask

    @property
    def probabilities(self) -> np.ndarray:
        """Probability of the object at each pixel, float32 [H, W]; 0 without clicks.

        It cannot be written to, and stays as it is at further clicks.
        """
        return read_only(self._probs)

    @property
    def mask(self) -> np.ndarray:
        """The present mask, bool [H, W]."""
        return self._probs > THRESHOLD

    def predict(
        self,
        point_coords: np.ndarray | Sequence,
        point_labels: np.ndarray | Sequence,
        mask_input: None = None,
        multimask_output: bool = False,
        box: None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The mask for a list of clicks, as `mis_jax.Predictor.predict` gives it.

        Clicks before are forgotten. There is one mask, and none to start from: `mask_input`,
        `multimask_output` and `box` are there to be refused.
        """
        refuse_box(box)
        if mask_input is not None or multimask_output:
            raise InputError("This predictor takes clicks only, and gives one mask for them.")
        self._set(checked_clicks(point_coords, point_labels, self._shape))
        return sam_answer(self.mask, self._probs)

    @property
    def _shape(self) -> tuple[int, int]:
        if self._image is None:
            name = type(self).__name__
            raise InputError(f"{name}.set_image has to be called before the first click.")
        return self._image.shape[0], self._image.shape[1]

    def _set(self, clicks: tuple[Click, ...]) -> None:
        height, width = self._shape
        self._clicks = clicks
        self._probs = self._answer(clicks) if clicks else np.zeros((height, width), np.float32)
        for c in clicks:
            self._probs[int(c.row), int(c.col)] = c.positive

    @abc.abstractmethod
    def _prepare(self, image: np.ndarray) -> None:
        """Computes what depends on the image only, uint8 [H, W, 3]."""

    @abc.abstractmethod
    def _answer(self, clicks: tuple[Click, ...]) -> np.ndarray:
        """Probability of the object, float32 [H, W], for at least one click."""
