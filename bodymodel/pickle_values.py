"""Work out the arrays that inert objects of a pickle stand for: NumPy, SciPy sparse and chumpy, without chumpy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .inert import Inert
from .safe_arrays import Budget, array_from_bytes, checked_shape, expect_integers, number_type

MAX_DEPTH = 32

_BINARY = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.true_divide}


@dataclass(eq=False)
class PickledArrays:
    """Evaluates stand-ins to arrays, each once, within one budget of numbers."""

    budget: Budget
    known: dict[int, np.ndarray] = field(default_factory=dict)

    def named(self, name: str, value: object) -> np.ndarray:
        """Return the array that the entry `name` of the file stands for; errors begin with the name."""
        try:
            return self.array(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def array(self, value: object, depth: int = 0) -> np.ndarray:
        """Return the array that `value` stands for.

        Raises:
            ValueError: a value that stands for no array of numbers, nesting deeper than `MAX_DEPTH`, or sizes,
                indices and types that do not fit together.
        """
        if depth > MAX_DEPTH:
            raise ValueError(
                "expected expressions of little depth, got a deep or circular one; the file is damaged or hostile"
            )
        if type(value) in (bool, int, float):
            array = np.asarray(value)
            number_type(array.dtype.str)
            return array
        if isinstance(value, list | tuple):
            return self._of_list(value)
        if not isinstance(value, Inert):
            raise ValueError(f"expected an array, got {type(value).__name__}; this is not a body model file")
        if id(value) not in self.known:
            self.known[id(value)] = self._of_inert(value, depth)
        return self.known[id(value)]

    def _of_inert(self, value: Inert, depth: int) -> np.ndarray:
        match value.made_by.kind:
            case "array":
                return self._of_ndarray(value.state, depth)
            case "scalar":
                dtype, raw = _exactly(value.args, 2)
                return array_from_bytes(_raw(raw), _dtype(dtype), (), False, self.budget)
            case "buffer":
                raw, dtype, shape, order = _exactly(value.args, 4)
                return array_from_bytes(_raw(raw), _dtype(dtype), shape, order == "F", self.budget)
            case "sparse":
                return self._of_sparse(value.made_by.name[:3], _state(value), depth)
            case "chumpy":
                return self._of_chumpy(value.made_by.name, _state(value), depth)
        raise ValueError(f"expected an array, got {value.made_by.name}; this is not a body model file")

    def _of_ndarray(self, state: object, depth: int) -> np.ndarray:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise ValueError("expected an array with its contents, got one without; the file is damaged")
        shape, dtype, fortran, raw = state[-4:]
        if isinstance(raw, list):
            # NumPy keeps an array of objects as a list: one wrapped object, or numbers one by one.
            inner = (
                self.array(raw[0], depth + 1) if checked_shape(shape) == () and len(raw) == 1 else self._of_list(raw)
            )
            return inner if checked_shape(shape) == () else self._reshaped(inner, shape, "F" if fortran else "C")
        return array_from_bytes(_raw(raw), _dtype(dtype), shape, bool(fortran), self.budget)

    def _of_list(self, value: Any) -> np.ndarray:
        leaves: dict[int, int] = {}

        def count(item: Any, level: int) -> int:
            if not isinstance(item, list | tuple):
                if type(item) not in (bool, int, float):
                    raise ValueError(f"expected numbers, got {type(item).__name__}; this is not a body model file")
                return 1
            if level > 4:
                raise ValueError("expected lists of at most 4 levels, got more; the file is damaged or hostile")
            if id(item) not in leaves:
                leaves[id(item)] = 1 + sum(count(inner, level + 1) for inner in item)
            return leaves[id(item)]

        # Lists may share their parts, so that few bytes stand for many numbers: count before NumPy expands them.
        self.budget.spend(count(value, 1))
        array = np.array(value)
        number_type(array.dtype.str)
        return array

    def _of_sparse(self, form: str, state: dict[str, Any], depth: int) -> np.ndarray:
        shape = checked_shape(state.get("_shape", state.get("shape")))
        if len(shape) != 2:
            raise ValueError("expected a sparse matrix with two sizes, got another; the file is damaged")
        self.budget.spend(math.prod(shape))
        data = self.array(_entry(state, "data"), depth + 1)
        if form == "coo":
            pair = state["coords"] if "coords" in state else (_entry(state, "row"), _entry(state, "col"))
            rows, columns = (self.array(part, depth + 1) for part in _exactly(pair, 2))
        else:
            major = shape[1] if form == "csc" else shape[0]
            starts = self.array(_entry(state, "indptr"), depth + 1)
            minor = self.array(_entry(state, "indices"), depth + 1)
            starts = expect_integers("indptr", starts, 0, minor.size + 1)
            if starts.shape != (major + 1,) or starts[0] != 0 or (np.diff(starts) < 0).any():
                raise ValueError(f"expected {major + 1} ascending indptr from 0, got others; the file is damaged")
            majors = np.repeat(np.arange(major), np.diff(starts))
            data, minor = data[: majors.size], minor[: majors.size]
            rows, columns = (minor, majors) if form == "csc" else (majors, minor)
        if not data.ndim == rows.ndim == columns.ndim == 1 or not data.size == rows.size == columns.size:
            raise ValueError("expected as many sparse values as indices, got others; the file is damaged")
        rows = expect_integers("sparse row", rows, 0, shape[0])
        columns = expect_integers("sparse column", columns, 0, shape[1])
        dense = np.zeros(shape, data.dtype if data.dtype.kind == "f" else np.float64)
        np.add.at(dense, (rows, columns), data)
        return dense

    def _of_chumpy(self, name: str, state: dict[str, Any], depth: int) -> np.ndarray:
        if name == "Ch":
            return self.array(_entry(state, "x"), depth + 1)
        if name in _BINARY:
            first, second = (self.array(_entry(state, key), depth + 1) for key in "ab")
            self.budget.spend(math.prod(np.broadcast_shapes(first.shape, second.shape)))
            return _BINARY[name](first, second)
        if name not in ("Select", "reshape", "transpose"):
            raise ValueError(f"expected a chumpy array, got the chumpy operation {name}; save its value as an array")
        source = self.array(_entry(state, "a"), depth + 1)
        if name == "transpose":
            axes = state.get("axes")
            if axes is not None and sorted(_exactly(axes, source.ndim)) != list(range(source.ndim)):
                raise ValueError("expected axes that fit the array, got others; the file is damaged")
            return source.transpose(axes)
        if name == "reshape":
            return self._reshaped(source, _entry(state, "newshape"), "C")
        flat = self._reshaped(source, source.size, "C")
        ids = self.array(_entry(state, "idxs"), depth + 1)
        self.budget.spend(2 * ids.size)
        picked = flat[expect_integers("Select idxs", ids, 0, flat.size)]
        shape = state.get("preferred_shape")
        return picked if shape is None else self._reshaped(picked, shape, "C")

    def _reshaped(self, array: np.ndarray, shape: object, order: Any) -> np.ndarray:
        sizes = checked_shape((shape,) if isinstance(shape, int) else shape)
        if math.prod(sizes) != array.size:
            raise ValueError(f"expected {array.size} numbers for the new shape, got {sizes}; the file is damaged")
        if not array.flags.c_contiguous:
            self.budget.spend(array.size)
        return array.reshape(sizes, order=order)


def _dtype(value: object) -> np.dtype:
    if not isinstance(value, Inert) or value.made_by.kind != "dtype" or not value.args:
        raise ValueError("expected a NumPy dtype, got another object; the file is damaged")
    code, order = value.args[0], "="
    if isinstance(value.state, tuple) and len(value.state) > 1:
        order = value.state[1]
    dtype = number_type(code)
    return dtype.newbyteorder(order) if order in ("<", ">") else dtype


def _raw(value: object) -> bytes | memoryview:
    """Return array contents as bytes, whichever way the writer's Python kept them."""
    if isinstance(value, Inert) and value.made_by.kind == "encode":
        text, *codec = value.args
        if isinstance(text, str) and codec in ([], ["latin1"], ["latin-1"]):
            return text.encode("latin1")
    if isinstance(value, Inert) and value.made_by.name in ("bytes", "bytearray"):
        return _raw(value.args[0]) if value.args and not isinstance(value.args[0], Inert) else b""
    if isinstance(value, str):
        return value.encode("latin1")
    if isinstance(value, bytes | memoryview):
        return value
    raise ValueError(f"expected bytes, got {type(value).__name__}; the file is damaged")


def _state(value: Inert) -> dict[str, Any]:
    if not isinstance(value.state, dict):
        raise ValueError(f"expected {value.made_by.name} with its attributes, got none; the file is damaged")
    return value.state


def _entry(state: dict[str, Any], key: str) -> object:
    if key not in state:
        raise ValueError(f"expected the attribute {key}, got none; the file is damaged")
    return state[key]


def _exactly(values: Any, count: int) -> Any:
    if not isinstance(values, list | tuple) or len(values) != count:
        raise ValueError(f"expected {count} arguments, got another number; the file is damaged")
    return values
