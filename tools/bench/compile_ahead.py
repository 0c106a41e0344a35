"""Compiles the train step for accelerators that are not here, and says what it would take there.

    pip install -e '.[tpu]'                                 # the compiler; no TPU is needed
    python tools/bench/compile_ahead.py tpu:v5e:4x4 --batch 128 [--fsdp 16] [--json FILE]
    pip install -e '.[cuda12]'
    python tools/bench/compile_ahead.py gpu:h200.txtpb --batch 32

A TPU is named by its topology. A GPU is described by a file of `gpu_device_info`; those of common
ones are in the repository openxla/xla, in xla/backends/gpu/target_config/specs.

Nothing runs, so nothing is measured: memory, what is sent between devices, and donated buffers are
facts of the compiled program; cycles and what follows from them are the TPU compiler's own
estimates (its GPU compiler gives none).
"""

import argparse
import importlib.metadata
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import jax
import numpy as np
from jax.experimental import topologies
from ml_collections import ConfigDict

from mis_jax import config
from mis_jax.training import monitor, next_clicks, sharding, train_step

THICK = 224  # pixels: thickness of the region whose distance transform is estimated
FLOPS_PER_CYCLE = {"TPU v5 lite": 4 * 128 * 128 * 2}  # of one device's matrix units
COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
)  # fmt: skip
HOST = ("infeed", "outfeed", "send", "recv", "xla_python_cpu_callback", "xla_ffi_python")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8}


def main() -> None:
    """Prints the facts, and writes them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", help="tpu:TOPOLOGY or gpu:FILE")
    parser.add_argument("--variant", default="B", help="config.model.variant")
    parser.add_argument("--crop", type=int, default=448, help="config.data.crop")
    parser.add_argument("--batch", type=int, default=32, help="config.optim.batch_size")
    parser.add_argument("--fsdp", type=int, default=1, help="config.mesh.fsdp")
    parser.add_argument("--remat", default="none", help="config.model.remat")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--hlo", type=Path, help="file for the compiled program")
    a = parser.parse_args()
    c = config.default()
    c.model.variant, c.model.remat, c.data.crop = a.variant, a.remat, a.crop
    c.optim.batch_size, c.mesh.fsdp = a.batch, a.fsdp
    config.check(c)
    found = devices(a.target)
    start = time.monotonic()
    program = compiled(c, found)
    seconds = time.monotonic() - start
    text = program.as_text()
    if a.hlo:
        a.hlo.write_text(text)
    result = {
        "device": f"{len(found)} x {found[0].device_kind}", "compiler": compiler(found[0].platform),
        "variant": a.variant, "crop": a.crop, "batch": a.batch, "fsdp": a.fsdp, "remat": a.remat,
        "compile_seconds": round(seconds), **memory(program), **facts(text),
    }  # fmt: skip
    if found[0].platform == "tpu":
        result["estimate"] = estimate(text, c, found)
    print(json.dumps(result, indent=1))
    if a.json:
        a.json.parent.mkdir(parents=True, exist_ok=True)
        a.json.write_text(json.dumps(result, indent=1) + "\n")


def devices(target: str) -> list[jax.Device]:
    """The devices of a target, to compile for."""
    kind, _, name = target.partition(":")
    if kind not in ("tpu", "gpu"):
        raise SystemExit(f"{target}: give tpu:TOPOLOGY, as tpu:v5e:2x2, or gpu:FILE.")
    try:
        return (tpus if kind == "tpu" else gpus)(name)
    except (RuntimeError, OSError) as error:  # JAX's own and a missing compiler are RuntimeErrors
        extra = "tpu" if kind == "tpu" else "cuda12"
        raise SystemExit(
            f"{target}: {error}; give a topology or a file that is there, and install "
            f"the compiler: pip install -e '.[{extra}]'."
        ) from None


def tpus(topology: str) -> list[jax.Device]:
    """TPUs of a topology."""
    for key, value in (
        ("TPU_SKIP_MDS_QUERY", "1"), ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-4"), ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
    ):  # fmt: skip
        os.environ.setdefault(key, value)  # the library looks for a TPU's host else
    return topologies.get_topology_desc(topology, "tpu").devices


def gpus(path: str) -> list[jax.Device]:
    """The one GPU that a file describes."""
    described = Path(path).read_text()
    return topologies.get_topology_desc(
        "", "cuda", topology="1x1x1", target_config=described
    ).devices


def compiler(platform: str) -> str:
    """The versions that the result depends on."""
    package = "libtpu" if platform == "tpu" else "jax-cuda12-plugin"
    return f"jax {jax.__version__}, {package} {importlib.metadata.version(package)}"


def compiled(c: ConfigDict, found: list[jax.Device]) -> jax.stages.Compiled:
    """The train step of a config, compiled for a mesh of the devices found."""
    # Model code asks for the backend and its devices.
    backend = mock.patch.object(jax, "default_backend", return_value=found[0].platform)
    with backend, mock.patch.object(jax, "devices", return_value=found):
        mesh = sharding.make_mesh(c.mesh.fsdp, found)
        step, _, shapes, places = train_step.make_step(c, mesh)
        state = jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places
        )
        n, side, place = c.optim.batch_size, c.data.crop, sharding.batch_sharding(mesh)
        kinds = {
            "image": ((n, side, side, 3), np.uint8), "mask": ((n, side, side), np.uint8),
            "points": ((n, 2 * c.clicks.max_points, 3), np.float32), "index": ((n,), np.int32),
        }  # fmt: skip
        batch = {k: jax.ShapeDtypeStruct(*v, sharding=place) for k, v in kinds.items()}
        return step.trace(state, batch).lower().compile()


def memory(program: jax.stages.Compiled) -> dict:
    """GiB of one device, and whether the state's buffers are used again."""
    m = program.memory_analysis()
    gib = lambda size: round(size / 2**30, 2)  # noqa: E731
    return {
        "gib_of_a_device": {
            "state and batch": gib(m.argument_size_in_bytes),
            "temporary": gib(m.temp_size_in_bytes),
            "program": gib(m.generated_code_size_in_bytes),
        },
        "donated_share_of_outputs": round(m.alias_size_in_bytes / m.output_size_in_bytes, 5),
    }


def facts(text: str) -> dict:
    """What is sent between devices and to the host, and calls of cuDNN's attention."""
    sent = {"once in a step": {}, "in a simulated click": {}}
    seen = set()  # channels; a TPU's program repeats an asynchronous operation where it overlaps
    for line, times in executed(text, {"simulated_clicks": 1, "distance_transform": 1}):
        name = operation(line)
        kind = next((k for k in COLLECTIVES if name in (k, f"{k}-start")), None)
        channel = re.search(r"channel_id=(\d+)", line)
        if not kind or (channel and (kind, channel[1]) in seen):
            continue
        if channel:
            seen.add((kind, channel[1]))
        loop = "in a simulated click" if "simulated_clicks/while" in line else "once in a step"
        count, size = sent[loop].get(kind, (0, 0))
        sent[loop][kind] = count + times, size + times * output_bytes(line)
    tell = lambda v: {"operations": v[0], "MiB": round(v[1] / 2**20, 3)}  # noqa: E731
    return {
        "sent_between_devices": {k: {n: tell(v) for n, v in s.items()} for k, s in sent.items()},
        "host_transfers": sum(operation(x) in HOST or any(f'"{h}' in x for h in HOST)
                              for x in text.splitlines()),
        "cudnn_attention_calls": text.count('custom_call_target="__cudnn$fmha'),
    }  # fmt: skip


def operation(line: str) -> str:
    """The name of an instruction's operation, or nothing."""
    found = re.search(r"^\s+(?:ROOT )?%?[\w.\-]+ = (?:\(.*?\)|\S+) ([a-z\-]+)\(", line)
    return found[1] if found else ""


def output_bytes(line: str) -> int:
    """Bytes of an instruction's output; an asynchronous start's is listed after its input."""
    name = operation(line)
    head = line.partition(" = ")[2].partition(f" {name}(")[0]
    sizes = [BYTES.get(kind, 0) * int(np.prod([int(n) for n in shape.split(",") if n] or [1]))
             for kind, shape in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", head)]  # fmt: skip
    return sizes[1] if name.endswith("-start") and name != "all-reduce-start" else sum(sizes)


def estimate(text: str, c: ConfigDict, found: list[jax.Device]) -> dict:
    """The compiler's cycles of a step with the mean number of simulated clicks."""
    passes = -(-THICK // 2 // next_clicks.ROWS)
    total = distance = 0.0
    for line, times in executed(
        text, {"simulated_clicks": c.clicks.max_next / 2, "distance_transform": passes}
    ):
        cycles = re.search(r'"estimated_cycles":"(\d+)"', line)
        total += times * float(cycles[1] if cycles else 0)
        if cycles and "distance_transform" in line:
            distance += times * float(cycles[1])
    kind = found[0].device_kind
    flops = monitor.train_flops(c) * c.optim.batch_size / len(found)
    per_cycle, peak = FLOPS_PER_CYCLE.get(kind), monitor.PEAKS.get(kind)
    return {
        "megacycles": round(total / 1e6, 1),
        "step_seconds": per_cycle and round(total * per_cycle / peak, 4),
        "mfu": per_cycle and round(flops / total / per_cycle, 3),
        "distance_transform": {
            "share_of_step": round(distance / total, 4), "of_a_region_of_pixels": THICK,
        },
    }  # fmt: skip


def executed(text: str, rounds: dict[str, float]) -> Iterator[tuple[str, float]]:
    """Each instruction of a compiled program, and how often it runs.

    The loops of the scopes in `rounds` take so many of them; the lengths of all others are read in
    the program.
    """
    programs = dict(computations(text))

    def walk(name: str, times: float) -> Iterator[tuple[str, float]]:
        for line in programs[name]:
            yield line, times
            if operation(line) == "while":
                condition, body = (re.search(rf"{part}=%?([\w.\-]+)", line)[1]
                                   for part in ("condition", "body"))  # fmt: skip
                more = times * length(line, programs[condition], rounds)
                yield from walk(condition, more)
                yield from walk(body, more)
            elif called := re.search(r"calls=%?([\w.\-]+)", line):
                yield from walk(called[1], times)

    return walk(re.search(r"^ENTRY %?([\w.\-]+)", text, re.MULTILINE)[1], 1)


def length(loop: str, condition: list[str], rounds: dict[str, float]) -> float:
    """Rounds of a loop."""
    for scope, number in rounds.items():
        if f'{scope}/while"' in loop:
            return number
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', loop):
        return int(known[1])
    limits = [re.search(r" constant\((\d+)\)", line) for line in condition]
    limits = [int(x[1]) for x in limits if x]
    if len(limits) != 1 or "direction=LT" not in condition[-1]:
        raise SystemExit(f"a loop of unknown length: {loop.strip()[:200]}")
    return limits[0]


def computations(text: str) -> Iterator[tuple[str, list[str]]]:
    """The computations of a compiled program: name, lines."""
    name, lines = None, []
    for line in text.splitlines():
        header = re.match(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$", line)
        if header:
            name, lines = header[1], []
        elif line.startswith("}") and name:
            yield name, lines
            name = None
        elif name:
            lines.append(line)


if __name__ == "__main__":
    main()
