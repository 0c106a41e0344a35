"""augment.py against the published chain of whole-image steps, written out with cv2."""

import dataclasses
import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from mis_jax.errors import InputError
from mis_jax.training import augment

PUBLISHED = augment.Augmentation(
    crop=64,
    scale=(0.75, 1.25),
    flip=0.5,
    flip_vertical=True,
    rotate90=0.5,
    shift_scale_rotate=0.75,
    brightness_contrast=0.75,
    rgb_shift=0.75,
    keep_background=0.01,
)
STILL = dataclasses.replace(
    PUBLISHED,
    scale=(1.0, 1.0),
    flip=0.0,
    rotate90=0.0,
    shift_scale_rotate=0.0,
    brightness_contrast=0.0,
    rgb_shift=0.0,
)
SETTINGS = settings(max_examples=40, deadline=None)


def chain(rng, image, mask, a):
    """The published steps on whole images, drawing in the order of `draw_place`."""
    scale = rng.uniform(*a.scale)
    h, w = (round(side * scale) for side in image.shape[:2])
    image = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
    mask = cv2.resize(mask, (w, h), interpolation=cv2.INTER_NEAREST)
    if rng.random() < a.flip:
        code = int(rng.integers(-1, 2)) if a.flip_vertical else 1
        image, mask = cv2.flip(image, code), cv2.flip(mask, code)
    if rng.random() < a.rotate90:
        factor = rng.integers(4)
        image, mask = np.rot90(image, factor).copy(), np.rot90(mask, factor).copy()
    if rng.random() < a.shift_scale_rotate:
        h, w = mask.shape
        matrix = cv2.getRotationMatrix2D((w / 2, h / 2), rng.uniform(-3, 3), 1.0)
        matrix[0, 2] += rng.uniform(-0.03, 0.03) * w
        matrix[1, 2] += rng.uniform(-0.03, 0.03) * h
        image = cv2.warpAffine(image, matrix, (w, h), flags=cv2.INTER_LINEAR)
        mask = cv2.warpAffine(mask, matrix, (w, h), flags=cv2.INTER_NEAREST)
    h, w = mask.shape
    top, left = int(max(a.crop - h, 0) / 2), int(max(a.crop - w, 0) / 2)
    pad = (top, max(a.crop - h, 0) - top, left, max(a.crop - w, 0) - left)
    image, mask = (cv2.copyMakeBorder(x, *pad, cv2.BORDER_CONSTANT) for x in (image, mask))
    h, w = mask.shape
    y, x = int((h - a.crop) * rng.random()), int((w - a.crop) * rng.random())
    return image[y : y + a.crop, x : x + a.crop], mask[y : y + a.crop, x : x + a.crop]


def smooth_image(height, width):
    y, x = np.mgrid[:height, :width] / 25.0
    waves = [np.sin(x + 0.3 * y), np.cos(y - 0.4 * x), np.sin(0.5 * x + y + 1)]
    return np.round(127 + 100 * np.stack(waves, -1)).astype(np.uint8)


def png(rgb):
    return cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()


def random_proposal(rng, h, w):
    return cv2.GaussianBlur(rng.normal(size=(h, w)), (0, 0), 1) > 0


def enlarge(proposal, height, width):
    return cv2.resize(proposal.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)


def crop_of(a, seed, proposal, height, width):
    """What `Augmentation.draw` does, without its retries."""
    place = a.draw_place(np.random.default_rng(seed), height, width)
    mask = augment.warp_mask(proposal, place, height, width, a.crop)
    table = a.draw_table(np.random.default_rng(seed))
    return augment.Crop(place, mask, table)


SHAPES = st.tuples(st.integers(40, 110), st.integers(40, 110))


@SETTINGS
@given(st.integers(0, 2**32), SHAPES, st.booleans())
def test_flips_turns_padding_and_crop_are_exact(seed, shape, flip_vertical):
    a = dataclasses.replace(STILL, flip=0.7, rotate90=0.7, flip_vertical=flip_vertical)
    image = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    proposal = random_proposal(np.random.default_rng(seed), 7, 9)
    expected, mask = chain(np.random.default_rng(seed), image, enlarge(proposal, *shape), a)
    crop = crop_of(a, seed, proposal, *shape)
    np.testing.assert_array_equal(crop.mask, mask)
    np.testing.assert_array_equal(augment.cut(png(image), crop, *shape), expected)


@SETTINGS
@given(st.integers(0, 2**32), SHAPES)
def test_one_warp_equals_the_chain_away_from_borders(seed, shape):
    a = dataclasses.replace(PUBLISHED, rotate90=0.7, brightness_contrast=0.0, rgb_shift=0.0)
    image, ones = smooth_image(*shape), np.ones(shape, np.uint8)
    expected, inside = chain(np.random.default_rng(seed), image, ones, a)
    crop = crop_of(a, seed, np.ones((6, 6), bool), *shape)
    got = augment.cut(png(image), crop, *shape)
    black = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0}
    seen = cv2.erode(inside, np.ones((5, 5)), **black) > 0
    assert seen.mean() > 0.1
    assert np.abs(got[seen].astype(int) - expected[seen]).max() <= 4  # the image moves 4 a pixel
    assert np.abs(got[seen].astype(int) - expected[seen]).mean() < 0.7
    outside = cv2.dilate(inside, np.ones((3, 3))) == 0
    assert not got[outside].any()


@SETTINGS
@given(st.integers(0, 2**32), SHAPES)
def test_edges_of_a_resized_image_do_not_fade(seed, shape):
    still = dataclasses.replace(STILL, scale=(0.75, 1.25), flip=0.7, rotate90=0.7)
    image = np.full((*shape, 3), 200, np.uint8)
    expected, _ = chain(np.random.default_rng(seed), image, image[..., 0], still)
    crop = crop_of(still, seed, np.ones((6, 6), bool), *shape)
    np.testing.assert_array_equal(augment.cut(png(image), crop, *shape), expected)


@SETTINGS
@given(st.integers(0, 2**32), SHAPES)
def test_mask_equals_the_chain(seed, shape):
    """But where a coordinate is a tie, which cv2 rounds in steps of 1/1024 pixel."""
    a = dataclasses.replace(PUBLISHED, rotate90=0.7)
    proposal = random_proposal(np.random.default_rng(seed), 7, 9)
    image, whole = np.zeros((*shape, 3), np.uint8), enlarge(proposal, *shape)
    _, expected = chain(np.random.default_rng(seed), image, whole, a)
    crop = crop_of(a, seed, proposal, *shape)
    y, x = np.mgrid[:64, :64]
    positions = np.einsum("ij,jyx->iyx", crop.place.matrix[:2], np.stack([x, y, np.ones_like(x)]))
    tie = (np.abs(positions - np.floor(positions) - 0.5) < 2e-3).any(0)
    assert tie.mean() < 0.9
    np.testing.assert_array_equal(crop.mask[~tie], expected[~tie])


@SETTINGS
@given(st.integers(0, 2**32), SHAPES)
def test_seen_patches_are_the_pixels_of_masks(seed, shape):
    rng = np.random.default_rng(seed)
    place = PUBLISHED.draw_place(rng, *shape)
    seen = augment.seen_patches((7, 9), place, *shape, 64)
    for proposal in (np.ones((7, 9), bool), *(random_proposal(rng, 7, 9) for _ in range(3))):
        mask = augment.warp_mask(proposal, place, *shape, 64)
        assert seen[proposal.ravel()].sum() == mask.sum()


@SETTINGS
@given(st.integers(1, 60), st.integers(1, 700), st.integers(1, 800))
def test_patches_follow_cv2_nearest(patches, pixels, resized):
    expected = np.arange(patches, dtype=np.uint8)[None]
    for side in (pixels, resized):
        expected = cv2.resize(expected, (side, 1), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(augment._patches(patches, pixels, resized)[1:-1], expected[0])


def test_huge_shift_leaves_an_empty_mask():
    matrix = np.array([[1, 0, 1e6], [0, 1, -1e6], [0, 0, 1.0]])
    place = augment.Place(matrix, (32, 32), 1.0, (slice(0, 16), slice(0, 16)), True)
    assert not augment.warp_mask(np.ones((4, 4), bool), place, 32, 32, 16).any()


def linear_parts(a, count=3000):
    """The 2 x 2 part of `count` draws on an image of 90 x 120, and their offsets."""
    rng = np.random.default_rng(1)
    places = [a.draw_place(rng, 90, 120) for _ in range(count)]
    matrices = np.array([augment.image_matrix(place, 90, 120) for place in places])
    return np.round(matrices[:, :2, :2], 6), matrices[:, :2, 2]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"flip": 1.0}, {(1, -1): 1 / 3, (-1, 1): 1 / 3, (-1, -1): 1 / 3}),
        ({"flip": 0.5}, {(1, 1): 1 / 2, (1, -1): 1 / 6, (-1, 1): 1 / 6, (-1, -1): 1 / 6}),
        ({"flip": 0.5, "flip_vertical": False}, {(1, 1): 1 / 2, (-1, 1): 1 / 2}),
    ],
)
def test_flip_probabilities(change, expected):
    parts, _ = linear_parts(dataclasses.replace(STILL, **change))
    counts = {k: int((parts == np.diag(k)).all((1, 2)).sum()) for k in expected}
    assert sum(counts.values()) == len(parts)
    observed, wanted = list(counts.values()), [p * len(parts) for p in expected.values()]
    assert stats.chisquare(observed, wanted).pvalue > 1e-4


def test_turn_probabilities():
    parts, _ = linear_parts(dataclasses.replace(STILL, rotate90=0.8))
    turns = [np.round(np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), k)) for k in range(4)]
    counts = [int((parts == turn).all((1, 2)).sum()) for turn in turns]
    assert stats.chisquare(counts, np.array([0.4, 0.2, 0.2, 0.2]) * len(parts)).pvalue > 1e-4


def test_scale_angle_and_shift_distributions():
    rng = np.random.default_rng(2)
    scales = [PUBLISHED.draw_place(rng, 90, 120).scale for _ in range(2000)]
    assert stats.kstest(scales, stats.uniform(0.75, 0.5).cdf).pvalue > 1e-4
    parts, offsets = linear_parts(dataclasses.replace(STILL, crop=120, shift_scale_rotate=0.75))
    moved = offsets[:, 0] != 0
    assert abs(moved.mean() - 0.75) < 0.04
    angles = np.degrees(np.arctan2(parts[moved, 0, 1], parts[moved, 0, 0]))
    assert stats.kstest(angles, stats.uniform(-3, 6).cdf).pvalue > 1e-4
    # the centre of the image moves by the shift alone
    centre = offsets[moved] + parts[moved] @ np.array([60, 45 + 15]) - np.array([60, 45])
    forward = -np.einsum("nji,nj->ni", parts[moved], centre)  # a rotation's inverse
    for axis, side in enumerate((120, 90)):
        shifts = stats.uniform(-0.03 * side, 0.06 * side)
        assert stats.kstest(forward[:, axis], shifts.cdf).pvalue > 1e-4


def test_crop_positions():
    _, offsets = linear_parts(STILL)
    for axis, room in enumerate((120 - 64, 90 - 64)):
        counts = np.bincount(offsets[:, axis].astype(int), minlength=room)
        assert len(counts) == room  # the last position is never drawn, as in the published code
        assert stats.chisquare(counts).pvalue > 1e-4


def table_oracle(rng, a, image):
    """Brightness and contrast, then the shift, each as a pass over the image."""
    if rng.random() < a.brightness_contrast:
        alpha, beta = 1 + rng.uniform(-0.15, 0.4), rng.uniform(-0.25, 0.25)
        lut = np.arange(256).astype(np.float32)
        lut *= alpha
        lut += beta * 255
        image = cv2.LUT(image, np.clip(lut, 0, 255).astype(np.uint8))
    if rng.random() < a.rgb_shift:
        channels = []
        for channel, shift in zip(cv2.split(image), rng.uniform(-10, 10, 3), strict=True):
            lut = np.arange(256).astype(np.float32)
            lut += shift
            channels.append(cv2.LUT(channel, np.clip(lut, 0, 255).astype(np.uint8)))
        image = cv2.merge(channels)
    return image


def test_colours_equal_two_passes():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    unchanged = 0
    for seed in range(200):
        expected = table_oracle(np.random.default_rng(seed), PUBLISHED, image)
        crop = crop_of(STILL, seed, np.ones((2, 2), bool), 64, 64)
        crop = crop._replace(table=PUBLISHED.draw_table(np.random.default_rng(seed)))
        np.testing.assert_array_equal(augment.cut(png(image), crop, 64, 64), expected)
        unchanged += (expected == image).all()
    assert 2 <= unchanged <= 30  # 1/16 of the draws


def test_black_around_an_image_changes_colour_too():
    a = dataclasses.replace(STILL, brightness_contrast=1.0, rgb_shift=1.0)
    changed = 0
    for seed in range(10):
        crop = a.draw(np.random.default_rng(seed), np.ones((2, 3), bool), 20, 30)
        image = augment.cut(png(smooth_image(20, 30)), crop, 20, 30)
        outside = image[crop.mask == 0]
        np.testing.assert_array_equal(outside, np.broadcast_to(crop.table[:, 0], outside.shape))
        changed += outside.any()
    assert changed > 2


@pytest.mark.parametrize("keep", [0.0, 0.25, 1.0])
def test_crops_without_the_proposal_are_drawn_again(keep):
    a = dataclasses.replace(STILL, keep_background=keep)
    proposal = np.zeros((10, 10), bool)
    proposal[0, 0] = True
    rng = np.random.default_rng(3)
    places = (a.draw_place(rng, 160, 160) for _ in range(4000))
    hit = np.mean([augment.warp_mask(proposal, p, 160, 160, 64).any() for p in places])
    empty = np.mean([not a.draw(rng, proposal, 160, 160).mask.any() for _ in range(1500)])
    assert abs(empty - (1 - hit) * keep / (hit + (1 - hit) * keep)) < 0.06
    assert keep or not empty


def test_a_proposal_that_never_shows_ends(monkeypatch):
    monkeypatch.setattr(augment, "MAX_ROUNDS", 5)
    a = dataclasses.replace(STILL, keep_background=0.0)
    assert not a.draw(np.random.default_rng(0), np.zeros((4, 4), bool), 80, 80).mask.any()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("scale", [0.9, 0.5, 0.3, 0.2, 0.12])
def test_small_scales_keep_the_geometry(suffix, scale):
    """A blob near the far corner of an odd-sized image lands where the matrix says."""
    height, width = 403, 449
    y, x = np.mgrid[:height, :width]
    blob = np.exp(-((x - 409.0) ** 2 + (y - 362.0) ** 2) / (2 * 12.0**2))
    encoded = cv2.imencode(suffix, np.repeat(np.uint8(255 * blob)[..., None], 3, 2))[1].tobytes()
    a = dataclasses.replace(STILL, crop=480, scale=(scale, scale), rotate90=1.0)
    crop = crop_of(a, 4, np.ones((4, 4), bool), height, width)
    image = augment.cut(encoded, crop, height, width)[..., 1].astype(float)
    rows, cols = np.mgrid[:480, :480]
    got = np.array([(image * cols).sum(), (image * rows).sum()]) / image.sum()
    expected = np.linalg.solve(augment.image_matrix(crop.place, height, width), [409, 362, 1])[:2]
    assert np.abs(got - expected).max() / scale < 0.35  # pixels of the image


def test_orientation_tags_are_ignored():
    image = smooth_image(70, 90)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", exif=exif, quality=95)
    crop = crop_of(STILL, 0, np.ones((2, 2), bool), 70, 90)
    got = augment.cut(file.getvalue(), crop, 70, 90)
    expected, _ = chain(np.random.default_rng(0), image, np.ones((70, 90), np.uint8), STILL)
    assert np.abs(got.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("encoded", [b"", b"no image at all" * 9, png(smooth_image(80, 81))])
def test_bad_images_are_told(encoded):
    crop = crop_of(STILL, 0, np.ones((2, 2), bool), 80, 80)
    with pytest.raises(InputError, match="its image"):
        augment.cut(encoded, crop, 80, 80)
