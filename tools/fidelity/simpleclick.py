"""The public SimpleClick model and ours: forward passes, gradients, click maps, files both ways.

python tools/fidelity/simpleclick.py SOURCES
"""

import gc
import io
import tempfile
from pathlib import Path

import jax
import numpy as np
import published

FOLDER = published.sources(__doc__)
published.use(FOLDER, "MIS")

import torch
from fidelity import generator, relative_error, save, some, state_dict
from isegm.inference.utils import load_is_model
from isegm.model.is_plainvit_model import PlainVitModel
from isegm.model.modeling.pos_embed import interpolate_pos_embed_inference
from isegm.model.modeling.transformer_helper.cross_entropy_loss import CrossEntropyLoss
from isegm.model.ops import DistMaps
from mis.model.is_model import MISModel
from test_fidelity_simpleclick import (
    CROP,
    FORWARD,
    GRADIENT_SIDE,
    GRIDS,
    NARROW,
    PARTS,
    clicks,
    inputs,
    key_of,
    norm_of,
    our_gradients,
    our_logits,
    our_parameters,
    table,
    target,
    tensors_of,
    zoomed_clicks,
)

from mis_jax.models import loading, official, porting, simpleclick, vit
from mis_jax.models.click_maps import click_maps as our_click_maps
from mis_jax.models.click_maps import with_remainders
from mis_jax.models.export import export
from mis_jax.models.simpleclick import VARIANTS

VARIANTS.update(NARROW)
WHOLE = [("xTiny", (448, 448)), ("xTiny", (672, 672)), ("xTiny", (448, 672)),
         ("B", (448, 448)), ("B", (672, 672)), ("L", (448, 448)), ("H", (448, 448))]  # fmt: skip


def main() -> None:
    """Writes the fixture and the results."""
    with tempfile.TemporaryDirectory() as folder:
        found = [forward(), click_maps(), position_embeddings(), gradients(), small_file(),
                 mae_initialisation(Path(folder)), files(Path(folder))]  # fmt: skip
    arrays = {key: x for recorded, _ in found for key, x in recorded.items()}
    rows = [row for _, rows in found for row in rows]
    save("simpleclick", arrays, published.origin(__file__, "MIS"))
    published.write_results(__file__, rows, "MIS")


def model_of(name: str, size: int = CROP, kind=PlainVitModel, **head) -> PlainVitModel:
    """The public model in evaluation mode, as its training scripts build it."""
    given = official.parameters(VARIANTS[name], size)
    given["head_params"].update(head)
    specified = ("use_disks", "norm_radius", "with_prev_mask", "backbone_params", "neck_params",
                 "head_params", "random_split")  # fmt: skip
    return kind(**{key: given[key] for key in specified}).eval()


def filled(model: torch.nn.Module, name: str) -> torch.nn.Module:
    """The model with weights from a seed."""
    shapes = {key: tuple(x.shape) for key, x in model.state_dict().items()}
    tensors = {key: torch.as_tensor(x) for key, x in tensors_of(name, shapes).items()}
    model.load_state_dict(tensors, strict=True, assign=True)
    return model


def their_logits(model: PlainVitModel, size: tuple[int, int]) -> np.ndarray:
    """float32 [H, W] for `inputs(size)`."""
    with torch.no_grad():
        interpolate_pos_embed_inference(model.backbone, size, "cpu")
        return model(*_tensors(size))["instances"][0, 0].numpy()


def _tensors(size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    image, prev, points = inputs(size)
    x = np.concatenate([image, prev[..., None]], -1).transpose(0, 3, 1, 2)
    return torch.as_tensor(np.ascontiguousarray(x)), torch.as_tensor(points)


def forward() -> tuple[dict, list]:
    """Whole networks; the two never share the memory."""
    arrays, rows = {}, []
    for name, size in dict.fromkeys([*FORWARD, *WHOLE]):
        kind = MISModel if name == "B" else PlainVitModel
        theirs = their_logits(filled(model_of(name, kind=kind), name), size)
        gc.collect()
        ours = our_logits(name, size, our_parameters(name))
        gc.collect()
        if (name, size) in FORWARD:
            arrays[key_of(name, size)] = some(theirs, 2048)
        part = f"SimpleClick {name}, {size[0]} x {size[1]} pixels"
        print(part, theirs.mean(), theirs.std(), relative_error(ours, theirs), flush=True)
        rows.append({"part": part, "oracle": f"{kind.__name__}, float32",
                     "cases": f"{theirs.size} logits of standard deviation {theirs.std():.2f}; "
                     f"{((ours > 0) != (theirs > 0)).sum()} pixels of the mask differ",
                     "worst": relative_error(ours, theirs), "unit": "relative"})  # fmt: skip
    return arrays, rows


def click_maps() -> tuple[dict, list]:
    """Disks around clicks of float32, and of float64 as ZoomIn hands them on."""
    disks = DistMaps(5, use_disks=True)
    theirs = disks(torch.zeros(4, 1, 64, 80), torch.as_tensor(clicks())).numpy()
    ours = np.asarray(our_click_maps(clicks(), (64, 80))).transpose(0, 3, 1, 2)
    small = disks(torch.zeros(1, 1, 64, 80), torch.as_tensor(zoomed_clicks())).numpy()
    rng, rounded, exact = generator("zoomed clicks"), 0, 0
    maps = jax.jit(our_click_maps, static_argnums=1)
    for _ in range(200):
        side = rng.randint(200, 600)
        points = np.full((1, 48, 3), -1.0)
        points[0, :, :2] = CROP * rng.randint(0, side, (48, 2)) / side
        double = disks(torch.zeros(1, 1, CROP, CROP), torch.as_tensor(points)).numpy()
        double = double.transpose(0, 2, 3, 1)
        rounded += int((maps(points.astype(np.float32), (CROP, CROP)) != double).sum())
        exact += int((maps(with_remainders(points), (CROP, CROP)) != double).sum())
    oracle = "DistMaps(use_disks=True)"
    row = {"oracle": f"{oracle}, float64", "cases": "9600 clicks, as of 200 crops by ZoomIn"}
    rows = [{"part": "Click maps", "oracle": oracle, "cases": f"{clicks().size // 3} clicks",
             "worst": int((ours != theirs).sum()), "unit": "pixels"},
            row | {"part": "Click maps of unrounded clicks", "worst": exact, "unit": "pixels"},
            row | {"part": "Click maps of the same clicks, had they been rounded to float32",
                   "worst": rounded, "unit": "pixels"}]  # fmt: skip
    packed = {"click_maps": theirs, "zoomed_click_maps": small}
    return {key: np.packbits(x.astype(bool)) for key, x in packed.items()}, rows


def position_embeddings() -> tuple[dict, list]:
    """Tables for other grids, oblong ones too."""
    arrays, errors = {}, []
    for side, grid in GRIDS:
        backbone = torch.nn.Module()
        backbone.patch_embed = torch.nn.Module()
        vars(backbone.patch_embed).update(
            num_patches=side**2, grid_size=(side, side), patch_size=(16, 16)
        )
        backbone.pos_embed = torch.nn.Parameter(torch.as_tensor(table(side)))
        interpolate_pos_embed_inference(backbone, tuple(16 * n for n in grid), "cpu")
        theirs = backbone.pos_embed.detach().numpy()
        ours = vit.resize_pos_embed(table(side), grid, "bicubic")
        errors.append(relative_error(ours, theirs))
        arrays[f"pos_embed {side} {grid[0]} {grid[1]}"] = some(theirs)
    cases = ", ".join(f"{side} x {side} to {grid[0]} x {grid[1]}" for side, grid in GRIDS)
    row = {"part": "Position embeddings", "oracle": "interpolate_pos_embed_inference",
           "cases": cases, "worst": max(errors), "unit": "relative"}  # fmt: skip
    return arrays, [row]


def gradients() -> tuple[dict, list]:
    """Of the mean BCE of one sample, dropout off."""
    model = filled(model_of("xTiny"), "xTiny")
    size = (GRADIENT_SIDE, GRADIENT_SIDE)
    grown = model.backbone.pos_embed
    interpolate = torch.nn.functional.interpolate
    tokens = grown[:, 1:].reshape(1, 28, 28, -1).permute(0, 3, 1, 2)
    tokens = interpolate(tokens, size=(14, 14), mode="bicubic", align_corners=False)
    tokens = torch.cat([grown[:, :1], tokens.permute(0, 2, 3, 1).flatten(1, 2)], 1)
    del model.backbone.pos_embed
    model.backbone.pos_embed = tokens
    model.backbone.patch_embed.grid_size = (14, 14)
    logits = model(*_tensors(size))["instances"][:, 0]
    truth = torch.as_tensor(target(GRADIENT_SIDE))
    torch.nn.functional.binary_cross_entropy_with_logits(logits, truth).backward()
    theirs = {key: x.grad.numpy() for key, x in model.named_parameters() if x.grad is not None}
    theirs["backbone.pos_embed"] = grown.grad.numpy()
    ours = our_gradients()
    assert ours.keys() == theirs.keys()
    norms = np.array([norm_of(theirs, part) for part in PARTS])
    found = np.array([norm_of(ours, part) for part in PARTS])
    oracle = "autograd of PlainVitModel and binary_cross_entropy_with_logits"
    rows = [{"part": "Gradients of xTiny", "oracle": oracle,
             "cases": f"{len(theirs)} parameters, {GRADIENT_SIDE} pixels",
             "worst": max(relative_error(ours[key], x) for key, x in theirs.items()),
             "unit": "relative"},
            {"part": "Norms of the gradients of xTiny", "oracle": oracle,
             "cases": ", ".join(PARTS), "worst": float(np.abs(found / norms - 1).max()),
             "unit": "relative"}]  # fmt: skip
    return {"gradient_norms": norms}, rows


def small_file() -> tuple[dict, list]:
    """A checkpoint as torch.save writes it, small enough to keep."""
    model = filled(model_of("file", 32, loss_decode=CrossEntropyLoss()), "file")
    for key, x in model.state_dict().items():
        if key.startswith(("backbone.head", "head.up_conv")):
            x.zero_()  # nothing reads it
    file = io.BytesIO()
    torch.save({"state_dict": model.state_dict(), "config": model._config}, file)
    arrays = {
        "checkpoint": np.frombuffer(file.getvalue(), np.uint8),
        "keys": np.array(sorted(f"{k} {tuple(x.shape)}" for k, x in model.state_dict().items())),
        "class": np.array(model._config["class"]),
        "settings": np.array(sorted(model._config["params"])),
    }
    return arrays, []


def mae_initialisation(folder: Path) -> tuple[dict, list]:
    """MAE's names and grids into the backbone: 14 x 14 to 28 x 28 (B), 16 x 16 to 32 x 32 (H)."""
    rows = []
    for name, kind in (("B", MISModel), ("narrow H", PlainVitModel)):
        v = VARIANTS[name]
        model = model_of(name, kind=kind)
        shapes = {key: tuple(x.shape) for key, x in model.backbone.state_dict().items()
                  if not key.startswith(("head.", "fc_norm."))}  # fmt: skip
        shapes["pos_embed"] = (1, 1 + (224 // v.patch) ** 2, v.dim)
        shapes |= {"norm.weight": (v.dim,), "norm.bias": (v.dim,)}
        tensors = state_dict(shapes, seed=1)
        file = folder / "mae.pth"
        torch.save({"model": {key: torch.as_tensor(x) for key, x in tensors.items()}}, file)
        if kind is MISModel:
            model.load_state_dict_from_url(file.as_uri())
        else:
            model.backbone.init_weights_from_pretrained(file)
        ours = simpleclick.with_backbone(our_parameters(name), tensors)
        ours = porting.unport({"backbone": ours["backbone"]})
        theirs = model.state_dict()
        errors = {key: relative_error(x, theirs[key].numpy()) for key, x in ours.items()}
        assert not any(x for key, x in errors.items() if key != "backbone.pos_embed")
        oracle = ("MISModel.load_state_dict_from_url" if kind is MISModel
                  else "VisionTransformer.init_weights_from_pretrained")  # fmt: skip
        rows.append({"part": f"MAE initialisation, {name}", "oracle": oracle,
                     "cases": f"{len(errors)} parameters; all but pos_embed are equal",
                     "worst": max(errors.values()), "unit": "relative"})  # fmt: skip
    return {}, rows


def files(folder: Path) -> tuple[dict, list]:
    """A checkpoint of theirs -> ours -> exported -> theirs: the same masks, strictly loaded."""
    rows = []
    for name in ("xTiny", "B"):
        theirs = filled(model_of(name, loss_decode=CrossEntropyLoss()), name)
        content = {"state_dict": theirs.state_dict(), "config": theirs._config}
        torch.save(content, folder / "theirs.pth")
        _, params = loading.load(folder / "theirs.pth")
        export(folder / "theirs.pth", folder / "ours.pth")
        back = load_is_model(str(folder / "ours.pth"), "cpu", False)
        torch.load(folder / "ours.pth", weights_only=True)
        size = (CROP, CROP)
        expected, again = their_logits(theirs, size), their_logits(back, size)
        masks = [x > 0 for x in (our_logits(name, size, params), expected, again)]
        assert (expected == again).all()
        rows.append({"part": f"Checkpoint of {name} read, exported and read by the public code",
                     "oracle": "torch.save, load_is_model (strict)",
                     "cases": f"masks of {masks[1].size} pixels, {masks[1].sum()} of the object",
                     "worst": int((masks[0] != masks[2]).sum()), "unit": "pixels"})  # fmt: skip
    return {}, rows


if __name__ == "__main__":
    main()
