"""OpenGL and PyTorch3D cameras put every point on the pixel that OpenCV's does; look_at looks at."""

import numpy as np
import pytest
import torch
from oracles import cameras as oracle
from physique.cameras import (
    PerspectiveCamera,
    look_at,
    opencv_to_opengl,
    opencv_to_pytorch3d,
    opengl_to_opencv,
    pytorch3d_to_opencv,
)
from refusals import refuses
from torch.testing import assert_close

DOUBLE = torch.float64
SIZES = [(640, 480), (480, 640)]


def each(function, points, camera, *rest):
    samples = zip(points.numpy(), *(f.numpy() for f in camera), strict=True)
    return torch.from_numpy(np.stack([function(*sample, *rest) for sample in samples]))


@pytest.mark.parametrize("size", SIZES)
def test_opengl_matrices_put_points_on_the_same_pixels(camera, points, size):
    assert_close(each(oracle.opengl, points, opencv_to_opengl(camera, size), size), camera.project(points))


def test_opengl_depth_runs_from_minus_one_at_near_to_one_at_far(camera):
    matrices = opencv_to_opengl(camera, (640, 480), near=0.5, far=20.0)
    for distance, expected in [(0.5, -1.0), (20.0, 1.0)]:
        clip = matrices.projection @ torch.tensor([0.0, 0.0, -distance, 1.0], dtype=DOUBLE)
        assert_close(clip[:, 2] / clip[:, 3], torch.full((4,), expected, dtype=DOUBLE))


@pytest.mark.parametrize("size", SIZES)
def test_pytorch3d_camera_puts_points_on_the_same_pixels(camera, points, size):
    assert_close(each(oracle.pytorch3d, points, opencv_to_pytorch3d(camera, size), size), camera.project(points))


@pytest.mark.parametrize("size", [*SIZES, torch.tensor([640.0, 480.0], dtype=DOUBLE).expand(4, 2)])
@pytest.mark.parametrize(
    "there, back", [(opencv_to_opengl, opengl_to_opencv), (opencv_to_pytorch3d, pytorch3d_to_opencv)]
)
def test_conversions_round_trip(camera, size, there, back):
    for got, expected in zip(back(there(camera, size), size)[:4], camera[:4], strict=True):
        assert_close(got, expected)


@pytest.mark.parametrize("convert", [opencv_to_opengl, opencv_to_pytorch3d])
def test_lens_distortion_is_refused(camera, convert):
    with refuses("camera"):
        convert(camera._replace(distortion=torch.zeros(4, 5, dtype=DOUBLE)), (640, 480))


@pytest.mark.parametrize("convert", [opencv_to_opengl, opencv_to_pytorch3d])
@pytest.mark.parametrize("batch", [(), (2, 3), (0,)])
def test_any_batch_shape(convert, batch):
    camera = PerspectiveCamera(
        torch.ones(*batch, 2), torch.zeros(2), torch.eye(3).expand(*batch, 3, 3), torch.zeros(*batch, 3)
    )
    assert all(field.shape[: len(batch)] == batch for field in convert(camera, (640, 480)))


def test_look_at_puts_the_target_in_the_middle_and_up_upwards():
    eye, target = torch.randn(5, 3, dtype=DOUBLE), torch.randn(5, 3, dtype=DOUBLE)
    rotation, translation = look_at(eye, target)
    focal, center = torch.full((2,), 100.0, dtype=DOUBLE), torch.tensor([50.0, 40.0], dtype=DOUBLE)
    camera = PerspectiveCamera(focal, center, rotation, translation)
    above = target + torch.tensor([0.0, 1e-3, 0.0], dtype=DOUBLE)
    seen = camera.project(torch.stack([target, above], dim=-2))
    assert_close(seen[:, 0], center.expand(5, 2))
    assert_close(seen[:, 1, 0], center[0].expand(5), atol=1e-9, rtol=0)
    assert (seen[:, 1, 1] < center[1]).all()
    assert_close(camera.to_camera(eye[:, None])[:, 0], torch.zeros(5, 3, dtype=DOUBLE))
    assert_close(torch.linalg.det(rotation), torch.ones(5, dtype=DOUBLE))
    assert_close(rotation @ rotation.mT, torch.eye(3, dtype=DOUBLE).expand(5, 3, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "target, up",
    [
        ([0.0, 2.0, 0.0], [0.0, 1.0, 0.0]),
        ([0.0, -2.0, 0.0], [0.0, 1.0, 0.0]),
        ([1e-30, 2.0, 0.0], [0.0, 1.0, 0.0]),
        ([1.0, 1.0, 1.0], [2.0, 2.0, 2.0]),
        ([0.0, 0.0, 0.0], [0.0, 1.0, 0.0]),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 1.0]),
        ([1.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ([1e-25, 0.0, 0.0], [0.0, 1e20, 0.0]),
    ],
)
def test_look_at_without_a_direction_is_a_rotation_with_finite_gradients(dtype, target, up):
    eye = torch.zeros(3, dtype=dtype, requires_grad=True)
    target = torch.tensor(target, dtype=dtype, requires_grad=True)
    up = torch.tensor(up, dtype=dtype, requires_grad=True)
    rotation, _ = look_at(eye, target, up)
    assert_close(rotation @ rotation.mT, torch.eye(3, dtype=dtype), atol=1e-6, rtol=0)
    assert_close(torch.linalg.det(rotation), torch.ones((), dtype=dtype), atol=1e-6, rtol=0)
    weights = torch.arange(9, dtype=dtype).view(3, 3)
    gradients = torch.autograd.grad((rotation * weights).sum(), [eye, target, up])
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_look_at_is_right_to_second_order():
    inputs = [torch.randn(2, 3, dtype=DOUBLE, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(look_at, inputs)
    assert torch.autograd.gradgradcheck(look_at, inputs)


def test_look_at_broadcasts():
    rotation, translation = look_at(
        torch.ones(2, 1, 3), torch.zeros(3), torch.ones(4, 3) * torch.tensor([0.0, 1.0, 0.0])
    )
    assert rotation.shape == (2, 4, 3, 3) and translation.shape == (2, 4, 3)
