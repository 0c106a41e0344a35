from . import propose
from .pipeline import usable
from .report import (
    AREA_EDGES,
    Report,
    describe,
    describe_trees,
    ignored_lines,
    masks_left_out,
    skipped_lines,
)
from .schema import Record, decode
from .store import (
    INDEX,
    fingerprint,
    open_shard,
    read_index,
    read_records,
    shard_files,
)

__all__ = [
    "AREA_EDGES",
    "INDEX",
    "Record",
    "Report",
    "decode",
    "describe",
    "describe_trees",
    "fingerprint",
    "ignored_lines",
    "masks_left_out",
    "open_shard",
    "propose",
    "read_index",
    "read_records",
    "shard_files",
    "skipped_lines",
    "usable",
]
