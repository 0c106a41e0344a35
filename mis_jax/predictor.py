"""Clicks on an image -> a mask: ZoomIn, previous mask and mirrored copy around a click network.

The protocol is that of SimpleClick's evaluation (`isegm/inference/predictors` and `transforms` of
its code), number for number: the network sees a crop around the previous mask, stretched to a
square, and the crop moves only when a positive click falls outside or the mask has outgrown it.
"""

import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from mis_jax.errors import InputError

POINT_ROWS = 24  # of each kind; more clicks than that take the next multiple
ZOOM_THRESHOLD = 0.5  # probability above which ZoomIn sees the object, whatever the mask's is
EXPANSION = 1.4
MIN_CROP = 200  # pixels
RECOMPUTE_IOU = 0.5

Roi = tuple[int, int, int, int]  # first row, last row, first column, last column, all inclusive
# (image float32 [B, S, S, 3] in 0..1, previous probabilities float32 [B, S, S], points float64
# [B, 2, 2n, 3]) -> logits [B, S, S]. Points are those of the image and of its mirror image: n
# positive, then n negative rows (row, col, order of the click from 0), padded with -1.
Network = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]


@dataclasses.dataclass(frozen=True)
class Click:
    """One click at (row, col) in pixels, fractions allowed."""

    row: float
    col: float
    positive: bool


@dataclasses.dataclass(frozen=True)
class Answer:
    """What is known after some clicks: the region the network saw and its probabilities there.

    `probs` is float32 [S, S] of the square the region was stretched to; with `roi` None it is the
    whole image [H, W], as before the first click.
    """

    clicks: tuple[Click, ...]
    roi: Roi | None
    probs: np.ndarray


class Predictor:
    """Answers clicks on one image with a mask.

    Args:
        network: answers a batch of one; see `Network`, `plain` and `mirrored`.
        size: side S of the square the network sees, pixels.
        threshold: probability above which a pixel is foreground.
    """

    def __init__(self, network: Network, size: int = 448, threshold: float = 0.5) -> None:
        self.network, self.size, self.threshold = network, size, threshold
        self._image: np.ndarray | None = None
        self._probs = np.zeros((0, 0), np.float32)
        self._history: list[Answer] = []
        self._crop: tuple[Roi | None, np.ndarray | None] = (None, None)

    @classmethod
    def load(cls, run_or_file: str | os.PathLike[str]) -> "Predictor":
        """The predictor of a training run or a weights file, with the settings it was made with."""
        from mis_jax import checkpoint

        config, params = checkpoint.load(pathlib.Path(run_or_file))
        e = config.eval
        return cls(make_network(config, params, e.size, e.flip), e.size, e.threshold)

    def set_image(self, image: np.ndarray) -> None:
        """Starts on an image, uint8 RGB [H, W, 3], without clicks."""
        self._image = checked_image(image)
        self._crop = (None, None)
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
        """Probability of the object at each pixel, float32 [H, W]; 0 outside the region."""
        return self._probs

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

        Returns:
            masks bool [1, H, W]; scores float32 [1], the soft IoU of the mask and its
            probabilities, which is no calibrated estimate; logits float32 [1, H, W], within about
            +-16.
        """
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
        if self._crop[0] != roi:
            pixels = crop(self._image, roi).astype(np.float32) / np.float32(255)
            self._crop = (roi, resize_align_corners(pixels, self.size, self.size)[None])
        previous = resize_align_corners(crop(self._probs, roi), self.size, self.size)
        points = zoomed_points(clicks, roi, self.size)
        points = np.stack([points, mirror_points(points, self.size)])
        logits = self.network(self._crop[1], previous[None], points[None])
        probs = sigmoid(np.asarray(logits, np.float32)[0])
        self._history.append(Answer(clicks, roi, probs))
        self._probs = restore(self._history[-1], self._shape)


def checked_image(image: np.ndarray) -> np.ndarray:
    """The image, if it is uint8 RGB [H, W, 3]; else `InputError` says so."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(
            f"set_image needs a uint8 RGB image [H, W, 3], not {image.dtype} "
            f"{list(image.shape)}; mis_jax.images.read_image gives one."
        )
    return image


def checked_clicks(
    coords: np.ndarray | Sequence, labels: np.ndarray | Sequence, shape: tuple[int, int]
) -> tuple[Click, ...]:
    """Clicks of (x, y) [N, 2] and labels [N] on an image of shape (H, W); `InputError` if wrong."""
    height, width = shape
    coords, labels = np.asarray(coords, np.float64), np.asarray(labels)
    if coords.ndim != 2 or coords.shape[1] != 2 or labels.shape != (len(coords),):
        raise InputError(
            f"Clicks are point_coords [N, 2] and point_labels [N], not {list(coords.shape)} "
            f"and {list(labels.shape)}."
        )
    if not len(coords) or any(label not in (0, 1) for label in labels.tolist()):
        raise InputError("At least one click is needed, with labels 1 (object) or 0 (not).")
    if not ((coords >= 0) & (coords < (width, height))).all():
        raise InputError(f"A click lies outside the image of {width} x {height} pixels (x, y).")
    pairs = zip(coords.tolist(), labels.tolist(), strict=True)
    return tuple(Click(y, x, bool(label)) for (x, y), label in pairs)


def sam_answer(mask: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `Predictor.predict` returns, of a mask bool [H, W] and probabilities float32 [H, W]."""
    probs = np.clip(probs, 1e-7, 1 - 1e-7)
    score = (probs * mask).sum() / np.maximum(probs, mask).sum()
    logits = np.log(probs) - np.log1p(-probs)
    return mask[None], np.float32(score)[None], logits[None]


def make_network(config: Any, params: Any, size: int, flip: bool) -> Network:
    """The compiled SimpleClick of a checkpoint for inputs of size x size pixels.

    With `flip`, logits are averaged with those of the mirrored image.
    """
    return functools.partial(make_program(config, size, flip), params)


def make_program(config: Any, size: int, flip: bool) -> Callable:
    """(params, image, previous, points) -> logits, compiled once for all parameters.

    It computes in float32 unless the config names another type: rounding to bfloat16 moves masks,
    and with them the clicks. On the CPU, objects of a batch are computed one after the other, so
    that each gets the logits that it has alone, to the last bit.
    """
    from mis_jax import simpleclick

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


def resize_align_corners(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize of float32 [h, w] or [h, w, C] that keeps the corner pixels' centres.

    The arithmetic of PyTorch's CPU kernel (mode='bilinear', align_corners=True), bit for bit on
    processors with AVX2: float32 positions, columns before rows, fused multiply-add. Only where
    height + width is at most 128, PyTorch takes another kernel, whose last bits are different.
    """
    if x.shape[:2] == (height, width):
        return x
    channels = math.prod(x.shape[2:])  # as columns of their own
    rows = np.ascontiguousarray(x).reshape(len(x), -1)  # one compiled version
    left, right, along = _taps(x.shape[1], width)
    spread = lambda k: (k[:, None] * channels + np.arange(channels)).ravel()  # noqa: E731
    columns = spread(left), spread(right), along.repeat(channels)
    return _resize(rows, *_taps(len(x), height), *columns).reshape(height, width, *x.shape[2:])


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) of float32 [H, W], within 0.51 units in the last place."""
    return _sigmoid(np.ascontiguousarray(x).ravel()).reshape(x.shape)


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _sigmoid(x):
    out = np.empty_like(x)
    for k in range(x.size):
        t = np.float64(x[k])
        t = 104.0 if t > 104.0 else t  # beyond, float32 has nothing but 0 and 1
        t = -104.0 if t < -104.0 else t
        t *= -1 / 256
        e = 1 / 720 + t * (1 / 5040 + t * (1 / 40320 + t / 362880))  # exp(t), by Taylor
        e = 1 / 6 + t * (1 / 24 + t * (1 / 120 + t * e))
        e = 1 + t * (1 + t * (1 / 2 + t * e))
        for _ in range(8):
            e *= e
        out[k] = 1 / (1 + e)
    return out


@intrinsic
def _fma(context, a, b, c):
    """a * b + c, rounded once: float32."""
    signature = types.float32(types.float32, types.float32, types.float32)
    return signature, lambda context, builder, signature, args: builder.fma(*args)


@njit(nogil=True, cache=True)
def _resize(x, above, below, down, left, right, along):
    one = np.float32(1)
    wide = np.empty((x.shape[0], left.size), np.float32)
    for row in range(x.shape[0]):
        for k in range(left.size):
            t = along[k]
            wide[row, k] = _fma(x[row, left[k]], one - t, x[row, right[k]] * t)
    out = np.empty((above.size, left.size), np.float32)
    for k in range(above.size):
        t = down[k]
        first, second = wide[above[k]], wide[below[k]]
        for col in range(left.size):
            out[k, col] = _fma(first[col], one - t, second[col] * t)
    return out


def _taps(n: int, out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two source positions of each of `out` samples of an axis, and the second one's weight."""
    at = np.float32(n - 1) / np.float32(max(out - 1, 1)) * np.arange(out, dtype=np.float32)
    first = np.minimum(at.astype(np.int64), n - 1)
    return first, np.minimum(first + 1, n - 1), at - first.astype(np.float32)


def next_roi(roi: Roi | None, probs: np.ndarray, clicks: Sequence[Click]) -> Roi:
    """ZoomIn's region for the next pass.

    Args:
        roi: the region of the pass before, None at the first.
        probs: float32 [H, W], the probabilities so far.
        clicks: all of them, the new ones included.
    """
    height, width = probs.shape
    candidate = (0, height - 1, 0, width - 1)
    box = bounds(probs > ZOOM_THRESHOLD)
    if box:
        inside = [(int(c.row), int(c.col)) for c in clicks if c.positive]
        rows, cols = [r for r, _ in inside], [c for _, c in inside]
        rows, cols = [box[0], box[1], *rows], [box[2], box[3], *cols]
        box = expand_bbox((min(rows), max(rows), min(cols), max(cols)))
        candidate = clamp_bbox(box, height, width)
    keep = roi and not _leaves(roi, clicks) and bbox_iou(candidate, roi) >= RECOMPUTE_IOU
    return roi if keep else candidate


def bounds(mask: np.ndarray) -> Roi | None:
    """The smallest region that holds every True of [H, W], None where there is none."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    cols = np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]), int(cols[0]), int(cols[-1])


def _leaves(roi: Roi, clicks: Sequence[Click]) -> bool:
    """Whether a positive click lies outside; the last row and column count as outside.

    `>=` on inclusive bounds is an oddity of the published code that its numbers come with.
    """
    return any(
        c.positive and (c.row < roi[0] or c.row >= roi[1] or c.col < roi[2] or c.col >= roi[3])
        for c in clicks
    )


def expand_bbox(box: Roi) -> Roi:
    """The box 1.4 times larger around its centre, at least 200 pixels a side."""
    ends = []
    for first, last in (box[:2], box[2:]):
        centre = 0.5 * (first + last)
        extent = max(EXPANSION * (last - first + 1), MIN_CROP)
        ends += [round(centre - 0.5 * extent), round(centre + 0.5 * extent)]
    return tuple(ends)


def clamp_bbox(box: Roi, height: int, width: int) -> Roi:
    """The part of the box inside an image of height x width."""
    return max(0, box[0]), min(height - 1, box[1]), max(0, box[2]), min(width - 1, box[3])


def bbox_iou(a: Roi, b: Roi) -> float:
    """The product of the IoUs of the rows and of the columns, each over their common hull."""
    rows = _segment_iou(a[:2], b[:2])
    return rows * _segment_iou(a[2:], b[2:])


def _segment_iou(a: tuple[int, int], b: tuple[int, int]) -> float:
    inner = max(0, min(a[1], b[1]) - max(a[0], b[0]) + 1)
    return inner / max(1e-6, max(a[1], b[1]) - min(a[0], b[0]) + 1)


def crop(x: np.ndarray, roi: Roi) -> np.ndarray:
    """The inclusive region of [H, W, ...], as a view."""
    return x[roi[0] : roi[1] + 1, roi[2] : roi[3] + 1]


def zoomed_points(clicks: Sequence[Click], roi: Roi, size: int) -> np.ndarray:
    """Points float64 [2n, 3] of the clicks in the region stretched to size x size.

    Coordinates are not rounded and may lie outside the square. n is a multiple of 24, so that
    a compiled network meets one shape.
    """
    height, width = roi[1] - roi[0] + 1, roi[3] - roi[2] + 1
    kinds = [[], []]
    for order, c in enumerate(clicks):
        row, col = size * (c.row - roi[0]) / height, size * (c.col - roi[2]) / width
        kinds[not c.positive].append((row, col, order))
    n = POINT_ROWS * max(1, math.ceil(max(map(len, kinds)) / POINT_ROWS))
    points = np.full((2, n, 3), -1.0)
    for half, rows in zip(points, kinds, strict=True):
        if rows:
            half[: len(rows)] = rows
    return points.reshape(2 * n, 3)


def mirror_points(points: np.ndarray, size: int) -> np.ndarray:
    """The points [2n, 3] of `zoomed_points` on the mirror image."""
    mirrored, real = points.copy(), points[:, 2] >= 0
    mirrored[real, 1] = size - points[real, 1] - 1
    return mirrored


def restore(answer: Answer, shape: tuple[int, int]) -> np.ndarray:
    """Probabilities float32 [H, W] of the whole image; 0 outside the region."""
    if answer.roi is None:
        return answer.probs
    top, bottom, left, right = answer.roi
    probs = resize_align_corners(answer.probs, bottom - top + 1, right - left + 1)
    full = np.zeros(shape, np.float32)
    full[top : bottom + 1, left : right + 1] = probs
    return full
