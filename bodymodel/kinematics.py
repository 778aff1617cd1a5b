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
        turners: (2 J,) whose world rotation turns the bone of each joint (its parent's), then itself.
        bones: (J, J); times the joints it gives each joint's bone: the joint minus its parent.
        placement: (2 J, 2 J); times the turned bones and the turned rest joints it gives the posed joints (sums over
            the path from the root), and the translation of each joint's rigid transform (posed joint minus turned rest
            joint).
        path: (J, J), its part that makes posed joints of turned bones.
    """

    jumps: Int[Tensor, "levels Jplus1"]
    turners: Int[Tensor, " twoJ"]
    bones: Float[Tensor, "J J"]
    placement: Float[Tensor, "twoJ twoJ"]
    path: Float[Tensor, "J J"]


def kinematic_tables(skeleton: Skeleton, *, dtype: torch.dtype, device: torch.device | None = None) -> KinematicTables:
    """Build the tables of `skeleton` on a device."""
    top = skeleton.num_joints
    jump = [top if parent < 0 else parent for parent in skeleton.parents] + [top]
    turners, rows = jump[:-1] + list(range(top)), []
    for _ in range(max(skeleton.depth).bit_length()):
        rows.append(jump)
        jump = [jump[ancestor] for ancestor in jump]
    path, same = skeleton.ancestors.astype(float), np.eye(top)
    placement = np.block([[path, np.zeros_like(path)], [path, -same]])
    return KinematicTables(
        torch.tensor(rows, dtype=torch.int64, device=device).reshape(len(rows), top + 1),
        torch.tensor(turners, dtype=torch.int64, device=device),
        torch.tensor(bones_of(same, skeleton), dtype=dtype, device=device),
        torch.tensor(placement, dtype=dtype, device=device),
        torch.tensor(path, dtype=dtype, device=device),
    )


def bones_of(joints: Float[np.ndarray, "J ..."], skeleton: Skeleton) -> Float[np.ndarray, "J ..."]:
    """Return each joint minus its parent; the root's bone is the root joint itself."""
    return np.concatenate((joints[:1], joints[1:] - joints[list(skeleton.parents[1:])]))


def chain_rotations(local: Float[Tensor, "*batch Jplus1 3 3"], jumps: Tensor) -> Float[Tensor, "*batch Jplus1 3 3"]:
    """Return the world rotations of all joints, with the identity as an extra last joint before and after.

    By pointer doubling: each round multiplies every joint's product with the one that ends where its own begins, so a
    tree of depth d takes log2(d) products of all joints at once.
    """
    world = local
    for jump in jumps.unbind(0):
        world = world.index_select(-3, jump) @ world
    return world


def chain_transforms(
    local: Float[Tensor, "*#batch Jplus1 3 3"],
    lever: Float[Tensor, "*#batch twoJ 3"],
    jumps: Tensor,
    turners: Tensor,
    placement: Tensor,
) -> tuple[Float[Tensor, "... J 3 3"], Float[Tensor, "... J 3"], Float[Tensor, "... J 3"]]:
    """Return each joint's world rotation (in the batch of `local`), position, and translation from rest to pose.

    Args:
        local: rotations relative to the parent, with the identity as an extra last joint.
        lever: the bones, then the rest joints.
        jumps: see `KinematicTables`, as for the others.
        turners: likewise.
        placement: likewise.
    """
    turning = chain_rotations(local, jumps).index_select(-3, turners)
    turned = (turning @ lever.unsqueeze(-1)).squeeze(-1)
    placed = placement @ turned
    joints, translations = placed.view(*placed.shape[:-2], 2, placed.shape[-2] // 2, 3).unbind(-3)
    return turning.narrow(-3, joints.shape[-2], joints.shape[-2]), joints, translations


def chain_joints(
    local: Float[Tensor, "*#batch Jplus1 3 3"],
    bones: Float[Tensor, "*#batch J 3"],
    jumps: Tensor,
    turners: Tensor,
    path: Tensor,
) -> Float[Tensor, "... J 3"]:
    """Return the positions alone: each joint is the sum of the turned bones on its path."""
    turning = chain_rotations(local, jumps).index_select(-3, turners.narrow(0, 0, bones.shape[-2]))
    return path @ (turning @ bones.unsqueeze(-1)).squeeze(-1)


def forward_kinematics(
    rotations: Float[Tensor, "*#batch J 3 3"], rest_joints: Float[Tensor, "*#batch J 3"], skeleton: Skeleton
) -> tuple[Float[Tensor, "*batch J 3 3"], Float[Tensor, "*batch J 3"]]:
    """Turn local joint rotations into world rotations and joint positions.

    The root turns about its own joint, which stays where it is. Polynomial in both arguments, so right to any order.

    Args:
        rotations: (*B, J, 3, 3) of each joint relative to its parent.
        rest_joints: (*B, J, 3) in metres; the batches broadcast.
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
    jumps, turners, bones, placement, _ = kinematic_tables(skeleton, dtype=rotations.dtype, device=rotations.device)
    still = torch.eye(3, dtype=rotations.dtype, device=rotations.device).expand(*rotations.shape[:-3], 1, 3, 3)
    lever = torch.cat((bones @ rest_joints, rest_joints), dim=-2)
    turned, joints, _ = chain_transforms(torch.cat((rotations, still), dim=-3), lever, jumps, turners, placement)
    return turned.expand(*joints.shape[:-2], *turned.shape[-3:]), joints
