"""What the terms of a registration see."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..bodymodel.limits import LimitBox
from ..bodymodel.skeleton import Skeleton
from .relaxed import RelaxedPose


class Registration(NamedTuple):
    """What a term sees: the body as it stands and what it is compared with, for samples (*B,).

    Image quantities are moved and scaled so that a person's size is about 1: weights do not depend on the image.

    Attributes:
        joints: (*B, J, 3) in camera axes, metres.
        points: (*B, N, 3) surface points in camera axes, metres.
        projected: (*B, N, 2) the same in the image.
        pixels: (*B, N, 2) where they were seen.
        weight: (*B, N).
        keypoints: (*B, K, 3) of the body in camera axes, metres; K = 0 without keypoints.
        projected_keypoints: (*B, K, 2).
        target_keypoints: (*B, K, 2).
        confidence: (*B, K).
        depths: (*B, K) known depths of the keypoints up to a common shift, metres; NaN where unknown.
        body_pose: (*B, n, 3) axis-angle.
        matrix: (*B, 3, 3) free global matrix, before Gram-Schmidt.
        rotation: (*B, 3, 3) after it.
        local_rotations: (*B, n, 3, 3) of body_pose.
        betas: (*B, S), or None for a model with segment scales.
        segment_scale: (*B, J) or (*B, J, 3), or None for a model with betas.
        outlier: image error at which a point's pull fades (Geman-McClure): wide at first, narrow in the end.
        skeleton: parents and names of the joints.
        limits: of the joints.
        relaxed: resting pose and stiffness.
    """

    joints: Tensor
    points: Tensor
    projected: Tensor
    pixels: Tensor
    weight: Tensor
    keypoints: Tensor
    projected_keypoints: Tensor
    target_keypoints: Tensor
    confidence: Tensor
    depths: Tensor
    body_pose: Tensor
    matrix: Tensor
    rotation: Tensor
    local_rotations: Tensor
    betas: Tensor | None
    segment_scale: Tensor | None
    outlier: float
    skeleton: Skeleton
    limits: LimitBox
    relaxed: RelaxedPose
