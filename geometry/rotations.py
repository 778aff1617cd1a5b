"""What holds for every rotation format: reading any of them, and the angle between two rotations."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .axis_angle import axis_angle_to_matrix
from .checks import broadcast_batches, expect_shape, expect_values
from .norms import length
from .orthonormal import rotation_6d_to_matrix
from .quaternion import quaternion_wxyz_to_matrix

RotationFormat = Literal["axis_angle", "matrix", "rotation_6d", "quaternion_wxyz"]

ORTHONORMAL_TOLERANCE = 1e-4


def to_matrix(x: Tensor, rotation: RotationFormat) -> Float[Tensor, "*batch 3 3"]:
    """Return the matrices of rotations in the named format; the format is never guessed from the shape.

    Args:
        x: "axis_angle" (*batch, 3), "matrix" (*batch, 3, 3), "rotation_6d" (*batch, 6) as two columns, or
            "quaternion_wxyz" (*batch, 4). Matrices are returned as they are; inside `check_values()` they must be
            proper rotations to within 1e-4.
        rotation: the format of `x`.

    Returns:
        (*batch, 3, 3) rotations.

    Raises:
        ValueError: an unknown format, or a shape that does not fit it.

    Example:
        >>> to_matrix(torch.zeros(24, 3), "axis_angle").shape
        torch.Size([24, 3, 3])
    """
    if rotation == "axis_angle":
        return axis_angle_to_matrix(x)
    if rotation == "matrix":
        expect_shape("matrix", x, 3, 3)
        expect_values("matrix", x, _is_rotation, "proper rotations", "use nearest_rotation or gram_schmidt")
        return x
    if rotation == "rotation_6d":
        return rotation_6d_to_matrix(x)
    if rotation == "quaternion_wxyz":
        return quaternion_wxyz_to_matrix(x)
    raise ValueError(
        f"rotation: expected axis_angle, matrix, rotation_6d or quaternion_wxyz, got {rotation!r}; name the format of x"
    )


def _is_rotation(matrix: Tensor) -> Tensor:
    eye = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    orthonormal = ((matrix @ matrix.mT - eye).abs() < ORTHONORMAL_TOLERANCE).all(-1).all(-1)
    return orthonormal & (torch.linalg.det(matrix) > 0)


def geodesic_angle(a: Float[Tensor, "*#batch 3 3"], b: Float[Tensor, "*#batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Return the angle, 0 to π, of the rotation that takes `a` to `b`.

    The value is exact from 0 to π, both included. As a distance it has a kink at 0 (`a` equal to `b`) and at π; value,
    gradient and second derivatives are finite there, and at 0 the gradient is zero. Angles below 3e-10 in float32 and
    1e-77 in float64 count as 0. Everywhere else it is right to second order.

    Args:
        a: (*batch, 3, 3) rotations.
        b: (*batch, 3, 3) rotations; the batches broadcast.

    Returns:
        (*batch) radians.

    Raises:
        ValueError: the last dimensions are not (3, 3), or the batches do not broadcast.

    Example:
        >>> geodesic_angle(torch.eye(3), torch.diag(torch.tensor([-1.0, -1.0, 1.0])))
        tensor(3.1416)
    """
    broadcast_batches({"a": expect_shape("a", a, 3, 3), "b": expect_shape("b", b, 3, 3)})
    # With D = aᵀ b, vee(D − Dᵀ)/2 is minus half the sum of the cross products of rows, a_k × b_k. Subtracting a_k from
    # b_k does not change them, and makes them exactly zero for equal matrices.
    sine = length(torch.linalg.cross(*torch.broadcast_tensors(a, b - a)).sum(-2) * 0.5)
    cosine = ((a * b).sum((-2, -1)) - 1) * 0.5
    return torch.atan2(sine, cosine)
