"""Reading, porting and downloading of weights, against files written here and a loopback server."""

import collections
import hashlib
import http.server
import io
import pickle
import struct
import sys
import threading
import types
import zipfile

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save, save_file

from mis_jax import weights
from mis_jax.errors import InputError

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
    tensors = weights.load_state_dict(tmp_path / "x.pth.tar")
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
@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
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
    tensors = weights.load_state_dict(tmp_path / "x.pth")
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
        weights.load_state_dict(tmp_path / "x.pth")


@WRITERS
def test_damaged_torch_files(tmp_path, torch, write):
    path, values = tmp_path / "x.pth", np.random.default_rng(0).normal(size=999).astype("f")
    write(path, {"w": torch.tensor(Stored("FloatStorage", values), (999,), (1,))}, torch)
    whole = path.read_bytes()
    assert weights.load_state_dict(path)["w"].size == 999
    for end in (0, 5, 100, len(whole) // 2, len(whole) - 2):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"x\.pth .*again"):
            weights.load_state_dict(path)
    if write is write_zip:  # a flipped bit is found by the checksum of the zip
        place = whole.index(values.tobytes()) + 1000
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match="again"):
            weights.load_state_dict(path)


def test_unusable_files(tmp_path, torch):
    path = tmp_path / "x.pth"
    with pytest.raises(InputError, match="no weights file"):
        weights.load_state_dict(path)
    path.write_text("<html>Access denied, and a page that says so at length</html>")
    with pytest.raises(InputError, match=r"x\.pth .*again"):
        weights.load_state_dict(path)
    write_zip(path, {"epoch": 3, "teacher": {}}, torch)
    with pytest.raises(InputError, match=r"no state dict \(found: epoch, teacher\)"):
        weights.load_state_dict(path)
    storage = Stored("QInt8Storage", np.zeros(3, np.int8))
    write_zip(path, {"w": torch.tensor(storage, (3,), (1,))}, torch)
    with pytest.raises(InputError, match="QInt8Storage is not supported"):
        weights.load_state_dict(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
        archive.writestr("a/byteorder", "big")
    with pytest.raises(InputError, match="big-endian"):
        weights.load_state_dict(path)


def test_safetensors(tmp_path):
    tensors = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.ones(2, ml_dtypes.bfloat16),
        "c": np.ones((1, 2), np.float16),
    }
    path = tmp_path / "no-matter-the-name"
    save_file(tensors, path)
    loaded = weights.load_state_dict(path)
    assert set(loaded) == set(tensors)
    for key, x in tensors.items():
        np.testing.assert_array_equal(loaded[key], x, strict=True)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="damaged"):
        weights.load_state_dict(path)


# ---- porting


class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (2, 3), strides=(2, 3), padding="VALID", rngs=rngs)
        options = {"strides": (2, 2), "padding": "VALID", "transpose_kernel": True}
        self.up = nnx.ConvTranspose(4, 5, (2, 2), **options, rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(5, rngs=rngs)])
        self.fc = nnx.Linear(5, 2, rngs=rngs)
        self.token = nnx.Param(jnp.zeros((1, 1, 2)))

    def __call__(self, x):
        return self.fc(self.norms[0](self.up(self.conv(x)))) + self.token[...]


TORCH_SHAPES = {
    "conv.weight": (4, 3, 2, 3),
    "conv.bias": (4,),
    "up.weight": (4, 5, 2, 2),  # (in, out, height, width)
    "up.bias": (5,),
    "norms.0.weight": (5,),
    "norms.0.bias": (5,),
    "fc.weight": (2, 5),
    "fc.bias": (2,),
    "token": (1, 1, 2),
}


@pytest.fixture
def net():
    graphdef, state = nnx.split(nnx.eval_shape(lambda: Net(nnx.Rngs(0))))
    rng = np.random.default_rng(0)
    tensors = {key: rng.normal(size=shape).astype("f") for key, shape in TORCH_SHAPES.items()}
    return graphdef, nnx.to_pure_dict(state), tensors


def test_port_gives_torch_outputs(net):
    graphdef, shapes, t = net
    image = np.random.default_rng(1).normal(size=(1, 6, 9, 3)).astype("f")
    params = weights.port(t, shapes)
    with jax.default_matmul_precision("highest"):
        actual = nnx.merge(graphdef, params)(image)
    t = {key: x.astype(np.float64) for key, x in t.items()}
    tiles = image.reshape(1, 3, 2, 3, 3, 3)
    x = np.einsum("biujvc,ocuv->bijo", tiles, t["conv.weight"]) + t["conv.bias"]
    x = np.einsum("bijc,couv->biujvo", x, t["up.weight"]).reshape(1, 6, 6, 5) + t["up.bias"]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = x * t["norms.0.weight"] + t["norms.0.bias"]
    expected = x @ t["fc.weight"].T + t["fc.bias"] + t["token"]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_unport_is_the_inverse_and_can_be_saved(net, tmp_path):
    _, shapes, tensors = net
    params = weights.port(tensors, shapes)
    back = weights.unport(jax.tree.map(jnp.asarray, params))
    save_file(back, tmp_path / "x.safetensors")
    back = weights.load_state_dict(tmp_path / "x.safetensors")
    assert set(back) == set(tensors)
    for key, x in tensors.items():
        np.testing.assert_array_equal(back[key], x, strict=True)


def test_port_casts_and_copies(net):
    _, shapes, tensors = net
    half = {key: x.astype(np.float16) for key, x in tensors.items()}
    leaves = jax.tree.leaves(weights.port(half, shapes))
    assert all(x.dtype == np.float32 and x.flags.c_contiguous for x in leaves)
    params = weights.port(tensors, shapes)
    params["token"][:] = 7
    assert not (tensors["token"] == 7).any()


def test_port_is_strict_and_names_the_keys(net):
    _, shapes, tensors = net
    bad = {**tensors, "fc.bias": np.zeros(3, "f"), "head.weight": np.zeros(2, "f")}
    del bad["norms.0.weight"]
    with pytest.raises(InputError) as error:
        weights.port(bad, shapes)
    for part in ("missing: norms.0.weight", "left over: head.weight", "shape: fc.bias (here (3,))"):
        assert part in str(error.value)
    many = {f"other.{i}": np.zeros(1) for i in range(99)}
    with pytest.raises(InputError, match="and 91 more") as error:
        weights.port({**tensors, **many}, shapes)
    assert len(str(error.value)) < 300
    swapped = {**tensors, "conv.weight": tensors["conv.weight"].transpose(2, 3, 1, 0)}
    with pytest.raises(InputError, match=r"conv\.weight"):
        weights.port(swapped, shapes)


def test_drop_takes_only_what_the_module_has_not(net):
    _, shapes, tensors = net
    extra = {**tensors, "head.mlp.0.weight": np.zeros(2), "headless": np.zeros(2)}
    with pytest.raises(InputError, match="left over: headless;"):
        weights.port(extra, shapes, drop=("head.*", "fc.*"))
    del extra["headless"]
    params = weights.port(extra, shapes, drop=("head.*", "fc.*"))
    np.testing.assert_array_equal(params["fc"]["bias"], tensors["fc.bias"])


# ---- downloading


FILE = save({"w": np.random.default_rng(0).normal(size=300_000).astype("f")})


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `FILE` in the ways servers do; the first part of the path says which."""

    def do_GET(self):
        way = self.path.split("/")[1]
        self.server.requests.append((way, self.headers["Range"]))
        start, body = 0, FILE
        if way == "missing":
            return self.send_error(404)
        if way == "page":
            body = b"<html>sign in first</html>"
        if self.headers["Range"] and way != "whole":
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : len(body) // 2 if way == "truncated" else None])

    def log_message(self, *_): ...


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def known(server, monkeypatch, tmp_path):
    """Makes `dino-vits8` come from the given ways; returns the cache folder's file."""
    monkeypatch.setenv("MIS_JAX_CACHE", str(tmp_path / "cache"))

    def make(*ways, digest=""):
        url = f"http://127.0.0.1:{server.server_port}"
        files = tuple((f"{url}/{way}/file.{i}.pth", digest) for i, way in enumerate(ways))
        monkeypatch.setitem(weights.KNOWN, "dino-vits8", weights.Source("Apache-2.0", files))
        return tmp_path / "cache" / "dino-vits8.pth"

    return make


def digest(data=FILE, kind="sha256"):
    return f"{kind}:{hashlib.new(kind, data).hexdigest()}"


@pytest.mark.parametrize("published", ["", digest(), digest(kind="md5")[:10]])
def test_download(server, known, capfd, published):
    path = known("good", digest=published)
    assert weights.find("dino-vits8") is None
    assert weights.download("dino-vits8") == path == weights.find("dino-vits8")
    assert path.read_bytes() == FILE
    assert not path.with_name("dino-vits8.pth.part").exists()
    assert "Apache-2.0" in capfd.readouterr().err
    assert weights.download("dino-vits8") == path
    assert server.requests == [("good", None)]  # the second call needed no network


@pytest.mark.parametrize("way", ["good", "whole"])
@pytest.mark.parametrize("have", [1, 500_000, len(FILE)])
def test_resume(server, known, way, have):
    """`whole` is a server that ignores Range."""
    path = known(way, digest=digest())
    path.parent.mkdir()
    path.with_name("dino-vits8.pth.part").write_bytes(FILE[:have])
    assert weights.download("dino-vits8").read_bytes() == FILE
    assert server.requests == [(way, f"bytes={have}-")]


def test_truncated_body_is_kept_as_part_and_resumed(known):
    path = known("truncated")
    with pytest.raises(InputError, match=f"ended after {len(FILE) // 2} of {len(FILE)} bytes"):
        weights.download("dino-vits8")
    assert not path.exists()
    known("good")
    assert weights.download("dino-vits8").read_bytes() == FILE


@pytest.mark.parametrize(
    ("way", "published", "message"),
    [("good", digest(b"other"), "its sha256 is"), ("page", "", "damaged")],
)
def test_wrong_file_is_refused(known, way, published, message):
    path = known(way, digest=published)
    with pytest.raises(InputError, match=message):
        weights.download("dino-vits8")
    assert [p.name for p in path.parent.iterdir()] == ["dino-vits8.lock"]


def test_mirror(server, known):
    path = known("missing", "page", "good")
    assert weights.download("dino-vits8") == path
    assert [way for way, _ in server.requests] == ["missing", "page", "good"]


def test_offline_says_what_to_fetch_and_where_to_put_it(server, known):
    path = known("good")
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError) as error:
        weights.download("dino-vits8")
    url = weights.KNOWN["dino-vits8"].files[0][0]
    assert f"fetch {url} by hand and put it at {path}." in str(error.value)


def test_unknown_name():
    with pytest.raises(InputError, match="dino-vits16"):
        weights.download("dino-vits9")


def test_known_files():
    """Names of the cache are told apart, and what may not be used commercially says so."""
    for name, source in weights.KNOWN.items():
        assert source.licence == ("CC-BY-NC-4.0" if name.startswith("mae") else "Apache-2.0")
        assert all(url.startswith("https://") for url, _ in source.files)
    urls = [url for source in weights.KNOWN.values() for url, _ in source.files]
    assert len(set(urls)) == len(urls) == 14
