"""How what the terms of a registration see moves with its unknowns, computed when a term asks for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..bodymodel import BodyModel, PointsJacobian
from ..bodymodel.keypoint_bases import KeypointBases
from ..bodymodel.point_mixes import CornerMix
from ..geometry import gram_schmidt
from .normal_equations import NormalEquations
from .registration_body import Registration
from .tangent import left_turns


class Slopes:
    """Derivatives of the fields of a `Registration` of n samples, by all unknowns: D columns in their order.

    Args:
        model: the body.
        corners: the surface points, a set a sample.
        keypoints: the keypoints on the body, or None.
        unknowns: (n, ...) in order.
        body: what the terms see.
    """

    def __init__(
        self,
        model: BodyModel,
        corners: CornerMix,
        keypoints: KeypointBases | None,
        unknowns: dict[str, Tensor],
        body: Registration,
    ) -> None:
        """Take what they are made of; see the class for the arguments."""
        self.model, self.corners, self.keypoint_bases = model, corners, keypoints
        self.unknowns, self.body = unknowns, body
        sizes = [value.shape[1:].numel() for value in unknowns.values()]
        self.first = dict(zip(unknowns, accumulate(sizes[:-1], initial=0), strict=True))
        self.size = sum(sizes)

    @property
    def shape(self) -> str:
        """Name of the shape argument."""
        return "segment_scale" if "segment_scale" in self.unknowns else "betas"

    @cached_property
    def pose_turns(self) -> Float[Tensor, "n k 3 3"]:
        """How body_pose moves as its rotations turn from the left."""
        return left_turns(self.unknowns["body_pose"])

    @cached_property
    def root_turns(self) -> Float[Tensor, "n 3 9"]:
        """How the root turns with the nine numbers of the free matrix."""
        matrix = self.unknowns["matrix"]
        basis = torch.eye(9, dtype=matrix.dtype, device=matrix.device).view(9, 1, 3, 3)

        def moved(step: Tensor) -> Tensor:
            return gram_schmidt(matrix + (step.view(9, 1, 1, 1) * basis).sum(0))

        moves = torch.func.jacfwd(moved)(matrix.new_zeros(9))
        turns = torch.einsum("nijc,nkj->nikc", moves, gram_schmidt(matrix))
        return torch.stack((turns[:, 2, 1], turns[:, 0, 2], turns[:, 1, 0]), dim=1)

    @cached_property
    def joints(self) -> Float[Tensor, "n J 3 D"]:
        """Of the joints."""
        return self._columns(self.model.joints_jacobian(**self._arguments))

    @cached_property
    def points(self) -> Float[Tensor, "n N 3 D"]:
        """Of the surface points."""
        return self._columns(self._points)

    @cached_property
    def keypoints(self) -> Float[Tensor, "n K 3 D"]:
        """Of the keypoints."""
        return self._columns(self._keypoints)

    @cached_property
    def projected(self) -> Float[Tensor, "n N 2 D"]:
        """Of the surface points in the image."""
        return self._columns(self._points, project=True)

    @cached_property
    def projected_keypoints(self) -> Float[Tensor, "n K 2 D"]:
        """Of the keypoints in the image."""
        return self._columns(self._keypoints, project=True)

    def of(self, residuals: Callable[[Registration], Tensor]) -> tuple[Float[Tensor, "n R"], Float[Tensor, "n R D"]]:
        """Return residuals of the fields and their derivatives, row by row backward to the fields."""
        moving = (
            "joints",
            "points",
            "projected",
            "keypoints",
            "projected_keypoints",
            "body_pose",
            "matrix",
            self.shape,
        )
        with torch.enable_grad():
            fields = {name: getattr(self.body, name).detach().requires_grad_() for name in moving}
            values = residuals(self.body._replace(**fields))
            rows = [
                torch.autograd.grad(row.sum(), list(fields.values()), retain_graph=True, allow_unused=True)
                if row.requires_grad
                else (None,) * len(fields)
                for row in values.unbind(-1)
            ]
        jacobian = values.new_zeros(*values.shape, self.size)
        for name, gradients in zip(fields, zip(*rows, strict=True), strict=True):
            if all(gradient is None for gradient in gradients):
                continue
            like = fields[name]
            stacked = torch.stack([torch.zeros_like(like) if g is None else g for g in gradients], dim=1)
            if name == "body_pose":
                columns = (stacked.unsqueeze(-2) @ self.pose_turns.unsqueeze(1)).flatten(2)
                jacobian.narrow(-1, self.first[name], columns.shape[-1]).add_(columns)
            elif name in self.first:
                columns = stacked.flatten(2)
                jacobian.narrow(-1, self.first[name], columns.shape[-1]).add_(columns)
            else:
                jacobian += stacked.flatten(2) @ getattr(self, name).flatten(1, 2)
        return values.detach(), jacobian

    def equations(self) -> NormalEquations:
        """Return equations without any term."""
        return NormalEquations.zeros(self.unknowns["log_scale"], self.size)

    @cached_property
    def _arguments(self) -> dict[str, Any]:
        return {
            "global_orient": self.body.rotation,
            "body_pose": self.body.local_rotations,
            "rotation": "matrix",
            self.shape: self.unknowns[self.shape],
            "wrt": ("global_orient", "body_pose", self.shape),
        }

    @cached_property
    def _points(self) -> PointsJacobian:
        return self.model.points_jacobian(self.corners, **self._arguments)

    @cached_property
    def _keypoints(self) -> PointsJacobian:
        if self.keypoint_bases is None:
            still = {name: block[:, :0] for name, block in self._points.blocks.items()}
            return PointsJacobian(self._points.points[:, :0], still)
        return self.model.keypoints_jacobian(self.keypoint_bases, **self._arguments)

    def _columns(self, moved: PointsJacobian, *, project: bool = False) -> Tensor:
        """Return the derivatives of points, or of their images, by all unknowns."""
        blocks = moved.blocks
        axes = 2 if project else 3
        result = moved.points.new_zeros(*moved.points.shape[:-1], axes, self.size)
        scale = self.unknowns["log_scale"].exp()[:, None, None, None]
        scale = scale if project else torch.ones_like(scale)
        root = blocks["global_orient"][..., :axes, :] @ self.root_turns.unsqueeze(1)
        for name, block in (("matrix", root), ("body_pose", blocks["body_pose"]), (self.shape, blocks[self.shape])):
            torch.mul(block[..., :axes, :], scale, out=result.narrow(-1, self.first[name], block.shape[-1]))
        if project:
            result[..., self.first["log_scale"]] = scale.squeeze(-1) * moved.points[..., :2]
            first = self.first["translation"]
            result[..., 0, first] = 1
            result[..., 1, first + 1] = 1
        return result
