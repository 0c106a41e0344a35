"""Click-based segmentation from unlabelled images: merge trees, simulated clicks, SimpleClick.

The rooms, in the order of the flow: datasets, proposals, models, downloads, features, records,
predictors, evaluation, training, inspection, annotator, quickstart. Each says what it does;
docs/architecture.md draws them all. Names are loaded at first use: `import mis_jax` is instant.
"""

import lazy_loader

__version__ = "0.5.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
