"""What bone lengths say: left and right are alike, and proportions are those of people."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..bodymodel.keypoint_sets import KeypointSet
from ..bodymodel.skeleton import Skeleton
from ..geometry.checks import expect_shape
from ..geometry.norms import negligible
from .robust import distance, l2
from .weighting import expect_points, keep, read_weight

Bone: TypeAlias = Sequence[int]


def symmetric_bones(structure: Skeleton | KeypointSet) -> tuple[tuple[tuple[int, int], tuple[int, int]], ...]:
    """Return the pairs of bones that mirror each other, by the names of their ends: what `bone_symmetry_loss` takes.

    Args:
        structure: a skeleton, whose bones go from each parent to its child, or a keypoint set with its bones.

    Returns:
        One ((a, b), (c, d)) a pair: indices of the ends of a bone, and of those of the bone on the other side.

    Example:
        >>> from physique.bodymodel import keypoint_set
        >>> symmetric_bones(keypoint_set("lsp14"))[-1]
        ((4, 5), (1, 0))
    """
    if isinstance(structure, Skeleton):
        mirror = structure.mirror
        bones = [(parent, joint) for joint, parent in enumerate(structure.parents) if parent >= 0]
    else:
        mirror, bones = structure.flip, list(structure.bones)
    pairs = []
    met = set()
    for a, b in bones:
        other = (mirror[a], mirror[b])
        if {a, b} != set(other) and frozenset(other) not in met:
            pairs.append(((a, b), other))
        met.add(frozenset((a, b)))
    return tuple(pair for pair in pairs if _is_bone(pair[1], bones))


def _is_bone(bone: tuple[int, int], bones: Sequence[tuple[int, int]]) -> bool:
    return bone in bones or bone[::-1] in bones


def bone_lengths(joints: Float[Tensor, "*batch K D"], bones: Sequence[Bone]) -> Float[Tensor, "*batch n"]:
    """Return the length of each bone; a bone of length 0 has zero derivatives.

    Args:
        joints: (*B, K, D) in any unit.
        bones: n pairs of indices of joints.

    Raises:
        ValueError: a shape that does not fit, or an index that is no joint.

    Example:
        >>> bone_lengths(torch.tensor([[0.0, 0.0, 0.0], [0.0, 3.0, 4.0]]), [(0, 1)])
        tensor([5.])
    """
    expect_shape("joints", joints, "K", "D")
    _expect_joints("bones", bones, joints.shape[-2])
    first, second = [bone[0] for bone in bones], [bone[1] for bone in bones]
    return distance(joints[..., second, :] - joints[..., first, :])


def bone_ratios(
    joints: Float[Tensor, "*batch K D"], bones: Sequence[Bone], trunk: Sequence[int]
) -> Float[Tensor, "*batch n"]:
    """Return the length of each bone divided by the length of the trunk.

    The ratios of an average person for `bone_ratio_loss` come from the keypoints of a rest body, or from data. A trunk
    of negligible length gives ratios of 0.

    Args:
        joints: (*B, K, D) in any unit.
        bones: n pairs of indices of joints.
        trunk: indices of the joints along the trunk, two or more; its length is that of the way along them.

    Raises:
        ValueError: a shape that does not fit, or an index that is no joint.

    Example:
        >>> joints = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.4, 0.3]])
        >>> bone_ratios(joints, bones=[(1, 2), (0, 2)], trunk=(0, 1))
        tensor([0.6325, 1.0000])
    """
    expect_shape("joints", joints, "K", "D")
    _expect_joints("bones", bones, joints.shape[-2])
    _expect_joints("trunk", [trunk], joints.shape[-2])
    if len(trunk) < 2:
        raise ValueError(f"trunk: expected two joints or more, got {len(trunk)}; name both ends")
    way = list(pairwise(trunk))
    lengths = bone_lengths(joints, [*bones, *way])
    # Ratios know no unit: with lengths of at most 1 a short trunk does not overflow.
    largest = lengths.detach().amax(-1, keepdim=True)
    lengths = lengths / torch.where(largest > 0, largest, 1)
    total = lengths[..., len(bones) :].sum(-1, keepdim=True)
    regular = ~(total <= negligible(total.dtype))
    return torch.where(regular, lengths[..., : len(bones)] / torch.where(regular, total, 1), 0)


def bone_symmetry_loss(
    joints: Float[Tensor, "*joints K D"],
    pairs: Sequence[Sequence[Bone]],
    mask: Float[Tensor, "*mask K"] | Bool[Tensor, "*mask K"] | None = None,
) -> Float[Tensor, "*out"]:
    """Return the sum over pairs of bones of the squared difference of their lengths.

    Σ_(i,j) (l_i − l_j)², the symmetry loss on lifted joints of Yoshiyasu & Gamez (2019). Their equation is not
    preserved; this is the form that the text fits. Value and gradient are finite everywhere; a bone of length 0, where
    its length has a corner, gets no gradient.

    Args:
        joints: (*B, K, D) in metres, or any unit.
        pairs: ((a, b), (c, d)) a pair, indices of joints; `symmetric_bones` finds them by name.
        mask: (*B, K), above 0 where a joint is seen; None: everywhere. A pair counts when its four ends are seen,
            and an unseen joint may be NaN.

    Returns:
        (*B,), one loss a sample, in metres².

    Raises:
        ValueError: a shape that does not fit, or an index that is no joint.

    Example:
        >>> joints = torch.tensor([[0.0, 0.0, 0.0], [0.4, 0.0, 0.0], [-0.5, 0.0, 0.0]])
        >>> bone_symmetry_loss(joints, pairs=[((0, 1), (0, 2))])
        tensor(0.0100)
    """
    expect_points("D", {"joints": joints}, mask=mask)
    _expect_joints("pairs", [end for pair in pairs for end in pair], joints.shape[-2])
    _, seen = read_weight(mask, joints)
    joints = keep(joints, seen)
    left, right = [list(pair[0]) for pair in pairs], [list(pair[1]) for pair in pairs]
    difference = bone_lengths(joints, left) - bone_lengths(joints, right)
    return l2(torch.where(_both_seen(seen, left) & _both_seen(seen, right), difference, 0)).sum(-1)


def bone_ratio_loss(
    joints: Float[Tensor, "*joints K D"],
    bones: Sequence[Bone],
    ratios: Float[Tensor, "*ratios n"] | Sequence[float],
    trunk: Sequence[int],
    mask: Float[Tensor, "*mask K"] | Bool[Tensor, "*mask K"] | None = None,
) -> Float[Tensor, "*out"]:
    """Return the sum over the bones of the squared difference between their ratio to the trunk and the given one.

    Σ_b (l_b / l_trunk − r_b)², the bone-ratio loss on lifted joints of Yoshiyasu & Gamez (2019). Their equation is not
    preserved; this is the form that the text fits. It does not depend on the unit of the joints. Where the trunk has no
    length its bones have ratio 0 and no gradient.

    Args:
        joints: (*B, K, D) in any unit.
        bones: n pairs of indices of joints.
        ratios: (n,) or (*B, n) lengths of an average person's bones divided by the trunk's, as `bone_ratios` gives.
        trunk: indices of the joints along the trunk, two or more; its length is that of the way along them.
        mask: (*B, K), above 0 where a joint is seen; None: everywhere. A bone counts when its ends and the trunk are
            seen, and an unseen joint may be NaN.

    Returns:
        (*B,), one loss a sample.

    Raises:
        ValueError: a shape that does not fit, or an index that is no joint.

    Example:
        >>> joints = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.5, 0.3]])
        >>> bone_ratio_loss(joints, bones=[(1, 2)], ratios=[0.5], trunk=(0, 1))
        tensor(0.0100)
    """
    expect_points("D", {"joints": joints}, mask=mask)
    _, seen = read_weight(mask, joints)
    found = bone_ratios(keep(joints, seen), bones, trunk)
    ratios = torch.as_tensor(ratios, dtype=joints.dtype, device=joints.device)
    expect_shape("ratios", ratios, len(bones))
    counted = _both_seen(seen, bones) & seen[..., list(trunk)].all(-1, keepdim=True)
    return l2(torch.where(counted, found - ratios, 0)).sum(-1)


def _both_seen(seen: Tensor, bones: Sequence[Bone]) -> Tensor:
    return seen[..., [bone[0] for bone in bones]] & seen[..., [bone[1] for bone in bones]]


def _expect_joints(name: str, rows: Sequence[Sequence[int]], count: int) -> None:
    bad = next((index for row in rows for index in row if not 0 <= index < count), None)
    if bad is not None:
        raise ValueError(f"{name}: expected indices from 0 to {count - 1}, got {bad}; the joints have {count} rows")
    short = next((row for row in rows if name != "trunk" and len(row) != 2), None)
    if short is not None:
        raise ValueError(f"{name}: expected two joints a bone, got {list(short)}; name both ends")
