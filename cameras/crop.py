"""Crop boxes: shift, resize and flip an image, its points and its cameras alike."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..geometry.checks import expect_shape, expect_values
from .arguments import PerAxis, away_from_zero, per_axis
from .perspective import PerspectiveCamera
from .weak import WeakPerspectiveCamera

BOX_UNIT = 200.0
"""SPIN, CLIFF and MPII give a box by its centre and a `scale`; this times `scale` is the side of the box in pixels."""

Camera = TypeVar("Camera", WeakPerspectiveCamera, PerspectiveCamera)


class Crop(NamedTuple):
    """An axis-aligned map between the pixels of two images: new pixel = scale · pixel + offset.

    Pixels are continuous coordinates: an image W wide spans 0 to W, and its flip takes u to W − u. For coordinates that
    count pixel centres from 0, use W − 1 as the width.

    A flipped crop has a negative x scale and shows the mirrored scene; `mirror` mirrors the scene's points, and for
    any crop and camera

        crop.apply(camera.project(points)) = crop.crop_camera(camera).project(crop.mirror(points)).

    Attributes:
        scale: (*B, 2) new pixels per pixel.
        offset: (*B, 2) new position of the old origin.

    Example:
        >>> crop = Crop.from_box(torch.tensor([300.0, 200.0]), size=448.0, resolution=224)
        >>> crop.apply(torch.tensor([[300.0, 200.0], [76.0, 200.0]]))
        tensor([[112., 112.],
                [  0., 112.]])
    """

    scale: Float[Tensor, "*batch 2"]
    offset: Float[Tensor, "*batch 2"]

    @classmethod
    def from_box(
        cls,
        center: Float[Tensor, "*batch 2"],
        size: PerAxis,
        resolution: PerAxis,
        flip: bool | Bool[Tensor, "*#batch"] = False,
    ) -> Crop:
        """Return the crop that maps a box to a new image.

        Args:
            center: (*B, 2) centre of the box in pixels of the old image.
            size: width and height of the box: a number, a pair, (*B,) or (*B, 2); `BOX_UNIT` times SPIN's `scale`. A
                size of 0 counts as 1e-9.
            resolution: width and height of the new image: a number, a pair, (*B,) or (*B, 2).
            flip: exchange left and right: a bool or (*B,).

        Raises:
            ValueError: a shape that does not fit.
        """
        batch = expect_shape("center", center, 2)
        sizes = per_axis("size", size, len(batch), center)
        resolutions = per_axis("resolution", resolution, len(batch), center)
        flips = torch.as_tensor(flip, device=center.device)
        mirror = torch.stack([torch.where(flips, -1, 1), torch.ones_like(flips, dtype=torch.long)], -1).to(center)
        scale = mirror * resolutions / away_from_zero(sizes)
        offset = resolutions / 2 - scale * center
        return cls(scale.expand(offset.shape), offset)

    def apply(self, points: Float[Tensor, "*points N 2"]) -> Float[Tensor, "*out N 2"]:
        """Map points of the old image to the new one."""
        expect_shape("points", points, "N", 2)
        expect_shape("scale", self.scale, 2)
        return self.scale[..., None, :] * points + self.offset[..., None, :]

    def inverse(self) -> Crop:
        """Return the crop that maps the new image back to the old one."""
        return Crop(1 / self.scale, -self.offset / self.scale)

    def then(self, other: Crop) -> Crop:
        """Return this crop followed by another."""
        return Crop(other.scale * self.scale, other.scale * self.offset + other.offset)

    def mirror(self, points: Float[Tensor, "*points N 3"]) -> Float[Tensor, "*out N 3"]:
        """Negate x of the scene's points where the crop flips; leave them alone where it does not."""
        expect_shape("points", points, "N", 3)
        return points * self._signs()[..., None, :]

    def crop_camera(self, camera: Camera) -> Camera:
        """Return the camera of the new image; where the crop flips it is the one that sees the mirrored scene.

        Exact for a perspective camera, its distortion included. A weak-perspective camera has one scale for x and y:
        the box and the new image must have the same aspect, which is checked inside `check_values()`.

        Raises:
            TypeError: neither camera of this package.
            ValueError: inside `check_values()`, a weak-perspective camera and a crop that stretches.
        """
        if isinstance(camera, WeakPerspectiveCamera):
            expect_values(
                "crop",
                self.scale,
                lambda s: (s[..., 0].abs() - s[..., 1]).abs() <= 1e-5 * s[..., 1].abs(),
                "equal scales for x and y",
                "a weak-perspective camera cannot stretch; use a box of the new image's aspect",
            )
            return WeakPerspectiveCamera(
                self.scale[..., 1] * camera.scale, self.scale * camera.translation + self.offset
            )
        if isinstance(camera, PerspectiveCamera):
            signs = self._signs()
            distortion = camera.distortion
            if distortion is not None:
                # Mirroring x turns the sign of p2, the fourth coefficient, alone.
                fourth = torch.arange(distortion.shape[-1], device=distortion.device) == 3
                distortion = torch.where(fourth, signs[..., :1], 1) * distortion
            return PerspectiveCamera(
                self.scale.abs() * camera.focal,
                self.scale * camera.center + self.offset,
                signs[..., :, None] * camera.rotation * signs[..., None, :],
                signs * camera.translation,
                distortion,
            )
        raise TypeError(
            f"camera: expected a WeakPerspectiveCamera or a PerspectiveCamera, got {type(camera).__name__}; "
            "build one of these two"
        )

    def _signs(self) -> Tensor:
        """Return (*B, 3): the sign of the x scale, and 1 for y and z."""
        sign = torch.where(self.scale[..., 0] < 0, -1, 1).to(self.scale)
        return torch.stack([sign, torch.ones_like(sign), torch.ones_like(sign)], dim=-1)
