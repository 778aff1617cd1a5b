"""Forms of camera arguments: one number or one per axis, and divisors kept away from zero."""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

TINY = 1e-9

Number: TypeAlias = int | float
PerSample: TypeAlias = Number | Float[Tensor, "*#batch"]
PerAxis: TypeAlias = Number | tuple[Number, Number] | Float[Tensor, "..."]


def per_sample(name: str, value: Number | Tensor, like: Tensor) -> Tensor:
    """Return `value` as a tensor of the type and device of `like`, shape () or as given."""
    if isinstance(value, Tensor):
        return value.to(like)
    if isinstance(value, (int, float)):
        return like.new_full((), value)
    raise TypeError(f"{name}: expected a number or a tensor, got {type(value).__name__}; give one number a sample")


def per_axis(name: str, value: Number | tuple[Number, Number] | Tensor, batch_dims: int, like: Tensor) -> Tensor:
    """Return `value` with a last dimension of 2, one number for x and one for y.

    A number or a tensor of at most `batch_dims` dimensions holds for both axes; a pair of numbers, or a tensor of more
    dimensions, gives x and y in its last dimension.

    Raises:
        TypeError: none of these.
        ValueError: a tensor of more dimensions whose last one is not 2.
    """
    if isinstance(value, tuple):
        return like.new_tensor(value)
    number = per_sample(name, value, like)
    if number.ndim > batch_dims:
        if number.shape[-1] != 2:
            raise ValueError(
                f"{name}: expected (*batch,) or (*batch, 2) with {batch_dims} batch dimensions, "
                f"got {tuple(number.shape)}; give one number a sample, or one for x and one for y"
            )
        return number
    return number[..., None].expand(*number.shape, 2)


def away_from_zero(value: Tensor) -> Tensor:
    """Return `value`, or 1e-9 with zero gradient where its magnitude is below that: a divisor that stays finite."""
    return torch.where(value.abs() < TINY, value.new_full((), TINY), value)
