"""Penalties: their formulas, their bounds, and derivatives at and far from zero."""

import pytest
import torch
from physique.losses import geman_mcclure, huber, l1, l2, penalise
from refusals import refuses
from torch.testing import assert_close

SMOOTH = {"l2": l2, "huber": lambda r: huber(r, 1.5), "geman_mcclure": lambda r: geman_mcclure(r, 1.5)}
ALL = {"l1": l1, **SMOOTH}


def derivatives(function, value, dtype=torch.float64):
    r = torch.tensor(value, dtype=dtype, requires_grad=True)
    result = function(r)
    (first,) = torch.autograd.grad(result, r, create_graph=True)
    second = torch.autograd.grad(first, r)[0] if first.requires_grad else torch.zeros(())
    return result.item(), first.item(), second.item()


@pytest.mark.parametrize("r", [-7.0, -1.4, 0.3, 1.6, 40.0])
def test_penalties_are_their_formulas(r):
    sigma = 1.5
    tensor = torch.tensor(r, dtype=torch.float64)
    assert l1(tensor) == abs(r)
    assert l2(tensor).item() == pytest.approx(r * r)
    assert huber(tensor, sigma).item() == pytest.approx(r * r / 2 if abs(r) <= sigma else sigma * (abs(r) - sigma / 2))
    assert geman_mcclure(tensor, sigma).item() == pytest.approx(sigma**2 * r**2 / (sigma**2 + r**2))


@pytest.mark.parametrize("name, curvature", [("l2", 2.0), ("huber", 1.0), ("geman_mcclure", 2.0)])
def test_curvature_at_zero_is_exact(name, curvature):
    assert derivatives(SMOOTH[name], 0.0) == pytest.approx((0.0, 0.0, curvature))


def test_l1_has_no_slope_at_its_corner():
    assert derivatives(l1, 0.0) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_are_right_to_second_order(name):
    r = torch.tensor([-5.0, -1.0, 0.0, 1e-8, 0.4, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(SMOOTH[name], r)
    assert torch.autograd.gradgradcheck(SMOOTH[name], r)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [0.0, 1e-38, -1e-20, 1e20, -1e30])
def test_float32_extremes_are_finite(name, value):
    assert all(abs(d) < float("inf") for d in derivatives(ALL[name], value, torch.float32))


def test_geman_mcclure_is_bounded_and_l2_near_zero():
    sigma = 3.0
    far = torch.tensor([1e3, 1e6, 1e30])
    assert (geman_mcclure(far, sigma) <= sigma**2 * (1 + 1e-6)).all()
    near = torch.linspace(-1e-3, 1e-3, 7, dtype=torch.float64)
    assert_close(geman_mcclure(near, sigma), l2(near), rtol=1e-6, atol=0)


def test_sigma_may_be_a_tensor():
    r, sigma = torch.ones(2, 3), torch.tensor([[1.0], [2.0]])
    assert_close(geman_mcclure(r, sigma)[:, 0], torch.tensor([0.5, 0.8]))
    assert_close(huber(2 * r, sigma)[:, 0], torch.tensor([1.5, 2.0]))


@pytest.mark.parametrize("name", ALL)
def test_penalise_finds_them_by_name(name):
    r = torch.linspace(-3, 3, 7)
    assert_close(penalise(r, name, 1.5), ALL[name](r))


def test_unknown_penalty_is_refused():
    with refuses("penalty"):
        penalise(torch.ones(2), "cauchy", 1.0)
