"""Nothing in a pickle runs, allocates without bound, or gives anything but a clear ValueError."""

import os
import pickle
import pickletools
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import physique
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from official_files import Foreign, ch, csc_matrix, dumps, random_model_arrays, select, write_official_file
from physique.bodymodel import load_body_model, pickle_opcodes, save_body_model
from physique.bodymodel.data import BodyModelData
from physique.bodymodel.safe_pickle import read_pickle

MARK, STOP = b"(", b"."


def everything(key):
    return True


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def entry(value, key="v_template"):
    """Return a pickle of a dict with one entry, whose value the given opcodes build."""
    return b"\x80\x04}" + text(key) + value + b"s."


@pytest.fixture
def sentinel(tmp_path, monkeypatch):
    """A file that hostile code would make, in the working directory."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "ran"
    assert not (tmp_path / "ran").exists()


class Hostile:
    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


COMMAND = "touch ran"
RUN = text(COMMAND) + b"\x85"
HOSTILE = {
    "os.system by reduce": (pickle.dumps({"v_template": Hostile(os.system, COMMAND)}), "system"),
    "eval by reduce": (pickle.dumps({"v_template": Hostile(eval, "open('ran', 'w')")}), "eval"),
    "python 2 names": (entry(b"c__builtin__\neval\n" + RUN + b"R"), "__builtin__.eval"),
    "in a key that nobody reads": (entry(b"cos\nsystem\n" + RUN + b"R", "unused"), "os.system"),
    "before the dict": (b"\x80\x02cos\nsystem\n" + RUN + b"R0}.", "os.system"),
    "by stack global": (entry(text("os") + text("system") + b"\x93" + RUN + b"R"), "os.system"),
    "by inst": (entry(b"(S'touch ran'\nios\nsystem\n"), "os.system"),
    "by obj": (entry(b"(cos\nsystem\nS'touch ran'\no"), "os.system"),
    "by newobj": (entry(b"csubprocess\nPopen\n" + RUN + b"\x81"), "subprocess.Popen"),
    "by newobj_ex": (entry(b"csubprocess\nPopen\n" + RUN + b"}\x92"), "subprocess.Popen"),
    "getattr": (entry(b"cbuiltins\ngetattr\n"), "builtins.getattr"),
    "import": (entry(b"cbuiltins\n__import__\n"), "builtins.__import__"),
    "a dotted name": (entry(text("numpy") + text("f2py.os.system") + b"\x93"), "numpy.f2py.os.system"),
    "a dotted name below a known class": (
        entry(text("numpy") + text("ndarray.tofile") + b"\x93"),
        "numpy.ndarray.tofile",
    ),
    "a numpy function": (entry(b"cnumpy\nload\n"), "numpy.load"),
    "numpy's own runner": (entry(b"cnumpy.testing._private.utils\nrunstring\n"), "runstring"),
    "numpy under another spelling": (entry(b"cnumpy.core.multiarray.os\nsystem\n"), "system"),
    "a dotted chumpy name": (entry(text("chumpy.ch") + text("Ch.__init__.__globals__") + b"\x93"), "__globals__"),
    "a chumpy module that is a path": (entry(b"cchumpy/../os\nsystem\n"), "system"),
    "chumpy lookalike": (entry(b"cchumpyx\nCh\n"), "chumpyx.Ch"),
    "a scipy function": (entry(b"cscipy.sparse\nload_npz\n"), "scipy.sparse.load_npz"),
    "another codec": (b"\x80\x02c_codecs\ndecode\n.", "_codecs.decode"),
    "torch": (entry(b"ctorch._utils\n_rebuild_tensor_v2\n"), "torch._utils._rebuild_tensor_v2"),
    "persistent id": (entry(b"Pos.system\n"), "PERSID"),
    "binary persistent id": (entry(b"NQ"), "BINPERSID"),
    "extension 1": (entry(b"\x82\x01"), "EXT1"),
    "extension 4": (entry(b"\x84\x01\x00\x00\x00"), "EXT4"),
    "out-of-band buffer": (entry(b"\x97"), "NEXT_BUFFER"),
    "an unknown byte": (entry(b"\xff"), "byte 0xff"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_globals_and_opcodes_are_refused_by_name(sentinel, name):
    contents, named = HOSTILE[name]
    path = sentinel.parent / "bad.pkl"
    path.write_bytes(contents)
    with pytest.raises(ValueError, match="expected") as caught:
        load_body_model(path)
    assert str(caught.value).startswith(str(path))
    assert named in str(caught.value)


INERT = {
    "setstate that is a call": b"cchumpy.ch\nCh\n)\x81}" + text("__setstate__") + b"cnumpy\nndarray\nsb",
    "class attributes": b"cchumpy.ch\nCh\n)\x81}" + text("__class__") + b"cnumpy\ndtype\nsb",
    "slots state": b"cchumpy.ch\nCh\n)\x81}}" + text("made_by") + b"Ns\x86b",
    "state of a global": b"cnumpy\nndarray\n}" + text("__init__") + b"Nsb",
    "state of a list": b"]}" + text("append") + b"Nsb",
    "append to a stand-in": b"cchumpy.ch\nCh\n)\x81Na",
    "set items of a stand-in": b"cchumpy.ch\nCh\n)\x81" + text("x") + b"Ns",
    "call of a stand-in": b"cchumpy.ch\nCh\n)\x81)R",
    "call of a text": text("os.system") + RUN + b"R",
    "reconstructor of a function": b"ccopy_reg\n_reconstructor\n(c_codecs\nencode\nN\x85tR",
    "reconstructor of itself": b"ccopy_reg\n_reconstructor\n(ccopy_reg\n_reconstructor\nNNtR",
    "newobj_ex with arguments": b"cchumpy.ch\nCh\n)}" + text("x") + b"Ns\x92",
    "codec that runs": b"c_codecs\nencode\n" + text("x") + text("zip") + b"\x86R",
    "array of an array": b"cnumpy\nndarray\n(tRc__builtin__\nset\nb",
}


@pytest.mark.parametrize("name", INERT)
def test_tricks_with_known_names_stay_inert(tmp_path, name):
    path = tmp_path / "a.pkl"
    path.write_bytes(entry(INERT[name]))
    with pytest.raises(ValueError, match=r"a\.pkl: .*expected"):
        load_body_model(path)


def array_of(shape, code, raw, order):
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tS'b'\ntR("
        + b"K\x01"
        + dumps(shape)[2:-1]
        + b"cnumpy\ndtype\n("
        + text(code)
        + b"K\x00K\x01tR(K\x03"
        + text(order)
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + b"\x89B"
        + struct.pack("<I", len(raw))
        + raw
        + b"tb"
    )


BOMBS = {
    "shape of 1e12": array_of((10**12,), "f8", bytes(8), "<"),
    "overflowing shape": array_of((2**32, 2**32), "f8", b"", "<"),
    "huge sizes": array_of((10**30,), "f8", b"", "<"),
    "negative shape": array_of((-1, 3), "f8", bytes(24), "<"),
    "text as shape": array_of("33", "f8", bytes(72), "<"),
    "many dimensions": array_of((1,) * 40, "f8", bytes(8), "<"),
    "objects": array_of((3,), "O8", bytes(24), "|"),
    "structured": array_of((3,), "V8", bytes(24), "|"),
    "fields in the type": array_of((3,), "f8,f8", bytes(48), "|"),
    "unknown type": array_of((3,), "os.system", bytes(24), "|"),
    "bytes that are too few": array_of((3,), "f8", bytes(23), "<"),
    "bytes that are too many": array_of((3,), "f8", bytes(25), "<"),
    "binbytes8 of 1e15": b"\x8e" + struct.pack("<Q", 10**15) + b"abc",
    "binbytes of 4e9": b"B" + struct.pack("<I", 2**32 - 1) + b"abc",
    "bytearray8 of 1e12": b"\x96" + struct.pack("<Q", 10**12) + b"abc",
    "binunicode8 of 1e12": b"\x8d" + struct.pack("<Q", 10**12) + b"abc",
    "binstring of a negative length": b"T" + struct.pack("<i", -5) + b"abc",
    "frame of 1e18": b"\x95" + struct.pack("<Q", 10**18) + b"abc",
    "long4 of 2e9": b"\x8b" + struct.pack("<i", 2**31 - 1) + b"abc",
    "long4 of a megabyte": b"\x8b" + struct.pack("<i", 1 << 20) + bytes(1 << 20),
    "an integer of a million digits": b"L" + b"9" * 1_000_000 + b"L\n",
    "a float of a million digits": b"F" + b"9" * 1_000_000 + b"\n",
    "memo index of 4e9": b"Nr" + struct.pack("<I", 2**32 - 1) + b"j" + struct.pack("<I", 5),
    "memo index of 100 digits": b"Np" + b"9" * 60 + b"\n",
    "a memo that is not there": b"h\x07",
    "empty stack": b"00000",
    "marks without end": MARK * 6_000,
    "endless dup": b"]" + b"2" * 10_000,
    "many lists": b"]" * 10_000,
    "many sets": b"\x8f" * 10_000,
    "deep lists": b"]" * 2_400 + b"a" * 2_399,
    "deep tuples": b")" + b"\x85" * 4_500,
    "circular list": b"]q\x00h\x00a",
    "circular chumpy": b"cchumpy.ch\nCh\n)\x81q\x00}" + text("x") + b"h\x00sb",
    "circular sum": b"cchumpy.ch_ops\nadd\n)\x81q\x00}" + text("a") + b"h\x00s" + text("b") + b"h\x00sb",
    "sparse of 1e18": dumps(Foreign("scipy.sparse.csc", "csc_matrix", {"_shape": (10**9, 10**9), "data": np.zeros(0)}))[
        2:-1
    ],
    "sparse of 1e9 rows": dumps(
        Foreign("scipy.sparse._csc", "csc_matrix", csc_matrix(np.eye(3)).state | {"_shape": (10**9, 3)}), python2=True
    )[2:-1],
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_without_allocating(tmp_path, monkeypatch, name):
    monkeypatch.setattr(pickle_opcodes, "MAX_OPERATIONS", 5_000)  # counting allocations makes each one slow
    path = tmp_path / "bomb.pkl"
    path.write_bytes(entry(BOMBS[name]))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="expected"):
            load_body_model(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (10 << 20) + 6 * path.stat().st_size


FULL_SIZE = {
    "sets": b"\x8f" * 1_100_000,
    "deep lists": b"]" * 300_000 + b"a" * 299_999,
    "deep tuples as a key": b")" + b"\x85" * 900_000 + b"N",
}


def test_nothing_takes_more_memory_than_the_operations_allow(tmp_path):
    """In a process that may have 400 MB on top of what the imports take, at the limits that users have."""
    code = """
import resource, sys
from physique.bodymodel import load_body_model
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20), resource.RLIM_INFINITY))
for path in sys.argv[1:]:
    try:
        load_body_model(path)
    except ValueError as error:
        assert str(error).startswith(path), error
    else:
        raise SystemExit(path)
"""
    paths = []
    for name, contents in FULL_SIZE.items():
        path = tmp_path / f"{name}.pkl"
        path.write_bytes(entry(contents))
        paths.append(str(path))
    root = Path(physique.__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", code, *paths], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def shared_lists(levels, width):
    """Return opcodes of a list whose parts are shared: width**levels numbers in a few bytes."""
    parts = [b"]q\x00" + b"K\x01a" * width]
    for level in range(1, levels):
        parts.append(b"0]q" + bytes([level]) + (b"h" + bytes([level - 1]) + b"a") * width)
    return b"".join(parts)


def test_shared_lists_do_not_expand():
    tracemalloc.start()
    with pytest.raises(ValueError, match="expected at most"):
        read_pickle(entry(shared_lists(4, 200)), everything)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_shared_sums_are_worked_out_once():
    value = ch(np.ones(3))
    code = dumps(value)[2:-1].replace(b"r\x00\x00\x00\x00", b"q\xc8", 1)
    for _ in range(25):
        state = b"}" + text("a") + b"h\xc8s" + text("b") + b"h\xc8s"
        code += b"0cchumpy.ch_ops\nadd\n)\x81" + state + b"bq\xc8"
    start = time.perf_counter()
    arrays = read_pickle(entry(code), everything)
    np.testing.assert_array_equal(arrays["v_template"], np.full(3, 2.0**25))
    assert time.perf_counter() - start < 2


def test_sums_that_broadcast_are_counted_before_they_are_made():
    value = Foreign("chumpy.ch_ops", "add", {"a": np.ones((10_000, 1)), "b": np.ones((1, 10_000))})
    with pytest.raises(ValueError, match="expected at most"):
        read_pickle(dumps({"v_template": value}), everything)


def broken_csc(**changes):
    return Foreign("scipy.sparse.csc", "csc_matrix", csc_matrix(np.eye(4)[:3]).state | changes)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (broken_csc(indices=np.array([0, 1, 3])), "sparse row: expected values 0 to 2"),
        (broken_csc(indices=np.array([0, 1, -1])), "sparse row: expected values 0 to 2"),
        (broken_csc(indices=np.array([0.0, 1.0, 2.0])), "expected integers"),
        (broken_csc(indptr=np.array([0, 2, 1, 3, 3])), "ascending indptr"),
        (broken_csc(indptr=np.array([1, 1, 2, 3, 3])), "ascending indptr"),
        (broken_csc(indptr=np.array([0, 1, 2, 3])), "ascending indptr"),
        (broken_csc(indptr=np.array([0, 1, 2, 3, 9])), "indptr: expected values 0 to 3"),
        (broken_csc(data=np.ones(2)), "as many sparse values"),
        (broken_csc(data=np.ones((3, 1))), "as many sparse values"),
        (broken_csc(_shape=(3,)), "two sizes"),
        (broken_csc(_shape=None), "shape: expected"),
        (Foreign("scipy.sparse.csc", "csc_matrix", None), "with its attributes"),
        (Foreign("scipy.sparse.coo", "coo_matrix", {"_shape": (2, 2), "data": np.ones(1)}), "attribute row"),
        (Foreign("chumpy.ch", "Ch", {"y": np.ones(3)}), "attribute x"),
        (Foreign("chumpy.ch_ops", "cos", {"x": np.ones(3)}), "chumpy operation cos"),
        (
            Foreign("chumpy.reordering", "Select", select(np.ones(6), np.s_[:3]).state | {"idxs": np.array([6])}),
            "Select idxs",
        ),
        (
            Foreign("chumpy.reordering", "Select", select(np.ones(6), np.s_[:3]).state | {"idxs": np.array([-1])}),
            "Select idxs",
        ),
        (
            Foreign(
                "chumpy.reordering", "Select", select(np.ones(6), np.s_[:3]).state | {"preferred_shape": (10**6, 10**6)}
            ),
            "expected 3 numbers for the new shape",
        ),
        (Foreign("chumpy.reordering", "reshape", {"a": np.ones(6), "newshape": (4, 2)}), "expected 6 numbers"),
        (Foreign("chumpy.reordering", "transpose", {"a": np.ones((2, 3)), "axes": (0, 0)}), "expected axes"),
        ("v", "expected an array, got str"),
        ({"a": 1}, "expected an array, got dict"),
        ([[1, 2], [3]], "v_template"),
        ([1, "a"], "expected numbers, got str"),
        (2**70, "expected plain numbers"),
    ],
)
def test_values_that_stand_for_no_array_are_refused(tmp_path, value, words):
    path = tmp_path / "a.pkl"
    path.write_bytes(dumps(random_model_arrays("mano") | {"v_template": value}, python2=True))
    with pytest.raises(ValueError, match=words) as caught:
        load_body_model(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            Foreign("chumpy.reordering", "transpose", {"a": ch(np.arange(6.0).reshape(2, 3)), "axes": None}),
            [[0, 3], [1, 4], [2, 5]],
        ),
        (Foreign("chumpy.reordering", "reshape", {"a": ch(np.arange(4.0)), "newshape": (2, 2)}), [[0, 1], [2, 3]]),
        (Foreign("chumpy.ch_ops", "subtract", {"a": ch(np.array([5.0, 7.0])), "b": 2}), [3, 5]),
        (Foreign("chumpy.ch_ops", "multiply", {"a": np.array([5.0, 7.0]), "b": ch(np.array(3.0))}), [15, 21]),
        (select(np.arange(12.0).reshape(3, 4), np.s_[::2, 1:3]), [[1, 2], [9, 10]]),
        (np.asfortranarray([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        ([[1, 2], (3, 4)], [[1, 2], [3, 4]]),
        (1.5, 1.5),
        (np.zeros((0, 3)), np.zeros((0, 3))),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2])
@pytest.mark.parametrize("python2", [False, True])
def test_chumpy_expressions_have_the_value_chumpy_gives(value, expected, protocol, python2):
    arrays = read_pickle(dumps({"x": value}, protocol, python2=python2), everything)
    np.testing.assert_array_equal(arrays["x"], np.array(expected))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_this_python_load_in_every_protocol(protocol):
    rng = np.random.default_rng(0)
    dense = np.where(rng.uniform(size=(5, 7)) < 0.3, rng.normal(size=(5, 7)), 0)
    value = {
        **{name: rng.normal(size=(40, 3)).astype(name) for name in ("f2", "f4", "f8", ">f8", "i1", "u2", "i8", ">u4")},
        "bool": np.array([True, False]),
        "fortran": np.asfortranarray(rng.normal(size=(40, 30))),
        "scalar": np.float64(3.5),
        "int": -(2**40),
        "matrix": np.eye(2).view(np.matrix),
        **{form: getattr(scipy.sparse, f"{form}_matrix")(dense) for form in ("csc", "csr", "coo")},
        **{f"{form}_array": getattr(scipy.sparse, f"{form}_array")(dense) for form in ("csc", "csr", "coo")},
    }
    arrays = read_pickle(pickle.dumps(value, protocol), everything)
    for name, expected in value.items():
        expected = expected.toarray() if scipy.sparse.issparse(expected) else np.asarray(expected)
        np.testing.assert_array_equal(arrays[name], expected, err_msg=name)
        assert arrays[name].dtype == expected.dtype


def test_entries_that_are_not_wanted_are_never_worked_out():
    contents = dumps({"v_template": np.ones(3), "bad": Foreign("chumpy.ch_ops", "cos", {}), (1, 2): 3})
    assert list(read_pickle(contents, lambda key: key == "v_template")) == ["v_template"]


def test_keys_that_could_hurt_are_left_out():
    deep = b")" + b"\x85" * 20_000
    assert (
        read_pickle(b"\x80\x02}" + deep + b"Ns" + b"(" + text("x") + b"K\x01" + text("y") + b"K\x02u.", everything)["y"]
        == 2
    )


OPCODES = sorted(ord(opcode.code) for opcode in pickletools.opcodes)
CHUNKS = (
    b"cchumpy.ch\nCh\n",
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"cnumpy\nndarray\n",
    b"cnumpy\ndtype\n",
    b"cscipy.sparse.csc\ncsc_matrix\n",
    b"c_codecs\nencode\n",
    b"cos\nsystem\n",
    b"X\x01\x00\x00\x00x",
    b"X\x0a\x00\x00\x00v_template",
    b"K\x03",
    b"(K\x03K\x03t",
    b"C\x04abcd",
    b"}q\x00",
)


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(st.sampled_from(CHUNKS), st.sampled_from(OPCODES).map(lambda c: bytes([c])), st.binary(max_size=6))
    )
)
def test_soups_of_opcodes_give_value_errors(tmp_path_factory, soup):
    path = tmp_path_factory.getbasetemp() / "soup.pkl"
    path.write_bytes(b"\x80\x02}" + b"".join(soup) + STOP)
    with pytest.raises(ValueError, match="expected"):
        load_body_model(path)


@pytest.fixture(scope="module")
def valid_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("valid")
    paths = [write_official_file(folder, *kind, num_vertices=8) for kind in (("mano", "pkl"), ("flame", "pkl-ascii"))]
    paths += [write_official_file(folder, "flame", "pkl-py3", num_vertices=8)]
    paths += [write_official_file(folder, "smplx", "npz", num_vertices=8)]
    save_body_model(load_body_model(paths[0]), folder / "saved.npz")
    return [path.read_bytes() for path in (*paths, folder / "saved.npz")]


def mutate(contents, edits):
    data = bytearray(contents)
    for kind, at, value in edits:
        position = int(at * len(data)) if data else 0
        if kind == "flip" and data:
            data[position % len(data)] ^= value % 255 + 1
        elif kind == "cut":
            del data[position:]
        elif kind == "drop":
            del data[position : position + value]
        elif kind == "splice":
            data[position:position] = data[-value:]
    return bytes(data)


# Most of a file is numbers; edits near its start and end hit the structure.
PLACES = st.one_of(st.floats(0, 1), st.floats(0, 0.01), st.floats(0.98, 1))
EDITS = st.lists(
    st.tuples(st.sampled_from(["flip", "flip", "cut", "drop", "splice"]), PLACES, st.integers(0, 300)), min_size=1
)


@settings(max_examples=300)
@given(st.integers(0, 4), EDITS)
def test_damaged_files_load_or_give_a_value_error(tmp_path_factory, valid_files, which, edits):
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(mutate(valid_files[which], edits))
    try:
        assert isinstance(load_body_model(path), BodyModelData)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")
