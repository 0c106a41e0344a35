"""Random crop of an image and its proposal: one affine warp, one colour table.

The published chain (isegm/data/base.py of SimpleClick over albumentations 0.5.2) resizes, flips,
turns, shifts, rotates, pads and crops whole images, one step after the other. Here the same
parameters are drawn and composed into one matrix, the mask is cut first, straight from the grid
of patches, and only an accepted crop costs a decoded image. Masks are the same; images are
interpolated once where the chain does it twice, for a resize and again for a rotation.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numba import njit

from mis_jax.errors import InputError
from mis_jax.proposals import nearest_patches

ANGLE = 3.0  # degrees, largest small rotation either way
SHIFT = 0.03  # of the side, largest shift either way
CONTRAST = (-0.15, 0.4)  # range added to a contrast of 1
BRIGHTNESS = (-0.25, 0.25)  # of 255
RGB_SHIFT = 10.0  # grey levels, largest shift of a channel either way
MAX_ROUNDS = 1000  # a proposal that no crop can show must not hang the stream

_DECODE = {  # reading at 1/f of the size, for each f
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


class Place(NamedTuple):
    """One draw of where a crop lies in its resized image."""

    matrix: np.ndarray  # float64 [3, 3], (x, y, 1) of a crop pixel -> (x, y, 1) in that image
    size: tuple[int, int]  # rows and columns of that image
    scale: float  # pixels of that image per pixel of the image as it is stored
    frame: tuple[slice, slice]  # rows and columns of the crop outside of which it is black
    moved: bool  # a shift and rotation let the edges of the image fade to black


class Crop(NamedTuple):
    """One accepted draw: where the crop lies in its image, its mask and its colours."""

    place: Place
    mask: np.ndarray  # uint8 [crop, crop], 1 where the proposal is, 0 also outside the image
    table: np.ndarray  # uint8 [3, 256], the new value of every value of R, G and B


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The distribution of crops; the published one is in `mis_jax.config`.

    Attributes:
        crop: side of the square crop, pixels.
        scale: range of the uniform resize.
        flip: probability of drawing one of the flips up-down, left-right, both.
        flip_vertical: False leaves left-right as the only flip.
        rotate90: probability of drawing a turn by 0, 90, 180 or 270 degrees.
        shift_scale_rotate: probability of a small shift and rotation.
        brightness_contrast: probability of changing both.
        rgb_shift: probability of shifting each channel.
        keep_background: probability of accepting a crop that shows nothing of the proposal.
    """

    crop: int
    scale: tuple[float, float]
    flip: float
    flip_vertical: bool
    rotate90: float
    shift_scale_rotate: float
    brightness_contrast: float
    rgb_shift: float
    keep_background: float

    def draw(self, rng: np.random.Generator, proposal: np.ndarray, height: int, width: int) -> Crop:
        """Draws until the crop shows some of `proposal`, bool [h, w] on the grid of patches.

        `height` and `width` are the image's, in pixels; its colours are not needed yet (`cut`).
        """
        for _ in range(MAX_ROUNDS):
            place = self.draw_place(rng, height, width)
            mask = warp_mask(proposal, place, height, width, self.crop)
            if rng.random() < self.keep_background or mask.any():
                break
        return Crop(place, mask, self.draw_table(rng))

    def draw_first(
        self,
        rng: np.random.Generator,
        sample: Callable[[np.ndarray], np.ndarray],
        grid: tuple[int, int],
        height: int,
        width: int,
    ) -> Crop:
        """Draws the crop before the proposal.

        `sample` gives a proposal, bool [h, w], for the pixels that show each patch of the grid, see
        `seen_patches`.
        """
        place = self.draw_place(rng, height, width)
        proposal = sample(seen_patches(grid, place, height, width, self.crop))
        mask = warp_mask(proposal, place, height, width, self.crop)
        return Crop(place, mask, self.draw_table(rng))

    def draw_place(self, rng: np.random.Generator, height: int, width: int) -> Place:
        """Draws a place in an image of `height` x `width` pixels.

        Every step multiplies its map from output to input pixels on the right, so the product
        takes a pixel of the crop back to one of the resized image.
        """
        scale = rng.uniform(*self.scale)
        size = h, w = max(round(height * scale), 1), max(round(width * scale), 1)
        matrix = np.eye(3)
        if rng.random() < self.flip:
            code = int(rng.integers(-1, 2)) if self.flip_vertical else 1  # 0 up-down, -1 both
            matrix = matrix @ _flip(h, w, up_down=code <= 0, left_right=code != 0)
        if rng.random() < self.rotate90:
            for _ in range(rng.integers(4)):  # quarter turns, counter-clockwise
                matrix = matrix @ np.array([[0, -1, w - 1], [1, 0, 0], [0, 0, 1.0]])
                h, w = w, h
        if moved := rng.random() < self.shift_scale_rotate:
            angle = rng.uniform(-ANGLE, ANGLE)
            forward: np.ndarray = cv2.getRotationMatrix2D((w / 2, h / 2), angle, 1.0)
            forward[:, 2] += rng.uniform(-SHIFT, SHIFT, 2) * (w, h)
            matrix = matrix @ np.vstack([cv2.invertAffineTransform(forward), (0, 0, 1)])
        top, left = (_start(side, self.crop, rng.random()) for side in (h, w))
        matrix = matrix @ np.array([[1, 0, left], [0, 1, top], [0, 0, 1.0]])
        frame = slice(max(-top, 0), h - top), slice(max(-left, 0), w - left)
        return Place(matrix, size, scale, frame, moved)

    def draw_table(self, rng: np.random.Generator) -> np.ndarray:
        """Draws `Crop.table`: brightness and contrast, then a shift of each channel.

        Both steps truncate to uint8, as they do when they pass over the image one by one.
        """
        table = np.arange(256, dtype=np.uint8)
        if rng.random() < self.brightness_contrast:
            alpha, beta = 1 + rng.uniform(*CONTRAST), rng.uniform(*BRIGHTNESS)
            levels = table * np.float32(alpha) + np.float32(beta * 255)
            table = np.clip(levels, 0, 255).astype(np.uint8)
        if rng.random() < self.rgb_shift:
            shift = rng.uniform(-RGB_SHIFT, RGB_SHIFT, (3, 1)).astype(np.float32)
            return np.clip(table + shift, 0, 255).astype(np.uint8)
        return np.tile(table, (3, 1))


def warp_mask(proposal: np.ndarray, place: Place, height: int, width: int, crop: int) -> np.ndarray:
    """Cuts a crop out of `proposal`, bool [h, w] on the grid of patches.

    Equals enlarging it to the image and resizing that by cv2's INTER_NEAREST, then warping with
    INTER_NEAREST and a border of 0, except where a coordinate is a tie. Returns uint8 [crop, crop]
    of 0 and 1.
    """
    mask = np.zeros((crop, crop), np.uint8)
    _look_up(proposal.view(np.uint8), *_tables(proposal.shape, place, height, width), mask)
    _blacken(mask, place.frame)
    return mask


def seen_patches(
    grid: tuple[int, int], place: Place, height: int, width: int, crop: int
) -> np.ndarray:
    """Pixels of a crop that show each patch, int64 [h * w]; `warp_mask` takes the same patches."""
    numbers = np.arange(1, grid[0] * grid[1] + 1, dtype=np.int32).reshape(grid)
    shown = np.zeros((crop, crop), np.int32)
    _look_up(numbers, *_tables(grid, place, height, width), shown)
    _blacken(shown, place.frame)
    return np.bincount(shown.ravel(), minlength=numbers.size + 1)[1:]


def cut(encoded: bytes, crop: Crop, height: int, width: int) -> np.ndarray:
    """Decodes an image and cuts its crop, uint8 [crop, crop, 3] RGB.

    What lies outside the image is black before the colours change, as in the published chain. A
    crop at half the scale or less reads the image at 1/2, 1/4 or 1/8 of its size, which costs less
    and aliases less. Raises `InputError` if `encoded` is no image of `height` x `width`.
    """
    place = crop.place
    reduction = max(f for f in _DECODE if f == 1 or f * place.scale <= 1)
    pixels = _decode(encoded, reduction)
    h, w = pixels.shape[:2]
    if abs(h - height / reduction) >= 1 or abs(w - width / reduction) >= 1:
        raise InputError(f"its image is not of {height} x {width} pixels")
    exact = reduction == 1 or encoded[:2] == b"\xff\xd8"  # a JPEG's last pixel may reach beyond
    to_pixels = _stretch(*[1 / reduction] * 2) if exact else _stretch(w / width, h / height)
    image = np.empty((*crop.mask.shape, 3), np.uint8)
    top, left = (side.start for side in place.frame)
    shown = _warp(pixels, to_pixels @ image_matrix(place, height, width), place, len(image))
    _recolour(shown, crop.table, top, left, image)
    return image


def image_matrix(place: Place, height: int, width: int) -> np.ndarray:
    """float64 [3, 3], (x, y, 1) of a crop pixel -> (x, y, 1) in the image as it is stored."""
    h, w = place.size
    return _stretch(width / w, height / h) @ place.matrix


def _decode(encoded: bytes, reduction: int) -> np.ndarray:
    """Pixels in BGR as they are stored, orientation tags ignored as in `images.decode`."""
    flags = _DECODE[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"its image cannot be decoded ({error.err})") from error
    if pixels is None:
        raise InputError("its image cannot be decoded")
    return pixels


def _warp(pixels: np.ndarray, matrix: np.ndarray, place: Place, crop: int) -> np.ndarray:
    """The part of a crop within its frame, BGRA; `matrix` takes (x, y, 1) of the crop to pixels.

    Only what the crop shows is touched. cv2 warps four channels in two thirds of the time of three.
    """
    (top, bottom), (left, right) = ((side.start, min(side.stop, crop)) for side in place.frame)
    matrix = matrix @ np.array([[1, 0, left], [0, 1, top], [0, 0, 1.0]])
    far = right - left - 1, bottom - top - 1
    corners = matrix[:2] @ np.array([[0, far[0], 0, far[0]], [0, 0, far[1], far[1]], [1] * 4])
    sides = pixels.shape[1::-1]
    x, y = np.clip(np.floor(corners.min(1)).astype(int) - 1, 0, np.subtract(sides, 1))
    end = np.clip(np.floor(corners.max(1)).astype(int) + 3, (x + 1, y + 1), sides)
    matrix[:2, 2] -= x, y
    part = cv2.cvtColor(pixels[y : end[1], x : end[0]], cv2.COLOR_BGR2BGRA)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_CONSTANT if place.moved else cv2.BORDER_REPLICATE
    size = right - left, bottom - top
    return cv2.warpAffine(part, matrix[:2], size, flags=flags, borderMode=border)


def _stretch(x: float, y: float) -> np.ndarray:
    """Multiplies positions by (x, y), where pixel i is the interval [i, i + 1) as in cv2.resize."""
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def _flip(height: int, width: int, *, up_down: bool, left_right: bool) -> np.ndarray:
    x, y = (-1 if left_right else 1), (-1 if up_down else 1)
    right, bottom = (width - 1 if left_right else 0), (height - 1 if up_down else 0)
    return np.array([[x, 0, right], [0, y, bottom], [0, 0, 1.0]])


def _start(side: int, crop: int, u: float) -> int:
    """First pixel of the crop along a side that is padded on both ends if it is too short."""
    return int((side - crop) * u) if side >= crop else -((crop - side) // 2)


def _blacken(image: np.ndarray, frame: tuple[slice, slice]) -> None:
    """Sets what is outside the frame to 0, in place."""
    rows, cols = frame
    image[: rows.start] = image[rows.stop :] = 0
    image[:, : cols.start] = image[:, cols.stop :] = 0


def _tables(grid: tuple[int, int], place: Place, height: int, width: int) -> tuple:
    """What `_look_up` needs of a place: rows, columns, matrix."""
    rows = _patches(grid[0], height, place.size[0])
    return rows, _patches(grid[1], width, place.size[1]), place.matrix


@functools.lru_cache(maxsize=1024)
def _patches(patches: int, pixels: int, resized: int) -> np.ndarray:
    """Patch of pixels -1..resized along a side, uint32, by the rule of cv2's INTER_NEAREST.

    From the patches to the image's pixels, and from these to the resized image's. The pixel before
    and the one after the image are for coordinates that round to either side.
    """
    nearest = nearest_patches(patches, pixels)[nearest_patches(pixels, resized)]
    return np.concatenate([nearest[:1], nearest, nearest[-1:]]).astype(np.uint32)


@njit(nogil=True, cache=True)
def _look_up(
    proposal: np.ndarray, rows: np.ndarray, cols: np.ndarray, matrix: np.ndarray, out: np.ndarray
) -> None:
    """Writes the proposal at the pixel nearest to matrix @ (x, y, 1) into out[y, x].

    Each row first finds the part of it that lies in the image, then walks there in steps of
    2**-32 pixels, which is twice as fast as floating point with a test at every pixel. Unsigned
    indices spare a test for negative ones.
    """
    unit, shift = 2.0**32, np.uint64(32)
    right = np.uint64(np.int64(matrix[0, 0] * unit))
    down = np.uint64(np.int64(matrix[1, 0] * unit))
    for y in range(out.shape[0]):
        u = matrix[0, 1] * y + matrix[0, 2] + 0.5
        v = matrix[1, 1] * y + matrix[1, 2] + 0.5
        first, last = _inside(matrix[0, 0], u, len(cols) - 2, 0.0, float(out.shape[1]))
        first, last = _inside(matrix[1, 0], v, len(rows) - 2, first, last)
        col = np.uint64(np.int64((u + matrix[0, 0] * first + 1) * unit))
        row = np.uint64(np.int64((v + matrix[1, 0] * first + 1) * unit))
        for x in range(np.uint64(first), np.uint64(last)):
            out[y, x] = proposal[rows[row >> shift], cols[col >> shift]]
            col += right
            row += down


@njit(nogil=True, cache=True)
def _inside(slope: float, start: float, size: int, first: float, last: float) -> tuple:
    """The part of first..last - 1 where 0 <= slope * x + start < size."""
    if abs(slope) < 1e-9:
        return (first, last) if 0 <= start < size else (first, first)
    a, b = -start / slope, (size - start) / slope
    return max(first, np.ceil(min(a, b))), min(last, np.ceil(max(a, b)))


@njit(nogil=True, cache=True)
def _recolour(shown: np.ndarray, table: np.ndarray, top: int, left: int, image: np.ndarray) -> None:
    """Writes BGRA pixels into an RGB image from (top, left) on, black around, through the table."""
    height, width = shown.shape[:2]
    red, green, blue = table
    for y in range(image.shape[0]):
        if not top <= y < top + height:
            _fill(image[y], table)
            continue
        _fill(image[y, :left], table)
        _fill(image[y, left + width :], table)
        source, target = shown[y - top], image[y, left : left + width]
        for x in range(width):
            target[x, 0] = red[source[x, 2]]
            target[x, 1] = green[source[x, 1]]
            target[x, 2] = blue[source[x, 0]]


@njit(nogil=True, cache=True)
def _fill(pixels: np.ndarray, table: np.ndarray) -> None:
    """Sets pixels [n, 3] to what the table makes of black."""
    for x in range(len(pixels)):
        for c in range(3):
            pixels[x, c] = table[c, 0]
