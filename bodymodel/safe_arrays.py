"""Turn raw bytes of a file into arrays, once their declared type and size have been checked against what is there."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_FILE_BYTES = 1 << 30
"""Largest file that is read; the largest official one has about 600 MB."""

MAX_NUMBERS = 1 << 26
"""Most numbers that the arrays taken from one file may hold together; a full SMPL-X file has 30 million."""

MAX_DIMENSIONS = 8

_NUMBER = re.compile(r"[<>=|]?(?:b1|[iu][1248]|f[248])")
_TEXT = re.compile(r"[<>=|]?[US][1-9]\d{0,2}")


@dataclass
class Budget:
    """The numbers that arrays of one file may still hold; what is left only ever falls."""

    left: int = MAX_NUMBERS

    def spend(self, count: int) -> None:
        """Take `count` numbers, before memory for them is; a ValueError says when the file promises too much."""
        self.left -= count
        if self.left < 0:
            raise ValueError(
                f"array sizes: expected at most {MAX_NUMBERS} numbers in a file, got more; "
                "the file is damaged or is not a body model"
            )


def number_type(code: object, *, text: bool = False) -> np.dtype:
    """Return the dtype for a type code such as "<f8"; only booleans, integers and floats pass, and text on request."""
    if isinstance(code, str) and (_NUMBER.fullmatch(code) or (text and _TEXT.fullmatch(code))):
        return np.dtype(code)
    shown = code if isinstance(code, str) and len(code) < 40 else type(code).__name__
    raise ValueError(f"dtype: expected plain numbers, got {shown!r}; save the array with a numeric dtype")


def checked_shape(shape: object) -> tuple[int, ...]:
    """Return `shape` as a tuple of sizes that an array may have."""
    if not isinstance(shape, Sequence) or isinstance(shape, str | bytes) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(
            f"shape: expected at most {MAX_DIMENSIONS} sizes, got {type(shape).__name__}; the file is damaged"
        )
    for size in shape:
        if type(size) is not int or not 0 <= size < 1 << 48:
            raise ValueError("shape: expected sizes >= 0, got something else; the file is damaged")
    return tuple(shape)


def spend_on(dtype: np.dtype, shape: tuple[int, ...], budget: Budget) -> int:
    """Take what an array needs out of the budget and return its size in bytes; it may be anything up to there."""
    count = math.prod(shape)
    budget.spend(count * max(1, dtype.itemsize // 8))
    return count * dtype.itemsize


def array_from_bytes(
    raw: bytes | memoryview, dtype: np.dtype, shape: object, fortran: bool, budget: Budget
) -> np.ndarray:
    """Return a view of `raw` as an array; the bytes must be exactly those that type and shape ask for."""
    sizes = checked_shape(shape)
    expected, got = spend_on(dtype, sizes, budget), memoryview(raw).nbytes
    if expected != got:
        raise ValueError(
            f"array: expected {expected} bytes for shape {sizes}, got {got}; the file is damaged or truncated"
        )
    if expected == 0:
        return np.zeros(sizes, dtype)
    return np.frombuffer(raw, dtype).reshape(sizes, order="F" if fortran else "C")


def expect_integers(name: str, array: Any, low: int, high: int) -> np.ndarray:
    """Return `array` as int64 once it is known to be whole numbers in [low, high)."""
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected integers, got dtype {array.dtype}; the file is damaged")
    if array.size and not (low <= array.min() and array.max() < high):
        raise ValueError(
            f"{name}: expected values {low} to {high - 1}, got {array.min()} to {array.max()}; the file is damaged"
        )
    return array.astype(np.int64)
