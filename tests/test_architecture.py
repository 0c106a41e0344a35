"""The house: imports point down the rooms, rooms have doors, and docs/architecture.md is true."""

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import mis_jax

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mis_jax"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")
TOOLS = sorted((ROOT / "tools").rglob("*.py"))
ROOMS = sorted(p.parent.name for p in PACKAGE.glob("*/__init__.py"))
LAYERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]


def imports(file):
    """(module, name, name here) of every `from mis_jax... import name` of a file."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "mis_jax":
            for alias in node.names:
                yield node.module, alias.name, alias.asname or alias.name


def exported(room):
    return importlib.import_module(f"mis_jax.{room}").__dict__.get("__all__", [])


def test_imports_point_down_and_in_no_circle():
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


@pytest.mark.parametrize("file", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_other_rooms_are_entered_by_their_doors(file):
    """A module takes of another room only names that the room's __init__.pyi exports."""
    own = file.relative_to(PACKAGE).parts[0]
    rooms = {}  # name here -> the room it is
    for module, name, here in imports(file):
        room, *inner = module.split(".")[1:] or [name]
        if room not in ROOMS or room == own:
            continue
        if module == "mis_jax":
            rooms[here] = room
        else:
            assert not inner, f"from {module} import {name}"
            assert name in exported(room), f"from {module} import {name}"
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            room = rooms.get(node.value.id)
            assert room is None or node.attr in exported(room), f"{room}.{node.attr}"


@pytest.mark.parametrize("file", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_underscored_names_are_nobody_elses(file):
    ours = set()
    for module, name, here in imports(file):
        assert not name.startswith("_"), f"from {module} import {name}"
        ours.add(here)
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            private = node.attr.startswith("_") and not node.attr.startswith("__")
            assert not (private and node.value.id in ours), f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_what_is_exported_is_there(room):
    module = importlib.import_module(f"mis_jax.{room}".rstrip("."))
    for name in module.__dict__.get("__all__", []):
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError):
        module.no_such_name  # noqa: B018


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_say_what_comes_in_and_goes_out(room):
    text = importlib.import_module(f"mis_jax.{room}").__doc__
    assert re.search(r"^In: .*^Out: .*^Begin with ", text, re.DOTALL | re.MULTILINE)
    for name in re.findall(r"\b\w+\.py\b", text):
        assert (PACKAGE / room / name).exists(), name


@pytest.mark.parametrize("file", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_say_what_they_are_for(file):
    assert len(ast.get_docstring(ast.parse(file.read_text("utf-8"))).splitlines()[0]) > 20


def test_the_picture_shows_the_rooms_in_order():
    layers = LAYERS["contracts"][0]["layers"]
    assert sorted(set(layers) & set(ROOMS)) == ROOMS
    for page in ("docs/architecture.md", "README.md"):
        shown = re.findall(r"^\| `(\w+)/` \|", (ROOT / page).read_text("utf-8"), re.MULTILINE)
        assert [name for name in shown if name in ROOMS] == [x for x in layers if x in ROOMS]


def test_experiments_need_settings_only():
    """They are read from a clone too, where mis_jax.configs is no package."""
    for file in (ROOT / "configs").glob("*.py"):
        for module, name, _ in imports(file):
            assert (module, name) == ("mis_jax", "config"), file


@pytest.mark.parametrize("file", TOOLS, ids=lambda p: str(p.relative_to(ROOT)))
def test_tools_import_what_is_there(file):
    for module, name, _ in imports(file):
        found = importlib.import_module(module)
        assert hasattr(found, name) or importlib.import_module(f"{module}.{name}")


def test_importing_the_package_is_instant():
    """`import mis_jax` and `mis-jax --help` load neither JAX nor anything else that is large."""
    code = "import sys, mis_jax, mis_jax.cli; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert not loaded & {"jax", "flax", "numba", "cv2", "matplotlib", "scipy", "orbax"}
    assert mis_jax.__version__ == importlib.metadata.version("mis-jax")
