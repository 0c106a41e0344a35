"""Networks in Flax NNX, and the files their weights are in.

In:   state dicts of PyTorch (state_dicts.py, official.py), runs and files of ours (loading.py).
Out:  ViTs, image -> tokens (vit.py); SimpleClick, image [B, H, W, 3], previous mask [B, H, W] and
      clicks [B, 2n, 3] -> logits [B, H, W] (simpleclick.py); the evidence network (correction.py);
      `loading.load(RUN or FILE)` -> (config, parameters), a plain nested dict; `mis-jax export`
      (export.py). shipped.safetensors is the model that comes with the package.

Begin with simpleclick.py or correction.py; porting.py says how names and layouts of PyTorch become
ours.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
