"""The terms of a registration's energy: data that a user prints, changes and extends."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..bodymodel.limits import LimitBox
from ..bodymodel.skeleton import Skeleton
from ..losses import (
    dense_correspondence_loss,
    determinant_loss,
    joint_limit_loss,
    reprojection_loss,
    scale_smoothness_loss,
)
from .relaxed import RelaxedPose


class Registration(NamedTuple):
    """What a term sees: the body as it stands and what it is compared with, for samples (*B,).

    Image quantities are in units of the person's size, so that weights do not depend on the image.

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
        depths: (*B, K) of the keypoints relative to their mean, metres, NaN where unknown; None without depths.
        body_pose: (*B, n, 3) axis-angle.
        matrix: (*B, 3, 3) free global matrix, before Gram-Schmidt.
        shape: (*B, S) betas, or (*B, J[, 3]) segment scales.
        skeleton: parents and names of the joints.
        limits: of the joints.
        relaxed: resting pose and stiffness.
        scales: whether `shape` holds segment scales.
        outlier: image error at which a point's pull fades (Geman-McClure): wide at first, narrow in the end.
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
    depths: Tensor | None
    body_pose: Tensor
    matrix: Tensor
    shape: Tensor
    skeleton: Skeleton
    limits: LimitBox
    relaxed: RelaxedPose
    scales: bool
    outlier: float


class Term(NamedTuple):
    """A term of the energy.

    Attributes:
        weight: after the release.
        stiff: weight in the first, stiff stage.
        value: maps a `Registration` to one number a sample, (*B,).
    """

    weight: float
    stiff: float
    value: Callable[[Registration], Tensor]

    def __repr__(self) -> str:
        name = getattr(self.value, "__name__", repr(self.value))
        return f"Term(weight={self.weight:g}, stiff={self.stiff:g}, value={name})"


def default_terms() -> dict[str, Term]:
    """Return the terms of `register_surface` by name, each with its weight: Yoshiyasu and Gamez's five, and three more.

    Change a weight with `terms["dense"]._replace(weight=...)`, drop a term with `del`, add one of your own with
    `terms["name"] = Term(weight, stiff, function)`. Data terms are robust and count squared errors in units of 1 % of
    the person's size.

    Example:
        >>> terms = default_terms()
        >>> terms["height"] = Term(10.0, 10.0, lambda body: (body.joints[..., 0, 2] - 0.1).square())
        >>> terms["height"].weight
        10.0
    """
    return {
        "dense": Term(1.0, 1.0, dense),
        "keypoints": Term(0.3, 0.3, keypoints),
        "depths": Term(1.0, 1.0, depths),
        "scale_smoothness": Term(100.0, 1000.0, scale_smoothness),
        "shape": Term(0.3, 3.0, shape),
        "joint_angles": Term(0.5, 50.0, joint_angles),
        "joint_limits": Term(100.0, 100.0, joint_limits),
        "determinant": Term(1.0, 1.0, determinant),
    }


ERROR_UNIT = 0.01
"""Image errors are counted in this share of the person's size."""
OUTLIER = 0.05
"""An image error of this share of the person's size has half of its full pull."""
DEPTH_UNIT = 0.03
"""Depth errors are counted in this many metres."""


def dense(body: Registration) -> Tensor:
    """Return the robust mean squared distance of the surface points in the image."""
    loss = dense_correspondence_loss(body.projected, body.pixels, body.weight, penalty="geman_mcclure", sigma=body.outlier)
    return body.weight.shape[-1] * loss / ERROR_UNIT**2


def keypoints(body: Registration) -> Tensor:
    """Return the robust mean squared distance of the keypoints in the image."""
    loss = reprojection_loss(
        body.projected_keypoints, body.target_keypoints, body.confidence, penalty="geman_mcclure", sigma=body.outlier
    )
    return body.confidence.sum(-1) * loss / ERROR_UNIT**2


def depths(body: Registration) -> Tensor:
    """Return the squared error of the keypoints' depths, relative to their mean."""
    if body.depths is None:
        return torch.zeros_like(body.matrix[..., 0, 0])
    known = ~body.depths.isnan()
    target = torch.where(known, body.depths, 0)
    count = known.sum(-1, keepdim=True).clamp(min=1)
    depth = torch.where(known, body.keypoints[..., 2], 0)
    error = (depth - depth.sum(-1, keepdim=True) / count) - (target - target.sum(-1, keepdim=True) / count)
    return torch.where(known, error, 0).square().sum(-1) / DEPTH_UNIT**2


def scale_smoothness(body: Registration) -> Tensor:
    """Return the squared differences of segment scales between neighbours; zero for a model with betas."""
    if not body.scales:
        return torch.zeros_like(body.matrix[..., 0, 0])
    return scale_smoothness_loss(body.shape, body.skeleton.parents)


def shape(body: Registration) -> Tensor:
    """Return the squared betas, or the squared segment scales minus 1 in units of 10 %."""
    deviation = (body.shape - 1) / 0.1 if body.scales else body.shape
    return deviation.flatten(body.matrix.dim() - 2).square().sum(-1)


def joint_angles(body: Registration) -> Tensor:
    """Return the squared deviations from the relaxed pose, stiff joints counting more."""
    return body.relaxed.energy(body.body_pose)


def joint_limits(body: Registration) -> Tensor:
    """Return the squared violations of the joint limits."""
    return joint_limit_loss(body.body_pose, body.limits)


def determinant(body: Registration) -> Tensor:
    """Return what keeps the determinant of the free global matrix positive."""
    return determinant_loss(body.matrix)
