"""The energy of a body against 3D points: residuals, and their Jacobian in closed form."""

from __future__ import annotations

from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..bodymodel import BodyModel, KeypointRegressor, PointsJacobian
from ..bodymodel.limits import LimitBox, default_joint_limits
from .relaxed import relaxed_pose
from .tangent import left_turns

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
        names: of all unknowns, in the order of the columns: shape arguments, parts, transl.
        mean: the shape arguments of the mean body.
        limits: of the joints of `parts` after the root, (n, 3) each; infinite where there are none.
        relaxed: (n, 3) the pose that they fall back to.
        stiffness: (n, 1) how much they do.
        weights: of the terms.
    """

    model: BodyModel
    regressor: KeypointRegressor | None
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
        """Return (n, R): points, limits, relaxed pose, shape, and the neighbours in time where data has them.

        Args:
            params: the unknowns (n, ...), and any arguments that are fixed.
            data: target (n, N, 3), trust (n, N): square roots of weights in units of the noise; with temporal terms
                also course (n, J, 3) and pull (n,), see `smoothed`. Values of the same names as params stay fixed.
        """
        arguments = self.arguments(params, data)
        if "course" in data:
            joints = self.model.joints(**arguments)
            points = self.points(arguments) if self.regressor is not None else joints[:, self.joint_ids]
            rows = [self._misses(points, data), self._strays(joints, data)]
        else:
            rows = [self._misses(self.points(arguments), data)]
        return torch.cat((*rows, *self._priors(params)), dim=-1)

    def linearised(self, params: dict[str, Tensor], data: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return residuals (n, R) and their Jacobian (n, R, D) by `params` in order."""
        arguments = self.arguments(params, data)
        everything = self.model.joints_jacobian(wrt=tuple(params), **arguments) if "course" in data else None
        if self.regressor is not None:
            moved = self.model.keypoints_jacobian(self.regressor, wrt=tuple(params), **arguments)
        elif everything is not None:
            blocks = {name: block[:, self.joint_ids] for name, block in everything.blocks.items()}
            moved = PointsJacobian(everything.points[:, self.joint_ids], blocks)
        else:
            moved = self.model.joints_jacobian(self.joint_ids, wrt=tuple(params), **arguments)
        rows = [self._misses(moved.points, data)]
        matrices = [data["trust"].repeat_interleave(3, dim=-1).unsqueeze(-1) * moved.matrix(params)]
        if everything is not None:
            rows.append(self._strays(everything.points, data))
            matrices.append(data["pull"][:, None, None] * everything.matrix(params))
        residuals = torch.cat((*rows, *self._priors(params)), dim=-1)
        return residuals, torch.cat((*matrices, self._prior_matrix(params)), dim=-2)

    def arguments(self, params: dict[str, Tensor], data: dict[str, Tensor]) -> dict[str, Any]:
        """Return all arguments of the model: the unknowns, and those that `data` holds fixed."""
        return {**{name: data[name] for name in self.names if name in data}, **params}

    def _misses(self, points: Tensor, data: dict[str, Tensor]) -> Tensor:
        return (data["trust"].unsqueeze(-1) * (points - data["target"])).flatten(-2)

    def _strays(self, joints: Tensor, data: dict[str, Tensor]) -> Tensor:
        return (data["pull"][:, None, None] * (joints - data["course"])).flatten(-2)

    def _pose(self, params: dict[str, Tensor]) -> Tensor:
        root = params["global_orient"]
        parts = [params[name].reshape(len(root), -1, 3) for name in self.parts[1:] if len(root)]
        return torch.cat((root.new_zeros(len(root), 0 if len(root) else len(self.relaxed), 3), *parts), dim=-2)

    def _shape(self, params: dict[str, Tensor]) -> list[Tensor]:
        rows, scale = [], self.weights.shape**0.5
        for name, mean in self.mean.items():
            if name in params:
                unit = SEGMENT_SCALE_UNIT if name == "segment_scale" else 1.0
                rows.append(scale / unit * (params[name] - mean).flatten(1))
        return rows

    def _priors(self, params: dict[str, Tensor]) -> list[Tensor]:
        pose, weights = self._pose(params), self.weights
        beyond = (pose - self.limits.upper).relu() - (self.limits.lower - pose).relu()
        bent = (weights.pose * self.stiffness).sqrt() * (pose - self.relaxed)
        return [weights.limits**0.5 * beyond.flatten(-2), bent.flatten(-2), *self._shape(params)]

    def _prior_matrix(self, params: dict[str, Tensor]) -> Tensor:
        """Return the Jacobian (n, rows, D) of `_priors`: a block a joint, and a diagonal for the shape."""
        pose, weights = self._pose(params), self.weights
        turns = left_turns(pose)
        outside = ((pose > self.limits.upper) | (pose < self.limits.lower)).to(pose).unsqueeze(-1)
        blocks = (weights.limits**0.5 * outside * turns, (weights.pose * self.stiffness).sqrt().unsqueeze(-1) * turns)
        count, joints = pose.shape[:2]
        shapes = [value.shape[-1] for value in self._shape(params)]
        sizes = [value.shape[1:].numel() for value in params.values()]
        starts = dict(zip(params, accumulate(sizes[:-1], initial=0), strict=True))
        matrix = pose.new_zeros(count, 6 * joints + sum(shapes), sum(sizes))
        first = starts[self.parts[1]] if len(self.parts) > 1 else 0
        for row, block in enumerate(blocks):
            corner = matrix[:, 3 * joints * row : 3 * joints * (row + 1), first : first + 3 * joints]
            corner.unflatten(-1, (joints, 3)).unflatten(-3, (joints, 3)).diagonal(dim1=1, dim2=3).copy_(
                block.movedim(1, -1)
            )
        row = 6 * joints
        for name, size in zip((name for name in self.mean if name in params), shapes, strict=True):
            unit = SEGMENT_SCALE_UNIT if name == "segment_scale" else 1.0
            corner = matrix[:, row : row + size, starts[name] : starts[name] + size]
            corner.diagonal(dim1=-2, dim2=-1).fill_(weights.shape**0.5 / unit)
            row += size
        return matrix


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
    lower, upper, relaxed = ([like.new_zeros(0, 3)] for _ in range(3))
    stiffness = [like.new_zeros(0, 1)]
    for part in row.parts:
        joints = set(range(first, first + part.count))
        first += part.count
        if part.name == "body_pose":
            box = limits or default_joint_limits(part.count, dtype=like.dtype, device=like.device)
            rest = relaxed_pose(model.skeleton, part.count, like=like)
            entries = (box.lower, box.upper, rest.body_pose, rest.stiffness)
        elif part.name != "global_orient" and joints & moving and part.name in model.arguments:
            free = like.new_full((part.count, 3), torch.inf)
            entries = (-free, free, like.new_zeros(part.count, 3), like.new_ones(part.count, 1))
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
        regressor,
        joint_ids,
        tuple(parts),
        (*mean, *parts, "transl"),
        mean,
        LimitBox(torch.cat(lower), torch.cat(upper)),
        torch.cat(relaxed),
        torch.cat(stiffness),
        weights,
    )
