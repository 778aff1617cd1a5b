"""The energy of a body against 3D points: residuals, and their normal equations in closed form."""

from __future__ import annotations

from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..bodymodel import BodyModel, KeypointRegressor
from ..bodymodel.keypoint_bases import KeypointBases
from ..bodymodel.limits import LimitBox, default_joint_limits
from .normal_equations import NormalEquations
from .pose_terms import PoseTerms
from .relaxed import relaxed_pose

SEGMENT_SCALE_UNIT = 0.2


class JointWeights(NamedTuple):
    """What the energy of a fit to 3D joints is made of; print it, change it with `_replace`, pass it back.

    Attributes:
        noise: expected error of a joint in metres; the data term counts squared distances in this unit.
        limits: of squared violations of the joint limits, in radians².
        pose: of squared deviations from a relaxed pose, in radians²: what decides twists that joints cannot tell.
        shape: of squared shape coefficients, or of squared segment scales minus 1 in units of 20 %.
        temporal: with `sequence`, of the joints' squared second differences over time, in the unit of the noise.
    """

    noise: float = 0.01
    limits: float = 1000.0
    pose: float = 1.0
    shape: float = 1.0
    temporal: float = 0.1


class JointEnergy(NamedTuple):
    """Maps unknowns to residuals.

    Attributes:
        model: the body.
        regressor: the points that are fitted, or None: the joints `joint_ids`.
        joint_ids: (N,).
        parts: the pose arguments that are found, the root first.
        names: of all unknowns, in the order of the columns: parts, transl, shape arguments.
        mean: the shape arguments of the mean body.
        limits: of the joints of `parts` after the root, (n, 3) each; infinite where there are none.
        relaxed: (n, 3) the pose that they fall back to.
        stiffness: (n, 3) how much they do.
        weights: of the terms.
    """

    model: BodyModel
    regressor: KeypointBases | None
    joint_ids: Tensor
    parts: tuple[str, ...]
    names: tuple[str, ...]
    mean: dict[str, Tensor]
    limits: LimitBox
    relaxed: Tensor
    stiffness: Tensor
    weights: JointWeights

    def points(self, params: dict[str, Tensor]) -> Tensor:
        """Return the fitted points (*B, N, 3) of bodies."""
        arguments: dict[str, Any] = dict(params)
        if self.regressor is not None:
            return self.model.keypoints(self.regressor, **arguments)
        return self.model.joints(**arguments).index_select(-2, self.joint_ids)

    def residuals(self, params: dict[str, Tensor], data: dict[str, Tensor]) -> Tensor:
        """Return (n, R): points, limits, relaxed pose, shape.

        Args:
            params: the unknowns (n, ...), and any arguments that are fixed.
            data: target (n, N, 3), trust (n, N): square roots of weights in units of the noise. Values of the same
                names as params stay fixed.
        """
        misses = self._misses(self.points(self.arguments(params, data)), data)
        shapes = (values for _, values, _ in self._shapes(params))
        return torch.cat((misses, self._pose_terms.residuals(self._pose(params)), *shapes), dim=-1)

    def equations(self, params: dict[str, Tensor], data: dict[str, Tensor]) -> NormalEquations:
        """Return the normal equations of `residuals` by `params` in order."""
        arguments = self.arguments(params, data)
        if self.regressor is not None:
            moved = self.model.keypoints_jacobian(self.regressor, wrt=tuple(params), **arguments)
        else:
            moved = self.model.joints_jacobian(self.joint_ids, wrt=tuple(params), **arguments)
        sizes = [value.shape[1:].numel() for value in params.values()]
        first = dict(zip(params, accumulate(sizes[:-1], initial=0), strict=True))
        equations = NormalEquations.zeros(moved.points, sum(sizes))
        trust = data["trust"].repeat_interleave(3, dim=-1).unsqueeze(-1)
        equations.add(self._misses(moved.points, data), trust * moved.matrix(params))
        if len(self.parts) > 1:
            self._pose_terms.add_to(equations, first[self.parts[1]], self._pose(params))
        for name, values, scale in self._shapes(params):
            equations.add_squares(first[name], values, scale)
        return equations

    def arguments(self, params: dict[str, Tensor], data: dict[str, Tensor]) -> dict[str, Any]:
        """Return all arguments of the model: the unknowns, and those that `data` holds fixed."""
        return {**{name: data[name] for name in self.names if name in data}, **params}

    @property
    def _pose_terms(self) -> PoseTerms:
        pull = self.weights.pose * self.stiffness
        return PoseTerms(self.limits, self.relaxed, self.weights.limits, pull)

    def _misses(self, points: Tensor, data: dict[str, Tensor]) -> Tensor:
        return (data["trust"].unsqueeze(-1) * (points - data["target"])).flatten(-2)

    def _pose(self, params: dict[str, Tensor]) -> Tensor:
        root = params["global_orient"]
        parts = [params[name].reshape(len(root), -1, 3) for name in self.parts[1:] if len(root)]
        return torch.cat((root.new_zeros(len(root), 0 if len(root) else len(self.relaxed), 3), *parts), dim=-2)

    def _shapes(self, params: dict[str, Tensor]) -> list[tuple[str, Tensor, float]]:
        """Return for each shape argument that is unknown its name, residuals, and how they move with its numbers."""
        rows = []
        for name, mean in self.mean.items():
            if name in params:
                scale = self.weights.shape**0.5 / (SEGMENT_SCALE_UNIT if name == "segment_scale" else 1.0)
                rows.append((name, scale * (params[name] - mean).flatten(1), scale))
        return rows


def joint_energy(
    model: BodyModel,
    regressor: KeypointRegressor | None,
    joint_ids: Tensor,
    mean: dict[str, Tensor],
    limits: LimitBox | None,
    weights: JointWeights,
) -> JointEnergy:
    """Return the energy of a model against its joints `joint_ids`, or the points of `regressor`.

    Besides `body_pose`, a part is found where it moves one of the points: hands, not jaw and eyes.
    """
    used = set(joint_ids.tolist())
    if regressor is not None:
        used = set(regressor.joint_weights.abs().sum(0).nonzero().flatten().tolist())
    moving = {model.skeleton.parents[joint] for joint in used}
    row, like = model.data.table_row, model.v_template
    parts, first = [], 0
    lower, upper, relaxed, stiffness = ([like.new_zeros(0, 3)] for _ in range(4))
    for part in row.parts:
        joints = set(range(first, first + part.count))
        first += part.count
        if part.name == "body_pose":
            box = limits or default_joint_limits(part.count, dtype=like.dtype, device=like.device)
            rest = relaxed_pose(model.skeleton, part.count, like=like)
            entries = (box.lower, box.upper, rest.body_pose, rest.stiffness)
        elif part.name != "global_orient" and joints & moving and part.name in model.arguments:
            free = like.new_full((part.count, 3), torch.inf)
            entries = (-free, free, like.new_zeros(part.count, 3), like.new_ones(part.count, 3))
        elif part.name == "global_orient":
            parts.append(part.name)
            continue
        else:
            continue
        parts.append(part.name)
        for gathered, entry in zip((lower, upper, relaxed, stiffness), entries, strict=True):
            gathered.append(entry)
    return JointEnergy(
        model,
        None if regressor is None else model.keypoint_bases(regressor),
        joint_ids,
        tuple(parts),
        (*parts, "transl", *mean),
        mean,
        LimitBox(torch.cat(lower), torch.cat(upper)),
        torch.cat(relaxed),
        torch.cat(stiffness),
        weights,
    )
