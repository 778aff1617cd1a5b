"""Levenberg-Marquardt finds what scipy finds, on the manifold and within bounds, each sample for itself."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from physique.fitting import Status, least_squares, tangent_jacobian
from physique.fitting.tangent import left_turns
from physique.geometry import axis_angle_to_matrix, geodesic_angle, matrix_to_axis_angle
from physique.losses import penalise
from refusals import refuses
from scipy.optimize import least_squares as scipy_least_squares

F64 = torch.float64
SCIPY_LOSS = {
    "l2": ("linear", 2),
    "huber": ("huber", 1),
    "geman_mcclure": (lambda z: np.stack((z / (1 + z), 1 / (1 + z) ** 2, -2 / (1 + z) ** 3)), 2),
}


def bent(params, data):
    """Residuals that bend a little, so that there is one minimum."""
    return torch.tanh(0.3 * (data["mix"] @ params["x"].unsqueeze(-1)).squeeze(-1)) - 0.3 * data["target"]


def bent_problems(count=6, R=12, D=4):
    data = {"mix": torch.randn(count, R, D, dtype=F64), "target": torch.randn(count, R, dtype=F64)}
    return data, {"x": torch.zeros(count, D, dtype=F64)}


def slice_of(data, keep):
    return {name: value[keep] for name, value in data.items()}


@pytest.mark.parametrize("bounds", [None, (-0.3, 0.2)])
@pytest.mark.parametrize("penalty", ["l2", "huber", "geman_mcclure"])
def test_it_finds_what_scipy_finds(penalty, bounds):
    data, start = bent_problems()
    box = None if bounds is None else {"x": bounds}
    solution = least_squares(bent, start, data=data, penalty=penalty, sigma=0.5, bounds=box, steps=100, tolerance=1e-12)
    assert (solution.status == Status.CONVERGED).all()
    loss, factor = SCIPY_LOSS[penalty]
    for i in range(len(start["x"])):
        one = slice_of(data, [i])
        found = scipy_least_squares(
            lambda x, one=one: bent({"x": torch.from_numpy(x)[None]}, one)[0].numpy(),
            np.zeros(4),
            loss=loss,
            f_scale=0.5,
            bounds=bounds or (-np.inf, np.inf),
            xtol=1e-14,
            ftol=1e-14,
            gtol=1e-14,
        )
        np.testing.assert_allclose(solution.params["x"][i].numpy(), found.x, atol=1e-5)
        np.testing.assert_allclose(solution.loss[i].item(), factor * found.cost, rtol=1e-9)


def test_rosenbrocks_valley_is_followed_to_its_end():
    def residual(p):
        return torch.stack((10 * (p["y"] - p["x"].square()), 1 - p["x"]), dim=-1)

    start = {"x": torch.tensor([-1.2, 3.0], dtype=F64), "y": torch.tensor([1.0, -5.0], dtype=F64)}
    solution = least_squares(residual, start, steps=60)
    torch.testing.assert_close(solution.params["x"], torch.ones(2, dtype=F64), atol=1e-9, rtol=0)
    assert (solution.status == Status.CONVERGED).all()


def test_every_accepted_step_lowers_the_loss():
    data, start = bent_problems()
    solution = least_squares(bent, start, data=data, damping=1e-9)
    assert (solution.history[1:] <= solution.history[:-1]).all()
    torch.testing.assert_close(solution.history[-1], solution.loss)
    torch.testing.assert_close(solution.loss, bent(solution.params, data).square().sum(-1))


def test_a_good_analytic_jacobian_changes_nothing():
    data, start = bent_problems()

    def jacobian(params, data):
        values = bent(params, data)
        slope = 1 - (values + 0.3 * data["target"]).square()
        return values, 0.3 * slope.unsqueeze(-1) * data["mix"]

    given = least_squares(bent, start, data=data, jacobian=jacobian)
    derived = least_squares(bent, start, data=data)
    torch.testing.assert_close(given.params, derived.params)
    with refuses("jacobian"):
        least_squares(bent, start, data=data, jacobian=lambda p, d: (bent(p, d), d["mix"][..., :1]))


class Scan(NamedTuple):
    """Points before and after a rotation."""

    source: torch.Tensor
    target: torch.Tensor


def turned(params, scan):
    rotation = axis_angle_to_matrix(params["turn"])
    return (scan.source @ rotation.mT + params["shift"].unsqueeze(-2) - scan.target).flatten(-2)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1.0, 3.0, torch.pi - 1e-9, torch.pi])
def test_rotations_are_found_from_any_start_across_half_a_turn(angle):
    axis = torch.tensor([0.6, 0.0, 0.8], dtype=F64)
    truth = axis_angle_to_matrix(angle * axis)
    source = torch.randn(8, 10, 3, dtype=F64)
    scan = Scan(source, source @ truth.mT + 0.5)
    away = torch.nn.functional.normalize(torch.randn(8, 3, dtype=F64), dim=-1) * torch.linspace(0, 2.5, 8)[:, None]
    start = matrix_to_axis_angle(truth @ axis_angle_to_matrix(away.to(F64)))
    solution = least_squares(
        turned, {"turn": start, "shift": torch.zeros(8, 3, dtype=F64)}, data=scan, rotations=("turn",), steps=50
    )
    assert solution.loss.max() < 1e-18
    assert (axis_angle_to_matrix(solution.params["turn"]) - truth).abs().max() < 1e-8
    assert (solution.params["turn"].norm(dim=-1) <= torch.pi + 1e-12).all()


def test_a_start_of_more_than_half_a_turn_comes_back_shorter():
    source = torch.randn(10, 3, dtype=F64)
    long = torch.tensor([0.0, 6.0, 0.0], dtype=F64)
    start = {"turn": long, "shift": torch.zeros(3, dtype=F64)}
    solution = least_squares(lambda p: turned(p, Scan(source, source)), start, rotations=("turn",))
    torch.testing.assert_close(solution.params["turn"], torch.zeros(3, dtype=F64), atol=1e-9, rtol=0)


@pytest.mark.parametrize("length", [0.0, 1e-7, 1e-3, 0.5, 2.0, torch.pi, 4.0, 6.0])
def test_left_turns_are_the_derivative_of_the_composed_rotation(length):
    vector = length * torch.tensor([0.48, -0.6, 0.64], dtype=F64)
    jacobian = torch.func.jacfwd(lambda d: axis_angle_to_matrix(vector + left_turns(vector) @ d))(
        torch.zeros(3, dtype=F64)
    )
    expected = torch.func.jacfwd(lambda d: axis_angle_to_matrix(d) @ axis_angle_to_matrix(vector))(
        torch.zeros(3, dtype=F64)
    )
    torch.testing.assert_close(jacobian, expected, atol=1e-9, rtol=0)


def test_the_tangent_jacobian_is_that_of_small_left_turns_and_shifts():
    scan = Scan(torch.randn(2, 4, 3, dtype=F64), torch.randn(2, 4, 3, dtype=F64))
    params = {"shift": torch.randn(2, 3, dtype=F64), "turn": torch.randn(2, 3, dtype=F64)}
    values, jacobian = tangent_jacobian(lambda p: turned(p, scan), params, ("turn",))
    torch.testing.assert_close(values, turned(params, scan))
    step = 1e-6
    for column in range(6):
        ends = []
        for sign in (1, -1):
            move = torch.zeros(6, dtype=F64)
            move[column] = sign * step
            rotation = axis_angle_to_matrix(move[3:]) @ axis_angle_to_matrix(params["turn"])
            ends.append(turned({"shift": params["shift"] + move[:3], "turn": matrix_to_axis_angle(rotation)}, scan))
        torch.testing.assert_close(jacobian[..., column], (ends[0] - ends[1]) / (2 * step), atol=1e-7, rtol=0)


BAD = ("nan", "infinite", "singular", "far")


@pytest.mark.parametrize("with_data", [True, False])
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_sample_never_changes_the_others(kind, with_data):
    data, start = bent_problems()
    spoilt = {name: value.clone() for name, value in data.items()}
    if kind == "singular":
        spoilt["mix"][2] = 0
    elif kind == "far":
        spoilt["target"][2] = 1e100
    else:
        spoilt["target"][2, 0] = float(kind[:3])
    others = [0, 1, 3, 4, 5]

    def solve(data):
        if with_data:
            return least_squares(bent, start, data=data)
        return least_squares(lambda p: bent(p, data), start)

    good, bad = solve(data), solve(spoilt)
    torch.testing.assert_close(
        bad.params["x"][others], good.params["x"][others], rtol=0, atol=0 if not with_data else 1e-12
    )
    torch.testing.assert_close(bad.status[others], good.status[others])
    assert bad.params["x"].isfinite().all()
    if kind in ("nan", "infinite"):
        assert bad.status[2] == Status.INVALID
        assert torch.equal(bad.params["x"][2], start["x"][2])


def test_a_sample_whose_jacobian_is_not_finite_comes_back_as_it_was():
    start = {"x": torch.tensor([[0.0], [1.0]], dtype=F64)}
    solution = least_squares(lambda p: p["x"].sqrt() - 2, start)
    assert solution.status.tolist() == [Status.INVALID, Status.CONVERGED]
    torch.testing.assert_close(solution.params["x"], torch.tensor([[0.0], [4.0]], dtype=F64))


def test_steps_into_forbidden_ground_are_taken_back():
    solution = least_squares(lambda p: p["x"].log(), {"x": torch.tensor([[9.0], [1e-3]], dtype=F64)}, steps=60)
    torch.testing.assert_close(solution.params["x"], torch.ones(2, 1, dtype=F64))


def test_samples_that_are_done_are_dropped():
    sizes = []

    def residual(params, data):
        sizes.append(len(params["x"]))
        return bent(params, data)

    data, start = bent_problems()
    start["x"][0] = least_squares(bent, start, data=data, tolerance=1e-14).params["x"][0]
    least_squares(residual, start, data=data)
    assert sizes[0] == 6 and sizes[-1] < 6


def test_outliers_lose_their_pull_and_groups_are_judged_by_length():
    source = torch.randn(30, 3, dtype=F64)
    truth = axis_angle_to_matrix(torch.tensor([0.3, -0.4, 0.2], dtype=F64))
    target = source @ truth.mT
    target[:6] += torch.tensor([3.0, 0.0, -4.0], dtype=F64)
    start = {"turn": torch.zeros(3, dtype=F64), "shift": torch.zeros(3, dtype=F64)}

    def solve(**options):
        solution = least_squares(lambda p: turned(p, Scan(source, target)), start, rotations=("turn",), **options)
        return geodesic_angle(axis_angle_to_matrix(solution.params["turn"]), truth), solution

    squared, _ = solve()
    robust, solution = solve(penalty="geman_mcclure", sigma=0.2, group=3, steps=100)
    assert robust < 1e-3 < squared
    lengths = turned(solution.params, Scan(source, target)).unflatten(-1, (-1, 3)).norm(dim=-1)
    torch.testing.assert_close(solution.loss, penalise(lengths, "geman_mcclure", 0.2).sum())


def test_an_infinite_sigma_leaves_a_residual_squared():
    data, start = bent_problems()
    squared = least_squares(bent, start, data=data)
    robust = least_squares(
        bent, start, data=data, penalty="geman_mcclure", sigma=torch.full((12,), torch.inf, dtype=F64)
    )
    torch.testing.assert_close(robust.params, squared.params)
    torch.testing.assert_close(robust.loss, squared.loss)


def test_bounds_by_name_and_number_hold_and_move_the_start_inside():
    start = {"x": torch.full((3, 2), 5.0, dtype=F64), "y": torch.zeros(3, dtype=F64)}

    def residual(p):
        return torch.cat((p["x"] - torch.tensor([0.0, 4.0], dtype=F64), (p["y"] - 2).unsqueeze(-1)), dim=-1)

    upper = torch.tensor([3.0, 3.0], dtype=F64)
    solution = least_squares(residual, start, bounds={"x": (1.0, upper), "y": (None, None)})
    torch.testing.assert_close(solution.params["x"], torch.tensor([[1.0, 3.0]], dtype=F64).expand(3, 2))
    torch.testing.assert_close(solution.params["y"], torch.full((3,), 2.0, dtype=F64))
    assert (solution.status == Status.CONVERGED).all()


@pytest.mark.parametrize("with_data", [True, False])
@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
def test_any_batch(batch, with_data):
    data = {"mix": torch.randn(*batch, 12, 4, dtype=F64), "target": torch.randn(*batch, 12, dtype=F64)}
    start = {"x": torch.zeros(*batch, 4, dtype=F64)}
    if with_data:
        solution = least_squares(bent, start, data=data)
    else:
        solution = least_squares(lambda p: bent(p, data), start)
    assert solution.params["x"].shape == (*batch, 4)
    assert solution.loss.shape == solution.status.shape == solution.history.shape[1:] == batch
    assert (solution.status == Status.CONVERGED).all()


def test_single_precision_settles():
    data, start = bent_problems(count=20)
    exact = least_squares(bent, start, data=data)
    data, start = ({name: value.float() for name, value in tensors.items()} for tensors in (data, start))
    rough = least_squares(bent, start, data=data)
    assert rough.params["x"].dtype == torch.float32
    assert (rough.status == Status.CONVERGED).all()
    torch.testing.assert_close(rough.params["x"].double(), exact.params["x"], atol=2e-3, rtol=0)


def test_the_start_is_not_modified_and_no_step_returns_it():
    data, start = bent_problems()
    before = start["x"].clone()
    assert torch.equal(least_squares(bent, start, data=data, steps=0).params["x"], before)
    least_squares(bent, start, data=data)
    assert torch.equal(start["x"], before)


def test_the_callback_sees_every_step_and_running_out_is_an_error_on_demand():
    seen = []
    data, start = bent_problems()
    solution = least_squares(
        bent, start, data=data, steps=2, callback=lambda step, loss: seen.append((step, loss.shape))
    )
    assert seen == [(1, (6,)), (2, (6,))]
    assert solution.steps == 2
    with pytest.raises(ValueError, match="MAX_STEPS"):
        least_squares(bent, start, data=data, steps=1, tolerance=0.0, throw=True)


def test_no_gradient_flows_into_the_solve():
    data, start = bent_problems()
    start["x"].requires_grad_(True)
    assert not least_squares(bent, start, data=data).params["x"].requires_grad


def test_what_does_not_fit_is_refused():
    data, start = bent_problems()
    with refuses("params"):
        least_squares(bent, {}, data=data)
    with refuses("x"):
        least_squares(lambda p: p["x"].mT, start)
    with refuses("data"):
        least_squares(bent, start, data=slice_of(data, slice(0, 1)))
    with refuses("data", TypeError):
        least_squares(bent, start, data={**data, "name": "walk"})
    with refuses("rotations"):
        least_squares(bent, start, data=data, rotations=("x",))
    with refuses("penalty"):
        least_squares(bent, start, data=data, penalty="l1")
    with refuses("group"):
        least_squares(bent, start, data=data, group=5)
    with refuses("sigma"):
        least_squares(bent, start, data=data, penalty="huber", sigma=torch.ones(3))
    for box in ({"z": (0, 1)}, {"x": (1, 0)}, {"x": (torch.zeros(3), None)}):
        with refuses("bounds"):
            least_squares(bent, start, data=data, bounds=box)
