"""The only on-disk schema, and what fills it: `mis-jax propose` and `mis-jax masks`.

In:   images -> features -> merge trees (propose.py), or images with labels (masks.py).
Out:  shards of `Record`s: {id, image as JPEG or PNG, height, width, tree or objects}. A shard
      appears whole or not at all.

Begin with schema.py (a record) and store.py (shards of them on disk); then propose.py, with plan.py
(which image is in which shard) and pipeline.py, and masks.py.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
