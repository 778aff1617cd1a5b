"""Unit quaternions, scalar first (w, x, y, z), to rotation matrices and back."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .checks import expect_shape
from .norms import scaled_to_one


def quaternion_wxyz_to_matrix(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Return the rotation of each quaternion (w, x, y, z), normalised first; q and −q give the same one.

    Right to second order at every quaternion but zero, which gives the identity with finite derivatives; one with no
    entry above `finfo.tiny ** 0.25` (3e-10 in float32, 1e-77 in float64) counts as zero.

    Args:
        quaternion: (*batch, 4), scalar first, any length.

    Returns:
        (*batch, 3, 3) rotations.

    Raises:
        ValueError: the last dimension is not 4.

    Example:
        >>> quaternion_wxyz_to_matrix(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """
    expect_shape("quaternion", quaternion, 4)
    scaled, zero = scaled_to_one(quaternion)
    eye = torch.eye(4, dtype=quaternion.dtype, device=quaternion.device)
    scaled = torch.where(zero, scaled + eye[0], scaled)
    unit = scaled / (scaled * scaled).sum(-1, keepdim=True).sqrt()
    w, vector = unit[..., None, :1], unit[..., None, 1:]
    cross = torch.linalg.cross(eye[:3, :3].expand(*unit.shape[:-1], 3, 3), vector)
    return eye[:3, :3] + 2 * (w * cross + torch.linalg.cross(cross, vector))


def matrix_to_quaternion_wxyz(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Return the unit quaternion (w, x, y, z), with w ≥ 0, of each rotation.

    Right to second order at every angle below π. At exactly π, where q and −q both have w = 0, one of the two is
    returned and value and gradient are finite. Derivatives are those along rotations. Markley (2008), "Unit quaternion
    from rotation matrix": of the four multiples of q that are linear in the matrix, the longest is normalised.

    Args:
        matrix: (*batch, 3, 3) rotations.

    Returns:
        (*batch, 4), scalar first.

    Raises:
        ValueError: the last dimensions are not (3, 3).

    Example:
        >>> matrix_to_quaternion_wxyz(torch.diag(torch.tensor([1.0, -1.0, -1.0])))
        tensor([0., 1., 0., 0.])
    """
    expect_shape("matrix", matrix, 3, 3)
    xx, xy, xz, yx, yy, yz, zx, zy, zz = matrix.flatten(-2).unbind(-1)
    wx, wy, wz = zy - yz, xz - zx, yx - xy
    sxy, sxz, syz = xy + yx, xz + zx, yz + zy
    # fmt: off
    multiples = torch.stack(
        (
            1 + xx + yy + zz, wx, wy, wz,
            wx, 1 + xx - yy - zz, sxy, sxz,
            wy, sxy, 1 - xx + yy - zz, syz,
            wz, sxz, syz, 1 - xx - yy + zz,
        ),
        dim=-1,
    ).unflatten(-1, (4, 4))
    # fmt: on
    longest = multiples.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None]
    chosen = multiples.gather(-2, longest.expand(*matrix.shape[:-2], 1, 4)).squeeze(-2)
    chosen = torch.where(chosen[..., :1] < 0, -chosen, chosen)
    return chosen / (chosen * chosen).sum(-1, keepdim=True).sqrt()
