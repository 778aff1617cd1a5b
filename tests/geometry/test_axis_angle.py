import numpy as np
import pytest
import torch
from oracles.rotations import cross_matrix, each, exponential
from oracles.special_points import SPECIAL_AXIS_ANGLES, special_batch, special_vector
from physique.geometry import axis_angle_to_matrix, matrix_to_axis_angle
from physique.geometry.axis_angle import (
    axis_angle_to_matrix_and_bend,
    axis_angle_to_matrix_minus_identity,
    axis_angle_to_quaternion_wxyz,
)
from physique.testing import assert_right_to_second_order
from refusals import refuses
from scipy.spatial.transform import Rotation

# The first forward-mode call of a process makes torch import code of its own that it has deprecated.

BELOW_PI = [name for name in SPECIAL_AXIS_ANGLES if special_vector(name).norm() < 3.14159]


def assert_near(got, expected, atol):
    np.testing.assert_allclose(got.detach().double().numpy(), expected, rtol=0, atol=atol)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-14), (torch.float32, 2e-6)])
def test_matrix_is_the_exponential_of_the_cross_product_matrix(dtype, atol):
    r = torch.cat((special_batch(dtype), 3 * torch.randn(50, 3, dtype=dtype)))
    assert_near(axis_angle_to_matrix(r), each(exponential, r.double(), 1), atol)


@pytest.mark.parametrize("shape", [(), (4,), (2, 5), (0,), (3, 0, 2)])
def test_any_batch_shape_agrees_with_scipy(shape):
    r = torch.randn(*shape, 3, dtype=torch.float64)
    matrix = axis_angle_to_matrix(r)
    assert matrix.shape == (*shape, 3, 3)
    expected = Rotation.from_rotvec(r.reshape(-1, 3).numpy()).as_matrix() if r.numel() else np.zeros((0, 3, 3))
    assert_near(matrix.reshape(-1, 3, 3), expected, 1e-14)
    assert matrix_to_axis_angle(matrix).shape == r.shape


def test_zero_gives_exactly_the_identity():
    for dtype in (torch.float32, torch.float64):
        zero = torch.zeros(24, 3, dtype=dtype)
        assert axis_angle_to_matrix(zero).equal(torch.eye(3, dtype=dtype).expand(24, 3, 3))
        assert axis_angle_to_matrix_minus_identity(zero).equal(torch.zeros(24, 3, 3, dtype=dtype))


@pytest.mark.parametrize("name", SPECIAL_AXIS_ANGLES)
def test_matrix_is_right_to_second_order(name):
    assert_right_to_second_order(axis_angle_to_matrix, special_vector(name), rtol=1e-8, atol=1e-9)
    assert_right_to_second_order(axis_angle_to_matrix_minus_identity, special_vector(name), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", SPECIAL_AXIS_ANGLES)
def test_quaternion_is_right_to_second_order(name):
    assert_right_to_second_order(axis_angle_to_quaternion_wxyz, special_vector(name), rtol=1e-7, atol=1e-8)


def test_quaternion_follows_the_vector_beyond_half_a_turn():
    r = special_batch()
    q = axis_angle_to_quaternion_wxyz(r)
    expected = Rotation.from_rotvec(r.numpy()).as_quat(scalar_first=True)
    np.testing.assert_allclose(q.norm(dim=-1).numpy(), 1, atol=1e-15)
    np.testing.assert_allclose(np.abs((q.numpy() * expected).sum(-1)), 1, atol=1e-14)
    angles = torch.tensor([1.0, 3.0, 4.0, 6.0], dtype=torch.float64)
    about_z = torch.stack((0 * angles, 0 * angles, angles), dim=-1)
    expected = torch.stack(((angles / 2).cos(), 0 * angles, 0 * angles, (angles / 2).sin()), dim=-1)
    torch.testing.assert_close(axis_angle_to_quaternion_wxyz(about_z), expected)


def test_matrix_and_bend_are_the_two_single_functions():
    r = torch.cat((special_batch(), torch.randn(20, 3, dtype=torch.float64)))
    matrix, bend = axis_angle_to_matrix_and_bend(r)
    assert bend.equal(axis_angle_to_matrix_minus_identity(r))
    torch.testing.assert_close(matrix, axis_angle_to_matrix(r), rtol=0, atol=4e-16)


def test_derivatives_at_zero_are_the_generators_and_their_products():
    zero = torch.zeros(3, dtype=torch.float64)
    generators = np.stack([cross_matrix(axis) for axis in np.eye(3)])
    first = torch.func.jacrev(axis_angle_to_matrix)(zero)
    second = torch.func.jacfwd(torch.func.jacrev(axis_angle_to_matrix))(zero)
    assert_near(first, np.einsum("kij->ijk", generators), 1e-15)
    products = np.einsum("kim,lmj->ijkl", generators, generators)
    assert_near(second, (products + products.swapaxes(2, 3)) / 2, 1e-15)


@pytest.mark.parametrize("name", SPECIAL_AXIS_ANGLES)
def test_float32_derivatives_equal_float64_ones(name):
    weights = torch.linspace(-1, 1, 9, dtype=torch.float64).reshape(3, 3)
    point = special_vector(name).float()

    def loss(r):
        return (axis_angle_to_matrix(r) * weights.to(r.dtype)).sum()

    for derivative, atol in ((torch.func.grad(loss), 5e-6), (torch.func.hessian(loss), 3e-5)):
        assert_near(derivative(point), derivative(point.double()).numpy(), atol * max(1.0, point.norm().item()))


def test_the_pose_feature_keeps_its_digits_for_tiny_angles():
    r = torch.tensor([1e-5, 2e-5, -2e-5])
    exact = axis_angle_to_matrix_minus_identity(r.double())
    torch.testing.assert_close(axis_angle_to_matrix_minus_identity(r).double(), exact, rtol=5e-7, atol=0)
    by_subtraction = axis_angle_to_matrix(r) - torch.eye(3)
    assert (by_subtraction.double() / exact - 1).abs().max() > 1e-3


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-13), (torch.float32, 3e-6)])
def test_rotations_are_orthonormal_with_determinant_one(dtype, atol):
    matrix = axis_angle_to_matrix(torch.cat((special_batch(dtype), 5 * torch.randn(200, 3, dtype=dtype))))
    assert_near(matrix @ matrix.mT, np.broadcast_to(np.eye(3), matrix.shape), atol)
    assert_near(torch.linalg.det(matrix), np.ones(len(matrix)), atol)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_log_agrees_with_scipy_and_is_at_most_pi_long(dtype, atol):
    near_pi = torch.tensor([[np.pi - 1e-4, 0, 0], [0, 3.0, 0.5], [0, 0, -np.pi + 1e-5]])
    r = torch.cat((torch.randn(100, 3), 1e-3 * torch.randn(20, 3), 1e-9 * torch.randn(5, 3), near_pi)).to(dtype)
    matrix = axis_angle_to_matrix(r)
    log = matrix_to_axis_angle(matrix)
    assert_near(log, Rotation.from_matrix(matrix.double().numpy()).as_rotvec(), 10 * atol)
    assert (log.norm(dim=-1) <= np.pi + atol).all()


def test_log_at_pi_is_one_of_the_two_half_turns():
    axes = torch.cat((torch.eye(3, dtype=torch.float64), torch.randn(20, 3, dtype=torch.float64)))
    r = np.pi * axes / axes.norm(dim=-1, keepdim=True)
    log = matrix_to_axis_angle(2 * r[:, :, None] * r[:, None, :] / np.pi**2 - torch.eye(3, dtype=torch.float64))
    error = torch.minimum((log - r).norm(dim=-1), (log + r).norm(dim=-1))
    assert error.max() < 1e-14


@pytest.mark.parametrize("name", BELOW_PI)
def test_log_is_right_to_second_order_along_rotations(name):
    matrix = axis_angle_to_matrix(special_vector(name))
    step = 1e-8 if "pi - 1e-6" in name else 1e-3
    tolerance = {"rtol": 1e-2, "atol": 10.0} if "pi - 1e-6" in name else {"rtol": 1e-7, "atol": 1e-8}

    def log(turn):
        return matrix_to_axis_angle(matrix @ axis_angle_to_matrix(turn))

    assert_right_to_second_order(log, torch.zeros(3, dtype=torch.float64), step=step, **tolerance)


def test_log_is_right_to_second_order_across_its_switch_of_formulas():
    for sine_of_half in (0.0124, 0.0191, 0.0192, 0.0193, 0.03):
        matrix = axis_angle_to_matrix(torch.tensor([0.0, 2 * np.arcsin(sine_of_half), 0.0], dtype=torch.float64))
        for fn in (matrix_to_axis_angle, lambda turn, m=matrix: matrix_to_axis_angle(m @ axis_angle_to_matrix(turn))):
            point = matrix if fn is matrix_to_axis_angle else torch.zeros(3, dtype=torch.float64)
            assert_right_to_second_order(fn, point, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("axis", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.6, 0.0, 0.8), (-0.48, 0.6, 0.64)])
def test_log_at_pi_has_finite_value_and_gradient(axis, dtype):
    axis = torch.tensor(axis, dtype=dtype)
    half_turn = (2 * torch.outer(axis, axis) - torch.eye(3, dtype=dtype)).requires_grad_()
    log = matrix_to_axis_angle(half_turn)
    (gradient,) = torch.autograd.grad(log.sum(), half_turn)
    assert log.isfinite().all() and gradient.isfinite().all() and gradient.abs().max() < 100


def test_wrong_shapes_are_named():
    with refuses("axis_angle"):
        axis_angle_to_matrix(torch.zeros(4))
    with refuses("matrix"):
        matrix_to_axis_angle(torch.zeros(9))
