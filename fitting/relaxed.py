"""The pose that a fit falls back to where the image says nothing: standing at ease."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..bodymodel.skeleton import Skeleton, swap_sides

# Radians about x, y and z. Left side; the right side is its reflection.
_POSE = {
    "left_collar": (0.0, 0.0, -0.1),
    "left_shoulder": (0.0, -0.15, -1.0),
    "left_elbow": (0.0, -0.5, 0.0),
    "left_hip": (-0.15, 0.0, 0.05),
    "left_knee": (0.3, 0.0, 0.0),
}

# How strongly each joint is held to that pose, relative to each other: what bends little is held more.
_STIFFNESS = {
    "left_hip": 0.6,
    "left_knee": 0.4,
    "left_ankle": 2.0,
    "left_foot": 4.0,
    "spine1": 3.0,
    "spine2": 3.0,
    "spine3": 3.0,
    "neck": 2.0,
    "head": 2.0,
    "left_collar": 4.0,
    "left_shoulder": 0.4,
    "left_elbow": 0.3,
    "left_wrist": 2.0,
    "left_hand": 4.0,
}


class RelaxedPose(NamedTuple):
    """A resting pose and how stiffly each joint is held to it.

    Attributes:
        body_pose: (n, 3) axis-angle in radians.
        stiffness: (n, 1) weights of the squared deviation.
    """

    body_pose: Float[Tensor, "n 3"]
    stiffness: Float[Tensor, "n 1"]

    def energy(self, body_pose: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch"]:
        """Return the weighted sum of squared deviations, in radians²."""
        return (self.stiffness * (body_pose - self.body_pose).square()).sum((-2, -1))


def relaxed_pose(skeleton: Skeleton, count: int, *, like: Tensor) -> RelaxedPose:
    """Return the relaxed pose of the `count` joints after the root, arms hanging and a little bent.

    Args:
        skeleton: names the joints.
        count: how many joints `body_pose` has.
        like: tensor of the type and device wanted.
    """
    names = skeleton.names[1 : count + 1]
    pose, stiffness = [], []
    for name in names:
        left = swap_sides(name) if "right" in name else name
        x, y, z = _POSE.get(left, (0.0, 0.0, 0.0))
        pose.append((x, y, z) if left == name else (x, -y, -z))
        stiffness.append((_STIFFNESS[left],))
    return RelaxedPose(
        torch.tensor(pose, dtype=like.dtype, device=like.device),
        torch.tensor(stiffness, dtype=like.dtype, device=like.device),
    )
