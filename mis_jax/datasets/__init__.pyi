from . import benchmarks, images, sbd, scenes
from .benchmarks import open_benchmark
from .images import Picture, read_image
from .layouts import mask_files
from .objects import Objects, without_buggy
from .orientation import aligned
from .reading import Notes, Reading, note_lines
from .recent import stamp
from .samples import Benchmark, Labelled, Sample, count_left_out, first_reasons

__all__ = [
    "Benchmark",
    "Labelled",
    "Notes",
    "Objects",
    "Picture",
    "Reading",
    "Sample",
    "aligned",
    "benchmarks",
    "count_left_out",
    "first_reasons",
    "images",
    "mask_files",
    "note_lines",
    "open_benchmark",
    "read_image",
    "sbd",
    "scenes",
    "stamp",
    "without_buggy",
]
