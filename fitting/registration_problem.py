"""A registration as a function of its unknowns: the body as the terms see it, the energy, and its normal equations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..bodymodel import BodyModel
from ..bodymodel.keypoint_bases import KeypointBases
from ..bodymodel.limits import LimitBox
from ..bodymodel.point_mixes import CornerMix
from ..geometry import axis_angle_to_matrix, gram_schmidt
from .normal_equations import NormalEquations
from .registration_body import Registration
from .registration_observations import Observations
from .registration_slopes import Slopes
from .registration_terms import Term
from .relaxed import RelaxedPose


class Problem(NamedTuple):
    """A registration of B people: evaluates the body and the energy for unknowns (n, ...).

    The unknowns: `matrix` (3, 3), `body_pose` (n, 3), `betas` or `segment_scale`, and the weak-perspective camera
    `log_scale` () and `translation` (2,) in units of the person's size. Beside them `person` (n,): whom of the B each
    of the n is to match.

    Attributes:
        model: the body.
        corners: the surface points, a set a person.
        keypoints: on the body; None without.
        seen: the observations.
        limits: of the joints.
        relaxed: resting pose and stiffness.
        terms: of the energy.
    """

    model: BodyModel
    corners: CornerMix
    keypoints: KeypointBases | None
    seen: Observations
    limits: LimitBox
    relaxed: RelaxedPose
    terms: Mapping[str, Term]

    @property
    def shape_argument(self) -> str:
        """Name of the model's shape argument: betas or segment_scale."""
        return "segment_scale" if self.model.data.count("segment_scale") else "betas"

    @property
    def closed(self) -> bool:
        """Whether all terms know their derivatives, so that samples may be taken in any order."""
        return all(term.add is not None for term in self.terms.values())

    def body(self, unknowns: Mapping[str, Tensor], person: Tensor, outlier: float) -> Registration:
        """Return what the terms see."""
        seen, shape = self.seen.of(person), self.shape_argument
        rotation, local = gram_schmidt(unknowns["matrix"]), axis_angle_to_matrix(unknowns["body_pose"])
        arguments: dict[str, Any] = {
            shape: unknowns[shape],
            "global_orient": rotation,
            "body_pose": local,
            "rotation": "matrix",
        }
        corners = self.corners.of(person)
        vertices, joints = self.model.vertices_and_joints(corners.bases, **arguments)
        points = (vertices.unflatten(-2, (-1, 3)) * corners.mix.unsqueeze(-1)).sum(-2)
        keypoints = joints[..., :0, :]
        if self.keypoints is not None:
            keypoints = self.model.keypoints(self.keypoints, **arguments)
        scale = unknowns["log_scale"].exp()[:, None, None]
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
            rotation=rotation,
            local_rotations=local,
            betas=unknowns.get("betas"),
            segment_scale=unknowns.get("segment_scale"),
            outlier=outlier,
            skeleton=self.model.skeleton,
            limits=self.limits,
            relaxed=self.relaxed,
        )

    def residuals(self, unknowns: Mapping[str, Tensor], person: Tensor, stiffness: float, outlier: float) -> Tensor:
        """Return what is squared (n, R); a stiffness from 1 to 0 goes from `stiff` to `weight`."""
        body = self.body(unknowns, person, outlier)
        return torch.cat(
            [
                _factor(term, stiffness) ** 0.5 * _of_term(term, body, len(self.seen.valid))
                for term in self.terms.values()
            ],
            dim=-1,
        )

    def total(self, unknowns: Mapping[str, Tensor], person: Tensor, stiffness: float, outlier: float) -> Tensor:
        """Return the energy (n,)."""
        return self.residuals(unknowns, person, stiffness, outlier).square().sum(-1)

    def equations(
        self, unknowns: dict[str, Tensor], person: Tensor, stiffness: float, outlier: float
    ) -> NormalEquations:
        """Return the normal equations of `residuals`."""
        body = self.body(unknowns, person, outlier)
        slopes = Slopes(self.model, self.corners.of(person), self.keypoints, unknowns, body)
        equations = slopes.equations()
        for term in self.terms.values():
            factor = _factor(term, stiffness)
            if term.add is not None:
                term.add(body, slopes, factor, equations)
                continue
            residuals, jacobian = slopes.of(lambda body, term=term: _of_term(term, body, len(self.seen.valid)))
            equations.add(factor**0.5 * residuals, factor**0.5 * jacobian)
        return equations


def _of_term(term: Term, body: Registration, people: int) -> Tensor:
    """Return the residuals (n, R) of a term. One of the user's sees all people at once, alternatives in front."""
    count = len(body.matrix)
    if term.add is not None or count == people:
        return term.residuals(body)
    batch = (count // max(people, 1), people)
    fields = {n: value.unflatten(0, batch) for n, value in body._asdict().items() if isinstance(value, Tensor)}
    return term.residuals(body._replace(**fields)).flatten(0, 1)


def _factor(term: Term, stiffness: float) -> float:
    return stiffness * term.stiff + (1 - stiffness) * term.weight
