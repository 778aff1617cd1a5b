"""A registration as a function of its unknowns: the body as the terms see it, and the energy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..bodymodel import BodyModel, KeypointRegressor
from ..bodymodel.limits import LimitBox
from ..bodymodel.skinning import VertexBases
from ..geometry import axis_angle_to_matrix, gram_schmidt
from .registration_observations import Observations
from .registration_terms import Registration, Term
from .relaxed import RelaxedPose


class Problem(NamedTuple):
    """A registration: evaluates the body and the energy for unknowns (*S, B, ...), S being alternatives.

    The unknowns: `matrix` (3, 3), `body_pose` (n, 3), `betas` or `segment_scale`, and the weak-perspective camera
    `log_scale` () and `translation` (2,) in units of the person's size.

    Attributes:
        model: the body.
        bases: of (B, n + 3 N) vertices: those of the keypoints, then the corners of the surface points.
        regressor: the keypoints; None without.
        seen: the observations.
        limits: of the joints.
        relaxed: resting pose and stiffness.
        terms: of the energy.
    """

    model: BodyModel
    bases: VertexBases
    regressor: KeypointRegressor | None
    seen: Observations
    limits: LimitBox
    relaxed: RelaxedPose
    terms: Mapping[str, Term]

    @property
    def shape_argument(self) -> str:
        """Name of the model's shape argument: betas or segment_scale."""
        return "segment_scale" if self.model.data.count("segment_scale") else "betas"

    def body(self, unknowns: Mapping[str, Tensor], outlier: float) -> Registration:
        """Return what the terms see."""
        seen, shape = self.seen, self.shape_argument
        arguments: dict[str, Any] = {shape: unknowns[shape]}
        vertices, joints = self.model.vertices_and_joints(
            self.bases,
            global_orient=gram_schmidt(unknowns["matrix"]),
            body_pose=axis_angle_to_matrix(unknowns["body_pose"]),
            rotation="matrix",
            **arguments,
        )
        corners = 3 * seen.faces.shape[-1]
        of_keypoints, of_points = vertices.split((vertices.shape[-2] - corners, corners), dim=-2)
        points = (of_points.unflatten(-2, (-1, 3)) * seen.barycentric.unsqueeze(-1)).sum(-2)
        keypoints = of_keypoints[..., :0, :] if self.regressor is None else self.regressor(joints, of_keypoints)
        scale = unknowns["log_scale"].exp()[..., None, None]
        shift = unknowns["translation"].unsqueeze(-2)
        return Registration(
            joints=joints,
            points=points,
            projected=scale * points[..., :2] + shift,
            pixels=seen.pixels,
            weight=seen.weight,
            keypoints=keypoints,
            projected_keypoints=scale * keypoints[..., :2] + shift,
            target_keypoints=seen.keypoints,
            confidence=seen.confidence,
            depths=seen.depths,
            body_pose=unknowns["body_pose"],
            matrix=unknowns["matrix"],
            betas=unknowns.get("betas"),
            segment_scale=unknowns.get("segment_scale"),
            outlier=outlier,
            skeleton=self.model.skeleton,
            limits=self.limits,
            relaxed=self.relaxed,
        )

    def energy(self, unknowns: Mapping[str, Tensor], stiffness: float, outlier: float) -> Tensor:
        """Return the weighted sum of the terms (*S, B); a stiffness from 1 to 0 goes from `stiff` to `weight`."""
        body = self.body(unknowns, outlier)
        total = torch.zeros_like(unknowns["log_scale"])
        for term in self.terms.values():
            weight = stiffness * term.stiff + (1 - stiffness) * term.weight
            total = total + weight * term.value(body)
        return total
