"""Pictures of evaluations: IoU after each click, and every click with the mask it got."""

from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib.figure import Figure

from mis_jax.clicker import Round

PICTURE_SIDE = 320  # pixels, of one panel
PICTURE_COLUMNS = 5


def plot(results: dict[str, dict], target: float, max_clicks: int) -> Figure:
    """Mean IoU after each click; objects that stopped at the target keep their last IoU."""
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, r in results.items():
        held = [v + v[-1:] * (max_clicks - len(v)) for v in r["ious"].values()]
        axes.plot(range(1, max_clicks + 1), np.mean(held, axis=0), marker=".", label=name)
    axes.set(xlabel="clicks", ylabel="mean IoU", xlim=(0.5, max_clicks + 0.5), ylim=(None, 1))
    axes.set_title(f"objects that reached IoU {target:g} keep their last value", fontsize="small")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def draw(image: np.ndarray, done: Sequence[Round]) -> np.ndarray:
    """Every click of an object side by side, uint8 RGB: mask outline, green and red clicks."""
    scale = min(1.0, PICTURE_SIDE / max(image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    bar = 20
    rows, columns = -(-len(done) // PICTURE_COLUMNS), min(len(done), PICTURE_COLUMNS)
    canvas = np.full((rows * (height + bar), columns * (width + 4), 3), 255, np.uint8)
    for k, r in enumerate(done):
        panel = small.copy()
        mask = cv2.resize(r.mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(panel, outlines, -1, (255, 220, 0), 1)
        for click in done[: k + 1]:
            at = round(click.col * scale), round(click.row * scale)
            cv2.circle(panel, at, 5, (255, 255, 255), -1, cv2.LINE_AA)
            colour = (0, 160, 0) if click.positive else (220, 0, 0)
            cv2.circle(panel, at, 4, colour, -1, cv2.LINE_AA)
        top, left = k // PICTURE_COLUMNS * (height + bar), k % PICTURE_COLUMNS * (width + 4)
        canvas[top + bar : top + bar + height, left : left + width] = panel
        text = f"{k + 1}: IoU {r.iou:.3f}"
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(canvas, text, (left + 2, top + 14), font, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return canvas
