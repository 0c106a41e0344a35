from . import benchmarks, coco, images, objects, sbd, scenes, tfds, tfds_builders
from .benchmarks import open_benchmark
from .images import read_image
from .objects import Objects, without_buggy
from .samples import Benchmark, Sample, count_left_out

__all__ = [
    "Benchmark",
    "Objects",
    "Sample",
    "benchmarks",
    "coco",
    "count_left_out",
    "images",
    "objects",
    "open_benchmark",
    "read_image",
    "sbd",
    "scenes",
    "tfds",
    "tfds_builders",
    "without_buggy",
]
