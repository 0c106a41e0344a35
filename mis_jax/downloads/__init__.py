"""Published weights and evaluation sets -> verified files in the cache folder: `mis-jax download`.

In:   names, such as dino-vits8 or grabcut.
Out:  paths; a file or folder is there whole, with the published size and digest, or not at all.

Begin with download.py, the command; weights.py and archives.py know what there is, and fetch.py
fetches.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
