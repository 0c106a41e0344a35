"""What a record holds: an image and its merge tree, or its labelled objects, as bytes."""

import dataclasses

import msgpack

from mis_jax.datasets import Objects
from mis_jax.errors import InputError
from mis_jax.proposals import Tree

VERSION = 1
OBJECTS = 2  # version of a record that holds labelled objects in place of a tree
LAYERS = 3  # the same, of objects that overlap, which are in several layers
_FIELDS = {"version": int, "id": str, "image": bytes, "height": int, "width": int}
_PARTS: dict[int, tuple[str, type[Tree | Objects]]]  # the last field, by version
_PARTS = {VERSION: ("tree", Tree), OBJECTS: ("objects", Objects), LAYERS: ("objects", Objects)}


@dataclasses.dataclass(frozen=True)
class Record:
    """One image, and what its targets are drawn from."""

    id: str  # path of the image file, posix, below the folder that was proposed
    image: bytes  # JPEG or PNG, see images.decode
    height: int  # of the image, pixels
    width: int
    tree: Tree | Objects


def encode(record: Record) -> bytes:
    """The bytes of a record; equal records give equal bytes."""
    version = VERSION
    if isinstance(record.tree, Objects):
        version = OBJECTS if record.tree.labels.ndim == 2 else LAYERS
    fields = {"version": version, "id": record.id, "image": record.image}
    fields |= {"height": record.height, "width": record.width}
    fields |= {_PARTS[version][0]: record.tree.to_bytes()}
    return msgpack.packb(fields)


def decode(data: bytes) -> Record:
    """The record that `encode` made these bytes of.

    Raises:
      InputError: if the bytes are damaged, or written by another version.
    """
    try:
        fields = msgpack.unpackb(data)
    except (ValueError, msgpack.exceptions.UnpackException):
        fields = None
    version = fields.get("version", VERSION) if isinstance(fields, dict) else VERSION
    if version not in tuple(_PARTS):
        raise InputError(
            f"a record has version {version}, and this mis_jax reads version {VERSION} (trees) and "
            f"{OBJECTS} and {LAYERS} (objects); propose again into a new folder."
        )
    name, kind = _PARTS[version]
    types = {k: type(v) for k, v in fields.items()} if isinstance(fields, dict) else {}
    if types != _FIELDS | {name: bytes} or min(fields["height"], fields["width"]) < 1:
        raise InputError("a record is damaged; delete its shard and propose again.")
    tree = kind.from_bytes(fields[name])
    return Record(fields["id"], fields["image"], fields["height"], fields["width"], tree)
