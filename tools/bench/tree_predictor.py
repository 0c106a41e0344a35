"""NoC of the tree predictor beside simpler ones, on any data sets of images and masks.

    python tools/bench/tree_predictor.py scenes=FOLDER,pieces=FOLDER [--json FILE]

tools/data/made_up.py makes such sets.
"""

import argparse
import json

import numpy as np
from tqdm import tqdm

from mis_jax.evaluation import clicker, evaluate, metrics
from mis_jax.evaluation.metrics import bootstrap_interval
from mis_jax.features.descriptor import merge_tree
from mis_jax.predictors.merge_trees import TreePredictor, View
from mis_jax.predictors.zoom_in import Roi
from mis_jax.proposals import snap

STRIDE = 2  # pixels, of the single trees
SMALL = 0.03  # of the image: before any negative click, PlainRule answers with no smaller node
TARGETS = (0.85, 0.90)
MAX_CLICKS = 20


class PlainRule:
    """Of every positive click the largest node without negatives, snapped.

    While there are no negative clicks: of the nodes that are not small, the one whose parent's
    merge costs the most times its own.
    """

    def set_image(self, image: np.ndarray) -> None:
        """Starts on an image, uint8 RGB [H, W, 3]."""
        self.image, self.clicks = image, []
        self.tree = tree = merge_tree(image, STRIDE)[0]
        costs = np.concatenate([np.zeros(tree.n), tree.costs]) + 1e-9
        self.jump = costs[tree.parents()] / costs
        self.jump[(tree.areas() < SMALL * tree.n) | (tree.parents() < 0)] = 0

    def click(self, x: float, y: float, positive: bool = True) -> np.ndarray:
        """Adds a click and returns the mask, bool [H, W]."""
        path = self.tree.ancestors(self.tree.patch_at(y, x, *self.image.shape[:2]))
        self.clicks.append((path, positive))
        negative = np.zeros(self.tree.num_nodes, bool)
        for path, positive in self.clicks:
            negative[path] |= not positive
        mask = np.zeros(self.tree.grid, bool)
        for path, positive in self.clicks:
            free = path[~negative[path]]
            if positive and len(free):
                node = free[-1] if negative.any() else free[np.argmax(self.jump[free])]
                mask |= self.tree.mask(node)
        return snap(self.image, mask) > 0.5


class OneTree(TreePredictor):
    """The tree predictor with the first of its trees only."""

    def _prepare(self, image: np.ndarray) -> None:
        super()._prepare(image)
        look = self._look

        def look_at_one(roi: Roi) -> View:
            view = look(roi)
            del view._trees[1:]
            return view

        self._look = look_at_one


PREDICTORS = {
    "plain rule": PlainRule,
    "one tree": OneTree,
    "tree": TreePredictor,
    "tree-blocks": lambda: TreePredictor(snapping=False),
}


def main() -> None:
    """Prints NoC@85 and @90 with 95 % bootstrap intervals; writes them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", help="NAME=FOLDER,... as in mis-jax evaluate")
    parser.add_argument("--json", help="file for the result")
    arguments = parser.parse_args()
    results = {"settings": TreePredictor().settings, "datasets": {}}
    for benchmark in evaluate.open_datasets(arguments.datasets.split(",")):
        results["datasets"][benchmark.name] = rows = {}
        for name, make in PREDICTORS.items():
            predictor = make()
            ious = [
                [r.iou for r in clicker.rounds(predictor, sample, max(TARGETS), MAX_CLICKS)]
                for sample in tqdm(benchmark, f"{benchmark.name}, {name}", len(benchmark))
            ]
            rows[name] = {f"noc{100 * t:.0f}": _noc(ious, t) for t in TARGETS}
            print(benchmark.name, name, rows[name], flush=True)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(results, file, indent=1)


def _noc(ious: list[list[float]], target: float) -> dict[str, float]:
    counts = [metrics.noc([row], target, MAX_CLICKS) for row in ious]
    low, high = bootstrap_interval(np.array(counts))
    return {"mean": round(float(np.mean(counts)), 3), "low": round(low, 3), "high": round(high, 3)}


if __name__ == "__main__":
    main()
