"""Image/mask pairs from seeds, networks that answer clicks on them, and folders of benchmarks.

Integers and comparisons make the pairs, and the first network adds, multiplies and compares
float32 numbers, so that every machine computes the same bits.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable
from pathlib import Path

import fidelity
import jax
import numpy as np
import scipy.io
from PIL import Image

from mis_jax.datasets.benchmarks import open_benchmark
from mis_jax.datasets.samples import Benchmark, Sample
from mis_jax.evaluation import clicker, tables
from mis_jax.evaluation.metrics import summarize
from mis_jax.models import porting, simpleclick
from mis_jax.predictors.network import Predictor, mirrored

KINDS = ("blob", "line", "border", "pieces", "holes", "tiny", "full", "frame")
SIDES = (  # least and most pixels of height and width: eight pairs of each, one of each kind
    ((64, 90), (66, 90)),
    ((90, 160), (90, 160)),
    ((420, 600), (300, 500)),
    ((260, 420), (260, 420)),
    ((300, 500), (300, 500)),
    ((66, 100), (300, 700)),
    ((300, 700), (66, 100)),
    ((500, 700), (500, 800)),
)
LARGE = {7: (2000, 1500), 21: (110, 2000), 34: (1400, 2000), 60: (2000, 250)}  # pair -> (H, W)
PAIRS = len(KINDS) * len(SIDES)
TARGETS = (0.90, 1.01)  # IoU; the second is never reached
COLOURS = ((230, 60, 40), (40, 200, 70), (50, 70, 230), (240, 220, 60))
# Logits whose sigmoid, and that of the mean of any two of them, PyTorch and we round alike.
LEVELS = np.array([-5.8125, -4.5, -3.6875, -2.875, -2.1875, -1.9375, 0, 1.4375, 2.25, 2.5, 2.875,
                   4.1875], np.float32)  # fmt: skip
MIDDLE = 6  # the level of an undecided pixel
STRIDE = 2  # pixels; the network decides on this grid
LOOK_BACK = 3  # newest clicks of a kind, whose colours count


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image uint8 [H, W, 3], its mask int32 [H, W] (1, 0, -1) and how to click on it."""

    image: np.ndarray
    truth: np.ndarray
    target: float  # IoU
    size: int  # of the square the network sees, pixels


def pair(index: int) -> Pair:
    """One of the `PAIRS` pairs."""
    rng = fidelity.generator("protocol", index)
    (low, high), (left, right) = SIDES[index // len(KINDS)]
    shape = LARGE.get(index, (rng.randint(low, high), rng.randint(left, right)))
    kind = KINDS[index % len(KINDS)]
    found = _object(kind, index // len(KINDS), shape, rng)
    image = fidelity.image(f"protocol {index}", *shape) // 2
    colour = np.array(COLOURS[index // 3 % len(COLOURS)])
    if index // 8 % 2 == 0:  # nothing else looks like the object
        image[:] = rng.randint(90, 110, 3)
    image[found] = (image[found] + 3 * colour) // 4
    truth = found.astype(np.int32)
    if index % 3 == 1:
        rim = _grown(found, 3) & ~found
        truth[rim] = -1
    if index % 5 == 2:  # not counted, across object and background
        top, col = shape[0] // 3, shape[1] // 4
        truth[top : top + shape[0] // 5, col : col + shape[1] // 3] = -1
    if not (truth == 1).any():
        truth[found] = 1
    return Pair(image, truth, target(index), 672 if index % 6 == 5 else 448)


def target(index: int) -> float:
    """The IoU at which a pair's clicks end."""
    return TARGETS[0] if index % 5 == 3 else TARGETS[1]


def _object(kind: str, variant: int, shape: tuple[int, int], rng) -> np.ndarray:
    """A bool mask [H, W] with at least one pixel."""
    height, width = shape
    found = np.zeros(shape, bool)
    if kind == "blob":
        found |= _ellipse(shape, rng, 3)
    elif kind == "line":  # one and two pixels wide, straight and slanted
        row, col = rng.randint(height // 4, height // 2), rng.randint(width // 4, width // 2)
        found[row, col : col + width // 2] = True
        found[row : row + height // 2, col : col + 2] = True
        steps = np.arange(min(height - row, width - col))
        found[row + steps, col + steps] = True
    elif kind == "border" and variant % 3 == 1:  # the last row alone
        found[-1, width // 5 : width // 2] = True
    elif kind == "border" and variant % 3 == 2:  # the last column alone
        found[height // 3 : 3 * height // 4, -1] = True
    elif kind == "border":
        found[-1, width // 5 : width // 2] = True
        found[height // 2 :, -max(2, width // 9) :] = True
        found[: height // 3, 0] = True
    elif kind == "pieces":
        for _ in range(4):
            found |= _ellipse(shape, rng, 9)
    elif kind == "holes":
        found |= _ellipse(shape, rng, 2)
        for _ in range(5):
            found &= ~_ellipse(shape, rng, 14)
        found[height // 2, width // 2] = True
    elif kind == "tiny":
        row, col = rng.randint(height - 3), rng.randint(width - 3)
        found[row : row + 2, col : col + 2] = found[row + 2, col] = True
    elif kind == "full":
        found[:] = True
    else:  # a frame around a part of the image, touching its top
        found[: 3 * height // 4, width // 6 : 5 * width // 6] = True
        found[height // 8 : height // 2, width // 4 : 3 * width // 4] = False
    return found


def _ellipse(shape: tuple[int, int], rng: np.random.RandomState, part: int) -> np.ndarray:
    """An ellipse whose radii are at most 1/part of the sides."""
    rows, cols = np.ogrid[: shape[0], : shape[1]]
    a, b = (int(rng.randint(2 + side // part // 2, 3 + side // part)) for side in shape)
    rows, cols = rows - rng.randint(shape[0]), cols - rng.randint(shape[1])
    return (rows * b) ** 2 + (cols * a) ** 2 <= (a * b) ** 2


def _grown(mask: np.ndarray, steps: int) -> np.ndarray:
    """The mask and the pixels at most `steps` to each side."""
    for _ in range(steps):
        wide = np.pad(mask, 1)
        mask = mask | wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]
    return mask


def network(image: np.ndarray, previous: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Logits float32 [B, S, S] of the inputs that `mis_jax.Predictor` gives a network."""
    levels = LEVELS[scores(image, previous, points)]
    return levels.repeat(STRIDE, 1).repeat(STRIDE, 2)


def scores(image: np.ndarray, previous: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The level of each cell, int [B, S/2, S/2]: colours like those clicked, squares, last mask."""
    image, previous = image[:, ::STRIDE, ::STRIDE], previous[:, ::STRIDE, ::STRIDE]
    out = []
    for pixels, before, rows in zip(image, previous, points, strict=True):
        level = np.full(before.shape, MIDDLE - 2, np.int8)
        level += before > np.float32(0.3)
        level += before > np.float32(0.62)
        _add_clicks(level, np.ascontiguousarray(pixels.transpose(2, 0, 1)), rows)
        out.append(np.clip(level, 0, len(LEVELS) - 1))
    return np.stack(out)


def _add_clicks(level: np.ndarray, planes: np.ndarray, rows: np.ndarray) -> None:
    side, half = len(level), len(rows) // 2
    real = [(int(order), row, col, 1 if k < half else -1)
            for k, (row, col, order) in enumerate(rows.tolist()) if order >= 0]  # fmt: skip
    newest = {sign: [c[0] for c in sorted(real) if c[3] == sign][-LOOK_BACK:] for sign in (1, -1)}
    for order, row, col, sign in sorted(real):
        row, col = (min(max(int(v / STRIDE), 0), side - 1) for v in (row, col))
        if order in newest[sign]:
            near = _around(row, col, side // 10 + (len(real) - order) * side // 6)
            colours = planes[:, row, col]
            red, green, blue = (np.abs(p[near] - c) for p, c in zip(planes, colours, strict=True))
            unlike = red + green + blue
            level[near] += np.int8(2 * sign) * (unlike < np.float32(0.2))
            level[near] += np.int8(sign) * (unlike < np.float32(0.45 if order % 2 else 0.08))
        age = len(real) - 1 - order
        level[_around(row, col, 1 + age * (1 + order % 3))] += np.int8(3 * sign)


def _around(row: int, col: int, reach: int) -> tuple[slice, slice]:
    """A square of 2 * reach + 1 cells a side, as far as it lies inside."""
    return slice(max(0, row - reach), row + reach + 1), slice(max(0, col - reach), col + reach + 1)


def checksum(array: np.ndarray) -> int:
    """CRC-32 of the bytes of an array."""
    return zlib.crc32(np.ascontiguousarray(array))


@dataclasses.dataclass
class Passes:
    """What an evaluation did on one pair, click after click.

    clicks: (row, col, 1 object or 0 background); rois: first and last row, first and last column;
    ious: float64; inputs: check sums of the batch of images, previous masks and points that entered
    the network; probs: float32 [H, W] each; masks: bool [H, W] each.
    """

    clicks: list = dataclasses.field(default_factory=list)
    rois: list = dataclasses.field(default_factory=list)
    ious: list = dataclasses.field(default_factory=list)
    inputs: list = dataclasses.field(default_factory=list)
    probs: list = dataclasses.field(default_factory=list)
    masks: list = dataclasses.field(default_factory=list)

    def arrays(self) -> dict[str, np.ndarray]:
        """The numbers that a fixture holds: check sums in place of maps."""
        sums = [[*i, checksum(p), checksum(np.packbits(m))]
                for i, p, m in zip(self.inputs, self.probs, self.masks, strict=True)]  # fmt: skip
        return {
            "clicks": np.array(self.clicks, np.int16),
            "rois": np.array(self.rois, np.int16),
            "ious": np.array(self.ious, np.float64),
            "sums": np.array(sums, np.uint32),
        }


def ours(given: Pair, network: Callable = network, clicks: int = 20) -> Passes:
    """`clicker.rounds` on a pair."""
    done, last = Passes(), [np.empty(0), 0]

    def watched(image, previous, points):
        if not np.array_equal(image, last[0]):  # the same as long as the crop stays
            last[:] = image, checksum(image)
        done.inputs.append([last[1], checksum(previous), checksum(points)])
        return network(image, previous, points)

    predictor = Predictor(mirrored(watched), given.size)
    sample = Sample("", given.image, given.truth)
    for r in clicker.rounds(predictor, sample, given.target, clicks):
        done.clicks.append((r.row, r.col, int(r.positive)))
        done.rois.append(predictor.roi)
        done.ious.append(r.iou)
        done.probs.append(predictor.probabilities)
        done.masks.append(r.mask)
    return done


# ---- figures of a table


SECONDS = 1.234  # made up, of every object


def printed_table(ious: list[np.ndarray], target: float) -> np.ndarray:
    """NoC@85, NoC@90, >=20@85, >=20@90 and seconds a click, as our table prints them."""
    cells = dict(tables.details("x", {"ours": _summary(ious, target)}))
    keys = "NoC@85", "NoC@90", ">=20@85", ">=20@90", "s/click"
    return np.array([float(cells[key].partition(" [")[0]) for key in keys])  # without intervals


def metrics(ious: list[np.ndarray], target: float) -> np.ndarray:
    """NoC@80, @85, @90, and how many objects take 20 clicks for each."""
    summary = _summary(ious, target)
    return np.array([summary[f"{key}{t}"] for key in ("noc", "nof") for t in (80, 85, 90)])


def _summary(ious: list[np.ndarray], target: float) -> dict:
    unseen = {"digest": 0, "clicks": [], "seconds": SECONDS}
    records = [{"id": str(k), "ious": x.tolist(), **unseen} for k, x in enumerate(ious)]
    return summarize(records, Benchmark("x", None, {}, {}), target)


# ---- SimpleClick with weights from a seed


SMALL_PAIRS = (26, 27, 31, 33, 40, 55, 60, 5)  # the last one at 672 pixels
SMALL_CROP = 448  # pixels, of the stored position embeddings
SMALL_CLICKS = 12
GAIN = 20  # of previous mask, clicks and logits, so that masks differ from click to click


def small_tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights of SimpleClick xTiny for PyTorch keys."""
    tensors = fidelity.state_dict(shapes)
    tensors["patch_embed_coords.proj.weight"] *= np.float32(GAIN)
    tensors["head.conv_seg.bias"] -= np.float32(0.05)
    for kind in ("weight", "bias"):
        tensors[f"head.conv_seg.{kind}"] *= np.float32(GAIN)
    return tensors


@functools.cache
def small_network(size: int) -> Callable:
    """SimpleClick xTiny with these weights, in float32."""
    shapes = simpleclick.shapes("xTiny", 0, SMALL_CROP)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    keys = {key: x.shape for key, x in porting.unport(zeros).items()}
    params = porting.port(small_tensors(keys), shapes)
    return simpleclick.network(params, "xTiny", 0, size, SMALL_CROP, dtype="float32")


# ---- folders of benchmarks


SETS = ("GrabCut", "Berkeley", "DAVIS", "SBD")


def write_sets(folder: Path) -> None:
    """A few files in the layout of each benchmark, in `folder`/NAME."""
    for name in SETS:
        rng = fidelity.generator(name)
        images, masks = {"GrabCut": ("data_GT", "boundary_GT"), "DAVIS": ("img", "gt"),
                         "Berkeley": ("images", "masks"), "SBD": ("img", "inst")}[name]  # fmt: skip
        for part in (images, masks):
            (folder / name / part).mkdir(parents=True)
        stems = {"b": ".png", "a10": ".bmp", "a9": ".png", "Zed": ".png", "a 1": ".jpg"}
        if name == "SBD":
            stems = {"2008_2": ".jpg", "2008_10": ".jpg", "2007_9": ".jpg"}
            (folder / name / "val.txt").write_text("".join(f"{stem}\n" for stem in stems))
        for number, (stem, suffix) in enumerate(stems.items()):
            shape = 40 + 7 * number, 61 - 5 * number
            pixels = fidelity.image(f"{name} {stem}", *shape)
            Image.fromarray(pixels).save(folder / name / images / f"{stem}{suffix}")
            write = _write_labels if name == "SBD" else _write_mask
            write(folder / name / masks / stem, name, shape, rng, number)


def _write_mask(path: Path, name: str, shape, rng: np.random.RandomState, number: int) -> None:
    """A mask of blocks: grey, coloured or with a palette."""
    values = rng.choice([0, 0, 255, 255, 128, 129, 127, 64, 1, 2], (shape[0], shape[1], 3))
    values = values[::4, ::4].repeat(4, 0).repeat(4, 1)[: shape[0], : shape[1]].astype(np.uint8)
    picture = Image.fromarray(values if number % 3 == 0 else values[:, :, 0])
    if number % 3 == 1 and name == "DAVIS":
        picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] * 64)
    picture.save(path.with_name(path.name + (".bmp" if number == 1 else ".png")))


def _write_labels(path: Path, name: str, shape, rng: np.random.RandomState, number: int) -> None:
    """Instances of an image of SBD; the second image has none."""
    labels = rng.choice([0, 3, 1, 12] if number != 1 else [0], shape).astype(np.uint8)
    inst = np.empty((1, 1), [(f, object) for f in ("Segmentation", "Boundaries", "Categories")])
    inst[0, 0] = (labels, np.zeros(2), np.zeros(2))
    scipy.io.savemat(path.with_name(path.name + ".mat"), {"GTinst": inst})


def read_set(name: str, folder: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(id, image, mask) of every object, through `datasets.benchmarks`."""
    return [(s.id, s.image, s.mask) for s in open_benchmark(name, folder)]


def set_sums(objects: list[tuple[str, np.ndarray, np.ndarray]]) -> np.ndarray:
    """Check sums [N, 2] of the ids and masks."""
    sums = [(zlib.crc32(name.encode()), checksum(mask)) for name, _, mask in objects]
    return np.array(sums, np.uint32)
