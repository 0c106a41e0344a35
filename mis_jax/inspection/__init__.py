"""How good merge trees are, before any training: `mis-jax inspect`.

In:   records, or images with masks.
Out:  OUTPUT/inspect.html and inspect.json, and a CSV a dataset: how near one region comes to each
      mask, how few regions make it (an oracle's NoC), and what training draws of the trees.

Begin with inspect.py; survey.py looks at records, measure.py at masks, page.py draws.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
