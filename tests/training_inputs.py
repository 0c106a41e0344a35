"""Inputs of the losses and of the training sample, from seeds: for tests and tools/fidelity."""

import itertools

import cv2
import fidelity
import numpy as np
from scipy import stats

from mis_jax import build_tree

LOSS_CASES = {  # name: batch, height, width
    "plain": (2, 40, 56), "small": (1, 7, 5), "line": (1, 1, 3), "padded": (2, 33, 32),
    "extreme": (2, 24, 24), "empty": (2, 16, 20), "full": (1, 16, 20), "ignored": (3, 24, 30),
}  # fmt: skip


def losses(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits float32 [B, H, W], image uint8 [B, H, W, 3], target float32 [B, H, W].

    "padded" has black margins, "extreme" logits up to 1e4, "ignored" targets of -1, which only the
    focal loss knows.
    """
    shape, rng = LOSS_CASES[case], fidelity.generator(f"losses {case}")
    logits = (3 * rng.standard_normal(shape)).astype(np.float32)
    target = (smooth_noise(rng, shape, 3) > 0).astype(np.float32)
    image = 128 + 90 * smooth_noise(rng, (*shape, 3), 4) + rng.uniform(-3, 3, (*shape, 3))
    image = np.clip(image, 0, 255).astype(np.uint8)
    if case == "padded":
        image[:, :6] = image[:, :, -9:] = 0
        target[:, :6] = target[:, :, -9:] = 0
    if case == "extreme":
        logits *= rng.choice([1, 10, 3000], shape)
    if case in ("empty", "full"):
        target[:] = case == "full"
    if case == "ignored":
        target[smooth_noise(rng, shape, 2) > 0.8] = -1
        target[2] = -1
    return logits, image, target


def smooth_noise(rng: np.random.RandomState, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Noise [B, H, W] or [B, H, W, C] of about unit variance, smooth over `sigma` pixels."""
    noise = rng.standard_normal(shape)
    for image in noise:
        image[:] = cv2.GaussianBlur(image, (0, 0), sigma).reshape(image.shape)
    return noise / max(noise.std(), 1e-6)


ERRORS = ("blobs", "perfect", "thin", "border", "threshold", "ties")


def predictions(kind: str, count: int = 40, scale: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Predictions float32 and targets uint8, [count, 48 * scale, 64 * scale] each.

    A scale other than 1 is for "blobs" and "thin".
    """
    shape, rng = (count, 48 * scale, 64 * scale), fidelity.generator(f"predictions {kind}")
    noise, other = smooth_noise(rng, shape, 4 * scale), smooth_noise(rng, shape, 3 * scale)
    mask, prob = noise > 0, 1 / (1 + np.exp(-4 * (noise + 0.7 * other)))
    if kind == "perfect":
        prob = np.where(mask, 0.98, 0.01)
    if kind == "thin":
        mask = np.abs(noise) < 0.15
    if kind == "border":  # errors that reach the border of the image, or are all of it
        mask[:], prob[:] = rng.random_sample((count, 1, 1)) < 0.5, rng.random_sample((count, 1, 1))
        prob[:, 20:, : rng.randint(64)] = rng.random_sample((count, 1, 1))
    if kind == "threshold":  # the simulation's threshold, 0.5, and between them
        prob = rng.choice([0.48, 0.49, 0.495, 0.5, 0.52], (count, 6, 8)).repeat(8, 1).repeat(8, 2)
    if kind == "ties":  # a missed and a wrong square, of the same size or nearly
        mask[:], prob[:] = False, 0.1
        for i in range(count):
            side, more = rng.randint(3, 20), rng.randint(-1, 2)
            mask[i, 5 : 5 + side, 6 : 6 + side] = True
            prob[i, 20 : 20 + side + more, 34 : 34 + side + more] = 0.9
    return prob.astype(np.float32), mask.astype(np.uint8)


CLICK_MASKS = ("disc", "few", "corner", "ring", "wide", "none")
CLASSES = 8  # distances from the object's edge that `click_counts` tells apart


def click_mask(kind: str) -> np.ndarray:
    """An object, uint8 [64, 64] of 0 and 1; three steps inside "few" are too few pixels."""
    y, x = np.mgrid[:64, :64]
    radius = np.hypot(y - 30.0, x - 36.0)
    masks = {
        "disc": radius < 19, "few": (y // 9 == 3) & (x // 8 == 4), "corner": (y < 22) & (x < 17),
        "ring": np.abs(radius - 20) < 2.5, "wide": (y > 3) & (x < 58), "none": radius < 0,
    }  # fmt: skip
    return masks[kind].astype(np.uint8)


def click_counts(mask: np.ndarray, samples: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Histograms of clicks, float32 [48, 3] each: how many there are, and where.

    The first click of each half is counted by its distance from the object's edge, which is in
    chessboard steps, and by its quadrant. "off" counts samples of each number of positive clicks by
    whether all are more than three steps inside.
    """
    square = np.ones((3, 3), np.uint8)
    inner = sum(cv2.erode(mask, square, iterations=i).astype(int) for i in range(1, CLASSES))
    outer = sum(cv2.dilate(mask, square, iterations=i).astype(int) for i in range(1, CLASSES))
    quadrant = (np.arange(64)[:, None] > 30) * 2 + (np.arange(64) > 36)
    counts = {"positives": np.zeros(25, int), "negatives": np.zeros(25, int),
              "inside": np.zeros((CLASSES, 4), int), "outside": np.zeros((CLASSES, 4), int),
              "off": np.zeros((25, 2), int)}  # fmt: skip
    for points in samples:
        positive, negative = (
            half[half[:, 2] == 100, :2].astype(int) for half in np.split(points, 2)
        )
        counts["positives"][len(positive)] += 1
        counts["negatives"][len(negative)] += 1
        if len(positive):
            at = tuple(positive[0])
            counts["inside"][inner[at], quadrant[at]] += 1
            counts["off"][len(positive), int((inner[tuple(positive.T)] >= 3).all())] += 1
        if len(negative):
            at = tuple(negative[0])
            counts["outside"][outer[at], quadrant[at]] += 1
    return counts


def p_value(a: np.ndarray, b: np.ndarray) -> float:
    """Of the chi-square test that two histograms have one distribution; rare bins together."""
    table = np.stack([np.ravel(a), np.ravel(b)]).astype(float)
    if not table.any():
        return 1.0
    table = table[:, np.argsort(-table.sum(0), kind="stable")]
    expected = table.sum(0) * table.sum(1).min() / table.sum()
    common = int((expected >= 5).sum())
    table = np.column_stack([table[:, :common], table[:, common:].sum(1)])
    table = table[:, table.sum(0) > 0]
    return 1.0 if table.shape[1] < 2 else float(stats.chi2_contingency(table).pvalue)


def total_variation(a: np.ndarray, b: np.ndarray) -> float:
    """Between the distributions of two histograms."""
    return float(np.abs(a / a.sum() - b / b.sum()).sum() / 2)


AUGMENTED = (  # image rows and columns of the recorded cases; crops are of 96
    (100, 130), (131, 97), (60, 150), (75, 70), (128, 128), (96, 96),
)  # fmt: skip
PARAMETERS = ("scale", "flip", "turns", "angle", "dx", "dy", "top", "left", "contrast",
              "brightness", "red", "green", "blue")  # fmt: skip


class Replay:
    """Gives recorded numbers to augment.Augmentation where it draws from a generator.

    Parameters are in the order of `PARAMETERS`; NaN is a step that was not taken.
    """

    def __init__(self, parameters: np.ndarray):
        p = dict(zip(PARAMETERS, map(float, parameters), strict=True))
        place = [p["scale"], *self._step(p["flip"]), *self._step(p["turns"]),
                      *self._step(p["angle"], np.array([p["dx"], p["dy"]])), p["top"],
                      p["left"]]  # fmt: skip
        shift = np.array([[p["red"]], [p["green"]], [p["blue"]]])
        table = [*self._step(p["contrast"] - 1, p["brightness"])]
        table += [1.0] if np.isnan(p["red"]) else [0.0, shift]
        self._next = iter(place + table)
        self._place = len(place)

    def skip_place(self):
        """Goes on with the colours."""
        for _ in range(self._place):
            self.random()

    @staticmethod
    def _step(*values):
        return [1.0] if np.isnan(values[0]) else [0.0, *values]

    def random(self, *_):
        return next(self._next)

    uniform = random

    def integers(self, *_):
        return int(next(self._next))


def augmented(index: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image uint8 [H, W, 3], and a proposal uint8 on a grid of cells of about 8 pixels."""
    rng = fidelity.generator(f"augmented {index}")
    image = 128 + 60 * smooth_noise(rng, (1, height, width, 3), 2)[0]
    proposal = smooth_noise(rng, (1, -(-height // 8), -(-width // 8)), 1.5)[0] > 0
    return np.clip(image, 0, 255).astype(np.uint8), proposal.astype(np.uint8)


PLACED = {"small": (40, 50, 0.05), "large": (90, 120, 0.3)}  # rows, columns, reach of the centre


def place_counts(places: list, tables: list, reach: float) -> dict[str, np.ndarray]:
    """Histograms of drawn places of crops of 64 and of drawn colour tables (training/augment.py).

    `reach` is how far the crop's centre is from the image's at most, of the image's sides.
    """
    part = np.array([p.matrix[:2, :2] for p in places])
    centre = np.array([p.matrix[:2] @ (31.5, 31.5, 1) / p.size[::-1] for p in places]) - 0.5
    angle = np.degrees(np.arctan2(part[:, 1, 0], part[:, 0, 0]))
    mirrored = np.linalg.det(part) < 0
    turns, rest = np.rint(angle / 90), angle - 90 * np.rint(angle / 90)
    moved = np.array([p.moved for p in places])
    tables = np.array(tables).astype(int)
    slope = (tables[..., 130] - tables[..., 90]) / 40
    count = lambda x, bins, low, high: np.histogram(np.clip(x, low, high), bins, (low, high))[0]  # noqa: E731
    return {
        "scale": count([p.scale for p in places], 20, 0.7, 1.3),
        "turn": np.bincount((turns.astype(int) % 4) * 2 + mirrored, minlength=8),
        "moved": np.bincount(moved, minlength=2),
        "angle": count(rest[moved], 24, -3.6, 3.6),
        "column": count(centre[:, 0], 24, -reach, reach),
        "row": count(centre[:, 1], 24, -reach, reach),
        "brightness": count((tables[..., 110] - 110 * slope).mean(1), 45, -90, 90),
        "contrast": count(slope[:, 0], 30, 0.7, 1.5),
        "tint": count(tables[:, 0, 110] - tables[:, 2, 110], 20, -20, 20),
    }  # fmt: skip


def coloured() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images [24, 8, 9, 3] in [0, 1], all orders of the jitter, its factors, turns; blur's sigma.

    They are what color.adjust and color.blur take; half of the images have ties between channels.
    """
    rng = fidelity.generator("coloured")
    image = rng.random_sample((24, 8, 9, 3))
    image[12:] = rng.randint(0, 5, (12, 8, 9, 3)) / 4
    order = np.array(list(itertools.permutations(range(4))), np.int32)
    factors, turn = rng.uniform(0.2, 1.8, (3, 24)), rng.uniform(-0.2, 0.2, 24)
    single = lambda x: x.astype(np.float32)  # noqa: E731
    return single(image), order, single(factors), single(turn), single(rng.uniform(1, 2, 24))


def sampled_trees(random_tree) -> dict:
    """Two trees of 480 patches; `random_tree` is that of random_trees.py.

    "regions" merges neighbours of smooth features, "random" any two nodes.
    """
    features = smooth_noise(fidelity.generator("tree"), (1, 20, 24, 6), 2)[0].astype(np.float32)
    return {"regions": build_tree(features), "random": random_tree(5, 20, 24)}
