"""State dicts in .safetensors and PyTorch files, read and written without torch."""

import io
import math
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from mis_jax.errors import InputError
from mis_jax.models.porting import some

# Keys under which a state dict lies beside other things, and where there are several, the first:
# of DINO's teacher and student it is the teacher that is published.
WRAPPERS = ("state_dict", "model", "teacher", "student")


def load_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a .safetensors or PyTorch file (.pth, .pt, .pth.tar), without torch.

    The kind is told by the content, not by the name. Of a PyTorch file, nothing is imported or run:
    classes other than tensors become inert placeholders. A state dict wrapped under one of
    `WRAPPERS` is unwrapped.

    Returns:
        Read-only arrays of the stored shapes and dtypes (bfloat16 as `ml_dtypes.bfloat16`), by key.

    Raises:
        InputError: there is no such file, it is damaged, or it holds no state dict.
    """
    return load(path)[0]


def load(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """`load_state_dict`, and beside the tensors what else the file says.

    That is the metadata of a .safetensors file, or what lies beside the state dict in a PyTorch
    file: numbers, strings and containers as they are, anything else as inert placeholders.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no weights file {path}; give a .safetensors or .pth file.")
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    try:
        with file:
            content, others = _read(path, file)
        return _state_dict(content, path), others
    except InputError:
        raise
    except Exception as error:  # whatever bytes that are no checkpoint make the parsers raise
        raise InputError(
            f"{path} is damaged, or neither a .safetensors nor a PyTorch file "
            f"({type(error).__name__}: {error}); download or export it again."
        ) from error


def _read(path: Path, file: io.BufferedReader) -> tuple[Any, dict[str, Any]]:
    if file.read(9)[8:] == b"{":  # eight bytes of length, then a JSON header
        with safetensors.safe_open(path, "numpy") as opened:
            return safetensors.numpy.load_file(path), opened.metadata() or {}
    file.seek(0)
    content = _read_zip(file) if zipfile.is_zipfile(path) else _read_legacy(file)
    wrapped = isinstance(content, Mapping) and any(key in content for key in WRAPPERS)
    return content, {k: x for k, x in content.items() if k not in WRAPPERS} if wrapped else {}


def _state_dict(content: Any, path: Path) -> dict[str, np.ndarray]:
    if isinstance(content, Mapping):
        if content and all(isinstance(x, np.ndarray) for x in content.values()):
            return {str(key): x for key, x in content.items()}
        for wrapper in WRAPPERS:
            if isinstance(content.get(wrapper), Mapping) and content[wrapper]:
                return _state_dict(content[wrapper], path)
    keys = some(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
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


class _Unpickler(pickle._Unpickler):  # in Python: the one in C allocates what a file claims to need
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
        names, budget = set(archive.namelist()), os.fstat(file.fileno()).st_size
        if sum(member.file_size for member in archive.infolist()) > budget:
            raise ValueError("its parts are larger than the file")
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


def save(path: str | Path, tensors: Mapping[str, np.ndarray], **others: Any) -> None:
    """Writes the PyTorch file of {"state_dict": tensors, **others}, without torch.

    Args:
        path: the file, in the format of torch >= 1.6; `torch.load(path, weights_only=True)` too
            opens it.
        tensors: arrays of the dtypes of `_DTYPES`, by key.
        others: plain data: numbers, strings, None, lists, tuples and dicts.
    """
    items = [_pickled(key) + _tensor(x, str(i)) for i, (key, x) in enumerate(tensors.items())]
    parts = [_pickled("state_dict"), _ORDERED_DICT, b"(", *items, b"u"]
    parts += [_pickled(key) + _pickled(x) for key, x in others.items()]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}(" + b"".join(parts) + b"u.")
        archive.writestr("archive/byteorder", "little")
        for i, x in enumerate(tensors.values()):
            with archive.open(f"archive/data/{i}", "w", force_zip64=True) as file:
                file.write(x.tobytes())
        archive.writestr("archive/version", "3\n")


_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
_KINDS = {np.dtype(dtype): kind for kind, dtype in _DTYPES.items()}


def _pickled(x: Any) -> bytes:
    """The opcodes, of protocol 2, that leave plain data on the stack of an unpickler."""
    return pickle.dumps(x, 2).removeprefix(b"\x80\x02").removesuffix(b".")


def _tensor(x: np.ndarray, key: str) -> bytes:
    """The opcodes of a tensor that has the storage `key` to itself."""
    storage = [_pickled("storage"), f"ctorch\n{_KINDS[x.dtype]}\n".encode()]
    storage += map(_pickled, (key, "cpu", x.size))
    stride = tuple(math.prod(x.shape[i + 1 :]) for i in range(x.ndim))
    view = b"".join(map(_pickled, (0, x.shape, stride, False)))
    call = b"ctorch._utils\n_rebuild_tensor_v2\n"
    return call + b"((" + b"".join(storage) + b"tQ" + view + _ORDERED_DICT + b"tR"
