"""mat: fields of structs as scipy and MATLAB write them; whatever is damaged ends in a sentence."""

import io
import struct
import tracemalloc

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from damage import damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mis_jax.datasets import mat, sbd
from mis_jax.errors import InputError

DTYPES = [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.int64, np.float32, float]
LABELS = np.zeros((60, 80), np.uint8)
LABELS[10:30, 10:40], LABELS[30:50, 30:70] = 1, 2


def written(labels, compressed=True, name="GTinst"):
    """A file as SBD has them, with other things before and behind the labels."""
    edges = np.empty((2, 1), object)
    edges[:, 0] = [scipy.sparse.csc_matrix(k == LABELS) for k in (1, 2)]
    fields = {"Boundaries": edges, "Segmentation": labels, "Categories": np.array([[15], [9]])}
    inst = np.empty((1, 1), [(field, object) for field in fields])
    inst[0, 0] = tuple(fields.values())
    stream = io.BytesIO()
    content = {"before": np.arange(3), name: inst, "after": "text"}
    scipy.io.savemat(stream, content, do_compression=compressed)
    return stream.getvalue()


@settings(deadline=None)
@given(st.data(), st.sampled_from(DTYPES), st.booleans())
def test_what_scipy_writes(data, dtype, compressed):
    shape = data.draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=9))
    labels = data.draw(arrays.arrays(dtype, shape))
    found = mat.read_field(written(labels, compressed), "GTinst", "Segmentation")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, labels)


def big_endian(labels):
    """A file as MATLAB wrote them on machines of the other order, by the format's description."""

    def element(kind, content):
        return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)

    def matrix(kind, shape, name, *parts):
        sizes = element(5, struct.pack(f">{len(shape)}i", *shape))
        head = element(6, struct.pack(">II", kind, 0)) + sizes + element(1, name)
        return element(14, head + b"".join(parts))

    pixels = matrix(11, labels.shape, b"", element(4, labels.astype(">u2").tobytes("F")))
    length = struct.pack(">HHI", 4, 5, 13)  # a small element
    names = element(1, b"Segmentation\0")
    return (
        b"MATLAB 5.0 MAT-file".ljust(124)
        + b"\1\0MI"
        + matrix(2, (1, 1), b"GTinst", length, names, pixels)
    )


def test_the_other_order_of_bytes():
    labels = np.arange(12, dtype=np.uint16).reshape(3, 4) * 300
    found = mat.read_field(big_endian(labels), "GTinst", "Segmentation")
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_array_equal(
        scipy.io.loadmat(io.BytesIO(big_endian(labels)))["GTinst"][0][0][0], labels
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no MATLAB file of level 5"),
        (b"\x89HDF" + bytes(300), "no MATLAB file of level 5"),
        (written(LABELS, name="GTcls"), "has no GTinst"),
        (written(LABELS)[:260], "cut off"),
        (written(LABELS, False)[:-5000], "cut off"),
        (written(LABELS + 1j), "complex"),
        (written(np.zeros((2, 3, 4))), "no array of numbers"),
        (written(np.array("text")), "no array of numbers"),
    ],
)
def test_other_files_are_named_with_the_reason(tmp_path, data, why):
    path = tmp_path / "a.mat"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"a\.mat is not a readable SBD instance file \(.*{why}"):
        sbd.segmentation(path)


@pytest.mark.parametrize("compressed", [True, False])
def test_500_damaged_files(tmp_path, compressed):
    """Some of these ended the process in scipy, others took 2 GB. Only zlib has a checksum."""
    whole, rng, refused = written(LABELS, compressed), np.random.default_rng(0), 0
    path = tmp_path / "a.mat"
    tracemalloc.start()
    for _ in range(500):
        path.write_bytes(damaged(whole, rng, 200))
        try:
            found = sbd.segmentation(path)
        except InputError:
            refused += 1
            continue
        assert found.shape == LABELS.shape
        assert found.dtype.itemsize == 1
        if compressed:
            np.testing.assert_array_equal(found, LABELS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused > 250
    assert peak < 10e6
