"""Image -> one feature a patch.

In:   images uint8 RGB [H, W, 3] of any sizes.
Out:  float32 [h, w, C] each, h and w being H and W over the extractor's stride: tokens of a
      pretrained ViT (vit_extractor.py), or a descriptor that needs no weights (descriptor.py).

Begin with extractors.py.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
