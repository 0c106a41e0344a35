"""Features -> regions: the binary merge tree of an image, and proposals drawn from it.

In:   features float32 [h, w, C], one vector a patch.
Out:  `Tree`: merges int32 [n - 1, 2] and costs float32 [n - 1] over n = h * w patches (Algorithm
      1); nodes drawn of it (Algorithm 2), masks bool [h, w] of nodes, and masks that follow the
      edges of the image (`snap`); how strong the border of any two patches is
      (contours.py).

Begin with tree.py; ward.py is how it is built, ward_exact.py with the published order of ties, and
borders.py by the borders of regions, too.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
