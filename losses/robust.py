"""Penalties of a residual, from squared to bounded, right to second order."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Penalty: TypeAlias = Literal["l1", "l2", "huber", "geman_mcclure"]
Sigma: TypeAlias = int | float | Float[Tensor, "..."]


def l1(residual: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return |r|. At 0, where it has a corner, first and second derivative are 0."""
    return residual.abs()


def l2(residual: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return r², not halved.

    Beyond finfo.max^0.45 (2e17 in float32) it keeps its value, so that a sum of such squares stays finite.
    """
    largest = torch.finfo(residual.dtype).max ** 0.45
    return residual.clamp(-largest, largest).square()


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
    raise ValueError(f"penalty: expected l1, l2, huber or geman_mcclure, got {penalty!r}; check the name")
