"""Archives are read by what is there, not by what their headers promise."""

import io
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from official_files import random_model_arrays
from physique.bodymodel import load_body_model
from physique.bodymodel.safe_npz import read_npz


def everything(key):
    return True


def npy(header, contents=b"", version=1):
    header = header.encode("latin1")
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + contents


def header(shape="(3,)", descr="'<f8'", fortran="False"):
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


def archive(members, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as target:
        for name, contents in members.items() if isinstance(members, dict) else members:
            target.writestr(name, contents)
    return stream.getvalue()


def model_with(name, contents, compression=zipfile.ZIP_STORED):
    """Return an archive of a model in which one member is replaced or added."""
    stream = io.BytesIO()
    np.savez(stream, **random_model_arrays("mano"))
    with zipfile.ZipFile(stream) as source:
        members = {member: source.read(member) for member in source.namelist()}
    return archive(members | {name: contents}, compression)


HEADERS = {
    "1e12 numbers": npy(header("(1000000000000,)"), bytes(24)),
    "1e12 by product": npy(header("(1000000, 1000000)"), bytes(24)),
    "1e12 of nothing": npy(header("(1000000000000,)", "'<U0'")),
    "overflow": npy(header("(4294967296, 4294967296)"), bytes(24)),
    "digits without end": npy(header(f"({'9' * 5000},)"), bytes(24)),
    "negative": npy(header("(-3,)"), bytes(24)),
    "a call": npy(header("(__import__('os').system('touch ran'),)"), bytes(24)),
    "an expression": npy(header("(10**12,)"), bytes(24)),
    "a list as shape": npy(header("[3]"), bytes(24)),
    "many dimensions": npy(header("(" + "1, " * 60 + ")"), bytes(8)),
    "deep brackets": npy("(" * 9000, bytes(24)),
    "deep minus": npy("-" * 9000 + "1", bytes(24)),
    "slow to match": npy(header("(" + "1" * 60 + " " * 5000 + "x)"), bytes(24)),
    "long header": npy(header() + " " * 20_000, bytes(24)),
    "header of 4 GB": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + header().encode(),
    "truncated header": npy(header())[:30],
    "no magic": b"hello",
    "empty": b"",
    "structured": npy(header(descr="[('a', '<f8'), ('b', '<f8')]"), bytes(48)),
    "sub-array": npy(header(descr="('<f8', (3,))"), bytes(72)),
    "complex": npy(header(descr="'<c16'"), bytes(48)),
    "dates": npy(header(descr="'<M8[D]'"), bytes(24)),
    "void": npy(header(descr="'|V8'"), bytes(24)),
    "text of 1e9 letters": npy(header(descr="'<U999999999'"), bytes(24)),
    "too few bytes": npy(header(), bytes(23)),
    "too many bytes": npy(header(), bytes(25)),
    "object that is no pickle": npy(header("()", "'|O'"), b"garbage"),
    "object that is empty": npy(header("()", "'|O'")),
    "object that is a dict": npy(header("()", "'|O'"), b"\x80\x02}."),
    "unknown keys": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), 'os': 1}", bytes(24)),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_headers_that_disagree_with_the_contents_are_refused(tmp_path, monkeypatch, name, compression):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.npz"
    path.write_bytes(model_with("v_template.npy", HEADERS[name], compression))
    tracemalloc.start()
    with pytest.raises(ValueError, match="v_template: .*expected") as caught:
        load_body_model(path)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()
    assert str(caught.value).startswith(str(path))
    assert not (tmp_path / "ran").exists()


class Hostile:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("key", ["v_template", "J_regressor", "vt", "physique.extras.mine"])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_objects_that_would_run_code_are_refused(tmp_path, monkeypatch, key, shape):
    monkeypatch.chdir(tmp_path)
    wrapped = np.empty(shape, dtype=object)
    wrapped[...] = Hostile()
    np.savez("bad.npz", **(random_model_arrays("smplx") | {key: wrapped}))
    with pytest.raises(ValueError, match=r"bad\.npz: .*\.system; nothing was run"):
        load_body_model("bad.npz")
    assert not (tmp_path / "ran").exists()


def test_objects_that_nobody_needs_are_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("good.npz", **random_model_arrays("smplx"), joint2num=np.array(Hostile(), dtype=object))
    assert load_body_model("good.npz").family == "smplx"
    assert not (tmp_path / "ran").exists()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    zeros = npy(header("(200000000,)", "'|i1'"), bytes(200_000_000))
    path = tmp_path / "bomb.npz"
    path.write_bytes(model_with("v_template.npy", zeros, zipfile.ZIP_DEFLATED))
    del zeros
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    with pytest.raises(ValueError, match="expected at most 67108864 numbers"):
        load_body_model(path)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_many_members_together_are_held_to_the_limit(tmp_path):
    part = npy(header("(1000000, 8)", "'|i1'"), bytes(8_000_000))
    members = {f"physique.extras.part{index}.npy": part for index in range(9)}
    with pytest.raises(ValueError, match="part8: array sizes: expected at most"):
        read_npz(archive(members, zipfile.ZIP_DEFLATED), everything)


def test_a_member_that_holds_more_than_it_declares_is_refused():
    contents = bytearray(archive({"a.npy": npy(header("(100000,)"), bytes(800_000))}, zipfile.ZIP_DEFLATED))
    directory = contents.rindex(b"PK\x01\x02")
    contents[directory + 24 : directory + 28] = struct.pack("<I", 100)
    with pytest.raises((ValueError, zipfile.BadZipFile)):
        read_npz(bytes(contents), everything)


def test_a_large_directory_is_refused():
    members = [(f"{'x' * 190}{index}.npy", b"") for index in range(5000)]
    with pytest.raises(ValueError, match="expected a small directory"):
        read_npz(archive(members), everything)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(compression):
    with pytest.raises(ValueError, match="expected a stored or deflated array"):
        read_npz(archive({"a.npy": npy(header(), bytes(24))}, compression), everything)


@pytest.mark.parametrize(
    "name", ["../v_template.npy", "/v_template.npy", "a/b.npy", "a\\b.npy", "model.pkl", "word/document.xml"]
)
def test_names_with_paths_and_foreign_archives_are_refused(name):
    with pytest.raises(ValueError, match=r"expected members called NAME\.npy"):
        read_npz(archive({name: npy(header(), bytes(24))}), everything)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_repeated_names_are_refused():
    member = ("a.npy", npy(header(), bytes(24)))
    with pytest.raises(ValueError, match="expected each name once"):
        read_npz(archive([member, member]), everything)


def test_damaged_contents_fail_their_checksum(tmp_path):
    contents = bytearray(archive({"v_template.npy": npy(header(), bytes(24))}))
    contents[contents.index(b"}") + 5] ^= 1
    path = tmp_path / "a.npz"
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=r"a\.npz: .*CRC"):
        load_body_model(path)


def test_encrypted_members_are_refused():
    contents = bytearray(archive({"a.npy": npy(header(), bytes(24))}))
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        contents[contents.rindex(signature) + offset] |= 1
    with pytest.raises(ValueError, match="expected a stored or deflated array"):
        read_npz(bytes(contents), everything)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_version_of_the_npy_header_is_read(version):
    arrays = read_npz(archive({"a.npy": npy(header("(3L, 1L)"), np.arange(3.0).tobytes(), version)}), everything)
    np.testing.assert_array_equal(arrays["a"], [[0], [1], [2]])


TYPES = ("f2", "f4", "f8", ">f8", "i1", "u4", ">i8")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_saves_is_read(tmp_path, save):
    rng = np.random.default_rng(0)
    arrays = {f"a{index}": (9 * rng.uniform(size=(7, 3))).astype(code) for index, code in enumerate(TYPES)}
    arrays |= {
        "flag": np.array(True),
        "text": np.array(["left", "right"]),
        "none": np.zeros((0, 3)),
        "scalar": np.array(2),
    }
    arrays |= {"fortran": np.asfortranarray(rng.normal(size=(7, 3))), "big": rng.normal(size=(1000, 300))}
    save(tmp_path / "a.npz", **arrays)
    found = read_npz((tmp_path / "a.npz").read_bytes(), everything)
    assert set(found) == set(arrays)
    for name, expected in arrays.items():
        np.testing.assert_array_equal(found[name], expected)
        assert found[name].dtype == expected.dtype


@pytest.mark.parametrize("value", [{}, {"v_template": 1}])
def test_an_npy_file_that_is_no_model_is_refused(tmp_path, value):
    np.save(tmp_path / "a.npy", value, allow_pickle=True)
    with pytest.raises(ValueError, match=r"a\.npy: expected the keys"):
        load_body_model(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"b\.npy: npy: expected a dict of arrays"):
        load_body_model(tmp_path / "b.npy")
