"""Image files of every kind, made on the spot with Pillow and OpenCV."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from mis_jax.datasets import images
from mis_jax.errors import InputError

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


def picture(height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    """uint8 [H, W, 3], smooth, so that JPEG keeps it closely."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def saved(path, data: bytes):
    path.write_bytes(data)
    return path


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


def test_transparent_colour_of_an_rgb_png():
    rgb = picture()
    rgb[:9, :9] = (1, 2, 3)
    data = encoded(Image.fromarray(rgb), "PNG", transparency=(1, 2, 3))
    rgb[:9, :9] = 255
    np.testing.assert_array_equal(images.read_image(data), rgb)


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(picture(seed=s)).quantize(64) for s in (0, 1)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(images.read_image(data), np.asarray(frames[0].convert("RGB")))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    rgb = picture()
    cmyk = np.dstack([255 - rgb, np.zeros(rgb.shape[:2], np.uint8)])
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    data = encoded(Image.fromarray(cmyk, "CMYK"), kind, **options)
    assert np.abs(images.read_image(data) - rgb.astype(float)).max() <= 4


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_give_their_high_byte(suffix, channels):
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30, channels), dtype=np.uint16)
    deep[0, 0], deep[0, 1] = 0, 65535
    options = [] if suffix == ".png" else [cv2.IMWRITE_TIFF_COMPRESSION, 1]
    data = cv2.imencode(suffix, deep[..., ::-1], options)[1].tobytes()
    image = images.read_image(data)
    np.testing.assert_array_equal(image, np.broadcast_to(deep // 256, image.shape))
    assert np.abs(image - deep / 257).max() < 1  # the exact scaling


def test_16_bit_alpha():
    deep = np.full((20, 30, 4), 65535, np.uint16)
    deep[..., :3] = 256 * 77
    deep[:10, :, 3] = 0
    image = images.read_image(cv2.imencode(".png", deep)[1].tobytes())
    assert (image[:10] == 255).all()
    assert (image[10:] == 77).all()


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_values_without_a_fixed_white_are_stretched(dtype):
    ramp = np.arange(20 * 30).reshape(20, 30)
    image = images.read_image(encoded(Image.fromarray((ramp * 1000 - 5).astype(dtype)), "TIFF"))
    np.testing.assert_array_equal(image[..., 0], np.round(ramp / ramp.max() * 255))
    flat = encoded(Image.fromarray(np.full((20, 30), 7, dtype)), "TIFF")
    assert images.read_image(flat).max() == 0


def test_floating_point_that_is_not_finite_is_refused():
    data = encoded(Image.fromarray(np.full((20, 30), np.nan, np.float32)), "TIFF")
    with pytest.raises(InputError, match="mode F"):
        images.read_image(data)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_exif_orientation(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(picture()), kind, exif=exif)
    stored = picture() if kind != "JPEG" else cv2.imdecode(np.frombuffer(data, np.uint8), 128 | 1)
    stored = stored if kind != "JPEG" else stored[..., ::-1]
    np.testing.assert_array_equal(images.read_image(data), UPRIGHT[orientation](stored))


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


def test_far_too_many_pixels(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(InputError, match="more than 800 pixels"):
        images.read_image(encoded(Image.fromarray(picture()), "PNG"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_plain_files_are_kept_byte_for_byte(kind, mode, tmp_path):
    data = encoded(Image.fromarray(picture()).convert(mode), kind)
    stored, image, _ = images.prepare(saved(tmp_path / "a.img", data), 56)
    assert stored == data
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(image, bgr[..., ::-1])


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
    stored, image, _ = images.prepare(path, 0)
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


def touch(folder, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_folder_is_searched_recursively(tmp_path):
    touch(tmp_path, "b.JPG", "a/z.png", "a/deep/y.TiFf", ".hidden.png", ".git/x.png", "a/._z.png")
    touch(tmp_path, "notes.txt", "labels/a.xml", "labels/b.xml", "README")
    paths = images.find_images(tmp_path)
    assert images.image_ids(tmp_path, paths) == ["a/deep/y.TiFf", "a/z.png", "b.JPG"]
    assert images.ignored_files(tmp_path) == {".txt": 1, ".xml": 2, "no suffix": 1}


def test_linked_folders_are_followed_once(tmp_path):
    touch(tmp_path, "data/a.png", "elsewhere/b.png")
    (tmp_path / "data/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/self").symlink_to(tmp_path / "data")
    found = images.find_images(tmp_path / "data")
    assert images.image_ids(tmp_path / "data", found) == ["a.png", "more/b.png"]


def test_list_file(tmp_path):
    touch(tmp_path, "one/a.png", "two/b.data", "one/c.jpg")
    listed = tmp_path / "list.txt"
    listed.write_text(
        f"one/c.jpg\r\n\n two/b.data \n{tmp_path}/one/a.png\none/c.jpg\n", "utf-8-sig"
    )
    paths = images.find_images(str(listed))
    assert images.image_ids(listed, paths) == ["one/a.png", "one/c.jpg", "two/b.data"]
    assert images.ignored_files(listed) == {}
    listed.write_text("one/a.png\nmissing.png\n")
    with pytest.raises(InputError, match=r"1 of 2 files that do not exist.*missing\.png"):
        images.find_images(listed)
    listed.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        images.find_images(listed)


def test_glob_and_single_file(tmp_path):
    touch(tmp_path, "x/a.png", "x/deep/b.png", "y/c.png", "y/c.xml")
    paths = images.find_images(f"{tmp_path}/x/**/*.png")
    assert images.image_ids("anything", paths) == ["a.png", "deep/b.png"]
    assert [p.name for p in images.find_images(f"{tmp_path}/y/*")] == ["c.png", "c.xml"]
    assert images.find_images(tmp_path / "y/c.png") == [tmp_path / "y/c.png"]


def test_names_that_are_not_utf8(tmp_path):
    (tmp_path / "caf\udce9.png").write_bytes(b"x")
    paths = images.find_images(tmp_path)
    assert images.image_ids(tmp_path, paths) == ["caf\\xe9.png"]


@pytest.mark.parametrize("source", ["nowhere", "*.nothing", "empty", "table.csv", "empty.txt"])
def test_no_images(source, tmp_path):
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "table.csv")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match=source.replace("*", r"\*")):
        images.find_images(str(tmp_path / source))
