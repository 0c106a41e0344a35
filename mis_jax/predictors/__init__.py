"""An image and clicks -> a mask bool [H, W].

In:   `set_image(uint8 RGB [H, W, 3])`, then clicks in pixels: `click(x, y, positive)`, `undo()`, or
      `predict` in Segment Anything's terms.
Out:  masks, and probabilities float32 [H, W]: of a network within ZoomIn (network.py, zoom_in.py),
      of trees, colours and edges together (fused.py, out of the channels of evidence.py), of the
      same corrected by an evidence network (corrected.py, which sees what maps.py makes of them),
      of merge trees alone (merge_trees.py), or of a method from before deep learning (classics/).

Begin with network.py or fused.py; a predictor without a network is a `ClickListPredictor`
(click_list.py).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
