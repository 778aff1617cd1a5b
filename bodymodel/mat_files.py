"""Read numeric arrays of MATLAB 5 files without trusting what their headers promise.

SciPy's reader takes memory for as many cells as a file of a hundred bytes claims, so this one is bounded: the file
itself, what its compressed parts unpack to, and every array, which must have exactly the bytes that it asks for.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

MAX_BYTES = 1 << 27
"""Most bytes that a file may hold, and that its compressed parts may unpack to."""

_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_CELL = 1
_NUMERIC = range(6, 16)
_COMPLEX = 0x0800
_MAX_DIMENSIONS = 8


def read_mat(data: bytes, wanted: frozenset[str]) -> dict[str, np.ndarray | list[np.ndarray]]:
    """Return the wanted variables: numeric arrays, and cell arrays as flat lists of numeric arrays, column by column.

    Args:
        data: contents of the file.
        wanted: names to read; other variables are passed over, whatever they are.

    Raises:
        ValueError: not a MATLAB 5 file, damaged, or a wanted variable of another kind.
    """
    if data[:10].startswith(b"MATLAB 7.3") or data[:8] == b"\x89HDF\r\n\x1a\n":
        raise ValueError("file: expected MATLAB 5 (-v6 or -v7), got version 7.3; save it again with save(..., '-v7')")
    if len(data) < 128 or not data.startswith(b"MATLAB 5.0 MAT-file") or data[126:128] not in (b"IM", b"MI"):
        raise ValueError(f"file: expected a MATLAB 5 file, got one that starts with {data[:12]!r}; check the path")
    reader = _Reader("<" if data[126:128] == b"IM" else ">", wanted)
    found: dict[str, np.ndarray | list[np.ndarray]] = {}
    for kind, content in reader.elements(memoryview(data)[128:]):
        if kind == _COMPRESSED:
            kind, content = next(reader.elements(memoryview(reader.unpack(content))), (0, content))
        if kind == _MATRIX:
            name, value = reader.variable(content)
            if value is not None:
                found[name] = value
    return found


@dataclass
class _Reader:
    order: str
    wanted: frozenset[str]
    left: int = MAX_BYTES

    def unpack(self, packed: memoryview) -> bytes:
        stream = zlib.decompressobj()
        try:
            content = stream.decompress(packed, self.left + 1)
        except zlib.error:
            raise ValueError("file: expected compressed data, got other data; the file is damaged") from None
        self.left -= len(content)
        if self.left < 0:
            raise ValueError(f"file: expected at most {MAX_BYTES >> 20} MiB, got more; the file is damaged or hostile")
        return content

    def elements(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Yield type and contents of each element."""
        at = 0
        while at < len(data):
            if len(data) - at < 8:
                raise ValueError("file: expected whole elements, got a truncated one; the file is damaged")
            kind, size = struct.unpack(f"{self.order}II", data[at : at + 8])
            if kind >> 16:
                kind, size, begin, step = kind & 0xFFFF, kind >> 16, at + 4, 8
                fits = size <= 4
            else:
                begin = at + 8
                # only what is not compressed is padded to whole eights
                step = 8 + (size if kind == _COMPRESSED else -(-size // 8) * 8)
                fits = size <= len(data) - begin
            if not fits:
                raise ValueError(f"file: expected an element of {size} bytes, got fewer; the file is truncated")
            yield kind, data[begin : begin + size]
            at += step

    def variable(self, content: memoryview) -> tuple[str, np.ndarray | list[np.ndarray] | None]:
        """Return name and value of a matrix element; the value is None where the name is not wanted."""
        parts = self.elements(content)
        flags, shape, name = self._head(parts)
        if name not in self.wanted:
            return name, None
        try:
            if flags & 0xFF == _CELL:
                cells = [self._cell(kind, cell) for kind, cell in parts]
                if len(cells) != math.prod(shape):
                    raise ValueError(f"expected {math.prod(shape)} cells, got {len(cells)}; the file is damaged")
                return name, cells
            return name, self._numbers(flags, shape, parts)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def _cell(self, kind: int, content: memoryview) -> np.ndarray:
        if kind != _MATRIX:
            raise ValueError(f"expected arrays in the cells, got an element of type {kind}; the file is damaged")
        parts = self.elements(content)
        flags, shape, _ = self._head(parts)
        return self._numbers(flags, shape, parts)

    def _head(self, parts: Iterator[tuple[int, memoryview]]) -> tuple[int, tuple[int, ...], str]:
        head = [next(parts, (0, memoryview(b""))) for _ in range(3)]
        (_, flags), (kind, sizes), (_, name) = head
        if len(flags) != 8 or kind != 5 or len(sizes) % 4 or not 8 <= len(sizes) <= 4 * _MAX_DIMENSIONS:
            raise ValueError("file: expected flags, sizes and name of an array, got others; the file is damaged")
        shape = struct.unpack(f"{self.order}{len(sizes) // 4}i", sizes)
        if min(shape) < 0:
            raise ValueError(f"file: expected sizes >= 0, got {shape}; the file is damaged")
        return struct.unpack(f"{self.order}I", flags[:4])[0], shape, bytes(name).decode("latin1")

    def _numbers(self, flags: int, shape: tuple[int, ...], parts: Iterator[tuple[int, memoryview]]) -> np.ndarray:
        if flags & 0xFF not in _NUMERIC or flags & _COMPLEX:
            raise ValueError("expected real numbers, got text, a structure or another kind; this is another file")
        kind, content = next(parts, (0, memoryview(b"")))
        if kind not in _TYPES:
            raise ValueError(f"expected numbers, got an element of type {kind}; the file is damaged")
        dtype = np.dtype(self.order + _TYPES[kind])
        size = math.prod(shape) * dtype.itemsize
        if len(content) != size:
            raise ValueError(f"expected {size} bytes for {shape}, got {len(content)}; the file is damaged")
        array = np.frombuffer(content, dtype).reshape(shape, order="F")
        return array.astype(dtype.newbyteorder("="))
