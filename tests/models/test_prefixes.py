"""State dicts under the prefixes of wrappers, of other networks, and with values that are none."""

import functools
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from mis_jax import config
from mis_jax.errors import InputError
from mis_jax.features.vit_extractor import VitExtractor
from mis_jax.models import loading, official, porting, simpleclick, state_dicts, vit
from mis_jax.models.simpleclick import VARIANTS, Variant
from mis_jax.training import checkpoint, initial

SIZE = 32
SMALL = Variant(16, 4, 2, 4, (8, 8, 8, 8), 8, 1)
VIT = vit.Variant(dim=128, depth=1, heads=2, patch=8, grid=4)
PREFIXES = [
    "module.", "model.", "_orig_mod.", "teacher.backbone.", "student.", "backbone.",
    "module._orig_mod.", "model.module.", "teacher.module.backbone.", "_orig_mod.model.",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def variants():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, "small", SMALL)
        patch.setitem(vit.VARIANTS, "dino-vits8", VIT)
        yield


def write(path, tensors, **others):
    if path.suffix == ".pth":
        state_dicts.save(path, tensors, **others)
    else:
        save_file({k: np.ascontiguousarray(x) for k, x in tensors.items()}, path)
    return path


def filled(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return porting.unport(jax.tree.map(lambda x: rng.normal(size=x.shape).astype("f"), shapes))


@functools.cache
def click_tensors():
    return filled(simpleclick.shapes("small", 0, SIZE))


def vit_tensors(seed=0):
    return filled(vit.abstract(VIT)[1], seed)


def under(prefix, tensors):
    return {prefix + key: x for key, x in tensors.items()}


def assert_equal(params, tensors):
    found = porting.unport(params)
    assert set(found) == set(tensors)
    for key, x in tensors.items():
        np.testing.assert_array_equal(found[key], x, err_msg=key)


FILES = pytest.mark.parametrize("file", ["x.pth", "x.safetensors"])


@FILES
@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_a_network(tmp_path, prefix, file):
    tensors = under(prefix, click_tensors()) | {"loss.weight": np.ones(3, "f")}
    _, params = loading.load(write(tmp_path / file, tensors))
    assert_equal(params, click_tensors())


@FILES
@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_a_vit(tmp_path, prefix, file):
    head = {"head.mlp.0.weight": np.ones((2, 2), "f")}
    tensors = under(prefix, vit_tensors() | head) | {"other_head.weight": np.ones(1, "f")}
    read = state_dicts.load_state_dict(write(tmp_path / file, tensors))
    assert_equal(vit.port_published("dino-vits8", read), vit_tensors())


@FILES
@pytest.mark.parametrize("prefix", ["", "module.", "teacher.backbone."])
def test_prefixes_of_the_backbone_that_training_begins_from(tmp_path, prefix, file):
    params = simpleclick.shapes("small", 0, SIZE)
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), params)
    ours = {k[9:]: x for k, x in click_tensors().items() if k.startswith("backbone.")}
    given = under(prefix, ours | {"norm.weight": np.ones(16, "f"), "head.bias": np.ones(1, "f")})
    fields = config.default().model
    fields.update(init="dino", weights=str(write(tmp_path / file, given)))
    assert_equal(initial.initial_backbone(fields, params)["backbone"], ours)


@FILES
def test_of_dinos_teacher_and_student_the_teacher_is_meant(tmp_path, file, capsys):
    teacher, student = vit_tensors(1), vit_tensors(2)
    flat = under("student.module.backbone.", student) | under("teacher.backbone.", teacher)
    read = state_dicts.load_state_dict(write(tmp_path / file, flat))
    assert_equal(vit.port_published("dino-vits8", read), teacher)
    said = f"weights: those under teacher.backbone. are taken, {len(student)} tensors beside them"
    assert said in capsys.readouterr().err
    key = "teacher.backbone.norm.bias"
    del flat[key]
    with pytest.raises(InputError, match=r"missing: norm\.bias;"):  # and not the student instead
        vit.port_published("dino-vits8", flat)
    other = under("module.", student) | under("ema.", teacher)
    with pytest.raises(InputError, match=r"several such networks, under module\., ema\.;"):
        vit.port_published("dino-vits8", other)


def test_dinos_full_checkpoint(tmp_path, monkeypatch):
    """{"student": ..., "teacher": ..., "epoch": ...}, as its training writes it."""
    teacher, student = vit_tensors(1), vit_tensors(2)
    head = under("module.head.", {"last_layer.weight_g": np.ones((3, 1), "f")})
    content = {
        "student": under("module.backbone.", student) | head,
        "teacher": under("module.backbone.", teacher) | head,
        "optimizer": {"lr": 1},
        "epoch": 100,
    }
    monkeypatch.setattr(state_dicts, "_read_zip", lambda file: content)
    write(tmp_path / "x.pth", {})
    read, others = state_dicts.load(tmp_path / "x.pth")
    assert_equal(vit.port_published("dino-vits8", read), teacher)
    assert others == {"optimizer": {"lr": 1}, "epoch": 100}
    del content["teacher"]
    read = state_dicts.load_state_dict(tmp_path / "x.pth")
    assert_equal(vit.port_published("dino-vits8", read), student)


def test_other_networks_are_named_by_what_was_found_and_wanted(tmp_path):
    other = {f"layer1.{k}.conv.weight": np.ones((1, 1, 3, 3), "f") for k in range(9)}
    with pytest.raises(InputError) as error:
        vit.port_published("dino-vits8", other)
    for words in ("found layer1.0.conv.weight,", "and 5 more", "wanted blocks.0.attn", "another"):
        assert words in str(error.value)
    with pytest.raises(InputError, match=r"no SimpleClick.*found: layer1\.0\.conv\.weight"):
        loading.load(write(tmp_path / "x.pth", other))
    deeper = under("module.", vit_tensors() | under("blocks.1.", {"norm1.bias": np.ones(128, "f")}))
    with pytest.raises(InputError, match=r"left over: blocks\.1\.norm1\.bias; choose the variant"):
        vit.port_published("dino-vits8", deeper)


def spoilt(tensors, key, count, value):
    bad = tensors[key].copy()
    bad.ravel()[:count] = value
    return {**tensors, key: bad}


@FILES
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused(tmp_path, file, value):
    key = "head.conv_seg.weight"
    words = rf"x\.\w+: .*damaged: {re.escape(key)} has 3 of 8 values.*NaN or infinite; download"
    with pytest.raises(InputError, match=words):
        loading.load(write(tmp_path / file, spoilt(click_tensors(), key, 3, value)))
    bad = spoilt(vit_tensors(), "blocks.0.attn.qkv.bias", 2, value)
    path = write(tmp_path / f"v{file}", bad)
    with pytest.raises(InputError, match=r"blocks\.0\.attn\.qkv\.bias has 2 of 384 values"):
        VitExtractor("dino-vits8", path)


def test_too_large_for_float32_is_no_number_either():
    shapes = vit.abstract(VIT)[1]
    tensors = {k: x.astype("d") for k, x in vit_tensors().items()}
    with pytest.raises(InputError, match=r"norm\.bias has 1 of 128 values"):
        porting.port(spoilt(tensors, "norm.bias", 1, 1e300), shapes)


def test_what_is_not_used_may_be_anything():
    tensors = {**vit_tensors(), "head.weight": np.full(3, np.nan, "f")}
    assert_equal(vit.port_published("dino-vits8", tensors), vit_tensors())


def test_a_start_from_weights_that_are_no_numbers_is_refused(tmp_path):
    params = simpleclick.shapes("small", 0, SIZE)
    ours = {k[9:]: x for k, x in click_tensors().items() if k.startswith("backbone.")}
    fields = config.default().model
    bad = write(tmp_path / "x.pth", spoilt(ours, "pos_embed", 4, np.nan))
    fields.update(init="dino", weights=str(bad))
    with pytest.raises(InputError, match="pos_embed has 4 of 1,040 values"):
        initial.initial_backbone(fields, params)
    tensors, about = official.content(
        spoilt(click_tensors(), "neck.down_8.2.bias", 1, np.nan),
        loading.load(write(tmp_path / "y.pth", click_tensors()))[0],
    )
    fields.start = str(write(tmp_path / "z.pth", tensors, config=about))
    with pytest.raises(InputError, match=r"neck\.down_8\.2\.bias has 1 of"):
        initial.start_from(fields, params)


def test_a_run_that_is_no_numbers_is_refused(tmp_path):
    c = config.default()
    c.model.update(variant="small", init="random")
    c.data.crop = c.eval.size = SIZE
    c.optim.ema = 0.0
    checkpoint.write_config(tmp_path, c)
    tensors = spoilt(click_tensors(), "head.conv_seg.bias", 1, np.nan)
    with np.errstate(all="ignore"):
        params = porting.port(click_tensors(), simpleclick.shapes("small", 0, SIZE))
    params["head"]["conv_seg"]["bias"] = tensors["head.conv_seg.bias"]
    with checkpoint.checkpointer(tmp_path, 1, 2) as saver:
        saver.save_checkpointables(7, {"params": jax.tree.map(jax.numpy.asarray, params)})
    with pytest.raises(InputError, match=r"params\.head\.conv_seg\.bias has 1 of 1 .*delete .*/7 "):
        loading.load(tmp_path)
