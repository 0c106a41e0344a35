"""The ablations of Tables 3, 4 and 5 of the paper, as overrides of any config, beside its numbers.

    python tools/studies/ablations.py RECORDS OUTPUT --datasets grabcut=DIR,mine=DIR
        [--config sbd_vitb16] [--only smooth-0 uniform] [--config.FIELD=VALUE ...]

Every run is trained in OUTPUT/NAME and evaluated there; one that was interrupted goes on, one that
is finished is not repeated. `--only` trains some of the runs, so that machines can share them. At
the end OUTPUT/compared holds tables and figures of all that are finished.
"""

import argparse
import pathlib
import subprocess
import sys

# Name -> smoothness weight, alpha and sampling.
RUNS = {
    "paper": (10.0, 0.9, "top_down"),
    "smooth-0": (0.0, 0.9, "top_down"),
    "smooth-3": (3.0, 0.9, "top_down"),
    "smooth-5": (5.0, 0.9, "top_down"),
    "smooth-15": (15.0, 0.9, "top_down"),
    "fixed": (10.0, 0.0, "fixed"),
    "alpha-0.8": (10.0, 0.8, "top_down"),
    "alpha-0.95": (10.0, 0.95, "top_down"),
    "uniform": (10.0, 0.9, "uniform"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("records", help="folder of records")
    parser.add_argument("output", type=pathlib.Path, help="folder for the runs and tables")
    parser.add_argument("--datasets", required=True, help="NAME=FOLDER,... to evaluate on")
    parser.add_argument("--config", default="sbd_vitb16", help="name or file of the config")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), help="runs to train")
    asked, more = parser.parse_known_args()
    for name in asked.only:
        train(asked.records, asked.output / name, name, [f"--config={asked.config}", *more])
        mis_jax("evaluate", asked.output / name, f"--datasets={asked.datasets}")
    done = {name: asked.output / name / "eval" for name in RUNS}
    done = {name: folder for name, folder in done.items() if (folder / "results.json").exists()}
    more = f"--labels={','.join(done)}", "--paper=3,4,5", f"--output={asked.output / 'compared'}"
    mis_jax("compare", *done.values(), *more)


def train(source: str, run: pathlib.Path, name: str, words: list[str]) -> None:
    """Trains one of RUNS, or what is left of it."""
    weight, alpha, sampling = RUNS[name]
    fields = f"loss.smooth_weight={weight}", f"data.alpha={alpha}", f"data.sampling={sampling}"
    own = [f"--config.{field}" for field in fields]
    mis_jax("train", source, f"--workdir={run}", *words, *own)


def mis_jax(command: str, *words: object) -> None:
    """Runs `mis-jax COMMAND WORDS`; ends this program with its status where it fails."""
    print("mis-jax", command, *words, file=sys.stderr, flush=True)
    line = [sys.executable, "-m", "mis_jax", command, *map(str, words)]
    if status := subprocess.run(line).returncode:
        raise SystemExit(status)


if __name__ == "__main__":
    main()
