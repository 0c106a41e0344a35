"""Image files of every kind, made on the spot with Pillow and OpenCV."""

import io
import subprocess
import sys
import tempfile

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import UPRIGHT, encoded, picture, saved
from PIL import Image, features

from mis_jax.datasets import images
from mis_jax.datasets.reading import Reading
from mis_jax.errors import InputError


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_kinds_come_back_exactly(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(picture()), kind, **options)
    image = images.read_image(data)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, picture())


def test_grey_and_one_bit():
    grey = picture()[..., 0]
    data = encoded(Image.fromarray(grey), "PNG")
    np.testing.assert_array_equal(images.read_image(data), np.stack([grey] * 3, -1))
    data = encoded(Image.fromarray(grey > 99), "PNG")
    np.testing.assert_array_equal(images.read_image(data)[..., 1], np.where(grey > 99, 255, 0))


def test_transparency_lies_over_white():
    rgb = picture()
    alpha = np.linspace(0, 255, rgb.shape[1]).astype(np.uint8)[None].repeat(len(rgb), 0)
    data = encoded(Image.fromarray(np.dstack([rgb, alpha])), "PNG")
    cover = alpha[..., None] / 255
    expected = rgb * cover + 255 * (1 - cover)
    image = images.read_image(data)
    assert np.abs(image - expected).max() <= 1
    np.testing.assert_array_equal(image[:, 0], 255)
    grey = encoded(Image.fromarray(np.dstack([rgb[..., 0], alpha])), "PNG")
    assert np.abs(images.read_image(grey)[..., 2] - expected[..., 0]).max() <= 1


def test_palette_with_and_without_transparency():
    palette = Image.fromarray(picture()).quantize(16)
    expected = np.array(palette.getpalette()[:48]).reshape(16, 3)[np.asarray(palette)]
    np.testing.assert_array_equal(images.read_image(encoded(palette, "PNG")), expected)
    expected[np.asarray(palette) == 3] = 255
    data = encoded(palette, "PNG", transparency=3)
    np.testing.assert_array_equal(images.read_image(data), expected)


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]),
    st.sampled_from(["PNG", "WEBP", "TIFF"]),
    st.integers(1, 8),
    st.integers(0, 9),
    st.sampled_from([0, 30]),
)
def test_any_mode_in_any_file_in_any_orientation(mode, kind, tag, seed, side):
    """What is read, and what a record keeps of it, against compositing and turning in NumPy."""
    if kind == "WEBP" and mode != "RGBA":
        mode = "RGB"
    levels = picture(33, 47, seed, bands=4)
    levels[..., 3] = np.where(levels[..., 3] < 128, 0, 255)
    deep = levels[..., 0].astype(np.uint16) * 257
    deep[0, :2] = 0, 65535
    grey = np.broadcast_to(levels[..., :1], (33, 47, 3))
    image, expected = {
        "1": (Image.fromarray(levels[..., 0] > 99), np.where(grey > 99, 255, 0)),
        "L": (Image.fromarray(levels[..., 0]), grey),
        "LA": (Image.fromarray(levels[..., [0, 3]], "LA"), grey),
        "P": (Image.fromarray(levels[..., 0]).convert("P"), grey),
        "RGB": (Image.fromarray(levels[..., :3]), levels[..., :3]),
        "RGBA": (Image.fromarray(levels), levels[..., :3]),
        "I;16": (Image.fromarray(deep), (deep >> 8)[..., None].repeat(3, -1)),
    }[mode]
    if "A" in mode:
        expected = np.where(levels[..., 3:] > 0, expected, 255)
        if not levels[..., 3].any():
            return
    exif = Image.Exif()
    exif[0x0112] = tag
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encoded(image, kind, exif=exif, **options)
    found = images.read_picture(data)
    np.testing.assert_array_equal(found.pixels, UPRIGHT[tag](expected))
    assert (found.orientation, found.notes) == (tag, ())
    with tempfile.NamedTemporaryFile(suffix=".img") as file:
        file.write(data)
        file.flush()
        stored, pixels, notes, *_ = images.prepare(file.name, side)
    np.testing.assert_array_equal(images.decode(stored), pixels)
    assert notes == ()
    if side:
        assert max(pixels.shape) == side
    else:
        np.testing.assert_array_equal(pixels, found.pixels)


def test_transparent_colour_of_an_rgb_png():
    rgb = picture()
    rgb[:9, :9] = (1, 2, 3)
    data = encoded(Image.fromarray(rgb), "PNG", transparency=(1, 2, 3))
    rgb[:9, :9] = 255
    np.testing.assert_array_equal(images.read_image(data), rgb)


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(picture(seed=s)).quantize(64) for s in (0, 1)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    found = images.read_picture(data)
    np.testing.assert_array_equal(found.pixels, np.asarray(frames[0].convert("RGB")))
    assert found.notes == ("several frames, of which the first is taken",)
    assert images.read_picture(encoded(frames[0], "GIF")).notes == ()


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "MPO"])
def test_further_frames_are_noted(kind):
    frames = [Image.fromarray(picture(seed=s)) for s in (0, 1)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    found = images.read_picture(data)
    assert np.abs(found.pixels - picture().astype(float)).mean() <= (3 if kind == "MPO" else 0)
    assert found.notes == ("several frames, of which the first is taken",)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    rgb = picture()
    cmyk = np.dstack([255 - rgb, np.zeros(rgb.shape[:2], np.uint8)])
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    data = encoded(Image.fromarray(cmyk, "CMYK"), kind, **options)
    assert np.abs(images.read_image(data) - rgb.astype(float)).max() <= 4


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP", "AVIF", "deep PNG"])
def test_exif_orientation(kind, orientation):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    image = Image.fromarray(picture())
    if kind == "deep PNG":
        image = Image.fromarray(picture()[..., 0].astype(np.uint16) << 8)
    data = encoded(image, kind.removeprefix("deep "), exif=exif, **options)
    stored = {"JPEG": images.decode(data), "deep PNG": picture()[..., :1]}.get(kind, picture())
    found = images.read_picture(data)
    tolerance = 12 if kind == "AVIF" else 0
    assert np.abs(found.pixels - UPRIGHT[orientation](stored).astype(float)).max() <= tolerance
    assert found.orientation == orientation
    assert found.notes == ()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_unreadable_exif_does_not_matter():
    data = encoded(Image.fromarray(picture()), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xffnonsense")
    np.testing.assert_array_equal(images.read_image(data), picture())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000"])
def test_truncated_files_are_named(kind, tmp_path):
    data = encoded(Image.fromarray(picture()), kind)
    for part in (0.5, 0.95):
        path = saved(tmp_path / "cut.img", data[: int(part * len(data))])
        with pytest.raises(InputError, match=r"cut\.img: truncated or damaged"):
            images.read_image(path)


def test_other_files_that_are_no_images(tmp_path):
    for data, reason in [(b"", "empty"), (b"hello " * 99, "not an image"), (b"%PDF-1.4", "not an")]:
        with pytest.raises(InputError, match=rf"x\.jpg: .*{reason}"):
            images.read_image(saved(tmp_path / "x.jpg", data))
    with pytest.raises(InputError, match=r"none\.png: does not exist"):
        images.read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="not a file"):
        images.read_image(tmp_path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_plain_files_are_kept_byte_for_byte(kind, mode, tmp_path):
    data = encoded(Image.fromarray(picture()).convert(mode), kind)
    stored, image, *_ = images.prepare(saved(tmp_path / "a.img", data), 56)
    assert stored == data
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(image, bgr[..., ::-1])


def test_what_is_kept_decodes_as_other_readers_read_it(tmp_path):
    """JPEG in every subsampling, baseline and progressive, against Pillow and OpenCV."""
    for mode in ("L", "RGB"):
        for options in [{"subsampling": s, "progressive": p} for s in (0, 1, 2) for p in (0, 1)]:
            image = Image.fromarray(picture(41, 57)).convert(mode)
            data = encoded(image, "JPEG", quality=80, **options)
            stored, pixels, *_ = images.prepare(saved(tmp_path / "a.jpg", data), 0)
            assert stored == data
            np.testing.assert_array_equal(images.decode(data), pixels)
            np.testing.assert_array_equal(Image.open(io.BytesIO(data)).convert("RGB"), pixels)
            bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            np.testing.assert_array_equal(bgr[..., ::-1], pixels)


@pytest.mark.parametrize("bands", [(0,), (2, 1, 0)])
def test_bands_that_the_user_names(bands, tmp_path):
    reading = Reading(bands=bands)
    data = encoded(Image.fromarray(picture()), "PNG")
    path = saved(tmp_path / "a.png", data)
    expected = np.broadcast_to(picture()[..., list(bands)], picture().shape)
    np.testing.assert_array_equal(images.read_picture(path, reading).pixels, expected)
    stored, pixels, *_ = images.prepare(path, 0, reading)
    np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_array_equal(images.decode(stored), expected)
    with pytest.raises(InputError, match=r"a\.png: it has 3 bands.*config\.images\.bands is"):
        images.read_picture(path, Reading(bands=(3, 2, 1)))


def rotated_jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.fromarray(picture()), "JPEG", exif=exif)


def odd_files() -> dict[str, bytes]:
    image = Image.fromarray(picture())
    deep = picture().astype(np.uint16) * 257
    return {
        "rotated.jpg": rotated_jpeg(),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "palette.png": encoded(image.quantize(16), "PNG"),
        "alpha.png": encoded(image.convert("RGBA"), "PNG"),
        "key.png": encoded(image, "PNG", transparency=(1, 2, 3)),
        "deep.png": cv2.imencode(".png", deep[..., ::-1])[1].tobytes(),
        "deep_grey.png": encoded(Image.fromarray(deep[..., 0]), "PNG"),
        "photo.webp": encoded(image, "WEBP"),
        "scan.tif": encoded(image, "TIFF"),
    }


@pytest.mark.parametrize("name", odd_files())
def test_other_files_are_stored_anew(name, tmp_path):
    path = saved(tmp_path / name, odd_files()[name])
    stored, image, *_ = images.prepare(path, 0)
    kind = Image.open(io.BytesIO(stored))
    assert (kind.format, kind.mode) == ("JPEG" if ".jpg" in name else "PNG", "RGB")
    np.testing.assert_array_equal(images.decode(stored), image)
    tolerance = 12 if ".jpg" in name else 0
    assert np.abs(image - images.read_image(path).astype(float)).max() <= tolerance


def test_long_images_are_shrunk_by_area(tmp_path):
    path = saved(tmp_path / "a.png", encoded(Image.fromarray(picture(80, 120)), "PNG"))
    image = images.prepare(path, 60).image
    expected = picture(80, 120).astype(float).reshape(40, 2, 60, 2, 3).mean((1, 3))
    assert image.shape == (40, 60, 3)
    assert np.abs(image - expected).max() <= 0.5
    assert images.prepare(path, 0)[1].shape == (80, 120, 3)


@pytest.mark.parametrize(("size", "max_side"), [((1, 1), 0), ((15, 90), 0), ((40, 600), 100)])
def test_too_small_also_after_shrinking(size, max_side, tmp_path):
    path = saved(tmp_path / "dot.png", encoded(Image.fromarray(picture(*size)), "PNG"))
    with pytest.raises(InputError, match=r"dot\.png: too small"):
        images.prepare(path, max_side)


def test_decode_refuses_other_bytes():
    for data in (b"", b"nothing of the kind"):
        with pytest.raises(InputError, match="cannot be decoded"):
            images.decode(data)


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_blank_images_are_told_also_as_jpeg(quality):
    for colour in [(0, 0, 0), (255, 255, 255), (200, 30, 90), (12, 130, 250)]:
        flat = Image.new("RGB", (70, 50), colour)
        assert images.is_blank(images.read_image(encoded(flat, "JPEG", quality=quality)))
    assert not images.is_blank(images.read_image(encoded(Image.fromarray(picture()), "JPEG")))
    one = np.full((70, 50, 3), 90, np.uint8)
    one[33, 21, 2] = 98
    assert images.is_blank(one)
    one[33, 21, 2] = 99
    assert not images.is_blank(one)


def test_libraries_of_other_kinds_are_not_loaded(tmp_path):
    path = saved(tmp_path / "a.png", encoded(picture(), "PNG"))
    code = "import sys; from mis_jax.datasets import images; images.read_image(sys.argv[1]); "
    code += "print({'tifffile', 'imagecodecs', 'simplejpeg', 'numba'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert run.stdout == "set()\n", run.stderr
