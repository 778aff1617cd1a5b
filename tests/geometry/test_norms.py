import pytest
import torch
from physique.geometry.norms import length, negligible, scaled_to_one
from physique.testing import assert_right_to_second_order


def test_length_is_the_euclidean_norm():
    x = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(length(x), torch.linalg.vector_norm(x, dim=-1))
    assert_right_to_second_order(length, x, rtol=1e-6, step=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_length_has_finite_second_derivatives_around_zero(dtype):
    edge = negligible(dtype)
    for size in (0.0, edge * edge, 0.5 * edge, 2 * edge, 1e3 * edge):
        x = torch.tensor([0.0, -size, size], dtype=dtype, requires_grad=True)
        (gradient,) = torch.autograd.grad(length(x), x, create_graph=True)
        (product,) = torch.autograd.grad(gradient.sum(), x)
        assert gradient.isfinite().all() and product.isfinite().all()
        assert gradient.abs().max() == 0 or (gradient.norm() - 1).abs() < 1e-6


def test_scaling_keeps_the_direction_and_names_what_is_negligible():
    x = torch.tensor([[0.0, 0.0, 0.0], [1e-20, 0, 0], [3e30, -1e30, 0], [0.5, 0.25, 0]])
    scaled, zero = scaled_to_one(x)
    assert zero.squeeze(-1).tolist() == [True, True, False, False]
    assert scaled[:2].equal(x[:2])
    torch.testing.assert_close(scaled[2:], torch.tensor([[1.0, -1 / 3, 0], [1.0, 0.5, 0]]))
