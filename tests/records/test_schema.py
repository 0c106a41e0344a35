"""Records: exact round trips, and strictness."""

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_trees import random_tree

from mis_jax.errors import InputError
from mis_jax.records import schema


def make_record(name: str = "a.png", seed: int = 0) -> schema.Record:
    image = np.random.default_rng(seed).bytes(300)
    return schema.Record(name, image, 40, 56, random_tree(seed, 5, 7))


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(max_size=99),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 99),
)
def test_round_trip(name, image, height, width, seed):
    tree = random_tree(seed, height, width)
    data = schema.encode(schema.Record(name, image, 8 * height, 8 * width, tree))
    back = schema.decode(data)
    assert (back.id, back.image) == (name, image)
    assert (back.height, back.width, back.tree.grid) == (8 * height, 8 * width, tree.grid)
    np.testing.assert_array_equal(back.tree.merges, tree.merges)
    assert schema.encode(back) == data


def test_every_truncation_and_addition_is_refused():
    data = schema.encode(make_record())
    for length in range(len(data)):
        with pytest.raises(InputError):
            schema.decode(data[:length])
    with pytest.raises(InputError):
        schema.decode(data + b"\0")


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"height": 0},
        {"width": "56"},
        {"height": True},
        {"image": "text"},
        {"id": b"a"},
        {"tree": b"nothing"},
        {"version": None},
        {"version": [1]},
    ],
)
def test_odd_fields_are_refused(change):
    fields = msgpack.unpackb(schema.encode(make_record()))
    with pytest.raises(InputError):
        schema.decode(msgpack.packb(fields | change))


def test_missing_fields_and_other_values_are_refused():
    fields = msgpack.unpackb(schema.encode(make_record()))
    for name in fields:
        with pytest.raises(InputError):
            schema.decode(msgpack.packb({k: v for k, v in fields.items() if k != name}))
    for value in (None, 3, [1], "text"):
        with pytest.raises(InputError):
            schema.decode(msgpack.packb(value))


def test_an_unknown_version_is_named():
    fields = msgpack.unpackb(schema.encode(make_record()))
    with pytest.raises(InputError, match=r"version 7.*version 1"):
        schema.decode(msgpack.packb(fields | {"version": 7, "new": 0}))
