from . import masks, propose
from .report import AREA_EDGES, Report, Summary, describe, describe_trees
from .schema import (
    INDEX,
    VERSION,
    Record,
    ShardWriter,
    begin,
    decode,
    encode,
    open_shard,
    read_index,
    read_records,
    shard_files,
    shard_name,
)

__all__ = [
    "AREA_EDGES",
    "INDEX",
    "VERSION",
    "Record",
    "Report",
    "ShardWriter",
    "Summary",
    "begin",
    "decode",
    "describe",
    "describe_trees",
    "encode",
    "masks",
    "open_shard",
    "propose",
    "read_index",
    "read_records",
    "shard_files",
    "shard_name",
]
