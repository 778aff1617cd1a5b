"""Learn a dictionary whose sums with few, non-negative coefficients give the poses of people."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry.checks import broadcast_batches, expect_shape


def sparse_codes(
    target: Float[Tensor, "*#batch D"],
    design: Float[Tensor, "*#batch A D"],
    sparsity: float,
    *,
    iterations: int = 100,
    start: Float[Tensor, "*#batch A"] | None = None,
) -> Float[Tensor, "*batch A"]:
    """Return argmin over x ≥ 0 of ½‖target − xᵀ design‖² + sparsity · Σ x, by FISTA.

    Args:
        target: (*batch, D).
        design: (*batch, A, D), one row an atom.
        sparsity: λ, in the squared unit of the target.
        iterations: how many steps are taken.
        start: (*batch, A) coefficients to start from; zeros when None.

    Raises:
        ValueError: shapes that do not fit.

    Source: Beck & Teboulle (2009), "A fast iterative shrinkage-thresholding algorithm for linear inverse problems".

    Example:
        >>> sparse_codes(torch.tensor([3.0, -1.0]), torch.eye(2), 0.5)
        tensor([2.5000, 0.0000])
    """
    width = target.shape[-1] if target.ndim else 0
    batches = {"target": expect_shape("target", target, width), "design": expect_shape("design", design, "A", width)}
    if start is not None:
        batches["start"] = expect_shape("start", start, design.shape[-2])
    batch = broadcast_batches(batches)
    target = target.expand(*batch, width)
    code = target.new_zeros(*batch, design.shape[-2]) if start is None else start.expand(*batch, -1)
    gram = design.mT @ design if design.shape[-2] > width else design @ design.mT
    bound = torch.linalg.eigvalsh(gram)[..., -1:].clamp(min=torch.finfo(design.dtype).tiny)
    ahead, momentum = code, 1.0
    for _ in range(iterations):
        off = _product(ahead, design) - target
        moved = (ahead - (_product(off, design.mT) + sparsity) / bound).clamp(min=0)
        grown = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead, code, momentum = moved + (momentum - 1) / grown * (moved - code), moved, grown
    return code


def _product(row: Tensor, matrix: Tensor) -> Tensor:
    """Return row vectors times matrices; one product for all rows where the matrix is shared."""
    if matrix.ndim == 2:
        return row @ matrix
    return (row[..., None, :] @ matrix).squeeze(-2)


def learn_dictionary(
    points: Float[Tensor, "N K 3"],
    num_atoms: int,
    *,
    sparsity: float = 0.02,
    rounds: int = 40,
    seed: int = 0,
) -> Float[Tensor, "A K 3"]:
    """Return atoms B that minimise ½‖Y − X B‖² + λ Σ X over X ≥ 0, by turns over codes and atoms.

    Every atom has the root mean square norm of the poses, so a coefficient of one is a whole body. An atom that no pose
    uses becomes the pose that is worst explained.

    Args:
        points: (N, K, 3) the poses Y, all centred alike (at the hips), in one frame of the body.
        num_atoms: A, at most N.
        sparsity: λ over the mean squared norm of a pose.
        rounds: how often codes and atoms take turns.
        seed: chooses the poses that the atoms start from.

    Raises:
        ValueError: shapes that do not fit, or fewer poses than atoms.

    Source: Zhou et al. (2016), "Sparse representation for 3D shape estimation"; the update of the atoms is that of
    Mairal et al. (2010), "Online learning for matrix factorization and sparse coding".

    Example:
        >>> poses = torch.randn(20, 4, 3, generator=torch.Generator().manual_seed(0))
        >>> learn_dictionary(poses, 8, rounds=2).shape
        torch.Size([8, 4, 3])
    """
    expect_shape("points", points, "N", "K", 3)
    if not 0 < num_atoms <= len(points):
        raise ValueError(
            f"num_atoms: expected 1 to {len(points)}, the number of poses, got {num_atoms}; give more poses"
        )
    poses = points.flatten(1)
    size = poses.square().sum(-1).mean().sqrt()
    poses = poses / size
    order = torch.randperm(len(poses), generator=torch.Generator().manual_seed(seed))
    atoms = _unit(poses[order[:num_atoms].to(poses.device)])
    codes = poses.new_zeros(len(poses), num_atoms)
    for _ in range(rounds):
        codes = sparse_codes(poses, atoms, sparsity, iterations=30, start=codes)
        atoms = _update_atoms(poses, codes, atoms)
    return (atoms * size).unflatten(-1, points.shape[1:])


def _update_atoms(poses: Tensor, codes: Tensor, atoms: Tensor) -> Tensor:
    """Return each atom in turn as the best of its norm, given the codes and the atoms before it."""
    overlap, projected = codes.mT @ codes, codes.mT @ poses
    usage = overlap.diagonal()
    idle = usage <= 1e-6 * usage.mean()
    worst = (poses - codes @ atoms).square().sum(-1).topk(len(atoms)).indices
    updated = list(atoms)
    for index in range(len(atoms)):
        others = projected[index] - overlap[index] @ torch.stack(updated)
        updated[index] = _unit(atoms[index] + others / usage[index].clamp(min=torch.finfo(usage.dtype).tiny))
    return torch.where(idle[:, None], _unit(poses[worst]), torch.stack(updated))


def _unit(rows: Tensor) -> Tensor:
    size = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / torch.where(size > 0, size, 1)
