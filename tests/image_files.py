"""Pictures and the bytes of image files, made on the spot with Pillow, OpenCV and tifffile."""

import io
import struct

import cv2
import numpy as np
import tifffile
from PIL import Image

# What each EXIF orientation asks of the stored array, after the EXIF standard's own words: where
# the stored first row and first column belong (1: top left, 6: right top, 8: left bottom, ...).
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


def picture(height: int = 40, width: int = 56, seed: int = 0, bands: int = 3) -> np.ndarray:
    """uint8 [H, W, bands], smooth, so that JPEG keeps it closely."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, bands), dtype=np.uint8)
    return np.atleast_3d(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def encoded(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    """A file by Pillow."""
    stream = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(stream, kind, **options)
    return stream.getvalue()


def tiff(values: np.ndarray, **options) -> bytes:
    """A file by tifffile; `photometric` and the like as its `imwrite` takes them."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def circle(kind: int, back_to: int) -> bytes:
    """A TIFF of three pages of a kind (NewSubfileType), the last of which leads back to another."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for number in range(3):
            page = np.full((20, 20), 90 * number, np.uint8)
            page[5:9] = 255
            writer.write(page, subfiletype=kind, metadata=None)
    with tifffile.TiffFile(io.BytesIO(stream.getvalue())) as file:
        places = [page.offset for page in file.pages]
    data = bytearray(stream.getvalue())
    (tags,) = struct.unpack_from("<H", data, places[-1])
    struct.pack_into("<I", data, places[-1] + 2 + 12 * tags, places[back_to])
    return bytes(data)


def png(values: np.ndarray) -> bytes:
    """A file by OpenCV of [H, W], or [H, W, C] in the order RGBA."""
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[np.atleast_3d(values).shape[-1]]
    return cv2.imencode(".png", np.atleast_3d(values)[..., order])[1].tobytes()


def saved(path, data: bytes):
    """The path, which now has these bytes."""
    path.write_bytes(data)
    return path
