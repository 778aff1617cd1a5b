"""Undo wrong guesses of depth: mirror the segments of a limb in the image plane, and keep what matches better.

A projected bone looks the same whether it comes towards the camera or goes away from it, so a fit gets stuck in the
wrong one of the two. Per limb there are four: neither, upper, lower or both segments mirrored (Sminchisescu and Triggs
2003, kinematic jumps). Limbs hardly interact: all try the same of the four at once, and each chooses for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bodymodel import Skeleton, forward_kinematics
from ..geometry import axis_angle_to_matrix, matrix_to_axis_angle

Unknowns = dict[str, Tensor]

FLIPS = ((False, False), (True, False), (False, True), (True, True))
"""Whether the upper and the lower segment are mirrored."""
_CHAINS = (("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle"))


class Limbs(NamedTuple):
    """The arms and legs of a skeleton.

    Attributes:
        chains: (L, 3) joints at the start of the upper segment, of the lower, and at its end.
        of_joint: (J,) the limb that each joint belongs to; L for the trunk and the head.
    """

    chains: Int[Tensor, "L 3"]
    of_joint: Int[Tensor, " J"]


def limbs_of(skeleton: Skeleton, device: torch.device) -> Limbs:
    """Return the arms and legs by joint names."""
    chains = [[skeleton.index(f"{side}_{name}") for name in chain] for chain in _CHAINS for side in ("left", "right")]
    of_joint = torch.full((skeleton.num_joints,), len(chains), dtype=torch.int64)
    for limb, (start, _, _) in enumerate(chains):
        of_joint[torch.as_tensor(skeleton.ancestors[:, start].copy())] = limb
    return Limbs(torch.tensor(chains, device=device), of_joint.to(device))


def flipped_rotations(
    local: Float[Tensor, "*batch J 3 3"], rest_joints: Float[Tensor, "*batch J 3"], skeleton: Skeleton, limbs: Limbs
) -> Float[Tensor, "flips *batch J 3 3"]:
    """Return the local rotations after each of the four flips, made to all limbs at once.

    A segment is turned the short way from its direction to the mirrored one; all other segments keep their directions.

    Args:
        local: (*B, J, 3, 3) in camera axes, z away from the camera.
        rest_joints: (*B, J, 3).
        skeleton: the tree.
        limbs: of it.
    """
    world, joints = forward_kinematics(local, rest_joints, skeleton)
    ends = joints[..., limbs.chains, :]
    swings = _swing_to_mirror(ends[..., 1:, :] - ends[..., :-1, :])
    results = []
    parents = torch.tensor(skeleton.parents[1:], device=local.device)
    for flip in FLIPS:
        turned = world.clone()
        for segment, flipped in enumerate(flip):
            if flipped:
                joint = limbs.chains[:, segment]
                turned[..., joint, :, :] = swings[..., segment, :, :] @ world[..., joint, :, :]
        below = turned[..., parents, :, :].mT @ turned[..., 1:, :, :]
        results.append(torch.cat((turned[..., :1, :, :], below), dim=-3))
    return torch.stack(results)


def choose_by_limb(
    candidates: Float[Tensor, "flips *batch J 3"], cost: Float[Tensor, "flips *batch L"], owner: Int[Tensor, " J"]
) -> Float[Tensor, "*batch J 3"]:
    """Return for each limb the candidate of lowest cost; trunk and head are those of the first.

    Args:
        candidates: axis-angle vectors of the joints, per flip.
        cost: per flip and limb.
        owner: the limb that each joint belongs to; L for the trunk and the head.
    """
    best = cost.argmin(0)
    best = torch.cat((best, torch.zeros_like(best[..., :1])), dim=-1)
    index = best[..., owner].unsqueeze(-1).expand(candidates.shape[1:])
    return candidates.gather(0, index.unsqueeze(0)).squeeze(0)


def try_depth_flips(
    unknowns: Unknowns,
    root: Float[Tensor, "n frames 3 3"],
    rest_joints: Float[Tensor, "n frames J 3"],
    skeleton: Skeleton,
    settle: Callable[[Unknowns], Unknowns],
    total: Callable[[Unknowns], Tensor],
) -> Unknowns:
    """Return unknowns (n, ...) with each limb as the best of its four depths has it.

    Args:
        unknowns: where the fit stands; `body_pose` (n, *frames, k, 3) among them.
        root: its rotation in camera axes.
        rest_joints: of the shaped body.
        skeleton: of the model.
        settle: takes a few steps from unknowns (4 n, ...), the flips in front.
        total: the energy of unknowns (c n, ...), one number each.
    """
    pose = unknowns["body_pose"]
    samples, count = len(pose), pose.shape[-2]
    limbs = limbs_of(skeleton, pose.device)
    still = torch.eye(3, dtype=pose.dtype, device=pose.device)
    still = still.expand(*root.shape[:2], skeleton.num_joints - count - 1, 3, 3)
    turned = axis_angle_to_matrix(pose.reshape(*root.shape[:2], count, 3))
    local = torch.cat((root.unsqueeze(-3), turned, still), dim=-3)
    flipped = matrix_to_axis_angle(flipped_rotations(local, rest_joints, skeleton, limbs)[..., 1 : count + 1, :, :])
    starts = _repeated(unknowns, len(FLIPS))
    starts["body_pose"] = torch.cat((pose, flipped[1:].reshape(-1, *pose.shape[1:])))
    settled = settle(starts)
    poses = settled["body_pose"].unflatten(0, (len(FLIPS), samples))
    owner = limbs.of_joint[1 : count + 1]
    # The unflipped body with one limb of one flip at a time, all terms counted.
    chains = len(limbs.chains)
    own = (torch.arange(chains, device=owner.device).unsqueeze(-1) == owner).view(
        chains, *(1,) * (poses.dim() - 2), count, 1
    )
    unflipped = {name: value[:samples] for name, value in settled.items()}
    tried = _repeated(unflipped, chains * len(FLIPS))
    tried["body_pose"] = torch.where(own, poses.unsqueeze(0), poses[0]).flatten(0, 2)
    cost = total(tried).unflatten(0, (chains, len(FLIPS), samples)).nan_to_num(torch.inf).movedim(0, -1)
    cost = cost.view(len(FLIPS), samples, *(1,) * (poses.dim() - 4), chains)
    mixed = {**unflipped, "body_pose": choose_by_limb(poses, cost.expand(*poses.shape[:-2], chains), owner)}
    candidates = {name: torch.cat((mixed[name], value)) for name, value in settled.items()}
    best = total(candidates).view(1 + len(FLIPS), samples).nan_to_num(torch.inf).argmin(0)
    rows = best * samples + torch.arange(samples, device=best.device)
    return {name: value.index_select(0, rows) for name, value in candidates.items()}


def _repeated(unknowns: Unknowns, times: int) -> Unknowns:
    return {name: value.repeat(times, *(1,) * (value.dim() - 1)) for name, value in unknowns.items()}


def _swing_to_mirror(direction: Tensor) -> Tensor:
    """Return the shortest rotation (..., 3, 3) from each direction to its mirror image in the image plane.

    The turn is about the axis in the plane across the direction; one that points straight at the camera stays.
    """
    across = direction[..., :2].norm(dim=-1)
    length = direction.norm(dim=-1).clamp(min=1e-9)
    sine, cosine = direction[..., 2] / length, across / length
    axis = torch.stack((-direction[..., 1], direction[..., 0]), dim=-1) / across.clamp(min=1e-9).unsqueeze(-1)
    # about the unit axis a by the angle 2 t, where sin t = z / length
    double_sine, double_cosine = 2 * sine * cosine, 1 - 2 * sine.square()
    x, y = axis.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, zero, y, zero, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=direction.dtype, device=direction.device)
    turn = identity + double_sine[..., None, None] * cross + (1 - double_cosine)[..., None, None] * (cross @ cross)
    return torch.where((across > 1e-6)[..., None, None], turn, identity)
