"""Try the mirrored limbs of a registration, and keep for each limb what its own points prefer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..geometry import axis_angle_to_matrix, gram_schmidt, matrix_to_axis_angle
from ..losses import penalise_length
from .depth_flips import FLIPS, choose_by_limb, flipped_rotations, limbs_of, sum_by_limb
from .registration_problem import Problem
from .registration_terms import ERROR_UNIT, Registration, depth_errors
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
    settled = settle(starts)
    cost = _cost_by_limb(problem, problem.body(settled.params, outlier))
    of_body = limbs._replace(of_joint=limbs.of_joint[1 : count + 1])
    merged = {name: value[:1] for name, value in settled.params.items()}
    merged["body_pose"] = choose_by_limb(settled.params["body_pose"], cost, of_body).unsqueeze(0)
    candidates = {name: torch.cat((merged[name], settled.params[name])) for name in merged}
    best = problem.energy(candidates, 0.0, outlier).nan_to_num(torch.inf).argmin(0)
    samples = torch.arange(len(best), device=best.device)
    return {name: value[best, samples] for name, value in candidates.items()}


def _cost_by_limb(problem: Problem, body: Registration) -> Tensor:
    """Return what the points, keypoints, depths, limits and resting pose of each limb cost, (*S, B, limbs + 1)."""
    model, seen = problem.model, problem.seen
    limbs = limbs_of(model.skeleton, body.joints.device)

    def robust(error: Tensor, weight: Tensor) -> Tensor:
        return weight * penalise_length(error, "geman_mcclure", body.outlier) / ERROR_UNIT**2

    of_vertex = limbs.of_joint[model.lbs_weights.argmax(-1)]
    of_joint = limbs.of_joint[1 : body.body_pose.shape[-2] + 1]
    deviation = body.body_pose - body.relaxed.body_pose
    outside = (body.limits.lower - body.body_pose).relu() + (body.body_pose - body.limits.upper).relu()
    costs = [
        ("dense", robust(body.projected - body.pixels, body.weight), of_vertex[model.faces[seen.faces][..., 0]]),
        ("joint_limits", outside.square().sum(-1), of_joint),
        ("joint_angles", body.relaxed.stiffness.squeeze(-1) * deviation.square().sum(-1), of_joint),
    ]
    if problem.regressor is not None:
        of_keypoint = _limb_of_keypoint(problem, limbs.of_joint)
        error = body.projected_keypoints - body.target_keypoints
        costs.append(("keypoints", robust(error, body.confidence), of_keypoint))
        costs.append(("depths", depth_errors(body), of_keypoint))
    weights = {name: term.weight for name, term in problem.terms.items()}
    return sum(
        (weights.get(name, 0.0) * sum_by_limb(values, owner, limbs) for name, values, owner in costs),
        start=body.joints.new_zeros(()),
    )


def _limb_of_keypoint(problem: Problem, of_joint: Tensor) -> Tensor:
    """Return (K,) the limb of the joint that moves each keypoint most."""
    regressor = problem.regressor
    assert regressor is not None
    of_vertices = problem.model.lbs_weights[regressor.vertex_ids]
    return of_joint[(regressor.joint_weights + regressor.vertex_weights @ of_vertices).argmax(-1)]
