"""The tangent space in which solvers take their steps: parameters add up, but rotations turn from the left."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry import axis_angle_to_matrix, matrix_to_axis_angle
from ..geometry.checks import expect_shape


def left_turns(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Return how axis-angle vectors r change as their rotations turn from the left: d log(exp(d) exp(r)) / dd at 0.

    The logarithm is followed without wrapping, so the derivative is smooth up to, at and beyond half a turn. Only at
    whole turns other than zero, where no such derivative exists, is the value without meaning; it stays finite nearby.

    Args:
        axis_angle: (*B, 3) radians.

    Returns:
        (*B, 3, 3), the inverse of the left Jacobian of the rotation group; the identity at zero.

    Source: Sola et al. (2018), "A micro Lie theory", eq. 146.

    Example:
        >>> left_turns(torch.zeros(3)).equal(torch.eye(3))
        True
    """
    expect_shape("axis_angle", axis_angle, 3)
    square = (axis_angle * axis_angle).sum(-1)[..., None, None]
    small = square < 16 * torch.finfo(axis_angle.dtype).eps ** 0.5
    safe = torch.where(small, 1, square)
    half = safe.sqrt() / 2
    closed = (1 - half / half.tan()) / safe
    factor = torch.where(small, 1 / 12 + square / 720, closed)
    eye = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    # Rows e_i x r are those of the cross product matrix K of r, and rows (e_i x r) x r those of its square.
    cross = torch.linalg.cross(eye.expand(*axis_angle.shape, 3), axis_angle.unsqueeze(-2))
    return eye - cross / 2 + factor * torch.linalg.cross(cross, axis_angle.unsqueeze(-2))


def tangent_jacobian(
    residual: Callable[[dict[str, Tensor]], Float[Tensor, "*batch R"]],
    params: Mapping[str, Tensor],
    rotations: Collection[str] = (),
) -> tuple[Float[Tensor, "*batch R"], Float[Tensor, "*batch R D"]]:
    """Return residuals and their derivatives in the tangent space, by forward differentiation.

    Samples must not depend on each other: one tangent direction serves them all, so that D passes give D columns for
    the whole batch.

    Args:
        residual: maps a dictionary like `params` to (*B, R).
        params: name to tensor (*B, ...).
        rotations: names of those that hold axis-angle vectors (*B, ..., 3).

    Returns:
        residuals (*B, R), and their Jacobian (*B, R, D). Columns follow `params` in order, each flattened; those of a
        rotation are for its turn from the left, R -> exp(d) R.

    Example:
        >>> params = {"x": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
        >>> values, jacobian = tangent_jacobian(lambda p: p["x"].prod(-1, keepdim=True), params)
        >>> jacobian[:, 0]
        tensor([[2., 1.],
                [4., 3.]])
    """
    fixed = {name: value.detach() for name, value in params.items()}
    batch = residual(fixed).dim() - 1
    maps = {name: left_turns(fixed[name]) for name in rotations}
    sizes = [value.shape[batch:].numel() for value in fixed.values()]

    def moved(step: Tensor) -> tuple[Tensor, Tensor]:
        after = {}
        for (name, value), part in zip(fixed.items(), step.split(sizes), strict=True):
            shift = part.reshape(value.shape[batch:])
            after[name] = value + ((maps[name] @ shift.unsqueeze(-1)).squeeze(-1) if name in maps else shift)
        values = residual(after)
        return values, values

    start = next(iter(fixed.values())).new_zeros(sum(sizes))
    jacobian, values = torch.func.jacfwd(moved, has_aux=True)(start)
    return values, jacobian


def retract(
    params: Mapping[str, Tensor], step: Float[Tensor, "n D"], rotations: Collection[str] = ()
) -> dict[str, Tensor]:
    """Return the parameters (n, ...) after a step in their tangent space (n, D).

    Rotations turn from the left, R -> exp(d) R, and are written with at most half a turn. A step of zero leaves a
    sample exactly as it was.
    """
    sizes = [value.shape[1:].numel() for value in params.values()]
    after = {}
    for (name, value), part in zip(params.items(), step.split(sizes, dim=-1), strict=True):
        shift = part.reshape(value.shape)
        if name in rotations:
            turned = matrix_to_axis_angle(axis_angle_to_matrix(shift) @ axis_angle_to_matrix(value))
            after[name] = torch.where((shift == 0).all(-1, keepdim=True), value, turned)
        else:
            after[name] = value + shift
    return after


def unwound(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Return the same rotations with at most half a turn; those that have no more are returned as they are."""
    long = axis_angle.norm(dim=-1, keepdim=True) > math.pi
    return torch.where(long, matrix_to_axis_angle(axis_angle_to_matrix(axis_angle)), axis_angle)


def joined(params: Mapping[str, Tensor]) -> Float[Tensor, "n D"]:
    """Return all numbers of params (n, ...), a row a sample."""
    return torch.cat([value.reshape(len(value), value.shape[1:].numel()) for value in params.values()], dim=-1)
