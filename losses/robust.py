"""Penalties of a residual, from squared to bounded, right to second order."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry.norms import negligible

Penalty: TypeAlias = Literal["l1", "l2", "huber", "geman_mcclure"]
Sigma: TypeAlias = int | float | Float[Tensor, "..."]


def l1(residual: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return |r|. At 0, where it has a corner, first and second derivative are 0."""
    return residual.abs()


def l2(residual: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return r², not halved.

    Beyond finfo.max^0.45 (2e17 in float32) it keeps its value, so that a sum of such squares stays finite.
    """
    return _within_squares(residual).square()


def huber(residual: Float[Tensor, "*shape"], sigma: Sigma) -> Float[Tensor, "*shape"]:
    """Return r²/2 up to |r| = sigma and sigma·(|r| − sigma/2) beyond (Huber 1964).

    Args:
        residual: r.
        sigma: where the square turns into a line, in the unit of r; a number or a tensor that broadcasts against r.
    """
    sigma = torch.as_tensor(sigma, dtype=residual.dtype, device=residual.device)
    near = torch.clamp(residual, -sigma, sigma)
    return near * (residual - near / 2)


def geman_mcclure(residual: Float[Tensor, "*shape"], sigma: Sigma) -> Float[Tensor, "*shape"]:
    """Return sigma² r²/(sigma² + r²): r² near 0, never more than sigma² (Geman & McClure 1987; SMPLify's form).

    Args:
        residual: r.
        sigma: the residual at which half of the bound is reached, in the unit of r; a number or a tensor that
            broadcasts against r.
    """
    sigma = torch.as_tensor(sigma, dtype=residual.dtype, device=residual.device)
    residual = _within_squares(residual)
    # sigma·r/√(sigma² + r²), squared last: no square of a large residual overflows on the way.
    return (residual / torch.hypot(torch.ones_like(residual), residual / sigma)).square()


def penalise(residual: Float[Tensor, "*shape"], penalty: Penalty, sigma: Sigma) -> Float[Tensor, "*shape"]:
    """Return the penalty called `penalty` of each number; "l1" and "l2" make no use of `sigma`.

    Raises:
        ValueError: an unknown name.
    """
    if penalty == "l1":
        return l1(residual)
    if penalty == "l2":
        return l2(residual)
    if penalty == "huber":
        return huber(residual, sigma)
    if penalty == "geman_mcclure":
        return geman_mcclure(residual, sigma)
    raise _unknown(penalty)


def penalise_length(
    residual: Float[Tensor, "*shape D"], penalty: Penalty, sigma: Sigma = 1.0
) -> Float[Tensor, "*shape"]:
    """Return the penalty of the Euclidean length of each vector: it knows no axes, and an outlier is a whole point.

    All but "l1" are right to second order at the zero vector too; there "l1", the length itself, has a corner and zero
    derivatives.

    Args:
        residual: (*shape, D) vectors.
        penalty: "l1", "l2", "huber" or "geman_mcclure".
        sigma: scale of the last two, in the unit of the residual; a number or a tensor that broadcasts against the
            lengths.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> penalise_length(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), "huber", sigma=1.0)
        tensor([4.5000, 0.1250])
    """
    if penalty == "l1":
        return distance(residual)
    if penalty == "l2":
        return l2(residual).sum(-1)
    if penalty not in ("huber", "geman_mcclure"):
        raise _unknown(penalty)
    sigma = torch.as_tensor(sigma, dtype=residual.dtype, device=residual.device)
    if penalty == "huber":
        size = distance(residual)
        far = size > sigma
        near = l2(torch.where(far.unsqueeze(-1), 0, residual)).sum(-1)
        return torch.where(far, sigma * (size - sigma / 2), near / 2)
    residual = _within_squares(residual)
    # √(1 + |r|²/sigma²), one axis after the other: never 0, and no square overflows.
    size = torch.ones_like(residual[..., 0])
    for each in (residual / sigma.unsqueeze(-1)).unbind(-1):
        size = torch.hypot(size, each)
    return (residual / size.unsqueeze(-1)).square().sum(-1)


def distance(vector: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape"]:
    """Return the Euclidean length, over the whole range of the type; 0 with zero derivatives for a negligible vector.

    Negligible is an entry of at most finfo.tiny^0.25 (3e-10 in float32). NaN gives NaN.
    """
    # The length is linear in the scale of the vector, so a divisor that counts as a constant changes no derivative.
    largest = vector.detach().abs().amax(-1, keepdim=True)
    regular = ~(largest <= negligible(vector.dtype))
    scaled = torch.where(regular, vector, 1) / torch.where(regular, largest, 1)
    return torch.where(regular.squeeze(-1), largest.squeeze(-1) * scaled.square().sum(-1).sqrt(), 0)


def _within_squares(residual: Tensor) -> Tensor:
    largest = torch.finfo(residual.dtype).max ** 0.45
    return residual.clamp(-largest, largest)


def _unknown(penalty: str) -> ValueError:
    return ValueError(f"penalty: expected l1, l2, huber or geman_mcclure, got {penalty!r}; check the name")
