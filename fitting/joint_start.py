"""Where a fit to 3D joints starts: the torso placed by Procrustes, then bones swung into place down the tree."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..bodymodel import Skeleton
from ..geometry import nearest_rotation, procrustes

TORSO = ("pelvis", "spine1", "spine2", "spine3", "neck", "left_hip", "right_hip", "left_shoulder", "right_shoulder")
# How firmly a joint is held to its resting rotation while its bones swing: only what they leave open is decided by it.
RESTING = 0.03


def joint_start(
    skeleton: Skeleton,
    rest: Tensor,
    resting: Tensor,
    target: Tensor,
    weight: Tensor,
    index: Sequence[int | None],
) -> Tensor:
    """Return local rotations (n, J, 3, 3) that bring the bones of a resting body near targets.

    Args:
        skeleton: the tree.
        rest: (n, J, 3) or (J, 3) joints of the body in the rest pose.
        resting: (J, 3, 3) rotations to keep to where the targets say nothing; they also tell which way hinges bend.
        target: (n, N, 3) finite points.
        weight: (n, N).
        index: for each joint the target that stands for it, or None.
    """
    known = {joint: point for joint, point in enumerate(index) if point is not None}
    torso = [joint for joint in known if skeleton.names[joint] in TORSO]
    if len(torso) < 3:
        torso = list(known)
    rest = rest.expand(len(target), *rest.shape[-2:])
    placed = procrustes(
        rest[:, torso],
        target[:, [known[joint] for joint in torso]],
        weights=weight[:, [known[joint] for joint in torso]],
        scale=False,
    )
    world = [placed.rotation]
    local = [placed.rotation]
    for joint in range(1, skeleton.num_joints):
        above = world[skeleton.parents[joint]]
        own = _swing(skeleton, joint, known, above, rest, resting, target, weight)
        local.append(own)
        world.append(above @ own)
    return torch.stack(local, dim=-3)


def _swing(
    skeleton: Skeleton,
    joint: int,
    known: dict[int, int],
    above: Tensor,
    rest: Tensor,
    resting: Tensor,
    target: Tensor,
    weight: Tensor,
) -> Tensor:
    """Return the rotation (n, 3, 3) of a joint that turns its bones towards their targets, as seen from its parent."""
    kept = resting[joint].expand_as(above)
    ends = [child for child in skeleton.children[joint] if child in known]
    if joint not in known or not ends:
        return kept
    start, covariance = known[joint], RESTING * kept
    for end in ends:
        bone = rest[:, end] - rest[:, joint]
        aim = _seen_from(above, target[:, known[end]] - target[:, start])
        trust = (weight[:, start] * weight[:, known[end]]).sqrt()
        size = (bone.square().sum(-1) * aim.square().sum(-1)).sqrt().clamp(min=1e-9)
        covariance = covariance + (trust / size)[:, None, None] * _outer(aim, bone)
        tips = [tip for tip in skeleton.children[end] if tip in known]
        if len(tips) != 1:
            continue
        # A bent elbow or knee tells how its upper bone is twisted: it bends the way that it rests bent.
        next_bone = (resting[end] @ (rest[:, tips[0]] - rest[:, end]).unsqueeze(-1)).squeeze(-1)
        next_aim = _seen_from(above, target[:, known[tips[0]]] - target[:, known[end]])
        across, bent = _across(next_bone, bone), _across(next_aim, aim)
        trust = (trust * weight[:, known[tips[0]]].sqrt()) / next_aim.norm(dim=-1).clamp(min=1e-9)
        covariance = covariance + trust[:, None, None] * _outer(bent, across)
    return nearest_rotation(covariance)


def _seen_from(world: Tensor, direction: Tensor) -> Tensor:
    return (world.mT @ direction.unsqueeze(-1)).squeeze(-1)


def _outer(first: Tensor, second: Tensor) -> Tensor:
    return first.unsqueeze(-1) * second.unsqueeze(-2)


def _across(vector: Tensor, along: Tensor) -> Tensor:
    """Return the part of `vector` at right angles to `along`."""
    share = (vector * along).sum(-1, keepdim=True) / along.square().sum(-1, keepdim=True).clamp(min=1e-12)
    return vector - share * along
