import pytest
import roma
import torch
from physique.testing import assert_right_to_second_order
from smplx.lbs import batch_rodrigues

ZERO = torch.zeros(1, 3, dtype=torch.float64)
POINT = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)


class Cube(torch.autograd.Function):
    """x³ whose gradient, and the gradient of that, may each be multiplied by a wrong factor."""

    @staticmethod
    def forward(ctx, x, first, second):
        ctx.save_for_backward(x)
        ctx.first, ctx.second = first, second
        return x**3

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        exact = 3 * x**2
        return ctx.first * grad * (ctx.second * exact + (1 - ctx.second) * exact.detach()), None, None


class WrongForward(torch.autograd.Function):
    """x² with a right backward and a forward-mode derivative of 1.01 times the right one."""

    @staticmethod
    def forward(x):
        return x**2

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad * ctx.saved_tensors[0]

    @staticmethod
    def jvp(ctx, tangent):
        return 2.02 * tangent * ctx.saved_tensors[0]


def test_smooth_functions_pass():
    assert_right_to_second_order(torch.sin, POINT)
    assert_right_to_second_order(lambda x, y: (x * y.exp()).sum(), POINT, POINT.flip(0))
    assert_right_to_second_order(lambda x: x @ x.mT, torch.randn(2, 3, 4, dtype=torch.float64))
    assert_right_to_second_order(lambda x: 2 * x, POINT)
    assert_right_to_second_order(lambda x: torch.ones(2, dtype=torch.float64), POINT)
    assert_right_to_second_order(lambda x: x.sum(-1), torch.zeros(0, 3, dtype=torch.float64))
    assert_right_to_second_order(lambda x: (x**3).sum(), torch.randn(300, dtype=torch.float64))
    assert_right_to_second_order(lambda x: (x / 1e6) ** 2, 1e6 * POINT)


def test_a_right_custom_backward_passes():
    assert_right_to_second_order(lambda x: Cube.apply(x, 1.0, 1.0), POINT, forward_mode=False)


def test_a_wrong_gradient_is_found_where_it_is():
    with pytest.raises(AssertionError, match=r"^input 1: gradient at \[2\]: autograd gives .* finite differences give"):
        assert_right_to_second_order(lambda x, y: x * torch.cat((y[:2], y[2:].detach())), POINT, POINT)


@pytest.mark.parametrize("factor", [1.001, 0.0, -1.0])
def test_a_wrong_custom_backward_is_found(factor):
    with pytest.raises(AssertionError, match=r"^input 0: gradient at \[\d\]: "):
        assert_right_to_second_order(lambda x: Cube.apply(x, factor, 1.0), POINT, forward_mode=False)


@pytest.mark.parametrize("factor", [1.001, 0.0])
def test_a_wrong_second_derivative_is_found(factor):
    with pytest.raises(AssertionError, match=r"^input 0: Hessian-vector product at \[\d\]: autograd gives"):
        assert_right_to_second_order(lambda x: Cube.apply(x, 1.0, factor), POINT, forward_mode=False)


def test_a_wrong_forward_mode_is_found():
    with pytest.raises(AssertionError, match="^all inputs: forward-mode gradient: .* reverse mode gives"):
        assert_right_to_second_order(WrongForward.apply, POINT)


def test_one_wrong_entry_among_many_is_found_by_the_direction():
    x = torch.randn(5000, dtype=torch.float64)
    keep = torch.ones(5000, dtype=torch.bool)
    keep[1234] = False
    with pytest.raises(AssertionError, match="^all inputs: gradient along the direction: "):
        assert_right_to_second_order(lambda x: torch.where(keep, x, x.detach()), x)


def test_roma_fails_at_zero():
    with pytest.raises(AssertionError, match=r"^input 0: Hessian-vector product at \[0, 0\]: .* got nan$"):
        assert_right_to_second_order(roma.rotvec_to_rotmat, ZERO)


def test_smplx_fails_at_zero_and_just_below():
    with pytest.raises(AssertionError, match="^input 0: Hessian-vector product at .* autograd gives"):
        assert_right_to_second_order(batch_rodrigues, ZERO)
    with pytest.raises(AssertionError, match="^value at .* got nan$"):
        assert_right_to_second_order(batch_rodrigues, ZERO - 1e-8)


def test_kinks_fail():
    for kinked in (torch.abs, torch.relu, torch.sqrt, lambda x: x.norm(dim=-1)):
        with pytest.raises(AssertionError):
            assert_right_to_second_order(kinked, ZERO)


def test_a_change_of_type_fails_and_a_wrong_input_is_refused():
    with pytest.raises(AssertionError, match="^value: expected a float64 tensor, got torch.float32; "):
        assert_right_to_second_order(lambda x: x.float(), POINT)
    with pytest.raises(AssertionError, match="^value: expected a float64 tensor, got tuple; "):
        assert_right_to_second_order(lambda x: (x, x), POINT)
    with pytest.raises(TypeError, match="^input 1: expected a float64 tensor, got torch.float32; "):
        assert_right_to_second_order(torch.add, POINT, POINT.float())


def test_inputs_are_left_alone_and_the_check_repeats():
    x = POINT.clone().requires_grad_()
    for _ in range(2):
        assert_right_to_second_order(torch.sin, x)
    assert x.grad is None and x.detach().equal(POINT)
