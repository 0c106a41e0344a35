"""Folders of images to records: what is read, skipped, resumed and reported."""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from damage import damaged, odd_json
from hypothesis import given, settings
from hypothesis import strategies as st

from mis_jax import options
from mis_jax.datasets import Reading, images, stamp
from mis_jax.errors import InputError
from mis_jax.features import descriptor, extractors
from mis_jax.proposals.tree import build_tree
from mis_jax.records import pipeline, plan, propose, report, schema, store

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
        Path(path).name: store.open_shard(path).read_all() for path in store.shard_files(folder)
    }


def without_time(summary: report.Summary) -> tuple:
    report = summary.report
    lists = report.skipped, report.patches, report.large, report.depths, report.areas
    return summary.shards, summary.finished, summary.images, summary.ignored, lists


def test_records_hold_what_the_images_show(tmp_path):
    source = make_images(tmp_path / "photos", 10)
    cv2.imwrite(str(source / "large.png"), picture(99, 80, 128))
    summary = run(source, tmp_path / "records")
    found = list(store.read_records(tmp_path / "records"))
    paths = images.find_images(source)
    assert [r.id for r in found] == images.image_ids(source, paths)
    assert [p.name for p in paths][-1] == "large.png"
    for record, path in zip(found, paths, strict=True):
        image = images.decode(record.image)
        assert image.shape == (record.height, record.width, 3)
        tree = build_tree(descriptor.embedded(image, 8), borders=True)
        np.testing.assert_array_equal(record.tree.merges, tree.merges)
        assert record.tree.grid == (-(-record.height // 8), -(-record.width // 8))
        assert (record.image == path.read_bytes()) == (path.name != "large.png")
    assert (found[-1].height, found[-1].width) == (40, 64)
    assert (summary.images, summary.shards, summary.finished) == (11, 3, 3)


def test_files_that_cannot_be_used_are_named_and_skipped(tmp_path):
    source = make_images(tmp_path / "photos", 7)
    add_bad_files(source)
    summary = run(source, tmp_path / "records")
    assert summary.images == 7 == len(list(store.read_records(tmp_path / "records")))
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
    assert report["settings"]["extractor"] == "embedded v3 stride=8"
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
    assert len(list(store.read_records(tmp_path / "records"))) == 6


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
        store.shard_files(folder)

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
    monkeypatch.setattr(pipeline, "_BATCHES", 1)
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
    with pytest.raises(InputError, match=r"extractor was embedded v3 stride=8 and is .* stride=4"):
        run(source, tmp_path / "records", extractors.EmbeddedExtractor(4))
    with pytest.raises(InputError, match="range was None and is"):
        run(source, tmp_path / "records", reading=Reading(range=(0, 4095)))
    other = make_images(tmp_path / "others", 3)
    for i, path in enumerate(images.find_images(other)):  # the same names
        cv2.imwrite(str(path), picture(70 + i))
    with pytest.raises(InputError, match=r"not one of those 5 is as it was in .*others"):
        run(other, tmp_path / "records")
    (tmp_path / "one.txt").write_text(str(other / "a/001.jpg"))
    with pytest.raises(InputError, match="not one of those 5"):
        run(tmp_path / "one.txt", tmp_path / "records")
    assert contents(tmp_path / "records") == before


@pytest.mark.parametrize("damage", ["cut", "deleted", "report deleted", "report cut", "other"])
def test_damaged_shards_are_made_again(damage, tmp_path):
    source = make_images(tmp_path / "photos", 10)
    whole = run(source, tmp_path / "records")
    before = contents(tmp_path / "records")
    shard = tmp_path / "records" / store.shard_name(1, 3)
    report = shard.with_suffix(".json")
    if damage == "cut":
        os.truncate(shard, 70_000)
    elif damage == "report cut":
        os.truncate(report, 20)
    elif damage == "other":  # as many records as the last shard
        shard.write_bytes((tmp_path / "records" / store.shard_name(2, 3)).read_bytes())
    else:
        (shard if damage == "deleted" else report).unlink()
    assert without_time(run(source, tmp_path / "records")) == without_time(whole)
    assert contents(tmp_path / "records") == before


@pytest.mark.parametrize("on_device", [False, True])
def test_a_full_disk_keeps_finished_shards(on_device, tmp_path, monkeypatch):
    source = make_images(tmp_path / "photos", 12)
    extractor = InBatches() if on_device else None
    room = iter(range(6))
    write = store.ShardWriter.write

    def full(writer, data):
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device", "the shard")
        write(writer, data)

    monkeypatch.setattr(store.ShardWriter, "write", full)
    with pytest.raises(OSError, match="No space left"):
        run(source, tmp_path / "records", extractor)
    monkeypatch.undo()
    names = sorted(p.name for p in (tmp_path / "records").iterdir())
    first = store.shard_name(0, 3)
    assert names == ["propose.json", first, Path(first).with_suffix(".json").name]
    run(source, tmp_path / "records", extractor)
    run(source, tmp_path / "whole")
    assert contents(tmp_path / "records") == contents(tmp_path / "whole")


def test_the_report_counts_regions(tmp_path):
    source = make_images(tmp_path / "photos", 3)
    report = run(source, tmp_path / "records").report
    areas, large, depths, patches = [], [], [], []
    for record in store.read_records(tmp_path / "records"):
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


# ---- the same command again, after images have come, changed or gone


def ids(folder) -> list[list[str]]:
    return [[schema.decode(data).id for data in held] for held in contents(folder).values()]


def files_of(folder) -> dict[str, tuple]:
    """Stamp and content of each shard and the file beside it."""
    found = (p for p in folder.iterdir() if p.name.startswith("trees-"))
    return {p.name: (stamp(p), p.read_bytes()) for p in found}


def test_added_images_make_only_their_own_records(tmp_path):
    source, folder = make_images(tmp_path / "photos", 6), tmp_path / "records"
    assert "since the last time" not in str(run(source, folder))
    before = files_of(folder)
    for i in range(5):
        cv2.imwrite(str(source / f"a/00{i}_new.png"), picture(50 + i))
    (source / "a/002_new.png").write_bytes(b"")  # one that cannot be used
    summary = run(source, folder)
    assert "5 new since the last time" in str(summary)
    assert (summary.shards, summary.finished, summary.images) == (4, 4, 10)
    assert {name: now for name, now in files_of(folder).items() if name in before} == before
    assert ids(folder)[2:] == [
        ["a/000_new.png", "a/001_new.png", "a/003_new.png"],
        ["a/004_new.png"],
    ]
    assert store.shard_name(2, 4) in files_of(folder)
    found = {r.id: schema.encode(r) for r in store.read_records(folder)}
    run(source, tmp_path / "anew")
    assert found == {r.id: schema.encode(r) for r in store.read_records(tmp_path / "anew")}
    now = files_of(folder)
    assert "since" not in str(run(source, folder))
    assert files_of(folder) == now


@pytest.mark.parametrize("how", ["other size", "same size", "same size and times"])
def test_a_changed_image_makes_its_shard_anew_and_no_other(how, tmp_path):
    source, folder = make_images(tmp_path / "photos", 10), tmp_path / "records"
    path = source / "a/005.jpg"
    path.write_bytes(path.read_bytes() + bytes(9000))
    run(source, folder)
    before, held = files_of(folder), ids(folder)
    size, times = path.stat().st_size, path.stat()
    content = cv2.imencode(".jpg", picture(77))[1].tobytes()
    path.write_bytes(content if how == "other size" else content.ljust(size, b"\0"))
    if how == "same size and times":
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert str(propose.changes(source, folder)) == "1 changed"
    assert "1 changed since the last time" in str(run(source, folder))
    now = files_of(folder)
    assert {name[:11] for name in now if now[name] != before[name]} == {"trees-00000"}
    assert ids(folder) == held
    run(source, tmp_path / "anew")
    assert contents(folder) == contents(tmp_path / "anew")


def test_touched_images_are_the_same_by_their_content_and_read_once(tmp_path, monkeypatch):
    source, folder = make_images(tmp_path / "photos", 6), tmp_path / "records"
    run(source, folder)
    before = {name: x for name, x in files_of(folder).items() if name.endswith("array_record")}
    for path in images.find_images(source):
        os.utime(path)
    assert "since" not in str(run(source, folder))
    now = files_of(folder)
    assert {name: now[name] for name in before} == before
    monkeypatch.setattr(plan, "digest", None)  # their stamps are known now
    run(source, folder)
    assert files_of(folder) == now


def test_gone_images_leave_their_shards(tmp_path):
    source, folder = make_images(tmp_path / "photos", 10), tmp_path / "records"
    run(source, folder, shard_size=3)
    before, held = files_of(folder), ids(folder)
    (source / held[1][1]).unlink()
    for id in held[3]:  # a whole shard
        (source / id).unlink()
    summary = run(source, folder, shard_size=3)
    assert f"{1 + len(held[3])} gone since the last time" in str(summary)
    assert ids(folder) == [held[0], [held[1][0], held[1][2]], held[2], []]
    now = files_of(folder)
    assert {name[:11] for name in now if now[name] != before[name]} == {
        "trees-00001",
        "trees-00003",
    }
    assert (summary.images, summary.finished, summary.shards) == (8, 4, 4)
    assert run(source, folder, shard_size=3).said == ()


def test_records_are_kept_where_most_of_their_images_have_gone(tmp_path):
    """A disk that is not there, or a list that is cut short, costs no records."""
    source, folder = make_images(tmp_path / "photos", 10), tmp_path / "records"
    run(source, folder, shard_size=3)
    before = files_of(folder)
    gone = sorted(source.rglob("*.*g"))[:6]
    for path in gone:
        path.rename(tmp_path / path.name)
    with pytest.raises(InputError, match=r"of 10 images, and 6 of these are not in .* any more"):
        run(source, folder, shard_size=3)
    assert files_of(folder) == before
    for path in gone:
        (tmp_path / path.name).rename(path)
    assert run(source, folder, shard_size=3).said == ()


def test_an_image_that_has_become_readable_gets_its_record(tmp_path):
    source, folder = make_images(tmp_path / "photos", 3), tmp_path / "records"
    add_bad_files(source)
    assert len(run(source, folder).report.skipped) == 4
    for name in BAD:
        cv2.imwrite(str(source / name), picture(5))
    os.mkfifo(source / "pipe.png")
    summary = run(source, folder)
    assert "1 new, 4 changed since" in str(summary)
    assert summary.report.skipped == [["pipe.png", "not a file"]]
    (source / "pipe.png").unlink()
    summary = run(source, folder)
    assert (summary.images, summary.report.skipped) == (7, [])
    assert not (folder / "skipped.txt").exists()


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sets(st.integers(0, 30)), min_size=1, max_size=6), st.integers(1, 5))
def test_plans_grow_as_a_naive_one(rounds, size):
    """Every image is in one shard, stays there until it goes, and growing twice changes nothing."""
    grown = {}
    for there in rounds:
        names = [f"{i:02d}" for i in sorted(there)]
        before, grown = grown, plan.grown(grown, names, size)
        assert sorted(itertools.chain(*grown.values())) == names
        assert plan.grown(grown, names, size) == grown
        assert [int(name[6:11]) for name in grown] == list(range(len(grown)))
        for name, held in before.items():
            assert grown[name] == [id for id in held if id in names]
        old = set().union(*before.values())
        fresh = [held for name, held in grown.items() if name not in before]
        new = [id for id in names if id not in old]
        assert fresh == [new[i : i + size] for i in range(0, len(new), size)]


def test_processes_grow_a_folder_together(tmp_path):
    source = make_images(tmp_path / "photos", 10)
    for folder in ("one", "three"):
        run(source, tmp_path / folder)
    more = make_images(tmp_path / "photos", 22)
    (source / "a/001.jpg").unlink()
    run(more, tmp_path / "one")
    for i in (2, 0, 1):
        run(more, tmp_path / "three", shard=(i, 3))
        if i == 2:  # the others' shards of images that have gone are no longer there
            assert not complete(tmp_path / "three")
            assert store.shard_name(0, 3) not in files_of(tmp_path / "three")
    assert contents(tmp_path / "three") == contents(tmp_path / "one")
    index = (tmp_path / "one" / store.INDEX).read_bytes()
    assert (tmp_path / "three" / store.INDEX).read_bytes() == index


@pytest.mark.slow
def test_growing_killed_midway_goes_on_and_leaves_old_records_alone(tmp_path):
    source, folder = make_images(tmp_path / "photos", 12), tmp_path / "records"
    run(source, folder, threads=2)
    before = files_of(folder)
    (source / "a/001.jpg").unlink()  # in the second shard
    make_images(tmp_path / "more", 200)
    (tmp_path / "more").rename(source / "more")
    killed = subprocess.Popen(
        command(source, "--records", folder, "--shard=0/1"), stderr=subprocess.DEVNULL
    )
    while killed.poll() is None and len(list(folder.glob("*.array_record"))) < 5:
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    with pytest.raises(InputError, match=f"finish with: mis-jax propose {source} --records"):
        store.shard_files(folder)
    subprocess.run(command(source, "--records", folder), capture_output=True, check=True)
    now, changed = files_of(folder), "trees-00000"
    assert {name[:11] for name, held in before.items() if now[name] != held} == {changed}
    assert not list(folder.glob("*.partial"))
    run(source, tmp_path / "anew")
    expected = {r.id: schema.encode(r) for r in store.read_records(tmp_path / "anew")}
    assert {r.id: schema.encode(r) for r in store.read_records(folder)} == expected


def killing(monkeypatch, at: int):
    """`write_file`, `unlink` and `publish` raise from the `at`-th call on, as if killed."""
    calls = iter(range(at))

    def alive(function):
        def call(*arguments, **options):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return call

    for holder, name in [(plan, "write_file"), (store, "write_file"), (store, "publish")]:
        monkeypatch.setattr(holder, name, alive(getattr(holder, name)))
    monkeypatch.setattr(Path, "unlink", alive(Path.unlink))


def complete(folder) -> bool:
    try:
        return bool(store.shard_files(folder))
    except InputError as error:
        if "finish with" not in str(error):
            raise
        return False


def test_a_folder_is_whole_or_unfinished_after_every_single_change_on_the_disk(tmp_path):
    """At no moment may it look complete and be neither as before nor as after."""
    source, folder = make_images(tmp_path / "photos", 9), tmp_path / "records"
    run(source, folder)
    shutil.copytree(folder, tmp_path / "first")
    first = contents(folder)
    (source / "a/001.jpg").unlink()
    cv2.imwrite(str(source / "b/000.png"), picture(60))
    cv2.imwrite(str(source / "new.png"), picture(61))
    run(source, tmp_path / "records")
    last = contents(folder)
    assert first != last
    for at in range(99):
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "first", folder)
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            killing(patch, at)
            run(source, folder)
            break
        if complete(folder):
            assert contents(folder) in (first, last), at
        run(source, folder)
        assert contents(folder) == last, at
    assert 10 < at < 98


def make_older(folder: Path, source: Path) -> None:
    """Makes a records folder what it was before there were plans."""
    index = json.loads((folder / store.INDEX).read_text())
    paths = images.find_images(source)
    names = zip(images.image_ids(source, paths), paths, strict=True)
    pairs = "".join(f"{name}\0{path.stat().st_size}\n" for name, path in names)
    del index["plan"]
    index["digest"] = hashlib.sha256(pairs.encode()).hexdigest()
    (folder / store.INDEX).write_text(json.dumps(index))
    for path in folder.glob("trees-*.json"):
        note = json.loads(path.read_text())
        for name in ("digest", "files", "notes"):
            del note[name]
        path.write_text(json.dumps(note))


def test_a_folder_of_before_there_were_plans_goes_on(tmp_path):
    source, folder = make_images(tmp_path / "photos", 10), tmp_path / "records"
    run(source, folder)
    before, digest = contents(folder), store.fingerprint(store.shard_files(folder))
    make_older(folder, source)
    assert store.fingerprint(store.shard_files(folder)) == digest  # of the records themselves
    assert not str(propose.changes(source, folder))
    shards = {p: stamp(p) for p in folder.glob("*.array_record")}
    assert f"3 shards {plan.OLDER}" in str(run(source, folder))
    assert {p: stamp(p) for p in shards} == shards
    cv2.imwrite(str(source / "new.png"), picture(3))
    os.utime(source / "a/001.jpg")  # whether its content is the same is not known
    assert "1 new, 1 changed since" in str(run(source, folder))
    assert contents(folder)[store.shard_name(1, 3)] == before[store.shard_name(1, 3)]
    assert len(list(store.read_records(folder))) == 11


def test_a_folder_of_before_there_were_plans_of_other_images_is_refused(tmp_path):
    source, folder = make_images(tmp_path / "photos", 5), tmp_path / "records"
    run(source, folder)
    make_older(folder, source)
    before = files_of(folder)
    cv2.imwrite(str(source / "new.png"), picture(3))
    with pytest.raises(InputError, match=r"older mis_jax with other images \(5 then, 6 now"):
        run(source, folder)
    assert files_of(folder) == before


def test_a_damaged_shard_is_deleted_and_made_again_alone(tmp_path):
    """What the messages say: delete the shard and propose again."""
    source, folder = make_images(tmp_path / "photos", 10), tmp_path / "records"
    run(source, folder)
    before, shard = files_of(folder), folder / store.shard_name(1, 3)
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"00001-of-00003.*delete it and propose again"):
        list(store.read_records(folder))
    shard.unlink()
    assert run(source, folder).said == ()
    now = files_of(folder)
    assert {name: content for name, (_, content) in now.items() if "json" not in name} == {
        name: content for name, (_, content) in before.items() if "json" not in name
    }
    assert {name[:11] for name in now if now[name] != before[name]} == {"trees-00001"}


# ---- what is no photo


def test_masks_beside_the_photos_are_left_out_and_counted(tmp_path):
    for folder, suffix in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png")):
        (tmp_path / "voc" / folder).mkdir(parents=True)
        for i in range(3):
            cv2.imwrite(str(tmp_path / "voc" / folder / f"{i}{suffix}"), picture(i))
    summary = run(tmp_path / "voc", tmp_path / "records")
    assert ids(tmp_path / "records") == [[f"JPEGImages/{i}.jpg" for i in range(3)]]
    assert (
        "left out 3: a mask, in SegmentationClass beside the photos (SegmentationClass/0.png)"
        in (str(summary))
    )
    alone = run(tmp_path / "voc/SegmentationClass", tmp_path / "alone")  # as the user says
    assert (alone.images, alone.said) == (3, ())


def test_older_records_lose_their_masks(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        for i in range(3):
            cv2.imwrite(str(tmp_path / "set" / folder / f"{i}.png"), picture(i))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(propose, "mask_files", lambda paths: {})
        run(tmp_path / "set", tmp_path / "records")
    make_older(tmp_path / "records", tmp_path / "set")
    assert "3 gone since" in str(run(tmp_path / "set", tmp_path / "records"))
    assert list(itertools.chain(*ids(tmp_path / "records"))) == [
        f"images/{i}.png" for i in range(3)
    ]


def flat(colours: int, seed: int = 0) -> np.ndarray:
    palette = np.random.default_rng(seed).integers(0, 256, (colours, 3), np.uint8)
    return palette[np.arange(64 * 64).reshape(64, 64) // 8 % colours]


def soft_mask() -> np.ndarray:
    """A disc whose edge is anti-aliased, so that it has many greys."""
    mask = np.zeros((120, 160), np.uint8)
    cv2.circle(mask, (70, 50), 30, 255, -1, cv2.LINE_AA)
    assert len(np.unique(mask)) > 20
    return mask


def test_images_that_look_like_masks_get_a_note(tmp_path):
    source = make_images(tmp_path / "photos", 2)
    cv2.imwrite(str(source / "bilevel.png"), flat(2))
    cv2.imwrite(str(source / "classes.png"), flat(8))
    cv2.imwrite(str(source / "more.png"), flat(9))
    cv2.imwrite(str(source / "soft.png"), soft_mask())
    cv2.imwrite(str(source / "soft.jpg"), soft_mask())
    text = str(run(source, tmp_path / "records"))
    assert "3 files: looks like a mask: few flat colours (bilevel.png, ...)" in text
    assert "skipped 1 that cannot be used" in text  # soft.png, beside soft.jpg


def test_masks_with_soft_edges_look_like_masks():
    disc = cv2.circle(np.zeros((90, 120), np.uint8), (60, 45), 30, 255, -1)
    soft = cv2.GaussianBlur(disc, (9, 9), 3)
    lossy = cv2.imdecode(cv2.imencode(".jpg", disc)[1], cv2.IMREAD_COLOR)
    ramp = np.tile(np.linspace(0, 255, 120).astype(np.uint8), (90, 1))
    for mask in (cv2.merge([soft] * 3), lossy):
        assert pipeline.looks_flat(mask)
    for photo in (cv2.merge([ramp] * 3), picture(3, 90, 120), cv2.merge([soft, disc, ramp])):
        assert not pipeline.looks_flat(photo)


def test_a_lossless_file_of_few_colours_beside_a_jpeg_is_its_mask(tmp_path):
    source = make_images(tmp_path / "photos", 2)
    photo = picture(5, 64, 80)
    for name in ("a", "b"):
        cv2.imwrite(str(source / f"{name}.JPG"), photo)
    cv2.imwrite(str(source / "a.png"), flat(2))
    cv2.imwrite(str(source / "b.png"), photo)  # the same picture in another format
    cv2.imwrite(str(source / "c.png"), flat(2))
    cv2.imwrite(str(source / "d.jpg"), photo)
    cv2.imwrite(str(source / "d.png"), soft_mask())
    summary = run(source, tmp_path / "records")
    assert summary.report.skipped == [
        ["a.png", "a mask, .png of few colours beside .JPG"],
        ["d.png", "a mask, .png of few colours beside .jpg"],
    ]
    assert {"b.png", "c.png"} <= {r.id for r in store.read_records(tmp_path / "records")}


def test_blank_images_are_skipped(tmp_path):
    source = make_images(tmp_path / "photos", 2)
    for name, value in (("white.png", 255), ("black.jpg", 0)):
        cv2.imwrite(str(source / name), np.full((64, 64, 3), value, np.uint8))
    summary = run(source, tmp_path / "records")
    reason = "blank: every pixel is nearly alike"
    assert summary.report.skipped == [["black.jpg", reason], ["white.png", reason]]
    assert summary.images == 2


@pytest.mark.parametrize("name", [store.INDEX, "trees-00000-of-00002.json"])
def test_damaged_indices_and_notes(tmp_path, name):
    """250 of each: what is in doubt is made anew or named, and no other records come of it."""
    source, folder = make_images(tmp_path / "photos", 6), tmp_path / "records"
    run(source, folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    records = sorted(itertools.chain(*contents(folder).values()))
    rng, data, said = np.random.default_rng(0), files[name], []
    for number in range(250):
        odd = json.dumps(odd_json(json.loads(data), rng)).encode()
        (folder / name).write_bytes(odd if number % 2 else damaged(data, rng, len(data)))
        try:
            store.fingerprint(store.shard_files(folder))
            propose.changes(source, folder)
            run(source, folder)
            assert sorted(itertools.chain(*contents(folder).values())) == records
        except InputError as error:
            said.append(str(error))
        for path in folder.iterdir():
            path.unlink()
        for other, content in files.items():
            (folder / other).write_bytes(content)
    assert all(str(folder) in text for text in said)
    assert bool(said) == (name == store.INDEX)
