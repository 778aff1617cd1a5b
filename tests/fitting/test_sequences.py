"""The equations of a sequence are those of one big least-squares problem, solved in time linear in its length."""

import time

import pytest
import torch
from physique.bodymodel import BodyModel, synthetic_model
from physique.fitting import NormalEquations, Status, fit_joints
from physique.fitting.normal_equations import Equations
from physique.fitting.sequences import ArrowEquations, Motion

F64 = torch.float64
OWN, SHARED, ROWS, POINTS = 5, 3, 12, 2
STENCILS = ((-1.0, 1.0), (1.0, -2.0, 1.0))


def made(count, length, stencil, seed=0):
    """Equations of random sequences, and their residuals and Jacobian row by row, unknowns (frame by frame, shared)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, dtype=F64, generator=generator)

    values, jacobian = draw(count * length, ROWS), draw(count * length, ROWS, OWN + SHARED)
    points, moves = draw(count * length, POINTS, 3), draw(count * length, POINTS, 3, OWN + SHARED)
    weight = draw(count, max(length - len(stencil) + 1, 0)).abs()
    arrow = ArrowEquations.of(NormalEquations.of(values, jacobian), count, [2, OWN - 2])
    if length >= len(stencil):
        arrow.add_motion(Motion(stencil, weight), points, moves)
    return arrow, values, jacobian, points.flatten(1), moves.flatten(1, 2), weight


def dense(sample, length, stencil, values, jacobian, points, moves, weight):
    """Return residuals and Jacobian of one sequence, written out."""
    rows, right = [], []

    def placed(block, frame):
        row = torch.zeros(len(block), length * OWN + SHARED, dtype=F64)
        row[:, frame * OWN : (frame + 1) * OWN] = block[:, :OWN]
        row[:, length * OWN :] = block[:, OWN:]
        return row

    for t in range(length):
        rows.append(placed(jacobian[sample * length + t], t))
        right.append(values[sample * length + t])
    for t in range(weight.shape[1] if length >= len(stencil) else 0):
        terms = [(factor * weight[sample, t], sample * length + t + k, t + k) for k, factor in enumerate(stencil)]
        rows.append(sum(factor * placed(moves[index], frame) for factor, index, frame in terms))
        right.append(sum(factor * points[index] for factor, index, _ in terms))
    return torch.cat(right), torch.cat(rows)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("stencil", STENCILS)
def test_the_step_is_that_of_the_dense_system(stencil, length):
    arrow, *parts = made(2, length, stencil)
    assert isinstance(arrow, Equations)
    damping = torch.tensor([0.3, 0.01], dtype=F64)
    step, predicted, solved = arrow.step(damping, None)
    assert solved.all()
    for sample in range(2):
        right, rows = dense(sample, length, stencil, *parts)
        matrix, slope = rows.mT @ rows, rows.mT @ right
        expected = -torch.linalg.solve(matrix + damping[sample] * torch.diag(matrix.diag()), slope)
        frames = expected[: length * OWN].view(length, OWN)
        by_name = torch.cat((frames[:, :2].flatten(), frames[:, 2:].flatten(), expected[length * OWN :]))
        torch.testing.assert_close(step[sample], by_name, atol=1e-8, rtol=0)
        fall = right.square().sum() - (right + rows @ expected).square().sum()
        torch.testing.assert_close(predicted[sample], fall, atol=1e-8, rtol=1e-8)


def test_sequences_are_taken_and_put_back_one_by_one():
    arrow, *_ = made(3, 4, STENCILS[1])
    damping = torch.full((3,), 0.1, dtype=F64)
    whole = arrow.step(damping, None)[0]
    torch.testing.assert_close(arrow.rows(torch.tensor([2])).step(damping[:1], None)[0], whole[2:], atol=1e-12, rtol=0)
    copy = arrow.like(3)
    for k in (1, 0, 2):
        copy.put(torch.tensor([k]), arrow.rows(torch.tensor([k])))
    torch.testing.assert_close(copy.step(damping, None)[0], whole)


def test_a_sequence_that_is_not_finite_changes_no_other():
    arrow, *_ = made(2, 4, STENCILS[0])
    damping = torch.full((2,), 0.1, dtype=F64)
    expected = arrow.step(damping, None)[0][1]
    arrow.slope = arrow.slope.clone()
    arrow.slope[0, 2, 1] = torch.nan
    assert arrow.finite().tolist() == [False, True]
    step, _, solved = arrow.step(damping, None)
    assert solved.tolist() == [False, True] and (step[0] == 0).all()
    torch.testing.assert_close(step[1], expected)


def test_bounds_are_refused():
    arrow, *_ = made(1, 2, STENCILS[0])
    room = torch.zeros(1, 2 * OWN + SHARED, dtype=F64)
    with pytest.raises(ValueError, match="bounds: expected none"):
        arrow.step(torch.ones(1, dtype=F64), (room, room))


def test_time_grows_with_the_length_and_not_with_its_square():
    def seconds(length):
        arrow, *_ = made(1, length, STENCILS[1])
        times = []
        for _ in range(3):
            start = time.process_time()
            arrow.step(torch.full((1,), 0.1, dtype=F64), None)
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(1600) < 8 * seconds(400)


def test_a_thousand_frames_are_one_fit():
    model, frames = BodyModel(synthetic_model("mano", num_vertices=60)), 1000
    phase = torch.linspace(0, 100, frames)
    pose = torch.zeros(frames, 15, 3)
    pose[:, ::3, 1], pose[:, 1::3, 0] = 0.4 * phase.sin().unsqueeze(-1), 0.3 * phase.cos().unsqueeze(-1)
    place = torch.stack((0.02 * phase.sin(), 0 * phase, 0 * phase), dim=-1)
    truth = model.joints(betas=torch.full((10,), 0.5), hand_pose=pose, transl=place)
    noisy = truth + 0.01 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    solution = fit_joints(model, noisy, sequence=True, steps=10)
    assert (solution.status != Status.INVALID).all()
    assert (solution.params["betas"] == solution.params["betas"][0]).all()
    error = (model.joints(**solution.params) - truth).norm(dim=-1).mean()
    assert error < 0.8 * (noisy - truth).norm(dim=-1).mean()
