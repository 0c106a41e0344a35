"""OUTPUT/check.html: some images and some masks as they were read, for a person's eye."""

import html
from collections.abc import Sequence

import cv2
import numpy as np

from mis_jax.datasets import Benchmark, images
from mis_jax.errors import InputError
from mis_jax.inspection import page
from mis_jax.inspection.readings import Objects, Photos, examples

SHOWN = 24  # images, and objects of each benchmark


def of_images(photos: Photos) -> str:
    """What was counted, and examples: the first of each oddity, others evenly apart."""
    panels = []
    for photo in examples(photos.used, lambda p: p.notes, SHOWN):
        try:
            picture = images.read_picture(photo.path, photos.reading).pixels
        except InputError:  # gone since it was looked at
            continue
        caption = f"{photo.id}<br>{photo.size[0]} x {photo.size[1]}, {photo.kind}"
        panels.append(_panel(picture, caption, photo.notes))
    return _section(photos.source, photos.lines(), panels)


def of_objects(objects: Objects) -> str:
    """What was counted, and examples with their masks: bright what is object, red not counted."""
    panels = []
    ordered = sorted(objects.objects, key=lambda o: o.area)
    for one in examples(ordered, lambda o: o.notes, SHOWN):
        try:
            sample = objects.benchmark.read(one.id)
        except InputError:
            continue
        caption = f"{one.id}<br>{one.size[0]} x {one.size[1]}, {one.area:.1%}"
        panels.append(_panel(_marked(sample.image, sample.mask), caption, one.notes))
    return _section(objects.benchmark.name, objects.lines(), panels)


def page_of(source: str | None, opened: Sequence[Benchmark], sheets: Sequence[str]) -> str:
    """The page; each of `sheets` is a section of it."""
    names = [*([source] if source else []), *(benchmark.name for benchmark in opened)]
    return page.whole("check", "Is everything read as it is meant?", ", ".join(names), sheets)


def _marked(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An image uint8 [H, W, 3] and a mask int32 [H, W] over it, at most `page.SIDE` a side."""
    small = images.shrink(image, page.SIDE)
    height, width = small.shape[:2]
    mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    panel = page.draw_mask(small, mask == 1)
    panel[mask == -1] = (0.5 * panel[mask == -1] + (110, 0, 0)).astype(np.uint8)
    return panel


def _panel(picture: np.ndarray, caption: str, notes: Sequence[str]) -> str:
    told = "".join(f"<br>{html.escape(note)}" for note in notes)
    name, _, rest = caption.partition("<br>")
    text = f"{html.escape(name)}<br>{html.escape(rest)}<b>{told}</b>"
    return page.figure(images.shrink(picture, page.SIDE), text, name)


def _section(title: str, lines: Sequence[str], panels: Sequence[str]) -> str:
    told = "<br>".join(map(html.escape, lines))
    return (
        f'<h2>{html.escape(title)}</h2><p>{told}</p><div class="card sheet">{"".join(panels)}</div>'
    )
