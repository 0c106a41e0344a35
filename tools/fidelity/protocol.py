"""The published evaluation of clicks beside ours: what enters the network, masks, IoUs, NoC.

python tools/fidelity/protocol.py SOURCES [GRABCUT]

GRABCUT, a folder of that benchmark's own files, is read by both sides where it is given.
"""

import contextlib
import io
import itertools
import math
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import published

GRABCUT = sys.argv.pop(2) if len(sys.argv) > 2 else None
FOLDER = published.sources(__doc__.splitlines()[0])
published.use(FOLDER, "MIS")

import cv2

if hasattr(cv2, "ipp"):
    cv2.ipp.setUseIPP(False)  # OpenCV's own precise distances: reference 5.3

import evaluate as their_evaluation
import protocol_pairs
import torch
from fidelity import generator, save
from isegm.data import datasets
from isegm.inference import utils
from isegm.inference.evaluation import evaluate_sample
from isegm.inference.predictors import get_predictor
from isegm.model.is_plainvit_model import PlainVitModel
from isegm.model.modeling.pos_embed import interpolate_pos_embed_inference
from isegm.model.modeling.transformer_helper.cross_entropy_loss import CrossEntropyLoss
from protocol_pairs import PAIRS, SMALL_CLICKS, TARGETS, Pair, Passes, checksum, pair

from mis_jax.evaluation import metrics
from mis_jax.models import simpleclick
from mis_jax.predictors.torch_arithmetic import resize_align_corners, sigmoid
from mis_jax.predictors.zoom_in import POINT_ROWS

OPTIONS = {"pred_thr": 0.5, "min_clicks": 1}  # as evaluate.py sets them
CLICKS = 20
LOW = (0.05, 0.1, 0.15, 0.3)  # IoUs that random weights reach


# ---- the published evaluation of one pair


class Watched:
    """A network in numpy, in the place of the published model."""

    with_prev_mask = True

    def __init__(self, network: Callable):
        self.network, self.inputs = network, []

    def __call__(self, x: torch.Tensor, points: torch.Tensor) -> dict:
        x, rows = x.numpy(), padded(points.numpy())
        image, previous = np.ascontiguousarray(x[:, :3].transpose(0, 2, 3, 1)), x[:, 3]
        self.inputs.append([checksum(image), checksum(previous), checksum(rows)])
        logits = np.ascontiguousarray(self.network(image, previous, rows))
        return {"instances": torch.from_numpy(logits)[:, None]}


def padded(points: np.ndarray) -> np.ndarray:
    """[B, 2n, 3] with as many rows of -1 as our predictor has."""
    halves = points.reshape(len(points), 2, -1, 3)
    n = POINT_ROWS * math.ceil(halves.shape[2] / POINT_ROWS)
    out = np.full((len(points), 2, n, 3), -1.0)
    out[:, :, : halves.shape[2]] = halves
    return out.reshape(len(points), 2 * n, 3)


def theirs(given: Pair, net: Callable, clicks: int = CLICKS) -> Passes:
    """`evaluate_sample` on a pair, with the predictor that evaluate.py makes."""
    arguments = Namespace(clicks_limit=None, eval_mode="cvpr")
    name = "DAVIS" if given.size == 672 else "GrabCut"
    settings, zoom = their_evaluation.get_predictor_and_zoomin_params(arguments, name)
    assert zoom["target_size"] == (given.size, given.size)
    predictor = get_predictor(
        net, "NoBRS", torch.device("cpu"), 0.5, predictor_params=settings, zoom_in_params=zoom
    )
    done = Passes()

    def callback(image, truth, probs, sample_id, index, clicks):
        click = clicks[-1]
        done.clicks.append((*click.coords, int(click.is_positive)))
        done.rois.append(predictor.zoom_in._object_roi)
        done.ious.append(utils.get_iou(truth, probs > 0.5))
        done.probs.append(probs)
        done.masks.append(probs > 0.5)

    options = {**OPTIONS, "max_iou_thr": given.target, "max_clicks": clicks, "callback": callback}
    _, ious, _ = evaluate_sample(given.image, given.truth, predictor, **options)
    assert (ious == np.array(done.ious, np.float32)).all()
    done.inputs = getattr(net, "inputs", [])
    return done


# ---- all pairs, with a network that both sides compute alike


def compare_pairs() -> tuple[list[dict], dict, list[np.ndarray]]:
    """Rows, the fixture's arrays, and the published IoUs of every pair."""
    found, wrong = [], dict.fromkeys(["clicks", "rois", "ious", "inputs", "maps"], 0)
    moves = perfect = 0
    for index in range(PAIRS):
        given, net = pair(index), Watched(protocol_pairs.network)
        public, mine = theirs(given, net).arrays(), protocol_pairs.ours(given).arrays()
        found.append(public)
        for key in ("clicks", "rois", "ious"):
            wrong[key] += different(public[key], mine[key])
        wrong["inputs"] += different(public["sums"][:, :3], mine["sums"][:, :3])
        wrong["maps"] += different(public["sums"][:, 3:], mine["sums"][:, 3:])
        moves += sum(a != b for a, b in itertools.pairwise(public["rois"].tolist()))
        perfect += int((public["ious"] == 1).sum())
    passes = sum(len(f["ious"]) for f in found)
    cases = f"{PAIRS} pairs, {passes} clicks, {moves} moves of the crop, {perfect} perfect masks"
    oracle = "evaluate_sample, Clicker, get_predictor with ZoomIn and flip, 448 and 672 pixels"
    names = {
        "clicks": "Clicks (row, column, sign)",
        "rois": "Crops of ZoomIn",
        "ious": "IoUs, float64",
        "inputs": "Images, previous masks and points that enter the network",
        "maps": "Probability maps and masks",
    }
    rows = [{"part": names[key], "oracle": oracle, "cases": cases, "worst": wrong[key],
             "unit": "clicks with any different bit"} for key in names]  # fmt: skip
    arrays = {key: np.concatenate([f[key] for f in found]) for key in found[0]}
    arrays["passes"] = np.array([len(f["ious"]) for f in found])
    return rows, arrays, [f["ious"].astype(np.float32) for f in found]


def different(a: np.ndarray, b: np.ndarray) -> int:
    """In how many rows two arrays differ, one that ends earlier in all that it lacks."""
    n = min(len(a), len(b))
    unequal = (a[:n] != b[:n]).reshape(n, -1).any(axis=1)
    return int(unequal.sum()) + abs(len(a) - len(b))


# ---- figures of the table


def compare_tables(ious: list[np.ndarray]) -> tuple[list[dict], dict]:
    """NoC of the recorded IoUs, apart for the pairs of each target."""
    exact, printed, wrong = [], [], [0, 0]
    for target in TARGETS:
        chosen = [x for k, x in enumerate(ious) if protocol_pairs.target(k) == target]
        thresholds = np.arange(0.8, min(0.95, target) + 0.001, 0.05).tolist()[:3]
        noc, _, over = utils.compute_noc_metric(chosen, thresholds, CLICKS)
        exact.append([*noc, *over])
        printed.append(published_row(chosen, target))
        wrong[0] += int((protocol_pairs.metrics(chosen, target) != exact[-1]).sum())
        mine = protocol_pairs.printed_table(chosen, target)
        wrong[1] += int((mine != printed[-1]).sum())
    cases = f"{len(ious)} objects, targets {TARGETS[0]} and {TARGETS[1]}"
    rows = [
        {"part": "NoC@80, 85, 90 and number of objects at 20 clicks, float64",
         "oracle": "compute_noc_metric", "worst": wrong[0]},
        {"part": "NoC@85, 90, >=20@85, 90 and seconds a click as printed",
         "oracle": "evaluate.py save_results, get_results_table", "worst": wrong[1]},
    ]  # fmt: skip
    rows = [{**row, "cases": cases, "unit": "figures that differ"} for row in rows]
    return rows, {"noc": np.array(exact), "table": np.array(printed)}


def published_row(ious: list[np.ndarray], target: float) -> list[float]:
    """What `printed_table` gives, out of the log that evaluate.py writes."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        arguments = Namespace(target_iou=target, n_clicks=CLICKS, print_ious=False,
                              eval_mode="cvpr", mode="NoBRS", logs_path=Path(folder))  # fmt: skip
        result = ious, protocol_pairs.SECONDS * len(ious)
        their_evaluation.save_results(arguments, "NoBRS", "x", Path(folder), "", result)
        row = next(Path(folder).glob("*.txt")).read_text().splitlines()[-1]
    return [float(cell) for cell in row.split("|")[4:9]]


# ---- the sigmoid and the resize, by themselves


def compare_rounding() -> list[dict]:
    """How far our sigmoid is from PyTorch's, what that changes, and the resize."""
    logits = generator("logits").standard_normal(1_000_000).astype(np.float32) * 4
    apart = ulps(sigmoid(logits[None])[0], torch.sigmoid(torch.from_numpy(logits)).numpy())
    rows = [{"part": "Sigmoid", "oracle": "torch.sigmoid on the CPU", "worst": int(apart.max()),
             "cases": f"1000000 logits, of which {(apart > 0).mean():.1%} differ",
             "unit": "units in the last place"}, *ordinary_logits()]  # fmt: skip
    kernels = [
        ("Resize, height + width of the result above 128", False, "65 to 2000"),
        ("Resize, at most 128 (another kernel of PyTorch)", True, "1 to 64"),
    ]
    for part, small, sides in kernels:
        worst = max(resize_error(k, small) for k in range(200))
        rows.append({"part": part, "oracle": "interpolate, bilinear, align_corners, on the CPU",
                     "cases": f"200 resizes of values in 0..1, 448 pixels and {sides}",
                     "worst": worst, "unit": "absolute"})  # fmt: skip
    return rows


def ulps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.view(np.int32).astype(np.int64) - b.view(np.int32))


def ordinary(image: np.ndarray, previous: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The network of the pairs with logits of any value, float32 [B, S, S]."""
    levels = protocol_pairs.scores(image, previous, points).astype(np.float32)
    levels = levels.repeat(protocol_pairs.STRIDE, 1).repeat(protocol_pairs.STRIDE, 2)
    light = image[..., 0] - image[..., 1]
    return (levels - np.float32(protocol_pairs.MIDDLE + 0.3)) * np.float32(0.71) + light


def ordinary_logits() -> list[dict]:
    """What the sigmoid's last bits change in evaluations."""
    clicks = masks = 0
    worst, passes = 0.0, 0
    for index in range(PAIRS):
        given = pair(index)
        public = theirs(given, Watched(ordinary))
        mine = protocol_pairs.ours(given, ordinary)
        clicks += different(np.array(public.clicks), np.array(mine.clicks))
        for a, b, p, q in zip(public.masks, mine.masks, public.probs, mine.probs, strict=False):
            masks += int((a != b).any())
            worst = max(worst, float(np.abs(p - q).max()))
        passes += len(public.clicks)
    oracle = "evaluate_sample with a network in numpy whose logits take any value"
    cases = f"{PAIRS} pairs, {passes} clicks"
    figures = [
        ("Clicks", clicks, "clicks that differ"),
        ("Masks", masks, "masks with any different pixel"),
        ("Probabilities", worst, "absolute"),
    ]
    return [{"part": f"Ordinary logits: {part}", "oracle": oracle, "cases": cases, "worst": value,
             "unit": unit} for part, value, unit in figures]  # fmt: skip


def resize_error(number: int, small: bool) -> float:
    """The largest difference of the resize of an image with previous mask, or of a map."""
    rng = generator("resize", number)
    low, high = (1, 65) if small else (65, 2001 if number < 9 else 700)
    height, width = rng.randint(low, high, 2)
    size, channels = ((height, width), 1) if small or number % 2 else ((448, 448), 4)
    given = (448, 448) if small or number % 2 else (height, width)
    x = rng.uniform(size=(1, channels, *given)).astype(np.float32)
    size = tuple(map(int, size))
    public = torch.nn.functional.interpolate(
        torch.from_numpy(x), size=size, mode="bilinear", align_corners=True
    ).numpy()
    mine = [resize_align_corners(plane, *size) for plane in x[0]]
    return float(np.abs(np.stack(mine) - public[0]).max())


# ---- SimpleClick with weights from a seed


def public_model(size: int) -> PlainVitModel:
    """The public xTiny with these weights, its position embeddings resized as evaluate.py does."""
    v, crop = simpleclick.VARIANTS["xTiny"], (protocol_pairs.SMALL_CROP,) * 2
    model = PlainVitModel(
        use_disks=True, norm_radius=5, with_prev_mask=True,
        backbone_params={"img_size": crop, "patch_size": (v.patch,) * 2, "in_chans": 3,
                         "embed_dim": v.dim, "depth": v.depth, "num_heads": v.heads,
                         "mlp_ratio": 4, "qkv_bias": True},
        neck_params={"in_dim": v.dim, "out_dims": list(v.pyramid)},
        head_params={"in_channels": list(v.pyramid), "in_index": [0, 1, 2, 3],
                     "dropout_ratio": 0.1, "num_classes": 1, "align_corners": False,
                     "upsample": "x1", "channels": v.head, "loss_decode": CrossEntropyLoss()},
    )  # fmt: skip
    shapes = {key: tuple(x.shape) for key, x in model.state_dict().items()}
    tensors = protocol_pairs.small_tensors(shapes)
    model.load_state_dict({key: torch.from_numpy(x) for key, x in tensors.items()})
    interpolate_pos_embed_inference(model.backbone, (size, size), "cpu")
    return model.eval()


def compare_small() -> tuple[list[dict], dict]:
    """The same with SimpleClick xTiny on both sides, each its own."""
    found, ious, equal, masks, worst = [], ([], []), 0, 0, 0.0
    for index in protocol_pairs.SMALL_PAIRS:
        given = pair(index)
        public = theirs(given, public_model(given.size), SMALL_CLICKS)
        network = protocol_pairs.small_network(given.size)
        mine = protocol_pairs.ours(given, network, SMALL_CLICKS)
        same = public.clicks == mine.clicks and public.rois == mine.rois
        equal += same
        steps = list(zip(public.masks, mine.masks, public.probs, mine.probs, strict=False))
        masks += sum(bool((a != b).any()) for a, b, _, _ in steps)
        worst = max(worst, *(float(np.abs(p - q).max()) for _, _, p, q in steps))
        for side, passes in zip(ious, (public, mine), strict=True):
            side.append(np.array(passes.ious, np.float32))
        found.append(public)
        print(index, same, np.round(public.ious, 3).tolist(), worst, masks, flush=True)
    clicks = sum(len(p.clicks) for p in found)
    moves = sum(a != b for p in found for a, b in itertools.pairwise(p.rois))
    noc, _, over = utils.compute_noc_metric(ious[0], LOW, SMALL_CLICKS)
    mine = [f(ious[1], t, SMALL_CLICKS) for f in (metrics.noc, metrics.nof) for t in LOW]
    apart = np.abs(np.concatenate(ious[0]) - np.concatenate(ious[1]))
    oracle = "evaluate_sample with PlainVitModel xTiny, weights from a seed, float32 on the CPU"
    cases = f"{len(found)} pairs, {clicks} clicks, {moves} moves of the crop"
    figures = [
        ("Pairs whose clicks or crops differ", len(found) - equal, "pairs"),
        ("Masks", masks, "masks with any different pixel"),
        (f"IoUs, of which {(apart > 0).sum()} differ", float(apart.max()), "absolute"),
        (
            f"NoC and objects at {SMALL_CLICKS} clicks, IoU {LOW}",
            int((np.array(mine) != [*noc, *over]).sum()),
            "figures that differ",
        ),
        ("Probabilities", worst, "absolute"),
    ]
    rows = [{"part": f"SimpleClick xTiny: {part}", "oracle": oracle, "cases": cases, "worst": value,
             "unit": unit} for part, value, unit in figures]  # fmt: skip
    arrays = {f"small_{key}": np.concatenate([np.array(getattr(p, key)) for p in found])
              for key in ("clicks", "rois", "ious")}  # fmt: skip
    return rows, arrays | {"small_passes": np.array([len(p.clicks) for p in found])}


# ---- benchmark readers

READERS = {"GrabCut": datasets.GrabCutDataset, "Berkeley": datasets.BerkeleyDataset,
           "DAVIS": datasets.DavisDataset, "SBD": datasets.SBDEvaluationDataset}  # fmt: skip


def compare_readers() -> tuple[list[dict], dict]:
    """Objects of every benchmark, read by both sides."""
    rows, arrays = [], {}
    with tempfile.TemporaryDirectory() as folder:
        protocol_pairs.write_sets(Path(folder))
        for name in READERS:
            arrays[f"set_{name}"], row = compare_set(name, Path(folder) / name, "made-up files")
            rows.append(row)
    if GRABCUT:
        rows.append(compare_set("GrabCut", Path(GRABCUT), "the benchmark's own files")[1])
    return rows, arrays


def compare_set(name: str, folder: Path, what: str) -> tuple[np.ndarray, dict]:
    """The check sums of a folder's objects as the public reader gives them, and a row."""
    mine, dataset, public = protocol_pairs.read_set(name, folder), READERS[name](folder), []
    for index, listed in enumerate(dataset.dataset_samples):
        sample = dataset.get_sample(index)
        label = "_".join(map(str, listed)) if name == "SBD" else listed.split(".")[0]
        public += [(label, sample.image, sample.gt_mask(k)) for k in sample.objects_ids]
    wrong = abs(len(mine) - len(public))
    for (label, image, mask), (other, pixels, truth) in zip(mine, public, strict=False):
        same = label == other and np.array_equal(image, pixels) and np.array_equal(mask, truth)
        wrong += not same
    row = {"part": f"Objects of {name}: order, images, masks", "oracle": READERS[name].__name__,
           "cases": f"{len(public)} objects, {what}", "worst": wrong,
           "unit": "objects that differ"}  # fmt: skip
    return protocol_pairs.set_sums(public), row


def main() -> None:
    """Writes the fixture and the results."""
    readers, arrays = compare_readers()
    pairs, found, ious = compare_pairs()
    tables, figures = compare_tables(ious)
    small, steps = compare_small()
    origin = published.origin(__file__, "MIS")
    save("protocol", {**found, **figures, **steps, **arrays}, origin)
    rows = [*pairs, *tables, *small, *compare_rounding(), *readers]
    published.write_results(__file__, rows, "MIS")


if __name__ == "__main__":
    main()
