"""Speed of the train step, beside the published PyTorch trainer on the same device in the same run.

    python tools/bench/train.py [--variant B] [--crop 448] [--batch N] [--steps N]
        [--published FOLDER] [--json FILE]

Both sides take turns on the same batches and simulate the same numbers of clicks, each number from
0 to `config.clicks.max_next` in turn, so that a cycle is the mean work of a train step. FOLDER
holds the clones that docs/fidelity.md makes; it needs torch, and on a GPU the environment variable
XLA_PYTHON_CLIENT_PREALLOCATE=false, so that both sides find memory. Weights are random, so that
errors are large and their distance transforms slow.
"""

import argparse
import dataclasses
import json
import os
import platform
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mis_jax import config
from mis_jax.models import click_maps, simpleclick
from mis_jax.training import monitor, next_clicks, sharding, train_step

SCHEDULE = 55 * 8498  # samples of the paper's training: epochs, images of SBD
FIRST = 100  # order of a click that came with the sample
COMPILED = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass
class Side:
    """One of the two codes."""

    step: Callable[[int], None]  # does a step with so many simulated clicks, and waits for it
    device_peak: Callable[[], int]  # bytes of an accelerator's memory that it used at most


def main() -> None:
    """Prints the figures, and writes them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="B", help="config.model.variant")
    parser.add_argument("--crop", type=int, default=448, help="config.data.crop")
    parser.add_argument("--batch", type=int, default=32, help="config.optim.batch_size")
    parser.add_argument("--steps", type=int, default=20, help="steps to time, at least")
    parser.add_argument("--published", type=Path, help="folder that holds the clones")
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    c = settings(arguments.variant, arguments.crop, arguments.batch)
    batches = [batch(c, seed) for seed in range(c.clicks.max_next + 1)]
    result = {"where": where(), "variant": arguments.variant, "crop": arguments.crop,
              "batch": arguments.batch}  # fmt: skip
    compilations = Compilations()
    before = resident()
    ours, first = our_side(c, batches, compilations)
    result["first_step_seconds"] = round(first, 2)
    result["compilations"] = {"first step": compilations.count}
    sides = {"ours": ours}
    memory = {"ours": used(ours, before)}
    if arguments.published:
        for kind in ("float32", "bfloat16") if has_bfloat16() else ("float32",):
            name = f"published {kind}"
            sides[name] = published_side(arguments.published.resolve(), c, batches, kind)
            memory[name] = used(sides[name])
    cycles = -(-arguments.steps // len(batches))
    times = timed(sides, len(batches), cycles)
    result["compilations"]["later"] = compilations.count - result["compilations"]["first step"]
    result["timed_steps"] = cycles * len(batches)
    result["sides"] = {name: figures(c, times[name], memory[name]) for name in sides}
    rate = result["sides"]["ours"]["images_per_second"]
    result["minutes_of_the_papers_schedule"] = round(SCHEDULE / rate / 60, 1)
    result["flops_per_image"] = monitor.train_flops(c)
    for key in ("images_per_second", "images_per_cpu_second"):
        ours, *others = (x[key] for x in result["sides"].values())
        names = list(sides)[1:]
        result[f"{key}_ratio"] = {n: round(ours / x, 3) for n, x in zip(names, others, strict=True)}
    result["distance_transform"] = distance(c, batches, result["sides"]["ours"]["step_seconds"])
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def settings(variant: str, crop: int, batch_size: int) -> ConfigDict:
    """The published run but for the sizes."""
    c = config.default()
    c.model.variant, c.data.crop, c.optim.batch_size = variant, crop, batch_size
    config.check(c)
    return c


def where() -> dict:
    """The device and the machine."""
    return {
        "device": jax.devices()[0].device_kind,
        "machine": platform.processor() or platform.machine(),
        "threads": threads(),
        "load": round(os.getloadavg()[0], 1),  # of a shared machine, when the run began
        "jax": jax.__version__,
    }


def threads() -> int:
    """Cores that this process may use, as XLA counts them."""
    return len(os.sched_getaffinity(0))


def batch(c: ConfigDict, seed: int) -> dict[str, np.ndarray]:
    """Noise with an ellipse each, its mask and a few first clicks, as from `input.train_stream`."""
    rng, side, half = np.random.default_rng(seed), c.data.crop, c.clicks.max_points
    n = c.optim.batch_size
    row, col = np.mgrid[:side, :side]
    middle, radii = rng.uniform(0.2, 0.8, (n, 2)) * side, rng.uniform(0.1, 0.4, (n, 2)) * side
    masks = [
        ((row - m[0]) / r[0]) ** 2 + ((col - m[1]) / r[1]) ** 2 < 1
        for m, r in zip(middle, radii, strict=True)
    ]
    points = np.full((n, 2 * half, 3), -1, np.float32)
    for sample, mask in zip(points, masks, strict=True):
        for start, region in ((0, mask), (half, ~mask)):
            places = rng.permutation(np.argwhere(region))[: rng.integers(1, 4)]
            sample[start : start + len(places)] = np.pad(
                places, ((0, 0), (0, 1)), constant_values=FIRST
            )
    return {
        "image": rng.integers(0, 256, (n, side, side, 3), np.uint8),
        "mask": np.stack(masks).astype(np.uint8),
        "points": points,
        "index": np.arange(n),
    }


class Compilations:
    """Counts the programs that XLA compiles."""

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._add)

    def _add(self, event: str, *_, **__) -> None:
        self.count += event == COMPILED


def our_side(c: ConfigDict, batches: list[dict], compilations: Compilations) -> tuple[Side, float]:
    """Our step, compiled, and the seconds that the first one took.

    No step moves anything between the host and the device, but for the number that says which step
    it is: by it, the step draws its number of simulated clicks.
    """
    mesh = sharding.make_mesh(1)
    step_fn, init, _, places = train_step.make_step(c, mesh)
    state = init()
    place = sharding.batch_sharding(mesh)
    batches = [jax.block_until_ready(sharding.to_devices(b, place)) for b in batches]
    numbers = steps_of(c)

    def step(rounds: int) -> None:
        nonlocal state
        state["step"] = jax.device_put(np.int32(numbers[rounds]), places["step"])
        with jax.transfer_guard("disallow"):
            state, metrics = step_fn(state, batches[rounds])
            jax.block_until_ready((state, metrics))

    compilations.count = 0
    start = time.perf_counter()
    step(0)
    first = time.perf_counter() - start
    return Side(step, lambda: jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]), first


def steps_of(c: ConfigDict) -> list[int]:
    """For each number of simulated clicks, a step that draws it in `train_step.prepare`."""
    side, half = 8, c.clicks.max_points
    sample = {"image": np.zeros((1, side, side, 3), np.uint8),
              "mask": np.ones((1, side, side), np.uint8),
              "points": np.full((1, 2 * half, 3), -1, np.float32)}  # fmt: skip
    blind = lambda image, prev, points: jnp.full_like(prev, -9)  # noqa: E731

    @jax.jit
    def clicks(number):
        key = jax.random.fold_in(jax.random.key(c.seed), number)
        return jnp.sum(train_step.prepare(c, key, sample, blind)["points"][..., 2] > 0)

    found, number = {}, 0
    while len(found) <= c.clicks.max_next:
        found.setdefault(int(clicks(number)), number)
        number += 1
    return [found[rounds] for rounds in range(c.clicks.max_next + 1)]


def has_bfloat16() -> bool:
    """Whether PyTorch's bf16 is worth timing: without the processor's help a step takes minutes."""
    import torch

    return jax.default_backend() == "gpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def published_side(folder: Path, c: ConfigDict, batches: list[dict], kind: str) -> Side:
    """The published trainer's step, with its own augmentation, clicks, losses and Adam."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "fidelity"))
    import published

    published.old_numpy_names()
    published.use(folder, "MIS")
    import torch
    from mis.model.is_model import MISModel
    from mis.model.losses import BCEWithLogitsLoss, SmoothLoss
    from mis.training import MISTrainer

    torch.set_num_threads(threads())
    device = torch.device("cuda" if jax.default_backend() == "gpu" else "cpu")
    v, side = simpleclick.check_size(c.model.variant, c.model.patch, c.data.crop), c.data.crop
    net = MISModel(
        use_disks=True,
        norm_radius=click_maps.CLICK_RADIUS,
        with_prev_mask=True,
        backbone_params=dict(
            img_size=(side, side), patch_size=(v.patch, v.patch), in_chans=3, embed_dim=v.dim,
            depth=v.depth, num_heads=v.heads, mlp_ratio=4, qkv_bias=True,
        ),
        neck_params=dict(in_dim=v.dim, out_dims=list(v.pyramid)),
        head_params=dict(
            in_channels=list(v.pyramid), in_index=[0, 1, 2, 3], dropout_ratio=0.1, num_classes=1,
            loss_decode=None, align_corners=False, upsample="x1", channels=v.head,
        ),
    )  # fmt: skip
    net.to(device).train()
    if kind == "bfloat16":  # the published code alone hands bf16 to numpy, which has none
        net.forward = _autocast(net.forward, torch, device)
    trainer = MISTrainer.__new__(MISTrainer)
    vars(trainer).update(
        net=net, device=device, train_metrics=[], max_num_next_clicks=c.clicks.max_next,
        click_models=None, prev_mask_drop_prob=0.0,
        cfg=SimpleNamespace(local_rank=1),  # not the process that logs
        loss_cfg=dict(
            instance_pseudo_loss=BCEWithLogitsLoss(), instance_pseudo_loss_weight=1.0,
            instance_smooth_loss=SmoothLoss(), instance_smooth_loss_weight=c.loss.smooth_weight,
        ),
    )  # fmt: skip
    o = c.optim
    optimizer = torch.optim.Adam(net.parameters(), lr=o.lr, betas=(o.b1, o.b2), eps=o.eps)
    batches = [_tensors(b, torch, device) for b in batches]

    def step(rounds: int) -> None:
        drawn, random.randint = random.randint, lambda low, high: rounds
        try:
            loss = trainer.batch_forward(dict(batches[rounds]))[0]
        finally:
            random.randint = drawn
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    step(0)
    return Side(step, torch.cuda.max_memory_allocated)


def _autocast(forward: Callable, torch, device) -> Callable:
    def cast(*args):
        with torch.autocast(device.type, torch.bfloat16):
            found = forward(*args)
        return found | {"instances": found["instances"].float()}

    return cast


def _tensors(arrays: dict, torch, device) -> dict:
    image = torch.as_tensor(arrays["image"]).permute(0, 3, 1, 2).float() / 255
    mask = torch.as_tensor(arrays["mask"])[:, None].float()
    found = {"images": image, "instances": mask, "points": torch.as_tensor(arrays["points"])}
    return {k: v.contiguous().to(device) for k, v in found.items()}


def timed(sides: dict[str, Side], kinds: int, cycles: int) -> dict[str, np.ndarray]:
    """Seconds [cycles, kinds, 2] of each side's steps, of the clock and of all cores; in turn."""
    times = {name: np.zeros((cycles, kinds, 2)) for name in sides}
    for cycle in range(cycles):
        for rounds in range(kinds):
            for name, side in sides.items():
                start = np.array([time.perf_counter(), time.process_time()])
                side.step(rounds)
                end = np.array([time.perf_counter(), time.process_time()])
                times[name][cycle, rounds] = end - start
    return times


def figures(c: ConfigDict, times: np.ndarray, memory: float | None) -> dict:
    """A side's medians over cycles for each number of simulated clicks, and their means."""
    medians = np.median(times, 0)
    seconds, cores = medians.mean(0)
    rate = c.optim.batch_size / seconds
    kind = jax.devices()[0].device_kind
    peak = next((monitor.PEAKS[k] for k in monitor.PEAKS if k in kind), None)
    mfu = rate * monitor.train_flops(c) / peak if peak else None
    return {
        "step_seconds": round(float(seconds), 4),
        "step_seconds_by_clicks": [round(float(x), 4) for x in medians[:, 0]],
        "images_per_second": round(float(rate), 4),
        "images_per_cpu_second": round(float(c.optim.batch_size / cores), 4),
        "mfu": mfu and round(float(mfu), 4),  # unknown where the device's peak is
        "memory_gib": memory and round(memory, 2),
    }


def resident() -> float:
    """GiB of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**30


def used(side: Side, before: float | None = None) -> float | None:
    """GiB at most while the side does its longest step, of the device or, on the CPU, the process.

    On the CPU it counts from what the process had `before` the side was built; later sides, which
    take what that one gave back, cannot be told.
    """
    rounds = config.clicks()["max_next"]
    side.step(rounds)
    if jax.default_backend() != "cpu":
        return side.device_peak() / 2**30
    if before is None:
        return None
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    side.step(rounds)
    peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
    return int(peak) / 2**20 - before


def distance(c: ConfigDict, batches: list[dict], step_seconds: float) -> dict:
    """Seconds of the distance transform alone, and its share of a step of mean clicks.

    All wrong: the object was missed and all else taken for it, the most that can be; missed: the
    object alone.
    """
    masks = np.concatenate([b["mask"] for b in batches])[: c.optim.batch_size].astype(np.int32)
    cases = {
        "exact, all wrong": (next_clicks.squared_distance, 2 - masks),
        "exact, missed": (next_clicks.squared_distance, masks),
        "chamfer, all wrong": (
            next_clicks.chamfer_distance, np.concatenate([masks == 1, masks == 0])
        ),
    }  # fmt: skip
    found = {}
    for name, (function, labels) in cases.items():
        run, labels = jax.jit(function), jnp.asarray(labels)
        jax.block_until_ready(run(labels))
        seconds = []
        for _ in range(7):
            start = time.perf_counter()
            jax.block_until_ready(run(labels))
            seconds.append(time.perf_counter() - start)
        median = statistics.median(seconds)
        share = median * c.clicks.max_next / 2 / step_seconds
        found[name] = {"seconds": round(median, 5), "share_of_step": round(share, 4)}
    return found


if __name__ == "__main__":
    main()
