"""Parts of the HTML pages: their style, pictures of regions and masks, tables and bars.

A page is one file that holds all its pictures and needs nothing else.
"""

import base64
import html
from collections.abc import Callable, Sequence
from pathlib import Path
from string import Template

import cv2
import matplotlib
import numpy as np

from mis_jax.datasets import images
from mis_jax.files import resource
from mis_jax.proposals import Tree
from mis_jax.records import Record

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
    hues: np.ndarray = np.zeros(tree.grid)
    labels: np.ndarray = np.zeros(tree.grid, np.float32)
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
    return panel.astype(np.uint8)


def draw_mask(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An image, uint8 [H, W, 3], dark outside a mask, bool [H, W], with the mask's outline."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    panel = np.where(mask[..., None], image, np.uint8(0.3 * image + 0.15 * grey))
    return draw_outline(panel, mask)


def draw_outline(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A copy of an image, uint8 [H, W, 3], with the outline of a mask, bool [H, W]."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(image.copy(), outlines, -1, OUTLINE, 2, cv2.LINE_AA)


def cuts(photo: Record) -> str:
    """A photo and the cuts through its tree, as a strip."""
    image = images.shrink(images.decode(photo.image, photo.id), SIDE)
    name, tree = Path(photo.id).stem, photo.tree
    assert isinstance(tree, Tree)  # only trees have cuts
    panels = [figure(image, "photo", f"the photo {name}")]
    for regions in REGIONS:
        alt = f"{name}, {regions} regions"
        panels.append(figure(draw_cut(image, tree, regions), f"{regions} regions", alt))
    return f'<div class="strip six">{"".join(panels)}</div>'


def figure(image: np.ndarray, caption: str, alt: str = "") -> str:
    """A picture, uint8 RGB [H, W, 3], with its caption (HTML) and what it shows, in words."""
    height, width = image.shape[:2]
    data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    source = f"data:image/jpeg;base64,{base64.b64encode(data.data).decode()}"
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


def whole(command: str, question: str, about: str, parts: Sequence[str]) -> str:
    """The page of a command: what it asks, of what, and its parts (HTML)."""
    return Template(resource(__package__, "page.html")).substitute(
        style=style(),
        command=command,
        question=question,
        about=html.escape(about),
        body="\n".join(parts),
    )


def style() -> str:
    """The style sheet of a page."""
    return resource(__package__, "page.css")
