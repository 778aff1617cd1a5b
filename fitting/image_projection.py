"""How points of a body fall on the image of a fit, and how that image moves with the points and with the camera."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras import PerspectiveCamera
from .keypoint_target import Target


class ImageProjection(NamedTuple):
    """The camera of n frames, to units of the person's box.

    Attributes:
        scale: (n,) of a weak-perspective camera; None: the camera is known.
        shift: (n, 2) of the image, or (n, 3) of the body in the axes of the known camera.
        camera: the known one, with batch (n,).
        target: what is matched, with batch (n,).
    """

    scale: Float[Tensor, " n"] | None
    shift: Float[Tensor, "n two_or_three"]
    camera: PerspectiveCamera | None
    target: Target

    @classmethod
    def of(cls, unknowns: dict[str, Tensor], target: Target) -> ImageProjection:
        """Return the projection of unknowns (n, ...)."""
        if target.camera is None:
            return cls(unknowns["log_scale"].exp(), unknowns["translation"], None, target)
        return cls(None, unknowns["transl"], target.camera, target)

    def project(self, points: Float[Tensor, "n K 3"]) -> Float[Tensor, "n K 2"]:
        """Return where points in camera axes are in the image."""
        if self.camera is None:
            assert self.scale is not None
            return self.scale[:, None, None] * points[..., :2] + self.shift.unsqueeze(-2)
        pixels = self.camera.project(points + self.shift.unsqueeze(-2))
        return (pixels - self.target.middle.unsqueeze(-2)) / self.target.diagonal[:, None, None]

    def linearised(self, points: Float[Tensor, "n K 3"]) -> tuple[Tensor, Tensor | None]:
        """Return the image (n, K, 2), and how each point's moves with the point (n, K, 2, 3); None: by the scale."""
        if self.camera is None:
            return self.project(points), None

        def moved(step: Tensor) -> tuple[Tensor, Tensor]:
            # A point's image depends on that point alone: one step for all gives the derivatives of each.
            image = self.project(points + step)
            return image, image

        by_point, image = torch.func.jacfwd(moved, has_aux=True)(points.new_zeros(3))
        return image, by_point

    def of_points(self, by_point: Tensor | None, moves: Float[Tensor, "n K 3 D"]) -> Float[Tensor, "n K 2 D"]:
        """Return how the image moves, from how its points do."""
        if by_point is None:
            assert self.scale is not None
            return self.scale[:, None, None, None] * moves[..., :2, :]
        return by_point @ moves

    def of_camera(self, by_point: Tensor | None, points: Float[Tensor, "n K 3"]) -> Float[Tensor, "n K 2 D"]:
        """Return how the image moves with log_scale and translation, or with transl."""
        if by_point is not None:
            return by_point
        assert self.scale is not None
        zoomed = self.scale[:, None, None] * points[..., :2]
        shifted = torch.eye(2, dtype=points.dtype, device=points.device).expand(*zoomed.shape, 2)
        return torch.cat((zoomed.unsqueeze(-1), shifted), dim=-1)
