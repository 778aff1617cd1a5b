"""Refine the lift with a dictionary: the camera with the shape solved for, then coefficients that are not negative."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..geometry.axis_angle import axis_angle_to_matrix


class Problem(NamedTuple):
    """N views of shapes drawn from a Gaussian: everything is weighted and about its weighted middle.

    Attributes:
        image: (N, 1, K, 2) keypoints, of unit root mean square.
        mean: (N, 1, K, 3) the mean shape, in metres.
        modes: (N, 1, r, K, 3) directions of variation, one standard deviation long.
        told: (N, 1) how many numbers the keypoints tell.
        noise: standard deviation of a keypoint, in metres.
        tilt: standard deviation of the angle between the body's vertical axis and the image's, in radians.
    """

    image: Tensor
    mean: Tensor
    modes: Tensor
    told: Tensor
    noise: float
    tilt: float


class Step(NamedTuple):
    """The energy of N cameras with V starts each, and its Gauss-Newton model in the turn (3) and log size (1).

    Attributes:
        energy: (N, V).
        gradient: (N, V, 4).
        curvature: (N, V, 4, 4).
        spread: (N, V) half the log determinant of the covariance of what the shape leaves open.
        amounts: (N, V, r) of each mode in the most likely shape.
    """

    energy: Tensor
    gradient: Tensor
    curvature: Tensor
    spread: Tensor
    amounts: Tensor


def refine_cameras(problem: Problem, rotation: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return rotations (N, V, 3, 3), sizes (N, V) in metres a unit of the image, and energies (N, V).

    The shape is solved for at every camera (variable projection), so that camera and shape do not wait for each other
    as they do in an alternation. Levenberg-Marquardt, each start on its own.

    Args:
        problem: the views.
        rotation: (N, V, 3, 3) where to start.
        steps: how many are taken.
    """
    # The size at which the mean shape fits best.
    drawn = (problem.mean @ rotation.mT)[..., :2]
    agreement = (drawn * problem.image).sum((-2, -1))
    size = drawn.square().sum((-2, -1)) / agreement.clamp(min=0.1 * drawn.square().sum((-2, -1)))
    log_size = torch.where(size > 0, size, 1).log()
    damping = torch.full_like(log_size, 1e-3)
    state = camera_step(problem, rotation, log_size)
    identity = torch.eye(4, dtype=rotation.dtype, device=rotation.device)
    for _ in range(steps):
        scale = state.curvature.diagonal(dim1=-2, dim2=-1).clamp(min=1e-6)
        damped = state.curvature + damping[..., None, None] * scale[..., None] * identity
        move = -torch.linalg.solve(damped, state.gradient[..., None]).squeeze(-1).clamp(-0.5, 0.5)
        tried_rotation = axis_angle_to_matrix(move[..., :3]) @ rotation
        tried_size = log_size + move[..., 3]
        tried = camera_step(problem, tried_rotation, tried_size)
        better = tried.energy < state.energy
        state = Step(*(_where(better, new, old) for new, old in zip(tried, state, strict=True)))
        rotation = _where(better, tried_rotation, rotation)
        log_size = torch.where(better, tried_size, log_size)
        damping = torch.where(better, damping / 5, damping * 4).clamp(1e-7, 1e5)
    return rotation, log_size.exp(), state.energy + state.spread


def camera_step(problem: Problem, rotation: Tensor, log_size: Tensor) -> Step:
    """Return the energy at cameras (N, V), with the shape at its most likely, and how it changes with the camera."""
    views = rotation.shape[:-2]
    flat = problem.modes.flatten(-3, -2)  # (N, 1, rK, 3): one product turns all modes
    turned = (flat @ rotation[..., :2, :].mT).unflatten(-2, problem.modes.shape[-3:-1]).flatten(-2)  # (N, V, r, 2K)
    design = turned / problem.noise
    covariance = design.mT @ design
    identity = torch.eye(covariance.shape[-1], dtype=rotation.dtype, device=rotation.device)
    factor = torch.linalg.cholesky(covariance + identity)
    mean = problem.mean @ rotation.mT
    sized = log_size.exp()[..., None, None] * problem.image
    residual = ((sized - mean[..., :2]) / problem.noise).flatten(-2)
    explained = torch.cholesky_solve(residual[..., None], factor)
    amounts = (design @ explained).squeeze(-1)
    shape = mean + (
        (amounts[..., None, :] @ problem.modes.flatten(-2)).squeeze(-2).unflatten(-1, mean.shape[-2:]) @ rotation.mT
    )
    # Turning the camera by w moves a point by w × point: its x by (0, z, −y), its y by (−z, 0, x).
    x, y, z = shape.unbind(-1)
    none = torch.zeros_like(x)
    by_turn = torch.stack((torch.stack((none, z, -y), -1), torch.stack((-z, none, x), -1)), dim=-2)
    jacobian = torch.cat((-by_turn, sized[..., None]), dim=-1).flatten(-3, -2) / problem.noise
    white = torch.linalg.solve_triangular(factor, torch.cat((jacobian, residual[..., None]), -1), upper=False)
    slope, error = white[..., :4], white[..., 4]
    # The body's vertical axis should be the image's: y up against y down.
    up = rotation[..., :, 1]
    down = torch.tensor([0.0, -1.0, 0.0], dtype=rotation.dtype, device=rotation.device)
    lean = (up - down) / problem.tilt
    zero = torch.zeros_like(up[..., 0])
    ux, uy, uz = (up / problem.tilt).unbind(-1)
    lean_slope = torch.stack(
        (
            torch.stack((zero, uz, -uy, zero), -1),
            torch.stack((-uz, zero, ux, zero), -1),
            torch.stack((uy, -ux, zero, zero), -1),
        ),
        dim=-2,
    )
    gradient = (slope.mT @ error[..., None] + lean_slope.mT @ lean[..., None]).squeeze(-1)
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=rotation.dtype, device=rotation.device)
    gradient = gradient - problem.told[..., None] * last
    energy = 0.5 * (error.square().sum(-1) + lean.square().sum(-1)) - problem.told * log_size
    curvature = slope.mT @ slope + lean_slope.mT @ lean_slope
    spread = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return Step(energy.expand(views), gradient, curvature, spread, amounts)


def about_middle(points: Tensor, weight: Tensor, share: Tensor) -> Tensor:
    """Return points (N or 1, M, K, D) about their weighted middle, times the root of their weight (N, K)."""
    middle = (share[:, None, :, None] * points).sum(-2, keepdim=True)
    return weight.sqrt()[:, None, :, None] * (points - middle)


def coefficient_problem(
    problem: Problem, rotation: Tensor, size: Tensor, atoms: Tensor, basis: Tensor, mean: Tensor, modes: Tensor
) -> tuple[Tensor, Tensor]:
    """Return target (N, D) and design (N, A, D) of the least squares that the coefficients solve at known cameras.

    Its first 2K rows are the keypoints, the others the amounts of the modes, which are standard normal.

    Args:
        problem: the views.
        rotation: (N, 1, 3, 3).
        size: (N, 1).
        atoms: (N, A, K, 3) weighted and about their middle.
        basis: (A, K, 3) the atoms as they are.
        mean: (K, 3) the mean shape.
        modes: (r, K, 3) orthogonal directions of variation.
    """
    drawn = (atoms @ rotation[..., :2, :].mT).flatten(-2) / problem.noise
    seen = (size[..., None, None] * problem.image).flatten(-3) / problem.noise
    flat = modes.flatten(1)
    variance = flat.square().sum(-1)
    varies = variance > 1e-8 * variance.sum()
    amounts = torch.where(varies, flat.mT / torch.where(varies, variance, 1), 0)
    target = torch.cat((seen, (mean.flatten() @ amounts).expand(len(seen), -1)), dim=-1)
    design = torch.cat((drawn, (basis.flatten(1) @ amounts).expand(len(seen), -1, -1)), dim=-1)
    return target, design


def _where(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(mask.reshape(mask.shape + (1,) * (new.ndim - mask.ndim)), new, old)
