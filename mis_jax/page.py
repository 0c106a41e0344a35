"""Parts of the HTML pages: their style, pictures of regions and masks, tables and bars.

A page is one file that holds all its pictures and needs nothing else.
"""

import base64
import html
from collections.abc import Callable
from pathlib import Path

import cv2
import matplotlib
import numpy as np

from mis_jax import images
from mis_jax.records import Record
from mis_jax.tree import Tree

REGIONS = (4, 8, 16, 32, 64)  # of the cuts through a merge tree
OUTLINE = (255, 214, 10)
SIDE = 448  # pixels of a picture, at most; shown at half of that or less


def cut(tree: Tree, regions: int) -> list[int]:
    """The nodes left when the last merges are undone, those of one branch side by side."""
    nodes = [tree.root]
    for node in range(tree.root, tree.root + 1 - min(regions, tree.n), -1):
        at = nodes.index(node)
        nodes[at : at + 1] = tree.merges[node - tree.n].tolist()
    return nodes


def draw_cut(image: np.ndarray, tree: Tree, regions: int) -> np.ndarray:
    """An image under the coloured regions of a cut, uint8 RGB [H, W, 3].

    Regions of one branch have similar colours: a region's is the mean of those of its parts.
    """
    height, width = image.shape[:2]
    hues, labels = np.zeros(tree.grid), np.zeros(tree.grid, np.float32)
    fine = cut(tree, max(REGIONS))
    for rank, node in enumerate(fine):
        hues[tree.mask(node)] = rank / max(len(fine) - 1, 1)
    for label, node in enumerate(cut(tree, regions)):
        mask = tree.mask(node)
        hues[mask], labels[mask] = hues[mask].mean(), label
    size = (width, height)
    hues = cv2.resize(hues, size, interpolation=cv2.INTER_NEAREST)
    labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    colours = 255 * matplotlib.colormaps["turbo"](0.05 + 0.9 * hues)[..., :3]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    panel = 0.5 * colours + 0.5 * grey
    panel[cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((2, 2))) > 0] = 255
    return np.uint8(panel)


def draw_mask(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An image, uint8 [H, W, 3], dark outside a mask, bool [H, W], with the mask's outline."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    panel = np.where(mask[..., None], image, np.uint8(0.3 * image + 0.15 * grey))
    return draw_outline(panel, mask)


def draw_outline(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A copy of an image, uint8 [H, W, 3], with the outline of a mask, bool [H, W]."""
    outlines, _ = cv2.findContours(np.uint8(mask), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(image.copy(), outlines, -1, OUTLINE, 2, cv2.LINE_AA)


def cuts(photo: Record) -> str:
    """A photo and the cuts through its tree, as a strip."""
    image = images.shrink(images.decode(photo.image, photo.id), SIDE)
    name = Path(photo.id).stem
    panels = [figure(image, "photo", f"the photo {name}")]
    for regions in REGIONS:
        alt = f"{name}, {regions} regions"
        panels.append(figure(draw_cut(image, photo.tree, regions), f"{regions} regions", alt))
    return f'<div class="strip six">{"".join(panels)}</div>'


def figure(image: np.ndarray, caption: str, alt: str = "") -> str:
    """A picture, uint8 RGB [H, W, 3], with its caption (HTML) and what it shows, in words."""
    height, width = image.shape[:2]
    data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    source = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    return (
        f'<figure><img src="{source}" width="{width}" height="{height}" '
        f'alt="{html.escape(alt or caption)}"><figcaption>{caption}</figcaption></figure>'
    )


def table(rows: list[list[str]]) -> str:
    """A header and rows, the first cell of each its name; cells are HTML."""
    head, *body = rows
    text = "".join(f"<th>{cell}</th>" for cell in head)
    lines = [
        f"<tr><th>{row[0]}</th>{''.join(f'<td>{c}</td>' for c in row[1:])}</tr>" for row in body
    ]
    return f"<table><thead><tr>{text}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def bars(lengths: dict[str, float], label: Callable[[float], str]) -> str:
    """A bar for each name, the longest as long as there is room; `label` writes a length."""
    most = max(lengths.values()) or 1
    rows = "".join(
        f'<tr><th>{html.escape(name)}</th><td class="bar"><i style="width:{100 * x / most:.1f}%">'
        f"</i></td><td>{label(x)}</td></tr>"
        for name, x in lengths.items()
    )
    return f'<table class="bars">{rows}</table>'


STYLE = """:root { --bg: #f7f7f5; --card: #fff; --text: #1c1d20; --soft: #666a73; --line: #e2e2de;
  --trained: #2459e0; --untrained: #9a9ea8; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #131418; --card: #1c1e24; --text: #e8e9ec; --soft: #a0a4ae; --line: #31343d;
    --trained: #82a6ff; --untrained: #7d828e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2.5rem 1rem 4rem; }
h1 { font-size: clamp(1.7rem, 5vw, 2.6rem); line-height: 1.15; margin: 0 0 .5rem;
  letter-spacing: -.02em; }
h2 { font-size: 1.35rem; margin: 3rem 0 .3rem; letter-spacing: -.01em; }
h3 { font-size: .85rem; margin: .2rem 0 .4rem; }
p { max-width: 46rem; margin: .4rem 0 1rem; }
.soft, figcaption, footer { color: var(--soft); }
.card, .chart { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 1rem; margin: 0 0 1rem; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 1rem;
  margin: 1.5rem 0; }
.numbers .card { margin: 0; }
.numbers b { display: block; font-size: 2.1rem; line-height: 1.2; }
.numbers span { color: var(--soft); font-size: .9rem; }
.strip { display: grid; grid-auto-flow: column; gap: 8px;
  grid-auto-columns: minmax(132px, calc((100% - 48px) / 7));
  overflow-x: auto; padding-bottom: 4px; margin-bottom: .9rem; }
.strip:last-child { margin-bottom: 0; }
.six { grid-auto-columns: minmax(148px, calc((100% - 40px) / 6)); }
figure { margin: 0; }
figure img { width: 100%; height: auto; display: block; border-radius: 6px; }
figcaption { font-size: .8rem; margin-top: .25rem; white-space: nowrap; }
figcaption b { color: var(--text); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr));
  gap: 1rem; }
.charts + .charts { margin-top: 1rem; }
.chart { margin: 0; }
.chart figcaption { font-size: .9rem; color: var(--text); white-space: normal; margin: 0 0 .4rem; }
.chart figcaption span { font-weight: 600; margin-left: .8em; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 11px; }
.grid { stroke: var(--line); fill: none; }
polyline { fill: none; stroke-width: 2.4; stroke-linejoin: round; }
polyline.trained { stroke: var(--trained); } polyline.untrained { stroke: var(--untrained); }
span.trained, h3.trained, b.trained { color: var(--trained); }
span.untrained, h3.untrained, b.untrained { color: var(--untrained); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .6rem; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; font-weight: 600; }
thead th { color: var(--soft); font-weight: 500; font-size: .85rem; }
tbody tr { border-top: 1px solid var(--line); }
.bars th { font-weight: 400; width: 1%; } .bars td:last-child { width: 1%; }
.bar i { display: block; height: .7rem; border-radius: 3px; background: var(--trained); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem;
  overflow-x: auto; font: 14px/1.5 ui-monospace, Menlo, Consolas, monospace; margin: .5rem 0 1rem; }
.dot { display: inline-block; width: .75em; height: .75em; border-radius: 50%; }
footer { margin-top: 3rem; font-size: .85rem; border-top: 1px solid var(--line);
  padding-top: 1rem; }
"""
