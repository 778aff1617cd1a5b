"""Learning a dictionary, and lifting with it: exact where the answer is known, untouched by what is not given."""

import pytest
import torch
from physique.geometry import axis_angle_to_matrix, geodesic_angle
from physique.priors import PoseDictionary, learn_dictionary, sparse_codes
from physique.priors.dictionary_refinement import Problem, about_middle, camera_step, refine_cameras
from refusals import refuses
from scipy.optimize import lsq_linear, nnls

DOUBLE = torch.float64
POINTS = 10


def people(count=150, spread=0.15):
    """Return shapes (count, K, 3) in metres that vary about one in five directions, about their first point."""
    generator = torch.Generator().manual_seed(4)
    mean = torch.randn(POINTS, 3, generator=generator, dtype=DOUBLE) * torch.tensor([0.2, 0.5, 0.15], dtype=DOUBLE)
    modes = spread * torch.randn(5, POINTS, 3, generator=generator, dtype=DOUBLE)
    amounts = torch.randn(count, 5, generator=generator, dtype=DOUBLE)
    shapes = mean + torch.einsum("nr,rkx->nkx", amounts, modes)
    return shapes - shapes[:, :1]


@pytest.fixture(scope="module")
def dictionary():
    return PoseDictionary.learn(people(), 24, sparsity=0.002, rounds=15)


def upright_view(turn, tilt=0.1):
    about_x = axis_angle_to_matrix(torch.tensor([torch.pi + tilt, 0, 0], dtype=DOUBLE))
    return about_x @ axis_angle_to_matrix(torch.tensor([0, turn, 0], dtype=DOUBLE))


def test_codes_equal_non_negative_least_squares():
    design, target = torch.rand(6, 9, dtype=DOUBLE), torch.randn(4, 9, dtype=DOUBLE)
    codes = sparse_codes(target, design, 0.0, iterations=3000)
    for code, row in zip(codes, target, strict=True):
        torch.testing.assert_close(code, torch.tensor(nnls(design.T.numpy(), row.numpy())[0]), atol=1e-5, rtol=0)


def test_codes_meet_the_optimality_conditions_of_the_lasso():
    design, target = torch.randn(12, 9, dtype=DOUBLE), torch.randn(9, dtype=DOUBLE)
    codes = sparse_codes(target, design, 0.5, iterations=3000)
    slope = design @ (codes @ design - target) + 0.5
    assert 0 < (codes > 0).sum() < 12
    assert slope[codes > 0].abs().max() < 1e-6
    assert slope[codes == 0].min() > -1e-6
    each_its_own = sparse_codes(target, design.expand(3, -1, -1), 0.5, iterations=3000)
    torch.testing.assert_close(each_its_own, codes.expand(3, -1))


def test_learning_lowers_its_objective_and_depends_on_the_seed_alone():
    shapes = people()
    size = shapes.square().sum((-2, -1)).mean().sqrt()

    def objective(rounds, seed=0):
        torch.manual_seed(rounds)
        atoms = learn_dictionary(shapes, 12, sparsity=0.02, rounds=rounds, seed=seed).flatten(1) / size
        torch.testing.assert_close(atoms.norm(dim=-1), torch.ones(12, dtype=DOUBLE))
        codes = sparse_codes(shapes.flatten(1) / size, atoms, 0.02, iterations=500)
        return (0.5 * (shapes.flatten(1) / size - codes @ atoms).square().sum(-1) + 0.02 * codes.sum(-1)).mean()

    first, second, last = objective(0), objective(3), objective(20)
    assert last < second < 0.8 * first
    first, second = (learn_dictionary(shapes, 12, rounds=5, seed=3) for _ in range(2))
    assert first.equal(second)
    assert not first.equal(learn_dictionary(shapes, 12, rounds=5, seed=4))


def test_the_gaussian_is_that_of_the_poses(dictionary):
    shapes = people().flatten(1)
    modes = dictionary.modes.flatten(1)
    torch.testing.assert_close(dictionary.mean.flatten(), shapes.mean(0))
    torch.testing.assert_close(modes.mT @ modes, torch.cov(shapes.mT), atol=1e-9, rtol=0)


def problem_of(keypoints, dictionary, weight):
    share = weight / weight.sum(-1, keepdim=True)
    return Problem(
        about_middle(keypoints[:, None], weight, share),
        about_middle(dictionary.mean[None, None], weight, share),
        about_middle(dictionary.modes[None], weight, share)[:, None],
        torch.full((len(keypoints), 1), 8.0, dtype=DOUBLE),
        0.02,
        0.3,
    )


def test_the_camera_gradient_is_that_of_the_energy(dictionary):
    keypoints = torch.randn(2, POINTS, 2, dtype=DOUBLE)
    weight = torch.rand(2, POINTS, dtype=DOUBLE)
    problem = problem_of(keypoints, dictionary, weight)
    rotation = axis_angle_to_matrix(torch.randn(2, 3, 3, dtype=DOUBLE))
    log_size = 0.3 * torch.randn(2, 3, dtype=DOUBLE)
    move = torch.zeros(2, 3, 4, dtype=DOUBLE, requires_grad=True)
    moved = camera_step(problem, axis_angle_to_matrix(move[..., :3]) @ rotation, log_size + move[..., 3])
    (gradient,) = torch.autograd.grad(moved.energy.sum(), move)
    torch.testing.assert_close(moved.gradient, gradient)


def test_the_energy_is_the_least_over_all_shapes(dictionary):
    # What the closed form leaves out of the image and of the Gaussian, as one dense least-squares problem.
    keypoints, weight = torch.randn(1, POINTS, 2, dtype=DOUBLE), torch.rand(1, POINTS, dtype=DOUBLE)
    problem = problem_of(keypoints, dictionary, weight)
    rotation = upright_view(0.7)
    step = camera_step(problem, rotation[None, None], torch.zeros(1, 1, dtype=DOUBLE))
    drawn = (problem.modes[0, 0] @ rotation[:2].mT).flatten(1).mT / 0.02
    off = (problem.image[0, 0] - problem.mean[0, 0] @ rotation[:2].mT).flatten() / 0.02
    count = drawn.shape[1]
    rows = torch.cat((drawn, torch.eye(count, dtype=DOUBLE)))
    solved = lsq_linear(rows.numpy(), torch.cat((off, torch.zeros(count, dtype=DOUBLE))).numpy())
    lean = (rotation[:, 1] - torch.tensor([0.0, -1.0, 0.0], dtype=DOUBLE)) / 0.3
    assert step.energy.item() == pytest.approx(solved.cost + 0.5 * float(lean @ lean), rel=1e-9)


def test_refinement_never_raises_the_energy(dictionary):
    keypoints, weight = torch.randn(3, POINTS, 2, dtype=DOUBLE), torch.ones(3, POINTS, dtype=DOUBLE)
    problem = problem_of(keypoints, dictionary, weight)
    start = axis_angle_to_matrix(torch.randn(3, 4, 3, dtype=DOUBLE))
    energies = torch.stack([refine_cameras(problem, start, steps)[2] for steps in (0, 2, 8)])
    spread = camera_step(problem, start, torch.zeros(3, 4, dtype=DOUBLE)).spread
    assert spread.isfinite().all()
    assert (energies[2] < energies[0]).all()


@pytest.mark.parametrize("turn", [0.4, 2.0, -1.2])
def test_a_sum_of_atoms_is_recovered_from_one_view(dictionary, turn):
    generator = torch.Generator().manual_seed(1)
    shape = people(40)[torch.randint(40, (1,), generator=generator)].squeeze(0)
    rotation = upright_view(turn)
    keypoints = 130 * (shape @ rotation[:2].mT) + torch.tensor([90.0, 110.0], dtype=DOUBLE)
    lifted = dictionary.lift(keypoints, noise=1e-3)
    assert (lifted.coefficients >= 0).all()
    assert geodesic_angle(lifted.rotation, rotation).item() < 0.1
    assert lifted.scale.item() == pytest.approx(130, rel=0.1)
    torch.testing.assert_close(lifted.translation, keypoints[0], atol=2.0, rtol=0)
    truth = shape @ rotation.mT
    error = (lifted.points / 130 - truth).norm(dim=-1).mean()
    flat = truth[:, 2].abs().mean()
    assert error < 0.03 < 0.15 * flat + 0.03
    torch.testing.assert_close(lifted.in_metres(), lifted.points / lifted.scale)
    expected = (lifted.coefficients @ dictionary.basis.flatten(1)).unflatten(-1, (POINTS, 3)) @ lifted.rotation.mT
    torch.testing.assert_close(lifted.in_metres(), expected)


def test_samples_are_independent_and_batches_of_any_shape(dictionary):
    keypoints = 100 * people(6)[..., :2] * torch.tensor([1.0, -1.0], dtype=DOUBLE)
    together = dictionary.lift(keypoints.unflatten(0, (2, 3)))
    alone = dictionary.lift(keypoints[4])
    for part, whole in zip(alone, together, strict=True):
        assert whole.shape[:2] == (2, 3)
        torch.testing.assert_close(whole[1, 1], part, atol=1e-6, rtol=1e-6)
    assert dictionary(keypoints[:0]).shape == (0, POINTS, 3)
    spoilt = keypoints.clone()
    spoilt[0] = torch.nan
    torch.testing.assert_close(dictionary(spoilt)[1:], together.points.flatten(0, 1)[1:], atol=1e-6, rtol=1e-6)


def test_hidden_keypoints_are_not_read_and_filled_in(dictionary):
    shape, rotation = people(3)[2], upright_view(0.5)
    keypoints = 100 * (shape @ rotation[:2].mT)
    weight = torch.ones(POINTS, dtype=DOUBLE)
    weight[4] = 0
    hidden = keypoints.clone()
    hidden[4] = torch.nan
    lifted, other = dictionary.lift(keypoints, weight), dictionary.lift(hidden, weight)
    for part, same in zip(lifted, other, strict=True):
        torch.testing.assert_close(part, same)
    guess = (lifted.points[4, :2] + lifted.translation - keypoints[4]).norm() / 100
    assert guess < 0.5 * (100 * dictionary.mean[4] - 100 * shape[4]).norm()
    nothing = dictionary.lift(hidden, torch.zeros(POINTS, dtype=DOUBLE))
    assert all(part.isfinite().all() for part in nothing)


def test_single_precision_agrees_with_double(dictionary):
    keypoints = 100 * people(5)[..., :2] * torch.tensor([1.0, -1.0], dtype=DOUBLE)
    single = PoseDictionary(24, POINTS)
    single.load_state_dict(dictionary.state_dict())
    torch.testing.assert_close(single(keypoints.float()).double(), dictionary(keypoints), atol=1.0, rtol=0)


def test_wrong_arguments_are_refused_by_name(dictionary):
    with refuses("keypoints"):
        dictionary.lift(torch.zeros(POINTS + 1, 2))
    with refuses("confidence"):
        dictionary.lift(torch.zeros(POINTS, 2), torch.ones(3))
    with refuses("num_atoms"):
        PoseDictionary.learn(people(5), 6)
    with refuses("points"):
        learn_dictionary(torch.zeros(4, 3), 2)
