"""The pose that a fit falls back to where the image says nothing: standing at ease."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..bodymodel.skeleton import Skeleton, swap_sides

# Radians about x, y and z. Left side; the right side is its reflection.
_POSE = {
    "left_shoulder": (0.0, -0.15, -1.0),
    "left_elbow": (0.0, -0.5, 0.0),
    "left_hip": (-0.15, 0.0, 0.05),
    "left_knee": (0.3, 0.0, 0.0),
}

# How far people stray from that pose, in radians about x, y and z, rounded from motion capture, and by anatomy where
# that shows no motion. Knees and elbows are hinges, a trunk bends more than it twists: with one number a joint a limb
# mirrored in depth could hide in turns that nobody makes.
_SPREAD = {
    "left_hip": (0.4, 0.25, 0.2),
    "left_knee": (0.5, 0.1, 0.1),
    "left_ankle": (0.3, 0.15, 0.2),
    "left_foot": (0.15, 0.1, 0.1),
    "spine1": (0.2, 0.1, 0.1),
    "spine2": (0.2, 0.1, 0.1),
    "spine3": (0.2, 0.1, 0.1),
    "neck": (0.3, 0.15, 0.15),
    "head": (0.15, 0.15, 0.15),
    "left_collar": (0.1, 0.1, 0.15),
    "left_shoulder": (0.4, 0.5, 0.6),
    "left_elbow": (0.3, 0.8, 0.1),
    "left_wrist": (0.2, 0.2, 0.2),
    "left_hand": (0.1, 0.1, 0.1),
}
# The spread of an axis with stiffness 1.
_UNIT = 1 / 3


class RelaxedPose(NamedTuple):
    """A resting pose and how stiffly each joint is held to it.

    Attributes:
        body_pose: (n, 3) axis-angle in radians.
        stiffness: (n, 3) weights of the squared deviation, an axis each.
    """

    body_pose: Float[Tensor, "n 3"]
    stiffness: Float[Tensor, "n 3"]

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
        stiffness.append([(_UNIT / spread) ** 2 for spread in _SPREAD[left]])
    return RelaxedPose(
        torch.tensor(pose, dtype=like.dtype, device=like.device),
        torch.tensor(stiffness, dtype=like.dtype, device=like.device),
    )
