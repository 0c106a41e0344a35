"""The tables of the paper as data: mean clicks to 85 and 90 % IoU, as the paper gives them.

Li et al., Multi-granularity Interaction Simulation for Unsupervised Interactive Segmentation (ICCV
2023), Tables 1 to 5. Every network was trained on SBD; numbers of other methods are those that the
paper quotes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

DATASETS = ("grabcut", "berkeley", "sbd", "davis")  # in the paper's order


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a table; what it has no word or number for is "" or None.

    Attributes:
        noc: NoC@85 and NoC@90 on each of `DATASETS`.
    """

    method: str
    venue: str
    backbone: str
    noc: tuple[float | None, ...]

    def entries(self) -> dict[str, dict[str, float | None]]:
        """Dataset -> {"noc85", "noc90"}, named as in results.json."""
        pairs = zip(self.noc[::2], self.noc[1::2], strict=True)
        named = [{"noc85": first, "noc90": second} for first, second in pairs]
        return dict(zip(DATASETS, named, strict=True))


# fmt: off
TABLE_1 = {
    "Deep supervised methods": (
        Row("DIOS w/o GC", "CVPR16", "FCN", (8.02, 12.59, None, None, 14.30, 16.79, 12.52, 17.11)),
        Row("DIOS w/ GC", "CVPR16", "FCN", (5.08, 6.08, None, None, 9.22, 12.80, 9.03, 12.58)),
        Row("LD", "CVPR18", "VGG-19", (3.20, 4.79, None, None, 7.41, 10.78, 5.05, 9.57)),
        Row("BRS", "CVPR19", "DenseNet", (2.60, 3.60, None, 5.08, 6.59, 9.78, 5.58, 8.24)),
        Row("f-BRS", "CVPR20", "ResNet-101", (2.30, 2.72, None, 4.57, 4.81, 7.73, 5.04, 7.41)),
        Row("FCA-Net", "CVPR20", "ResNet-101", (None, 2.08, None, 3.92, None, None, None, 7.57)),
        Row("IA+SA", "ECCV20", "ConvNet", (None, 3.07, None, 4.94, None, None, 5.16, None)),
        Row("CDNet", "ICCV21", "ResNet-34", (1.86, 2.18, 1.95, 3.27, 5.18, 7.89, 5.00, 6.89)),
        Row("RITM", "ICIP22", "HRNet-18", (1.76, 2.04, 1.87, 3.22, 3.39, 5.43, 4.94, 6.71)),
        Row("FocalClick", "CVPR22", "MiT-B0", (1.66, 1.90, None, 3.14, 4.34, 6.51, 5.02, 7.06)),
        Row("FocusCut", "CVPR22", "ResNet-101", (1.46, 1.64, 1.81, 3.01, 3.40, 5.31, 4.85, 6.22)),
        Row("PseudoClick", "ECCV22", "HRNet-32", (None, 1.84, None, 2.98, None, 5.61, 4.74, 6.16)),
        Row("SimpleClick", "arXiv22", "ViT-B", (1.40, 1.54, 1.44, 2.46, 3.28, 5.24, 4.10, 5.48)),
    ),
    "Non-deep methods": (
        Row("GraphCut", "ICCV01", "", (7.98, 10.00, None, 14.22, 13.60, 15.96, 15.13, 17.41)),
        Row("Random Walk", "TPAMI06", "", (11.36, 13.77, None, 14.02, 12.22, 15.04, 16.71, 18.31)),
        Row("Geodesic Matting", "IJCV09", "",
            (13.32, 14.57, None, 15.96, 15.36, 17.60, 18.59, 19.50)),
        Row("GSC", "CVPR10", "", (7.10, 9.12, None, 12.57, 12.69, 15.31, 15.35, 17.52)),
        Row("ESC", "CVPR10", "", (7.24, 9.20, None, 12.11, 12.21, 14.86, 15.41, 17.70)),
    ),
    "Deep unsupervised methods": (
        Row("TokenCut", "CVPR22", "ViT-B", (3.04, 5.74, 6.30, 9.97, 10.82, 13.16, 10.56, 15.01)),
        Row("FreeMask", "CVPR22", "ViT-B", (4.06, 6.10, 5.55, 9.02, 8.61, 12.01, 8.26, 13.05)),
        Row("DSM", "CVPR22", "ViT-B", (3.64, 4.64, 5.49, 7.75, 8.59, 11.57, 7.08, 10.11)),
        Row("MIS w/o smoothness", "ICCV23", "ViT-B",
            (2.08, 2.56, 3.40, 5.51, 7.38, 9.92, 6.78, 10.08)),
        Row("MIS", "ICCV23", "ViT-B", (1.94, 2.32, 3.09, 4.58, 6.91, 9.51, 6.33, 8.44)),
    ),
}
MIS = TABLE_1["Deep unsupervised methods"][-1]

# Fine-tuned on 1, 5 and 10 % of the annotations, from MAE and from MIS.
TABLE_2 = {
    (1, "MAE"): (2.32, 2.52, 2.36, 4.44, 8.01, 10.43, 5.81, 8.28),
    (1, "MIS"): (1.54, 1.90, 1.95, 3.73, 5.57, 8.15, 5.36, 7.40),
    (5, "MAE"): (1.68, 2.22, 1.97, 3.64, 5.48, 8.13, 5.14, 7.23),
    (5, "MIS"): (1.62, 1.88, 1.95, 3.32, 5.21, 7.49, 4.54, 6.11),
    (10, "MAE"): (1.64, 1.84, 1.88, 3.21, 5.33, 7.89, 4.88, 6.77),
    (10, "MIS"): (1.40, 1.50, 1.64, 2.73, 4.61, 6.95, 4.25, 5.94),
}
# By the weight of the smoothness constraint, lambda of Equation 8.
TABLE_3 = {
    0.0: (2.08, 2.56, 3.40, 5.51, 7.38, 9.92, 6.78, 10.08),
    3.0: (2.02, 2.50, 3.07, 5.04, 6.84, 9.33, 6.32, 8.78),
    5.0: (1.94, 2.34, 3.01, 4.71, 6.79, 9.39, 6.39, 8.55),
    10.0: (1.94, 2.32, 3.09, 4.58, 6.91, 9.51, 6.33, 8.44),
    15.0: (2.12, 2.50, 3.25, 5.13, 7.12, 9.85, 6.71, 9.10),
}
# By alpha of Algorithm 2.
TABLE_4 = {
    0.0: (2.12, 2.48, 3.89, 5.52, 8.71, 10.87, 7.84, 9.92),
    0.8: (1.94, 2.40, 3.08, 4.99, 7.03, 9.62, 6.36, 8.57),
    0.9: (1.94, 2.32, 3.09, 4.58, 6.91, 9.51, 6.33, 8.44),
    0.95: (2.22, 2.62, 3.19, 4.89, 6.91, 9.52, 6.09, 8.54),
}
# By the sampling of nodes.
TABLE_5 = {
    "uniform": (3.84, 4.32, 4.42, 6.20, 7.11, 9.95, 7.71, 10.10),
    "top-down": (1.94, 2.32, 3.09, 4.58, 6.91, 9.51, 6.33, 8.44),
}
# fmt: on
NUMBERS = (1, 2, 3, 4, 5)


def groups(table: int) -> dict[str, tuple[Row, ...]]:
    """The rows of one of the tables `NUMBERS`, by the name of their group."""
    if table == 1:
        return TABLE_1
    by_key: dict[int, tuple[str, str, Mapping[Any, tuple[float, ...]]]] = {
        2: ("Few labels, Table 2", "{0[0]} % of labels, from {0[1]}", TABLE_2),
        3: ("Smoothness, Table 3", "lambda {:.1f}", TABLE_3),
        4: ("Decay, Table 4", "alpha {:g}", TABLE_4),
        5: ("Sampling, Table 5", "{}", TABLE_5),
    }
    title, name, numbers = by_key[table]
    return {title: tuple(Row(name.format(k), "", "ViT-B", n) for k, n in numbers.items())}
