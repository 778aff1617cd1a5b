"""Rotations from matrices and vectors that are none: Gram-Schmidt, 6D, and the nearest rotation."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .axis_angle import axis_angle_to_matrix
from .checks import expect_shape
from .norms import scaled_to_one

Layout = Literal["columns", "rows", "interleaved"]


def gram_schmidt(matrix: Float[Tensor, "*batch 3 N"]) -> Float[Tensor, "*batch 3 3"]:
    """Return the rotation whose first two columns are the first two columns of `matrix`, orthonormalised.

    The third column is the cross product of the two, so that det = +1; a third column of the input is not read. A
    positive factor on a column changes nothing. Derivatives are exact wherever the columns are neither zero nor
    collinear. There the result is still a proper rotation, with finite first and second derivatives: a zero column
    (no entry above `finfo.tiny ** 0.25`: 3e-10 in float32, 1e-77 in float64) is read with a coordinate axis added to
    it, and so is a second column that is collinear with the first to within rounding. Zero gives the identity.

    Args:
        matrix: (*batch, 3, N), N = 2 or 3.

    Returns:
        (*batch, 3, 3) rotations.

    Raises:
        ValueError: the last dimensions are not (3, 2) or (3, 3).

    Source: Zhou et al. (2019), "On the continuity of rotation representations in neural networks".

    Example:
        >>> gram_schmidt(torch.tensor([[2.0, 1.0], [0.0, 3.0], [0.0, 0.0]]))
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """
    expect_shape("matrix", matrix, 3, "N")
    if matrix.shape[-1] not in (2, 3):
        raise ValueError(
            f"matrix: expected (*batch, 3, 2) or (*batch, 3, 3), got {tuple(matrix.shape)}; the columns are the vectors"
        )
    eye = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    first, first_is_zero = scaled_to_one(matrix[..., 0])
    x = _unit(torch.where(first_is_zero, first + eye[0], first))
    second, _ = scaled_to_one(matrix[..., 1])
    rest = _without(second, x)
    # Shorter than this it is rounding error alone: lean on the axis that is farthest from x.
    collinear = (rest * rest).sum(-1, keepdim=True) <= (8 * torch.finfo(matrix.dtype).eps) ** 2
    axis = (x.abs().argmin(-1, keepdim=True) == torch.arange(3, device=matrix.device)).to(matrix.dtype)
    rest = torch.where(collinear, rest + axis, rest)
    # Projecting twice makes y orthogonal to x in every digit, however little of the second column is left.
    y = _unit(_without(rest, x))
    return torch.stack((x, y, torch.linalg.cross(x, y)), dim=-1)


def _unit(vector: Tensor) -> Tensor:
    return vector / (vector * vector).sum(-1, keepdim=True).sqrt()


def _without(vector: Tensor, unit: Tensor) -> Tensor:
    return vector - (vector * unit).sum(-1, keepdim=True) * unit


def rotation_6d_to_matrix(
    rotation_6d: Float[Tensor, "*batch 6"], layout: Layout = "columns"
) -> Float[Tensor, "*batch 3 3"]:
    """Return the rotation of each 6D vector, by `gram_schmidt`.

    Args:
        rotation_6d: (*batch, 6), two vectors a1, a2, of any length.
        layout: how the six numbers are stored. "columns": [a1; a2], the first two columns of the matrix, one after the
            other (Zhou et al., 4D-Humans). "rows": the first two rows, one after the other (PyTorch3D). "interleaved":
            the (3, 2) matrix of the two columns, read row by row (SPIN, CLIFF, VPoser).

    Returns:
        (*batch, 3, 3) rotations; the identity for zeros. Singular where `gram_schmidt` is.

    Raises:
        ValueError: the last dimension is not 6, or the layout is unknown.

    Example:
        >>> rotation_6d_to_matrix(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])).equal(torch.eye(3))
        True
    """
    expect_shape("rotation_6d", rotation_6d, 6)
    _expect_layout(layout)
    if layout == "interleaved":
        return gram_schmidt(rotation_6d.unflatten(-1, (3, 2)))
    matrix = gram_schmidt(rotation_6d.unflatten(-1, (2, 3)).mT)
    return matrix.mT if layout == "rows" else matrix


def matrix_to_rotation_6d(matrix: Float[Tensor, "*batch 3 3"], layout: Layout = "columns") -> Float[Tensor, "*batch 6"]:
    """Return the 6D vector of each rotation in the given layout; linear, hence right to every order.

    Args:
        matrix: (*batch, 3, 3) rotations.
        layout: as in `rotation_6d_to_matrix`.

    Returns:
        (*batch, 6).

    Raises:
        ValueError: the last dimensions are not (3, 3), or the layout is unknown.

    Example:
        >>> matrix_to_rotation_6d(torch.eye(3), layout="interleaved")
        tensor([1., 0., 0., 1., 0., 0.])
    """
    expect_shape("matrix", matrix, 3, 3)
    _expect_layout(layout)
    if layout == "rows":
        return matrix[..., :2, :].flatten(-2)
    columns = matrix[..., :, :2]
    return columns.flatten(-2) if layout == "interleaved" else columns.mT.flatten(-2)


def _expect_layout(layout: str) -> None:
    if layout not in ("columns", "rows", "interleaved"):
        raise ValueError(
            f"layout: expected columns, rows or interleaved, got {layout!r}; check where the 6D comes from"
        )


def nearest_rotation(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Return the rotation nearest to each matrix in the Frobenius norm (orthogonal Procrustes, det = +1).

    With singular values s1 ≥ s2 ≥ s3, s3 taken negative where det < 0, this is U diag(1, 1, ±1) Vᵀ. It is right to
    second order wherever s2 + s3 > 0: at equal singular values (the identity) and at det < 0 too. It is not unique
    where s2 + s3 = 0: a reflection with s2 = s3, rank 1, or zero. There one of the nearest rotations is returned, with
    finite value and gradient (no steeper than about eps^(−2/3) over the largest entry); zero gives the identity.

    Args:
        matrix: (*batch, 3, 3), any scale.

    Returns:
        (*batch, 3, 3) rotations.

    Raises:
        ValueError: the last dimensions are not (3, 3).

    Source: Levinson et al. (2020), "An analysis of SVD for deep rotation estimation".

    Example:
        >>> nearest_rotation(2.0 * torch.eye(3)).round(decimals=6).equal(torch.eye(3))
        True
    """
    expect_shape("matrix", matrix, 3, 3)
    scaled = scaled_to_one(matrix.flatten(-2))[0].unflatten(-1, (3, 3))
    # The derivatives of an SVD have 1/(si² − sj²), although the rotation is smooth at si = sj. So the SVD gives the
    # value as a constant, and two Newton steps from it, which do not move it, give the derivatives: each step squares
    # the error, also that of the constant's missing derivatives, hence two are exact to second order.
    rotation = _special_svd(scaled.detach())
    return _newton_step(_newton_step(rotation, scaled), scaled)


def _special_svd(matrix: Tensor) -> Tensor:
    left, _, right = torch.linalg.svd(matrix)
    sign = torch.linalg.det(left @ right).sign()[..., None]
    left = torch.cat((left[..., :2], left[..., 2:] * sign[..., None]), dim=-1)
    return left @ right


def _newton_step(rotation: Tensor, matrix: Tensor) -> Tensor:
    """Turn each rotation R towards symmetry of S = Rᵀ M, where tr S is largest: (tr S · I − S) ω = vee(S − Sᵀ)."""
    product = rotation.mT @ matrix
    symmetric = (product + product.mT) * 0.5
    skew = product.mT - product
    asymmetry = torch.stack((skew[..., 1, 2], skew[..., 2, 0], skew[..., 0, 1]), dim=-1)
    eye = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    trace = symmetric.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    # The damping keeps the step finite at ties; elsewhere the second step makes up for what it takes off the first.
    damping = torch.finfo(matrix.dtype).eps ** (2 / 3)
    step = torch.linalg.solve((trace + damping) * eye - symmetric, asymmetry.unsqueeze(-1)).squeeze(-1)
    return rotation @ axis_angle_to_matrix(step)
