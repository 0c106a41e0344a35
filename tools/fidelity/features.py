"""Feature extractors and MAE's encoder beside the public classes; weights files of every layout.

python tools/fidelity/features.py SOURCES

SOURCES/timm-0.5.4 holds that version (pip install --target SOURCES/timm-0.5.4 --no-deps
timm==0.5.4): the public MoCo v3 classes need it. MAE's class takes it too, once its argument
`qk_scale`, which is None, is left out.
"""

import contextlib
import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import published

FOLDER = published.sources(__doc__)
CLONES = ("dinov2", "moco-v3", "mae", "MIS", "dino")
for clone in CLONES:
    published.use(FOLDER, clone)
sys.path.insert(0, str(FOLDER / "timm-0.5.4"))

import fidelity
import hubconf
import jax
import jax.numpy as jnp
import models_mae
import numpy as np
import safetensors.torch
import test_fidelity_features as cases
import timm
import torch
import vision_transformer as dino_vits
import vits as moco_vits
from dinov2.hub import backbones
from dinov2.models import vision_transformer as dinov2_vits
from mis.model import feature_extractor as mis
from moco.builder import MoCo_ViT
from PIL import Image
from vit_reference import variant_shapes

from mis_jax.features import vit_extractor
from mis_jax.models import porting, state_dicts, vit

if timm.__version__ != "0.5.4":
    raise SystemExit(f"{FOLDER / 'timm-0.5.4'} must hold timm 0.5.4, see the head of this file.")

SIZES = {"s": "small", "b": "base", "l": "large", "g": "giant"}
MAE = {
    "mae-vitb16": models_mae.mae_vit_base_patch16,
    "mae-vitl16": models_mae.mae_vit_large_patch16,
    "mae-vith14": models_mae.mae_vit_huge_patch14,
}
TIMM = {  # the same weights in timm 1.0
    "dino-vits8": "vit_small_patch8_224.dino",
    "dino-vits16": "vit_small_patch16_224.dino",
    "dino-vitb8": "vit_base_patch8_224.dino",
    "dino-vitb16": "vit_base_patch16_224.dino",
    "dinov2-vits14": "vit_small_patch14_dinov2.lvd142m",
    "dinov2-vitb14": "vit_base_patch14_dinov2.lvd142m",
    "dinov2-vitl14": "vit_large_patch14_dinov2.lvd142m",
    "dinov2-vitg14": "vit_giant_patch14_dinov2.lvd142m",
    "mae-vitb16": "vit_base_patch16_224.mae",
    "mae-vitl16": "vit_large_patch16_224.mae",
    "mae-vith14": "vit_huge_patch14_224.mae",
}
ORACLES = {
    "dino": "MIS DINOv1FeatureExtractor, dino/hubconf.py",
    "dinov2": "MIS DINOv2FeatureExtractor, dinov2/hub/backbones.py",
    "mocov3": "MIS MoCov3FeatureExtractor, timm 0.5.4",
    "mae": "mae/models_mae.py forward_encoder, nothing masked, timm 0.5.4",
}
MORE = {  # images of the published models that the tests leave out
    "dino-vits8": [(224, 224)],  # the grid of the pretraining
    "dino-vits16": [(56, 224)],  # as many patches, in another grid
    "dinov2-vits14": [(120, 61), (296, 296)],  # the grid of the pretraining
}
INITIALISERS = ("trunc_normal_", "normal_", "xavier_uniform_", "uniform_", "kaiming_uniform_")


def family(model: str) -> str:
    """dino, dinov2, mocov3 or mae."""
    return model.partition("-")[0]


# ---- the public models


def public_module(model: str, faint: bool) -> torch.nn.Module:
    """What MIS builds, or MAE's class, of the sizes in `vit.VARIANTS`, with our weights.

    The factories, their settings and MoCo v3's conversion are the public ones; nothing is
    downloaded, and what would be filled at random only to be overwritten stays empty.
    """
    patch, size = vit.VARIANTS[model].patch, SIZES.get(model.partition("vit")[2][0])
    with contextlib.ExitStack() as inside:
        for name in INITIALISERS:
            inside.enter_context(mock.patch.object(torch.nn.init, name, lambda x, *_, **__: x))
        inside.enter_context(mock.patch.object(dinov2_vits, "trunc_normal_", lambda x, **_: x))
        inside.enter_context(mock.patch.object(dino_vits, "trunc_normal_", lambda x, **_: x))
        for module, name in (
            (dino_vits, "VisionTransformer"),
            (dinov2_vits, "DinoVisionTransformer"),
            (mis, "VisionTransformerMoCo"),
            (models_mae, "MaskedAutoencoderViT"),
        ):
            inside.enter_context(mock.patch.object(module, name, sized(module, name, model)))
        if family(model) == "mae":
            block = models_mae.Block
            plain = lambda *sizes, qk_scale, **given: block(*sizes, **given)  # noqa: E731
            inside.enter_context(mock.patch.object(models_mae, "Block", plain))
            made = MAE[model]()
        elif family(model) == "mocov3":
            load = lambda *_, **__: moco_checkpoint(model, faint)  # noqa: E731
            inside.enter_context(mock.patch.object(torch.hub, "load_state_dict_from_url", load))
            made = mis.build_feature_extractor(size, patch, "moco_v3")
        else:
            hub = hubconf if family(model) == "dino" else backbones
            load = lambda _, name: getattr(hub, name)(pretrained=False)  # noqa: E731
            inside.enter_context(mock.patch.object(torch.hub, "load", load))
            made = mis.build_feature_extractor(
                size, patch, "dino_v1" if hub is hubconf else "dino_v2"
            )
    if family(model) != "mocov3":
        fill(made, model, faint)
    return made.eval()


def sized(module, name: str, model: str):
    """The class with our channels and blocks, whatever the factory says."""
    whole, v = getattr(module, name), vit.VARIANTS[model]
    return lambda **given: whole(**{**given, "embed_dim": v.dim, "depth": v.depth})


def moco_checkpoint(model: str, faint: bool) -> dict:
    """A file of MoCo v3, with little in it that is not the encoder."""
    tensors = cases.make_weights(variant_shapes(vit.VARIANTS[model]), faint)
    prefixed = {f"module.base_encoder.{key}": torch.from_numpy(x) for key, x in tensors.items()}
    other = dict.fromkeys(("module.momentum_encoder.norm.bias", "module.predictor.0.weight"), 0)
    return {"state_dict": {**other, **prefixed}}


def fill(made: torch.nn.Module, model: str, faint: bool) -> None:
    """Our weights into the encoder, a tensor at a time; what it does not compute with stays."""
    theirs = dict(getattr(made, "model", made).named_parameters())
    shapes = variant_shapes(vit.VARIANTS[model])
    unused = [k for k in theirs.keys() - shapes if k != "mask_token" and "decoder" not in k]
    assert not unused, unused
    for key, shape in shapes.items():
        assert tuple(theirs[key].shape) == shape, key
        theirs[key].data.copy_(torch.from_numpy(cases.make_weights({key: shape}, faint)[key]))


def public_features(model: str, sizes: list, faint: bool) -> tuple[list, list]:
    """Pixels after resizing, and [h, w, D] features of the pictures."""
    patch, made = vit.VARIANTS[model].patch, public_module(model, faint)
    mae = family(model) == "mae"
    transform = mis.build_transform(scale_factor=1.0 if mae else patch / 8, patch_size=patch)
    pixels, found = [], []
    for picture in map(Image.fromarray, cases.pictures(sizes)):
        pixels.append(np.asarray(transform.transforms[0](picture)))
        image = transform(picture)[None]
        with torch.no_grad():
            if mae:
                tokens, _, order = made.forward_encoder(image, 0)
                index = order[..., None].expand(-1, -1, tokens.shape[-1])
                tokens = torch.gather(tokens[:, 1:], 1, index)
            else:
                tokens = made(image)
        grid = [side // patch for side in image.shape[2:]]
        found.append(tokens[0].numpy().reshape(*grid, -1).copy())
    return pixels, found


# ---- ours, and the comparison


def streamed(model: str, faint: bool) -> dict:
    """`vit.port_published`, a part at a time: of the largest, weights fit only once."""
    variant = vit.VARIANTS[model]
    keys, (_, shapes) = variant_shapes(variant), vit.abstract(variant)

    def part(prefix: str, inner: dict) -> dict:
        own = {key: shape for key, shape in keys.items() if key.startswith(prefix)}
        tensors = cases.make_weights(own, faint)
        tensors = {key.removeprefix(prefix): x for key, x in tensors.items()}
        return jax.tree.map(jnp.asarray, porting.port(tensors, inner))

    blocks = {i: part(f"blocks.{i}.", inner) for i, inner in shapes["blocks"].items()}
    outer = {key: shape for key, shape in keys.items() if not key.startswith("blocks.")}
    rest = porting.port(
        cases.make_weights(outer, faint), {k: x for k, x in shapes.items() if k != "blocks"}
    )
    return {**jax.tree.map(jnp.asarray, rest), "blocks": blocks}


def our_features(kind: str, model: str, sizes: list) -> tuple[list, list]:
    """As `public_features`, by our extractor."""
    with tempfile.NamedTemporaryFile() as file:
        load = mock.patch.object(state_dicts, "load_state_dict")
        params = streamed(model, kind == "thin")
        with load, mock.patch.object(vit, "port_published", return_value=params):
            extractor = cases.make_extractor(kind, model, Path(file.name))
    images = cases.pictures(sizes)
    return [extractor._prepare(image) for image in images], extractor(images)


def compare(kind: str, model: str, sizes: list) -> tuple[dict, float, int]:
    """Numbers for the fixture, the worst relative error, and how many resized pixels differ."""
    pixels, theirs = public_features(model, sizes, kind == "thin")
    gc.collect()
    our_pixels, ours = our_features(kind, model, sizes)
    jax.clear_caches()  # which hold the weights
    gc.collect()
    recorded = {}
    for size, image, expected in zip(sizes, pixels, theirs, strict=True):
        recorded[f"{kind} {model} {size} pixels"] = fidelity.some(image)
        recorded[f"{kind} {model} {size} features"] = fidelity.some(expected)
    worst = max(map(fidelity.relative_error, ours, theirs))
    apart = sum(int((a != b).sum()) for a, b in zip(our_pixels, pixels, strict=True))
    print(kind, model, worst, apart, flush=True)
    return recorded, worst, apart


def models() -> tuple[dict, list]:
    """Fixture and rows of all models, of their published sizes and thin."""
    recorded, rows, apart = {}, [], 0
    for model in vit.VARIANTS:
        own = cases.thin_sizes(model) if family(model) == "mae" else [(93, 171), (112, 112)]
        sizes = cases.REAL.get(model, own)
        every = sizes + MORE.get(model, [])
        found, worst, count = compare("real", model, every)
        if model in cases.REAL:
            kept = [f"real {model} {size} {x}" for size in sizes for x in ("pixels", "features")]
            recorded |= {key: found[key] for key in kept}
        apart += count
        shown = ", ".join(f"{h} x {w}" for h, w in every)
        rows.append(row(f"Features of {model}", ORACLES[family(model)], f"images {shown}", worst))
    errors = []
    for model in vit.VARIANTS:
        with mock.patch.dict(vit.VARIANTS, {model: cases.thin(model)}):
            found, worst, count = compare("thin", model, cases.thin_sizes(model))
        recorded |= found
        errors.append(worst)
        apart += count
    shown = "all 13 with two blocks and 16 channels a head"
    rows.append(row("Features of thin models", "the classes above", shown, max(errors)))
    rows.append(row("Resized pixels", "MIS AlignedResize, Pillow", "all images above", apart,
                    "values that differ"))  # fmt: skip
    return recorded, rows


def row(part: str, oracle: str, compared: str, worst, unit: str = "relative error") -> dict:
    """A row of the results."""
    return {"part": part, "oracle": oracle, "cases": compared, "worst": worst, "unit": unit}


# ---- position embeddings and sizes alone


def positions() -> tuple[dict, list]:
    """Interpolated tables of DINO, which DINOv2 and MIS' MoCo v3 have too."""
    recorded, worst = {}, 0.0
    for side, grid in ((side, grid) for side, grids in cases.GRIDS.items() for grid in grids):
        table = cases.position_table(side)
        theirs = interpolated(
            dino_vits.VisionTransformer, table, grid, patch_embed=SimpleNamespace(patch_size=8)
        )
        moco = interpolated(
            mis.VisionTransformerMoCo, table, grid, patch_embed=SimpleNamespace(patch_size=(8, 8))
        )
        v2 = {"patch_size": 8, "interpolate_offset": 0.1, "interpolate_antialias": False}
        dinov2 = interpolated(dinov2_vits.DinoVisionTransformer, table, grid, **v2)
        ours = vit.resize_pos_embed(jnp.asarray(table), grid)
        for other in (theirs, moco, dinov2):
            worst = max(worst, fidelity.relative_error(ours, other))
        recorded[f"positions {side} {grid}"] = fidelity.some(theirs, 2048)
    shown = "; ".join(f"{s} x {s} to {grids}" for s, grids in cases.GRIDS.items())
    oracle = "interpolate_pos_encoding of DINO, DINOv2 and MIS' MoCo v3"
    return recorded, [row("Position embeddings", oracle, shown, worst)]


def interpolated(kind: type, table: np.ndarray, grid: tuple[int, int], **attributes) -> np.ndarray:
    """`interpolate_pos_encoding` of a class with only these attributes, for patches of 8 pixels."""
    made = SimpleNamespace(pos_embed=torch.from_numpy(table), **attributes)
    tokens = torch.zeros(1, 1 + grid[0] * grid[1], table.shape[-1])
    return kind.interpolate_pos_encoding(made, tokens, 8 * grid[0], 8 * grid[1]).numpy()


class Blank:
    """An image that only has a size."""

    def __init__(self, size: tuple[int, int]):
        self.size = size

    def resize(self, size: tuple[int, int]) -> "Blank":
        return Blank(size)


def sides() -> tuple[dict, list]:
    """Sides that MIS' AlignedResize gives."""
    recorded, differ = {}, 0
    for patch in (8, 14, 16):
        resize = mis.AlignedResize(scale_factor=patch / 8, stride=patch)
        theirs = [resize(Blank((side, side))).size[0] for side in cases.SIDES]
        ours = [vit_extractor.aligned_side(side, patch / 8, patch) for side in cases.SIDES]
        differ += sum(a != b for a, b in zip(ours, theirs, strict=True))
        recorded[f"sides {patch}"] = np.array(theirs, np.int16)
    shown = f"sides of 1 to {cases.SIDES[-1]} pixels, patches 8, 14, 16"
    return recorded, [row("Aligned sizes", "MIS AlignedResize", shown, differ, "that differ")]


# ---- weights files


def marked(shapes: dict) -> dict[str, torch.Tensor]:
    """Tensors of these shapes, each of its own value, which take no memory."""
    return {
        key: torch.tensor(float(i + 1)).expand(tuple(shape))
        for i, (key, shape) in enumerate(shapes.items())
    }


def official_shapes(model: str) -> dict:
    """Keys and shapes of the file that its authors publish."""
    if family(model) == "mae":  # of the encoder alone
        return variant_shapes(vit.VARIANTS[model])
    if family(model) == "mocov3":
        make = moco_vits.vit_small if "vits" in model else moco_vits.vit_base
        made = MoCo_ViT(make, 256, 4096, 1.0).state_dict()
        return {f"module.{key}": x.shape for key, x in made.items()}
    with torch.device("meta" if "vitg" in model else "cpu"):
        hub = hubconf if family(model) == "dino" else backbones
        made = getattr(hub, model.replace("-", "_"))(pretrained=False)
    return {key: x.shape for key, x in made.state_dict().items()}


def write_official(model: str, tensors: dict, path: Path) -> None:
    """As published: MoCo v3's training state, MAE's wrapped, the others' bare."""
    if family(model) == "mocov3":
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(3))]).state_dict()
        state = {"epoch": 300, "arch": "vit", "state_dict": tensors, "optimizer": optimizer}
        torch.save(state, path)
    else:
        torch.save({"model": tensors} if family(model) == "mae" else tensors, path)


def timm_shapes() -> dict[str, dict]:
    """Keys and shapes of timm's newer models, by a process that imports that timm."""
    code = (
        "import json, sys, timm, torch\n"
        "with torch.device('meta'):\n"
        "    made = {n: timm.create_model(n, pretrained=False) for n in sys.argv[1:]}\n"
        "shapes = {n: {k: tuple(x.shape) for k, x in m.state_dict().items()}\n"
        "          for n, m in made.items()}\n"
        "print(json.dumps([timm.__version__, shapes]))"
    )
    arguments = [sys.executable, "-c", code, *TIMM.values()]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    version, shapes = json.loads(done.stdout.splitlines()[-1])
    return version, {model: shapes[name] for model, name in TIMM.items()}


def read_back(model: str, tensors: dict[str, torch.Tensor], path: Path) -> tuple[int, int]:
    """Tensors that our reader gives otherwise than written, and keys that are not ported."""
    read = state_dicts.load_state_dict(path)
    differ = len(read.keys() - tensors.keys())
    for key, x in tensors.items():
        differ += key not in read or not np.array_equal(read[key], x.numpy())
    params = vit.port_published(model, read)  # raises if any is missing, left over or misshapen
    values = {float(np.ravel(x)[0]) for x in jax.tree.leaves(params)}
    assert len(values) == len(jax.tree.leaves(params))  # each from a tensor of its own
    return differ, len(tensors) - len(values)


def files() -> list:
    """Files of each layout, written by torch and safetensors, through our reader."""
    rows, (version, timm_keys) = [], timm_shapes()
    for model in vit.VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            tensors = marked(official_shapes(model))
            path = Path(folder) / ("x.pth.tar" if family(model) == "mocov3" else "x.pth")
            write_official(model, tensors, path)
            differ, dropped = read_back(model, tensors, path)
            shown = f"{len(tensors)} keys, {dropped} of them dropped"
            rows.append(
                row(f"Official file of {model}", "torch.save", shown, differ, "that differ")
            )
            if model not in TIMM:
                continue
            tensors = marked(timm_keys[model])
            path = Path(folder) / "x.safetensors"
            if vit.VARIANTS[model].dim <= 1024:
                whole = {key: x.contiguous() for key, x in tensors.items()}
                safetensors.torch.save_file(whole, path)
                del whole
                oracle = f"safetensors.torch, timm {version}"
            else:  # as large as the weights: the names alone, in a file that holds no more
                torch.save(tensors, path)
                oracle = f"names of timm {version}"
            differ, dropped = read_back(model, tensors, path)
            shown = f"{len(tensors)} keys, {dropped} of them dropped"
            rows.append(row(f"timm's file of {model}", oracle, shown, differ, "that differ"))
        print(rows[-1], flush=True)
        gc.collect()
    return rows


def main() -> None:
    """Writes the fixture and the results."""
    recorded, rows = {}, []
    for part in (positions, sides, models):
        arrays, more = part()
        recorded |= arrays
        rows += more
    fidelity.save("features", recorded, published.origin(__file__, *CLONES))
    published.write_results(__file__, rows + files(), *CLONES)


if __name__ == "__main__":
    main()
