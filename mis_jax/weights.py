"""Published weights without torch: read .safetensors and .pth, port by equal names, download."""

import contextlib
import fcntl
import fnmatch
import hashlib
import http.client
import io
import math
import os
import pickle
import struct
import sys
import urllib.error
import urllib.request
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import safetensors.numpy
from flax import nnx
from tqdm import tqdm

from mis_jax.errors import InputError

# ---------------------------------------------------------------------------- reading


def load_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a .safetensors or PyTorch file (.pth, .pt, .pth.tar), without torch.

    The kind is told by the content, not by the name. Of a PyTorch file, nothing is imported or run:
    classes other than tensors become inert placeholders. A state dict wrapped under `model` or
    `state_dict` is unwrapped.

    Returns:
        Read-only arrays of the stored shapes and dtypes (bfloat16 as `ml_dtypes.bfloat16`), by key.

    Raises:
        InputError: there is no such file, it is damaged, or it holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no weights file {path}; give a .safetensors or .pth file.")
    try:
        return _state_dict(_read(path), path)
    except (InputError, OSError):
        raise
    except Exception as error:  # whatever bytes that are no checkpoint make the parsers raise
        raise InputError(
            f"{path} is damaged, or neither a .safetensors nor a PyTorch file "
            f"({type(error).__name__}: {error}); download or export it again."
        ) from error


def _read(path: Path) -> Any:
    with open(path, "rb") as file:
        if file.read(9)[8:] == b"{":  # eight bytes of length, then a JSON header
            return safetensors.numpy.load_file(path)
        file.seek(0)
        return _read_zip(file) if zipfile.is_zipfile(path) else _read_legacy(file)


def _state_dict(content: Any, path: Path) -> dict[str, np.ndarray]:
    if isinstance(content, Mapping):
        if content and all(isinstance(x, np.ndarray) for x in content.values()):
            return {str(key): x for key, x in content.items()}
        for wrapper in ("state_dict", "model"):
            if isinstance(content.get(wrapper), Mapping):
                return _state_dict(content[wrapper], path)
    keys = _some(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
    raise InputError(
        f"{path} holds no state dict (found: {keys}); export one with "
        "torch.save(model.state_dict(), FILE)."
    )


_DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


def _rebuild_tensor(
    storage: np.ndarray, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any
) -> np.ndarray:
    """A view of `storage` that cannot reach beyond it, whatever the file says."""
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) == 0:
        return np.zeros(size, storage.dtype)
    if min(offset, *size, *stride, 0) < 0 or last >= storage.size:
        raise ValueError(f"a tensor of shape {tuple(size)} reaches beyond its storage")
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)


class _Inert:
    """Stands for every class that is no tensor: takes whatever pickle does to it, does nothing."""

    def __init__(self, *_: Any, **__: Any): ...

    def __call__(self, *_: Any, **__: Any) -> "_Inert":
        return self

    def _ignore(self, *_: Any) -> None: ...

    __setstate__ = __setitem__ = append = extend = add = _ignore


_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    ("torch._utils", "_rebuild_parameter_with_state"): lambda tensor, *_: tensor,
}


class _Unpickler(pickle.Unpickler):
    """Unpickles tensors and containers; `storage(kind, key, numel, view)` gives a flat array."""

    def __init__(self, file: Any, storage: Any):
        super().__init__(file, encoding="latin1")  # of files that Python 2 wrote
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return name
        return _ALLOWED.get((module, name), _Inert)

    def persistent_load(self, pid: tuple) -> np.ndarray:
        _, kind, key, _, numel, *view = pid
        if kind not in _DTYPES:
            raise ValueError(f"storage type {kind} is not supported")
        return self._storage(np.dtype(_DTYPES[kind]), key, numel, *view)


def _read_zip(file: io.BufferedReader) -> Any:
    """The format of torch >= 1.6: a zip of one pickle and one file per storage."""
    with zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
        root = next(n for n in names if n.endswith("/data.pkl")).removesuffix("data.pkl")
        order = archive.read(f"{root}byteorder") if f"{root}byteorder" in names else b"little"
        if order != b"little":
            raise ValueError("big-endian files are not supported")
        cache: dict[str, np.ndarray] = {}

        def storage(dtype: np.dtype, key: str, numel: int) -> np.ndarray:
            if key not in cache:
                cache[key] = np.frombuffer(archive.read(f"{root}data/{key}"), dtype, numel)
            return cache[key]

        return _Unpickler(io.BytesIO(archive.read(f"{root}data.pkl")), storage).load()


_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def _read_legacy(file: io.BufferedReader) -> Any:
    """The format before torch 1.6: pickles of magic, version, system, content, keys; then bytes."""
    budget = os.fstat(file.fileno()).st_size
    storages: dict[str, np.ndarray] = {}

    def storage(dtype: np.dtype, key: str, numel: int, view: Any = None) -> np.ndarray:
        nonlocal budget
        if key not in storages:
            budget -= numel * dtype.itemsize
            if numel < 0 or budget < 0:
                raise ValueError("the storages are larger than the file")
            storages[key] = np.zeros(numel, dtype)  # filled below; the tensors are views of it
        return storages[key] if view is None else storages[key][view[1] : view[1] + view[2]]

    magic, _, system, content, keys = (_Unpickler(file, storage).load() for _ in range(5))
    if magic != _LEGACY_MAGIC or not system["little_endian"]:
        raise ValueError("not a little-endian torch file")
    for key in keys:
        (numel,) = struct.unpack("<q", file.read(8))
        if numel != storages[key].size:
            raise ValueError(f"storage {key} has {numel} elements")
        data = file.read(storages[key].nbytes)
        storages[key][:] = np.frombuffer(data, storages[key].dtype, numel)
    return content


# ---------------------------------------------------------------------------- porting

# OIHW -> HWIO (of ConvTranspose IOHW -> HWOI); [out, in] -> [in, out]
_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}
_TORCH_NAMES = {"kernel": "weight", "scale": "weight"}

# Keys of published files that no forward pass of ours reads, for `port(drop=...)`.
UNUSED_DINO = ("head.*",)
UNUSED_MAE = ("norm.*", "fc_norm.*", "head.*", "mask_token", "decoder_*")
UNUSED_SIMPLECLICK = (
    "backbone.cls_token",
    "backbone.fc_norm.*",
    "backbone.head.*",
    "head.up_conv1.*",
    "head.up_conv2.*",
)


def port(
    tensors: Mapping[str, np.ndarray], shapes: Mapping, drop: Sequence[str] = ()
) -> dict[str, Any]:
    """Renames and permutes a PyTorch state dict onto the parameters of an NNX module, strictly.

    Attribute names equal PyTorch's, so two rules do: the leaf `kernel` or `scale` is `weight`
    there, and kernels change their axes. `nnx.ConvTranspose(transpose_kernel=True)` takes the same
    permutation as `nnx.Conv`.

    Args:
        tensors: PyTorch key -> array.
        shapes: nested dict of `jax.ShapeDtypeStruct` (or arrays), as
            `nnx.to_pure_dict(nnx.state(nnx.eval_shape(make_model), nnx.Param))`.
        drop: shell patterns of keys that may be in `tensors` although the module has none such.

    Returns:
        Nested dict like `shapes` of C-contiguous arrays, in the dtypes of `shapes`.

    Raises:
        InputError: keys are missing, left over, or of another shape; it names them.
    """
    rest, params = dict(tensors), {}
    missing, misshapen = [], []
    for path, leaf in nnx.traversals.flatten_mapping(shapes).items():
        key = _torch_key(path)
        if key not in rest:
            missing.append(key)
            continue
        x = rest.pop(key)
        x = x.transpose(_AXES[x.ndim]) if path[-1] == "kernel" and x.ndim in _AXES else x
        if x.shape == leaf.shape:
            params[path] = np.array(x, leaf.dtype, order="C")
        else:
            misshapen.append(f"{key} (here {tensors[key].shape})")
    unused = [key for key in rest if not any(fnmatch.fnmatchcase(key, p) for p in drop)]
    faults = {"missing": missing, "left over": unused, "of another shape": misshapen}
    if any(faults.values()):
        text = "; ".join(f"{kind}: {_some(keys)}" for kind, keys in faults.items() if keys)
        raise InputError(
            f"the weights do not fit the model, {text}; choose the variant the file is of."
        )
    return nnx.traversals.unflatten_mapping(params)


def unport(params: Mapping) -> dict[str, np.ndarray]:
    """The PyTorch state dict of a nested dict of parameters: the inverse of `port`."""
    tensors = {}
    for path, leaf in nnx.traversals.flatten_mapping(params).items():
        x = np.asarray(jax.device_get(leaf))
        x = x.transpose(np.argsort(_AXES[x.ndim])) if path[-1] == "kernel" else x
        tensors[_torch_key(path)] = np.array(x, order="C")
    return tensors


def _torch_key(path: tuple) -> str:
    return ".".join(map(str, (*path[:-1], _TORCH_NAMES.get(path[-1], path[-1]))))


def _some(keys: Sequence[str] | Iterator[str], limit: int = 8) -> str:
    keys = list(keys)
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more


# ---------------------------------------------------------------------------- downloading


@dataclass(frozen=True)
class Source:
    """Where a published checkpoint is: its licence, and (URL, digest) of equivalent files.

    A digest is `md5:PREFIX` or `sha256:PREFIX` as somebody published it, or empty: such a file is
    verified by its own structure here, and key by key when it is ported.
    """

    licence: str
    files: tuple[tuple[str, str], ...]


def _source(licence: str, official: str, digest: str, timm: str) -> Source:
    timm_url = f"https://huggingface.co/timm/{timm}/resolve/main/model.safetensors"
    return Source(licence, ((f"https://dl.fbaipublicfiles.com/{official}", digest), (timm_url, "")))


def _dino(folder: str, digest: str, timm: str) -> Source:
    return _source("Apache-2.0", f"dino/{folder}/{folder}.pth", digest, timm)


def _mae(size: str, digest: str, timm: str) -> Source:
    return _source("CC-BY-NC-4.0", f"mae/pretrain/mae_pretrain_vit_{size}.pth", digest, timm)


# MD5 prefixes: of MAE from its README.md, of DINO from oml/models/vit_dino/extractor.py of OML.
KNOWN = {
    "dino-vits8": _dino("dino_deitsmall8_pretrain", "md5:230cd5", "vit_small_patch8_224.dino"),
    "dino-vits16": _dino("dino_deitsmall16_pretrain", "md5:cf0f22", "vit_small_patch16_224.dino"),
    "dino-vitb8": _dino("dino_vitbase8_pretrain", "md5:556550", "vit_base_patch8_224.dino"),
    "dino-vitb16": _dino("dino_vitbase16_pretrain", "md5:552daf", "vit_base_patch16_224.dino"),
    "mae-vitb16": _mae("base", "md5:8cad7c", "vit_base_patch16_224.mae"),
    "mae-vitl16": _mae("large", "md5:b8b06e", "vit_large_patch16_224.mae"),
    "mae-vith14": _mae("huge", "md5:9bdbb0", "vit_huge_patch14_224.mae"),
}


def find(name: str, cache: str | Path | None = None) -> Path | None:
    """The file of checkpoint `name` (a key of `KNOWN`) in the cache folder, if it is there."""
    paths = [_cached(name, url, cache) for url, _ in KNOWN[name].files]
    return next((path for path in paths if path.is_file()), None)


def download(name: str, cache: str | Path | None = None) -> Path:
    """Puts checkpoint `name` (a key of `KNOWN`) into the cache folder, unless it is there.

    Tries each URL in turn; goes on where an interrupted download stopped; installs a file only
    whole, with the published digest where there is one, and readable.

    Args:
        cache: folder; by default $MIS_JAX_CACHE, else ~/.cache/mis_jax.

    Raises:
        InputError: no URL gave the file; says what to fetch by hand, and where to put it.
    """
    if name not in KNOWN:
        raise InputError(f'there are no known weights "{name}"; there are {", ".join(KNOWN)}.')
    source, failures = KNOWN[name], []
    with _locked(_folder(cache) / f"{name}.lock"):
        if found := find(name, cache):
            return found
        for url, digest in source.files:
            path = _cached(name, url, cache)
            part = path.with_name(path.name + ".part")
            print(f"downloading {name} (licence {source.licence}): {url}", file=sys.stderr)
            try:
                _fetch(url, part, name)
                _verify(part, digest)
                part.replace(path)
                return path
            except (OSError, http.client.HTTPException, InputError) as error:
                failures.append(f"{url}: {error}".rstrip("."))
    url = source.files[0][0]
    raise InputError(
        f"{name} could not be downloaded ({'; '.join(failures)}); "
        f"fetch {url} by hand and put it at {_cached(name, url, cache)}."
    )


def _folder(cache: str | Path | None) -> Path:
    return Path(cache or os.environ.get("MIS_JAX_CACHE") or "~/.cache/mis_jax").expanduser()


def _cached(name: str, url: str, cache: str | Path | None) -> Path:
    return _folder(cache) / (name + Path(url).suffix)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Processes of one machine that want the same file wait for each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(url: str, part: Path, name: str) -> None:
    """Downloads `url` into `part`, going on after the bytes that are there."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "mis-jax"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # 416: there is nothing after those bytes
            raise
        return
    with response:
        if response.status != 206:  # the server sends everything
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=name, disable=None)
        with open(part, "ab" if have else "wb") as file, bar:
            while chunk := response.read(1 << 20):
                file.write(chunk)
                bar.update(len(chunk))
    size = part.stat().st_size
    if total is not None and size != total:
        raise OSError(f"ended after {size} of {total} bytes")


def _verify(part: Path, digest: str) -> None:
    """Removes `part` and raises if it is not the published file, or not readable."""
    kind, _, expected = digest.partition(":")
    try:
        if digest:
            with open(part, "rb") as file:
                actual = hashlib.file_digest(file, kind).hexdigest()
            if not actual.startswith(expected):
                raise InputError(f"its {kind} is {actual}, not {expected}")
        load_state_dict(part)
    except InputError:
        part.unlink()
        raise
