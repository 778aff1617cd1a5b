"""The convex relaxation of lifting with a dictionary: spectral norms instead of a rotation, solved by ADMM."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry.checks import broadcast_batches, expect_shape
from ..geometry.orthonormal import nearest_rotation


class ConvexLift(NamedTuple):
    """What the relaxation finds: a scaled 2 × 3 matrix for each atom, where one rotation for all was wanted.

    Attributes:
        matrices: (*batch, A, 2, 3), of low spectral norm, most of them zero.
        outliers: (*batch, K, 2) what the outlier term took off the keypoints; zero without it.
        translation: (*batch, 2) where the origin of the atoms falls, in the unit of the keypoints.
        residual: (*batch) the larger of the relative primal and dual residuals; below the tolerance when converged.
    """

    matrices: Float[Tensor, "*batch A 2 3"]
    outliers: Float[Tensor, "*batch K 2"]
    translation: Float[Tensor, "*batch 2"]
    residual: Float[Tensor, "*batch"]


def spectral_prox(matrix: Float[Tensor, "*#batch 2 3"], level: Float[Tensor, "*#batch"]) -> Float[Tensor, "*batch 2 3"]:
    """Return argmin over X of ½‖X − matrix‖² + level · ‖X‖₂, the proximal operator of the spectral norm.

    With singular values w1 ≥ w2 it clips them at θ = max(w1 − level, (w1 + w2 − level) / 2, 0). No decomposition is
    taken: the 2 × 2 Gram matrix has its projectors in closed form. Finite everywhere, zero for zero.

    Args:
        matrix: (*batch, 2, 3).
        level: (*batch), not negative.

    Raises:
        ValueError: the last dimensions are not (2, 3), or the batches do not broadcast.

    Source: Zhou et al. (2015), "3D shape estimation from 2D landmarks: a convex relaxation approach", section 3.2.

    Example:
        >>> spectral_prox(torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), torch.tensor(1.0))
        tensor([[2., 0., 0.],
                [0., 1., 0.]])
    """
    broadcast_batches({"matrix": expect_shape("matrix", matrix, 2, 3), "level": level.shape})
    gram = matrix @ matrix.mT
    half_sum = (gram[..., 0, 0] + gram[..., 1, 1]) / 2
    half_gap = torch.hypot((gram[..., 0, 0] - gram[..., 1, 1]) / 2, gram[..., 0, 1])
    largest = (half_sum + half_gap).sqrt()
    # det of the Gram matrix by the cross product: its difference of products would cancel where the rows are parallel.
    area = torch.linalg.vector_norm(torch.linalg.cross(matrix[..., 0, :], matrix[..., 1, :]), dim=-1)
    smallest = torch.minimum(area / torch.where(largest > 0, largest, 1), largest)
    limit = torch.maximum(largest - level, (largest + smallest - level) / 2).clamp(min=0)
    keep_largest, keep_smallest = _clip_factor(largest, limit), _clip_factor(smallest, limit)
    identity = torch.eye(2, dtype=matrix.dtype, device=matrix.device)
    # Projector on the direction of the smallest singular value; with equal values both factors agree and it is idle.
    isolated = half_gap > 0
    projector = ((half_sum + half_gap)[..., None, None] * identity - gram) / torch.where(isolated, 2 * half_gap, 1)[
        ..., None, None
    ]
    projector = torch.where(isolated[..., None, None], projector, 0)
    return (
        keep_largest[..., None, None] * identity + (keep_smallest - keep_largest)[..., None, None] * projector
    ) @ matrix


def _clip_factor(value: Tensor, limit: Tensor) -> Tensor:
    return torch.where(value > limit, limit / torch.where(value > 0, value, 1), 1)


def convex_lift(
    keypoints: Float[Tensor, "*#batch K 2"],
    basis: Float[Tensor, "A K 3"],
    confidence: Float[Tensor, "*#batch K"] | None = None,
    *,
    sparsity: float = 0.1,
    outlier_level: float | None = None,
    iterations: int = 150,
    tolerance: float = 1e-3,
) -> ConvexLift:
    """Solve min over M, E, t of ½‖√w (W − E − Σᵢ Mᵢ Bᵢ − t 1ᵀ)‖² + λ Σᵢ ‖Mᵢ‖₂ + β Σ w |E| by ADMM.

    The matrices of spectral norm up to c are the convex hull of those with orthonormal rows of length c, so this is
    the tightest convex problem that holds every cᵢ R̄. It is solved for keypoints of unit root mean square about their
    middle, so λ and β do not depend on the size of the image. Samples are independent: each adapts its own step and
    stops moving once it has converged.

    Args:
        keypoints: (*batch, K, 2) W, in any unit.
        basis: (A, K, 3) the atoms B.
        confidence: (*batch, K) w ≥ 0; one when None. A keypoint with weight zero is not read; one that is not finite
            is as if it had none.
        sparsity: λ over the mean norm of an atom.
        outlier_level: β, beyond which a residual is taken to be an outlier, over the root mean square of the
            keypoints; None leaves E at zero.
        iterations: how many steps are taken; there is no early exit, hence no wait for the device.
        tolerance: relative residual at which a sample stops.

    Raises:
        ValueError: shapes that do not fit.

    Source: Zhou et al. (2015), section 3.3; the step doubles or halves when one residual is ten times the other.

    Example:
        >>> basis = torch.randn(3, 8, 3, generator=torch.Generator().manual_seed(0))
        >>> found = convex_lift(100 * basis[1, :, :2], basis)
        >>> found.matrices.square().sum((-2, -1)).argmax().item()
        1
    """
    expect_shape("basis", basis, "A", "K", 3)
    points = basis.shape[-2]
    batches = {"keypoints": expect_shape("keypoints", keypoints, points, 2)}
    if confidence is None:
        confidence = keypoints.new_ones(points)
    batches["confidence"] = expect_shape("confidence", confidence, points)
    batch = broadcast_batches(batches)
    weight = torch.where(keypoints.isfinite().all(-1), confidence, 0).expand(*batch, points)
    seen = torch.where((weight > 0)[..., None], keypoints, 0)
    share = weight / torch.where(weight.sum(-1, keepdim=True) > 0, weight.sum(-1, keepdim=True), 1)
    middle = (share[..., None] * seen).sum(-2, keepdim=True)
    root = weight.sqrt()
    target = (root[..., None] * (seen - middle)).mT
    unit = (target.square().sum((-2, -1)) / weight.sum(-1).clamp(min=torch.finfo(weight.dtype).tiny) / 2).sqrt()
    unit = torch.where(unit > 0, unit, 1)[..., None, None]
    # Atoms about the same middle, weighted: rows of the design run over (atom, axis), columns over keypoints.
    design = basis.mT.flatten(0, 1)
    atom_middle = share @ design.mT
    design = root[..., None, :] * (design - atom_middle[..., None])
    matrices, outliers, residual = _admm(
        target / unit, design, root, sparsity, outlier_level, iterations, tolerance, _atom_size(basis)
    )
    outliers = outliers * unit
    drawn = (matrices @ atom_middle[..., None]).squeeze(-1) * unit.squeeze(-1)
    translation = middle.squeeze(-2) - drawn - (share[..., None, :] * outliers).sum(-1)
    return ConvexLift(
        (matrices * unit).unflatten(-1, (-1, 3)).movedim(-2, -3),
        outliers.mT.expand(*batch, points, 2),
        translation.expand(*batch, 2),
        residual.expand(batch),
    )


def _atom_size(basis: Tensor) -> Tensor:
    return basis.square().sum((-2, -1)).sqrt().mean()


def _admm(
    target: Tensor,
    design: Tensor,
    root: Tensor,
    sparsity: float,
    outlier_level: float | None,
    iterations: int,
    tolerance: float,
    size: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return matrices (*B, 2, 3A), outliers (*B, 2, K) and the residual, for weighted centred keypoints (*B, 2, K)."""
    # (F Fᵀ + μ)⁻¹ through the K × K matrix Fᵀ F: one small decomposition serves every μ.
    values, vectors = torch.linalg.eigh(design.mT @ design)
    turned = design @ vectors
    level = sparsity * size
    blocks = target.new_zeros(*target.shape[:-1], design.shape[-2])
    matrices, dual, outliers = blocks, blocks, torch.zeros_like(target)
    penalty = 1 / target.abs().mean((-2, -1)).clamp(min=1e-6)[..., None, None]
    residual = torch.full_like(penalty, torch.inf)
    root, seen = root[..., None, :], root[..., None, :] > 0
    share = root.square() / root.square().sum(-1, keepdim=True).clamp(min=torch.finfo(root.dtype).tiny)
    taken = outliers
    for _ in range(iterations):
        active = residual > tolerance
        left = (target - taken) @ design.mT + penalty * matrices + dual
        free = (left - (left @ turned / (values.clamp(min=0)[..., None, :] + penalty)) @ turned.mT) / penalty
        proposal = (free - dual / penalty).unflatten(-1, (-1, 3)).movedim(-2, -3)
        shrunk = spectral_prox(proposal, (level / penalty).squeeze(-1)).movedim(-3, -2).flatten(-2)
        gap = shrunk - free
        primal = _norm(gap) / torch.maximum(_norm(free), _norm(shrunk)).clamp(min=1e-6)
        stepped = penalty * _norm(shrunk - matrices) / _norm(dual + penalty * gap).clamp(min=1e-6)
        if outlier_level is not None:
            # The translation leaves out what the outliers are.
            middle = (share * outliers).sum(-1, keepdim=True)
            left_over = (target - free @ design) / torch.where(seen, root, 1) + middle
            soft = torch.where(seen, left_over.sign() * (left_over.abs() - outlier_level).clamp(min=0), 0)
            stepped = torch.maximum(stepped, _norm(soft - outliers) / _norm(soft).clamp(min=1e-6))
            outliers = torch.where(active, soft, outliers)
            taken = root * (outliers - (share * outliers).sum(-1, keepdim=True))
        dual = torch.where(active, dual + penalty * gap, dual)
        matrices = torch.where(active, shrunk, matrices)
        residual = torch.where(active, torch.maximum(primal, stepped), residual)
        factor = torch.where(primal > 10 * stepped, 2.0, torch.where(stepped > 10 * primal, 0.5, 1.0))
        penalty = torch.where(active, penalty * factor.to(penalty), penalty)
    return matrices, outliers, residual[..., 0, 0]


def _norm(blocks: Tensor) -> Tensor:
    return torch.linalg.vector_norm(blocks, dim=(-2, -1), keepdim=True)


def common_rotation(matrices: Float[Tensor, "*batch A 2 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Return the rotation whose first two rows are nearest to the sum of the matrices; the identity for zeros.

    Args:
        matrices: (*batch, A, 2, 3) of a `ConvexLift`, with coefficients that are not negative.
    """
    expect_shape("matrices", matrices, "A", 2, 3)
    rows = matrices.sum(-3)
    size = torch.linalg.vector_norm(rows, dim=(-2, -1), keepdim=True)
    rows = rows / torch.where(size > 0, size, 1)
    third = torch.linalg.cross(rows[..., 0, :], rows[..., 1, :])
    return nearest_rotation(torch.cat((rows, third[..., None, :]), dim=-2))
