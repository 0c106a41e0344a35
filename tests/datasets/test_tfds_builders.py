"""Built sets hold what the folders hold, and TensorFlow is never imported."""

import concurrent.futures
import contextlib
import pickle
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import protocol_pairs
import pytest
from damage import damaged

from mis_jax.datasets.benchmarks import open_benchmark
from mis_jax.datasets.samples import count_left_out
from mis_jax.errors import InputError

tfds = pytest.importorskip("tensorflow_datasets")

from mis_jax.datasets import tfds_builders  # noqa: E402

TOOL = Path(__file__).parents[2] / "tools" / "data" / "build_benchmarks.py"
NAMES = {"grabcut": "GrabCut", "berkeley": "Berkeley", "davis": "DAVIS", "sbd": "SBD"}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A few objects of each set in its layout, one mask of GrabCut without an object."""
    folder = tmp_path_factory.mktemp("sets")
    protocol_pairs.write_sets(folder)
    cv2.imwrite(str(folder / "GrabCut" / "data_GT" / "x.png"), np.zeros((20, 30, 3), np.uint8))
    cv2.imwrite(str(folder / "GrabCut" / "boundary_GT" / "x.png"), np.zeros((20, 30), np.uint8))
    return folder


@pytest.fixture(scope="module")
def built(sets, tmp_path_factory):
    """Set -> its built folder."""
    output = tmp_path_factory.mktemp("built")
    return {name: tfds_builders.build(name, sets / NAMES[name], output) for name in NAMES}


def assert_same(samples, expected):
    assert [s.id for s in samples] == [s.id for s in expected]
    for sample, other in zip(samples, expected, strict=True):
        np.testing.assert_array_equal(sample.image, other.image)
        np.testing.assert_array_equal(sample.mask, other.mask)
        assert (sample.image.dtype, sample.mask.dtype) == (np.uint8, np.int32)


@pytest.mark.parametrize("name", NAMES)
def test_a_built_set_is_the_folder(sets, built, name):
    original, opened = (open_benchmark(name, f) for f in (sets / NAMES[name], built[name]))
    expected = list(original)
    assert_same(list(opened), expected)
    assert opened.ids == [s.id for s in expected]
    assert opened.expected == original.expected
    assert opened.skipped == original.skipped
    copy = pickle.loads(pickle.dumps(opened))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert_same(list(pool.map(copy.read, copy.ids)), expected)


def test_what_was_left_out_is_still_said(built):
    opened = open_benchmark("grabcut", built["grabcut"])
    assert count_left_out(opened.skipped) == "1 left out: 1 mask without an object pixel"
    assert any((s.mask == -1).any() for s in opened)


def test_records_as_tfds_reads_them(sets, built):
    """The stored index keys the records, whatever reads them and in whatever order."""
    source = tfds.builder_from_directory(built["grabcut"]).as_data_source("test")
    samples = list(open_benchmark("grabcut", sets / "GrabCut"))
    assert len(source) == len(samples)
    for record in source:
        sample = samples[record["index"]]
        assert record["id"].decode() == sample.id
        np.testing.assert_array_equal(record["image"], sample.image)
        np.testing.assert_array_equal(record["mask"][..., 0], sample.mask.astype(np.uint8))


def test_builders_are_registered_and_build_once(sets, built):
    output = built["davis"].parent.parent
    for name in ("grabcut", "berkeley", "davis345", "sbd_instances"):
        assert len(tfds.data_source(name, split="test", data_dir=str(output))) >= 5
    before = {p: p.stat().st_mtime_ns for p in built["davis"].iterdir()}
    assert tfds_builders.build("davis", sets / "DAVIS", output) == built["davis"]
    assert {p: p.stat().st_mtime_ns for p in built["davis"].iterdir()} == before


def test_what_cannot_be_built_is_said(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        tfds_builders.build("davis", tmp_path / "nowhere", tmp_path)
    for part in ("img", "gt"):
        (tmp_path / "set" / part).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "set" / part / "0.png"), np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(InputError, match="no object can be used"):
        tfds_builders.build("davis", tmp_path / "set", tmp_path / "out")
    with pytest.raises(InputError, match="no object can be used"):  # nothing half built is left
        tfds_builders.build("davis", tmp_path / "set", tmp_path / "out")


def test_folders_that_are_damaged_or_of_another_dataset(built, tmp_path):
    folder = Path(shutil.copytree(built["davis"], tmp_path / "davis"))
    (shard,) = folder.glob("*array_record*")
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"davis"):
        list_all(folder)
    shard.unlink()
    with pytest.raises(InputError, match=r"davis"):
        list_all(folder)
    shard.write_bytes(whole)
    (folder / "metadata.json").write_text("{}")
    with pytest.raises(InputError, match=r"no set that tools/data/build_benchmarks\.py made"):
        open_benchmark("davis", folder)
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match=r"no set that tools/data/build_benchmarks\.py made"):
        open_benchmark("davis", folder)


def test_damaged_files_of_a_set(built, tmp_path):
    """Each of its files 40 times: what is read is as it was, and what is not is named."""
    folder = Path(shutil.copytree(built["davis"], tmp_path / "davis"))
    whole = {sample.id: sample for sample in open_benchmark("davis", folder)}
    files, rng, read = {p: p.read_bytes() for p in folder.iterdir()}, np.random.default_rng(0), 0
    for path, data in files.items():
        for _ in range(40):
            path.write_bytes(damaged(data, rng, len(data)))
            with contextlib.suppress(InputError):
                opened = open_benchmark("davis", folder)
                found = list(opened)
                assert_same(found, [whole[sample.id] for sample in found])
                assert len(found) + len(opened.skipped) == len(whole)
                read += len(found)
        path.write_bytes(data)
    assert read > 0


def list_all(folder):
    opened = open_benchmark("davis", folder)
    if not list(opened):
        raise opened.nothing_usable()


def test_the_tool_without_tensorflow(sets, tmp_path):
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['tool', {str(tmp_path)!r}, 'sbd={sets / 'SBD'}']\n"
        f"runpy.run_path({str(TOOL)!r}, run_name='__main__')\n"
        "from mis_jax.datasets import open_benchmark\n"
        f"print(len(list(open_benchmark('sbd', {str(tmp_path / 'sbd_instances' / '1.0.0')!r}))))\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    count = len(open_benchmark("sbd", sets / "SBD"))
    folder = tmp_path / "sbd_instances" / "1.0.0"
    assert f"sbd: {count} of 6,671 objects; --datasets sbd={folder}" in lines
    assert lines[-1] == str(count)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mine=x"], 'there is no set "mine"'),
        (["sbd"], "mis-jax download sbd fetches it"),
        (["sbd=nowhere"], "does not exist"),
    ],
)
def test_the_tool_says_what_is_wrong(tmp_path, words, message, monkeypatch):
    monkeypatch.setenv("MIS_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["tool", str(tmp_path / "out"), *words])
    with pytest.raises(SystemExit, match=message):
        runpy.run_path(str(TOOL), run_name="__main__")


def test_without_tfds_the_extra_is_named(built, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match=r"pip install 'mis-jax\[tfds\]'"):
        open_benchmark("davis", built["davis"])
