"""2D poses without place and size, as the lifter and its critic see them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..bodymodel.keypoint_sets import KeypointSet
from ..geometry.checks import broadcast_batches, expect_shape
from ..geometry.norms import length, negligible

_ROOTS = ("mid_hip", "pelvis_h36m", "pelvis_mpii", "pelvis_3dhp", "pelvis_smpl")


class NormalisedPose(NamedTuple):
    """Points about their root, in units of their mean distance from it.

    Attributes:
        points: (*B, K, 2), zero where not seen.
        seen: (*B, K).
        origin: (*B, 2) the root, in the unit of the keypoints.
        size: (*B,) the mean distance from it, in the same unit.
    """

    points: Float[Tensor, "*batch K 2"]
    seen: Bool[Tensor, "*batch K"]
    origin: Float[Tensor, "*batch 2"]
    size: Float[Tensor, "*batch"]


def root_of(keypoints: KeypointSet) -> tuple[int, ...]:
    """Return the indices of the keypoints whose mean is the root: the pelvis where a set has it, else both hips.

    Raises:
        ValueError: a set without hips.

    Example:
        >>> from physique.bodymodel import keypoint_set
        >>> root_of(keypoint_set("h36m17")), root_of(keypoint_set("coco17"))
        ((0,), (11, 12))
    """
    points = keypoints.keypoints
    pelvis = next((points.index(root) for root in _ROOTS if root in points), None)
    if pelvis is not None:
        return (pelvis,)
    hips = ("left_hip", "right_hip")
    if not set(hips) <= set(points):
        raise ValueError(f"keypoint_set: expected one with hips, got {keypoints.name}; use coco17")
    return tuple(points.index(hip) for hip in hips)


def normalise_pose(
    keypoints: Float[Tensor, "*#batch K 2"],
    confidence: Float[Tensor, "*#batch K"] | None,
    root: tuple[int, ...],
) -> NormalisedPose:
    """Move the root to the origin and divide by the mean distance of the other points from it (Kudo et al. 2018).

    A point counts as seen when its confidence is above 0; elsewhere it may be NaN. Where no point of the root is seen,
    the mean of all that are takes its place. A pose without extent comes out as zeros, with zero gradients.

    Args:
        keypoints: (*B, K, 2) in any unit.
        confidence: (*B, K); None: everything is seen.
        root: indices of the keypoints whose mean is the root.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> pose = normalise_pose(torch.tensor([[5.0, 5.0], [5.0, 9.0], [5.0, 3.0]]), None, (0,))
        >>> pose.points[:, 1], pose.size
        (tensor([ 0.0000,  1.3333, -0.6667]), tensor(3.))
    """
    batch = expect_shape("keypoints", keypoints, "K", 2)
    count = keypoints.shape[-2]
    if confidence is None:
        confidence = keypoints.new_ones(count)
    shape = expect_shape("confidence", confidence, count, advice=f"there are {count} keypoints")
    batch = broadcast_batches({"keypoints": batch, "confidence": shape})
    seen = (confidence > 0).expand(*batch, count)
    points = torch.where(seen.unsqueeze(-1), keypoints, 0)
    of_root = torch.tensor([index in root for index in range(count)], device=keypoints.device)
    at_root = seen & of_root
    at_root = torch.where(at_root.any(-1, keepdim=True), at_root, seen)
    origin = _mean(points, at_root.unsqueeze(-1))
    points = torch.where(seen.unsqueeze(-1), points - origin.unsqueeze(-2), 0)
    size = _mean(length(points).unsqueeze(-1), (seen & ~of_root).unsqueeze(-1)).squeeze(-1)
    unit = torch.where(size <= negligible(size.dtype), 1, size)
    return NormalisedPose(points / unit[..., None, None], seen, origin, size)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Return the mean over the points (*B, K, n) that count (*B, K, 1); 0 where none does."""
    counted = counted.to(values.dtype)
    return (counted * values).sum(-2) / counted.sum(-2).clamp(min=1)
