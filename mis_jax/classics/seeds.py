"""What the five methods share: clicks become seeds, seeds become a mask."""

from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np

from mis_jax.errors import InputError
from mis_jax.images import shrink
from mis_jax.predictor import Click, checked_clicks, checked_image, sam_answer

MAX_SIDE = 512  # pixels; longer images are shrunk to it and the mask enlarged, for quick answers
THRESHOLD = 0.5  # probability above which a pixel is object


class SeedPredictor:
    """Answers clicks on one image with a mask; used as `mis_jax.Predictor` is.

    Every click makes seeds of the pixels within `radius`. None of the methods is defined without
    seeds of the background, so until there is a negative click the frame of the image, its
    outermost pixels, stands for them; each method says how. A frame belongs to the background more
    often than not, and to colours its mistakes do little. Without a positive click the mask is
    empty. The answer depends on the clicks only, not on their order, unless two are equally near to
    a pixel: then the later counts.
    """

    radius: ClassVar[int] = 8  # pixels
    constants: ClassVar[tuple[str, ...]] = ()  # the attributes that the masks depend on, further

    def __init__(self) -> None:
        self._image: np.ndarray | None = None
        self._clicks: tuple[Click, ...] = ()

    @property
    def settings(self) -> dict:
        """All that the masks depend on, for the record."""
        names = ("radius", *self.constants)
        return {"max_side": MAX_SIDE} | {name: getattr(self, name) for name in names}

    def set_image(self, image: np.ndarray) -> None:
        """Starts on an image, uint8 RGB [H, W, 3], without clicks."""
        self._image = checked_image(image)
        self._small = shrink(self._image, MAX_SIDE)
        self._prepare(self._small)
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
        """How sure each pixel is the object's, float32 [H, W]; 0 or 1 where the method cuts."""
        return self._probs

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
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The mask for a list of clicks, as `mis_jax.Predictor.predict` gives it.

        Clicks before are forgotten. There is one mask, and none to start from: `mask_input` and
        `multimask_output` are there to be refused.
        """
        if mask_input is not None or multimask_output:
            raise InputError("This predictor takes clicks only, and gives one mask for them.")
        self._set(checked_clicks(point_coords, point_labels, self._shape))
        return sam_answer(self.mask, self._probs)

    @property
    def _shape(self) -> tuple[int, int]:
        if self._image is None:
            raise InputError("set_image has to be called before the first click.")
        return self._image.shape[0], self._image.shape[1]

    def _set(self, clicks: tuple[Click, ...]) -> None:
        height, width = self._shape
        self._clicks = clicks
        if not any(c.positive for c in clicks):
            self._probs = np.zeros((height, width), np.float32)
            return
        h, w = self._small.shape[:2]
        scaled = [(c.row * h / height, c.col * w / width, c.positive) for c in clicks]
        seeds = seed_map(scaled, (h, w), self.radius)
        probs = self._answer(seeds) if (seeds < 0).any() else seeds.astype(np.float32)
        if (h, w) != (height, width):
            probs = cv2.resize(probs, (width, height), interpolation=cv2.INTER_LINEAR)
        self._probs = probs
        for c in clicks:
            self._probs[int(c.row), int(c.col)] = c.positive

    def _prepare(self, image: np.ndarray) -> None:
        """Computes what depends on the image only, uint8 [h, w, 3]."""
        raise NotImplementedError

    def _answer(self, seeds: np.ndarray) -> np.ndarray:
        """Probability of the object, float32 [h, w], for int8 [h, w] of `seed_map`."""
        raise NotImplementedError


def seed_map(
    clicks: Sequence[tuple[float, float, bool]], shape: tuple[int, int], radius: int
) -> np.ndarray:
    """The seeds of clicks (row, col, positive): int8 [h, w], 1 object, 0 background, -1 unknown.

    Where discs overlap, a pixel is the nearest click's, and of equally near ones the last's, so
    every clicked pixel has the label of its click.
    """
    seeds = np.full(shape, -1, np.int8)
    nearest = np.full(shape, radius**2, np.int64)
    rows, cols = np.ogrid[: shape[0], : shape[1]]
    for row, col, positive in clicks:
        top, left = max(int(row) - radius, 0), max(int(col) - radius, 0)
        part = np.s_[top : int(row) + radius + 1, left : int(col) + radius + 1]
        away = (rows[part[0]] - int(row)) ** 2 + (cols[:, part[1]] - int(col)) ** 2
        closer = away <= nearest[part]
        nearest[part][closer] = away[closer]
        seeds[part][closer] = positive
    return seeds


def with_frame(seeds: np.ndarray) -> np.ndarray:
    """The seeds, and the outermost pixels as background where they are not seeds: int8 [h, w]."""
    framed = seeds.copy()
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        framed[edge][seeds[edge] < 0] = 0
    return framed
