"""The published PyTorch code beside ours: where it lies, and what it needs of newer libraries.

Every script here takes the folder that holds the clones; docs/fidelity.md says how to make it.
"""

import argparse
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
# Inputs and fixtures: tests/fidelity.py, and the tests that compare with what is recorded.
sys.path[:0] = [str(ROOT / "tests" / room) for room in ("", "features", "models", "training")]

COMMITS = {  # folder -> repository and the commit that was compared
    "MIS": ("lkhl/MIS", "25e2d86"),
    "SimpleClick": ("uncbiag/SimpleClick", "f33112e"),
    "dino": ("facebookresearch/dino", "7c446df"),
    "dinov2": ("facebookresearch/dinov2", "b8931f7"),
    "mae": ("facebookresearch/mae", "efb2a80"),
    "moco-v3": ("facebookresearch/moco-v3", "c349e6e"),
}
LIBRARIES = ("torch", "torchvision", "timm", "mmcv", "albumentations", "numpy", "opencv-python",
             "opencv-python-headless", "jax", "flax")  # fmt: skip


def sources(description: str) -> Path:
    """The folder of the clones, from the command line; numpy's old names are given back."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("sources", type=Path, help="folder that holds the clones")
    old_numpy_names()
    return parser.parse_args().sources.resolve()


def old_numpy_names() -> None:
    """Gives numpy back the names that the published code knows."""
    kinds = {"float": (np.float16, np.float32, np.float64), "others": (bool, object, str),
             "int": (np.int8, np.int16, np.int32, np.int64),
             "uint": (np.uint8, np.uint16, np.uint32, np.uint64)}  # fmt: skip
    vars(np).update(int=int, float=float, bool=np.bool_, sctypes=kinds)


def use(folder: Path, name: str) -> None:
    """Puts a clone first on the import path, and checks that it is the commit compared."""
    repository, commit = COMMITS[name]
    path = folder / name
    found = subprocess.run(
        ["git", "-C", str(path), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout
    if not found.startswith(commit):
        raise SystemExit(f"{path} must be a clone of {repository} at {commit}")
    sys.path.insert(0, str(path))


def origin(script: str, *names: str) -> str:
    """What a fixture says of itself."""
    code = ", ".join(" at ".join(COMMITS[name]) for name in names)
    versions = ", ".join(f"{k} {v}" for k, v in versions_of(LIBRARIES).items())
    return f"Made by tools/fidelity/{Path(script).name} from {code}; {versions}."


def versions_of(libraries: Sequence[str]) -> dict[str, str]:
    """The installed ones and their versions."""
    found = {}
    for name in libraries:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_results(script: str, rows: Sequence[Mapping], *names: str, **more) -> None:
    """Writes results/fidelity/SCRIPT.json, a row for each part compared, and `more`.

    A row has "part", "oracle", "cases" (what was compared), "worst" (a number) and "unit".
    """
    path = ROOT / "results" / "fidelity" / f"{Path(script).stem}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"origin": origin(script, *names), "rows": list(rows), **more}
    path.write_text(json.dumps(result, indent=1) + "\n")
    for row in rows:
        print(f"{row['part']}: {row['worst']} {row['unit']} ({row['cases']}; {row['oracle']})")
