"""What is published: a wheel, made from the sdist, installed where nothing of the repository is."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import mis_jax
from mis_jax import config

ROOT = Path(__file__).parents[1]
CLICK = """
import numpy as np
import mis_jax
image = np.random.default_rng(0).integers(0, 40, (160, 240, 3)).astype(np.uint8)
image[40:120, 80:200] += np.uint8([200, 40, 10])
assert mis_jax.Predictor().settings["parameters"]  # the model that comes with the package
predictor = mis_jax.FusedPredictor()
predictor.set_image(image)
mask = predictor.click(x=140, y=80)
print(mis_jax.__file__, mask.sum(), mask[40:120, 80:200].sum())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    assert [p.suffix for p in sorted(folder.iterdir())] == [".whl", ".gz"]
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs a program of an environment with the wheel, away from the repository."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--quiet", wheel], check=True)
    # The dependencies are those of these tests; a path in a .pth adds no editable install of them.
    site = sysconfig.get_path("purelib", vars={"base": str(folder / "env")})
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MIS_JAX"))}

    def run(program, *words, cwd=None):
        command = [folder / "env" / "bin" / program, *words]
        run = subprocess.run(command, cwd=cwd or folder, env=clean, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return run.stdout

    return run


def test_the_wheel_holds_the_package_and_the_configs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    source = [p for p in (ROOT / "mis_jax").rglob("*") if p.is_file() and p.suffix != ".pyc"]
    wanted = {str(p.relative_to(ROOT)) for p in source if "__pycache__" not in p.parts}
    wanted |= {f"mis_jax/configs/{p.name}" for p in (ROOT / "configs").glob("*.py")}
    assert {n for n in names if ".dist-info/" not in n} == wanted


@pytest.mark.parametrize("cwd", [None, ROOT], ids=["the wheel", "a clone"])
def test_experiments_are_found(installed, cwd):
    code = "import mis_jax.config as c; print(c.__file__, c.load('finetune_vitb16').loss.mask)"
    where, loss = installed("python", "-c", code, cwd=cwd).split()
    assert Path(where).is_relative_to(ROOT) == (cwd == ROOT)
    assert loss == "nfl"


@pytest.mark.slow
def test_commands_and_a_click(installed):
    assert "usage: mis-jax COMMAND" in installed("mis-jax", "--help")
    help_ = installed("mis-jax", "train", "--help", "--config", "tiny_cpu")
    assert "--workdir" in help_
    assert all(name in help_ for name in config.names())
    assert installed("python", "-m", "mis_jax", "--help") == installed("mis-jax", "--help")
    where, pixels, right = installed("python", "-c", CLICK).split()
    assert Path(where) != Path(mis_jax.__file__)
    assert int(pixels) == int(right) == 80 * 120
