"""The whole flow in minutes, on pictures that ship with it: `mis-jax quickstart`.

In:   nothing.
Out:  OUTPUT/report.html, and all that it is made of: images, records, run, results.json.

Begin with quickstart.py.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
