"""The unknowns of a registration: where they start, and how they become the model's arguments and back."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..bodymodel import SurfacePoints
from ..cameras import WeakPerspectiveCamera
from ..geometry import axis_angle_to_matrix, gram_schmidt, matrix_to_axis_angle
from .registration_problem import Problem
from .solution import Solution, Status

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


def resume_unknowns(problem: Problem, init: Solution, batch: torch.Size) -> dict[str, Tensor]:
    """Return the unknowns (B, ...) of a previous solution."""
    shape, seen, like = problem.shape_argument, problem.seen, problem.model.v_template
    names = (shape, "global_orient", "body_pose", "transl")
    if any(name not in init.params for name in names) or not isinstance(init.camera, WeakPerspectiveCamera):
        raise ValueError(
            f"init: expected a solution with {', '.join(names)} and a WeakPerspectiveCamera, got "
            f"{', '.join(init.params)} and {type(init.camera).__name__}; pass a solution of the same kind of model"
        )
    if init.params["transl"].shape[:-1] != batch:
        raise ValueError(
            f"init: expected batch {tuple(batch)}, got {tuple(init.params['transl'].shape[:-1])}; "
            "pass a solution of the same samples"
        )
    count = len(seen.valid)
    params = {name: init.params[name].detach().to(like) for name in names}
    params = {name: value.reshape(count, *value.shape[len(batch) :]) for name, value in params.items()}
    scale = init.camera.scale.detach().to(like).reshape(-1) / seen.size
    shift = (init.camera.translation.detach().to(like).reshape(-1, 2) - seen.middle) / seen.size.unsqueeze(-1)
    return {
        "matrix": axis_angle_to_matrix(params["global_orient"]),
        "body_pose": params["body_pose"],
        shape: params[shape],
        "log_scale": scale.clamp(min=1e-6).log(),
        "translation": shift + scale.unsqueeze(-1) * params["transl"][:, :2],
    }


def report_solution(problem: Problem, solved: Solution, start: dict[str, Tensor], batch: torch.Size) -> Solution:
    """Turn a solution in unknowns (B, ...) into one in the model's arguments and the caller's batch."""
    seen = problem.seen

    def valid(value: Tensor) -> Tensor:
        return seen.valid.view(-1, *(1,) * (value.dim() - 1))

    unknowns = {name: torch.where(valid(value), value, start[name]) for name, value in solved.params.items()}
    body = problem.body(unknowns, torch.arange(len(seen.valid), device=seen.valid.device), 1.0)
    error = (body.projected - body.pixels).norm(dim=-1) * seen.size.unsqueeze(-1)
    params = {
        problem.shape_argument: unknowns[problem.shape_argument],
        "global_orient": matrix_to_axis_angle(gram_schmidt(unknowns["matrix"])),
        "body_pose": unknowns["body_pose"],
        "transl": torch.zeros_like(unknowns["matrix"][..., 0]),
    }
    scale = unknowns["log_scale"].exp() * seen.size
    shift = unknowns["translation"] * seen.size.unsqueeze(-1) + seen.middle
    residuals = torch.where(seen.weight > 0, error, torch.nan)
    return Solution(
        {name: value.reshape(*batch, *value.shape[1:]) for name, value in params.items()},
        solved.loss.reshape(batch),
        solved.steps,
        torch.where(seen.valid, solved.status, int(Status.INVALID)).reshape(batch),
        solved.history.reshape(len(solved.history), *batch),
        WeakPerspectiveCamera(scale.reshape(batch), shift.reshape(*batch, 2)),
        residuals.reshape(*batch, residuals.shape[-1]),
    )


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
