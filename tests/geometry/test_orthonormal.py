import numpy as np
import pytest
import roma
import torch
from oracles.rotations import each
from oracles.rotations import gram_schmidt as gram_schmidt_oracle
from oracles.rotations import nearest_rotation as nearest_rotation_oracle
from physique.geometry import (
    axis_angle_to_matrix,
    gram_schmidt,
    matrix_to_rotation_6d,
    nearest_rotation,
    rotation_6d_to_matrix,
)
from physique.testing import assert_right_to_second_order
from refusals import refuses

DEGENERATE = {
    "zeros": [[0.0, 0, 0], [0, 0, 0], [0, 0, 0]],
    "first column zero": [[0.0, 1, 0], [0, 2, 0], [0, -1, 0]],
    "first column zero, second along x": [[0.0, 1, 0], [0, 0, 0], [0, 0, 0]],
    "second column zero": [[1.0, 0, 0], [2, 0, 0], [-1, 0, 0]],
    "equal columns": [[1.0, 1, 0], [2, 2, 0], [3, 3, 0]],
    "opposite columns": [[1.0, -2, 0], [2, -4, 0], [3, -6, 0]],
    "collinear to within rounding": [[0.1, 0.3, 0], [0.2, 0.6, 0], [0.7, 2.1, 0]],
    "tiny": [[1e-30, 0, 0], [2e-30, 1e-30, 0], [0, 0, 1e-30]],
    "below the float32 range": [[1e-42, 0, 0], [2e-42, 1e-42, 0], [0, 0, 1e-42]],
    "huge": [[1e30, -1e30, 0], [2e30, 1e30, 0], [0, 0, 1e30]],
    "tiny and huge": [[1e-30, 1e30, 0], [2e-30, 2e30, 0], [0, 1e30, 1]],
    "all ones": [[1.0, 1, 1], [1, 1, 1], [1, 1, 1]],
    "a reflection": [[-1.0, 0, 0], [0, -1, 0], [0, 0, -1]],
    "a mirror": [[1.0, 0, 0], [0, 1, 0], [0, 0, -1]],
    "rank two": [[1.0, 0, 0], [0, 1, 0], [0, 0, 0]],
}
SMOOTH_FOR_NEAREST = {
    "identity": torch.eye(3),
    "a scaled rotation": 2 * axis_angle_to_matrix(torch.tensor([0.4, -1.0, 2.0])),
    "two equal singular values": torch.diag(torch.tensor([2.0, 2.0, 0.5])),
    "two equal singular values, the smaller ones": torch.diag(torch.tensor([2.0, 0.5, 0.5])),
    "negative determinant": torch.diag(torch.tensor([3.0, 2.0, -1.0])),
    "rank two": torch.diag(torch.tensor([3.0, 2.0, 0.0])),
}


def derivatives(fn, x):
    x = x.clone().requires_grad_()
    value = fn(x)
    (gradient,) = torch.autograd.grad((value * torch.randn(3, 3, dtype=x.dtype)).sum(), x, create_graph=True)
    (product,) = torch.autograd.grad((gradient * torch.randn_like(x)).sum(), x)
    return value.detach(), gradient.detach(), product


@pytest.mark.parametrize("fn", [gram_schmidt, nearest_rotation])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_matrices_give_proper_rotations_with_finite_derivatives(name, dtype, fn):
    value, gradient, product = derivatives(fn, torch.tensor(DEGENERATE[name], dtype=torch.float64).to(dtype))
    assert (value @ value.mT - torch.eye(3, dtype=dtype)).abs().max() < 20 * torch.finfo(dtype).eps
    assert (torch.linalg.det(value) - 1).abs() < 20 * torch.finfo(dtype).eps
    assert gradient.isfinite().all() and product.isfinite().all()


@pytest.mark.parametrize("fn", [gram_schmidt, nearest_rotation])
def test_zero_gives_the_identity(fn):
    assert fn(torch.zeros(2, 3, 3)).equal(torch.eye(3).expand(2, 3, 3))


@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-7, 1e-8, 1e-12, 1e-15])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearly_collinear_columns_are_orthogonal_to_every_digit(distance, dtype):
    first = torch.randn(100, 3, dtype=dtype)
    second = 3 * first + distance * torch.randn(100, 3, dtype=dtype)
    rotation = gram_schmidt(torch.stack((first, second), dim=-1))
    assert (rotation.mT @ rotation - torch.eye(3, dtype=dtype)).abs().max() < 10 * torch.finfo(dtype).eps


def test_a_zero_column_still_has_a_gradient():
    matrix = torch.zeros(3, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(gram_schmidt(matrix)[1, 0], matrix)
    assert gradient.abs().max() == 1


@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0,)])
def test_gram_schmidt_agrees_with_the_oracle_and_reads_two_columns(shape, columns):
    matrix = torch.randn(*shape, 3, columns, dtype=torch.float64)
    rotation = gram_schmidt(matrix)
    assert rotation.shape == (*shape, 3, 3)
    if matrix.numel():
        np.testing.assert_allclose(rotation.numpy(), each(gram_schmidt_oracle, matrix, 2), atol=1e-13)
    assert gram_schmidt(matrix[..., :2]).equal(rotation)


def test_gram_schmidt_does_not_see_positive_factors_on_columns():
    matrix = torch.randn(20, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(
        gram_schmidt(matrix * torch.tensor([1e-60, 1e70], dtype=torch.float64)), gram_schmidt(matrix)
    )


@pytest.mark.parametrize("columns", [2, 3])
def test_gram_schmidt_is_right_to_second_order(columns):
    assert_right_to_second_order(gram_schmidt, torch.randn(3, 3, columns, dtype=torch.float64), rtol=1e-7, step=3e-4)
    assert_right_to_second_order(gram_schmidt, torch.eye(3, dtype=torch.float64), rtol=1e-7)


def test_gram_schmidt_has_exact_derivatives_for_small_and_nearly_collinear_columns():
    small = 1e-5 * torch.randn(3, 2, dtype=torch.float64)
    assert_right_to_second_order(gram_schmidt, small, step=1e-8, rtol=1e-5, atol=1e-2)
    nearly = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.001]], dtype=torch.float64)
    assert_right_to_second_order(gram_schmidt, nearly, step=1e-6, rtol=1e-5, atol=1e-2)


def test_6d_layouts_read_columns_rows_and_interleaved_rows():
    matrix = axis_angle_to_matrix(torch.randn(5, 3, dtype=torch.float64))
    expected = {
        "columns": torch.cat((matrix[:, :, 0], matrix[:, :, 1]), dim=-1),
        "rows": torch.cat((matrix[:, 0], matrix[:, 1]), dim=-1),
        "interleaved": matrix[:, :, :2].reshape(5, 6),
    }
    for layout, six in expected.items():
        assert matrix_to_rotation_6d(matrix, layout).equal(six)
        torch.testing.assert_close(rotation_6d_to_matrix(six, layout), matrix)
        torch.testing.assert_close(rotation_6d_to_matrix(2.5 * six, layout), matrix)
    assert matrix_to_rotation_6d(matrix).equal(expected["columns"])


@pytest.mark.parametrize("layout", ["columns", "rows", "interleaved"])
def test_6d_is_right_to_second_order(layout):
    six = torch.randn(2, 6, dtype=torch.float64)
    assert_right_to_second_order(lambda x: rotation_6d_to_matrix(x, layout), six, rtol=1e-7, step=3e-4)
    assert_right_to_second_order(lambda m: matrix_to_rotation_6d(m, layout), torch.randn(3, 3, dtype=torch.float64))


def test_nearest_rotation_agrees_with_the_oracle_and_with_roma():
    matrix = torch.randn(200, 3, 3, dtype=torch.float64)
    rotation = nearest_rotation(matrix)
    assert (torch.linalg.det(matrix) < 0).any()
    np.testing.assert_allclose(rotation.numpy(), each(nearest_rotation_oracle, matrix, 2), atol=1e-12)
    torch.testing.assert_close(rotation, roma.special_procrustes(matrix), rtol=0, atol=1e-7)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0,)])
def test_nearest_rotation_takes_any_batch_in_float32(shape):
    matrix = torch.randn(*shape, 3, 3)
    rotation = nearest_rotation(matrix)
    assert rotation.shape == matrix.shape and rotation.dtype == torch.float32
    torch.testing.assert_close(rotation, nearest_rotation(matrix.double()).float(), rtol=0, atol=2e-5)


def test_no_rotation_nearby_is_nearer():
    matrix = torch.randn(50, 3, 3, dtype=torch.float64)
    rotation = nearest_rotation(matrix)
    distance = torch.linalg.matrix_norm(matrix - rotation)
    for size in (1e-3, 0.1, 1.0, 3.0):
        other = rotation @ axis_angle_to_matrix(size * torch.randn(50, 3, dtype=torch.float64))
        assert (torch.linalg.matrix_norm(matrix - other) >= distance).all()


def test_a_rotation_is_its_own_nearest():
    rotation = axis_angle_to_matrix(torch.randn(20, 3, dtype=torch.float64))
    torch.testing.assert_close(nearest_rotation(1e-40 * rotation), rotation, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", SMOOTH_FOR_NEAREST)
def test_nearest_rotation_is_right_to_second_order_at_ties_of_the_svd(name):
    matrix = SMOOTH_FOR_NEAREST[name].double()
    assert_right_to_second_order(nearest_rotation, matrix, rtol=1e-7, atol=1e-8)


def test_nearest_rotation_is_right_to_second_order_at_general_matrices():
    matrix = torch.randn(8, 3, 3, dtype=torch.float64)
    singular = torch.linalg.svdvals(matrix)
    gap = singular[:, 1] + singular[:, 2] * torch.linalg.det(matrix).sign()
    assert_right_to_second_order(nearest_rotation, matrix[gap > 0.3], rtol=1e-6, step=3e-4)


def test_wrong_arguments_are_named():
    with refuses("matrix"):
        gram_schmidt(torch.zeros(3, 4))
    with refuses("matrix"):
        gram_schmidt(torch.zeros(2, 2))
    with refuses("matrix"):
        nearest_rotation(torch.zeros(3))
    with refuses("rotation_6d"):
        rotation_6d_to_matrix(torch.zeros(3, 2))
    with refuses("layout"):
        rotation_6d_to_matrix(torch.zeros(6), layout="column")
    with refuses("layout"):
        matrix_to_rotation_6d(torch.eye(3), layout="column")
