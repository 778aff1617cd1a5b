"""Samples are minimised each for itself, and a bad one never touches another."""

import pytest
import torch
from physique.fitting import Status, minimise
from refusals import refuses


def bowl(centre):
    return lambda params: (params["x"] - centre).square().sum(-1)


def test_a_quadratic_is_minimised_for_every_sample():
    centre = torch.tensor([[1.0, -2.0], [0.3, 0.1], [-4.0, 5.0]], dtype=torch.float64)
    solution = minimise(bowl(centre), {"x": torch.zeros(3, 2, dtype=torch.float64)}, steps=800, tolerance=1e-12)
    torch.testing.assert_close(solution.params["x"], centre, atol=1e-4, rtol=0)
    torch.testing.assert_close(solution.loss, bowl(centre)(solution.params))


def test_the_first_step_of_adam_has_the_length_of_the_learning_rate():
    start = {"x": torch.zeros(2, dtype=torch.float64), "y": torch.ones(2, dtype=torch.float64)}
    solution = minimise(
        lambda p: (p["x"] - 5).square() + (p["y"] + 5).square(), start, steps=1, lr={"x": 0.2, "y": 0.03}
    )
    torch.testing.assert_close(solution.params["x"], torch.full((2,), 0.2, dtype=torch.float64))
    torch.testing.assert_close(solution.params["y"], torch.full((2,), 0.97, dtype=torch.float64))


def test_the_schedule_scales_each_step():
    visited = []
    solution = minimise(
        lambda p: _record(visited, p["x"]), {"x": torch.tensor(0.0)}, steps=3, schedule=lambda t: float(t < 0.4)
    )
    assert visited == pytest.approx([0.0, -0.1, -0.1, -0.1])
    assert solution.steps == 3


def _record(visited, value):
    visited.append(value.item())
    return value * 1.0


def test_a_sample_without_a_finite_loss_stands_still_and_the_others_go_on():
    centre = torch.tensor([[1.0, 1.0], [float("nan"), 1.0], [2.0, -1.0]])
    start = {"x": torch.zeros(3, 2)}
    together = minimise(bowl(centre), start, steps=100)
    alone = minimise(bowl(centre[[0, 2]]), {"x": torch.zeros(2, 2)}, steps=100)
    assert together.status.tolist()[1] == Status.INVALID
    torch.testing.assert_close(together.params["x"][1], torch.zeros(2))
    assert torch.equal(together.params["x"][[0, 2]], alone.params["x"])


def test_a_sample_that_turns_bad_returns_the_best_point_it_visited():
    def loss(params):
        x = params["x"]
        return torch.where(x > 0.35, torch.full_like(x, float("nan")), -x)

    solution = minimise(loss, {"x": torch.zeros(2)}, steps=20)
    assert solution.params["x"].isfinite().all()
    torch.testing.assert_close(solution.params["x"], torch.full((2,), 0.3), atol=1e-4, rtol=0)


def test_the_result_is_the_lowest_loss_ever_seen():
    solution = minimise(bowl(torch.tensor([0.05, 0.05])), {"x": torch.zeros(1, 2)}, steps=40, lr=1.0)
    assert solution.loss.item() == solution.history.min().item()


def test_it_stops_when_every_sample_has_settled():
    solution = minimise(bowl(torch.ones(4, 1)), {"x": torch.ones(4, 1)}, steps=1000)
    assert solution.steps < 100
    assert (solution.status == Status.CONVERGED).all()


def test_running_out_of_steps_is_a_status_and_an_error_on_demand():
    def far(params):
        return (params["x"] - 1e3).square().sum(-1)

    assert (minimise(far, {"x": torch.zeros(2, 1)}, steps=30).status == Status.MAX_STEPS).all()
    with pytest.raises(ValueError, match="2 MAX_STEPS"):
        minimise(far, {"x": torch.zeros(2, 1)}, steps=30, throw=True)


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
def test_any_batch(batch):
    solution = minimise(bowl(1.0), {"x": torch.zeros(*batch, 2), "unused": torch.zeros(batch)}, steps=5)
    assert solution.params["x"].shape == (*batch, 2)
    assert solution.loss.shape == solution.status.shape == batch
    assert solution.history.shape[1:] == batch


def test_the_start_is_not_modified_and_no_step_returns_it():
    start = {"x": torch.full((2, 1), 3.0)}
    solution = minimise(bowl(0.0), start, steps=0)
    assert torch.equal(solution.params["x"], start["x"])
    minimise(bowl(0.0), start, steps=3)
    assert torch.equal(start["x"], torch.full((2, 1), 3.0))


def test_it_works_where_gradients_are_off():
    with torch.no_grad():
        assert minimise(bowl(0.0), {"x": torch.ones(1, 1)}, steps=5).loss < 1


def test_the_callback_sees_every_step():
    seen = []
    minimise(bowl(0.0), {"x": torch.ones(2, 1)}, steps=4, callback=lambda step, loss: seen.append((step, loss.shape)))
    assert seen == [(step, (2,)) for step in (1, 2, 3, 4)]


def test_a_reduced_loss_is_refused():
    with refuses("loss"):
        minimise(lambda p: p["x"].square().sum(-1), {"x": torch.zeros(3, 2), "y": torch.zeros(2)}, steps=1)
    with refuses("params"):
        minimise(lambda p: torch.zeros(()), {}, steps=1)
