"""Equations that are added up term by term are those of all residuals at once."""

import pytest
import torch
from physique.bodymodel.limits import LimitBox
from physique.fitting import NormalEquations, Status, least_squares, tangent_jacobian
from physique.fitting.normal_equations import Equations, robust_loss, robust_weights
from physique.fitting.pose_terms import PoseTerms
from physique.fitting.robust_residuals import softened, softened_slope
from physique.fitting.tangent import left_turns
from physique.losses import geman_mcclure

F64 = torch.float64
COUNT, SIZE = 3, 8


def test_terms_add_up():
    values, jacobian = torch.randn(COUNT, 5, dtype=F64), torch.randn(COUNT, 5, SIZE, dtype=F64)
    some, few = torch.randn(COUNT, 4, dtype=F64), torch.randn(COUNT, 4, 3, dtype=F64)
    own = torch.randn(COUNT, 2, dtype=F64)
    equations = NormalEquations.zeros(values, SIZE)
    equations.add(values, jacobian)
    equations.add_some(2, some, few)
    equations.add_squares(6, own, 0.7)
    equations.add_quadratic(1, torch.eye(2, dtype=F64), torch.ones(COUNT, 2, dtype=F64))
    rows = torch.zeros(COUNT, 13, SIZE, dtype=F64)
    rows[:, :5], rows[:, 5:9, 2:5] = jacobian, few
    rows[:, 9, 6] = rows[:, 10, 7] = 0.7
    rows[:, 11, 1] = rows[:, 12, 2] = 1
    expected = NormalEquations.of(torch.cat((values, some, own, torch.ones(COUNT, 2, dtype=F64)), dim=-1), rows)
    assert isinstance(equations, Equations)
    torch.testing.assert_close(equations.matrix, expected.matrix)
    torch.testing.assert_close(equations.slope, expected.slope)


def test_the_terms_of_a_pose_are_those_by_differentiation():
    pose = 0.8 * torch.randn(COUNT, 4, 3, dtype=F64)
    box = LimitBox(torch.full((4, 3), -0.3, dtype=F64), torch.full((4, 3), 0.5, dtype=F64))
    terms = PoseTerms(box, 0.1 * torch.randn(4, 3, dtype=F64), 30.0, torch.rand(4, 1, dtype=F64))
    equations = NormalEquations.zeros(pose, 14)
    terms.add_to(equations, 2, pose)
    expected = NormalEquations.of(*tangent_jacobian(lambda p: terms.residuals(p["pose"]), {"pose": pose}, ["pose"]))
    torch.testing.assert_close(equations.matrix[:, 2:, 2:], expected.matrix)
    torch.testing.assert_close(equations.slope[:, 2:], expected.slope)
    assert not equations.matrix[:, :2].any() and not equations.slope[:, :2].any()


def test_caution_shortens_steps_and_changes_no_slope():
    pose = torch.randn(COUNT, 4, 3, dtype=F64)
    free = LimitBox(torch.full((4, 3), -torch.inf, dtype=F64), torch.full((4, 3), torch.inf, dtype=F64))
    bold, careful = NormalEquations.zeros(pose, 12), NormalEquations.zeros(pose, 12)
    terms = PoseTerms(free, torch.zeros(4, 3, dtype=F64), 1.0, 2.0)
    terms.add_to(bold, 0, pose)
    terms._replace(caution=3.0).add_to(careful, 0, pose)
    torch.testing.assert_close(careful.slope, bold.slope)
    torch.testing.assert_close(careful.matrix, 2.5 * bold.matrix)


def test_a_softened_residual_has_the_penalty_as_its_square_and_the_slope_of_its_weight():
    residual = torch.linspace(-4, 4, 33, dtype=F64).requires_grad_()
    penalty = geman_mcclure(residual, 0.8)
    torch.testing.assert_close(softened(residual, 0.8).square(), penalty)
    (slope,) = torch.autograd.grad(penalty.sum(), residual)
    torch.testing.assert_close(softened_slope(residual, 0.8).square() * residual, slope / 2)


def exponential(params, data):
    return params["size"].unsqueeze(-1) * torch.exp(params["turn"][..., :1] * data["x"]) - data["y"]


@pytest.mark.parametrize("whole", [True, False])
def test_a_solve_by_equations_is_that_by_a_jacobian(whole):
    x = torch.linspace(0, 1, 9, dtype=F64).expand(COUNT, 9)
    start = {"size": torch.ones(COUNT, dtype=F64), "turn": torch.full((COUNT, 3), 0.1, dtype=F64)}
    data = {"x": x, "y": 2 * torch.exp(torch.tensor([-1.0, 0.5, 1.0], dtype=F64).unsqueeze(-1) * x)}

    def residual(params, seen=data):
        return torch.cat((exponential(params, seen), 0.01 * params["turn"]), dim=-1)

    def equations(params, seen=data):
        rows, jacobian = tangent_jacobian(lambda p: exponential(p, seen), params, ["turn"])
        result = NormalEquations.zeros(rows, 4)
        result.add(rows, jacobian)
        turns = 0.01 * left_turns(params["turn"])
        result.add_some(1, 0.01 * params["turn"], turns)
        return result

    options = {"rotations": ["turn"], "data": None if whole else data, "steps": 100}
    by_rows = least_squares(residual, start, **options)
    by_terms = least_squares(residual, start, jacobian=equations, **options)
    assert (by_terms.status == Status.CONVERGED).all()
    assert by_terms.steps == by_rows.steps
    for name in start:
        torch.testing.assert_close(by_terms.params[name], by_rows.params[name], atol=1e-9, rtol=0)


def test_an_unknown_that_nothing_measures_stays_where_it_is():
    equations = NormalEquations.zeros(torch.zeros(COUNT, 1, dtype=F64), 3)
    equations.add_some(0, torch.ones(COUNT, 2, dtype=F64), torch.randn(COUNT, 2, 2, dtype=F64))
    move, predicted, solved = equations.step(torch.full((COUNT,), 1e-3, dtype=F64), None)
    assert solved.all() and (predicted > 0).all()
    assert (move[:, :2] != 0).all() and (move[:, 2] == 0).all()


@pytest.mark.parametrize("penalty", ["huber", "geman_mcclure"])
def test_robust_weights_have_the_slope_of_the_penalty(penalty):
    residuals = torch.randn(COUNT, 6, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(robust_loss(residuals, penalty, 0.7, 2).sum(), residuals)
    weigh = robust_weights(penalty, 0.7, 2)
    torch.testing.assert_close(2 * weigh(residuals.detach()) * residuals.detach(), slope)
