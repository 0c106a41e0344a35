"""Records -> what their merge trees and the proposals that training draws of them are like."""

import dataclasses
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from mis_jax import records
from mis_jax.errors import InputError
from mis_jax.proposals import Tree
from mis_jax.training import Source

PHOTOS = 8  # of which pictures are shown
DRAWS = 20  # proposals drawn of each tree, for the histograms
SHOWN_DRAWS = 6  # of those, as pictures
DEPTH_EDGES = (1, 2, 3, 4, 5, 9, 17, 33, 65, np.inf)  # of the histograms


@dataclasses.dataclass
class Survey:
    """What the trees of some records are like; proposals are drawn `DRAWS` times of each tree."""

    trees: records.Report
    depths: np.ndarray  # int64, regions between each two DEPTH_EDGES
    drawn_areas: np.ndarray  # int64, drawn proposals between each two records.AREA_EDGES
    drawn_depths: np.ndarray  # int64, the same between each two DEPTH_EDGES
    small: float  # fraction of the drawn that are too small, as all tries were
    photos: list[tuple[records.Record, list[int]]]  # to be shown, and proposals drawn of each


def look(folder: str | Path, config: ConfigDict) -> Survey:
    """Reads all records of a folder and draws proposals as training does, by `config.data`."""
    source, d = Source(records.shard_files(folder)), config.data
    rng = np.random.default_rng(config.seed)
    shown = rng.choice(len(source), min(PHOTOS, len(source)), replace=False)
    trees, photos, small = records.Report(), [], 0
    depths, drawn_depths = np.zeros((2, len(DEPTH_EDGES) - 1), np.int64)
    drawn_areas = np.zeros(len(records.AREA_EDGES) - 1, np.int64)
    for index in tqdm(range(len(source)), "records", unit=" trees", disable=None):
        record = source[index].record
        tree = record.tree
        if not isinstance(tree, Tree):
            raise InputError(f"{folder} holds labelled objects, no merge trees to inspect.")
        drawn = [
            tree.sample(rng, d.alpha, d.min_area, d.sampling, d.max_tries) for _ in range(DRAWS)
        ]
        areas = tree.areas()[drawn] / tree.n
        trees.add(records.describe(tree))
        depths += np.histogram(tree.depths()[tree.n : tree.root], DEPTH_EDGES)[0]
        drawn_depths += np.histogram(tree.depths()[drawn], DEPTH_EDGES)[0]
        drawn_areas += np.histogram(areas, records.AREA_EDGES)[0]
        small += int(np.count_nonzero(areas <= d.min_area))
        if index in shown:
            photos.append((record, drawn[:SHOWN_DRAWS]))
    share = small / (DRAWS * len(source))
    return Survey(trees, depths, drawn_areas, drawn_depths, share, photos)


def numbers(survey: Survey) -> dict:
    """What inspect.json tells of the trees."""
    trees = survey.trees
    return {
        "images": len(trees.patches),
        "patches": _spread(trees.patches),
        "large_proposals": _spread(trees.large),
        "deepest": _spread(trees.depths),
        "area_edges": records.AREA_EDGES,
        "areas": trees.areas,
        "drawn_areas": survey.drawn_areas.tolist(),
        "depth_edges": DEPTH_EDGES[:-1],  # the last is open
        "depths": survey.depths.tolist(),
        "drawn_depths": survey.drawn_depths.tolist(),
        "drawn_too_small": survey.small,
    }


def _spread(values: list[int]) -> dict:
    return {"least": min(values), "median": float(np.median(values)), "greatest": max(values)}
