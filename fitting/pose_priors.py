"""What a fit asks of a prior on poses: an energy, and if it has them poses to start from."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from .tangent import left_turns, tangent_jacobian

POSES_AT_ONCE = 256


@runtime_checkable
class PosePrior(Protocol):
    """Anything with `energy(body_pose)`: low for poses that people take.

    The priors of `physique.priors` are such, and so is any object or module with that method. One that also has
    `start_poses` (M, n, 3) tells a fit from which poses to start; one with `residuals` (*B, R), whose squares sum to
    the energy, is solved for by least squares, any other by Adam.
    """

    def energy(self, body_pose: Tensor) -> Tensor:
        """Return one number (*B,) a pose (*B, n, 3), axis-angle; differentiable."""
        ...


def prior_residuals(prior: PosePrior, body_pose: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch R"]:
    """Return the residuals of a prior that has them: its energy is the sum of their squares."""
    return prior.residuals(body_pose)  # pyright: ignore[reportAttributeAccessIssue]


def prior_bends(prior: PosePrior, body_pose: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch D D"]:
    """Return half the curvature of a prior's energy about poses, JᵀJ of its residuals, by the turns of the joints."""
    batch = body_pose.shape[:-2]
    flat = body_pose.reshape(-1, *body_pose.shape[-2:])
    bends = []
    # So many poses at once that their derivatives stay small.
    for few in flat.split(POSES_AT_ONCE):
        _, jacobian = tangent_jacobian(lambda p: prior_residuals(prior, p["pose"]), {"pose": few}, ("pose",))
        bends.append(jacobian.mT @ jacobian)
    return torch.cat(bends).unflatten(0, batch)


def prior_slope(prior: PosePrior, body_pose: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch D"]:
    """Return half the slope of a prior's energy by the turns of the joints."""
    with torch.enable_grad():
        pose = body_pose.detach().requires_grad_()
        (slope,) = torch.autograd.grad(prior.energy(pose).sum(), pose)
    return (left_turns(body_pose).mT @ slope.unsqueeze(-1)).flatten(-3) / 2


def starting_poses(
    prior: PosePrior | None, starts: Tensor | None, relaxed: Float[Tensor, "n 3"]
) -> Float[Tensor, "M n 3"]:
    """Return the poses to start from: `starts`, else the prior's own, else the relaxed one.

    Poses of 21 joints get hands at rest for a model of 23, and poses of 23 lose theirs for one of 21. The prior is
    tried on them, so that one that does not fit the model is refused before the solve.

    Raises:
        TypeError: a prior without `energy`.
        ValueError: poses of another number of joints or not finite, or a prior of another floating type.
    """
    given = getattr(prior, "start_poses", None) if starts is None else starts
    poses = relaxed.unsqueeze(0) if given is None else given.detach().to(relaxed)
    joints = len(relaxed)
    if poses.dim() != 3 or not len(poses) or poses.shape[1] not in (21, 23, joints) or poses.shape[2] != 3:
        raise ValueError(f"starts: expected (M, {joints}, 3), got {tuple(poses.shape)}; give one pose a row")
    if not bool(poses.isfinite().all()):
        raise ValueError("starts: expected finite numbers, got others; leave those poses out")
    hands = poses.new_zeros(len(poses), max(0, joints - poses.shape[1]), 3)
    poses = torch.cat((poses[:, :joints], hands), dim=1)
    if prior is not None:
        _try_out(prior, poses)
    return poses


def _try_out(prior: PosePrior, poses: Tensor) -> None:
    """Raise unless the prior gives one number a pose, in the type of the poses."""
    if not isinstance(prior, PosePrior):
        advice = f"use load_prior({prior!r})" if isinstance(prior, str) else "see PosePrior"
        raise TypeError(f"prior: expected an object with energy(body_pose), got {type(prior).__name__}; {advice}")
    if isinstance(prior, torch.nn.Module):
        for held in (*prior.parameters(), *prior.buffers()):
            if held.is_floating_point() and (held.dtype, held.device) != (poses.dtype, poses.device):
                raise ValueError(
                    f"prior: expected {poses.dtype} on {poses.device} as the model, got {held.dtype} on "
                    f"{held.device}; use prior.to(model.v_template)"
                )
    with torch.no_grad():
        shape = prior.energy(poses).shape
    if shape != poses.shape[:1]:
        raise ValueError(f"prior: expected one energy a pose, {tuple(poses.shape[:1])}, got {tuple(shape)}; sum it up")
