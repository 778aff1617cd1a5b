"""The terms of a registration's energy: data that a user prints, changes and extends."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..losses import (
    dense_correspondence_loss,
    determinant_loss,
    joint_limit_loss,
    reprojection_loss,
    scale_smoothness_loss,
)
from .normal_equations import NormalEquations
from .registration_body import Registration
from .registration_slopes import Slopes
from .robust_residuals import softened_slope


class Term(NamedTuple):
    """A term of the energy.

    Attributes:
        weight: after the release.
        stiff: weight in the first, stiff stage.
        value: maps a `Registration` to an energy (*B,), not negative, or better to residuals (*B, R): their squares are
            summed. An energy is one residual, its square root, and least squares see but one direction of it.
        add: adds the term, times a number, to the normal equations of any samples, for a term that knows its
            derivatives in closed form; `value` is an energy then. Default: `value` is differentiated.
    """

    weight: float
    stiff: float
    value: Callable[[Registration], Tensor]
    add: Callable[[Registration, Slopes, float, NormalEquations], None] | None = None

    def residuals(self, body: Registration) -> Tensor:
        """Return what is squared, (*B, R)."""
        value = self.value(body)
        if value.dim() > body.matrix.dim() - 2:
            return value
        # Where an energy is zero, so is its slope: that of its root is not a number there.
        positive = value != 0
        return torch.where(positive, torch.where(positive, value, 1).sqrt(), 0).unsqueeze(-1)

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
        "dense": Term(1.0, 1.0, dense, add_dense),
        "keypoints": Term(0.6, 0.6, keypoints, add_keypoints),
        "depths": Term(1.0, 1.0, depths, add_depths),
        "scale_smoothness": Term(100.0, 1000.0, scale_smoothness, add_scale_smoothness),
        "shape": Term(0.5, 5.0, shape, add_shape),
        "joint_angles": Term(20.0, 50.0, joint_angles, add_joint_angles),
        "joint_limits": Term(1000.0, 300.0, joint_limits, add_joint_limits),
        "determinant": Term(1.0, 1.0, determinant, add_determinant),
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


def add_dense(body: Registration, slopes: Slopes, factor: float, equations: NormalEquations) -> None:
    """Add `dense`: each distance counts with the weight at which a parabola touches the penalty."""
    off = body.projected - body.pixels
    softer = softened_slope(off.norm(dim=-1, keepdim=True), body.outlier)
    trust = (factor * body.weight).sqrt().unsqueeze(-1) / ERROR_UNIT * softer
    equations.add((trust * off).flatten(1), (trust.unsqueeze(-1) * slopes.projected).flatten(1, 2))


def add_keypoints(body: Registration, slopes: Slopes, factor: float, equations: NormalEquations) -> None:
    """Add `keypoints` likewise."""
    off = body.projected_keypoints - body.target_keypoints
    trust = (factor * body.confidence).sqrt().unsqueeze(-1) / ERROR_UNIT * softened_slope(off, body.outlier)
    equations.add((trust * off).flatten(1), (trust.unsqueeze(-1) * slopes.projected_keypoints).flatten(1, 2))


def add_depths(body: Registration, slopes: Slopes, factor: float, equations: NormalEquations) -> None:
    """Add `depths`."""
    known = (~body.depths.isnan()).to(body.keypoints)
    share = (known / known.sum(-1, keepdim=True).clamp(min=1)).unsqueeze(-2)

    def centred(rows: Tensor) -> Tensor:
        return factor**0.5 / DEPTH_UNIT * known.unsqueeze(-1) * (rows - share @ rows)

    error = (body.keypoints[..., 2] - body.depths.nan_to_num(0)).unsqueeze(-1)
    equations.add(centred(error).squeeze(-1), centred(slopes.keypoints[..., 2, :]))


def add_scale_smoothness(body: Registration, slopes: Slopes, factor: float, equations: NormalEquations) -> None:
    """Add `scale_smoothness`: a row a bone."""
    scales = body.segment_scale
    if scales is None:
        return
    parents = body.skeleton.parents
    bones = torch.eye(len(parents), dtype=scales.dtype, device=scales.device)
    bones = factor**0.5 * (bones[1:] - bones[list(parents[1:])])
    rows = bones if scales.dim() == 2 else torch.kron(bones, torch.eye(3, dtype=scales.dtype, device=scales.device))
    residuals = scales.flatten(1) @ rows.mT
    equations.add_some(slopes.first["segment_scale"], residuals, rows.expand(len(scales), -1, -1))


def add_shape(body: Registration, slopes: Slopes, factor: float, equations: NormalEquations) -> None:
    """Add `shape`."""
    scale, first = factor**0.5, slopes.first[slopes.shape]
    if body.segment_scale is not None:
        equations.add_squares(first, scale / SCALE_UNIT * (body.segment_scale - 1).flatten(1), scale / SCALE_UNIT)
    elif body.betas is not None:
        equations.add_squares(first, scale * body.betas, scale)


def add_joint_angles(body: Registration, slopes: Slopes, factor: float, equations: NormalEquations) -> None:
    """Add `joint_angles`."""
    pull = factor * body.relaxed.stiffness
    off = pull * (body.body_pose - body.relaxed.body_pose)
    equations.add_turns(slopes.first["body_pose"], pull.expand_as(off), off, slopes.pose_turns)


def add_joint_limits(body: Registration, slopes: Slopes, factor: float, equations: NormalEquations) -> None:
    """Add `joint_limits`."""
    beyond = (body.body_pose - body.limits.upper).relu() - (body.limits.lower - body.body_pose).relu()
    weights = factor * (beyond != 0).to(beyond)
    equations.add_turns(slopes.first["body_pose"], weights, factor * beyond, slopes.pose_turns)


def add_determinant(body: Registration, slopes: Slopes, factor: float, equations: NormalEquations) -> None:
    """Add `determinant`: its root is exp(-det / 2), and the determinant moves by the cofactors."""
    first, second, third = body.matrix.unbind(-1)
    cross = torch.linalg.cross
    cofactors = torch.stack((cross(second, third), cross(third, first), cross(first, second)), dim=-1)
    root = (factor * determinant(body)).sqrt().unsqueeze(-1)
    jacobian = -root.unsqueeze(-1) / 2 * cofactors.flatten(1).unsqueeze(1)
    equations.add_some(slopes.first["matrix"], root, jacobian)


def _zero(body: Registration) -> Tensor:
    return torch.zeros_like(body.matrix[..., 0, 0])
