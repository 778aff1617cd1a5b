"""Axis conventions: OpenCV, OpenGL and PyTorch3D cameras into each other, and a camera that looks at a point."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry.checks import broadcast_batches, expect_shape
from .arguments import Number, PerAxis, per_axis
from .perspective import PerspectiveCamera


class OpenGLCamera(NamedTuple):
    """Matrices of an OpenGL camera: camera axes x right, y up, z backward; clip = projection @ view @ (x, y, z, 1).

    Attributes:
        view: (*B, 4, 4) world to camera.
        projection: (*B, 4, 4) camera to clip space; −1 to 1 in x rightwards, y upwards, z away from the camera.
    """

    view: Float[Tensor, "*batch 4 4"]
    projection: Float[Tensor, "*batch 4 4"]


class PyTorch3DCamera(NamedTuple):
    """Arguments of PyTorch3D's `PerspectiveCameras`: camera axes x left, y up, z forward; row vectors, x R + T.

    Attributes:
        R: (*B, 3, 3), transposed against this package's column vectors.
        T: (*B, 3).
        focal_length: (*B, 2) in NDC units: half the shorter side of the image is 1.
        principal_point: (*B, 2) in NDC: x left, y up from the middle of the image.
    """

    R: Float[Tensor, "*batch 3 3"]
    T: Float[Tensor, "*batch 3"]
    focal_length: Float[Tensor, "*batch 2"]
    principal_point: Float[Tensor, "*batch 2"]


def opencv_to_opengl(
    camera: PerspectiveCamera, image_size: PerAxis, *, near: Number = 0.1, far: Number = 100.0
) -> OpenGLCamera:
    """Return the OpenGL matrices that put every point on the same pixel, row 0 being the top of the image.

    Args:
        camera: without distortion.
        image_size: width and height in pixels: a pair, (2,) or (*B, 2).
        near: distance of the near plane in metres.
        far: distance of the far plane in metres.

    Raises:
        ValueError: a camera with distortion, or a shape that does not fit.
    """
    _refuse_distortion(camera)
    size = per_axis("image_size", image_size, 0, camera.focal)
    focal = 2 * camera.focal / size
    shift = 2 * camera.center / size - 1
    batch = _batch(camera, size)
    zero, one = camera.focal.new_zeros(batch), camera.focal.new_ones(batch)
    focal_x, focal_y = focal.expand(*batch, 2).unbind(-1)
    shift_x, shift_y = shift.expand(*batch, 2).unbind(-1)
    depth, offset = -(far + near) / (far - near), -2 * far * near / (far - near)
    projection = _matrix(
        [
            [focal_x, zero, -shift_x, zero],
            [zero, focal_y, shift_y, zero],
            [zero, zero, depth * one, offset * one],
            [zero, zero, -one, zero],
        ]
    )
    flip = _diagonal(camera.rotation, (1, -1, -1))
    top = torch.cat(
        [
            (flip[:, None] * camera.rotation).expand(*batch, 3, 3),
            (flip * camera.translation).expand(*batch, 3)[..., None],
        ],
        dim=-1,
    )
    bottom = torch.stack([zero, zero, zero, one], dim=-1)[..., None, :]
    return OpenGLCamera(torch.cat([top, bottom], dim=-2), projection)


def opengl_to_opencv(camera: OpenGLCamera, image_size: PerAxis) -> PerspectiveCamera:
    """Return the OpenCV camera of OpenGL matrices; undoes `opencv_to_opengl`.

    Args:
        camera: `view` must be rigid, `projection` a perspective one as `opencv_to_opengl` or glFrustum makes it.
        image_size: width and height in pixels: a pair, (2,) or (*B, 2).

    Raises:
        ValueError: a shape that does not fit.
    """
    expect_shape("view", camera.view, 4, 4)
    expect_shape("projection", camera.projection, 4, 4)
    size = per_axis("image_size", image_size, 0, camera.view)
    p = camera.projection
    flip = _diagonal(camera.view, (1, -1, -1))
    shift = torch.stack([-p[..., 0, 2], p[..., 1, 2]], dim=-1)
    return PerspectiveCamera(
        torch.stack([p[..., 0, 0], p[..., 1, 1]], dim=-1) * size / 2,
        (shift + 1) * size / 2,
        flip[:, None] * camera.view[..., :3, :3],
        flip * camera.view[..., :3, 3],
    )


def opencv_to_pytorch3d(camera: PerspectiveCamera, image_size: PerAxis) -> PyTorch3DCamera:
    """Return the arguments of PyTorch3D's `PerspectiveCameras` that put every point on the same pixel.

    Args:
        camera: without distortion.
        image_size: width and height in pixels: a pair, (2,) or (*B, 2); PyTorch3D itself wants (height, width).

    Raises:
        ValueError: a camera with distortion, or a shape that does not fit.
    """
    _refuse_distortion(camera)
    size = per_axis("image_size", image_size, 0, camera.focal)
    half = size.amin(-1, keepdim=True) / 2
    flip = _diagonal(camera.rotation, (-1, -1, 1))
    batch = _batch(camera, size)
    return PyTorch3DCamera(
        (camera.rotation.mT * flip).expand(*batch, 3, 3),
        (camera.translation * flip).expand(*batch, 3),
        (camera.focal / half).expand(*batch, 2),
        ((size / 2 - camera.center) / half).expand(*batch, 2),
    )


def pytorch3d_to_opencv(camera: PyTorch3DCamera, image_size: PerAxis) -> PerspectiveCamera:
    """Return the OpenCV camera of PyTorch3D's arguments; undoes `opencv_to_pytorch3d`.

    Args:
        camera: focal length and principal point in NDC.
        image_size: width and height in pixels: a pair, (2,) or (*B, 2); PyTorch3D itself wants (height, width).

    Raises:
        ValueError: a shape that does not fit.
    """
    expect_shape("R", camera.R, 3, 3)
    expect_shape("T", camera.T, 3)
    size = per_axis("image_size", image_size, 0, camera.R)
    half = size.amin(-1, keepdim=True) / 2
    flip = _diagonal(camera.R, (-1, -1, 1))
    return PerspectiveCamera(
        camera.focal_length * half, size / 2 - camera.principal_point * half, (camera.R * flip).mT, camera.T * flip
    )


def look_at(
    eye: Float[Tensor, "*eye 3"], target: Float[Tensor, "*target 3"], up: Float[Tensor, "*up 3"] | None = None
) -> tuple[Float[Tensor, "*out 3 3"], Float[Tensor, "*out 3"]]:
    """Return rotation and translation of an OpenCV camera at `eye` that sees `target` in its middle.

    The image of `up` points upwards. Where `up` is along the line of sight, the world axis farthest from that line
    takes its place; where `eye` and `target` coincide, the camera looks along +z. At both the result is a rotation
    with finite gradients, and jumps.

    Args:
        eye: (*B, 3) position of the camera in the world, in metres.
        target: (*B, 3) the point looked at.
        up: (*B, 3) direction in the world; default +y.

    Returns:
        rotation (*B, 3, 3) and translation (*B, 3), world to camera.

    Raises:
        ValueError: a shape that does not fit.

    Example:
        >>> rotation, translation = look_at(torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 1.0, 0.0]))
        >>> rotation.diagonal()
        tensor([ 1., -1., -1.])
    """
    expect_shape("eye", eye, 3)
    expect_shape("target", target, 3)
    axes = torch.eye(3, dtype=eye.dtype, device=eye.device)
    upward = axes[1] if up is None else up
    expect_shape("up", upward, 3)
    upward = _unit(upward, axes[1])
    forward = _unit(target - eye, axes[2])
    # The world axis with the smallest component along `forward`.
    spare = axes[forward.abs().argmin(-1)]
    parallel = torch.linalg.cross(*torch.broadcast_tensors(forward, upward)).square().sum(-1, keepdim=True)
    upward = torch.where(parallel < torch.finfo(eye.dtype).eps, spare, upward)
    right = _unit(torch.linalg.cross(*torch.broadcast_tensors(forward, upward)), axes[0])
    down = torch.linalg.cross(forward.expand_as(right), right)
    rotation = torch.stack([right, down, forward.expand_as(right)], dim=-2)
    return rotation, -(rotation @ eye[..., None])[..., 0]


def _unit(vector: Tensor, fallback: Tensor) -> Tensor:
    """Return `vector` over its length, `fallback` where that is 0; scaled first, lest its square underflow."""
    largest = vector.detach().abs().amax(-1, keepdim=True)
    usable = largest > 0
    scaled = torch.where(usable, vector / torch.where(usable, largest, 1), fallback)
    return scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)


def _diagonal(like: Tensor, signs: tuple[int, int, int]) -> Tensor:
    return like.new_tensor(signs)


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _batch(camera: PerspectiveCamera, size: Tensor) -> torch.Size:
    return broadcast_batches(
        {
            "focal": expect_shape("focal", camera.focal, 2),
            "center": expect_shape("center", camera.center, 2),
            "rotation": expect_shape("rotation", camera.rotation, 3, 3),
            "translation": expect_shape("translation", camera.translation, 3),
            "image_size": size.shape[:-1],
        }
    )


def _refuse_distortion(camera: PerspectiveCamera) -> None:
    if camera.distortion is not None:
        raise ValueError(
            "camera: expected one without distortion, got distortion coefficients; "
            "undistort the image and use camera._replace(distortion=None)"
        )
