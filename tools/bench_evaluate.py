"""Speed of an evaluation's clicks beside the published loop, on the same images, in the same run.

    python tools/bench_evaluate.py SOURCES GRABCUT [--sections a,b,c] [--json FILE]

SOURCES holds the clones that docs/fidelity.md makes. Every library uses as many threads as the
process has cores: `taskset` chooses. Times are of the clock and of all cores; where others use the
machine too, the second is the steadier one. Ratios are theirs to ours: more is better for us.

a. All of a click that is not the network: `evaluate_sample` with its Clicker, ZoomIn, flip and IoU
   against `rounds` with `Predictor`, on GrabCut's images at their own size, until an IoU of 0.90 or
   20 clicks. The network is a stand-in that plays recorded logits, the same to both sides, and
   whose own time is left out. The logits are the object's mask with smooth errors around it that
   shrink from click to click, as a trained network's do. Sides take turns, object by object, and
   their clicks and IoUs have to be the same, bit for bit.
b. The simulated user alone: Clicker against `next_click`, on the masks met in a, and on the same
   masks with 1 % of all pixels wrong, which spreads the errors over the whole image. Choices have
   to be the same.
c. Whole clicks of SimpleClick ViT-B at 448 pixels with flip, weights from a seed, float32.

OpenCV runs without Intel's IPP, whose rounding would decide ties; its own precise distance
transform is also the faster one on one thread.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "fidelity"))
import published

from mis_jax.benchmarks import Sample, open_benchmark

SIZE = 448  # pixels
TARGET, MAX_CLICKS = 0.90, 20
NOISE = 1.2  # of the stand-in's errors at the first click, where the object's inside is 0.5
FALL = 60  # pixels of the square, over which the stand-in's background falls by 1
SPECKLED = 0.01


def main() -> None:
    """Prints the figures, ratios first, and writes them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", type=Path, help="folder that holds the clones")
    parser.add_argument("grabcut", type=Path, help="folder of the benchmark")
    parser.add_argument("--sections", default="a,b,c", help="which to run")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    published.old_numpy_names()
    published.use(arguments.sources.resolve(), "MIS")
    import torch

    torch.set_num_threads(threads())
    cv2.setNumThreads(threads())
    if hasattr(cv2, "ipp"):
        cv2.ipp.setUseIPP(False)
    samples = [  # PyTorch warns of arrays that cannot be written
        dataclasses.replace(s, image=s.image.copy(), mask=s.mask.copy())
        for s in open_benchmark("grabcut", arguments.grabcut)
    ]
    result = {"where": where()}
    for name in arguments.sections.split(","):
        result[name] = SECTIONS[name](samples, arguments.repeats)
        print(name, json.dumps(result[name], indent=1), flush=True)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def where() -> dict:
    """The machine and the libraries."""
    return {
        "machine": platform.processor() or platform.machine(),
        "threads": threads(),  # of PyTorch, OpenCV and XLA each
        "load": round(os.getloadavg()[0], 1),  # of a shared machine, when the run began
        "published": " at ".join(published.COMMITS["MIS"]),
        "versions": published.versions_of((*published.LIBRARIES, "numba")),
    }


def clocks() -> np.ndarray:
    """Seconds of the clock and of all cores."""
    return np.array([time.perf_counter(), time.process_time()])


def compared(times: dict[str, np.ndarray], unit: str, scale: float) -> dict:
    """The ratio, and each side's time a click of seconds (clock, cores) a click."""
    named = lambda x: {"clock": round(float(x[0]), 3), "cores": round(float(x[1]), 3)}  # noqa: E731
    figures = {f"{unit}_a_click": {name: named(scale * x) for name, x in times.items()}}
    return {"ratio": named(times["theirs"] / times["ours"]), **figures}


# ---- the two sides, and a stand-in for the network


@dataclasses.dataclass
class Done:
    """What a side did on one object: clicks (row, col, positive), IoUs float32, seconds."""

    clicks: list[tuple[int, int, bool]]
    ious: np.ndarray
    seconds: np.ndarray


def theirs(net: Callable, sample: Sample, max_clicks=MAX_CLICKS, target=TARGET, zoom=None) -> Done:
    """`evaluate_sample` with the predictor that evaluate.py makes; `zoom` receives its ZoomIn."""
    import torch
    from isegm.inference.evaluation import evaluate_sample
    from isegm.inference.predictors import get_predictor

    crops = {"skip_clicks": -1, "target_size": (SIZE, SIZE)}
    predictor = get_predictor(net, "NoBRS", torch.device("cpu"), 0.5, zoom_in_params=crops)
    if zoom is not None:
        zoom.append(predictor.zoom_in)
    start = clocks()
    clicks, ious, _ = evaluate_sample(
        sample.image, sample.mask, predictor, target, pred_thr=0.5, max_clicks=max_clicks
    )
    seconds = clocks() - start
    return Done([(*map(int, c.coords), bool(c.is_positive)) for c in clicks], ious, seconds)


def ours(net: Callable, sample: Sample, max_clicks=MAX_CLICKS, target=TARGET) -> Done:
    """`mis_jax.clicker.rounds` with `Predictor`."""
    from mis_jax.clicker import rounds
    from mis_jax.predictor import Predictor

    predictor = Predictor(net, SIZE)
    start = clocks()
    done = list(rounds(predictor, sample, target, max_clicks))
    seconds = clocks() - start
    clicks = [(r.row, r.col, bool(r.positive)) for r in done]
    return Done(clicks, np.array([r.iou for r in done], np.float32), seconds)


SIDES = {"theirs": theirs, "ours": ours}


class StandIn:
    """A network that plays logits; `seconds` is what it spent, for callers to leave out.

    Args:
        logits: float32 [2, S, S] for each click, of the image and of its mirror image.
    """

    with_prev_mask = True  # the published predictor asks

    def __init__(self, logits: list[np.ndarray]) -> None:
        self.logits, self.seconds = iter(logits), np.zeros(2)

    def __call__(self, *inputs) -> np.ndarray | dict:
        """The next logits as whoever asks wants them: their (x, points), or ours."""
        start = clocks()
        logits = next(self.logits)
        if len(inputs) == 2:
            import torch

            logits = {"instances": torch.from_numpy(logits)[:, None]}
        self.seconds += clocks() - start
        return logits


def recorded(sample: Sample, number: int) -> list[np.ndarray]:
    """Logits for a stand-in, made while the published loop asks for them."""
    from protocol_pairs import LEVELS  # whose sigmoids PyTorch and SciPy round alike

    rng, made, zoom = np.random.default_rng(number), [], []

    def answer(x, points):
        top, bottom, left, right = zoom[0]._object_roi
        there = np.uint8(sample.mask[top : bottom + 1, left : right + 1] == 1)
        away = cv2.distanceTransform(1 - cv2.resize(there, (SIZE, SIZE)), cv2.DIST_L2, 5)
        noise = cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE), np.float32), (0, 0), 20)
        noise *= np.float32(NOISE / (len(made) + 1)) / noise.std()
        value = 0.5 - (away > 0) - away / FALL + noise
        logits = LEVELS[np.digitize(value, np.linspace(-0.5, 0.5, len(LEVELS) - 1))]
        made.append(np.stack([logits, logits[:, ::-1]]))
        return StandIn(made[-1:])(x, points)

    answer.with_prev_mask = True
    theirs(answer, sample, zoom=zoom)
    return made


# ---- a: without the network


def without_network(samples: list[Sample], repeats: int) -> dict:
    """Milliseconds a click, in all and by part: medians over turns for each object, then means."""
    times = {name: np.zeros((repeats, len(samples), 2)) for name in SIDES}
    parts = {name: defaultdict(lambda: np.zeros((repeats, len(samples)))) for name in SIDES}
    clicks = 0
    for k, sample in enumerate(samples):
        logits = recorded(sample, k)
        clicks += len(logits)
        for repeat in range(-1, repeats):  # the first turn warms up, the last one overwrites it
            done = {}
            for name, side in SIDES.items():
                net = StandIn(logits)
                done[name] = side(net, sample)
                times[name][repeat, k] = done[name].seconds - net.seconds
            assert done["ours"].clicks == done["theirs"].clicks, sample.id
            assert np.array_equal(done["ours"].ious, done["theirs"].ious), sample.id
        for repeat in range(repeats):
            for name in SIDES:
                for part, seconds in seconds_of_parts(name, StandIn(logits), sample).items():
                    parts[name][part][repeat, k] = seconds
    mean = lambda x: np.median(x, 0).sum(0) / clicks  # noqa: E731
    return {
        **compared({name: mean(x) for name, x in times.items()}, "ms", 1e3),
        "parts_ms_a_click": {
            name: {part: round(1e3 * float(mean(x)), 3) for part, x in found.items()}
            for name, found in parts.items()
        },
        "objects": len(samples),
        "clicks": clicks,
    }


def seconds_of_parts(name: str, net: StandIn, sample: Sample) -> dict[str, float]:
    """Of one run on an object; what a part calls that is a part too is not in it."""
    spent, inner = defaultdict(float), [0.0]  # inner: of the parts within each that runs

    def timed(part, function):
        def run(*args, **kwargs):
            start = time.perf_counter()
            inner.append(0.0)
            found = function(*args, **kwargs)
            seconds = time.perf_counter() - start
            spent[part] += seconds - inner.pop()
            inner[-1] += seconds
            return found

        return run

    with contextlib.ExitStack() as stack:
        for part, owner, key in PARTS[name]():
            wrapped = timed(part, getattr(owner, key))
            stack.enter_context(mock.patch.object(owner, key, wrapped))
        timed("rest", SIDES[name])(net, sample)
    spent["to the network"] -= net.seconds[0]
    return spent


def _their_parts() -> list[tuple[str, object, str]]:
    from isegm.inference import utils
    from isegm.inference.clicker import Clicker
    from isegm.inference.predictors.base import BasePredictor
    from isegm.inference.transforms import SigmoidForPred, zoom_in

    return [
        ("user", Clicker, "__init__"),
        ("user", Clicker, "make_next_click"),
        ("image", BasePredictor, "set_input_image"),
        ("region", zoom_in, "get_object_roi"),
        ("to the network", BasePredictor, "get_prediction"),  # and the flip back
        ("sigmoid", SigmoidForPred, "inv_transform"),
        ("from the network", zoom_in.ZoomIn, "inv_transform"),
        ("IoU", utils, "get_iou"),
    ]


def _our_parts() -> list[tuple[str, object, str]]:
    from mis_jax import clicker, predictor

    return [
        ("user", clicker, "next_click"),
        ("image", predictor.Predictor, "set_image"),
        ("region", predictor, "next_roi"),
        ("to the network", predictor.Predictor, "click"),  # and the flip back
        ("sigmoid", predictor, "expit"),
        ("from the network", predictor, "restore"),
        ("IoU", clicker, "iou"),
    ]


PARTS = {"theirs": _their_parts, "ours": _our_parts}


# ---- b: the simulated user


def user(samples: list[Sample], repeats: int) -> dict:
    """Milliseconds a click of the simulated user: medians over turns for each, then means."""
    met = [case for k, sample in enumerate(samples) for case in masks_met(sample, k)]
    wrong = lambda k, m: np.random.default_rng(k).random(m.shape) < SPECKLED  # noqa: E731
    speckled = [(truth, m ^ wrong(k, m), clicks) for k, (truth, m, clicks) in enumerate(met)]
    return {"met": user_on(met, repeats), "speckled": user_on(speckled, repeats)}


def masks_met(sample: Sample, number: int) -> list[tuple[np.ndarray, np.ndarray, list]]:
    """(truth, mask, clicks so far) before each click of an evaluation."""
    from mis_jax.clicker import rounds
    from mis_jax.predictor import Predictor

    predictor = Predictor(StandIn(recorded(sample, number)), SIZE)
    done = list(rounds(predictor, sample, TARGET, MAX_CLICKS))
    masks = [np.zeros(sample.mask.shape, bool), *(r.mask for r in done)]
    clicks = [(r.row, r.col) for r in done]
    return [(sample.mask, masks[k], clicks[:k]) for k in range(len(done))]


def user_on(cases: list[tuple], repeats: int) -> dict:
    """Figures for (truth, mask, clicks so far) each."""
    from isegm.inference.clicker import Click, Clicker

    from mis_jax.clicker import next_click

    times = {name: np.zeros((repeats, len(cases), 2)) for name in SIDES}
    for k, (truth, mask, clicked) in enumerate(cases):
        clicker = Clicker(truth, [Click(True, at) for at in clicked])
        for repeat in range(-1, repeats):
            start = clocks()
            click = clicker._get_next_click(mask)
            between = clocks()
            row, col, positive = next_click(truth, mask, clicked)
            times["ours"][repeat, k] = clocks() - between
            times["theirs"][repeat, k] = between - start
            assert (row, col, positive) == (*click.coords, click.is_positive)
    means = {name: np.median(x, 0).mean(0) for name, x in times.items()}
    return compared(means, "ms", 1e3) | {"clicks": len(cases)}


# ---- c: whole clicks


def whole(samples: list[Sample], repeats: int, objects: int = 2, clicks: int = 3) -> dict:
    """Seconds a click with SimpleClick ViT-B: medians over objects and turns."""
    nets, times, done = same_networks(), defaultdict(list), {}
    for name, side in SIDES.items():  # compiles
        side(nets[name], samples[0], 1, 1.01)
    for _ in range(repeats):
        for k, sample in enumerate(samples[:objects]):
            for name, side in SIDES.items():
                done[name, k] = side(nets[name], sample, clicks, 1.01)
                times[name].append(done[name, k].seconds / clicks)
    pairs = [(done["theirs", k], done["ours", k]) for k in range(objects)]
    medians = {name: np.median(x, 0) for name, x in times.items()}
    return {
        **compared(medians, "s", 1),
        "clicks": objects * clicks,
        "clicks_that_differ": sum(
            x != y for a, b in pairs for x, y in zip(a.clicks, b.clicks, strict=True)
        ),
        "ious_apart": max(float(np.abs(a.ious - b.ious).max()) for a, b in pairs),
    }


def same_networks() -> dict[str, Callable]:
    """ViT-B of both sides with weights from a seed, which cross in a file of theirs."""
    import torch
    from fidelity import state_dict
    from isegm.model.is_plainvit_model import PlainVitModel
    from isegm.model.modeling.transformer_helper.cross_entropy_loss import CrossEntropyLoss

    from mis_jax import checkpoint, official
    from mis_jax.predictor import make_network
    from mis_jax.simpleclick import VARIANTS

    given = official.parameters(VARIANTS["B"], SIZE)
    given["head_params"]["loss_decode"] = CrossEntropyLoss()
    names = ("use_disks", "norm_radius", "with_prev_mask", "backbone_params", "neck_params",
             "head_params", "random_split")  # fmt: skip
    model = PlainVitModel(**{name: given[name] for name in names}).eval()
    shapes = {key: tuple(x.shape) for key, x in model.state_dict().items()}
    tensors = {key: torch.as_tensor(x) for key, x in state_dict(shapes).items()}
    model.load_state_dict(tensors, strict=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "same.pth"
        torch.save({"state_dict": model.state_dict(), "config": model._config}, file)
        network = make_network(*checkpoint.load(file), SIZE)
    return {"theirs": model, "ours": network}


SECTIONS = {"a": without_network, "b": user, "c": whole}


if __name__ == "__main__":
    main()
