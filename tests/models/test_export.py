"""Weights out and in again: our files, and those in the layout of the public code."""

import functools
import os
import pickletools
import zipfile

import jax
import numpy as np
import pytest
import safetensors
from absl import flags
from safetensors.numpy import load_file, save_file

from mis_jax import Predictor, cli, config
from mis_jax.errors import InputError
from mis_jax.models import loading, official, porting, simpleclick, state_dicts
from mis_jax.models.export import export
from mis_jax.models.simpleclick import VARIANTS, Variant
from mis_jax.training import checkpoint

SIZE = 32
SMALL = Variant(16, 4, 2, 4, (8, 8, 8, 8), 8, 1)  # 4 blocks, all of them global: as published
OURS = Variant(20, 4, 2, 4, (8, 8, 8, 8), 8, 2)  # every second one: the public code cannot


@pytest.fixture(scope="module", autouse=True)
def small_variants():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, "small", SMALL)
        patch.setitem(VARIANTS, "ours", OURS)
        yield


@functools.cache
def parameters(variant):
    rng = np.random.default_rng(0)
    fill = lambda x: rng.normal(size=x.shape).astype(x.dtype)  # noqa: E731
    return jax.tree.map(fill, simpleclick.shapes(variant, 0, SIZE))


def settings(**model):
    c = config.default()
    c.model.update(variant="small", **model)
    c.data.crop = c.eval.size = SIZE
    return c


def published(**changes):
    """State dict and config of a public checkpoint; None takes a key away."""
    tensors, about = official.content(porting.unport(parameters("small")), settings())
    tensors |= changes
    return {key: x for key, x in tensors.items() if x is not None}, about


def write_run(folder, c):
    """A run with a checkpoint; its parameters."""
    folder.mkdir()
    checkpoint.write_config(folder, c)
    params = parameters(c.model.variant)
    with checkpoint.writing(folder), checkpoint.checkpointer(folder, every=1, keep=1) as saver:
        saver.save_checkpointables_async(1, {"params": params})
    return params


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


# ---------------------------------------------------------------------------- out


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_an_exported_file_is_the_run(tmp_path, name):
    """With its config; and an exported file can be exported again."""
    c = settings(init="dino")
    c.eval.threshold = 0.25
    params = write_run(tmp_path / "run", c)
    file = tmp_path / "new folder" / name
    export(tmp_path / "run", file)
    assert os.listdir(file.parent) == [name]
    found, loaded = loading.load(file)
    assert found.to_dict() == loading.read_config(tmp_path / "run").to_dict()
    assert_equal(loaded, params)
    predictor = Predictor.load(file)
    assert (predictor.size, predictor.threshold) == (SIZE, 0.25)
    again = tmp_path / {"model.pth": "again.safetensors"}.get(name, "again.pth")
    export(file, again)
    assert_equal(loading.load(again)[1], params)


def test_safetensors_name_their_licence(tmp_path):
    for init, licence in {"dino": "Apache-2.0", "random": None}.items():
        write_run(tmp_path / init, settings(init=init))
        file = tmp_path / "model.safetensors"
        export(tmp_path / init, file)
        with safetensors.safe_open(file, "numpy") as opened:
            assert opened.metadata()["init"] == init
            assert opened.metadata().get("licence") == licence
        assert "backbone.blocks.0.attn.qkv.weight" in load_file(file)  # PyTorch's names


def test_the_public_layout(tmp_path):
    """All keys of the public model, 4.9 of its table; nothing in the pickle but tensors."""
    write_run(tmp_path / "run", settings(init="mae"))
    export(tmp_path / "run", tmp_path / "model.pth")
    tensors, others = state_dicts.load(tmp_path / "model.pth")
    assert others["licence"] == "CC-BY-NC-4.0"
    about = others["config"]["params"]
    assert about["backbone_params"]["value"]["img_size"] == (SIZE, SIZE)
    assert about["head_params"]["value"]["channels"] == 8
    ours = porting.unport(parameters("small"))
    unused = {key: x.shape for key, x in tensors.items() if key not in ours}
    assert unused["head.up_conv2.0.weight"] == (4, 2, 2, 2)
    assert unused["head.up_conv1.0.bias"] == (4,)
    assert unused["backbone.head.weight"] == (1000, 16)
    assert len(unused) == 21
    assert len(tensors) == len(unused) + len(ours)
    with zipfile.ZipFile(tmp_path / "model.pth") as archive:
        assert archive.testzip() is None
        code = archive.read("archive/data.pkl")
    called = {arg for opcode, arg, _ in pickletools.genops(code) if opcode.name == "GLOBAL"}
    wanted = {"torch._utils _rebuild_tensor_v2", "torch FloatStorage", "collections OrderedDict"}
    assert called == wanted


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"variant": "ours"}, "4 blocks in groups of 2"),
        ({"binary_prev_mask": True}, "a binary previous mask"),
        ({"variant": "Nano"}, "6 blocks in groups of 3"),
    ],
)
def test_what_the_public_code_cannot_express(model, message):
    c = settings()
    c.model.update(model)
    c.data.crop = 96
    with pytest.raises(InputError, match=message + r".*\.safetensors"):
        official.content({}, c)


@pytest.mark.parametrize("variant", ["B", "L", "H", "xTiny", "S"])
def test_what_it_can(variant):
    c = settings()
    c.model.variant, c.data.crop = variant, 448
    keys, about = official.content({}, c)
    assert len(keys) == 21
    assert about["class"] == "isegm.model.is_plainvit_model.PlainVitModel"


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    write_run(tmp_path / "run", settings())
    file = tmp_path / "model.pth"
    file.write_text("what was there")

    def full(path, *_, **__):
        path.write_text("half")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(state_dicts, "save", full)
    with pytest.raises(OSError, match="No space"):
        export(tmp_path / "run", file)
    assert file.read_text() == "what was there"
    assert sorted(os.listdir(tmp_path)) == ["model.pth", "run"]
    with pytest.raises(InputError, match=r"ends in \.safetensors or \.pth"):
        export(tmp_path / "run", tmp_path / "model.bin")


def test_the_command(tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "run", settings(init="mae"))
    monkeypatch.setattr(cli.logging, "use_absl_handler", lambda: None)  # it outlives the test
    monkeypatch.setattr("sys.argv", ["mis-jax"])
    before = set(flags.FLAGS)
    words = ["export", str(tmp_path / "run"), str(tmp_path / "m.safetensors")]
    assert cli.command(words) == 0
    printed = capsys.readouterr().out
    assert "SimpleClick small, trained at 32 pixels" in printed
    assert "CC-BY-NC-4.0" in printed
    assert cli.command(words[:2]) == 2
    assert "mis-jax export RUN FILE.safetensors" in capsys.readouterr().err
    assert set(flags.FLAGS) == before


# ---------------------------------------------------------------------------- in


@pytest.mark.parametrize("form", ["config", "state_dict", "bare", "safetensors"])
def test_public_checkpoints(tmp_path, form):
    """Variant, patch and size are told from the keys; the evaluation's settings are published."""
    tensors, about = published()
    file = tmp_path / ("x.safetensors" if form == "safetensors" else "x.pth")
    if form == "safetensors":
        save_file(tensors, file)
    elif form == "bare":
        save_file(tensors, tmp_path / "no-suffix")
        file = tmp_path / "no-suffix"
    else:
        state_dicts.save(file, tensors, **({"config": about} if form == "config" else {}))
    c, params = loading.load(file)
    assert (c.model.variant, c.model.patch, c.data.crop) == ("small", 0, SIZE)
    assert_equal(params, parameters("small"))
    assert c.eval.to_dict() == config.default().eval.to_dict()
    assert (c.eval.size, c.eval.davis_size, c.eval.flip, c.eval.threshold) == (448, 672, True, 0.5)


@pytest.mark.parametrize(
    ("variant", "patch", "size"),
    [("B", 16, 448), ("H", 14, 448), ("xTiny", 16, 672), ("L", 16, 224), ("B", 8, 224)],
)
def test_identified_by_shapes(variant, patch, size):
    v, zero = VARIANTS[variant], np.float32(0)
    shapes = {f"backbone.blocks.{i}.norm1.weight": (v.dim,) for i in range(v.depth)}
    shapes["backbone.pos_embed"] = (1, 1 + (size // patch) ** 2, v.dim)
    shapes["backbone.patch_embed.proj.weight"] = (v.dim, 3, patch, patch)
    shapes["head.conv_seg.weight"] = (1, v.head, 1, 1)
    c = official.config_of({key: np.broadcast_to(zero, shape) for key, shape in shapes.items()})
    assert (c.model.variant, c.data.crop) == (variant, size)
    assert c.model.patch == (0 if patch == v.patch else patch)
    assert c.model.init == ("random" if variant == "xTiny" else "mae")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"neck.down_8.2.bias": None}, r"x\.pth: .*missing: neck\.down_8\.2\.bias;"),
        ({"extra.weight": np.zeros(1, "f")}, r"x\.pth: .*left over: extra\.weight;"),
        ({"head.conv_seg.bias": np.zeros(3, "f")}, r"another shape: head\.conv_seg\.bias"),
        ({"backbone.pos_embed": None}, r"Click \(missing: backbone\.pos_embed; found: "),
        ({"backbone.pos_embed": np.zeros((1, 60, 16), "f")}, r"square image.*\[1, 60, 16\]"),
        ({"backbone.pos_embed": np.zeros((1, 65, 17), "f")}, r"17 channels.*none of.*B, L, H"),
        ({"backbone.pos_embed": np.zeros((3,), "f")}, r"pos_embed is \[3\]"),
    ],
)  # fmt: skip
def test_state_dicts_that_do_not_fit(tmp_path, changes, message):
    state_dicts.save(tmp_path / "x.pth", published(**changes)[0])
    with pytest.raises(InputError, match=message):
        loading.load(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        (None, "random_split", True),
        (None, "use_disks", False),
        (None, "norm_radius", 3),
        (None, "norm_mean_std", ([0.5] * 3, [0.5] * 3)),
        ("head_params", "upsample", "x2"),
        ("head_params", "align_corners", True),
        ("backbone_params", "num_heads", 4),
    ],
)
def test_settings_that_are_not_supported(tmp_path, section, name, value):
    """The keys are the same, the numbers would not be."""
    tensors, about = published()
    where = about["params"][section]["value"] if section else about["params"][name]
    where[name if section else "value"] = value
    state_dicts.save(tmp_path / "x.pth", tensors, config=about)
    full = f"{section}.{name}" if section else name
    with pytest.raises(InputError, match=rf"x\.pth: its config has {full} = .*is supported"):
        loading.load(tmp_path / "x.pth")


@pytest.mark.parametrize("about", ["text", {"params": 3}, {"params": {"use_disks": True}}, {}])
def test_a_config_of_another_kind_says_nothing(tmp_path, about):
    state_dicts.save(tmp_path / "x.pth", published()[0], config=about)
    assert loading.load(tmp_path / "x.pth")[0].model.variant == "small"
