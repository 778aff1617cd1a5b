"""Weighted means over points, which what has no weight cannot touch: neither its value nor its gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..geometry.checks import broadcast_batches, expect_shape


def expect_points(width: int | str, points: Mapping[str, Tensor], **weights: Tensor | None) -> torch.Size:
    """Return the batch that named points (*B, K, width) and weights (*B, K) broadcast to; K is that of the first."""
    shapes: dict[str, torch.Size] = {}
    count: int | str = "K"
    for name, value in points.items():
        shapes[name] = expect_shape(name, value, count, width)
        count, width = value.shape[-2], value.shape[-1]
    for name, weight in weights.items():
        if weight is not None:
            shapes[name] = expect_shape(name, weight, count)
    return broadcast_batches(shapes)


def read_weight(weight: Tensor | None, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights in the type of `values` and where they count; None counts all of `values` (*B, K, D).

    What is NaN, infinite, negative or too small to be divided by has weight 0.
    """
    if weight is None:
        weight = values.new_ones(values.shape[-2])
    weight = weight.to(values.dtype)
    seen = (weight > torch.finfo(values.dtype).tiny) & (weight < torch.inf)
    return torch.where(seen, weight, 0), seen


def keep(points: Tensor, seen: Tensor) -> Tensor:
    """Return points (*B, K, D) with zeros where they are not seen (*B, K), so that a NaN there reaches no gradient."""
    return torch.where(seen.unsqueeze(-1), points, 0)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return Σ w x / Σ w over the last dimension, 0 with zero gradient where all weights are 0."""
    if not weight.shape[-1]:
        return (weight * values).sum(-1)
    # A common factor of the weights changes no derivative either, so the divisor counts as a constant.
    largest = weight.detach().amax(-1, keepdim=True)
    share = weight / torch.where(largest > 0, largest, 1)
    total = share.sum(-1, keepdim=True)
    return (share / torch.where(total > 0, total, 1) * values).sum(-1)


def from_root(points: Tensor, seen: Tensor, root: int | Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return points (*B, K, 3) relative to the mean of the root joints that are seen, and whether any is (*B, 1)."""
    ids = [root] if isinstance(root, int) else list(root)
    count = points.shape[-2]
    if not ids or not all(-count <= joint < count for joint in ids):
        raise ValueError(f"root: expected indices of the {count} joints, got {root}; name one joint or several")
    has = seen[..., ids].to(points.dtype)
    total = has.sum(-1, keepdim=True)
    origin = (has.unsqueeze(-1) * points[..., ids, :]).sum(-2) / torch.where(total > 0, total, 1)
    return points - origin.unsqueeze(-2), total > 0


def mean_of(values: Tensor, counted: Tensor) -> Tensor:
    """Return the mean over the last dimension of the values that count; NaN, as for all metrics, where none does."""
    counted = counted.expand(values.shape)
    total = counted.sum(-1)
    share = counted.to(values.dtype) / total.clamp(min=1).unsqueeze(-1)
    mean = (share * torch.where(counted, values, 0)).sum(-1)
    return torch.where(total > 0, mean, torch.nan)
