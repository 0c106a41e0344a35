"""The bands of an image file -> RGB: which are colours, what is transparency, what is left out.

Of more bands than colours the first are taken, or those that `config.images.bands` names. The
transparency of PNG, WebP and GIF is what it says and is laid over white. In a TIFF it may be a band
of its own, such as near infrared, that its writer tagged so: it counts as transparency if at least
half of its pixels are wholly opaque or wholly transparent.
"""

from typing import NamedTuple

import numpy as np

from mis_jax.datasets.depth import eight_bits
from mis_jax.datasets.orientation import upright
from mis_jax.datasets.pictures import Picture
from mis_jax.datasets.reading import Notes, Reading
from mis_jax.errors import InputError

FIRST_OF_GREY = "a second band, left out; config.images.bands picks it"
FIRST_OF_COLOURS = "bands beyond the first three, left out; config.images.bands picks others"
TAGGED = "a band tagged as transparency that looks like none, left out"
HIDDEN = "transparency that hides all of it, left out"
NAMELESS = "three bands that do not say they are colours, taken as red, green and blue"


class Bands(NamedTuple):
    """What a file has in it, as stored.

    Attributes:
      values: [H, W, S], integers or floating-point.
      bits: of unsigned integers that have a white, 1 to 16; 0: there is no fixed white.
      colours: 3: the first three are red, green and blue; 1: the first is grey.
      alpha: the band that is tagged as transparency.
      doubtful: whether that may be another band.
      premultiplied: whether the colours are, by the transparency.
      inverted: whether zero is white.
      nodata: the value for no data.
      orientation: the EXIF tag to apply, 1 to 8.
      notes: what was odd so far.
    """

    values: np.ndarray
    bits: int
    colours: int
    alpha: int | None = None
    doubtful: bool = False
    premultiplied: bool = False
    inverted: bool = False
    nodata: float | None = None
    orientation: int = 1
    notes: Notes = ()


def picture(bands: Bands, reading: Reading, name: str) -> Picture:
    """The image as it is meant to be seen.

    Raises:
      InputError: names the file, and what it lacks.
    """
    chosen, cover, notes = _choose(bands, reading, name)
    stored = list(range(bands.values.shape[-1]))
    pixels, odd = eight_bits(
        bands.values if chosen == stored else bands.values[..., chosen],
        bands.bits,
        name,
        there=None if cover is None else cover > 0,
        nodata=bands.nodata,
        range=reading.range,
        inverted=bands.inverted,
    )
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, -1)
    if cover is not None:
        pixels = _over_white(pixels, cover, bands.premultiplied)
    notes = (*bands.notes, *notes, *odd)
    return Picture(upright(pixels, bands.orientation), bands.orientation, notes)


def _choose(
    bands: Bands, reading: Reading, name: str
) -> tuple[list[int], np.ndarray | None, Notes]:
    """The bands that are shown, how opaque they are (float32 [H, W]), and what was odd."""
    count, colours, alpha = bands.values.shape[-1], bands.colours, bands.alpha
    if reading.bands:
        if max(reading.bands) >= count:
            raise InputError(
                f"{name}: it has {count} band{'s' if count > 1 else ''}, from 0, and "
                f"config.images.bands is {reading.bands}"
            )
        return list(reading.bands), None, ()
    notes: Notes = ()
    cover = None if alpha is None else _part(bands.values[..., alpha], bands.bits)
    if cover is not None:
        if not (cover > 0).any():
            cover, notes = None, (HIDDEN,)
        elif bands.doubtful and ((cover <= 0) | (cover >= 1)).mean() < 0.5:
            cover, notes = None, (TAGGED,)
    if colours == 1 and count >= 3 and alpha != 1:
        colours, notes = 3, (*notes, NAMELESS)
    left = set(range(colours, count)) - {alpha}
    if left:
        notes = (*notes, FIRST_OF_GREY if colours == 1 else FIRST_OF_COLOURS)
    return list(range(colours)), cover, notes


def _part(values: np.ndarray, bits: int) -> np.ndarray:
    """float32 [H, W] of a band of transparency: 1 is opaque."""
    full = (1 << bits) - 1 if bits else 1
    if not bits and values.dtype.kind in "iu":
        full = np.iinfo(values.dtype).max
    return np.nan_to_num(values.astype(np.float32) / np.float32(full))


def _over_white(pixels: np.ndarray, cover: np.ndarray, premultiplied: bool) -> np.ndarray:
    through = cover < 1
    share = cover[through].clip(0, 1)[:, None]
    colours = pixels[through] * (1 if premultiplied else share) + 255 * (1 - share)
    pixels = pixels.copy()
    pixels[through] = np.round(colours).clip(0, 255).astype(np.uint8)
    return pixels
