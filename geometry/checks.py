"""Check arguments: shapes always, values only inside `check_values()`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_checking_values = False


@contextmanager
def check_values() -> Iterator[None]:
    """Check values as well as shapes inside the block: finite numbers, proper rotations.

    Value checks read the data, which stalls a GPU, so they are off by default and never part of a compiled graph.

    Example:
        >>> from physique.geometry import check_values, to_matrix
        >>> with check_values():
        ...     rotation = to_matrix(torch.eye(3), "matrix")
    """
    global _checking_values
    before, _checking_values = _checking_values, True
    try:
        yield
    finally:
        _checking_values = before


def values_are_checked() -> bool:
    """Return whether this is inside `check_values()`."""
    return _checking_values


def expect_values(name: str, value: Tensor, test: Callable[[Tensor], Tensor], expected: str, advice: str) -> None:
    """Raise ValueError inside `check_values()` when `test(value)` is false anywhere; do nothing outside."""
    if _checking_values and not bool(test(value).all()):
        raise ValueError(f"{name}: expected {expected}, got other values; {advice}")


def expect_finite(name: str, value: Tensor) -> None:
    """Raise ValueError inside `check_values()` when `value` holds NaN or infinity."""
    if _checking_values:
        expect_values(name, value, torch.isfinite, "finite numbers", "look for NaN or infinity upstream")


def expect_shape(name: str, value: Tensor, *event: int | str, advice: str = "") -> torch.Size:
    """Return the batch shape of `value`, whose last dimensions must be `event`.

    Args:
        name: the argument's name, for the error.
        value: tensor of shape (*batch, *event).
        event: the sizes expected; a string is a size that may be anything, and names it in the error.
        advice: what to do, appended to the error; a flattened value gets its own advice.

    Raises:
        TypeError: `value` is not a tensor.
        ValueError: the last dimensions differ from `event`.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}; use torch.as_tensor({name})")
    shape, count = value.shape, len(event)
    start = len(shape) - count
    if start >= 0:
        if shape[start:] == event:
            return shape[:start]
        for got, expected in zip(shape[start:], event, strict=True):
            if not isinstance(expected, str) and got != expected:
                break
        else:
            return shape[:start]
    raise ValueError(_shape_error(name, shape, event, advice))


def _shape_error(name: str, shape: torch.Size, event: tuple[int | str, ...], advice: str) -> str:
    expected = ", ".join(("*batch", *map(str, event)))
    text = f"{name}: expected ({expected}), got {tuple(shape)}"
    sizes = [size for size in event if isinstance(size, int)]
    if not advice and len(sizes) == len(event) > 1 and len(shape) > 0:
        product = 1
        for size in sizes:
            product *= size
        if shape[-1] == product:
            advice = f"use {name}.unflatten(-1, {tuple(sizes)})"
    if not advice:
        advice = "the last dimensions must match, dimensions before them are the batch"
    return f"{text}; {advice}"


def broadcast_batches(shapes: dict[str, torch.Size]) -> torch.Size:
    """Return the shape that the named batch shapes broadcast to; a mismatch raises a ValueError that lists them."""
    distinct = list(shapes.values())
    if not distinct:
        return torch.Size()
    first = distinct[0]
    if all(shape == first for shape in distinct):
        return first
    try:
        return torch.broadcast_shapes(*distinct)
    except RuntimeError:
        listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise ValueError(
            f"batch shapes: expected shapes that broadcast, got {listed}; give each argument the same batch or 1"
        ) from None
