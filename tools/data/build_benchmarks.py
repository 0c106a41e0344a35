"""Evaluation sets as TFDS datasets.

    python tools/data/build_benchmarks.py OUTPUT grabcut sbd=FOLDER ...

A set without a folder is the one that `mis-jax download` fetched. TensorFlow is not needed, which
`tfds build` needs; tensorflow-datasets is: pip install 'mis-jax[tfds]'.
"""

import argparse
import sys
from pathlib import Path

from mis_jax.datasets import benchmarks
from mis_jax.datasets.samples import count_left_out
from mis_jax.errors import InputError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder for the datasets")
    parser.add_argument(
        "sets", nargs="+", metavar="NAME[=FOLDER]", help=", ".join(benchmarks.EXPECTED)
    )
    arguments = parser.parse_args()
    try:
        for name, folder in [_source(text) for text in arguments.sets]:
            _build(name, folder, arguments.output)
    except InputError as error:
        sys.exit(f"error: {error}")


def _source(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if name not in benchmarks.EXPECTED:
        raise InputError(f'there is no set "{name}"; there are {", ".join(benchmarks.EXPECTED)}.')
    return name, Path(folder).expanduser() if folder else benchmarks.default_folder(name)


def _build(name: str, folder: Path, output: Path) -> None:
    from mis_jax.datasets import tfds_builders

    built = tfds_builders.build(name, folder, output)
    opened = benchmarks.open_benchmark(name, built)
    print(f"{name}: {len(opened):,} of {opened.expected:,} objects; --datasets {name}={built}")
    if opened.skipped:
        print(f"{name}: {count_left_out(opened.skipped)}")


if __name__ == "__main__":
    main()
