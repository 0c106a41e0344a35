from . import propose
from .report import AREA_EDGES, Report, describe, describe_trees
from .schema import (
    INDEX,
    Record,
    decode,
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
    "open_shard",
    "propose",
    "read_index",
    "read_records",
    "shard_files",
]
