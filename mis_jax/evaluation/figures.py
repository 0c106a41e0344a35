"""Pictures of evaluations: IoU after each click, and clicks with the masks they got.

`curves` is Figure 6 of the paper (Li et al., ICCV 2023), `clicks_and_masks` Figure 7. A story is
what the latter needs of an object: its image, its outline, and each click with its mask.
"""

import dataclasses
import io
import urllib.parse
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from mis_jax.errors import InputError
from mis_jax.evaluation.clicker import Round
from mis_jax.files import write_file

PANEL, GAP, BAR = 224, 5, 20  # pixels of `clicks_and_masks`, at most 1,598 wide
AFTER = (1, 2, 3, 5, 10)  # clicks whose masks it shows, and the last
OUTLINE, TINT = (255, 220, 0), (40, 110, 255)
POSITIVE, NEGATIVE = (0, 160, 0), (220, 0, 0)
STORY_VERSION = 1
JPEG_QUALITY = 95


# ---- IoU after each click


def curves(results: Mapping[str, Mapping[str, dict]]) -> Figure:
    """Mean IoU after each click with its 95 % interval, a panel a dataset, a line a run.

    Args:
        results: run -> dataset -> what `metrics.summarize` gives.
    """
    names = list(dict.fromkeys(name for entries in results.values() for name in entries))
    across = min(len(names), 2)
    down = -(-len(names) // across)
    figure = Figure(figsize=(6 if across == 1 else 10, 4.2 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        for number, (label, entries) in enumerate(results.items()):
            if name in entries:
                _curve(axes, entries[name], label, f"C{number % 10}")
        axes.set(title=name, xlabel="clicks", ylabel="mean IoU", ylim=(None, 1))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(loc="best")
    for axes in panels[len(names) :]:
        axes.remove()
    exact = all(e["miou_exact"] for entries in results.values() for e in entries.values())
    held = "" if exact else "; objects that reached the target keep their last IoU"
    figure.supxlabel(f"band: 95 % bootstrap interval over objects{held}", fontsize="small")
    return figure


def _curve(axes, entry: Mapping, label: str, colour: str) -> None:
    clicks = np.arange(1, len(entry["miou"]) + 1)
    low, high = np.transpose(entry["miou_interval"])
    axes.fill_between(clicks, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(clicks, entry["miou"], marker=".", color=colour, label=label)


def png(picture: Figure | np.ndarray) -> bytes:
    """A figure, or uint8 RGB [H, W, 3], as a PNG file."""
    if isinstance(picture, np.ndarray):
        return cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()
    file = io.BytesIO()
    picture.savefig(file, dpi=150, metadata={"Software": None})
    return file.getvalue()


# ---- stories


@dataclasses.dataclass(frozen=True)
class Story:
    """An object as it was clicked.

    Attributes:
        image: uint8 RGB [H, W, 3], as JPEG keeps it.
        truth: int32 [H, W], 1 object, 0 background, -1 not counted.
        rounds: each click and the mask it was answered with.
    """

    image: np.ndarray
    truth: np.ndarray
    rounds: Sequence[Round]


def story_path(folder: Path, id: str) -> Path:
    """Where the story of an object is kept, whatever its id holds."""
    return folder / f"{urllib.parse.quote(id, safe='')}.npz"


def save_story(path: Path, image: np.ndarray, truth: np.ndarray, rounds: Sequence[Round]) -> None:
    """Writes a story, an .npz that appears complete or not at all.

    Args:
        image: uint8 RGB [H, W, 3].
        truth: int32 [H, W] of 1, 0 and -1.
        rounds: at least one.
    """
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    arrays: dict[str, np.ndarray | np.int64] = {
        "version": np.int64(STORY_VERSION),
        "image": cv2.imencode(".jpg", image[:, :, ::-1], quality)[1],
        "object": np.packbits(truth == 1),
        "uncounted": np.packbits(truth == -1),
        "clicks": np.array([[r.row, r.col, r.positive] for r in rounds], np.int32),
        "ious": np.array([r.iou for r in rounds], np.float64),
        "masks": np.stack([np.packbits(r.mask) for r in rounds]),
    }
    file = io.BytesIO()
    # NumPy's types take each of these for its flag allow_pickle too.
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, file.getvalue())


def load_story(path: Path) -> Story:
    """Reads what `save_story` wrote.

    Raises:
        InputError: it is not there, damaged, something else, or of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if arrays["version"] != STORY_VERSION:
            raise InputError(
                f"{path} is a story of version {arrays['version']}, not {STORY_VERSION}; evaluate "
                "again."
            )
        return _story(arrays)
    except InputError:
        raise
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, cv2.error, KeyError, ValueError,
            TypeError, IndexError, AttributeError, NotImplementedError) as error:  # fmt: skip
        raise InputError(f"{path} is no story that can be read; evaluate again.") from error


def _story(arrays: Mapping[str, np.ndarray]) -> Story:
    picture = cv2.imdecode(arrays["image"], cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError("an image that cannot be decoded")
    image = picture[:, :, ::-1]
    height, width = image.shape[:2]

    def unpack(bits: np.ndarray) -> np.ndarray:
        if len(bits) != -(-height * width // 8):
            raise ValueError("a mask of another size than the image")
        return np.unpackbits(bits)[: height * width].reshape(height, width)

    truth = unpack(arrays["object"]).astype(np.int32) - unpack(arrays["uncounted"])
    rounds = [
        Round(row, col, bool(sign), unpack(bits).astype(bool), iou)
        for (row, col, sign), bits, iou in zip(
            arrays["clicks"].tolist(), arrays["masks"], arrays["ious"].tolist(), strict=True
        )
    ]
    if not rounds:
        raise ValueError("no click")
    return Story(np.ascontiguousarray(image), truth, rounds)


# ---- clicks and masks


def clicks_and_masks(stories: Mapping[str, Mapping[str, Story]]) -> np.ndarray:
    """Rows of an object's outline and of its masks after 1, 2, 3, 5, 10 and the last click.

    Args:
        stories: run -> object -> story. Objects come in the order of the first run, the runs that
            have one below each other.

    Returns:
        uint8 RGB [H, W, 3], W at most 1,598, the mask blue with a yellow outline, clicks green on
        the object and red off it.
    """
    found = list(dict.fromkeys(name for some in stories.values() for name in some))
    rows = [
        (some[name], f"{name}, {label}" if len(stories) > 1 else name)
        for name in found
        for label, some in stories.items()
        if name in some
    ]
    across = 1 + max(len(_shown(story)) for story, _ in rows)
    return np.concatenate([_row(story, title, across) for story, title in rows])


def _shown(story: Story) -> list[int]:
    """The numbers of clicks after which masks are shown."""
    return sorted({k for k in AFTER if k < len(story.rounds)} | {len(story.rounds)})


def _row(story: Story, title: str, across: int) -> np.ndarray:
    """An object of one run."""
    done, counts = story.rounds, _shown(story)
    scale = PANEL / max(story.image.shape[:2])
    panels = [_panel(story.image, story.truth == 1, (), scale, tint=0.0)]
    panels += [_panel(story.image, done[k - 1].mask, done[:k], scale) for k in counts]
    captions = ["the object"]
    captions += [f"click {k}: IoU {done[k - 1].iou:.3f}" for k in counts]
    size = (panels[0].shape[0] + 2 * BAR + GAP, across * (PANEL + GAP) - GAP, 3)
    canvas = np.full(size, 255, np.uint8)
    for k, panel in enumerate(panels):
        left = k * (PANEL + GAP)
        canvas[2 * BAR : 2 * BAR + panel.shape[0], left : left + panel.shape[1]] = panel
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    pen.text((0, 3), title, "black", _font("DejaVuSans-Bold", 13))
    for k, caption in enumerate(captions):
        pen.text((k * (PANEL + GAP), BAR + 3), caption, "black", _font("DejaVuSans", 12))
    return np.array(picture)


def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """One of the fonts that matplotlib ships."""
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}.ttf", size)


def _panel(
    image: np.ndarray, mask: np.ndarray, clicks: Sequence[Round], scale: float, tint: float = 0.45
) -> np.ndarray:
    """A resized image with a mask, tinted if asked and outlined, and clicks."""
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    panel = cv2.resize(image, (width, height), interpolation=method)
    small = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    inside = small == 1
    panel[inside] = np.rint((1 - tint) * panel[inside] + tint * np.array(TINT))
    _outline(panel, small)
    _draw_clicks(panel, clicks, scale)
    return panel


def _outline(panel: np.ndarray, mask: np.ndarray) -> None:
    outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(panel, outlines, -1, OUTLINE, 1)


def _draw_clicks(panel: np.ndarray, clicks: Sequence[Round], scale: float) -> None:
    for click in clicks:
        at = round(click.col * scale), round(click.row * scale)
        cv2.circle(panel, at, 5, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(panel, at, 4, POSITIVE if click.positive else NEGATIVE, -1, cv2.LINE_AA)
