"""Forward kinematics: local joint rotations to world rotations and positions, without a loop over joints."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..geometry.checks import expect_shape
from .skeleton import Skeleton


class KinematicTables(NamedTuple):
    """The tree as tensors. Index J stands for a joint above the root that never moves.

    Attributes:
        jumps: (levels, J + 1); row k holds each joint's ancestor 2^k bones up.
        parents: (J,) parent of each joint.
        bones: (J, J); times the joints it gives each joint's bone: the joint minus its parent.
        ancestors: (J, J), the inverse of `bones`: entry [j, k] is 1 where k lies on the path from the root to j.
    """

    jumps: Int[Tensor, "levels Jplus1"]
    parents: Int[Tensor, " J"]
    bones: Float[Tensor, "J J"]
    ancestors: Float[Tensor, "J J"]


def kinematic_tables(skeleton: Skeleton, *, dtype: torch.dtype, device: torch.device | None = None) -> KinematicTables:
    """Build the tables of `skeleton` on a device."""
    top = skeleton.num_joints
    jump = [top if parent < 0 else parent for parent in skeleton.parents] + [top]
    parents, rows = jump[:-1], []
    for _ in range(max(skeleton.depth).bit_length()):
        rows.append(jump)
        jump = [jump[ancestor] for ancestor in jump]
    return KinematicTables(
        torch.tensor(rows, dtype=torch.int64, device=device).reshape(len(rows), top + 1),
        torch.tensor(parents, dtype=torch.int64, device=device),
        torch.tensor(bones_of(np.eye(top), skeleton), dtype=dtype, device=device),
        torch.tensor(skeleton.ancestors, dtype=dtype, device=device),
    )


def bones_of(joints: Float[np.ndarray, "J ..."], skeleton: Skeleton) -> Float[np.ndarray, "J ..."]:
    """Return each joint minus its parent; the root's bone is the root joint itself."""
    return np.concatenate((joints[:1], joints[1:] - joints[list(skeleton.parents[1:])]))


def chain_rotations(
    local: Float[Tensor, "*batch Jplus1 3 3"], bones: Float[Tensor, "*#batch J 3"], tables: KinematicTables
) -> tuple[Float[Tensor, "*batch J 3 3"], Float[Tensor, "..."]]:
    """Do the work of `forward_kinematics` on bones, with tables made beforehand and the identity as an extra last joint.

    World rotations come by pointer doubling: each round multiplies every joint's product with the one that ends where
    its own begins, so a tree of depth d takes log2(d) products of all joints at once. Positions follow without a
    recursion: a joint's position is the sum of the rotated bones on its path.
    """
    world = local
    for jump in tables.jumps.unbind(0):
        world = world.index_select(-3, jump) @ world
    rotated = world.index_select(-3, tables.parents) @ bones.unsqueeze(-1)
    return world.narrow(-3, 0, bones.shape[-2]), tables.ancestors @ rotated.squeeze(-1)


def forward_kinematics(
    rotations: Float[Tensor, "*batch J 3 3"], rest_joints: Float[Tensor, "*#batch J 3"], skeleton: Skeleton
) -> tuple[Float[Tensor, "*batch J 3 3"], Float[Tensor, "..."]]:
    """Turn local joint rotations into world rotations and joint positions.

    The root turns about its own joint, which stays where it is. Polynomial in both arguments, so right to any order.

    Args:
        rotations: (*B, J, 3, 3) of each joint relative to its parent.
        rest_joints: (*B, J, 3) in metres; its batch broadcasts against that of `rotations`.
        skeleton: the tree.

    Returns:
        joint_rotations (*B, J, 3, 3) to the world frame, joints (*B, J, 3) in metres.

    Raises:
        ValueError: shapes that do not fit the skeleton.

    Source: SMPL (Loper et al. 2015), eq. 4.

    Example:
        >>> import torch
        >>> skeleton = Skeleton((-1, 0), ("elbow", "wrist"))
        >>> quarter_turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        >>> rest = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        >>> forward_kinematics(torch.stack((quarter_turn, torch.eye(3))), rest, skeleton)[1][1]
        tensor([0., 1., 0.])
    """
    expect_shape("rotations", rotations, skeleton.num_joints, 3, 3)
    expect_shape("rest_joints", rest_joints, skeleton.num_joints, 3)
    still = torch.eye(3, dtype=rotations.dtype, device=rotations.device).expand(*rotations.shape[:-3], 1, 3, 3)
    tables = kinematic_tables(skeleton, dtype=rotations.dtype, device=rotations.device)
    return chain_rotations(torch.cat((rotations, still), dim=-3), tables.bones @ rest_joints, tables)
