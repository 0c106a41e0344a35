"""Folders of images to records: what is read, skipped, resumed and reported."""

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

from mis_jax import options
from mis_jax.datasets import images
from mis_jax.errors import InputError
from mis_jax.features import descriptor, extractors
from mis_jax.proposals.tree import build_tree
from mis_jax.records import propose, report, schema

BAD = {"bad/cut.jpg": "truncated", "bad/dot.png": "too small", "bad/empty.png": "empty"}
BAD |= {"bad/text.jpg": "not an image"}


def picture(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def make_images(folder: Path, count: int) -> Path:
    """`count` images of two kinds and several sizes in two folders."""
    for i in range(count):
        path = folder / ("a" if i % 3 else "b") / f"{i:03d}{'.jpg' if i % 2 else '.png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture(i, 40 + i % 5 * 4))
    return folder


def add_bad_files(folder: Path) -> None:
    (folder / "bad").mkdir()
    jpeg = cv2.imencode(".jpg", picture(0))[1].tobytes()
    (folder / "bad/cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    cv2.imwrite(str(folder / "bad/dot.png"), picture(0, 1, 1))
    (folder / "bad/empty.png").write_bytes(b"")
    (folder / "bad/text.jpg").write_text("hello")
    (folder / "bad/labels.xml").write_text("<a/>")


def run(source, folder, extractor=None, **changes) -> report.Summary:
    options = {"max_side": 64, "shard_size": 4, "batch_size": 2, "threads": 3} | changes
    return propose.propose(
        source, folder, extractor=extractor or extractors.EmbeddedExtractor(8), **options
    )


def contents(folder) -> dict[str, list[bytes]]:
    """The encoded records of each shard."""
    return {
        Path(path).name: schema.open_shard(path).read_all() for path in schema.shard_files(folder)
    }


def without_time(summary: report.Summary) -> tuple:
    report = summary.report
    lists = report.skipped, report.patches, report.large, report.depths, report.areas
    return summary.shards, summary.finished, summary.images, summary.ignored, lists


def test_records_hold_what_the_images_show(tmp_path):
    source = make_images(tmp_path / "photos", 10)
    cv2.imwrite(str(source / "large.png"), picture(99, 80, 128))
    summary = run(source, tmp_path / "records")
    found = list(schema.read_records(tmp_path / "records"))
    paths = images.find_images(source)
    assert [r.id for r in found] == images.image_ids(source, paths)
    assert [p.name for p in paths][-1] == "large.png"
    for record, path in zip(found, paths, strict=True):
        image = images.decode(record.image)
        assert image.shape == (record.height, record.width, 3)
        tree = build_tree(descriptor.embedded(image, 8))
        np.testing.assert_array_equal(record.tree.merges, tree.merges)
        assert record.tree.grid == (-(-record.height // 8), -(-record.width // 8))
        assert (record.image == path.read_bytes()) == (path.name != "large.png")
    assert (found[-1].height, found[-1].width) == (40, 64)
    assert (summary.images, summary.shards, summary.finished) == (11, 3, 3)


def test_files_that_cannot_be_used_are_named_and_skipped(tmp_path):
    source = make_images(tmp_path / "photos", 7)
    add_bad_files(source)
    summary = run(source, tmp_path / "records")
    assert summary.images == 7 == len(list(schema.read_records(tmp_path / "records")))
    assert [name for name, _ in summary.report.skipped] == sorted(BAD)
    lines = (tmp_path / "records/skipped.txt").read_text().splitlines()
    text = str(summary)
    for (name, reason), line in zip(sorted(BAD.items()), lines, strict=True):
        assert line.split("\t")[0] == name
        assert reason in line
        assert line.replace("\t", ": ") in text
    assert summary.ignored == {".xml": 1}
    assert ".xml 1" in text
    report = json.loads((tmp_path / "records/report.json").read_text())
    assert report["images"] == 7
    assert report["settings"]["extractor"] == "embedded v2 stride=8"
    assert run(source, tmp_path / "records") == summary  # nothing was left to do


def test_long_lists_of_skipped_files_are_cut(tmp_path):
    source = make_images(tmp_path / "photos", 1)
    for i in range(25):
        (source / f"x{i:02d}.png").write_bytes(b"")
    text = str(run(source, tmp_path / "records", shard_size=9))
    assert "x19.png" in text
    assert "x20.png" not in text
    assert "and 5 more" in text
    assert len((tmp_path / "records/skipped.txt").read_text().splitlines()) == 25


def test_a_shard_of_nothing_but_bad_files(tmp_path):
    source = make_images(tmp_path / "photos", 6)
    add_bad_files(source)
    summary = run(source, tmp_path / "records", shard_size=1)
    assert (summary.images, summary.finished) == (6, 10)
    assert len(list(schema.read_records(tmp_path / "records"))) == 6


def test_nothing_left_ends_the_run_and_can_be_repeated(tmp_path):
    source = tmp_path / "photos"
    source.mkdir()
    add_bad_files(source)
    for _ in range(2):
        with pytest.raises(InputError, match=r"none of 4 images.*bad/cut\.jpg: truncated"):
            run(source, tmp_path / "records", shard_size=3)
        assert not list((tmp_path / "records").iterdir())


def command(*arguments) -> list[str]:
    fixed = ["--config.features.model=embedded", "--config.features.stride=8"]
    fixed += [f"--config.propose.{x}" for x in ("shard_size=4", "max_side=64", "threads=2")]
    return [sys.executable, "-m", "mis_jax", "propose", *map(str, arguments), *fixed]


@pytest.mark.slow
def test_a_run_killed_midway_goes_on_to_the_same_bytes(tmp_path):
    source, folder = make_images(tmp_path / "photos", 200), tmp_path / "records"
    add_bad_files(source)
    killed = subprocess.Popen(
        command(source, "--records", folder, "--shard=0/1"), stderr=subprocess.DEVNULL
    )
    while killed.poll() is None and len(list(folder.glob("*.array_record"))) < 3:
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    done = {p: p.stat().st_mtime_ns for p in folder.glob("*.array_record")}
    assert 3 <= len(done) < 51
    with pytest.raises(InputError, match=f"finish with: mis-jax propose {source} --records"):
        schema.shard_files(folder)

    again = subprocess.run(
        command(source, "--records", folder), capture_output=True, text=True, check=True
    )
    assert {p: p.stat().st_mtime_ns for p in done} == done  # not made twice
    assert not list(folder.glob("*.partial"))
    whole = run(source, tmp_path / "whole")
    assert contents(folder) == contents(tmp_path / "whole")
    assert without_time(run(source, folder)) == without_time(whole)
    expected = str(whole).splitlines()
    printed = again.stdout.splitlines()
    assert [a for a in printed if "images/s" not in a and "shards" not in a] == [
        b for b in expected if "images/s" not in b and "shards" not in b
    ]
    assert "204/204" in again.stderr
    assert "images/s" in again.stderr


def test_processes_make_together_what_one_makes(tmp_path):
    source = make_images(tmp_path / "photos", 22)
    one = run(source, tmp_path / "one")
    for i in (2, 0, 1):
        last = run(source, tmp_path / "three", shard=(i, 3), threads=1)
        assert (last.finished, last.shards) == ({2: 2, 0: 4, 1: 6}[i], 6)
    assert contents(tmp_path / "three") == contents(tmp_path / "one")
    assert without_time(last) == without_time(one)
    idle = run(source, tmp_path / "three", shard=(7, 8))
    assert without_time(idle) == without_time(one)


class InBatches(extractors.EmbeddedExtractor):
    """The descriptor, called as one that runs on devices."""

    device = True

    def __init__(self):
        super().__init__(8)
        self.calls = []

    def __call__(self, pictures):
        self.calls.append(len(pictures))
        return super().__call__(pictures)


def test_extractors_on_devices_get_batches_within_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(propose, "_BATCHES", 1)
    monkeypatch.setattr(jax, "local_device_count", lambda: 3)
    source = make_images(tmp_path / "photos", 17)
    add_bad_files(source)  # 2 of the images, 4 files, 11 images: a < bad < b is not the order
    extractor = InBatches()
    batched = run(source, tmp_path / "device", extractor, shard_size=10, batch_size=1)
    alone = run(source, tmp_path / "host", shard_size=10)
    assert contents(tmp_path / "device") == contents(tmp_path / "host")
    assert without_time(batched) == without_time(alone)
    assert extractor.calls == [3, 3, 3, 1, 3, 3, 1]
    shards = [len(r) for r in contents(tmp_path / "device").values()]
    assert shards == [10, 7, 0][: len(shards)]


def test_other_images_or_settings_are_refused(tmp_path):
    source = make_images(tmp_path / "photos", 5)
    run(source, tmp_path / "records")
    before = contents(tmp_path / "records")
    with pytest.raises(InputError, match="max_side was 64 and is 32"):
        run(source, tmp_path / "records", max_side=32)
    with pytest.raises(InputError, match=r"extractor was embedded v2 stride=8 and is .* stride=4"):
        run(source, tmp_path / "records", extractors.EmbeddedExtractor(4))
    (source / "a/001.jpg").rename(source / "a/renamed.jpg")
    with pytest.raises(InputError, match="other names or sizes"):
        run(source, tmp_path / "records")
    cv2.imwrite(str(source / "new.png"), picture(0))
    with pytest.raises(InputError, match="images was 5 and is 6"):
        run(source, tmp_path / "records")
    assert contents(tmp_path / "records") == before


@pytest.mark.parametrize("damage", ["cut", "deleted", "report deleted", "report cut", "other"])
def test_damaged_shards_are_made_again(damage, tmp_path):
    source = make_images(tmp_path / "photos", 10)
    whole = run(source, tmp_path / "records")
    before = contents(tmp_path / "records")
    shard = tmp_path / "records" / schema.shard_name(1, 3)
    report = shard.with_suffix(".json")
    if damage == "cut":
        os.truncate(shard, 70_000)
    elif damage == "report cut":
        os.truncate(report, 20)
    elif damage == "other":  # as many records as the last shard
        shard.write_bytes((tmp_path / "records" / schema.shard_name(2, 3)).read_bytes())
    else:
        (shard if damage == "deleted" else report).unlink()
    assert without_time(run(source, tmp_path / "records")) == without_time(whole)
    assert contents(tmp_path / "records") == before


@pytest.mark.parametrize("on_device", [False, True])
def test_a_full_disk_keeps_finished_shards(on_device, tmp_path, monkeypatch):
    source = make_images(tmp_path / "photos", 12)
    extractor = InBatches() if on_device else None
    room = iter(range(6))
    write = schema.ShardWriter.write

    def full(writer, data):
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device", "the shard")
        write(writer, data)

    monkeypatch.setattr(schema.ShardWriter, "write", full)
    with pytest.raises(OSError, match="No space left"):
        run(source, tmp_path / "records", extractor)
    monkeypatch.undo()
    names = sorted(p.name for p in (tmp_path / "records").iterdir())
    first = schema.shard_name(0, 3)
    assert names == ["propose.json", first, Path(first).with_suffix(".json").name]
    run(source, tmp_path / "records", extractor)
    run(source, tmp_path / "whole")
    assert contents(tmp_path / "records") == contents(tmp_path / "whole")


def test_the_report_counts_regions(tmp_path):
    source = make_images(tmp_path / "photos", 3)
    report = run(source, tmp_path / "records").report
    areas, large, depths, patches = [], [], [], []
    for record in schema.read_records(tmp_path / "records"):
        n = record.tree.n
        regions, depth = [{i} for i in range(n)], [0] * n
        for first, second in record.tree.merges:
            regions.append(regions[first] | regions[second])
            depth.append(max(depth[first], depth[second]) + 1)
        fractions = [len(r) / n for r in regions[n:-1]]
        areas += fractions
        large.append(sum(f > 0.05 for f in fractions))
        depths.append(depth[-1])
        patches.append(n)
    assert (report.large, report.depths, report.patches) == (large, depths, patches)
    edges = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 1]
    assert report.areas == [
        sum(low <= a < high for a in areas) for low, high in itertools.pairwise(edges)
    ]


def test_images_of_a_single_patch(tmp_path):
    cv2.imwrite(str(tmp_path / "one.png"), picture(0, 16, 16))
    summary = run(tmp_path / "one.png", tmp_path / "records", extractors.EmbeddedExtractor(16))
    assert (summary.report.patches, summary.report.depths) == ([1], [0])
    assert "1 patches" in str(summary)


@pytest.mark.parametrize(
    "change", [{"shard_size": 0}, {"batch_size": 0}, {"max_side": 8}, {"max_side": -1}]
)
def test_numbers_out_of_range(change, tmp_path):
    with pytest.raises(InputError, match="at least"):
        run(make_images(tmp_path / "photos", 1), tmp_path / "records", **change)


def test_the_shard_flag():
    assert options.parse_shard("0/1") == (0, 1)
    assert options.parse_shard("14/15") == (14, 15)
    assert options.parse_shard(None) == (jax.process_index(), jax.process_count())
    for text in ("", "1", "1/1", "4/4", "-1/4", "a/b", "0/0", "1/2/3"):
        with pytest.raises(InputError, match="i/n"):
            options.parse_shard(text)
