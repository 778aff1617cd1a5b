"""The container of binary glTF 2.0: arrays become accessors, and accessors and JSON become one file."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

_COMPONENTS = {"u1": 5121, "u2": 5123, "u4": 5125, "f4": 5126}
_TYPES = {(): "SCALAR", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963


class GlbWriter:
    """Collects what goes into a .glb.

    Attributes:
        json: the document; callers add nodes, meshes, skins and animations.
    """

    def __init__(self) -> None:
        self.json: dict[str, Any] = {"asset": {"version": "2.0", "generator": "physique"}}
        self.json |= {"bufferViews": [], "accessors": []}
        self._binary = bytearray()

    def accessor(self, array: np.ndarray, *, target: int | None = None, bounds: bool = False) -> int:
        """Add an array and return the index of its accessor.

        Args:
            array: (N, ...) of unsigned integers or float32; a matrix is stored by columns, as glTF wants.
            target: ARRAY_BUFFER for what is given by vertex, ELEMENT_ARRAY_BUFFER for indices.
            bounds: whether to state the least and the greatest value, which glTF asks of positions and times.
        """
        if array.ndim == 3:
            array = array.transpose(0, 2, 1)
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        view = {"buffer": 0, "byteOffset": len(self._binary), "byteLength": array.nbytes}
        if target is not None:
            view["target"] = target
        self._binary += array.tobytes()
        self._binary += bytes(-len(self._binary) % 4)
        accessor = {
            "bufferView": len(self.json["bufferViews"]),
            "componentType": _COMPONENTS[array.dtype.str[1:]],
            "count": array.shape[0],
            "type": _TYPES[array.shape[1:]],
        }
        if bounds:
            accessor["min"] = np.atleast_1d(array.min(axis=0)).tolist()
            accessor["max"] = np.atleast_1d(array.max(axis=0)).tolist()
        self.json["bufferViews"].append(view)
        self.json["accessors"].append(accessor)
        return len(self.json["accessors"]) - 1

    def contents(self) -> bytes:
        """Return the file: a header, the document padded with spaces, and the arrays."""
        document = self.json | {"buffers": [{"byteLength": len(self._binary)}]}
        text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        size = 12 + 8 + len(text) + 8 + len(self._binary)
        header = struct.pack("<4sII", b"glTF", 2, size)
        return b"".join(
            (header, struct.pack("<I4s", len(text), b"JSON"), text, struct.pack("<I4s", len(self._binary), b"BIN\0"))
        ) + bytes(self._binary)
