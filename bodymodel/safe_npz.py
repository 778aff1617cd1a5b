"""Read .npz and .npy files without trusting what their headers promise."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Callable

import numpy as np

from .pickle_opcodes import unpickle
from .pickle_values import PickledArrays
from .safe_arrays import Budget, array_from_bytes, checked_shape, number_type, spend_on
from .safe_pickle import arrays_of_dict

NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGIC = b"PK"

_MAX_HEADER = 10_000
_MAX_DIRECTORY = 1 << 20
_CHUNK = 1 << 20
MEMBER_NAME = re.compile(r"[\w .+-]{1,200}")
_HEADER = re.compile(
    r"\{\s*'descr':\s*'([^']{2,8})',\s*'fortran_order':\s*(True|False),"
    r"\s*'shape':\s*\(((?:\s*\d{1,15}L?\s*,)*(?:\s*\d{1,15}L?)?)\s*\),?\s*\}\s*"
)


def read_npz(data: bytes, wanted: Callable[[str], bool], budget: Budget | None = None) -> dict[str, np.ndarray]:
    """Return the wanted arrays of an .npz archive.

    An array must have exactly the bytes that its header asks for, and all of them together must fit the budget; other
    members are not unpacked. A wanted array of Python objects is read by `safe_pickle`, which runs nothing.

    Args:
        data: contents of the file.
        wanted: says which keys to read.
        budget: the numbers that the arrays may hold.

    Raises:
        ValueError: a damaged archive, compression other than deflate, names that repeat or hold a path, a header that
            disagrees with the contents, or an object that is not an array.
    """
    budget = budget or Budget()
    arrays: dict[str, np.ndarray] = {}
    # zipfile reads the whole directory at once, and makes an object of every few bytes: bound it.
    with zipfile.ZipFile(_SmallReads(data)) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename or not MEMBER_NAME.fullmatch(name):
                raise ValueError("npz: expected members called NAME.npy, got others; this is not a body model file")
            if not wanted(name):
                continue
            if name in arrays:
                raise ValueError(f"npz: expected each name once, got {name} again; the file is damaged or hostile")
            try:
                arrays[name] = _read_member(archive, member, budget)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    return arrays


def read_npy(data: bytes, wanted: Callable[[str], bool], budget: Budget | None = None) -> dict[str, np.ndarray]:
    """Return the wanted arrays of a dict that `numpy.save` wrote as one object array.

    Raises:
        ValueError: anything but a dict, or one of the causes that `read_npz` lists.
    """
    budget = budget or Budget()
    code, _, _, start = _parse_header(data)
    if "O" in code:
        top = unpickle(data[start:])
        state = getattr(top, "state", None)
        if isinstance(state, tuple) and state and isinstance(state[-1], list) and len(state[-1]) == 1:
            inner = state[-1][0]
            if isinstance(inner, dict):
                return arrays_of_dict(inner, wanted, budget)
    raise ValueError("npy: expected a dict of arrays, got another array; this is not a body model file")


class _SmallReads(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > _MAX_DIRECTORY:
            raise ValueError("npz: expected a small directory of names, got a large one; this is not a body model file")
        return super().read(size)


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, budget: Budget) -> np.ndarray:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
        raise ValueError("expected a stored or deflated array, got another compression; save it with numpy.savez")
    with archive.open(member) as stream:
        contents = bytearray(stream.read(_CHUNK))
        code, shape, fortran, start = _parse_header(contents)
        # Both sizes are claims. Only when they agree, and fit the budget, is the rest unpacked, and never more of it.
        size = member.file_size - start
        if "O" in code:
            budget.spend(size // 8)
        elif size != (expected := spend_on(number_type(code, text=True), checked_shape(shape), budget)):
            raise ValueError(f"expected {expected} bytes for shape {shape}, got {size}; the file is damaged or hostile")
        while chunk := stream.read(_CHUNK):
            contents += chunk
    if "O" in code:
        return PickledArrays(budget).array(unpickle(bytes(contents[start:])))
    return array_from_bytes(memoryview(contents)[start:], number_type(code, text=True), shape, fortran, Budget())


def _parse_header(contents: bytes | bytearray) -> tuple[str, tuple[int, ...], bool, int]:
    """Return type code, shape, order and where the contents begin.

    NumPy writes this header in one fixed form; reading only that form leaves nothing for a hostile one to use.
    """
    if len(contents) < 12 or not contents.startswith(NPY_MAGIC):
        raise ValueError("expected a .npy array, got other data; the file is damaged")
    form, start = ("<H", 10) if contents[6] == 1 else ("<I", 12)
    (length,) = struct.unpack(form, contents[8:start])
    if length > _MAX_HEADER or start + length > len(contents):
        raise ValueError("expected a short .npy header, got a long or truncated one; the file is damaged")
    match = _HEADER.fullmatch(bytes(contents[start : start + length]).decode("latin1"))
    if match is None:
        raise ValueError("expected a .npy header of a plain array, got another; save the array with a numeric dtype")
    code, fortran, sizes = match.groups()
    shape = tuple(int(size.strip(" L")) for size in sizes.split(",") if size.strip())
    return code, shape, fortran == "True", start + length
