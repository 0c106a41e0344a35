"""The ablations of Tables 3, 4 and 5 of the paper, as overrides of any config, beside its numbers.

    python tools/ablations.py RECORDS OUTPUT --datasets grabcut=DIR,mine=DIR
        [--config sbd_vitb16] [--only smooth-0 uniform] [--config.FIELD=VALUE ...]

Every run is trained in OUTPUT/NAME and evaluated there; one that was interrupted goes on, one that
is finished is not repeated. `--only` trains some of the runs, so that machines can share them. At
the end OUTPUT/ablations.md holds the table of all that are finished.
"""

import argparse
import json
import pathlib
import subprocess
import sys

from mis_jax import published, records

# Name -> smoothness weight, alpha and sampling; NoC@85 and NoC@90 of the paper for each data set.
RUNS = {
    "paper": (10.0, 0.9, "top_down", published.MIS.noc),
    "smooth-0": (0.0, 0.9, "top_down", published.TABLE_3[0.0]),
    "smooth-3": (3.0, 0.9, "top_down", published.TABLE_3[3.0]),
    "smooth-5": (5.0, 0.9, "top_down", published.TABLE_3[5.0]),
    "smooth-15": (15.0, 0.9, "top_down", published.TABLE_3[15.0]),
    "fixed": (10.0, 0.0, "fixed", published.TABLE_4[0.0]),
    "alpha-0.8": (10.0, 0.8, "top_down", published.TABLE_4[0.8]),
    "alpha-0.95": (10.0, 0.95, "top_down", published.TABLE_4[0.95]),
    "uniform": (10.0, 0.9, "uniform", published.TABLE_5["uniform"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("records", help="folder of records")
    parser.add_argument("output", type=pathlib.Path, help="folder for the runs and the table")
    parser.add_argument("--datasets", required=True, help="NAME=FOLDER,... to evaluate on")
    parser.add_argument("--config", default="sbd_vitb16", help="name or file of the config")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), help="runs to train")
    asked, more = parser.parse_known_args()
    for name in asked.only:
        train(asked.records, asked.output / name, name, [f"--config={asked.config}", *more])
        mis_jax("evaluate", asked.output / name, f"--datasets={asked.datasets}")
    names = [one.partition("=")[0] for one in asked.datasets.split(",")]
    text = table(asked.output, names)
    records.write_file(asked.output / "ablations.md", text)
    print(text)


def train(source: str, run: pathlib.Path, name: str, words: list[str]) -> None:
    """Trains one of RUNS, or what is left of it."""
    weight, alpha, sampling, _ = RUNS[name]
    fields = f"loss.smooth_weight={weight}", f"data.alpha={alpha}", f"data.sampling={sampling}"
    own = [f"--config.{field}" for field in fields]
    mis_jax("train", source, f"--workdir={run}", *words, *own)


def mis_jax(command: str, *words: object) -> None:
    """Runs `mis-jax COMMAND WORDS`; ends this program with its status where it fails."""
    print("mis-jax", command, *words, file=sys.stderr, flush=True)
    line = [sys.executable, "-m", f"mis_jax.{command}", *map(str, words)]
    if status := subprocess.run(line).returncode:
        raise SystemExit(status)


def table(output: pathlib.Path, names: list[str]) -> str:
    """Markdown: NoC@85 and NoC@90 of every run and data set, the paper's in brackets."""
    head = [f"{name} NoC@{percent}" for name in names for percent in (85, 90)]
    rows = [["run", "lambda", "alpha", "sampling", *head], ["---"] * 4 + ["---:"] * len(head)]
    for run, (weight, alpha, sampling, paper) in RUNS.items():
        cells = [run, f"{weight:g}", f"{alpha:g}", sampling]
        path = output / run / "eval" / "results.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        for name in names:
            for k, key in enumerate(("noc85", "noc90")):
                ours = f"{found[name][key]:.2f}" if name in found else "-"
                known = name.lower() in published.DATASETS
                value = paper[2 * published.DATASETS.index(name.lower()) + k] if known else None
                cells.append(f"{ours} ({value:.2f})" if known else ours)
        rows.append(cells)
    lines = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"{lines}\nIn brackets: the paper's Tables 3 to 5.\n"


if __name__ == "__main__":
    main()
