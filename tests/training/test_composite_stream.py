"""The stream of composites: determined by seed and position, resumed, and its errors."""

import dataclasses

import numpy as np
import pytest
import tiny_run

from mis_jax.errors import InputError
from mis_jax.records import masks, store
from mis_jax.training import composite_stream as lib
from mis_jax.training.input import Source


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def files(folder):
    return tiny_run.write_records(folder)


def make_stream(files, **fields):
    usual = {"seed": 0, "images": 2, "size": 64, "shares": (0.6, 0.25, 0.15)}
    return lib.composite_stream(files, **(usual | {"threads": 1, "prefetch": 1} | fields))


def take(stream, count):
    try:
        return [next(stream) for _ in range(count)]
    finally:
        stream.close()


def assert_equal(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for name in x:
            np.testing.assert_array_equal(x[name], y[name])


def test_what_a_batch_holds(files):
    (batch,) = take(make_stream(files), 1)
    found = {name: (x.dtype, x.shape) for name, x in batch.items()}
    assert found == {
        "image": (np.uint8, (2, 64, 64, 3)),
        "targets": (np.uint8, (2, lib.COUNT, 32, 32)),
        "kinds": (np.int8, (2, lib.COUNT)),
        "index": (np.int32, (2,)),
    }


def test_every_record_is_a_background_once_an_epoch(files):
    batches = take(make_stream(files, images=3), 4)
    order = np.concatenate([batch["index"] for batch in batches]).tolist()
    assert sorted(order[:6]) == sorted(order[6:]) == list(range(6))


def test_batches_depend_on_the_seed_alone(files):
    first = take(make_stream(files), 4)
    assert_equal(take(make_stream(files, threads=3, prefetch=2), 4), first)
    assert_equal(take(make_stream(files, threads=0), 4), first)
    (other,) = take(make_stream(files, seed=1), 1)
    assert (other["image"] != first[0]["image"]).any()
    images = np.concatenate([batch["image"] for batch in first])
    assert len({image.tobytes() for image in images}) == len(images)


@pytest.mark.parametrize("done", [0, 1, 3])
def test_a_stream_goes_on_from_its_state(files, done):
    whole = take(make_stream(files), 5)
    stream = make_stream(files)
    for _ in range(done):
        next(stream)
    state = stream.get_state()
    stream.close()
    again = make_stream(files)
    again.set_state(state)
    assert_equal(take(again, 5 - done), whole[done:])


@pytest.mark.parametrize(("count", "kept"), [(1, []), (79, []), (80, [0, 20, 40, 60])])
def test_every_twentieth_of_many_records_is_kept_out(count, kept):
    source = range(count)
    assert lib.keeps_out(source) == bool(kept)
    assert list(lib.learning(source)) == [k for k in source if k not in kept]
    assert list(lib.held_out(source)) == (kept or list(source))


def test_labelled_objects_are_refused(folder, files):
    masks.write("scenes", folder, folder / "objects")
    with pytest.raises(InputError, match=r"record \d of .*holds labelled objects, and"):
        take(make_stream(store.shard_files(folder / "objects"), threads=0), 1)


def test_a_damaged_photo_is_named(files, monkeypatch):
    whole = Source.__getitem__

    def damaged(source, index):
        item = whole(source, index)
        return dataclasses.replace(item, record=dataclasses.replace(item.record, image=b"no"))

    monkeypatch.setattr(Source, "__getitem__", damaged)
    with pytest.raises(InputError, match=r"a record is damaged \(.*png: cannot .*record \d of .*"):
        take(make_stream(files, threads=0), 1)
