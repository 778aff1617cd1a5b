"""The perspective camera, with OpenCV axes and optional lens distortion."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry.checks import expect_shape, expect_values
from .distortion import distort, undistort

NEAR = 1e-3


class PerspectiveCamera(NamedTuple):
    """A pinhole camera: camera axes x right, y down, z forward; pixels x right, y down (OpenCV).

    A point P of the world lies at `rotation @ P + translation` in camera axes.

    The fields make a pytree. A camera without distortion carries None there, which `torch.func` does not take for a
    tensor: give `vmap` the spec `in_dims=PerspectiveCamera(0, 0, 0, 0, None)`, and differentiate by the tensors that
    you need and not by the camera as a whole.

    Attributes:
        focal: (*B, 2) focal lengths in pixels.
        center: (*B, 2) principal point in pixels.
        rotation: (*B, 3, 3) world to camera.
        translation: (*B, 3) of the world's origin, in camera axes and metres.
        distortion: (*B, 4), (*B, 5) or (*B, 8) OpenCV coefficients k1 k2 p1 p2 [k3 [k4 k5 k6]], or None.

    Example:
        >>> camera = PerspectiveCamera(
        ...     focal=torch.tensor([1000.0, 1000.0]),
        ...     center=torch.tensor([320.0, 240.0]),
        ...     rotation=torch.eye(3),
        ...     translation=torch.tensor([0.0, 0.0, 2.0]),
        ... )
        >>> camera.project(torch.tensor([[0.1, 0.2, 0.0]]))
        tensor([[370., 340.]])
    """

    focal: Float[Tensor, "*batch 2"]
    center: Float[Tensor, "*batch 2"]
    rotation: Float[Tensor, "*batch 3 3"]
    translation: Float[Tensor, "*batch 3"]
    distortion: Float[Tensor, "*batch n"] | None = None

    def to_camera(self, points: Float[Tensor, "*points N 3"]) -> Float[Tensor, "*out N 3"]:
        """Turn world points into camera axes; the third coordinate is the depth, positive in front of the camera."""
        expect_shape("points", points, "N", 3)
        expect_shape("rotation", self.rotation, 3, 3)
        expect_shape("translation", self.translation, 3)
        expect_values(
            "rotation", self.rotation, _orthonormal, "orthonormal matrices", "see physique.geometry.nearest_rotation"
        )
        return points @ self.rotation.mT + self.translation[..., None, :]

    def project(self, points: Float[Tensor, "*points N 3"]) -> Float[Tensor, "*out N 2"]:
        """Project world points to pixels.

        A point less than 1 mm in front of the camera plane, in it or behind it has no image: it is projected as if its
        depth were 1 mm. The value is then finite and far outside the image, and its gradient by the depth is zero. Ask
        `to_camera(points)[..., 2] > 0` which points to use.

        Args:
            points: (*B, N, 3) in metres; the batch broadcasts against the camera's.

        Returns:
            (*B, N, 2) pixels.

        Raises:
            ValueError: a shape that does not fit.
        """
        seen = self.to_camera(points)
        expect_shape("focal", self.focal, 2)
        expect_shape("center", self.center, 2)
        flat = seen[..., :2] / seen[..., 2:].clamp(min=NEAR)
        if self.distortion is not None:
            flat = distort(flat, self.distortion)
        return flat * self.focal[..., None, :] + self.center[..., None, :]

    def unproject(
        self, pixels: Float[Tensor, "*pixels N 2"], depth: Float[Tensor, "*depth N"]
    ) -> Float[Tensor, "*out N 3"]:
        """Return the world points seen at `pixels`, at the given depths; undoes `project` in front of the camera.

        Args:
            pixels: (*B, N, 2).
            depth: (*B, N) along the optical axis, in metres.

        Returns:
            (*B, N, 3) in metres.

        Raises:
            ValueError: a shape that does not fit.
        """
        expect_shape("pixels", pixels, "N", 2)
        expect_shape("depth", depth, "N")
        expect_shape("rotation", self.rotation, 3, 3)
        flat = (pixels - self.center[..., None, :]) / self.focal[..., None, :]
        if self.distortion is not None:
            flat = undistort(flat, self.distortion)
        seen = flat * depth[..., None] - self.translation[..., None, :2]
        along = depth - self.translation[..., None, 2]
        # R^T p, written as a row vector times R.
        return seen @ self.rotation[..., :2, :] + along[..., None] * self.rotation[..., None, 2, :]


def _orthonormal(rotation: Tensor) -> Tensor:
    return (rotation @ rotation.mT - torch.eye(3, dtype=rotation.dtype, device=rotation.device)).abs() < 1e-3
