"""A predictor and benchmarks -> clicks, IoUs and NoC tables: `mis-jax evaluate`, `mis-jax compare`.

In:   what answers clicks, and `Benchmark`s.
Out:  OUTPUT/results.json ({dataset: entry}, `metrics.summarize` says what an entry has), a CSV a
      dataset, tables beside the paper's, figures. A killed evaluation goes on from its journal.

Begin with clicker.py, the simulated user; then evaluate.py, the command.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
