from . import benchmarks, images, sbd, scenes
from .benchmarks import open_benchmark
from .images import read_image
from .objects import Objects, without_buggy
from .samples import Benchmark, Sample, count_left_out

__all__ = [
    "Benchmark",
    "Objects",
    "Sample",
    "benchmarks",
    "count_left_out",
    "images",
    "open_benchmark",
    "read_image",
    "sbd",
    "scenes",
    "without_buggy",
]
