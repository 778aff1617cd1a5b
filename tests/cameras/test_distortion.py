"""Lens distortion: its Jacobian, and how it ends outside the image."""

import pytest
import torch
from physique.cameras import distort, undistort
from physique.cameras.distortion import MAX_RADIUS, _eight, _jacobian
from torch.func import jacrev, vmap
from torch.testing import assert_close

LENS = torch.tensor([-0.28, 0.07, 1e-2, -2e-2, 0.01, 0.02, -0.01, 0.003], dtype=torch.float64)


def test_newton_steps_use_the_true_jacobian():
    points = 0.5 * torch.randn(20, 2, dtype=torch.float64)
    true = vmap(jacrev(lambda point: distort(point[None], LENS)[0]))(points)
    xx, xy, yy = _jacobian(points, _eight(LENS))
    assert_close(torch.stack([xx, xy, xy, yy], dim=-1).unflatten(-1, (2, 2)), true)


def test_no_coefficients_no_distortion():
    points = torch.randn(5, 2)
    assert_close(distort(points, torch.zeros(4)), points)
    assert_close(undistort(points, torch.zeros(8)), points)


@pytest.mark.parametrize("direction", [(1.0, 0.0), (0.6, -0.8)])
def test_far_outside_the_image_distortion_grows_in_proportion(direction):
    direction = torch.tensor(direction, dtype=torch.float64)
    near, middle, far = distort(MAX_RADIUS * direction * torch.tensor([[1.0], [2.0], [3.0]]).double(), LENS)
    assert_close(far - middle, middle - near)


def test_float32_extremes_are_finite():
    points = torch.tensor([[1e7, -1e7], [1e12, 3.0], [0.0, 0.0]], requires_grad=True)
    coefficients = LENS.float().requires_grad_()
    result = distort(points, coefficients)
    gradients = torch.autograd.grad(result.sum(), [points, coefficients])
    assert result.isfinite().all() and all(gradient.isfinite().all() for gradient in gradients)


def test_a_pole_of_the_rational_model_is_finite():
    coefficients = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, -4.0, 0.0, 0.0], requires_grad=True)
    points = torch.tensor([[0.5, 0.0]], requires_grad=True)
    result = distort(points, coefficients)
    gradients = torch.autograd.grad(result.sum(), [points, coefficients])
    assert result.isfinite().all() and all(gradient.isfinite().all() for gradient in gradients)
