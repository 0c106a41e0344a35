"""Changes one constant at a time and sees which recorded numbers notice.

    python tools/fidelity/mutations.py [WORD ...]

Needs no published code: the fixtures stand for it. With words, only mutations whose text holds one.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "results" / "fidelity" / "mutations.json"
# What is changed; file, text before and after; NAME of the test_fidelity_NAME.py that must fail.
MUTATIONS = (
    ("GELU by tanh", "models/layers.py", "return (wide * _normal_cdf(wide)).astype(x.dtype)",
     "return jax.nn.gelu(x, approximate=True)", "features"),
    ("LayerNorm eps 1e-6 -> 1e-5", "models/layers.py", "epsilon=1e-6", "epsilon=1e-5", "features"),
    ("cubic kernel a -0.75 -> -0.5", "features/vit_extractor.py", '"cubic-pytorch"', '"cubic"',
     "features"),
    ("position offset 0.1 -> 0", "features/vit_extractor.py", "(0.1, ", "(0.0, ", "features"),
    ("LayerScale left out", "models/vit.py", "layer_scale=True", "layer_scale=False", "features"),
    ("12 heads of MoCo v3 small -> 6", "models/vit.py", "Variant(384, 12, 12, 16, 14)",
     "Variant(384, 12, 6, 16, 14)", "features"),
    ("GELU of the pyramid by tanh", "models/pyramid.py", "return gelu(x)",
     "return jax.nn.gelu(x, approximate=True)", "simpleclick"),
    ("GroupNorm eps 1e-5 -> 1e-6", "models/pyramid.py", "epsilon=1e-5", "epsilon=1e-6",
     "simpleclick"),
    ("click radius 5 -> 4", "models/click_maps.py", "CLICK_RADIUS = 5", "CLICK_RADIUS = 4",
     "simpleclick"),
    ("sigma 16 -> 15", "config.py", '"sigma_luma": 16.0', '"sigma_luma": 15.0', "losses"),
    ("YUV matrix not transposed", "training/losses.py", 'if yuv == "correct"',
     'if yuv != "correct"', "losses"),
    ("click threshold 0.49 -> 0.5", "config.py", '"threshold": 0.49', '"threshold": 0.5',
     "samples"),
    ("erosion 3 -> 2", "training/first_clicks.py", "ERODE_PIXELS = 3", "ERODE_PIXELS = 2",
     "samples"),
    ("rotation 3 -> 4 degrees", "training/augment.py", "ANGLE = 3.0", "ANGLE = 4.0", "samples"),
    ("ZoomIn's threshold 0.5 -> 0.49", "predictors/zoom_in.py", "ZOOM_THRESHOLD = 0.5",
     "ZOOM_THRESHOLD = 0.49", "protocol"),
    ("mask threshold 0.5 -> 0.49", "predictors/network.py", "threshold: float = 0.5",
     "threshold: float = 0.49", "protocol"),
    ("ZoomIn 1.4 -> 1.3", "predictors/zoom_in.py", "EXPANSION = 1.4", "EXPANSION = 1.3",
     "protocol"),
    ("smallest crop 200 -> 180", "predictors/zoom_in.py", "MIN_CROP = 200", "MIN_CROP = 180",
     "protocol"),
    ("ZoomIn's IoU 0.5 -> 0.4", "predictors/zoom_in.py", "RECOMPUTE_IOU = 0.5",
     "RECOMPUTE_IOU = 0.4", "protocol"),
    ("ties give a positive click", "evaluation/clicker.py", "if missed > surplus",
     "if missed >= surplus", "protocol"),
    ("BCE of wrong sign", "training/losses.py", "- logits * target", "+ logits * target",
     "training"),
    ("dropout of the head off", "models/pyramid.py", "nnx.Dropout(0.1", "nnx.Dropout(0.0",
     "training"),
)  # fmt: skip


def main() -> None:
    """Prints and writes, for each mutation, how many tests failed."""
    wanted = [m for m in MUTATIONS if not sys.argv[1:] or any(w in m[0] for w in sys.argv[1:])]
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for part in ("mis_jax", "configs", "tests", "pyproject.toml"):
            source, target = ROOT / part, Path(folder) / part
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        for name in sorted({mutation[-1] for mutation in wanted}):
            if failed := _failures(folder, name):
                raise SystemExit(f"test_fidelity_{name} fails as it is: {failed}")
        for what, file, before, after, name in wanted:
            path = Path(folder) / "mis_jax" / file
            text = path.read_text()
            if before not in text:
                raise SystemExit(f"{what}: {file} no longer holds {before!r}")
            path.write_text(text.replace(before, after))
            failed = _failures(folder, name)
            path.write_text(text)
            known[what] = {"file": file, "tests": f"test_fidelity_{name}", "failed": len(failed)}
            print(f"{what}: {len(failed)} tests of test_fidelity_{name} fail")
            RESULT.write_text(json.dumps(known, indent=1) + "\n")


def _failures(folder: str, name: str) -> list[str]:
    """The tests that fail in a copy of the project."""
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider"]
    (file,) = Path(folder, "tests").rglob(f"test_fidelity_{name}.py")
    run = subprocess.run([*command, file], cwd=folder, capture_output=True, text=True)
    lines = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if run.returncode and not lines:
        raise SystemExit(run.stdout + run.stderr)
    return lines


if __name__ == "__main__":
    main()
