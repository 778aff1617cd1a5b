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
    `log_scale` () and `translation` (2,) in units of the person's size. Beside them `place` (n,): which row each is
    of all people, or of several alternatives of all people one after the other.

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

    def person(self, place: Tensor) -> Tensor:
        """Return whom of the B each is to match."""
        return place % max(len(self.seen.valid), 1)

    def body(self, unknowns: Mapping[str, Tensor], place: Tensor, outlier: float) -> Registration:
        """Return what the terms see."""
        person, shape = self.person(place), self.shape_argument
        seen = self.seen.of(person)
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

    def residuals(self, unknowns: Mapping[str, Tensor], place: Tensor, stiffness: float, outlier: float) -> Tensor:
        """Return what is squared (n, R); a stiffness from 1 to 0 goes from `stiff` to `weight`."""
        body = self.body(unknowns, place, outlier)
        return torch.cat(
            [_factor(term, stiffness) ** 0.5 * self._of_term(term, body, place) for term in self.terms.values()],
            dim=-1,
        )

    def total(self, unknowns: Mapping[str, Tensor], place: Tensor, stiffness: float, outlier: float) -> Tensor:
        """Return the energy (n,)."""
        return self.residuals(unknowns, place, stiffness, outlier).square().sum(-1)

    def equations(
        self, unknowns: dict[str, Tensor], place: Tensor, stiffness: float, outlier: float
    ) -> NormalEquations:
        """Return the normal equations of `residuals`."""
        body = self.body(unknowns, place, outlier)
        slopes = Slopes(self.model, self.corners.of(self.person(place)), self.keypoints, unknowns, body)
        equations = slopes.equations()
        for term in self.terms.values():
            factor = _factor(term, stiffness)
            if term.add is not None:
                term.add(body, slopes, factor, equations)
                continue
            residuals, jacobian = slopes.of(lambda body, term=term: self._of_term(term, body, place))
            equations.add(factor**0.5 * residuals, factor**0.5 * jacobian)
        return equations

    def _of_term(self, term: Term, body: Registration, place: Tensor) -> Tensor:
        """Return the residuals (n, R) of a term.

        One of the user's may hold something of each of the people, so it sees all of them, alternatives in front: in
        the places of those who are done stands one who is not, and what it says of them is left out.
        """
        if term.add is not None or not len(place):
            return term.residuals(body)
        people = len(self.seen.valid)
        alternatives = int(place.max()) // people + 1
        batch = (people,) if alternatives == 1 else (alternatives, people)

        def everyone(value: Tensor) -> Tensor:
            anyone = value[:1].detach().expand(alternatives * people, *value.shape[1:])
            return anyone.index_copy(0, place, value).unflatten(0, batch)

        fields = {name: everyone(value) for name, value in body._asdict().items() if isinstance(value, Tensor)}
        return term.residuals(body._replace(**fields)).flatten(0, -2).index_select(0, place)


def _factor(term: Term, stiffness: float) -> float:
    return stiffness * term.stiff + (1 - stiffness) * term.weight
