"""MATLAB files are read as SciPy reads them, and hostile ones cost nothing."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from physique.bodymodel.mat_files import MAX_BYTES, read_mat
from scipy.io import loadmat, savemat

TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")


def written(variables, **options):
    stream = io.BytesIO()
    savemat(stream, variables, **options)
    return stream.getvalue()


def element(kind, content, order="<"):
    return struct.pack(f"{order}II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(name, shape, contents, kind=6, order="<"):
    head = element(6, struct.pack(f"{order}II", kind, 0), order) + element(
        5, struct.pack(f"{order}{len(shape)}i", *shape), order
    )
    return element(14, head + element(1, name, order) + contents, order)


def mat(*elements, order="<"):
    end = b"\x00\x01IM" if order == "<" else b"\x01\x00MI"
    return b"MATLAB 5.0 MAT-file, by hand".ljust(124) + end + b"".join(elements)


@pytest.mark.parametrize("compress", [False, True])
def test_arrays_and_cells_are_what_scipy_reads(compress):
    random = np.random.default_rng(0)
    variables = {f"a_{code}": (random.random((3, 5)) * 100).astype(code) for code in TYPES}
    variables |= {"one": np.array(7.0), "three": random.random((2, 3, 4)), "none": np.zeros((0, 3))}
    cells = np.empty((1, 4), dtype=object)
    cells[0] = [random.random((4, 6)) for _ in range(4)]
    other = {"text": "hello", "struct": {"a": 1}, "complex": np.ones(3) * 1j}
    data = written(variables | {"cells": cells} | other, do_compression=compress)
    found = read_mat(data, frozenset({*variables, "cells", "absent"}))
    theirs = loadmat(io.BytesIO(data))
    assert set(found) == {*variables, "cells"}
    for name in variables:
        assert np.array_equal(found[name], theirs[name]) and found[name].dtype.isnative
    assert len(found["cells"]) == 4
    assert all(np.array_equal(a, b) for a, b in zip(found["cells"], cells[0], strict=True))


def test_either_byte_order_is_read():
    values = np.arange(6.0).reshape(2, 3)
    for order in "<>":
        contents = element(9, values.astype(f"{order}f8").tobytes(order="F"), order)
        data = mat(matrix(b"values", (2, 3), contents, order=order), order=order)
        found = read_mat(data, frozenset({"values"}))["values"]
        assert np.array_equal(found, values)
        assert np.array_equal(loadmat(io.BytesIO(data))["values"], values)


@pytest.mark.parametrize("name", ["text", "struct", "complex", "nested"])
def test_wanted_variables_of_other_kinds_are_refused(name):
    inner = np.empty(1, dtype=object)
    inner[0] = np.ones(2)
    outer = np.empty(1, dtype=object)
    outer[0] = inner
    variables = {"text": "hello", "struct": {"a": 1}, "complex": np.ones(3) * 1j, "nested": outer}
    with pytest.raises(ValueError, match=rf"^{name}: expected .+, got .+; "):
        read_mat(written(variables), frozenset({name}))


NUMBERS = element(9, bytes(24))
HOSTILE = {
    "empty": b"",
    "another file": b"PK\x03\x04" + bytes(200),
    "version 7.3": b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM",
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(200),
    "no byte order": mat()[:-2] + b"??",
    "a truncated tag": mat(b"\x0e\x00\x00"),
    "a truncated element": mat(struct.pack("<II", 14, 1000), bytes(16)),
    "nothing in a matrix": mat(element(14, b"")),
    "a billion numbers": mat(matrix(b"x", (1 << 15, 1 << 15), NUMBERS)),
    "sizes that overflow": mat(matrix(b"x", (2**31 - 1,) * 8, NUMBERS)),
    "negative sizes": mat(matrix(b"x", (-1, 3), NUMBERS)),
    "many sizes": mat(matrix(b"x", (1,) * 1000, NUMBERS)),
    "a billion cells": mat(matrix(b"x", (1 << 30, 1), b"", kind=1)),
    "two billion cells": mat(matrix(b"x", (2**31 - 1, 1), matrix(b"", (1, 3), NUMBERS), kind=1)),
    "numbers among cells": mat(matrix(b"x", (1, 1), NUMBERS, kind=1)),
    "an unknown type": mat(matrix(b"x", (1, 3), element(99, bytes(24)))),
    "a function": mat(matrix(b"x", (1, 3), NUMBERS, kind=16)),
    "an object": mat(matrix(b"x", (1, 3), NUMBERS, kind=3)),
    "not compressed": mat(element(15, b"not zlib")),
    "compressed nothing": mat(element(15, zlib.compress(b""))),
    "a bomb": mat(element(15, zlib.compress(bytes(MAX_BYTES + 10), 9))),
    "nested compression": mat(element(15, zlib.compress(element(15, zlib.compress(matrix(b"x", (1, 3), NUMBERS)))))),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_files_are_refused_cheaply(name):
    tracemalloc.start()
    try:
        found = read_mat(HOSTILE[name], frozenset({"x"}))
        assert found == {}, "nothing was read"
    except ValueError as error:
        assert ": expected " in str(error) and ", got " in str(error) and "; " in str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < (2 * MAX_BYTES + (1 << 24) if name == "a bomb" else 1 << 20)


def test_deeply_nested_cells_do_not_overflow_the_stack():
    contents = NUMBERS
    for _ in range(2000):
        contents = matrix(b"x", (1, 1), contents, kind=1)
    with pytest.raises(ValueError, match="x: expected"):
        read_mat(mat(contents), frozenset({"x"}))


def test_scrambled_files_give_value_errors_or_arrays():
    random = np.random.default_rng(0)
    for compress in (False, True):
        whole = written({"x": np.arange(30.0), "y": np.ones((2, 2), np.uint8)}, do_compression=compress)
        refused = 0
        for trial in range(500):
            damaged = bytearray(whole[: random.integers(1, len(whole))] if trial % 3 == 0 else whole)
            for place in random.integers(min(124, len(damaged) - 1), len(damaged), 4):
                damaged[place] = random.integers(0, 256)
            try:
                read_mat(bytes(damaged), frozenset({"x", "y"}))
            except ValueError as error:
                assert ": expected " in str(error)
                refused += 1
        assert refused > 100
