"""Reading of state dicts from files in torch's layout, written here without torch."""

import collections
import io
import pickle
import resource
import struct
import sys
import types
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from mis_jax.errors import InputError
from mis_jax.models import state_dicts

# ---- files in torch's layout, written without torch


class Stored:
    """A flat storage of a fake torch tensor."""

    def __init__(self, kind, values):
        self.kind, self.values = kind, values


class Call:
    """Pickles as the call of a global of a module that is not installed."""

    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced


@pytest.fixture
def torch(monkeypatch):
    """Names that only the writer can resolve; the fixture's module is gone from the reader."""

    def tensor(storage, size, stride, offset=0):
        arguments = (offset, size, stride, False, collections.OrderedDict())
        return Call(utils._rebuild_tensor_v2, storage, *arguments)

    def parameter(data):
        return Call(utils._rebuild_parameter, data, True, collections.OrderedDict())

    module, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    kinds = ("FloatStorage", "HalfStorage", "BFloat16Storage", "LongStorage", "QInt8Storage")
    for kind in kinds:
        setattr(module, kind, type(kind, (), {"__module__": "torch", "__qualname__": kind}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        function = types.FunctionType((lambda *_: None).__code__, {}, name)
        function.__module__, function.__qualname__ = "torch._utils", name
        setattr(utils, name, function)
    module.tensor, module.parameter = tensor, parameter
    monkeypatch.setitem(sys.modules, "torch", module)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return module


def pickled(content, torch, legacy):
    storages, out = {}, io.BytesIO()

    def persistent_id(x):
        if not isinstance(x, Stored):
            return None
        key = str(list(storages).index(id(x)) if id(x) in storages else len(storages))
        storages[id(x)] = x
        pid = ("storage", getattr(torch, x.kind), key, "cpu", x.values.size)
        return (*pid, None) if legacy else pid

    pickler = pickle.Pickler(out, 2)
    pickler.persistent_id = persistent_id
    pickler.dump(content)
    return out.getvalue(), [x.values for x in storages.values()]


def write_zip(path, content, torch):
    data, storages = pickled(content, torch, legacy=False)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some name/data.pkl", data)
        archive.writestr("some name/byteorder", "little")
        for key, values in enumerate(storages):
            archive.writestr(f"some name/data/{key}", values.tobytes())
        archive.writestr("some name/version", "3\n")


def write_legacy(path, content, torch):
    data, storages = pickled(content, torch, legacy=True)
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2}}
    with open(path, "wb") as file:
        for x in (0x1950A86A20F9469CFC6C, 1001, system):
            pickle.dump(x, file, 2)
        file.write(data)
        pickle.dump([str(key) for key in range(len(storages))], file, 2)
        for values in storages:
            file.write(struct.pack("<q", values.size) + values.tobytes())


WRITERS = pytest.mark.parametrize("write", [write_zip, write_legacy])


@WRITERS
def test_torch_files(tmp_path, torch, monkeypatch, write):
    flat = np.arange(24, dtype=np.float32)
    shared = Stored("FloatStorage", flat)
    half = np.linspace(-1, 1, 4, dtype=np.float16)
    brain = np.linspace(-1, 1, 6).astype(ml_dtypes.bfloat16)
    content = collections.OrderedDict(
        plain=torch.tensor(shared, (4, 6), (6, 1)),
        transposed=torch.tensor(shared, (6, 4), (1, 6)),
        part=torch.parameter(torch.tensor(shared, (2, 3), (6, 2), offset=7)),
        expanded=torch.tensor(shared, (3, 2), (0, 1), offset=5),
        half=torch.tensor(Stored("HalfStorage", half), (2, 2), (2, 1)),
        brain=torch.tensor(Stored("BFloat16Storage", brain), (6,), (1,)),
        scalar=torch.tensor(Stored("LongStorage", np.array([2**40])), (), ()),
        empty=torch.tensor(Stored("FloatStorage", flat[:0]), (0, 3), (3, 1)),
    )
    content._metadata = {"": {"version": 1}}
    write(tmp_path / "x.pth.tar", content, torch)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.delitem(sys.modules, "torch._utils")
    tensors = state_dicts.load_state_dict(tmp_path / "x.pth.tar")
    expected = {
        "plain": flat.reshape(4, 6),
        "transposed": flat.reshape(4, 6).T,
        "part": flat[7:].take([[0, 2, 4], [6, 8, 10]]),
        "expanded": np.array([[5, 6]] * 3, np.float32),
        "half": half.reshape(2, 2),
        "brain": brain,
        "scalar": np.array(2**40),
        "empty": np.zeros((0, 3), np.float32),
    }
    assert list(tensors) == list(expected)
    for key, x in expected.items():
        assert tensors[key].dtype == x.dtype, key
        np.testing.assert_array_equal(tensors[key], x, err_msg=key, strict=True)


RAN = []


@WRITERS
@pytest.mark.parametrize("wrapper", ["model", "state_dict", "teacher", "student"])
def test_wrappers_and_inert_classes(tmp_path, torch, write, wrapper):
    """Whatever else is in the file is neither imported nor run."""
    values = np.arange(3, dtype=np.float32)
    content = {
        "args": Call(types.SimpleNamespace, state={"lr": 1}),
        "evil": Call(RAN.append, "ran"),
        "worse": Call(exec, "raise SystemExit"),
        "history": collections.defaultdict(list, a=[1]),
        "numpy": np.float64(3),
        "seen": {Call(set, [1])} if False else collections.Counter("aab"),
        wrapper: {"w": torch.tensor(Stored("FloatStorage", values), (3,), (1,))},
    }
    write(tmp_path / "x.pth", content, torch)
    RAN.clear()
    tensors = state_dicts.load_state_dict(tmp_path / "x.pth")
    assert RAN == []
    assert list(tensors) == ["w"]
    np.testing.assert_array_equal(tensors["w"], values)


@WRITERS
@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((25,), (1,), 0), ((4,), (1,), 21), ((2,), (-1,), 3), ((2, 2), (1, 24), 0), ((2,), (1,), -1)],
)
def test_views_cannot_leave_their_storage(tmp_path, torch, write, size, stride, offset):
    storage = Stored("FloatStorage", np.zeros(24, np.float32))
    write(tmp_path / "x.pth", {"w": torch.tensor(storage, size, stride, offset)}, torch)
    with pytest.raises(InputError, match="beyond its storage"):
        state_dicts.load_state_dict(tmp_path / "x.pth")


@WRITERS
def test_damaged_torch_files(tmp_path, torch, write):
    path, values = tmp_path / "x.pth", np.random.default_rng(0).normal(size=999).astype("f")
    write(path, {"w": torch.tensor(Stored("FloatStorage", values), (999,), (1,))}, torch)
    whole = path.read_bytes()
    assert state_dicts.load_state_dict(path)["w"].size == 999
    for end in (0, 5, 100, len(whole) // 2, len(whole) - 2):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"x\.pth .*again"):
            state_dicts.load_state_dict(path)
    if write is write_zip:  # a flipped bit is found by the checksum of the zip
        place = whole.index(values.tobytes()) + 1000
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match="again"):
            state_dicts.load_state_dict(path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damaged_files_raise_nothing_but_input_errors_and_need_little_memory(tmp_path, torch, kind):
    """500 files of each kind, cut off and with bytes changed, some of them claims of sizes."""
    path, rng = tmp_path / "x.pth", np.random.default_rng(0)
    values = rng.normal(size=400).astype("f")
    if kind == "safetensors":
        save_file({f"layer.{k}": values for k in range(9)}, path)
    else:
        write = write_zip if kind == "zip" else write_legacy
        storage = Stored("FloatStorage", values)
        tensors = {f"layer.{k}": torch.tensor(storage, (20, 20), (20, 1)) for k in range(200)}
        write(path, {"state_dict": tensors, "epoch": 3}, torch)
    whole, refused = path.read_bytes(), 0
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, limits[1]))
    try:
        for k in range(500):
            data = bytearray(whole[: rng.integers(len(whole))] if k % 4 == 0 else whole)
            for _ in range(rng.integers(1, 4) if data else 0):
                near = rng.integers(len(data)) if k % 2 else rng.integers(min(len(data), 900))
                data[near] = rng.integers(256)
            path.write_bytes(data)
            try:
                state_dicts.load(path)
            except InputError:
                refused += 1
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert refused > 120


def test_claims_of_huge_sizes_allocate_nothing(tmp_path, torch):
    path = tmp_path / "x.pth"
    storage = Stored("FloatStorage", np.zeros(3, np.float32))
    write_zip(path, {"w": torch.tensor(storage, (2**40, 2), (0, 0))}, torch)
    assert state_dicts.load_state_dict(path)["w"].shape == (2**40, 2)  # a view of three numbers
    put = b"\x80\x02}r" + struct.pack("<I", 2**31) + b"."  # remembers the dict as the 2^31st
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", put)
    with pytest.raises(InputError, match="no state dict"):
        state_dicts.load_state_dict(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", put)
        archive.writestr("a/data/0", bytes(10**7))
    with pytest.raises(InputError, match="larger than the file"):
        state_dicts.load_state_dict(path)


def test_unusable_files(tmp_path, torch):
    path = tmp_path / "x.pth"
    with pytest.raises(InputError, match="no weights file"):
        state_dicts.load_state_dict(path)
    path.write_text("<html>Access denied, and a page that says so at length</html>")
    with pytest.raises(InputError, match=r"x\.pth .*again"):
        state_dicts.load_state_dict(path)
    write_zip(path, {"epoch": 3, "teacher": {}}, torch)
    with pytest.raises(InputError, match=r"no state dict \(found: epoch, teacher\)"):
        state_dicts.load_state_dict(path)
    storage = Stored("QInt8Storage", np.zeros(3, np.int8))
    write_zip(path, {"w": torch.tensor(storage, (3,), (1,))}, torch)
    with pytest.raises(InputError, match="QInt8Storage is not supported"):
        state_dicts.load_state_dict(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
        archive.writestr("a/byteorder", "big")
    with pytest.raises(InputError, match="big-endian"):
        state_dicts.load_state_dict(path)


def test_safetensors(tmp_path):
    tensors = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.ones(2, ml_dtypes.bfloat16),
        "c": np.ones((1, 2), np.float16),
    }
    path = tmp_path / "no-matter-the-name"
    save_file(tensors, path)
    loaded = state_dicts.load_state_dict(path)
    assert set(loaded) == set(tensors)
    for key, x in tensors.items():
        np.testing.assert_array_equal(loaded[key], x, strict=True)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="damaged"):
        state_dicts.load_state_dict(path)


def test_what_is_saved_comes_back(tmp_path):
    """Every kind of tensor, and plain data beside them."""
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    tensors = {"plain": x, "transposed": x.T, "part": x[1:3, ::2], "scalar": np.array(3, "f")}
    tensors |= {"empty": x[:0], "number": np.array(2**40), "brain": x.astype(ml_dtypes.bfloat16)}
    others = {"config": {"class": "a.B", "size": (448, 448), "list": [1, 2.5, None, True, [-1]],
                         "many": {str(i): i * 1000 for i in range(2000)}},
              "text": "\u00e4" * 300}  # fmt: skip
    state_dicts.save(tmp_path / "x.pth", tensors, **others)
    loaded, found = state_dicts.load(tmp_path / "x.pth")
    assert found == others
    assert list(loaded) == list(tensors)
    for key, y in tensors.items():
        np.testing.assert_array_equal(loaded[key], y, err_msg=key, strict=True)
    save_file({"plain": x}, tmp_path / "x.safetensors", {"a": "b"})
    assert state_dicts.load(tmp_path / "x.safetensors")[1] == {"a": "b"}
