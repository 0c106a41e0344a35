"""Speed of an evaluation's clicks beside the published loop, on the same images, in the same run.

    python tools/bench/evaluate.py SOURCES GRABCUT [--sections a,b,c] [--json FILE]

SOURCES holds the clones that docs/fidelity.md makes. Every library uses as many threads as the
process has cores: `taskset` chooses. Times are of the clock and of all cores; where others use the
machine too, the second is the steadier one. Ratios are theirs to ours: more is better for us.

a. All of a click that is not the network: `evaluate_sample` with its Clicker, ZoomIn, flip and IoU
   against `rounds` with `Predictor`, on GrabCut's images at their own size, until an IoU of 0.90 or
   20 clicks. In the network's place, recorded logits are played to both sides, at no cost: the
   object's mask with smooth errors around it that shrink from click to click, as a trained
   network's do. Our flip, which is compiled into the network, is compiled alone here: it writes out
   all mirror images. Sides take turns, object by object; clicks and IoUs have to be the same.
b. The simulated user alone: Clicker against `next_click`, on the masks met in a, and on the same
   masks with 1 % of all pixels wrong, which spreads the errors over the whole image. Choices have
   to be the same.
c. Whole clicks of SimpleClick ViT-B at 448 pixels with flip, weights from a seed, float32.
d. Ours with one object in flight and with many, by the network of results/tiny_cpu, on all objects.
   Their clicks and IoUs have to be the same.

OpenCV runs without Intel's IPP, whose rounding would decide ties; its own precise distance
transform is also the faster one on one thread.
"""

import argparse
import contextlib
import dataclasses
import functools
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

sys.path.insert(0, str(Path(__file__).parents[1] / "fidelity"))
import published

from mis_jax.datasets.benchmarks import open_benchmark
from mis_jax.datasets.samples import Sample

SIZE = 448  # pixels
TARGET, MAX_CLICKS = 0.90, 20
NOISE = 1.2  # of the recorded errors at the first click, where the object's inside is 0.5
FALL = 60  # pixels of the square, over which the recorded background falls by 1
SPECKLED = 0.01
NANO = Path(__file__).parents[2] / "results" / "tiny_cpu" / "nano.safetensors"
IN_FLIGHT = (1, 2, 4, 8, 16)  # objects


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

    threads = len(os.sched_getaffinity(0))  # XLA counts them alike
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    if hasattr(cv2, "ipp"):
        cv2.ipp.setUseIPP(False)
    samples = [  # PyTorch warns of arrays that cannot be written
        dataclasses.replace(s, image=s.image.copy(), mask=s.mask.copy())
        for s in open_benchmark("grabcut", arguments.grabcut)
    ]
    result = {
        "machine": platform.processor() or platform.machine(),
        "threads": threads,
        "load": round(os.getloadavg()[0], 1),  # of a shared machine, when the run began
        "published": " at ".join(published.COMMITS["MIS"]),
        "versions": published.versions_of((*published.LIBRARIES, "numba")),
    }
    for name in arguments.sections.split(","):
        result[name] = SECTIONS[name](samples, arguments.repeats)
        print(name, json.dumps(result[name], indent=1), flush=True)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def clocks() -> np.ndarray:
    """Seconds of the clock and of all cores."""
    return np.array([time.perf_counter(), time.process_time()])


def compared(times: dict[str, np.ndarray], unit: str, scale: float) -> dict:
    """The ratio, and each side's time a click, of seconds (clock, cores) a click."""
    named = lambda x: {"clock": round(float(x[0]), 3), "cores": round(float(x[1]), 3)}  # noqa: E731
    figures = {f"{unit}_a_click": {name: named(scale * x) for name, x in times.items()}}
    return {"ratio": named(times["theirs"] / times["ours"]), **figures}


# ---- the two sides


@dataclasses.dataclass
class Done:
    """What a side did on one object: clicks (row, col, positive), IoUs float32, seconds, masks."""

    clicks: list[tuple[int, int, bool]]
    ious: np.ndarray
    seconds: np.ndarray
    masks: list[np.ndarray] = dataclasses.field(default_factory=list)


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
    """`clicker.rounds` with `Predictor`."""
    from mis_jax.evaluation import clicker
    from mis_jax.predictors.network import Predictor

    predictor = Predictor(net, SIZE)
    start = clocks()
    done = list(clicker.rounds(predictor, sample, target, max_clicks, clicker.next_click))
    seconds = clocks() - start
    clicks = [(r.row, r.col, bool(r.positive)) for r in done]
    ious = np.array([r.iou for r in done], np.float32)
    return Done(clicks, ious, seconds, [r.mask for r in done])


SIDES = {"theirs": theirs, "ours": ours}


def recorded(sample: Sample, number: int) -> list[np.ndarray]:
    """Logits float32 [2, S, S] for each click: of the image and its mirror image."""
    import torch
    from protocol_pairs import LEVELS  # the sides' sigmoids of these are the same

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
        return {"instances": torch.from_numpy(made[-1])[:, None]}

    answer.with_prev_mask = True  # the published predictor asks
    theirs(answer, sample, zoom=zoom)
    return made


def play_theirs(logits: list[np.ndarray]) -> Callable:
    """A published network that answers with them, one after the other."""
    import torch

    play = map(torch.from_numpy, logits)
    net = lambda x, points: {"instances": next(play)[:, None]}  # noqa: E731
    net.with_prev_mask = True
    return net


def play_ours(logits: list[np.ndarray]) -> Callable:
    """The same for our predictor, with the flip; logits are where a network leaves them."""
    import jax

    play, flip = iter(jax.block_until_ready(jax.device_put(logits))), flipped()
    return lambda *inputs: run_flip(flip, next(play), *inputs)


def run_flip(flip: Callable, *inputs: np.ndarray) -> np.ndarray:
    """Mean logits float32 [1, S, S]."""
    return np.asarray(flip(*inputs)[0])


@functools.cache
def flipped() -> Callable:
    """(logits [2, S, S], image, previous, points) -> mean logits, and all that a network gets."""
    import jax

    from mis_jax.predictors.network import mirrored

    def flip(logits, *inputs):
        given = []
        return mirrored(lambda *pairs: given.append(pairs) or logits)(*inputs), given

    return jax.jit(flip)


PLAY = {"theirs": play_theirs, "ours": play_ours}


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
            done = {name: side(PLAY[name](logits), sample) for name, side in SIDES.items()}
            for name in SIDES:
                times[name][repeat, k] = done[name].seconds
            assert done["ours"].clicks == done["theirs"].clicks, sample.id
            assert np.array_equal(done["ours"].ious, done["theirs"].ious), sample.id
        for repeat in range(repeats):
            for name in SIDES:
                for part, seconds in seconds_of_parts(name, logits, sample).items():
                    parts[name][part][repeat, k] = seconds
    mean = lambda x: np.median(x, 0).sum(0) / clicks  # noqa: E731
    by_part = {name: {part: round(1e3 * float(mean(x)), 3) for part, x in sorted(found.items())}
               for name, found in parts.items()}  # fmt: skip
    return {
        **compared({name: mean(x) for name, x in times.items()}, "ms", 1e3),
        "parts_ms_a_click_of_cores": by_part,
        "objects": len(samples),
        "clicks": clicks,
    }


def seconds_of_parts(name: str, logits: list[np.ndarray], sample: Sample) -> dict[str, float]:
    """Of all cores, for one object; what a part calls that is a part too is not in it."""
    spent, inner = defaultdict(float), [0.0]  # inner: of the parts within each that runs

    def timed(part, function):
        def run(*args, **kwargs):
            start = time.process_time()
            inner.append(0.0)
            found = function(*args, **kwargs)
            seconds = time.process_time() - start
            spent[part] += seconds - inner.pop()
            inner[-1] += seconds
            return found

        return run

    with contextlib.ExitStack() as stack:
        for part, owner, key in PARTS[name]():
            wrapped = timed(part, getattr(owner, key))
            stack.enter_context(mock.patch.object(owner, key, wrapped))
        timed("rest", SIDES[name])(PLAY[name](logits), sample)
    return spent


def _their_parts() -> list[tuple[str, object, str]]:
    from isegm.inference import utils
    from isegm.inference.clicker import Clicker
    from isegm.inference.predictors.base import BasePredictor
    from isegm.inference.transforms import AddHorizontalFlip, SigmoidForPred, zoom_in

    return [
        ("user", Clicker, "__init__"),
        ("user", Clicker, "make_next_click"),
        ("image", BasePredictor, "set_input_image"),
        ("region", zoom_in, "get_object_roi"),
        ("to the network", BasePredictor, "get_prediction"),
        ("flip", AddHorizontalFlip, "transform"),
        ("flip", AddHorizontalFlip, "inv_transform"),
        ("sigmoid", SigmoidForPred, "inv_transform"),
        ("from the network", zoom_in.ZoomIn, "inv_transform"),
        ("IoU", utils, "get_iou"),
    ]


def _our_parts() -> list[tuple[str, object, str]]:
    from mis_jax.evaluation import clicker
    from mis_jax.predictors import network

    return [
        ("user", clicker, "next_click"),
        ("image", network.Predictor, "set_image"),
        ("region", network, "next_roi"),
        ("to the network", network.Predictor, "click"),
        ("flip", sys.modules[__name__], "run_flip"),
        ("sigmoid", network, "sigmoid"),
        ("from the network", network, "restore"),
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
    done = ours(play_ours(recorded(sample, number)), sample)
    masks = [np.zeros(sample.mask.shape, bool), *done.masks]
    clicks = [(row, col) for row, col, _ in done.clicks]
    return [(sample.mask, masks[k], clicks[:k]) for k in range(len(clicks))]


def user_on(cases: list[tuple], repeats: int) -> dict:
    """Figures for (truth, mask, clicks so far) each."""
    from isegm.inference.clicker import Click, Clicker

    from mis_jax.evaluation.clicker import next_click

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
    nets, times, done = same_networks(samples[0].image), defaultdict(list), {}
    for name, side in SIDES.items():  # compiles
        side(nets[name], samples[0], 1, 1.01)
    for _ in range(repeats):
        for k, sample in enumerate(samples[:objects]):
            for name, side in SIDES.items():
                done[name, k] = side(nets[name], sample, clicks, 1.01)
                times[name].append(done[name, k].seconds / clicks)
    pairs = [(done["theirs", k], done["ours", k]) for k in range(objects)]
    return {
        **compared({name: np.median(x, 0) for name, x in times.items()}, "s", 1),
        "objects": objects,
        "clicks": objects * clicks,
        "objects_whose_clicks_differ": sum(a.clicks != b.clicks for a, b in pairs),
        "ious_apart": max(float(np.abs(a.ious - b.ious).max()) for a, b in pairs),
    }


def same_networks(image: np.ndarray) -> dict[str, Callable]:
    """ViT-B of both sides with weights from a seed, which cross in a file of theirs.

    Half of the image is foreground to them, so that masks are neither empty nor full.
    """
    import torch
    from isegm.model.is_plainvit_model import PlainVitModel
    from isegm.model.modeling.transformer_helper.cross_entropy_loss import CrossEntropyLoss
    from protocol_pairs import small_tensors

    from mis_jax.models import loading, official
    from mis_jax.models.simpleclick import VARIANTS
    from mis_jax.predictors.network import make_network

    given = official.parameters(VARIANTS["B"], SIZE)
    given["head_params"]["loss_decode"] = CrossEntropyLoss()
    names = ("use_disks", "norm_radius", "with_prev_mask", "backbone_params", "neck_params",
             "head_params", "random_split")  # fmt: skip
    model = PlainVitModel(**{name: given[name] for name in names}).eval()
    shapes = {key: tuple(x.shape) for key, x in model.state_dict().items()}
    tensors = {key: torch.as_tensor(x) for key, x in small_tensors(shapes).items()}
    model.load_state_dict(tensors, strict=True)
    pixels = cv2.resize(image, (SIZE, SIZE)).transpose(2, 0, 1)[None] / np.float32(255)
    x = torch.from_numpy(np.pad(pixels, [(0, 0), (0, 1), (0, 0), (0, 0)]))
    with torch.no_grad():
        logits = model(x, torch.full((1, 2, 3), -1.0))["instances"]
        model.head.conv_seg.bias -= logits.median()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "same.pth"
        torch.save({"state_dict": model.state_dict(), "config": model._config}, file)
        network = make_network(*loading.load(file), SIZE, flip=True)
    return {"theirs": model, "ours": network}


# ---- d


def in_flight(samples: list[Sample], repeats: int) -> dict:
    """Seconds a click by the number of objects in flight; the ratio is that of one to so many."""
    from mis_jax.datasets.samples import Benchmark
    from mis_jax.models import loading

    config, params = loading.load(NANO)
    readers = {s.id: lambda s=s: (s.image, s.mask) for s in samples}
    benchmark = Benchmark("grabcut", None, readers, {})
    turns = [
        {n: _evaluated(config, params, benchmark, n) for n in IN_FLIGHT} for _ in range(repeats)
    ]
    entries = [entry for turn in turns for entry in turn.values()]
    for key in ("clicks", "ious"):
        assert all(entry[key] == entries[0][key] for entry in entries), f"{key} differ"
    seconds = {n: float(np.median([turn[n]["spc"] for turn in turns])) for n in IN_FLIGHT}
    return {
        "ratio": {n: round(seconds[1] / seconds[n], 3) for n in IN_FLIGHT},
        "s_a_click": {n: round(seconds[n], 5) for n in IN_FLIGHT},
        "objects": len(samples),
        "clicks": sum(map(len, entries[0]["clicks"].values())),
        "noc90": entries[0]["noc90"],
    }


def _evaluated(config, params, benchmark, at_once: int) -> dict:
    """The entry in results.json of an evaluation with so many objects in flight."""
    from mis_jax.evaluation import clicking
    from mis_jax.predictors.network import make_network

    settings = config.eval.to_dict() | {"target": TARGET, "max_clicks": MAX_CLICKS}
    network = make_network(config, params, settings["size"], settings["flip"])
    subject = clicking.Subject(
        lambda size, n: clicking.batched_predictors(network, size, settings, n), settings, {}
    )
    with tempfile.TemporaryDirectory() as folder:
        clicking.evaluate_benchmark(subject, benchmark, Path(folder), at_once=at_once)
        return clicking.collect(subject, benchmark, Path(folder))


SECTIONS = {"a": without_network, "b": user, "c": whole, "d": in_flight}


if __name__ == "__main__":
    main()
