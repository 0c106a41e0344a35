"""What the documents name is there: paths, links, commands and configs."""

import re
from pathlib import Path

import pytest

from mis_jax import config
from mis_jax.cli import COMMANDS

ROOT = Path(__file__).parents[1]
KINDS = (".md", ".py", ".pyi", ".sh", ".yaml", ".yml", ".toml", ".cff", ".html")
PATH = re.compile(r"(?<![\w/.$-])(?:mis_jax(?!/\.venv)|tools|configs|tests|docs)/[\w./*-]*[\w*]")


def written():
    """The project's files of text, but for the tests."""
    folders = ("mis_jax", "configs", "tools", "docs", "results")
    found = [*ROOT.glob("*"), *(p for folder in folders for p in (ROOT / folder).rglob("*"))]
    return sorted(str(p.relative_to(ROOT)) for p in found if p.suffix in KINDS)


CODE = ("mis_jax", "configs", "tools", "tests")
OURS = {path.name for folder in CODE for path in (ROOT / folder).rglob("*.py")}
DOCUMENTS = [name for name in written() if name.endswith(".md")]


@pytest.mark.parametrize("name", written())
def test_paths_exist(name):
    """Every `mis_jax/...`, `tools/...`, `configs/...`, `tests/...` and `docs/...` that is named."""
    for path in PATH.findall((ROOT / name).read_text("utf-8")):
        if not re.search(r"\b[A-Z]{2,}\b", path):  # NAME stands for one
            assert list(ROOT.glob(path)), path


@pytest.mark.parametrize("name", written())
def test_files_are_called_as_they_are(name):
    """A `NAME.py` without its folder is some file of ours."""
    found = re.findall(r"(?<![\w/*$])([a-z_]+\.py)\b", (ROOT / name).read_text("utf-8"))
    assert set(found) <= OURS | {"mine.py", "setup.py", "vision_transformer.py"}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / name).read_text("utf-8")):
        if "://" not in target:
            assert (ROOT / name).parent.joinpath(target).exists(), target


def test_every_row_of_inputs_is_a_test():
    """The last cell of every row that says what comes of an input names a test that is there."""
    tests = "".join(p.read_text("utf-8") for p in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"^def (test_\w+)\(", tests, re.M))
    sections = (ROOT / "docs/inputs.md").read_text("utf-8").split("\n## ")
    rows = [line for part in sections[2:] for line in re.findall(r"^\| .*\|$", part, re.M)]
    named = [re.fullmatch(r".*\| `(test_\w+)` \|", row) for row in rows if " test |" not in row]
    assert len(named) > 100
    assert all(named)
    assert {match[1] for match in named if match} <= defined


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_and_configs_exist(name):
    text = (ROOT / name).read_text("utf-8")
    for word in re.findall(r"(?:bin/mis-jax|^mis-jax|`mis-jax|-m mis_jax) ([a-z]+)\b", text, re.M):
        assert word in COMMANDS, word
    for word in re.findall(r"--config[ =]([\w]+)\b(?!\.py|/)", text):
        assert word in config.names() or word == "NAME", word
