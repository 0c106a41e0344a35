"""Pictures and labels in: files of any kind -> uint8 RGB [H, W, 3], and masks int32 [H, W].

In:   folders, lists and globs of images (images.py); evaluation sets in their own layouts, folders
      of pairs, COCO's and labelme's annotations, SBD's .mat files, sets built as TFDS
      (benchmarks.py).
Out:  pictures, `Benchmark`s of `Sample`s (image; mask of 1 object, 0 not, -1 not counted), and
      `Objects`, the labels of one image for fine-tuning; made-up scenes with masks (scenes.py).

Begin with samples.py and reading.py. Then there are three ways in:
    images.py <- bands.py, depth.py <- kinds.py <- jpeg.py, huffman.py, png.py, tiff.py
    masks.py <- planes.py; published.py, sbd.py, labelme.py, coco.py <- outlines.py
    benchmarks.py <- layouts.py, coco_file.py, coco_images.py, tfds.py
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
