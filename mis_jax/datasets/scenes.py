"""Made-up scenes with exact masks: textured objects that occlude each other, to measure offline.

A scene is drawn in CIE Lab from one random generator: a textured background, then a few objects of
random smooth shapes, back to front, each with its own textures, shading and a soft shadow. The
target is the visible part of one object; the others are distractors.
"""

from pathlib import Path

import cv2
import numpy as np

from mis_jax.errors import InputError

TARGET_AREA = (0.05, 0.45)  # visible part of the target, fraction of the image
CONNECTED = 0.9  # at least this fraction of the visible target is one piece
MIN_SIDE = 32  # pixels; anything smaller has no room for an object


def make_scene(
    rng: np.random.Generator, size: tuple[int, int] = (240, 320)
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one scene; the same generator state gives the same scene.

    Returns the image, uint8 [H, W, 3] RGB, and the target's visible part, uint8 [H, W] of 0 and 1.
    Raises `ValueError` for a side under 32 pixels.
    """
    if min(size) < MIN_SIDE:
        raise ValueError(f"a scene needs sides of at least {MIN_SIDE} pixels, got {size}")
    alphas, mask = _layout(rng, size)
    base = _colour(rng)
    lab = _texture(rng, size, base)
    bases = [base]
    for alpha in alphas:
        similar = rng.random() < 0.2  # the colour of something already there, only a little off
        base = bases[rng.integers(len(bases))] + rng.normal(0, 6, 3) if similar else _colour(rng)
        bases.append(base)
        _paint(rng, lab, alpha, base)
    lab[..., 0] += 10 * _ramp(rng, size)  # uneven light over everything
    return _develop(rng, lab), mask


def write_benchmark(
    folder: str | Path, count: int, seed: int = 0, size: tuple[int, int] = (240, 320)
) -> None:
    """Writes `count` scenes as images/NAME.png and masks/NAME.png (0 and 255) under `folder`.

    Scene k depends on (seed, k) and the size only. Raises `InputError` if a file cannot be written.
    """
    folder = Path(folder)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image, mask = make_scene(np.random.default_rng([seed, index]), size)
        name = f"scene_{index:05d}.png"
        for part, pixels in ("images", image[..., ::-1]), ("masks", mask * np.uint8(255)):
            if not cv2.imwrite(str(folder / part / name), pixels):
                raise InputError(f"cannot write {folder / part / name}: check space and permission")


def _layout(rng: np.random.Generator, size: tuple[int, int]) -> tuple[list[np.ndarray], np.ndarray]:
    """Alphas of the objects, back to front, and a target among them that meets the limits above."""
    while True:
        shapes = (_shape(rng, size) for _ in range(rng.integers(2, 6)))
        alphas = [alpha for alpha in shapes if alpha.any()]  # a sliver may vanish
        hidden = np.zeros(size, bool)
        candidates = []
        for alpha in reversed(alphas):
            visible = ((alpha > 0.5) & ~hidden).astype(np.uint8)
            hidden |= alpha > 0.5
            area = int(visible.sum())
            if TARGET_AREA[0] <= area / visible.size <= TARGET_AREA[1]:
                pieces = cv2.connectedComponentsWithStats(visible, connectivity=4)[2]
                if pieces[1:, cv2.CC_STAT_AREA].max() >= CONNECTED * area:
                    candidates.append(visible)
        if candidates and hidden.mean() < 0.8:
            return alphas, candidates[rng.integers(len(candidates))]


def _shape(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Coverage of one random object, float32 [H, W] in 0..1 with a soft edge."""
    height, width = size
    centre = np.array([width, height]) * rng.uniform(0.15, 0.85, 2)
    radius = np.sqrt(height * width) * rng.uniform(0.14, 0.38)
    canvas = np.zeros((2 * height, 2 * width), np.uint8)  # drawn at twice the size, then averaged
    kind = rng.choice(["blob", "polygon", "creature", "band"], p=[0.35, 0.25, 0.25, 0.15])
    if kind in ("blob", "creature"):
        _fill(canvas, centre + _blob(rng, radius * (0.7 if kind == "creature" else 1.0)))
    if kind == "polygon":
        corners = rng.integers(3, 8)
        angles = (np.arange(corners) + rng.uniform(-0.35, 0.35, corners)) * 2 * np.pi / corners
        outline = radius * rng.uniform(0.7, 1.2, (corners, 1)) * _circle(angles)
        _fill(canvas, centre + outline @ _skew(rng))
        canvas = np.uint8(255) * (cv2.stackBlur(canvas, 2 * (2 * round(radius / 8) + 1,)) > 127)
    if kind == "creature":  # a body with limbs
        for angle in rng.uniform(0, 2 * np.pi, rng.integers(2, 6)):
            _stroke(rng, canvas, centre, angle, 1.5 * radius, 0.17 * radius)
    if kind == "band":
        angle = rng.uniform(0, 2 * np.pi)
        for turn in (0, np.pi):
            _stroke(rng, canvas, centre, angle + turn, 1.6 * radius, 0.3 * radius)
    alpha = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.4, 1.0)).astype(np.float32) / 255


def _blob(rng: np.random.Generator, radius: float) -> np.ndarray:
    """Closed curve whose radius is a short Fourier series of the angle, float64 [180, 2] (x, y)."""
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    order = np.arange(2, 8)[:, None]
    amplitude = rng.normal(0, 0.35, (6, 1)) / order
    series = (amplitude * np.cos(order * angles + rng.uniform(0, 2 * np.pi, (6, 1)))).sum(0)
    return (radius * np.maximum(1 + series, 0.25))[:, None] * _circle(angles) @ _skew(rng)


def _stroke(
    rng: np.random.Generator,
    canvas: np.ndarray,
    start: np.ndarray,
    angle: float,
    length: float,
    thickness: float,
) -> None:
    """Draws a bent, tapering limb that begins at `start` (x, y) into the double-size canvas."""
    along = np.linspace(0, 1, 24)[:, None]
    direction, side = _circle(np.array([angle, angle + np.pi / 2]))
    points = start + length * (along * direction + rng.normal(0, 0.3) * along**2 * side)
    for point, share in zip(points, along[:, 0], strict=True):
        centre = np.round(2 * point).astype(int).tolist()
        cv2.circle(canvas, centre, max(2, round(2 * thickness * (1 - 0.5 * share))), 255, -1)


def _fill(canvas: np.ndarray, points: np.ndarray) -> None:
    """Fills the polygon `points` (x, y in image pixels) in the double-size canvas."""
    cv2.fillPoly(canvas, [np.round(2 * points).astype(np.int32)], 255)


def _circle(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _skew(rng: np.random.Generator) -> np.ndarray:
    """Random elongation along a random direction that keeps areas, float64 [2, 2]."""
    axes = _circle(rng.uniform(0, 2 * np.pi) + np.array([0, np.pi / 2]))
    stretch = np.exp(rng.normal(0, 0.25))
    return axes.T @ np.diag([stretch, 1 / stretch]) @ axes


def _colour(rng: np.random.Generator) -> np.ndarray:
    """A Lab colour of the muted, slightly warm kind that fills photographs."""
    return np.array([rng.uniform(22, 82), rng.normal(2, 13), rng.normal(7, 18)])


def _paint(rng: np.random.Generator, lab: np.ndarray, alpha: np.ndarray, base: np.ndarray) -> None:
    """Draws one object into `lab` [H, W, 3] in place: its shadow, one or two textures, shading."""
    height, width = alpha.shape
    wide = cv2.blur(alpha, (2 * (width // 16) + 1, 2 * (height // 16) + 1))
    (dx, dy), depth = rng.uniform(-0.03, 0.03, 2) * height, rng.uniform(0, 16)
    lab[..., 0] -= depth * cv2.warpAffine(wide, np.array([[1, 0, dx], [0, 1, dy]]), (width, height))

    left, top, width, height = cv2.boundingRect((alpha > 0).astype(np.uint8))
    box = np.s_[top : top + height, left : left + width]
    size, alpha = (height, width), alpha[box]
    colours = _texture(rng, size, base)
    if rng.random() < 0.4:  # a second colour on one side of a wavy border through the object
        level = _ramp(rng, size) + 0.15 * _noise(rng, size, max(size) / 3)
        part = np.clip(12 * (level - (level * alpha).sum() / alpha.sum()), 0, 1)
        colours += cv2.merge([part] * 3) * (
            _texture(rng, size, base + rng.normal(0, (16, 10, 14))) - colours
        )
    colours[..., 0] += rng.uniform(5, 20) * (wide[box] - 0.7) + rng.uniform(0, 8) * _ramp(rng, size)
    lab[box] += cv2.merge([alpha] * 3) * (colours - lab[box])


def _texture(rng: np.random.Generator, size: tuple[int, int], base: np.ndarray) -> np.ndarray:
    """A textured surface around the Lab colour `base`, float32 [H, W, 3]."""
    kind = rng.choice(["plain", "noise", "stripes", "spots"], p=[0.25, 0.4, 0.2, 0.15])
    coarse = _noise(rng, size, max(size) / rng.uniform(1.5, 4))
    field, strength = _noise(rng, size, rng.uniform(8, 40)), 7.0
    if kind == "plain":
        strength = 2.5
    if kind == "stripes":
        turns = max(size) / rng.uniform(6, 28)
        field = np.sin(2 * np.pi * turns * _ramp(rng, size) + rng.uniform(0, 3) * coarse)
    if kind == "spots":
        field = np.tanh(4 * (_noise(rng, size, rng.uniform(8, 24), octaves=1) - 0.4))
    strength *= rng.uniform(0.5, 1.8)
    toward = strength * np.array([1, *rng.normal(0, 0.35, 2)])
    drift = rng.normal(0, (4, 2, 3))  # slow change over the surface
    return cv2.transform(cv2.merge([field, coarse]), np.stack([toward, drift, base], axis=1))


def _noise(
    rng: np.random.Generator, size: tuple[int, int], spacing: float, octaves: int = 3
) -> np.ndarray:
    """Smooth noise of about unit variance with bumps `spacing` pixels apart, float32 [H, W]."""
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        lattice = [max(2, round(side * 2**octave / spacing) + 1) for side in size]
        values = rng.standard_normal(lattice, np.float32)
        total += 0.6**octave * cv2.resize(values, size[::-1], interpolation=cv2.INTER_CUBIC)
    return total * np.float32(1.4 / np.sqrt(sum(0.36**octave for octave in range(octaves))))


def _ramp(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Linear ramp in a random direction, about -0.5..0.5 over the longer side, float32 [H, W]."""
    angle = rng.uniform(0, 2 * np.pi)
    rows = np.sin(angle) * (np.arange(size[0]) / max(size) - 0.5 * size[0] / max(size))
    columns = np.cos(angle) * (np.arange(size[1]) / max(size) - 0.5 * size[1] / max(size))
    return rows.astype(np.float32)[:, None] + columns.astype(np.float32)


def _develop(rng: np.random.Generator, lab: np.ndarray) -> np.ndarray:
    """Lab canvas -> uint8 RGB through a camera: a little blur, then sensor noise."""
    lab[..., 0] = np.clip(lab[..., 0], 1, 99)
    sharp = cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)
    rgb: np.ndarray = cv2.GaussianBlur(sharp, (0, 0), rng.uniform(0.3, 0.8))
    rgb += rng.standard_normal(rgb.shape, np.float32) * np.float32(rng.uniform(0.004, 0.02))
    return cv2.convertScaleAbs(np.maximum(rgb, 0, out=rgb), alpha=255)  # rounds and clips
