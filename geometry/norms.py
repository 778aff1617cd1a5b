"""Lengths whose first and second derivatives are finite at zero too."""

from __future__ import annotations

import torch
from torch import Tensor


def negligible(dtype: torch.dtype) -> float:
    """Return the length at or below which a vector counts as zero: squares of its inverse must not overflow."""
    return torch.finfo(dtype).tiny ** 0.25


def length(vector: Tensor) -> Tensor:
    """Return the Euclidean length over the last dimension; zero with zero derivatives for a negligible vector."""
    square = (vector * vector).sum(-1)
    regular = square > negligible(vector.dtype) ** 2
    return torch.where(regular, torch.where(regular, square, 1).sqrt(), 0)


def scaled_to_one(vector: Tensor) -> tuple[Tensor, Tensor]:
    """Return the vectors divided by their largest entry, and which of them are negligible (those are not divided).

    The divisor counts as a constant: this is for functions of the direction alone, whose derivatives do not see it.
    Squares of the result neither overflow nor vanish.
    """
    largest = vector.detach().abs().amax(-1, keepdim=True)
    zero = largest <= negligible(vector.dtype)
    return vector / torch.where(zero, 1, largest), zero
