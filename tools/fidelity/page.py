"""Fills the tables of docs/fidelity.md from results/fidelity/*.json.

python tools/fidelity/page.py
"""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "fidelity"
PAGE = ROOT / "docs" / "fidelity.md"
SCRIPTS = ("features", "simpleclick", "losses", "samples", "protocol", "training")


def main() -> None:
    """Rewrites what stands between the page's markers."""
    text = PAGE.read_text()
    for name, table in (("errors", _errors()), ("mutations", _mutations())):
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = f"{before}{start}{table}{end}{after}"
    PAGE.write_text(text)


def _errors() -> str:
    lines = [
        "| part | published code | compared | worst difference | command |",
        "|---|---|---|---:|---|",
    ]
    for script in SCRIPTS:
        for row in json.loads((RESULTS / f"{script}.json").read_text())["rows"]:
            worst = f"{row['worst']:.2g}" if isinstance(row["worst"], float) else row["worst"]
            cells = (row["part"], row["oracle"], row["cases"], f"{worst} {row['unit']}".strip())
            lines.append(f"| {' | '.join(cells)} | `{script}.py` |")
    return "\n".join(lines) + "\n"


def _mutations() -> str:
    lines = ["| changed | in | test file | tests that failed |", "|---|---|---|---:|"]
    for what, found in json.loads((RESULTS / "mutations.json").read_text()).items():
        lines.append(f"| {what} | `{found['file']}` | `{found['tests']}` | {found['failed']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
