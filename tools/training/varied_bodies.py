"""More bodies than motion capture has: poses mixed limb by limb, shapes and views at random."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from physique.bodymodel import BodyModel, KeypointRegressor
from physique.geometry import axis_angle_to_matrix
from physique.losses.metrics import Protocol, scale_aligned_mpjpe
from torch import Tensor

if TYPE_CHECKING:
    from physique.priors import PosePool

KEYPOINTS = "lsp14"
HIPS = (2, 3)
CHUNK = 4096
# Joints of `body_pose` that move to another body together, and how often they do.
LIMBS = (((0, 1, 3, 4, 6, 7, 9, 10), 0.5), ((12, 15, 17, 19, 21), 0.25), ((13, 16, 18, 20, 22), 0.25))
POSE_NOISE = 0.05  # radians
TILT = 0.3  # radians, standard deviation; clamped at twice that


def varied_points(pool: PosePool, body: BodyModel, count: int, generator: torch.Generator) -> Tensor:
    """Return keypoints (count, 14, 3) in the axes of the pelvis, about the hips, metres.

    Half of the bodies have legs, and a quarter each arm, of another frame; all have a little noise on each joint and a
    shape of their own. The pool should hold mirrored poses too.
    """
    poses = pool.body_pose[_draw(len(pool), count, generator)]
    for joints, share in LIMBS:
        other = pool.body_pose[_draw(len(pool), count, generator)]
        moved = torch.zeros(23, dtype=torch.bool)
        moved[list(joints)] = True
        chosen = torch.rand(count, 1, 1, generator=generator) < share
        poses = torch.where(chosen & moved[:, None], other, poses)
    return hip_centred_points(poses + POSE_NOISE * torch.randn(poses.shape, generator=generator), body, generator)


def hip_centred_points(body_pose: Tensor, body: BodyModel, generator: torch.Generator) -> Tensor:
    """Return keypoints (N, 14, 3) of bodies with random shapes, in the axes of the pelvis, about the hips, metres."""
    betas = torch.randn(len(body_pose), body.data.count("betas"), generator=generator)
    regressor = KeypointRegressor(KEYPOINTS, body.data)
    chunks = zip(body_pose.split(CHUNK), betas.split(CHUNK), strict=True)
    with torch.no_grad():
        points = torch.cat([body.keypoints(regressor, body_pose=pose, betas=shape) for pose, shape in chunks])
    return points - points[:, list(HIPS)].mean(1, keepdim=True)


def random_views(count: int, generator: torch.Generator) -> Tensor:
    """Return rotations (count, 3, 3) into camera axes: upright people from all sides, the camera tilted a little."""
    turn = 2 * torch.pi * torch.rand(count, generator=generator)
    tilt = TILT * torch.randn(count, generator=generator).clamp(-2, 2)
    zero = torch.zeros(count)
    about_x = torch.stack((torch.pi + tilt, zero, zero), dim=-1)
    about_y = torch.stack((zero, turn, zero), dim=-1)
    return axis_angle_to_matrix(about_x) @ axis_angle_to_matrix(about_y)


def seen_points(pool: PosePool, body: BodyModel, generator: torch.Generator) -> Tensor:
    """Return keypoints (N, 14, 3) in camera axes, about the hips, metres: a random shape and view for each pose."""
    points = hip_centred_points(pool.body_pose, body, generator)
    return points @ random_views(len(points), generator).mT


def lifting_error(lifted: Tensor, truth: Tensor) -> float:
    """Return the mean error of lifted points (N, 14, 3) in millimetres, about the hips, at the best scale."""
    return 1000 * float(scale_aligned_mpjpe(lifted, truth, protocol=Protocol(root=HIPS)).mean())


def _draw(total: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(total, (count,), generator=generator)
