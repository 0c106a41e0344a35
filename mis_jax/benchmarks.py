"""Evaluation sets: GrabCut, Berkeley, DAVIS, SBD in their own layouts, and any folder of pairs.

A folder of your own is one of two layouts:

    images/NAME.jpg + masks/NAME.png        any image kind
    NAME.jpg + NAME.png, or NAME.* + NAME_mask.png, side by side

Its masks are PNG, BMP or TIFF: 0 is background, 128 is not counted, any other value is the object.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import scipy.io

from mis_jax import images
from mis_jax.errors import InputError

MASK_SUFFIXES = (".png", ".bmp", ".dib", ".tif", ".tiff")
LAYOUTS = {
    "grabcut": ("data_GT", "boundary_GT"),
    "berkeley": ("images", "masks"),
    "davis": ("img", "gt"),
}
EXPECTED = {"grabcut": 50, "berkeley": 100, "davis": 345, "sbd": 6671}


@dataclasses.dataclass(frozen=True)
class Sample:
    """One object: its image uint8 RGB [H, W, 3] and its mask int32 [H, W].

    The mask is 1 on the object, 0 elsewhere and -1 where it does not count.
    """

    id: str
    image: np.ndarray
    mask: np.ndarray


@dataclasses.dataclass
class Benchmark:
    """The objects of an evaluation set, read when they are asked for, by any number of threads.

    Iterating leaves out what cannot be used and names it, with the reason, in `skipped`. It can be
    pickled, for other processes.

    Attributes:
        name: as the user calls it.
        expected: number of objects of a known benchmark, else None.
        readers: object id -> function that reads its (image, mask).
        skipped: object or file -> why it is left out.
    """

    name: str
    expected: int | None
    readers: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]]
    skipped: dict[str, str]

    def __len__(self) -> int:
        return len(self.readers)

    def nothing_usable(self) -> InputError:
        """What to raise where iterating left everything out."""
        name, why = next(iter(self.skipped.items()))
        return InputError(f"{self.name}: no object can be used; {name}: {why}.")

    @property
    def ids(self) -> list[str]:
        """The ids of the objects, in the order of the evaluation; some may prove unusable."""
        return list(self.readers)

    def read(self, id: str) -> Sample:
        """One object.

        Raises:
            InputError: it cannot be used, which `skipped` then says too; or there is none such.
        """
        if id not in self.readers:
            raise InputError(f'{self.name} has no object "{id}".')
        try:
            image, mask = self.readers[id]()
            _check(image, mask)
        except InputError as error:
            self.skipped[id] = str(error)
            raise
        return Sample(id, image, mask)

    def __iter__(self) -> Iterator[Sample]:
        for name in self.readers:
            with contextlib.suppress(InputError):
                yield self.read(name)


def open_benchmark(name: str, folder: str | Path) -> Benchmark:
    """Lists the objects of a benchmark in the order of the published evaluation.

    Args:
        name: grabcut, berkeley, davis or sbd (in any case of letters) for their own layouts;
            any other name for a folder of images and masks.
        folder: where it lies.

    Raises:
        InputError: if the folder is missing, not laid out as the name says, or has no pair.
    """
    folder, kind = Path(folder), name.lower()
    if not folder.is_dir():
        raise InputError(f"{name}: the folder {folder} does not exist.")
    if kind == "sbd":
        readers, skipped = _sbd(folder)
    elif kind in LAYOUTS:
        readers, skipped = _known(folder, kind)
    else:
        readers, skipped = _own(folder)
    if not readers:
        why = "".join(f"; {k}: {v}" for k, v in list(skipped.items())[:1])
        raise InputError(f"{name}: {folder} has no image with a mask{why}.")
    return Benchmark(name, EXPECTED.get(kind), readers, skipped)


def _check(image: np.ndarray, mask: np.ndarray) -> None:
    if image.shape[:2] != mask.shape:
        (h, w), (mask_h, mask_w) = image.shape[:2], mask.shape
        raise InputError(f"the image is {w} x {h} pixels, its mask {mask_w} x {mask_h}")
    if not (mask == 1).any():
        raise InputError("the mask has no object pixel (0 is background, 128 is not counted)")


def _known(folder: Path, kind: str) -> tuple[dict, dict]:
    """Pairs of GrabCut, Berkeley and DAVIS: every image with the mask of the same stem."""
    pictures, masks = (_subfolder(folder, part, kind) for part in LAYOUTS[kind])
    decode = _davis_mask if kind == "davis" else _grabcut_mask
    return _pairs(_images(pictures), {p.stem: p for p in _files(masks)}, decode)


def _own(folder: Path) -> tuple[dict, dict]:
    """Pairs of a folder of the user's, in either layout of the module's docstring."""
    pictures, masks = folder / "images", folder / "masks"
    if pictures.is_dir() != masks.is_dir():
        there, missing = sorted((pictures, masks), key=Path.is_dir, reverse=True)
        raise InputError(f"{folder} has {there.name} but no {missing.name} folder; add it.")
    apart = pictures.is_dir()
    found = _images(pictures if apart else folder)
    by_stem = {p.stem: p for p in _files(masks if apart else folder) if _lossless(p)}
    if not apart:
        lossy = {p.stem for p in found if not _lossless(p)}
        by_stem = {s: p for s, p in by_stem.items() if s.endswith("_mask") or s in lossy}
        found = [p for p in found if p not in by_stem.values()]
    return _pairs(found, by_stem, _own_mask)


def _pairs(pictures: list[Path], masks: dict[str, Path], decode: Callable) -> tuple[dict, dict]:
    """Readers of the images with a mask NAME or NAME_mask, and what is left over."""
    readers, skipped, left = {}, {}, dict(masks)
    for picture in pictures:
        stem = picture.stem
        mask = masks.get(f"{stem}_mask") or masks.get(stem)
        if stem in readers:
            skipped[picture.name] = f"a second image called {stem}"
        elif mask is None:
            skipped[picture.name] = "no mask of this name"
        else:
            readers[stem] = functools.partial(_read_pair, picture, mask, decode)
            left.pop(mask.stem, None)
    skipped.update({f"mask {p.name}": "no image of this name" for p in left.values()})
    return readers, skipped


def _read_pair(picture: Path, mask: Path, decode: Callable) -> tuple[np.ndarray, np.ndarray]:
    return images.read_image(picture), decode(mask)


def _sbd(folder: Path) -> tuple[dict, dict]:
    """Every instance of every image of val.txt, in its order, labels ascending."""
    listing = folder / "val.txt"
    pictures, instances = (_subfolder(folder, part, "sbd") for part in ("img", "inst"))
    if not listing.is_file():
        raise InputError(f"{listing} does not exist; sbd needs img/, inst/ and val.txt.")
    readers, skipped = {}, {}
    for name in listing.read_text().split():
        try:
            labels = np.unique(segmentation(instances / f"{name}.mat"))
        except InputError as error:
            skipped[name] = str(error)
            continue
        for label in labels[labels != 0].tolist():
            files = pictures / f"{name}.jpg", instances / f"{name}.mat"
            readers[f"{name}_{label}"] = functools.partial(_read_instance, *files, label)
    return readers, skipped


def _read_instance(picture: Path, labels: Path, label: int) -> tuple[np.ndarray, np.ndarray]:
    mask = recent_labels(labels) == label
    return recent_image(picture), mask.astype(np.int32)


def segmentation(path: Path) -> np.ndarray:
    """Instance labels [H, W] of a file of SBD's inst folder, 0 where there is none."""
    try:
        return scipy.io.loadmat(str(path))["GTinst"][0][0][0]
    except Exception as error:  # damaged files raise all kinds
        raise InputError(f"{path} is not a readable SBD instance file") from error


class Recent:
    """The results of `read(path)` for the last few files, so that objects of one image share them.

    Threads that want the same file at the same time read it once. A file that has changed is read
    again; errors are not kept.
    """

    def __init__(self, read: Callable[[Path], np.ndarray], size: int = 8) -> None:
        self._read, self._size = read, size
        self._lock = threading.Lock()
        self._kept: dict[tuple, concurrent.futures.Future] = {}  # the latest last

    def __call__(self, path: Path) -> np.ndarray:
        key = (str(path), *stamp(path))
        with self._lock:
            future = self._kept.pop(key, None)
            missing = future is None
            future = self._kept[key] = future or concurrent.futures.Future()
            for old in list(self._kept)[: -self._size]:
                del self._kept[old]
        if missing:
            try:
                future.set_result(self._read(path))
            except BaseException as error:
                with self._lock:
                    self._kept.pop(key, None)
                future.set_exception(error)
        return future.result()


def stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file does: its size and its times; zeros if it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


recent_image = Recent(images.read_image)
recent_labels = Recent(segmentation)


def _grabcut_mask(path: Path) -> np.ndarray:
    """GrabCut and Berkeley: first channel; 1 and above 128 object, 128 not counted."""
    first = _pixels(path, cv2.IMREAD_COLOR)[:, :, 0]
    return np.where(first == 128, -1, (first > 128) | (first == 1)).astype(np.int32)


def _davis_mask(path: Path) -> np.ndarray:
    return (_pixels(path, cv2.IMREAD_COLOR).max(axis=2) > 0).astype(np.int32)


def _own_mask(path: Path) -> np.ndarray:
    value = _pixels(path, cv2.IMREAD_UNCHANGED)[:, :, :3].max(axis=2)  # without transparency
    return np.where(value == 128, -1, value > 0).astype(np.int32)


def _pixels(path: Path, flags: int) -> np.ndarray:
    """Values [H, W, C] of a mask file."""
    try:
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    except (cv2.error, OSError):
        pixels = None
    if pixels is None:
        raise InputError(f"the mask {path} cannot be read; save it as PNG")
    return np.atleast_3d(pixels)


def _subfolder(folder: Path, part: str, name: str) -> Path:
    if not (folder / part).is_dir():
        raise InputError(f"{folder} has no folder {part}, which {name} keeps its files in.")
    return folder / part


def _files(folder: Path) -> list[Path]:
    """The visible files of a folder in the order of their names."""
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return [p for p in _files(folder) if p.suffix.lower() in images.SUFFIXES]


def _lossless(path: Path) -> bool:
    return path.suffix.lower() in MASK_SUFFIXES
