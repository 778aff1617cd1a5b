"""Try the mirrored limbs of a registration, and keep for each limb what the energy prefers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..geometry import axis_angle_to_matrix, gram_schmidt, matrix_to_axis_angle
from .depth_flips import FLIPS, choose_by_limb, flipped_rotations, limbs_of
from .registration_problem import Problem
from .solution import Solution


def try_depth_flips(
    problem: Problem, unknowns: dict[str, Tensor], outlier: float, settle: Callable[[dict[str, Tensor]], Solution]
) -> dict[str, Tensor]:
    """Return the unknowns (B, ...) with each limb as the best of its four depths has it.

    Args:
        problem: the registration.
        unknowns: where it stands.
        outlier: error at which a point's pull fades, for judging.
        settle: takes a few steps from unknowns (4, B, ...).
    """
    like = unknowns["matrix"]
    skeleton, count = problem.model.skeleton, unknowns["body_pose"].shape[-2]
    limbs = limbs_of(skeleton, like.device)
    shape: dict[str, Any] = {problem.shape_argument: unknowns[problem.shape_argument]}
    rest = problem.model.joints(**shape)
    still = torch.eye(3, dtype=like.dtype, device=like.device).expand(len(like), skeleton.num_joints - count - 1, 3, 3)
    turned = axis_angle_to_matrix(unknowns["body_pose"])
    local = torch.cat((gram_schmidt(like).unsqueeze(1), turned, still), dim=1)
    poses = matrix_to_axis_angle(flipped_rotations(local, rest, skeleton, limbs)[:, :, 1 : count + 1])
    starts = {name: value.expand(len(FLIPS), *value.shape) for name, value in unknowns.items()}
    starts["body_pose"] = torch.cat((unknowns["body_pose"].unsqueeze(0), poses[1:]))
    settled = settle(starts).params
    owner = limbs.of_joint[1 : count + 1]
    mixed = _choose_limbs(problem, settled, owner, len(limbs.chains), outlier)
    candidates = {name: torch.cat((mixed[name], settled[name])) for name in mixed}
    best = problem.energy(candidates, 0.0, outlier).nan_to_num(torch.inf).argmin(0)
    samples = torch.arange(len(best), device=best.device)
    return {name: value[best, samples] for name, value in candidates.items()}


def _choose_limbs(
    problem: Problem, settled: dict[str, Tensor], owner: Tensor, count: int, outlier: float
) -> dict[str, Tensor]:
    """Return the unflipped unknowns (1, B, ...) with each limb as it lowers the energy most, all terms counted.

    Args:
        problem: the registration.
        settled: unknowns (4, B, ...) of the flips.
        owner: (n,) which limb each joint of body_pose belongs to; `count` for the trunk and the head.
        count: of the limbs.
        outlier: error at which a point's pull fades.
    """
    flips, poses = len(FLIPS), settled["body_pose"]
    own = torch.arange(count, device=owner.device).unsqueeze(-1) == owner
    alone = torch.where(own[:, None, None, :, None], poses, poses[0])
    tried = {name: value[:1].expand(count * flips, *value.shape[1:]) for name, value in settled.items()}
    tried["body_pose"] = alone.flatten(0, 1)
    cost = problem.energy(tried, 0.0, outlier).unflatten(0, (count, flips)).nan_to_num(torch.inf)
    return {name: value[:1] for name, value in settled.items()} | {
        "body_pose": choose_by_limb(poses, cost.movedim(0, -1), owner).unsqueeze(0)
    }
