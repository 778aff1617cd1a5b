"""Fit bodies to registered vertices: part by part in closed form, then all at once by Levenberg-Marquardt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..bodymodel import BodyModel, SurfacePoints
from ..geometry import nearest_rotation
from .body_sequence import shared_shape
from .body_unknowns import (
    at_rest,
    expect_model,
    pose_arguments,
    read_targets,
    repeated,
    reported,
    resumed,
    rotation_names,
    shape_arguments,
    tells_all,
)
from .least_squares import least_squares
from .normal_equations import NormalEquations
from .solution import Solution


def fit_vertices(
    model: BodyModel,
    vertices: Float[Tensor, "*batch N 3"],
    *,
    surface: SurfacePoints | None = None,
    weights: Float[Tensor, "*#batch N"] | None = None,
    init: Solution | None = None,
    sequence: bool = False,
    sample: int | None = 12,
    steps: int = 20,
    callback: Callable[[int, Tensor], None] | None = None,
    throw: bool = False,
) -> Solution:
    """Find the pose and shape of bodies from points that are known on their surface: scans registered to the mesh.

    It also converts between families: the vertices of one are fitted by another. Where both share a mesh (SMPL, SMPL-H
    and STAR) the vertices are passed as they are; else `surface` says where each point lies on this model.

    Each part of the mesh is turned to its target by Procrustes; then pose, shape and translation are refined together
    on `sample` well spread points a joint, which is enough for a body that the model can reach.

    Args:
        model: any body model: whole bodies, hands, heads; with betas or segment scales.
        vertices: (*B, N, 3) metres: the model's V vertices, or the points of `surface`.
        surface: faces (N,) and barycentric (N, 3) of the points on the model; default: all vertices in order.
        weights: (*B, N), not negative, of the squared distances; zero where missing, whatever the point then holds.
        init: a previous solution to start from in place of the closed form, of the same samples or of one frame of
            them: its batch broadcasts.
        sequence: the last batch dimension is time, *B = (*S, T): the shape is shared by the frames.
        sample: how many points a joint are used at most; None: all.
        steps: of Levenberg-Marquardt.
        callback: called after each step with its number, from 1, and the losses (N,) of the flat batch.
        throw: raise ValueError unless every sample converged.

    Returns:
        A solution whose `params` are all of the model's arguments and go straight into it, rotations axis-angle.
        `residuals` (*B, N) are the distances of all points in metres, NaN where one is missing; `loss` is the weighted
        sum of the squared distances of those that were used. A sample with NaN or infinity at a point of positive
        weight comes back at a finite start with `Status.INVALID`.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> import torch
        >>> from physique.bodymodel import BodyModel, synthetic_model
        >>> model = BodyModel(synthetic_model("smpl"), dtype=torch.float64)
        >>> target = model(betas=torch.ones(10).double(), body_pose=torch.full((23, 3), 0.2).double()).vertices
        >>> bool(fit_vertices(model, target).residuals.max() < 1e-4)
        True
    """
    expect_model(model)
    count = model.data.num_vertices if surface is None else surface.faces.shape[-1]
    advice = "give surface= to fit points that are not the vertices"
    batch, target, trust = read_targets(
        "vertices", vertices, weights, count, model.v_template, sequence=sequence, advice=advice
    )
    target = torch.where(trust.unsqueeze(-1) > 0, target, 0)
    with torch.no_grad():
        matched = _Matched.of(model, surface)
        chosen = _spread_out(matched.hold, sample)
        used = matched.only(chosen)
        data = {"target": target[:, chosen], "trust": trust[:, chosen].sqrt()}
        start = at_rest(model, used.names, len(target)) if tells_all(init, used.names) else used.start(**data)
        if init is not None:
            start = resumed(init, start, batch)

        fixed = shared_shape(used, start, data, (batch[:-1].numel(), batch[-1])) if sequence and batch.numel() else {}
        solved = least_squares(
            used.residuals,
            {name: start[name] for name in used.names if name not in fixed},
            data={**data, **fixed},
            rotations=rotation_names(model, start),
            jacobian=used.equations,
            steps=steps,
            damping=1e-3,
            enough=data["trust"].square().sum(-1) * _negligible(target) ** 2,
            callback=callback,
        )
        params = {name: fixed[name] if name in fixed else solved.params[name] for name in start}
        distances = (matched.points(params) - target).norm(dim=-1)
    solution = reported(solved, params, torch.where(trust > 0, distances, torch.nan), batch)
    return solution.check() if throw else solution


class _Matched(NamedTuple):
    """The points of a model that are matched with targets.

    Attributes:
        model: with few vertices besides those that the points need.
        surface: where the points are on it; None: its vertices.
        hold: (N, J) how strongly each point hangs on each joint.
    """

    model: BodyModel
    surface: SurfacePoints | None
    hold: Tensor

    @property
    def mean(self) -> dict[str, Tensor]:
        """The shape arguments of the mean body."""
        return shape_arguments(self.model)

    @property
    def names(self) -> tuple[str, ...]:
        """All unknowns, in the order of the columns."""
        taken = (name for name in self.model.data.table_row.part_names if name in self.model.arguments)
        return (*taken, "transl", *self.mean)

    @classmethod
    def of(cls, model: BodyModel, surface: SurfacePoints | None) -> _Matched:
        if surface is None:
            return cls(model, None, model.lbs_weights)
        mix = surface.barycentric.to(model.v_template).unsqueeze(-1)
        return cls(model, surface, (mix * model.lbs_weights[model.faces[surface.faces]]).sum(-2))

    def only(self, chosen: Tensor) -> _Matched:
        """Return the points `chosen` alone, of a model of their vertices."""
        if self.surface is None:
            return _Matched(self.model.select_vertices(chosen), None, self.hold[chosen])
        faces = self.surface.faces[chosen]
        ids = self.model.faces[faces].unique()
        kept = torch.isin(self.model.faces, ids).all(-1)
        surface = SurfacePoints(kept.cumsum(0)[faces] - 1, self.surface.barycentric[chosen].to(self.model.v_template))
        return _Matched(self.model.select_vertices(ids), surface, self.hold[chosen])

    def points(self, params: dict[str, Tensor]) -> Tensor:
        arguments: dict[str, Any] = dict(params)
        if self.surface is None:
            return self.model(**arguments).vertices
        return self.model.points(self.surface, **arguments)

    def residuals(self, params: dict[str, Tensor], data: dict[str, Tensor]) -> Tensor:
        """Return the distances (n, 3 N) from the targets, times the square roots of the weights."""
        moved = self.points(self._arguments(params, data))
        return (data["trust"].unsqueeze(-1) * (moved - data["target"])).flatten(-2)

    def equations(self, params: dict[str, Tensor], data: dict[str, Tensor]) -> NormalEquations:
        """Return the normal equations of that by `params` in order."""
        arguments = self._arguments(params, data)
        if self.surface is None:
            ids = torch.arange(self.model.data.num_vertices, device=self.model.device)
            moved = self.model.vertices_jacobian(ids, wrt=tuple(params), **arguments)
        else:
            moved = self.model.points_jacobian(self.surface, wrt=tuple(params), **arguments)
        residuals = (data["trust"].unsqueeze(-1) * (moved.points - data["target"])).flatten(-2)
        trust = data["trust"].repeat_interleave(3, dim=-1).unsqueeze(-1)
        return NormalEquations.of(residuals, trust * moved.matrix(params))

    def _arguments(self, params: dict[str, Tensor], data: dict[str, Tensor]) -> dict[str, Any]:
        return {**{name: data[name] for name in self.names if name in data}, **params}

    def start(self, target: Tensor, trust: Tensor) -> dict[str, Tensor]:
        """Return the mean body with each part turned as its points are, and their middles together.

        Args:
            target: (n, N, 3).
            trust: (n, N) square roots of weights.
        """
        mean = self.mean
        rest = self.points(mean)
        target = torch.where(target.isfinite().all(-1, keepdim=True), target, 0)
        share = trust.square() / trust.square().sum(-1, keepdim=True).clamp(min=torch.finfo(trust.dtype).tiny)
        centred = target - (share.unsqueeze(-1) * target).sum(-2, keepdim=True)
        # For each part: sums of weights, of sources, of targets, and of their products.
        total = (share @ self.hold).unsqueeze(-1)
        source_sum = (share @ (self.hold.unsqueeze(-1) * rest.unsqueeze(-2)).flatten(-2)).unflatten(-1, (-1, 3))
        weighted = (share.unsqueeze(-1) * centred).mT
        target_sum = (weighted @ self.hold).mT
        products = (weighted @ (self.hold.unsqueeze(-1) * rest.unsqueeze(-2)).flatten(-2)).unflatten(-1, (-1, 3))
        mean_source = source_sum / total.clamp(min=1e-9)
        covariance = products.transpose(-3, -2) - target_sum.unsqueeze(-1) * mean_source.unsqueeze(-2)
        turned = nearest_rotation(covariance)
        seen = total.squeeze(-1) > 1e-6
        worlds: list[Tensor] = []
        for joint, parent in enumerate(self.model.skeleton.parents):
            # A part without points follows its parent.
            own = turned[:, joint]
            worlds.append(own if parent < 0 else torch.where(seen[:, joint, None, None], own, worlds[parent]))
        world = torch.stack(worlds, dim=-3)
        above = world[:, [max(parent, 0) for parent in self.model.skeleton.parents]]
        local = torch.cat((world[:, :1], above[:, 1:].mT @ world[:, 1:]), dim=-3)
        params = {**repeated(mean, len(target)), **pose_arguments(self.model, local)}
        offset = (share.unsqueeze(-1) * (target - self.points(params))).sum(-2)
        return {**params, "transl": offset}


def _negligible(like: Tensor) -> float:
    """Return a distance in metres that is not worth another step: a micrometre, or what rounding leaves."""
    return max(1e-6, 30 * torch.finfo(like.dtype).eps)


def _spread_out(hold: Tensor, sample: int | None) -> Tensor:
    """Return up to `sample` of the points that hang most on each joint, evenly spaced in their order, ascending."""
    if sample is None:
        return torch.arange(len(hold), device=hold.device)
    owner = hold.argmax(-1).cpu().numpy()
    chosen = []
    for joint in range(hold.shape[-1]):
        own = np.flatnonzero(owner == joint)
        chosen.append(own[np.unique(np.linspace(0, len(own) - 1, min(sample, len(own))).round().astype(int))])
    return torch.as_tensor(np.sort(np.concatenate(chosen)), device=hold.device)
