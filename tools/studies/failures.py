"""The objects that took a predictor most clicks to 90 %: a sheet of pictures, and a line for each.

    python tools/studies/failures.py OUTPUT/results.json mine=FOLDER sheet.png [--count 20]

OUTPUT is of `mis-jax evaluate` with a predictor that needs no network, on the same data sets. Its
clicks are answered again. The sheet has a row an object, after 1, 3, 8 and 20 clicks: the object
outlined green, the mask red, and the clicks, green on the object and red off it. The lines end with
clicks to 90 %, and objects that never get there, by quarters of all objects.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from mis_jax.datasets import Benchmark, Sample
from mis_jax.errors import InputError
from mis_jax.evaluation import clicker, figures, metrics, results
from mis_jax.evaluation.clicker import Round
from mis_jax.evaluation.evaluate import ALONE, open_datasets
from mis_jax.files import write_file

TARGET = 0.90
AFTER = (1, 3, 8, 20)
PANEL, GAP, BAR = 400, 6, 20  # pixels
OBJECT, MASK = (0, 230, 0), (255, 0, 0)
RING = 0.02  # width of what contrast compares the object with, of the image's longer side


def main() -> None:
    """Prints the lines, writes the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results.json of mis-jax evaluate")
    parser.add_argument("datasets", help="NAME=FOLDER,... as in mis-jax evaluate")
    parser.add_argument("sheet", type=Path, help="PNG to write")
    parser.add_argument("--count", type=int, default=20, help="objects")
    arguments = parser.parse_args()
    (run,) = results.load(arguments.results)
    opened = {one.name: one for one in open_datasets(arguments.datasets.split(","))}
    if missing := ", ".join(sorted(run.entries.keys() - opened.keys())):
        raise InputError(f"{missing} was evaluated and is missing here; give its folder as well.")
    heads = [*(f"IoU@{k}" for k in AFTER), "share", "thick", "contrast"]
    print(f"{'id':32}", *(f"{head:>8}" for head in heads))
    rows = []
    for name, id in worst(run, arguments.count):
        sample, done = again(run, opened, name, id)
        ious = [done[k - 1].iou for k in AFTER if k <= len(done)]
        cells = [*(f"{v:8.3f}" for v in ious), *[" " * 8] * (len(AFTER) - len(ious))]
        print(f"{id:32}", *cells, *(f"{v:8.3f}" for v in looks(sample)), flush=True)
        rows.append(drawn(sample, done))
    write_file(arguments.sheet, figures.png(np.concatenate(rows)))
    print(f"\n{'quarter':24} {'objects':>8} {'NoC':>8} {'unsolved':>8}")
    print(*quarters(run, opened), sep="\n")


def worst(run: results.Run, count: int) -> list[tuple[str, str]]:
    """(data set, id) of the objects of most clicks to TARGET; of equal ones, least last IoU."""
    ranked = []
    for name, entry in run.entries.items():
        if entry["target"] < TARGET:
            raise InputError(f"clicks ended at an IoU of {entry['target']}; evaluate to {TARGET}.")
        taken = metrics.clicks_to(list(entry["ious"].values()), TARGET, entry["max_clicks"])
        for clicks, (id, ious) in zip(taken.tolist(), entry["ious"].items(), strict=True):
            ranked.append((-clicks, ious[-1], name, id))
    return [(name, id) for *_, name, id in sorted(ranked)[:count]]


def again(
    run: results.Run, opened: dict[str, Benchmark], name: str, id: str
) -> tuple[Sample, list[Round]]:
    """An object with its clicks, answered again."""
    if run.label not in ALONE:
        raise InputError(f"{run.label} is none of {', '.join(ALONE)}; evaluate one of these.")
    sample, predictor, done = opened[name].read(id), ALONE[run.label](), []
    predictor.set_image(sample.image)
    for row, col, positive in run.entries[name]["clicks"][id]:
        mask = predictor.click(x=col, y=row, positive=bool(positive))
        done.append(Round(row, col, bool(positive), mask, clicker.iou(sample.mask, mask)))
    if not np.allclose([r.iou for r in done], run.entries[name]["ious"][id], atol=1e-3):
        raise InputError(f"{id} got other masks than in {run.folder}; evaluate again.")
    return sample, done


def looks(sample: Sample) -> tuple[float, float, float]:
    """Share of the image, thickness, contrast of an object.

    Thickness is its greatest depth over the root of its area, 0.56 for a disc. Contrast is how far
    its mean colour in CIELAB is from that of a ring around it, over the deviation within the two.
    """
    inside = sample.mask == 1
    depth = cv2.distanceTransform(np.pad(inside, 1).astype(np.uint8), cv2.DIST_L2, 5).max()
    away = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, 5)
    ring = (sample.mask == 0) & (away <= RING * max(inside.shape))
    lab = cv2.cvtColor(np.float32(sample.image / 255), cv2.COLOR_RGB2LAB)
    contrast = float("nan")
    if ring.any():
        apart = np.linalg.norm(lab[inside].mean(0) - lab[ring].mean(0))
        spread = np.sqrt((lab[inside].var(0).sum() + lab[ring].var(0).sum()) / 2)
        contrast = float(apart / max(spread, 1e-3))
    return float(inside.mean()), float(depth / np.sqrt(inside.sum())), contrast


def quarters(run: results.Run, opened: dict[str, Benchmark]) -> Iterator[str]:
    """Lines of all objects by thickness and by contrast, least first."""
    seen: list[tuple[float, float, float]] = []
    taken: list[int] = []
    for name, entry in run.entries.items():
        most = entry["max_clicks"]  # the same of each data set; one more is never
        taken += metrics.clicks_to(list(entry["ious"].values()), TARGET, most + 1).tolist()
        seen += [looks(opened[name].read(id)) for id in entry["ious"]]
    _, *columns = np.array(seen).T
    for head, column in zip(("thick", "contrast"), columns, strict=True):
        order = np.argsort(column)[: np.isfinite(column).sum()]
        for part in filter(len, np.array_split(order, 4)):
            between = f"{head} {column[part[0]]:.3f} to {column[part[-1]]:.3f}"
            clicks = np.take(taken, part)
            noc, unsolved = np.minimum(clicks, most).mean(), np.sum(clicks > most)
            yield f"{between:24} {len(part):8} {noc:8.2f} {unsolved:8}"


def drawn(sample: Sample, done: Sequence[Round]) -> np.ndarray:
    """The row of an object, uint8 [H, W, 3]."""
    scale = PANEL / max(sample.mask.shape)
    height, width = (max(1, round(side * scale)) for side in sample.mask.shape)
    row = np.full((height + BAR + GAP, len(AFTER) * (PANEL + GAP), 3), 255, np.uint8)
    image = cv2.resize(sample.image, (width, height), interpolation=cv2.INTER_AREA)
    for k, count in enumerate(k for k in AFTER if k <= len(done)):
        left, panel = k * (PANEL + GAP), image.copy()
        for mask, colour in ((sample.mask == 1, OBJECT), (done[count - 1].mask, MASK)):
            small = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=0)
            outlines, _ = cv2.findContours(small, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(panel, outlines, -1, colour, 1)
        for r in done[:count]:
            at = int((r.col + 0.5) * scale), int((r.row + 0.5) * scale)
            cv2.circle(panel, at, 4, (255, 255, 255), -1)
            cv2.circle(panel, at, 3, figures.POSITIVE if r.positive else figures.NEGATIVE, -1)
        row[BAR:-GAP, left : left + width] = panel
        words = f"{sample.id}  click {count}: {done[count - 1].iou:.3f}"
        cv2.putText(row, words, (left + 2, BAR - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0))
    return row


if __name__ == "__main__":
    main()
