"""Decode COCO's run-length masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

MAX_PIXELS = 1 << 24
"""Largest mask that is decoded."""


def decode_mask(mask: Mapping[str, Any]) -> np.ndarray:
    """Return the mask (H, W), bool, of a COCO run-length encoding.

    Runs of zeros and ones alternate, zeros first, down the columns. They are a list, or a string in which each run is
    written in groups of five bits, lowest first; from the third on, the difference to the run before the last.

    Args:
        mask: "size", [height, width], and "counts", text, bytes or a list of run lengths.

    Raises:
        ValueError: other keys or types, a size over 16 million pixels, or runs that do not add up to the size.

    Source: COCO API, maskApi.

    Example:
        >>> decode_mask({"size": [2, 3], "counts": [1, 2, 3]}).astype(int)
        array([[0, 1, 0],
               [1, 0, 0]])
    """
    size = mask.get("size")
    if not isinstance(size, list | tuple) or len(size) != 2 or any(type(n) is not int or n < 0 for n in size):
        raise ValueError("mask: expected a 'size' of two whole numbers, got another; the mask is damaged")
    height, width = size
    if height * width > MAX_PIXELS:
        raise ValueError(f"mask: expected at most {MAX_PIXELS} pixels, got {height} × {width}; the mask is damaged")
    runs = _runs(mask.get("counts"), height * width)
    if sum(runs) != height * width:
        raise ValueError(f"mask: expected runs that add up to {height * width}, got {sum(runs)}; the mask is damaged")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(height, width, order="F")


def _runs(counts: Any, pixels: int) -> list[int]:
    if isinstance(counts, str):
        # anything beyond ASCII becomes "?", which no other check lets pass unnoticed: the sum goes wrong
        counts = counts.encode("ascii", "replace")
    # one run more than pixels, in up to seven letters each, is the longest that can make sense
    if not isinstance(counts, bytes | list) or len(counts) > 7 * (pixels + 2):
        raise ValueError(
            "mask: expected 'counts' as text or a list, got another or too long a one; the mask is damaged"
        )
    runs = counts if isinstance(counts, list) else _unpack(counts)
    if any(type(run) is not int or not 0 <= run <= pixels for run in runs):
        raise ValueError(f"mask: expected runs of 0 to {pixels} pixels, got others; the mask is damaged")
    return runs


def _unpack(text: bytes) -> list[int]:
    runs: list[int] = []
    value, shift = 0, 0
    for letter in text:
        bits = letter - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("mask: expected letters '0' to 'o', got others; the mask is damaged")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise ValueError("mask: expected a whole last run, got a part of one; the mask is truncated")
    return runs
