"""How files are read and how good trees are, before training: `mis-jax check`, `mis-jax inspect`.

In:   images, images with masks, records.
Out:  OUTPUT/check.html and check.json: what is there, left out and odd, and some of it for the eye.
      OUTPUT/inspect.html and inspect.json, and a CSV a dataset: how near one region comes to each
      mask, how few regions make it (an oracle's NoC), and what training draws of the trees.

Begin with check.py (readings.py counts, contact_sheet.py shows) and inspect.py (survey.py looks at
records, measure.py at masks); page.py draws for both.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
