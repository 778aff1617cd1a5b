"""The weak-perspective camera: scale and shift, no depth."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry.checks import expect_shape
from .arguments import PerSample, away_from_zero, per_sample


class WeakPerspectiveCamera(NamedTuple):
    """Project by dropping depth: pixel = scale · (x, y) + translation.

    This is equation 2 of HMR (Kanazawa et al. 2018) with the rotation already applied to the points. It carries
    whatever unit its two tensors do; the fitters and the converters of this package use pixels. Camera axes are
    OpenCV's: x right, y down.

    Attributes:
        scale: (*B,) image units per metre.
        translation: (*B, 2) image position of the origin.

    Example:
        >>> camera = WeakPerspectiveCamera(torch.tensor(100.0), torch.tensor([112.0, 112.0]))
        >>> camera.project(torch.tensor([[0.5, -0.5, 3.0]]))
        tensor([[162.,  62.]])
    """

    scale: Float[Tensor, "*batch"]
    translation: Float[Tensor, "*batch 2"]

    def project(self, points: Float[Tensor, "*points N 3"]) -> Float[Tensor, "*out N 2"]:
        """Project points in camera axes; the depth has no effect.

        Args:
            points: (*B, N, 3) in metres; the batch broadcasts against the camera's.

        Returns:
            (*B, N, 2) in the camera's image unit.

        Raises:
            ValueError: a shape that does not fit.
        """
        expect_shape("points", points, "N", 3)
        expect_shape("translation", self.translation, 2)
        return self.scale[..., None, None] * points[..., :2] + self.translation[..., None, :]

    @classmethod
    def from_hmr(cls, camera: Float[Tensor, "*batch 3"], size: PerSample) -> WeakPerspectiveCamera:
        """Read HMR's camera as one in pixels of a square crop.

        HMR's code projects s·((x, y) + t) into [-1, 1] of the crop, so its scale multiplies the translation too; here
        pixel = (s·((x, y) + t) + 1) · size/2, with pixel 0 at the left and top edge.

        Args:
            camera: (*B, 3), the numbers s, tx, ty; tx and ty in metres.
            size: width of the crop in pixels, a number or (*B,).

        Raises:
            ValueError: a shape that does not fit.
        """
        expect_shape("camera", camera, 3)
        half = per_sample("size", size, camera) / 2
        scale = camera[..., 0]
        return cls(scale * half, (scale[..., None] * camera[..., 1:] + 1) * half[..., None])

    def to_hmr(self, size: PerSample) -> Float[Tensor, "*out 3"]:
        """Write a camera in pixels of a square crop as HMR's (s, tx, ty); the inverse of `from_hmr`.

        Finite at a scale of 0, where HMR's form has no translation: |s| is taken as at least 1e-9 there.

        Args:
            size: width of the crop in pixels, a number or (*B,).
        """
        expect_shape("translation", self.translation, 2)
        half = per_sample("size", size, self.scale) / 2
        scale = self.scale / half
        shift = (self.translation / half[..., None] - 1) / away_from_zero(scale)[..., None]
        scale = scale.expand(torch.broadcast_shapes(scale.shape, shift.shape[:-1]))
        return torch.cat([scale[..., None], shift.expand(*scale.shape, 2)], dim=-1)
