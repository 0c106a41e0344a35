"""Records -> a trained click model: `mis-jax train`.

In:   shards of records, and a config.
Out:  a run folder: config.json, metrics.jsonl, checkpoints/STEP/, and what was asked for besides.

Begin with train_step.py, one compiled program, or train.py, the loop around it. Samples come from
input.py (augment.py, first_clicks.py); next_clicks.py clicks on the model's own errors in the step.
The evidence network has a step of its own, evidence_step.py: composite_stream.py draws it pictures
(composites.py, pieces.py), and tracks.py clicks on what is in them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
