"""The photos of a session of the annotator, the clicks on them and the masks that are kept."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from mis_jax.datasets import Notes, Reading, images, note_lines
from mis_jax.errors import InputError
from mis_jax.predictors import FusedPredictor, Predictor
from mis_jax.records import skipped_lines

Clicks = list[tuple[float, float, bool]]  # (x, y) in pixels, whether it belongs to the object


class Session:
    """Photos (name -> file), their masks in `output`/masks, and a predictor that takes turns."""

    def __init__(
        self,
        predictor: Predictor | FusedPredictor,
        pictures: Mapping[str, Path],
        output: Path,
        reading: Reading | None = None,
    ) -> None:
        self._reading = reading or Reading()
        self.notes: dict[str, Notes] = {}  # of the pictures that were opened
        self._predictor, self._lock = predictor, threading.Lock()
        self.names, self._paths = list(pictures), list(pictures.values())
        self.masks = [output / "masks" / name for name in mask_names(pictures)]
        self._unreadable: dict[int, str] = {}
        self._index: int | None = None  # of the picture and the clicks that the predictor holds
        self._clicks: Clicks = []

    def listing(self) -> list[dict[str, Any]]:
        """Name, mask file, whether that is there; of pictures that were opened, error and notes."""
        rows = enumerate(zip(self.names, self.masks, strict=True))
        return [
            {
                "name": name,
                "mask": str(mask),
                "done": mask.exists(),
                "error": self._unreadable.get(k, ""),
                "notes": list(self.notes.get(name, ())),
            }
            for k, (name, mask) in rows
        ]

    def said(self) -> list[str]:
        """What `mis-jax check` says of pictures, of those that were opened."""
        paths, why = self._paths, sorted(self._unreadable.items())
        skipped = [[self.names[k], text.removeprefix(f"{paths[k]}: ")] for k, text in why]
        return skipped_lines(skipped) + note_lines(self.notes)

    def image(self, index: int) -> np.ndarray:
        """A picture, uint8 RGB [H, W, 3]; `InputError` says why it cannot be read."""
        self._unreadable.pop(index, None)
        self.notes.pop(self.names[index], None)
        try:
            read = images.read_picture(self._paths[index], self._reading)
        except InputError as error:
            self._unreadable[index] = str(error)
            raise
        if read.notes:
            self.notes[self.names[index]] = read.notes
        return read.pixels

    def mask(self, index: int, clicks: Clicks) -> np.ndarray:
        """The mask of all the clicks on a picture, bool [H, W]; new ones cost a pass each."""
        with self._lock:
            if index != self._index:
                self._index = None
                self._predictor.set_image(self.image(index))
                self._index, self._clicks = index, []
            while 0 < len(clicks) < len(self._clicks) and self._clicks[: len(clicks)] == clicks:
                self._predictor.undo()
                self._clicks.pop()
            points, labels = [click[:2] for click in clicks], [click[2] for click in clicks]
            masks, _, _ = self._predictor.predict(np.reshape(points, (-1, 2)), labels)
            self._clicks = list(clicks)
            return masks[0]

    def save(self, index: int, clicks: Clicks) -> Path:
        """Writes the mask of the clicks, complete or not at all; its file."""
        path, data = self.masks[index], png(self.mask(index, clicks))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(data)
        return partial.replace(path)


def png(mask: np.ndarray) -> bytes:
    """A mask bool [H, W] as PNG of 0 and 255."""
    return cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes()


def mask_names(names: Iterable[str]) -> list[str]:
    """NAME.png for NAME.jpg, or NAME.jpg.png where another would be the same, case aside."""
    stems = {name: str(PurePosixPath(name).with_suffix("")) for name in names}
    taken = Counter(text.casefold() for text in (*stems, *stems.values()))
    return [f"{s if taken[s.casefold()] == 1 else name}.png" for name, s in stems.items()]
