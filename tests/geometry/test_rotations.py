import math

import pytest
import torch
from physique.geometry import (
    axis_angle_to_matrix,
    check_values,
    geodesic_angle,
    matrix_to_quaternion_wxyz,
    matrix_to_rotation_6d,
    to_matrix,
)
from physique.testing import assert_right_to_second_order
from refusals import refuses

EYE = torch.eye(3, dtype=torch.float64)


def turn(angle, axis=(0.6, 0.0, 0.8)):
    return axis_angle_to_matrix(angle * torch.tensor(axis, dtype=torch.float64))


def test_every_format_reads_the_same_rotation():
    r = torch.randn(2, 5, 3, dtype=torch.float64)
    matrix = axis_angle_to_matrix(r)
    formats = {
        "axis_angle": r,
        "matrix": matrix,
        "rotation_6d": matrix_to_rotation_6d(matrix),
        "quaternion_wxyz": matrix_to_quaternion_wxyz(matrix),
    }
    for name, x in formats.items():
        torch.testing.assert_close(to_matrix(x, name), matrix)


def test_a_wrong_format_name_or_shape_is_named():
    with refuses("rotation"):
        to_matrix(torch.zeros(3), "euler")
    with refuses("matrix"):
        to_matrix(torch.zeros(3), "matrix")
    with refuses("axis_angle"):
        to_matrix(torch.eye(3)[..., :2], "axis_angle")


def test_matrices_are_checked_only_when_asked():
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
    for bad in (mirror, 2 * torch.eye(3), torch.full((3, 3), torch.nan)):
        assert to_matrix(bad, "matrix") is bad
        with check_values(), refuses("matrix"):
            to_matrix(bad, "matrix")
    with check_values():
        to_matrix(turn(2.0).expand(4, 3, 3), "matrix")


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-8, 1e-3, 1.0, 3.0, math.pi - 1e-3, math.pi - 1e-8, math.pi])
def test_geodesic_angle_is_exact_from_zero_to_pi(angle):
    assert abs(geodesic_angle(EYE, turn(angle)).item() - angle) < 4e-16 + 1e-15 * angle
    start = turn(2.0, (0.0, 1.0, 0.0))
    assert abs(geodesic_angle(start, start @ turn(angle)).item() - angle) < 2e-15


def test_equal_rotations_are_exactly_zero_apart():
    for dtype in (torch.float32, torch.float64):
        matrix = axis_angle_to_matrix(torch.randn(100, 3, dtype=dtype))
        assert geodesic_angle(matrix, matrix.clone()).equal(torch.zeros(100, dtype=dtype))


def test_geodesic_angle_broadcasts():
    a, b = axis_angle_to_matrix(torch.randn(4, 1, 3)), axis_angle_to_matrix(torch.randn(5, 3))
    assert geodesic_angle(a, b).shape == (4, 5)
    assert geodesic_angle(a[:0], b).shape == (0, 5)
    torch.testing.assert_close(geodesic_angle(a, b)[2, 3], geodesic_angle(a[2, 0], b[3]))
    with refuses("batch shapes"):
        geodesic_angle(torch.eye(3).expand(2, 3, 3), torch.eye(3).expand(3, 3, 3))


@pytest.mark.parametrize("angle", [0.05, 1.0, math.pi / 2, 3.0])
def test_geodesic_angle_is_right_to_second_order_between_zero_and_pi(angle):
    def moved(a, b):
        return geodesic_angle(turn(0.7, (0.0, 1.0, 0.0)) @ axis_angle_to_matrix(a), target @ axis_angle_to_matrix(b))

    target = turn(0.7, (0.0, 1.0, 0.0)) @ turn(angle)
    zero = torch.zeros(3, dtype=torch.float64)
    assert_right_to_second_order(moved, zero, zero.clone(), rtol=1e-6, step=3e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angle", [0.0, 1e-30, 1e-16, 1e-9, 1e-5, math.pi - 1e-5, math.pi])
def test_derivatives_are_finite_at_the_kinks(angle, dtype):
    b = turn(angle).to(dtype).requires_grad_()
    (gradient,) = torch.autograd.grad(geodesic_angle(EYE.to(dtype), b), b, create_graph=True)
    assert gradient.isfinite().all() and gradient.abs().max() < 2
    if gradient.requires_grad:
        (product,) = torch.autograd.grad((gradient * torch.randn(3, 3)).sum(), b)
        assert product.isfinite().all()


def test_the_gradient_at_zero_is_zero():
    b = EYE.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(geodesic_angle(EYE, b), b)
    assert gradient.equal(torch.zeros_like(b))
