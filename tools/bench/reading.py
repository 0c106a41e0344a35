"""`mis-jax propose` on many photos beside the same of another checkout, and what `check` takes.

    python tools/bench/reading.py PHOTOS OTHER_CHECKOUT [--count 10000] [--rounds 2] [--json FILE]

The photos are used again under other names where there are fewer than --count. Each round runs both
programs, in turns; the processor time of each is what counts, as it moves less than the clock.
"""

import argparse
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mis_jax.datasets import images

ROOT = Path(__file__).parents[2]
SETTINGS = ("--config", "tiny_cpu")


def main() -> None:
    """Prints seconds and ratios, and writes them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="folder of photos")
    parser.add_argument("other", type=Path, help="another checkout of this repository")
    parser.add_argument("--count", type=int, default=10_000, help="photos")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each")
    parser.add_argument("--json", type=Path, help="file for the result")
    a = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {"here": [], "other": [], "check": []}
    with tempfile.TemporaryDirectory() as folder:
        photos = many(a.photos, Path(folder, "photos"), a.count)
        for number in range(a.rounds):
            checkouts = [("here", ROOT), ("other", a.other.absolute())]
            for name, checkout in checkouts if number % 2 else checkouts[::-1]:
                records = f"{folder}/{name}{number}"
                runs[name].append(
                    timed(checkout, "propose", photos, *SETTINGS, "--records", records)
                )
            runs["check"].append(
                timed(ROOT, "check", photos, *SETTINGS, "--output", f"{folder}/check")
            )
    least = {name: min(run["processor"] for run in found) for name, found in runs.items()}
    result = {
        "photos": a.count,
        "processor": f"{os.cpu_count()} x {platform.machine()}",
        "seconds": runs,
        "propose_to_other": round(least["here"] / least["other"], 3),
        "check_to_other_propose": round(least["check"] / least["other"], 3),
    }
    print(json.dumps(result, indent=1))
    if a.json:
        a.json.write_text(json.dumps(result, indent=1) + "\n")


def many(source: Path, folder: Path, count: int) -> Path:
    """A folder of `count` links to the photos of another."""
    folder.mkdir()
    paths = itertools.cycle(images.find_images(source))
    for number, path in zip(range(count), paths, strict=False):
        (folder / f"{number:06}{path.suffix}").symlink_to(path.absolute())
    return folder


def timed(checkout: Path, *words: str | Path) -> dict[str, float]:
    """Seconds of the clock and of the processors that a command takes."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "mis_jax", *map(str, words)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"clock": round(time.perf_counter() - began, 2), "processor": round(spent, 2)}


if __name__ == "__main__":
    main()
