"""Every layout of the evaluation sets, and what is wrong with files, written to a folder."""

import concurrent.futures
import pickle
import threading

import cv2
import numpy as np
import pytest
import scipy.io

from mis_jax.datasets import images
from mis_jax.datasets.benchmarks import open_benchmark
from mis_jax.datasets.recent import Recent
from mis_jax.datasets.samples import count_left_out, reasons
from mis_jax.errors import InputError

SHAPE = (20, 24)


def picture(path, shape=SHAPE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), image[:, :, ::-1])
    return image


def mask(path, values, shape=SHAPE, dtype=np.uint8):
    """A mask with `values` from its second row on, one value a row; the rest is 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(shape, dtype)
    pixels[1 : 1 + len(values)] = np.array(values, dtype)[:, None]
    assert cv2.imwrite(str(path), pixels)
    return pixels


def rows(sample):
    """The mask's value in each row, which must be the same in all columns."""
    assert sample.mask.dtype == np.int32
    assert (sample.mask == sample.mask[:, :1]).all()
    return sample.mask[:, 0].tolist()


@pytest.mark.parametrize(
    ("name", "folders"),
    [("grabcut", ("data_GT", "boundary_GT")), ("Berkeley", ("images", "masks"))],
)
def test_grabcut_and_berkeley(tmp_path, name, folders):
    for stem, suffix, seed in (("b", ".png", 1), ("a10", ".bmp", 2), ("a9", ".png", 3)):
        image = picture(tmp_path / folders[0] / f"{stem}{suffix}", seed=seed)
        mask(tmp_path / folders[1] / f"{stem}.png", [255, 128, 129, 127, 64, 1])
    benchmark = open_benchmark(name, tmp_path)
    samples = list(benchmark)
    assert [s.id for s in samples] == ["a10", "a9", "b"]
    assert rows(samples[0])[:8] == [0, 1, -1, 1, 0, 0, 1, 0]
    np.testing.assert_array_equal(samples[1].image, image)
    assert benchmark.expected == {"grabcut": 50, "Berkeley": 100}[name]
    assert (len(benchmark), benchmark.skipped) == (3, {})


def test_davis_takes_any_colour(tmp_path):
    picture(tmp_path / "img" / "000.png")
    coloured = np.zeros((*SHAPE, 3), np.uint8)
    coloured[2, :, 2] = 128
    coloured[3, :, 0] = 1
    (tmp_path / "gt").mkdir()
    cv2.imwrite(str(tmp_path / "gt" / "000.png"), coloured)
    benchmark = open_benchmark("davis", tmp_path)
    (sample,) = benchmark
    assert rows(sample)[:5] == [0, 0, 1, 1, 0]
    assert benchmark.expected == 345


def sbd(folder):
    labels = {"2008_2": [0, 5, 2], "2008_1": [1, 0, 0], "2008_3": [0, 0, 0]}
    for k, (name, values) in enumerate(labels.items()):
        picture(folder / "img" / f"{name}.jpg", seed=k)
        (folder / "inst").mkdir(exist_ok=True)
        segmentation = np.zeros(SHAPE, np.uint8)
        segmentation[: len(values)] = np.array(values)[:, None]
        inst = np.empty((1, 1), [(f, object) for f in ("Segmentation", "Boundaries", "Categories")])
        inst[0, 0] = (segmentation, np.zeros(2), np.zeros(2))
        scipy.io.savemat(folder / "inst" / f"{name}.mat", {"GTinst": inst})
    (folder / "val.txt").write_text("\n".join(labels) + "\n")


def test_sbd_has_every_instance_in_the_order_of_the_list(tmp_path):
    sbd(tmp_path)
    benchmark = open_benchmark("sbd", tmp_path)
    samples = list(benchmark)
    assert [s.id for s in samples] == ["2008_2_2", "2008_2_5", "2008_1_1"]
    assert [rows(s)[:3] for s in samples] == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    assert benchmark.expected == 6671


def test_a_mask_goes_by_the_name_up_to_the_first_dot(tmp_path):
    """As published: `name.split('.')[0]` of the image, the stem of the mask."""
    picture(tmp_path / "images" / "a.b.png")
    picture(tmp_path / "images" / "c.JPG")
    picture(tmp_path / "images" / "d.jpg")
    mask(tmp_path / "masks" / "a.bmp", [255])
    mask(tmp_path / "masks" / "a.b.png", [0, 255])
    mask(tmp_path / "masks" / "c.png", [255])
    mask(tmp_path / "masks" / "d_mask.png", [255])
    benchmark = open_benchmark("berkeley", tmp_path)
    assert [(s.id, rows(s)[1:3]) for s in benchmark] == [("a", [1, 0]), ("c", [1, 0])]
    assert benchmark.skipped == {
        "d.jpg": "no mask of this name",
        "mask a.b.png": "no image of this name",
        "mask d_mask.png": "no image of this name",
    }


def test_sbd_names_what_is_missing(tmp_path):
    sbd(tmp_path)
    (tmp_path / "inst" / "2008_1.mat").write_bytes(b"no such thing")
    (tmp_path / "img" / "2008_2.jpg").unlink()
    benchmark = open_benchmark("sbd", tmp_path)
    assert list(benchmark) == []
    assert set(benchmark.skipped) == {"2008_1", "2008_2_2", "2008_2_5"}
    assert "2008_1.mat" in benchmark.skipped["2008_1"]
    assert reasons(benchmark.skipped) == {
        "unreadable images": 2,
        "unreadable SBD file": 1,
    }
    (tmp_path / "val.txt").write_text("2008_2\n2008_2\n")
    benchmark = open_benchmark("sbd", tmp_path)
    assert benchmark.ids == ["2008_2_2", "2008_2_5"]
    assert list(benchmark.skipped) == ["2008_2 again"]
    (tmp_path / "val.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match=r"val\.txt cannot be read"):
        open_benchmark("sbd", tmp_path)
    (tmp_path / "val.txt").unlink()
    with pytest.raises(InputError, match=r"val\.txt"):
        open_benchmark("sbd", tmp_path)


def test_own_folder_of_images_and_masks(tmp_path):
    for stem, suffix in (("one", ".jpg"), ("two.x", ".PNG"), ("three", ".webp")):
        picture(tmp_path / "images" / f"{stem}{suffix}")
    mask(tmp_path / "masks" / "one.png", [255, 128, 0, 255])
    mask(tmp_path / "masks" / "two.x.bmp", [0, 7])
    mask(tmp_path / "masks" / "three_mask.tif", [0, 0, 256], dtype=np.uint16)
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    benchmark = open_benchmark("mine", tmp_path)
    samples = {s.id: rows(s)[:6] for s in benchmark}
    assert samples["one"] == [0, 1, -1, 0, 1, 0]
    assert samples["two.x"] == [0, 0, 1, 0, 0, 0]
    assert samples["three"] == [0, 0, 0, 1, 0, 0]
    assert (benchmark.expected, benchmark.skipped) == (None, {})


def test_own_folder_side_by_side(tmp_path):
    for name in ("a.jpg", "b.jpeg", "c.png"):
        picture(tmp_path / name)
    mask(tmp_path / "a.png", [255])
    mask(tmp_path / "b_mask.png", [255])
    mask(tmp_path / "c_mask.png", [255])
    benchmark = open_benchmark("mine", tmp_path)
    assert [s.id for s in benchmark] == ["a", "b", "c"]
    assert all(sum(rows(s)) == 1 for s in benchmark)
    assert benchmark.skipped == {}


def test_transparent_masks_count_by_their_colour(tmp_path):
    picture(tmp_path / "a.jpg")
    pixels = np.full((*SHAPE, 4), 255, np.uint8)
    pixels[4:, :, :3] = 0
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    (sample,) = open_benchmark("mine", tmp_path)
    assert rows(sample) == [1] * 4 + [0] * 16


def test_unusable_files_are_named_and_the_rest_is_read(tmp_path):
    for stem in ("good", "bare", "small", "empty", "grey", "broken"):
        picture(tmp_path / "images" / f"{stem}.png")
        mask(tmp_path / "masks" / f"{stem}.png", [255])
    picture(tmp_path / "images" / "good.jpg")
    picture(tmp_path / "images" / "torn.png")
    mask(tmp_path / "masks" / "torn.png", [255])
    (tmp_path / "masks" / "bare.png").unlink()
    mask(tmp_path / "masks" / "small.png", [255], shape=(10, 24))
    mask(tmp_path / "masks" / "empty.png", [])
    mask(tmp_path / "masks" / "grey.png", [128])
    (tmp_path / "masks" / "broken.png").write_bytes(b"")
    for suffix in (".png", ".bmp", ".tif"):
        picture(tmp_path / "images" / f"half{suffix[1:]}.png")
        path = tmp_path / "masks" / f"half{suffix[1:]}{suffix}"
        mask(path, [255] * 19)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    mask(tmp_path / "masks" / "good.tif", [0, 0, 255])
    torn = (tmp_path / "images" / "torn.png").read_bytes()
    (tmp_path / "images" / "torn.png").write_bytes(torn[: len(torn) // 2])
    mask(tmp_path / "masks" / "alone.png", [255])
    benchmark = open_benchmark("mine", tmp_path)
    assert [s.id for s in benchmark] == ["good"]
    assert [s.id for s in benchmark] == ["good"]  # reading twice changes nothing
    expected = {
        "good.png": "second image",
        "bare.png": "no mask",
        "small": "24 x 20 pixels, its mask 24 x 10",
        "empty": "no object",
        "grey": "128 is not counted",
        "broken": "broken.png cannot be read",
        "torn": "torn.png",
        "mask alone.png": "no image",
        "mask good.tif": "second mask called good",
        "halfpng": "halfpng.png cannot be read",
        "halfbmp": "halfbmp.bmp cannot be read",
        "halftif": "halftif.tif cannot be read",
    }
    assert set(benchmark.skipped) == set(expected)
    for name, words in expected.items():
        assert words in benchmark.skipped[name], name
    assert rows(benchmark.read("good"))[1:4] == [1, 0, 0]
    assert reasons(benchmark.skipped) == {
        "unreadable masks": 4,
        "masks without an object pixel": 2,
        "second image of a name": 1,
        "image without a mask": 1,
        "mask without an image": 1,
        "second mask of a name": 1,
        "mask of another size than the image": 1,
        "unreadable image": 1,
    }
    few = {k: benchmark.skipped[k] for k in ("empty", "grey", "torn")}
    words = "3 left out: 2 masks without an object pixel, 1 unreadable image"
    assert (count_left_out(few), count_left_out({})) == (words, "")


def test_masks_of_one_name(tmp_path):
    """NAME_mask counts before NAME; an image called NAME_mask has its own."""
    for name in ("a.jpg", "b.jpg", "b_mask.jpg"):
        picture(tmp_path / name)
    mask(tmp_path / "a.png", [255])
    mask(tmp_path / "a_mask.png", [0, 255])
    mask(tmp_path / "b.png", [255])
    mask(tmp_path / "b_mask.png", [0, 255])
    benchmark = open_benchmark("mine", tmp_path)
    found = {s.id: rows(s)[1:3] for s in benchmark}
    assert found == {"a": [0, 1], "b": [1, 0], "b_mask": [0, 1]}
    assert benchmark.skipped == {"mask a.png": "a second mask called a"}


def test_objects_are_read_by_id_in_threads_and_other_processes(tmp_path):
    sbd(tmp_path)
    benchmark = open_benchmark("sbd", tmp_path)
    assert benchmark.ids == ["2008_2_2", "2008_2_5", "2008_1_1"]
    expected = {s.id: s for s in benchmark}
    copy = pickle.loads(pickle.dumps(benchmark))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for source in (benchmark, copy):
            for sample in pool.map(source.read, source.ids[::-1] * 20):
                np.testing.assert_array_equal(sample.image, expected[sample.id].image)
                np.testing.assert_array_equal(sample.mask, expected[sample.id].mask)
    with pytest.raises(InputError, match="no object"):
        benchmark.read("2008_3_1")
    (tmp_path / "img" / "2008_2.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        benchmark.read("2008_2_5")
    assert set(benchmark.skipped) == {"2008_2_5"}
    picture(tmp_path / "img" / "2008_2.jpg", seed=9)
    image = images.read_image(tmp_path / "img" / "2008_2.jpg")
    assert not np.array_equal(image, expected["2008_2_5"].image)
    np.testing.assert_array_equal(benchmark.read("2008_2_5").image, image)


def test_threads_that_want_one_file_read_it_once(tmp_path):
    calls, barrier = [], threading.Barrier(4)

    def read(path):
        calls.append(path.name)
        if path.name == "bad" and len(calls) == 1:
            raise InputError("not now")
        return np.array(len(calls))

    recent = Recent(read, size=2)

    def ask(name):
        barrier.wait()
        return int(recent(tmp_path / name))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        with pytest.raises(InputError, match="not now"):
            list(pool.map(ask, ["bad"] * 4))
        assert set(pool.map(ask, ["a"] * 4)) == {len(calls)}
    calls.clear()
    for name in ("b", "c", "b", "c", "d", "c", "b"):
        recent(tmp_path / name)
    assert calls == ["b", "c", "d", "b"]
    (tmp_path / "b").write_text("another file")
    recent(tmp_path / "b")
    assert calls == ["b", "c", "d", "b", "b"]


@pytest.mark.parametrize("name", ["grabcut", "berkeley", "davis", "sbd", "mine"])
def test_folders_that_are_no_benchmark(tmp_path, name):
    with pytest.raises(InputError, match="does not exist"):
        open_benchmark(name, tmp_path / "nowhere")
    with pytest.raises(InputError, match=str(tmp_path)):
        open_benchmark(name, tmp_path)


def test_a_folder_of_another_name_is_said(tmp_path):
    picture(tmp_path / "data_GT" / "a.jpg")
    mask(tmp_path / "boundary" / "a.png", [255])
    message = "no folder boundary_GT, which grabcut keeps its files in; it has boundary, data_GT"
    with pytest.raises(InputError, match=message):
        open_benchmark("grabcut", tmp_path)


def test_half_a_layout_is_said(tmp_path):
    picture(tmp_path / "images" / "a.png")
    with pytest.raises(InputError, match="has images but no masks folder"):
        open_benchmark("mine", tmp_path)
    (tmp_path / "masks").mkdir()
    with pytest.raises(InputError, match=r"no image with a mask; a\.png: no mask"):
        open_benchmark("mine", tmp_path)
