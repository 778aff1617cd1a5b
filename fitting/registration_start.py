"""Where a registration starts: the T-pose, under the view that explains the points of the trunk best."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..bodymodel import SurfacePoints
from .registration_problem import Problem

_TRUNK = ("pelvis", "spine1", "spine2", "spine3", "left_collar", "right_collar", "left_hip", "right_hip")
# Points elsewhere are in the wrong place while the pose is a T-pose; they still help where the trunk is hidden.
_ELSEWHERE = 0.02
_REWEIGHTINGS = 5
_ERROR = 0.05
_RIDGE = 1e-4


def start_from_rest(problem: Problem) -> dict[str, Tensor]:
    """Return the unknowns (B, ...) of the mean body in the T-pose, its view fitted in closed form.

    An affine camera by reweighted least squares, then the nearest scaled orthographic one. Points that are seen carry
    their side of the body with them, so there is no choice of facing to make.
    """
    model, seen, shape = problem.model, problem.seen, problem.shape_argument
    like = model.v_template
    rest = model.points(SurfacePoints(seen.faces, seen.barycentric))
    owner = model.lbs_weights.argmax(-1)[model.faces[seen.faces][..., 0]]
    trunk = like.new_tensor([1.0 if name in _TRUNK else _ELSEWHERE for name in model.skeleton.names])
    root = model.joints()[0]
    affine, shift = _affine_camera(rest - root, seen.pixels, seen.weight * trunk[owner])
    matrix, scale = _orthographic(affine)
    count = len(seen.valid)
    mean = like.new_ones if shape == "segment_scale" else like.new_zeros
    size = model.data.count(shape)
    joints = model.data.num_joints
    event = (joints, 3) if shape == "segment_scale" and size == 3 * joints else (size,)
    return {
        "matrix": matrix,
        "body_pose": like.new_zeros(count, problem.relaxed.body_pose.shape[0], 3),
        shape: mean((count, *event)),
        "log_scale": scale.log(),
        "translation": shift - scale.unsqueeze(-1) * root[:2],
    }


def _affine_camera(
    points: Float[Tensor, "B N 3"], pixels: Float[Tensor, "B N 2"], weight: Float[Tensor, "B N"]
) -> tuple[Float[Tensor, "B 2 3"], Float[Tensor, "B 2"]]:
    """Return A and b that minimise the robust weighted errors of A x + b against the pixels."""
    homogeneous = torch.cat((points, torch.ones_like(points[..., :1])), dim=-1)
    ridge = _RIDGE * torch.diag(points.new_tensor((1.0, 1.0, 1.0, 1e-6)))
    current = weight
    solved = points.new_zeros(*points.shape[:-2], 4, 2)
    for _ in range(_REWEIGHTINGS):
        weighted = homogeneous * current.unsqueeze(-1)
        total = current.sum(-1)[:, None, None].clamp(min=1e-6)
        solved = torch.linalg.solve(weighted.mT @ homogeneous / total + ridge, weighted.mT @ pixels / total)
        error = (homogeneous @ solved - pixels).square().sum(-1)
        current = weight / (1 + error / _ERROR**2).square()
    return solved[:, :3].mT, solved[:, 3]


def _orthographic(affine: Float[Tensor, "B 2 3"]) -> tuple[Float[Tensor, "B 3 3"], Float[Tensor, " B"]]:
    """Return the rotation and the scale of the nearest scaled orthographic camera; finite where A vanishes."""
    left, sizes, right = torch.linalg.svd(affine, full_matrices=False)
    rows = left @ right
    rotation = torch.cat((rows, torch.linalg.cross(rows[:, :1], rows[:, 1:])), dim=-2)
    return rotation, sizes.mean(-1).clamp(min=0.05)
