"""Exact conversions between weak-perspective and perspective cameras, and HMR's crop camera and the full image."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry.checks import broadcast_batches, expect_shape
from .arguments import PerAxis, PerSample, away_from_zero, per_axis, per_sample
from .perspective import PerspectiveCamera
from .weak import WeakPerspectiveCamera


def weak_to_perspective(camera: WeakPerspectiveCamera, *, focal: PerAxis, center: PerAxis) -> PerspectiveCamera:
    """Return the perspective camera that agrees with a weak-perspective one on the plane z = 0 of the model.

    Its depth is focal/scale. Points with z = 0 fall on the same pixels exactly, others the closer the longer `focal`
    is. With two focal lengths the scale is their mean over the depth, and only the origin falls on the same pixel
    exactly, for a weak-perspective camera has one scale. Finite at a scale of 0, where the depth is infinite: |scale|
    is taken as at least 1e-9 pixels a metre there.

    Args:
        camera: in pixels.
        focal: focal length in pixels: a number, a pair, (*B,), or (*B, 2), which has one dimension more than `scale`.
        center: (2,) or (*B, 2) principal point in pixels.

    Raises:
        ValueError: a shape that does not fit.

    Example:
        >>> weak = WeakPerspectiveCamera(torch.tensor(100.0), torch.tensor([112.0, 112.0]))
        >>> weak_to_perspective(weak, focal=5000.0, center=(112.0, 112.0)).translation
        tensor([ 0.,  0., 50.])
    """
    expect_shape("translation", camera.translation, 2)
    focals = per_axis("focal", focal, camera.scale.ndim, camera.scale)
    centers = _center(center, camera.scale)
    depth = focals.mean(-1) / away_from_zero(camera.scale)
    across = (camera.translation - centers) * (depth[..., None] / focals)
    batch = broadcast_batches({"scale and focal": depth.shape, "translation and center": across.shape[:-1]})
    rotation = torch.eye(3, dtype=depth.dtype, device=depth.device)
    return PerspectiveCamera(
        focals.expand(*batch, 2),
        centers.expand(*batch, 2),
        rotation.expand(*batch, 3, 3),
        torch.cat([across.expand(*batch, 2), depth.expand(batch)[..., None]], dim=-1),
    )


def perspective_to_weak(camera: PerspectiveCamera, depth: PerSample | None = None) -> WeakPerspectiveCamera:
    """Return the weak-perspective camera, in pixels, that agrees with a perspective one at a depth.

    Undoes `weak_to_perspective`. A weak-perspective camera has no rotation: give it points that are turned already,
    `points @ camera.rotation.mT`. Lens distortion is left out. With two focal lengths the scale is their mean over the
    depth. Finite at depth 0, where the scale is infinite: |depth| is taken as at least 1e-9 m there.

    Args:
        camera: the perspective camera.
        depth: distance from the camera plane at which the two agree, in metres, a number or (*B,); default: the depth
            of the world's origin.

    Raises:
        ValueError: a shape that does not fit.
    """
    expect_shape("focal", camera.focal, 2)
    expect_shape("translation", camera.translation, 3)
    distance = camera.translation[..., 2] if depth is None else per_sample("depth", depth, camera.translation)
    distance = away_from_zero(distance)
    translation = camera.focal * camera.translation[..., :2] / distance[..., None] + camera.center
    scale = camera.focal.mean(-1) / distance
    return WeakPerspectiveCamera(scale.expand(translation.shape[:-1]), translation)


def hmr_to_full_translation(
    camera: Float[Tensor, "*batch 3"],
    *,
    box_center: PerAxis,
    box_size: PerSample,
    focal: PerAxis,
    image_center: PerAxis,
) -> Float[Tensor, "*out 3"]:
    """Return the translation, in the full image's perspective camera, of a body that HMR's camera places in a crop.

    T = (tx + 2(cx − W/2)/(b s), ty + 2(cy − H/2)/(b s), 2 f/(b s)), the formula of CLIFF (Li et al. 2022) and
    4D-Humans; with the crop as the image it is SPIN's (tx, ty, 2 f/(size s)). Finite at s = 0, see
    `weak_to_perspective`.

    Args:
        camera: (*B, 3), HMR's s, tx, ty.
        box_center: (2,) or (*B, 2) centre of the crop box in pixels of the full image.
        box_size: side of the square box in pixels of the full image, a number or (*B,).
        focal: focal length in pixels of the full image: a number, a pair, (*B,) or (*B, 2).
        image_center: (2,) or (*B, 2) principal point of the full image in pixels, commonly (W/2, H/2).

    Returns:
        (*B, 3) in metres and OpenCV axes.

    Raises:
        ValueError: a shape that does not fit.

    Example:
        >>> hmr_to_full_translation(torch.tensor([0.9, 0.0, 0.0]), box_center=(112.0, 112.0), box_size=224.0,
        ...                         focal=5000.0, image_center=(112.0, 112.0))
        tensor([ 0.0000,  0.0000, 49.6032])
    """
    crop = WeakPerspectiveCamera.from_hmr(camera, box_size)
    corner = _corner(box_center, box_size, crop.scale)
    full = WeakPerspectiveCamera(crop.scale, crop.translation + corner)
    return weak_to_perspective(full, focal=focal, center=image_center).translation


def full_translation_to_hmr(
    translation: Float[Tensor, "*batch 3"],
    *,
    box_center: PerAxis,
    box_size: PerSample,
    focal: PerAxis,
    image_center: PerAxis,
) -> Float[Tensor, "*out 3"]:
    """Return HMR's camera (s, tx, ty) in a crop for a body at `translation`; undoes `hmr_to_full_translation`.

    Args:
        translation: (*B, 3) in metres and OpenCV axes.
        box_center: (2,) or (*B, 2) centre of the crop box in pixels of the full image.
        box_size: side of the square box in pixels of the full image, a number or (*B,).
        focal: focal length in pixels of the full image: a number, a pair, (*B,) or (*B, 2).
        image_center: (2,) or (*B, 2) principal point of the full image in pixels.

    Returns:
        (*B, 3).

    Raises:
        ValueError: a shape that does not fit.
    """
    batch = expect_shape("translation", translation, 3)
    camera = PerspectiveCamera(
        per_axis("focal", focal, len(batch), translation),
        _center(image_center, translation),
        torch.eye(3, dtype=translation.dtype, device=translation.device),
        translation,
    )
    full = perspective_to_weak(camera)
    corner = _corner(box_center, box_size, full.scale)
    return WeakPerspectiveCamera(full.scale, full.translation - corner).to_hmr(box_size)


def default_focal(image_size: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
    """Return the focal length that CLIFF assumes for an unknown camera: the image's diagonal, √(W² + H²) pixels.

    It means a diagonal field of view of 53 degrees.

    Args:
        image_size: (*B, 2) width and height in pixels.
    """
    expect_shape("image_size", image_size, 2)
    return torch.linalg.vector_norm(image_size, dim=-1)


def _center(center: PerAxis, like: Tensor) -> Tensor:
    return per_axis("center", center, 0, like)


def _corner(box_center: PerAxis, box_size: PerSample, like: Tensor) -> Tensor:
    return per_axis("box_center", box_center, 0, like) - per_sample("box_size", box_size, like)[..., None] / 2
