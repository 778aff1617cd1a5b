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
    betas: Tensor | None
    segment_scale: Tensor | None
    outlier: float
    skeleton: Skeleton
    limits: LimitBox
    relaxed: RelaxedPose


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


ERROR_UNIT = 0.01
"""Image errors are counted in this share of the person's size."""
DEPTH_UNIT = 0.03
"""Depth errors are counted in this many metres."""
SCALE_UNIT = 0.1
"""Deviations of segment scales from 1 are counted in this unit."""


def default_terms() -> dict[str, Term]:
    """Return the terms of `register_surface` by name: the five of Yoshiyasu and Gamez 2019, and what goes with them.

    Change a weight with `terms["dense"] = terms["dense"]._replace(weight=2.0)`, drop a term with `del`, add one of your
    own with `terms["name"] = Term(weight, stiff, function)`. The data terms are robust.

    Example:
        >>> terms = default_terms()
        >>> terms["level"] = Term(50.0, 50.0, lambda body: (body.joints[..., 1, 1] - body.joints[..., 2, 1]).square())
        >>> terms["level"].weight
        50.0
    """
    return {
        "dense": Term(1.0, 1.0, dense),
        "keypoints": Term(0.6, 0.6, keypoints),
        "depths": Term(1.0, 1.0, depths),
        "scale_smoothness": Term(100.0, 1000.0, scale_smoothness),
        "shape": Term(0.5, 5.0, shape),
        "joint_angles": Term(20.0, 50.0, joint_angles),
        "joint_limits": Term(100.0, 100.0, joint_limits),
        "determinant": Term(1.0, 1.0, determinant),
    }


def dense(body: Registration) -> Tensor:
    """Return the robust squared distances of the surface points in the image, summed."""
    mean = dense_correspondence_loss(
        body.projected, body.pixels, body.weight, penalty="geman_mcclure", sigma=body.outlier
    )
    return body.weight.sum(-1) * mean / ERROR_UNIT**2


def keypoints(body: Registration) -> Tensor:
    """Return the robust squared distances of the keypoints in the image, summed."""
    mean = reprojection_loss(
        body.projected_keypoints, body.target_keypoints, body.confidence, penalty="geman_mcclure", sigma=body.outlier
    )
    return body.confidence.sum(-1) * mean / ERROR_UNIT**2


def depths(body: Registration) -> Tensor:
    """Return the squared errors of the keypoints' depths relative to the mean of those that are known, summed."""
    known = ~body.depths.isnan()
    error = torch.where(known, body.keypoints[..., 2] - torch.where(known, body.depths, 0), 0)
    mean = error.sum(-1, keepdim=True) / known.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(known, error - mean, 0).square().sum(-1) / DEPTH_UNIT**2


def scale_smoothness(body: Registration) -> Tensor:
    """Return the squared differences of segment scales between neighbours; zero for a model with betas."""
    if body.segment_scale is None:
        return _zero(body)
    return scale_smoothness_loss(body.segment_scale, body.skeleton.parents)


def shape(body: Registration) -> Tensor:
    """Return the squared betas, or the squared deviations of segment scales from 1."""
    if body.segment_scale is not None:
        return ((body.segment_scale - 1) / SCALE_UNIT).square().flatten(body.matrix.dim() - 2).sum(-1)
    return _zero(body) if body.betas is None else body.betas.square().sum(-1)


def joint_angles(body: Registration) -> Tensor:
    """Return the squared deviations from the relaxed pose, stiff joints counting more."""
    return body.relaxed.energy(body.body_pose)


def joint_limits(body: Registration) -> Tensor:
    """Return the squared violations of the joint limits."""
    return joint_limit_loss(body.body_pose, body.limits)


def determinant(body: Registration) -> Tensor:
    """Return what keeps the determinant of the free global matrix positive."""
    return determinant_loss(body.matrix)


def _zero(body: Registration) -> Tensor:
    return torch.zeros_like(body.matrix[..., 0, 0])
