import numpy as np
import pytest
import roma
import torch
from oracles.rotations import each, quaternion_rotation
from oracles.special_points import special_batch
from physique.geometry import axis_angle_to_matrix, matrix_to_quaternion_wxyz, quaternion_wxyz_to_matrix
from physique.testing import assert_right_to_second_order
from refusals import refuses
from scipy.spatial.transform import Rotation

HALF_TURNS = torch.tensor([[0.0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0.6, 0, -0.8], [0, 0.48, -0.6, 0.64]])


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-14), (torch.float32, 2e-6)])
def test_matrix_columns_are_the_axes_turned_by_the_hamilton_product(dtype, atol):
    q = torch.cat((torch.randn(50, 4), torch.eye(4), HALF_TURNS)).to(dtype)
    expected = each(quaternion_rotation, q.double(), 1)
    np.testing.assert_allclose(quaternion_wxyz_to_matrix(q).double().numpy(), expected, atol=atol)


def test_order_is_scalar_first():
    q = torch.randn(20, 4, dtype=torch.float64)
    xyzw = q.roll(-1, dims=-1).numpy()
    np.testing.assert_allclose(quaternion_wxyz_to_matrix(q).numpy(), Rotation.from_quat(xyzw).as_matrix(), atol=1e-14)
    unit = q / q.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(quaternion_wxyz_to_matrix(q), roma.unitquat_to_rotmat(roma.quat_wxyz_to_xyzw(unit)))


def test_the_sign_and_the_length_do_not_matter():
    q = torch.randn(20, 4, dtype=torch.float64)
    matrix = quaternion_wxyz_to_matrix(q)
    assert quaternion_wxyz_to_matrix(-q).equal(matrix)
    for factor in (1e-60, 1e-9, 1e9, 1e200):
        torch.testing.assert_close(quaternion_wxyz_to_matrix(factor * q), matrix, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.0, 1e-200, 1e-30, 1e-12, 1e30])
def test_value_and_derivatives_are_finite_for_every_length(size, dtype):
    q = (size * torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)).to(dtype).requires_grad_()
    matrix = quaternion_wxyz_to_matrix(q)
    (gradient,) = torch.autograd.grad((matrix * torch.randn(3, 3)).sum(), q, create_graph=True)
    (product,) = torch.autograd.grad((gradient * torch.randn(4)).sum(), q)
    assert (matrix @ matrix.mT - torch.eye(3)).abs().max() < 1e-6
    assert gradient.isfinite().all() and product.isfinite().all()


def test_zero_is_the_identity_and_still_has_a_gradient():
    zero = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    matrix = quaternion_wxyz_to_matrix(zero)
    assert matrix.equal(torch.eye(3, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(matrix[1, 0], zero)
    torch.testing.assert_close(gradient, torch.tensor([0.0, 0, 0, 2], dtype=torch.float64))


@pytest.mark.parametrize(
    "q", [*torch.eye(4).tolist(), *HALF_TURNS.tolist(), (0.3, -0.2, 0.9, 0.1), (1e-4, 2e-4, 0, 1e-4)]
)
def test_matrix_is_right_to_second_order(q):
    q = torch.tensor(q, dtype=torch.float64)
    step = 1e-3 * q.abs().max().item()
    assert_right_to_second_order(quaternion_wxyz_to_matrix, q, step=step, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
@pytest.mark.parametrize("shape", [(), (3,), (2, 4), (0,)])
def test_quaternion_of_a_matrix_agrees_with_scipy(shape, dtype, atol):
    matrix = axis_angle_to_matrix(2 * torch.randn(*shape, 3, dtype=dtype))
    q = matrix_to_quaternion_wxyz(matrix)
    assert q.shape == (*shape, 4) and (q[..., 0] >= 0).all()
    if matrix.numel():
        xyzw = Rotation.from_matrix(matrix.double().reshape(-1, 3, 3).numpy()).as_quat(canonical=True)
        np.testing.assert_allclose(q.reshape(-1, 4).double().numpy(), np.roll(xyzw, 1, axis=-1), atol=10 * atol)
    np.testing.assert_allclose(quaternion_wxyz_to_matrix(q).numpy(), matrix.numpy(), atol=10 * atol)


def test_half_turns_come_back_up_to_the_sign():
    matrix = quaternion_wxyz_to_matrix(HALF_TURNS.double())
    q = matrix_to_quaternion_wxyz(matrix)
    product = (q * HALF_TURNS).sum(-1).abs()
    torch.testing.assert_close(product, torch.ones_like(product), rtol=0, atol=1e-7)


def test_quaternion_is_right_to_second_order_along_rotations():
    for r in special_batch():
        matrix = axis_angle_to_matrix(r)
        if torch.linalg.matrix_norm(matrix + matrix.mT) > 2.01 and matrix.trace() > -0.99:
            assert_right_to_second_order(
                lambda turn, m=matrix: matrix_to_quaternion_wxyz(m @ axis_angle_to_matrix(turn)),
                torch.zeros(3, dtype=torch.float64),
                rtol=1e-7,
                atol=1e-8,
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("q", HALF_TURNS.tolist())
def test_half_turns_have_finite_gradients(q, dtype):
    matrix = quaternion_wxyz_to_matrix(torch.tensor(q, dtype=dtype)).requires_grad_()
    (gradient,) = torch.autograd.grad(matrix_to_quaternion_wxyz(matrix).sum(), matrix)
    assert gradient.isfinite().all() and gradient.abs().max() < 10


def test_wrong_shapes_are_named():
    with refuses("quaternion"):
        quaternion_wxyz_to_matrix(torch.zeros(3))
    with refuses("matrix"):
        matrix_to_quaternion_wxyz(torch.zeros(3, 4))
