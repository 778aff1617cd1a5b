"""What the readers of text motion files share: lines with numbers for errors, checked numbers, Euler angles."""

from __future__ import annotations

import io
import warnings
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry import axis_angle_to_matrix

MAX_BYTES = 1 << 28
"""Largest motion file that is read; an hour of the largest skeletons has about half of it."""

MAX_LINE = 1 << 20
MAX_JOINTS = 1000
MAX_JOINT_FRAMES = 1 << 24
"""Most joints times frames of a motion: more than an hour of 31 joints at 120 frames a second."""

_LARGEST = 1e9


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Return the contents of a motion file, or say why not."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a motion file, got no file; check the path")
    if not path.is_file():
        raise ValueError(f"{path}: expected a motion file, got a folder or a device; give one file")
    size = path.stat().st_size
    if size > limit:
        raise ValueError(f"{path}: expected at most {limit >> 20} MiB, got {size >> 20}; split the file")
    contents = path.read_bytes()
    if not contents:
        raise ValueError(f"{path}: expected a motion file, got an empty file; download it again")
    return contents


class Lines:
    """The lines of a text file that are not blank, one after the other.

    Attributes:
        path: the file.
        number: of the line that `next` gave last, from 1.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        raw = io.BytesIO(read_bytes(path))
        self._stream = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="backslashreplace")

    def next(self) -> str | None:
        """Return the next line that is not blank, without the space around it; None at the end of the file."""
        while line := self._stream.readline(MAX_LINE):
            self.number += 1
            if len(line) == MAX_LINE or "\0" in line:
                self.fail("lines of text", "other data", "this is not a motion file of this kind")
            if stripped := line.strip():
                return stripped
        return None

    def fail(self, expected: str, got: str, advice: str) -> NoReturn:
        """Raise a ValueError that names the file and the line."""
        raise ValueError(f"{self.path}: line {self.number}: expected {expected}, got {got}; {advice}")

    def floats(self, words: Sequence[str], count: int, what: str) -> list[float]:
        """Return `count` words as numbers, or raise."""
        values = numbers(words)
        if values is None or len(values) != count:
            self.fail(f"{count} numbers for {what}", shorten(" ".join(words)), "the file is damaged")
        return values


class Frames:
    """The numbers of the frames read so far.

    Attributes:
        count: of the frames.
    """

    def __init__(self, lines: Lines, width: int, *, strict: bool) -> None:
        self.count = 0
        self._lines, self._width, self._strict = lines, width, strict
        self._numbers = array("d")

    def append(self, values: Sequence[float]) -> None:
        """Add a frame."""
        self._numbers.extend(values)
        self.count += 1

    def damaged(self, expected: str, got: str) -> None:
        """Raise at a damaged frame; warn instead where the caller of `load_motion` takes the frames before it."""
        if self._strict or self.count == 0:
            advice = f"the file is damaged: pass strict=False to read the {self.count} frames before"
            self._lines.fail(
                expected, got, advice if self.count else "the file is damaged, or belongs to another skeleton"
            )
        where = f"{self._lines.path}: line {self._lines.number}"
        # damaged, the reader of frames, the reader of the file, load_motion, its caller.
        warnings.warn(f"{where}: expected {expected}, got {got}; read the {self.count} frames before", stacklevel=5)

    def values(self) -> Float[Tensor, "T C"]:
        """Return all frames (T, C)."""
        return torch.tensor(self._numbers, dtype=torch.float64).reshape(self.count, self._width)


def numbers(words: Sequence[str]) -> list[float] | None:
    """Return the words as numbers if all are finite and of a sensible size, else None."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        return None
    # Python reads 1_000 as a number; no file means that.
    sensible = all(-_LARGEST < value < _LARGEST for value in values) and not any("_" in word for word in words)
    return values if sensible else None


def shorten(text: str) -> str:
    """Return `text` quoted, and cut where it is long, for an error."""
    return repr(text if len(text) <= 40 else text[:40] + "…")


def turn_in_order(axes: str, angles: Float[Tensor, "T n"]) -> Float[Tensor, "T 3 3"]:
    """Return the product of rotations about coordinate axes, the first leftmost: "zyx" is Rz Ry Rx.

    Args:
        axes: letters x, y and z, any number.
        angles: (T, n) radians, one column an axis.
    """
    units = torch.eye(3, dtype=angles.dtype)
    turned = units.expand(angles.shape[0], 3, 3)
    for axis, angle in zip(axes, angles.unbind(-1), strict=True):
        turned = turned @ axis_angle_to_matrix(angle[:, None] * units["xyz".index(axis)])
    return turned
