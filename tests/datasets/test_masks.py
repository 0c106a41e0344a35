"""masks: what the values of a mask file mean, a file per writer, and the sentences for the rest."""

import io

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from mis_jax.datasets import masks
from mis_jax.datasets.planes import Plane
from mis_jax.datasets.reading import Reading
from mis_jax.errors import InputError

IDS, HALF = (Reading(masks=frozenset({word})) for word in ("ids", "half"))
SHAPE = (6, 8)
VOC = np.zeros((256, 3), int)  # its palette, as its development kit computes it
for _bit in range(8):
    for _channel in range(3):
        VOC[:, _channel] |= (np.arange(256) >> (3 * _bit + _channel) & 1) << (7 - _bit)
VOC = VOC.astype(np.uint8)


def rows(*values, dtype=np.uint8):
    """An array with one value a row, the last one down to the bottom."""
    lines = [*values, *[values[-1]] * (SHAPE[0] - len(values))]
    return np.array(lines, dtype)[:, None].repeat(SHAPE[1], 1)


def by_rows(mask):
    assert mask.pixels.dtype == np.int32
    assert (mask.pixels == mask.pixels[:, :1]).all()
    return mask.pixels[:, 0].tolist()


def palette(path, indices, colours, **how):
    picture = Image.fromarray(indices)
    picture.putpalette(np.asarray(colours, np.uint8).tobytes())
    assert picture.mode == "P"
    picture.save(path, **how)
    return path


def pillow(path, pixels, **how):
    Image.fromarray(pixels).save(path, **how)
    return path


def read(path, reading=None):
    return masks.read_mask(path, reading or Reading())


def refused(path, reading=None):
    with pytest.raises(InputError) as caught:
        read(path, reading)
    assert str(caught.value).startswith(f"the mask {path} ")
    return str(caught.value).removeprefix(f"the mask {path} ")


# ---- palettes


@pytest.mark.parametrize("label", [1, 3, 8, 15, 20, 128, 254])
@pytest.mark.parametrize("suffix", [".png", ".gif", ".tif", ".bmp"])
def test_a_palette_of_voc_has_its_class_by_index_and_no_border(tmp_path, label, suffix):
    path = palette(tmp_path / f"a{suffix}", rows(0, label, 255, 0), VOC)
    renumbered = suffix == ".gif"  # by Pillow, which writes the colours in use
    notes = (masks.BORDER,) if renumbered else ()
    label = 1 if renumbered else label
    mask = read(path)
    assert (by_rows(mask), mask.notes) == ([0, 1, -1, 0, 0, 0], notes)
    assert masks.list_ids(path) == {str(label): label}
    found = masks.read_id(path, label)
    assert (by_rows(found), found.notes) == ([0, 1, -1, 0, 0, 0], notes)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_few_bits(tmp_path, bits):
    top = 2**bits - 1
    colours = [[90, 20, 200], *[[255, 9, k] for k in range(top)]]
    path = palette(tmp_path / "a.png", rows(0, top, 0), colours, bits=bits)
    assert path.read_bytes()[24] == bits
    if top == 255:
        assert "no object pixel" in refused(path)
    else:
        assert by_rows(read(path)) == [0, 1, 0, 0, 0, 0]


def test_a_coloured_background_is_background(tmp_path):
    path = palette(tmp_path / "a.png", rows(0, 1, 0), [[10, 200, 30], [200, 10, 40]])
    assert (by_rows(read(path)), read(path).notes) == ([0, 1, 0, 0, 0, 0], ())


def test_a_palette_sorted_by_frequency_is_refused(tmp_path):
    """Pillow makes such of RGB: its object may well have the first index."""
    red = Image.fromarray((rows(255, 0, 255)[..., None] * [1, 0, 0]).astype(np.uint8))
    red.save(tmp_path / "a.gif")
    red.quantize(2).save(tmp_path / "a.png")
    for path in tmp_path.iterdir():
        assert refused(path) == (
            "has a palette with (255, 0, 0) for index 0 and (0, 0, 0) for another, and which is "
            "the background cannot be known; --masks ids takes the indices above 0, and saved as "
            "RGB it is what is not black"
        )
    black = palette(tmp_path / "b.png", rows(0, 1, 0), [[10, 200, 30], [0, 0, 0]])
    assert refused(black).startswith("has a palette with (10, 200, 30) for index 0 and (0, 0, 0)")
    assert by_rows(masks.read_id(black, 1)) == [0, 1, 0, 0, 0, 0]


def test_several_classes_of_a_palette_are_refused_or_ids(tmp_path):
    path = palette(tmp_path / "a.png", rows(0, 1, 15, 255, 0), VOC)
    assert refused(path) == (
        "has the palette indices 0, 1, 15 and 255, of which the object cannot be known; "
        "--masks ids takes each but 0 and 255 as an object"
    )
    assert masks.list_ids(path) == {"1": 1, "15": 15}
    assert by_rows(masks.read_id(path, 15)) == [0, 0, 1, -1, 0, 0]


def test_a_grey_of_a_palette_is_a_class_where_there_is_no_white(tmp_path):
    """Index 7 of VOC, a car, is the grey 128; and a background may be grey as well."""
    car = palette(tmp_path / "a.png", rows(0, 7, 0), VOC)
    assert (by_rows(read(car)), read(car).notes) == ([0, 1, 0, 0, 0, 0], ())
    grey = palette(tmp_path / "b.png", rows(0, 1, 0), [[70] * 3, [200] * 3])
    assert by_rows(read(grey)) == [0, 1, 0, 0, 0, 0]
    half = Reading(masks=frozenset({"half"}))
    assert by_rows(masks.read_mask(car, half)) == [0, 1, 0, 0, 0, 0]


def test_a_palette_without_colours_has_its_indices():
    plane = Plane(rows(0, 1, 0), "palette", 255, np.zeros((0, 3), np.uint8))
    mask, notes = masks._object(plane)
    assert (by_rows(masks.Mask(mask)), notes) == ([0, 1, 0, 0, 0, 0], ())


def test_palettes_of_greys_are_greys(tmp_path):
    """Tools that make files small store greys with a palette."""
    greys = [[0] * 3, [128] * 3, [255] * 3]
    path = palette(tmp_path / "a.png", rows(0, 1, 2, 0), greys)
    assert by_rows(read(path)) == [0, -1, 1, 0, 0, 0]
    ramp = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
    white = palette(tmp_path / "b.png", rows(0, 255, 0), ramp)
    assert by_rows(read(white)) == [0, 1, 0, 0, 0, 0]
    assert masks.list_ids(white) == {"255": 255}
    trimap = palette(tmp_path / "d.png", rows(0, 128, 255, 0), ramp)
    assert by_rows(read(trimap)) == [0, -1, 1, 0, 0, 0]
    assert masks.list_ids(trimap) == {"128": 128, "255": 255}
    labels = palette(tmp_path / "c.png", rows(0, 1, 255, 0), ramp)
    assert by_rows(read(labels)) == [0, 1, -1, 0, 0, 0]
    assert masks.list_ids(labels) == {"1": 1}


def test_a_palette_that_begins_with_white_is_refused(tmp_path):
    path = palette(tmp_path / "a.png", rows(0, 1, 0), [[255] * 3, [0] * 3])
    assert refused(path) == (
        "has a palette with 255 for index 0 and 0 for another, and which is the background cannot "
        "be known; --masks ids takes the indices above 0, --masks half what is above 127"
    )
    assert by_rows(read(path, HALF)) == [1, 0, 1, 1, 1, 1]
    assert by_rows(masks.read_id(path, 1)) == [0, 1, 0, 0, 0, 0]


def test_a_palette_without_an_object(tmp_path):
    path = palette(tmp_path / "a.png", rows(0, 255, 0), VOC)
    assert refused(path) == (
        "has no object pixel; it has the palette indices 0 and 255, 255 is not counted"
    )


def test_indices_beyond_the_palette_are_indices(tmp_path):
    path = palette(tmp_path / "a.png", rows(0, 7, 0), [[0, 0, 0], [128, 0, 0]])
    assert by_rows(read(path)) == [0, 1, 0, 0, 0, 0]


# ---- greys


@pytest.mark.parametrize(
    ("values", "expected", "notes"),
    [
        ((0, 255), (0, 1), ()),
        ((0, 1), (0, 1), ()),
        ((0, 64), (0, 1), ()),
        ((0, 127), (0, 1), ()),
        ((0, 128, 255), (0, -1, 1), ()),
        ((0, 1, 255), (0, 1, 1), (masks.BOTH,)),
        ((255,), (1,), (masks.EVERYWHERE,)),
        ((128, 255), (-1, 1), (masks.NO_BACKGROUND,)),
        ((0,), (0,), ()),
    ],
)
def test_the_values_that_are_read(tmp_path, values, expected, notes):
    pixels = rows(*values)
    for path in (pillow(tmp_path / "a.png", pixels), pillow(tmp_path / "a.tif", pixels)):
        assert by_rows(read(path))[: len(values)] == list(expected)
        assert read(path).notes == notes
    for channels in (3, 4):  # greys that are stored as colours
        colours = np.dstack([pixels] * 3 + [np.full_like(pixels, 255)])[..., :channels]
        found = read(pillow(tmp_path / f"c{channels}.png", colours))
        assert (by_rows(found)[: len(values)], found.notes) == (list(expected), notes)


@pytest.mark.parametrize(
    ("values", "dtype", "seen", "middle"),
    [
        ((0, 1, 2), np.uint8, "0, 1 and 2", 127),
        ((0, 64, 128, 255), np.uint8, "0, 64, 128 and 255", 127),
        ((1, 2), np.uint8, "1 and 2", 127),
        ((30, 230), np.uint8, "30 and 230", 127),
        ((0, 1, 128), np.uint8, "0, 1 and 128", 127),
        ((0, 128, 300), np.uint16, "0, 128 and 300", 32767),
    ],
)
def test_other_values_are_refused_and_named(tmp_path, values, dtype, seen, middle):
    path = pillow(tmp_path / "a.png", rows(*values, dtype=dtype))
    assert refused(path) == (
        f"has {seen}, of which the object cannot be known; --masks ids takes each above 0 as an "
        f"object, --masks half what is above {middle}"
    )
    ids = [value for value in values if value]
    assert masks.list_ids(path) == {str(value): value for value in ids}
    for id in ids:
        assert by_rows(masks.read_id(path, id))[: len(values)] == [int(v == id) for v in values]
    if max(values) > middle:
        assert by_rows(read(path, HALF))[: len(values)] == [int(v > middle) for v in values]


def test_128_alone_is_not_counted_and_said(tmp_path):
    path = pillow(tmp_path / "a.png", rows(0, 128, 0))
    expected = "has no object pixel; it has 0 and 128, and 128 is not counted unless --masks ids"
    assert refused(path) == expected
    assert masks.list_ids(path) == {"128": 128}
    assert by_rows(read(path, HALF)) == [0, 1, 0, 0, 0, 0]
    deep = pillow(tmp_path / "b.png", rows(0, 128, 0, dtype=np.uint16))
    assert by_rows(read(deep)) == [0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_greys_of_few_bits(tmp_path, bits):
    """The PNG of a grey picture of few bits, made by OpenCV (1) or by hand."""
    import struct
    import zlib

    top = 2**bits - 1
    line = np.zeros(8, np.uint8)
    line[:4] = top if bits > 1 else 1
    packed = np.packbits(np.unpackbits(line[:, None], axis=1)[:, 8 - bits :].ravel()).tobytes()
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 8, 2, bits, 0, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress((b"\0" + packed) * 2)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        data += struct.pack(">I", len(body)) + kind + body
        data += struct.pack(">I", zlib.crc32(kind + body))
    path = tmp_path / "a.png"
    path.write_bytes(data)
    assert read(path).pixels.tolist() == [[1] * 4 + [0] * 4] * 2
    assert masks.list_ids(path) == {str(top): top}
    assert read(path, HALF).pixels.tolist() == [[1] * 4 + [0] * 4] * 2


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.float16,
              np.float32, np.float64]
)  # fmt: skip
def test_ids_of_any_width(tmp_path, dtype):
    top = 100 if np.dtype(dtype).itemsize == 1 else 2000
    if np.dtype(dtype).kind in "iu" and np.dtype(dtype).itemsize >= 4:
        top = 70_000
    if dtype == np.uint32:
        top = 3_000_000_000
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rows(0, 1, top, 0, dtype=dtype))
    assert masks.list_ids(path) == {"1": 1, str(top): top}
    assert by_rows(masks.read_id(path, top)) == [0, 0, 1, 0, 0, 0]
    assert "cannot be known" in refused(path)
    tifffile.imwrite(path, rows(0, top, 0, dtype=dtype))
    assert by_rows(read(path)) == [0, 1, 0, 0, 0, 0]


def test_masks_of_truth_values(tmp_path):
    """tifffile calls 0 white and writes the bits as they are; Pillow inverts what it calls so."""
    truth = rows(0, 1, 0) > 0
    tifffile.imwrite(tmp_path / "tifffile.tif", truth)
    pillow(tmp_path / "pillow.tif", truth)
    pillow(tmp_path / "pillow.png", truth)
    pillow(tmp_path / "pillow.bmp", truth)
    for path in tmp_path.iterdir():
        assert by_rows(read(path)) == [0, 1, 0, 0, 0, 0], path
        assert by_rows(read(path, HALF)) == [0, 1, 0, 0, 0, 0], path
        assert len(masks.list_ids(path)) == 1, path


def test_negative_values_are_not_counted_among_ids(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rows(0, -1, 5, 0, dtype=np.int16))
    assert masks.list_ids(path) == {"5": 5}
    assert by_rows(masks.read_id(path, 5)) == [0, -1, 1, 0, 0, 0]
    assert "-1, 0 and 5" in refused(path)


def test_probabilities(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rows(0, 0.2, 0.7, dtype=np.float32))
    assert refused(path) == (
        "has 0, 0.2 and 0.7, of which the object cannot be known; "
        "--masks half takes what is above 0.5 as the object"
    )
    assert by_rows(read(path, HALF)) == [0, 0, 1, 1, 1, 1]
    with pytest.raises(InputError, match="no whole numbers for ids"):
        masks.list_ids(path)
    tifffile.imwrite(path, rows(0, np.nan, 1, dtype=np.float32))
    assert "cannot be known" in refused(path)
    assert "half of floating-point values is of 0 to 1" in refused(path, HALF)
    soft = pillow(tmp_path / "b.png", np.arange(3, 251, dtype=np.uint8)[None].repeat(2, 0))
    assert refused(soft).startswith("has 248 values from 3 to 250, of which the object cannot")
    assert read(soft, HALF).pixels.sum() == 2 * (250 - 127)


@pytest.mark.parametrize("white", [2, 3, 100, 256, 1000, 65534])
@pytest.mark.parametrize("plain", [True, False])
def test_the_values_of_a_pgm_are_those_it_has(tmp_path, white, plain):
    """Not as Pillow stretches them: 1 of 2 would become 128, which is not counted."""
    pixels = rows(0, 1, 2, dtype=np.uint16)
    body = pixels.astype(">u2" if white > 255 else "u1").tobytes()
    words = " ".join(map(str, pixels.ravel())).encode()
    head = f"P{2 if plain else 5} {SHAPE[1]} {SHAPE[0]} {white}\n".encode()
    path = tmp_path / "a.pgm"
    path.write_bytes(head + (words if plain else body))
    assert refused(path).startswith("has 0, 1 and 2, of which the object cannot be known")
    assert masks.list_ids(path) == {"1": 1, "2": 2}
    assert by_rows(masks.read_id(path, 1)) == [0, 1, 0, 0, 0, 0]


def gdal(path, pixels, no_data=None, overview=False):
    """As GDAL writes it: a value without data in a tag of its own, smaller copies as pages."""
    tags = [(42113, "s", 0, no_data, True)] if no_data else []
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, extratags=tags, metadata=None)
        if overview:
            file.write(pixels[::2, ::2], subfiletype=1, metadata=None)
    return path


def test_overviews_are_no_pages(tmp_path):
    path = gdal(tmp_path / "a.tif", rows(0, 255, 0), overview=True)
    assert by_rows(read(path)) == [0, 1, 0, 0, 0, 0]
    deep = gdal(tmp_path / "b.tif", rows(0, 3, 70_000, dtype=np.uint32), overview=True)
    assert masks.list_ids(deep) == {"3": 3, "70000": 70_000}


@pytest.mark.parametrize(
    ("dtype", "value"), [("u1", "255"), ("i2", "-1"), ("f4", "-9999"), ("f8", "nan")]
)
def test_what_gdal_calls_no_data_is_not_counted(tmp_path, dtype, value):
    path = gdal(tmp_path / "a.tif", rows(0, 1, float(value), 0, dtype=dtype), value)
    assert (by_rows(read(path)), read(path).notes) == ([0, 1, -1, 0, 0, 0], (masks.NO_DATA,))
    assert masks.list_ids(path) == {"1": 1}
    assert by_rows(masks.read_id(path, 1)) == [0, 1, -1, 0, 0, 0]
    zero = gdal(tmp_path / "b.tif", rows(0, 1, 0, dtype=dtype), "0")
    assert (by_rows(read(zero)), read(zero).notes) == ([0, 1, 0, 0, 0, 0], ())


def test_a_tiff_with_a_jpeg_in_it(tmp_path):
    disc().save(tmp_path / "a.tif", compression="jpeg", quality=70)
    assert refused(tmp_path / "a.tif").startswith("is a JPEG with ")
    truth = np.asarray(disc()) > 0
    np.testing.assert_array_equal(read(tmp_path / "a.tif", HALF).pixels == 1, truth)


def test_half_is_asked_of_open_values_only(tmp_path):
    path = pillow(tmp_path / "a.png", rows(0, 128, 255))
    assert by_rows(read(path, HALF)) == [0, -1, 1, 1, 1, 1]
    path = pillow(tmp_path / "b.png", rows(0, 1, 0))
    assert by_rows(read(path, HALF)) == [0, 1, 0, 0, 0, 0]


def test_255_of_greys_is_an_object_and_said(tmp_path):
    path = pillow(tmp_path / "a.png", rows(0, 3, 255))
    assert masks.list_ids(path) == {"3": 3, "255": 255}
    assert (masks.read_id(path, 3).notes, masks.read_id(path, 255).notes) == ((), (masks.LAST_ID,))
    two = pillow(tmp_path / "b.png", rows(0, 255))
    many = pillow(tmp_path / "c.png", np.arange(256, dtype=np.uint8).reshape(16, 16))
    assert (masks.read_id(two, 255).notes, masks.read_id(many, 255).notes) == ((), ())


def test_nothing_above_half(tmp_path):
    path = pillow(tmp_path / "a.png", rows(0, 1, 2))
    assert refused(path, HALF) == "has no object pixel above half, 127; it has 0, 1 and 2"


@given(
    found=st.sets(st.sampled_from([0, 1, 2, 64, 127, 128, 129, 254, 255]), min_size=1),
    kind=st.sampled_from(["L", "RGB", "P"]),
    seed=st.integers(0, 9),
)
def test_any_set_of_values_is_read_or_refused_as_the_rules_say(tmp_path_factory, found, kind, seed):
    values = np.array(sorted(found), np.uint8)
    order = np.random.default_rng(seed).permutation(np.resize(np.arange(len(values)), 30))
    pixels = values[order].reshape(5, 6)
    picture = Image.fromarray(pixels)
    if kind == "P":
        picture.putpalette(VOC.tobytes())
    path = tmp_path_factory.mktemp("any") / "a.png"
    (picture.convert("RGB") if kind == "RGB" else picture).save(path)
    above = found - {0}
    if kind == "P" and len(found - {0, 255}) == 1:
        expected = {**dict.fromkeys(found, 1), 0: 0, 255: -1}
    elif kind == "P" or (found <= {0, 128} and above):
        expected = None
    elif len(above) <= 1 or found == {0, 1, 255}:
        expected = {**dict.fromkeys(found, 1), 0: 0}
    elif found in ({0, 128, 255}, {128, 255}):
        expected = {0: 0, 128: -1, 255: 1}
    else:
        expected = None
    if len(found) == 2 and 0 not in found and found != {128, 255} and kind != "P":
        expected = None
    if expected is None:
        words = refused(path)
        assert "cannot be known" in words or "has no object pixel" in words
    else:
        answer = np.vectorize(expected.get)(pixels)
        np.testing.assert_array_equal(read(path).pixels, answer)
    ids = {str(v): int(v) for v in values if v and not (kind == "P" and v == 255)}
    if ids:
        assert masks.list_ids(path) == ids
    for id in ids.values():
        np.testing.assert_array_equal(masks.read_id(path, id).pixels == 1, pixels == id)


# ---- what was drawn with soft edges, or once was a JPEG


def disc(scale=1):
    canvas = Image.new("L", (64 * scale, 64 * scale))
    ImageDraw.Draw(canvas).ellipse([scale * k for k in (12, 12, 50, 50)], fill=255)
    return canvas


def test_jpeg_masks_are_refused_and_read_at_half(tmp_path):
    truth = np.asarray(disc()) > 0
    disc().save(tmp_path / "a.jpg", quality=75)
    disc().convert("RGB").save(tmp_path / "b.jpg", quality=75)
    for path in (tmp_path / "a.jpg", tmp_path / "b.jpg"):
        words = refused(path)
        assert words.startswith("is a JPEG with ")
        assert "of which the object cannot be known; save it as PNG, or --masks half" in words
        np.testing.assert_array_equal(read(path, HALF).pixels == 1, truth)
        assert read(path, HALF).notes == (masks.HALF,)
        with pytest.raises(InputError, match="is a JPEG, of which ids cannot be known"):
            masks.list_ids(path)
    Image.open(tmp_path / "a.jpg").save(tmp_path / "c.png")  # what was a JPEG once
    assert "--masks half what is above 127" in refused(tmp_path / "c.png")
    np.testing.assert_array_equal(read(tmp_path / "c.png", HALF).pixels == 1, truth)


@pytest.mark.parametrize("suffix", [".webp", ".avif"])
def test_other_kinds_with_losses(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    soft = disc(4).resize((64, 64), Image.Resampling.BOX)
    soft.convert("RGB").save(path, quality=50)
    kind = {".webp": "a WebP", ".avif": "an AVIF"}[suffix]
    assert refused(path).startswith(f"is {kind} with ")
    assert refused(path).endswith("or --masks half takes what is above 127 as the object")
    with pytest.raises(InputError, match=f"is {kind}, of which ids cannot be known"):
        masks.list_ids(path)
    wrong = (read(path, HALF).pixels == 1) != (np.asarray(soft) > 127)
    assert wrong.sum() <= 8  # of 120 at the border


def test_soft_edges_are_refused_and_read_at_half(tmp_path):
    soft = disc(8).resize((64, 64), Image.Resampling.BOX)
    soft.save(tmp_path / "a.png")
    truth = np.asarray(disc(8)).reshape(64, 8, 64, 8).mean((1, 3)) > 127.5
    assert "values from 0 to 255, of which the object cannot be known" in refused(
        tmp_path / "a.png"
    )
    np.testing.assert_array_equal(read(tmp_path / "a.png", HALF).pixels == 1, truth)


# ---- transparency


def cut_out(colour, alpha):
    return np.dstack([np.broadcast_to(colour, (*alpha.shape, 3)).astype(np.uint8), alpha])


def photo(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["photo", "white", "red", "black"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_a_cut_out_is_where_it_is_opaque(tmp_path, kind, suffix):
    alpha = rows(0, 255, 0)
    colours = {"white": [255] * 3, "red": [200, 0, 0], "black": [0] * 3}
    colour = photo(alpha.shape) if kind == "photo" else colours[kind]
    how = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    path = pillow(tmp_path / f"a{suffix}", cut_out(colour, alpha), **how)
    assert (by_rows(read(path)), read(path).notes) == ([0, 1, 0, 0, 0, 0], ())


def test_a_cut_out_of_a_palette_or_a_transparent_colour(tmp_path):
    """Tools that make files small write such."""
    smooth = np.asarray(Image.fromarray(photo((8, 8))).resize((64, 64)))
    cut = Image.fromarray(cut_out(smooth, np.asarray(disc())))
    cut.quantize(64, method=Image.Quantize.FASTOCTREE).save(tmp_path / "a.png")
    cut.save(tmp_path / "a.gif")
    keyed = np.where(np.asarray(disc())[..., None] > 0, smooth, 7)
    pillow(tmp_path / "b.png", keyed.astype(np.uint8), transparency=(7, 7, 7))
    for path in tmp_path.iterdir():
        mask = read(path)
        assert mask.notes == ()
        np.testing.assert_array_equal(mask.pixels, np.asarray(disc()) > 0)


def test_a_grey_cut_out(tmp_path):
    alpha = rows(0, 255, 0)
    path = pillow(tmp_path / "a.png", np.dstack([np.full_like(alpha, 255), alpha]))
    assert Image.open(path).mode == "LA"
    assert by_rows(read(path)) == [0, 1, 0, 0, 0, 0]


def test_a_cut_out_with_soft_edges_ends_where_it_is_half_opaque(tmp_path):
    alpha = rows(0, 100, 127, 128, 255)
    path = pillow(tmp_path / "a.png", cut_out(photo(alpha.shape), alpha))
    assert (by_rows(read(path)), read(path).notes) == ([0, 0, 0, 1, 1, 1], (masks.EDGES,))


def test_transparency_that_does_not_say_where_the_object_ends(tmp_path):
    path = pillow(tmp_path / "a.png", cut_out(photo(SHAPE), rows(90, 255, 90)))
    assert refused(path) == (
        "has opacities from 90 to 255, and where its object ends cannot be known; "
        "--masks half takes what is more than half opaque"
    )
    assert by_rows(read(path, HALF)) == [0, 1, 0, 0, 0, 0]


def test_transparency_beside_colours_of_its_own(tmp_path):
    pixels = cut_out([0, 0, 0], rows(0, 255, 255, 255, 255, 0))
    pixels[2:4, :, :3] = 255
    path = pillow(tmp_path / "a.png", pixels)
    assert refused(path).startswith("is partly transparent and has 0 and 255 where it is not, and")
    pixels[2:4, :, :3] = [0, 128, 0]
    path = pillow(tmp_path / "b.png", pixels)
    assert "has (0, 0, 0) and (0, 128, 0) where it is not" in refused(path)
    assert by_rows(read(path, HALF)) == [0, 1, 1, 1, 1, 0]
    assert masks.list_ids(path) == {"008000": 0x008000}
    assert by_rows(masks.read_id(path, 0x008000)) == [0, 0, 1, 1, 0, 0]


def test_transparency_that_is_the_same_everywhere_says_nothing(tmp_path):
    grey = rows(0, 255, 0)
    for k, alpha in enumerate((0, 100, 255)):
        pixels = np.dstack([grey] * 3 + [np.full_like(grey, alpha)])
        assert by_rows(read(pillow(tmp_path / f"{k}.png", pixels))) == [0, 1, 0, 0, 0, 0]


# ---- colours


def test_one_colour_on_black(tmp_path):
    for suffix in (".png", ".bmp", ".tif"):
        path = pillow(tmp_path / f"a{suffix}", rows([0, 0, 0], [128, 0, 60], [0, 0, 0]))
        assert (by_rows(read(path)), read(path).notes) == ([0, 1, 0, 0, 0, 0], ())


def test_vocs_colours_without_its_palette(tmp_path):
    path = pillow(tmp_path / "a.png", VOC[rows(0, 1, 255, 0)])
    mask = read(path)
    assert (by_rows(mask), mask.notes) == ([0, 1, -1, 0, 0, 0], (masks.BORDER,))
    assert masks.list_ids(path) == {"800000": 0x800000}
    found = masks.read_id(path, 0x800000)
    assert (by_rows(found), found.notes) == (by_rows(mask), (masks.BORDER,))


def test_other_colours_are_refused_and_ids(tmp_path):
    path = pillow(tmp_path / "a.png", rows([0, 0, 0], [255, 0, 0], [0, 0, 255], [0, 0, 0]))
    assert refused(path) == (
        "has (0, 0, 0), (0, 0, 255) and (255, 0, 0), of which the object cannot be known; "
        "--masks ids takes each but black as an object"
    )
    assert masks.list_ids(path) == {"0000ff": 255, "ff0000": 255 << 16}
    assert by_rows(masks.read_id(path, 255)) == [0, 0, 1, 0, 0, 0]
    two = pillow(tmp_path / "b.png", rows([9, 0, 0], [255, 0, 0]))
    assert refused(two).startswith("has (9, 0, 0) and (255, 0, 0), of which")
    assert "--masks half is not known" in refused(two, HALF)


def test_photos_and_previews_are_refused(tmp_path):
    path = pillow(tmp_path / "a.png", photo((64, 64)))
    assert "colours, of which the object cannot be known" in refused(path)
    assert "4,0" in refused(path)
    large = pillow(tmp_path / "b.png", photo((128, 128)))
    with pytest.raises(InputError, match=r"has 16,\d+ values, too many to be ids"):
        masks.list_ids(large)
    assert "a mask has 0 and one other value" in refused(large)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colours_of_16_bits(tmp_path, suffix):
    """Pillow has only their high bytes."""
    pixels = rows([0, 0, 0], [1, 1, 1], [300, 300, 300], [0, 0, 0], dtype=np.uint16)
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), pixels)
    assert "has 0, 1 and 300, of which" in refused(path)
    assert masks.list_ids(path) == {"1": 1, "300": 300}
    pixels[1] = [0, 0, 300]  # red, as OpenCV has it
    assert cv2.imwrite(str(path), pixels)
    assert "has (0, 0, 0), (300, 0, 0) and (300, 300, 300), of which" in refused(path)
    assert list(masks.list_ids(path)) == ["012c00000000", "012c012c012c"]


# ---- pages


def test_several_pages_are_refused(tmp_path):
    first, second = (Image.fromarray(rows(0, k)) for k in (255, 1))
    for suffix in (".tif", ".gif"):
        first.save(tmp_path / f"a{suffix}", save_all=True, append_images=[second])
        expected = "has 2 pages; save each object's as a file, NAME_0.png, NAME_1.png"
        assert refused(tmp_path / f"a{suffix}") == expected


def test_unreadable_files_are_named(tmp_path):
    path = tmp_path / "a.png"
    assert refused(path) == "cannot be read (No such file or directory)"
    path.write_bytes(b"no image")
    assert refused(path) == "cannot be read; save it as PNG"
    buffer = io.BytesIO()
    Image.new("CMYK", (4, 4)).save(buffer, "TIFF")
    path.write_bytes(buffer.getvalue())
    assert refused(path) == "cannot be read: its colours are CMYK; save it as PNG"
