"""Exponential and logarithm of rotations: axis-angle vectors to matrices and back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .checks import expect_shape
from .quaternion import matrix_to_quaternion_wxyz


def axis_angle_to_matrix(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Return the rotation by |r| radians about the direction of each axis-angle vector r.

    The map is entire, and value, gradient and Hessian-vector products are right everywhere: at zero, at ±1e-8, at π and
    beyond 2π, in float32 and float64. Rodrigues' formula, in half angles.

    Args:
        axis_angle: (*batch, 3) radians, any length.

    Returns:
        (*batch, 3, 3) rotations, acting on columns.

    Raises:
        ValueError: the last dimension is not 3.

    Example:
        >>> quarter_turn = axis_angle_to_matrix(torch.tensor([0.0, 0.0, torch.pi / 2]))
        >>> torch.allclose(quarter_turn @ torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)
        True
    """
    return axis_angle_to_matrix_and_bend(axis_angle)[0]


def axis_angle_to_matrix_minus_identity(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Return R − I of each axis-angle vector: the pose feature of SMPL, without the rounding of a subtraction.

    As right to second order as `axis_angle_to_matrix`.

    Args:
        axis_angle: (*batch, 3) radians, any length.

    Returns:
        (*batch, 3, 3), accurate relative to its own size for the smallest angles.

    Raises:
        ValueError: the last dimension is not 3.

    Example:
        >>> axis_angle_to_matrix_minus_identity(torch.tensor([0.0, 0.0, 1e-12]))[0, 0]
        tensor(-5.0000e-25)
    """
    return axis_angle_to_matrix_and_bend(axis_angle)[1]


class RodriguesConstants(NamedTuple):
    """What Rodrigues' formula needs beside the vector; made once by those who call it often. All numbers are whole.

    Attributes:
        generators: (3, 9); row k is the cross-product matrix of axis k, flat.
        identity: (3, 3).
        twice: (3, 3), twice the identity.
    """

    generators: Float[Tensor, "3 9"]
    identity: Float[Tensor, "3 3"]
    twice: Float[Tensor, "3 3"]


def rodrigues_constants(dtype: torch.dtype, device: torch.device | None = None) -> RodriguesConstants:
    """Return the constants of `axis_angle_to_matrix_and_bend`."""
    identity = torch.eye(3, dtype=dtype, device=device)
    # Rows of the matrix of axis k are e_i × e_k.
    generators = torch.linalg.cross(identity.expand(3, 3, 3), identity.unsqueeze(1).expand(3, 3, 3))
    return RodriguesConstants(generators.flatten(1), identity, 2 * identity)


def axis_angle_to_matrix_and_bend(
    axis_angle: Float[Tensor, "*batch 3"], constants: RodriguesConstants | None = None
) -> tuple[Tensor, Tensor]:
    """Return both of the above, R and R − I, for the price of one.

    With K the cross product with u = 2 sin(θ/2)·axis, R − I = cos(θ/2) K + K²/2 = K/2 (2 cos(θ/2) I + K): one product,
    and no difference of squares that could cancel.
    """
    row, sinc, cosine = _half_angle_terms(axis_angle)
    generators, identity, twice = constants or rodrigues_constants(axis_angle.dtype, axis_angle.device)
    cross = (sinc * row @ generators).view(*axis_angle.shape, 3)
    bend = (0.5 * cross) @ torch.addcmul(cross, cosine, twice)
    return bend + identity, bend


def axis_angle_to_quaternion_wxyz(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Return the unit quaternion (cos(θ/2), sin(θ/2)·axis) of each axis-angle vector.

    It follows the vector without wrapping: beyond half a turn w is negative. Entire, and as right to second order as
    `axis_angle_to_matrix`.

    Args:
        axis_angle: (*batch, 3) radians, any length.

    Returns:
        (*batch, 4), scalar first.

    Raises:
        ValueError: the last dimension is not 3.

    Example:
        >>> axis_angle_to_quaternion_wxyz(torch.zeros(3))
        tensor([1., 0., 0., 0.])
    """
    row, sinc, cosine = _half_angle_terms(axis_angle)
    return torch.cat((cosine, 0.5 * sinc * row), dim=-1).squeeze(-2)


def _half_angle_terms(axis_angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the vector as a row (*batch, 1, 3), and sin(θ/2)/(θ/2) and cos(θ/2), each (*batch, 1, 1)."""
    expect_shape("axis_angle", axis_angle, 3)
    row = axis_angle.unsqueeze(-2)
    return row, *half_angle_factors((row * row).sum(-1, keepdim=True))


def half_angle_factors(square: Float[Tensor, "*shape"]) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Return sin(θ/2)/(θ/2) and cos(θ/2) of squared angles θ².

    Both are entire in s = θ². Below `threshold` they go on as straight lines in s: the closed forms stop at the
    threshold (clamp) and `below`, which is zero with zero derivative above it, carries them further. The next Taylor
    term stays below the rounding error; its derivatives in the rotation vanish with |r|, so that the line is exact
    enough for second derivatives too: to 1e-12 in float64 and 5e-6 in float32 (of the cosine alone 1e-9 and 5e-5). It
    takes a third fewer operations than a choice of two formulas, and time at batch 1 is all overhead.
    """
    threshold = 8 * torch.finfo(square.dtype).eps ** 0.5
    above = square.clamp(min=threshold)
    below = square - above
    half = above.sqrt() * 0.5
    sinc = torch.add(half.sin() / half, below, alpha=-1 / 24)
    return sinc, torch.add(half.cos(), below, alpha=-1 / 8)


def matrix_to_axis_angle(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Return the axis-angle vector, of length at most π, of each rotation.

    Right to second order at the identity and at every angle below π. At exactly π the axis is known up to its sign and
    one of the two is returned; value and gradient are finite there. Derivatives are those along rotations: how the
    result varies as a matrix leaves the rotations is not defined. The matrix is not checked outside `check_values()`.

    Args:
        matrix: (*batch, 3, 3) rotations.

    Returns:
        (*batch, 3) radians.

    Raises:
        ValueError: the last dimensions are not (3, 3).

    Example:
        >>> matrix_to_axis_angle(torch.eye(3))
        tensor([0., 0., 0.])
    """
    quaternion = matrix_to_quaternion_wxyz(matrix)
    cosine, vector = quaternion[..., :1], quaternion[..., 1:]
    square = (vector * vector).sum(-1, keepdim=True)
    # 2 asin(s)/s in t = s², by series where the closed form's second derivative would lose its digits.
    small = square < 3 * torch.finfo(matrix.dtype).eps ** 0.25
    sine = torch.where(small, 1, square).sqrt()
    closed = 2 * torch.atan2(sine, torch.where(small, 1, cosine)) / sine
    ratio = square / torch.where(small, cosine, 1).square()
    series = 1 + ratio * (-1 / 3 + ratio * (1 / 5 + ratio * (-1 / 7 + ratio * (1 / 9))))
    factor = torch.where(small, 2 / torch.where(small, cosine, 1) * series, closed)
    return factor * vector
