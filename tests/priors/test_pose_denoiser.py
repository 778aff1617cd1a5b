"""The denoiser: what it is told is missing never reaches it, and it learns to repair and to lift."""

import pytest
import torch
from physique.priors import PoseDenoiser
from refusals import refuses
from torch import nn

POINTS = 14


def trained(dtype=torch.float64, **arguments):
    """Return a denoiser in evaluation mode with weights and statistics as after some training."""
    torch.manual_seed(1)
    denoiser = PoseDenoiser(**{"width": 32, **arguments}).to(dtype)
    for module in denoiser.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    nn.init.normal_(denoiser.correction.weight, std=0.1)
    return denoiser.eval()


def people(*batch, dtype=torch.float64):
    return 0.4 * torch.randn(*batch, POINTS, 3, dtype=dtype) + 2.0


def test_a_fresh_network_changes_nothing_and_puts_missing_points_in_the_middle():
    denoiser = PoseDenoiser(width=32).double().eval()
    points = people(5)
    torch.testing.assert_close(denoiser.denoise(points), points)
    mask = torch.ones(POINTS, dtype=torch.bool)
    mask[3:6] = False
    repaired = denoiser.denoise(points, mask)
    torch.testing.assert_close(repaired[:, mask], points[:, mask])
    torch.testing.assert_close(repaired[:, 4], points[:, mask].mean(1))
    lifted = denoiser.lift(points[..., :2])
    hips = points[:, 2:4, :2].mean(1, keepdim=True)
    torch.testing.assert_close(lifted[..., :2], points[..., :2] - hips)
    assert (lifted[..., 2] == 0).all()


def test_what_is_missing_is_not_read():
    denoiser, points = trained(), people(6)
    mask = torch.rand(6, POINTS) > 0.3
    expected = denoiser.denoise(torch.where(mask[..., None], points, 0), mask)
    assert not torch.allclose(expected, denoiser.denoise(points))
    for other in (torch.nan, torch.inf, 1e30):
        spoilt = torch.where(mask[..., None], points, other).requires_grad_()
        repaired = denoiser.denoise(spoilt, mask)
        assert repaired.equal(expected)
        (gradient,) = torch.autograd.grad(repaired.square().sum(), spoilt)
        assert (gradient[~mask] == 0).all() and gradient.isfinite().all()
        keypoints = spoilt.detach()[..., :2]
        assert denoiser.lift(keypoints, mask.double()).equal(denoiser.lift(points[..., :2], mask.double()))


def test_the_energy_is_the_squared_distance_that_given_points_are_moved():
    denoiser, points = trained(), people(4)
    mask = torch.ones(4, POINTS, dtype=torch.bool)
    mask[0, 3], points[1, 5] = False, torch.nan
    spoilt = points.clone().requires_grad_()
    moved = (denoiser.denoise(points, mask) - points).square().sum(-1)
    given = mask & points.isfinite().all(-1)
    energy = denoiser.energy(spoilt, mask)
    torch.testing.assert_close(energy, torch.where(given, moved, 0).sum(-1))
    (gradient,) = torch.autograd.grad(energy.sum(), spoilt)
    assert gradient.isfinite().all() and (gradient[~given] == 0).all()
    fresh = PoseDenoiser(width=32).double().eval()
    torch.testing.assert_close(fresh.energy(people(3)), torch.zeros(3, dtype=torch.float64))


def test_a_point_that_is_not_finite_is_missing():
    denoiser, points = trained(), people(4)
    mask = torch.ones(4, POINTS, dtype=torch.bool)
    mask[1, 5] = False
    spoilt = points.clone()
    spoilt[1, 5, 2] = torch.nan
    assert denoiser.denoise(spoilt).equal(denoiser.denoise(points, mask))


def test_unit_and_place_of_the_input_are_those_of_the_output():
    denoiser, points = trained(), people(5)
    place = torch.tensor([100.0, -50.0, 7.0], dtype=torch.float64)
    torch.testing.assert_close(denoiser.denoise(300 * points + place), 300 * denoiser.denoise(points) + place)
    keypoints = points[..., :2]
    torch.testing.assert_close(denoiser.lift(300 * keypoints + place[:2]), 300 * denoiser.lift(keypoints))


def test_lifted_points_are_about_the_root():
    denoiser = trained(root=(0, 4, 6))
    lifted = denoiser.lift(people(3)[..., :2])
    torch.testing.assert_close(lifted[:, [0, 4, 6]].mean(1), torch.zeros(3, 3, dtype=torch.float64))
    assert denoiser(people(3)[..., :2]).shape == (3, POINTS, 3)


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
def test_any_batch_and_one_sample_alone(batch):
    denoiser, points = trained(), people(*batch)
    mask = torch.rand(*batch, POINTS) > 0.2
    assert denoiser.denoise(points, mask).shape == (*batch, POINTS, 3)
    assert denoiser.lift(points[..., :2], mask.double()).shape == (*batch, POINTS, 3)
    if batch == (2, 3):
        torch.testing.assert_close(denoiser.denoise(points, mask)[1, 2], denoiser.denoise(points[1, 2], mask[1, 2]))
        shared = denoiser.denoise(points, mask[0, 0])
        torch.testing.assert_close(shared[1, 1], denoiser.denoise(points[1, 1], mask[0, 0]))


def test_one_point_and_none_are_finite():
    denoiser, points = trained(), people().requires_grad_()
    mask = torch.zeros(POINTS, dtype=torch.bool)
    for count in (0, 1):
        mask[:count] = True
        repaired = denoiser.denoise(points, mask)
        (gradient,) = torch.autograd.grad(repaired.sum(), points)
        assert repaired.isfinite().all() and gradient.isfinite().all()


def test_gradients_reach_every_parameter():
    denoiser = trained(dtype=torch.float32).train()
    denoiser.denoise(people(8, dtype=torch.float32)).square().sum().backward()
    for name, parameter in denoiser.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # A shift before the normalisation of a batch is taken off again.
        shift = name.endswith(".0.bias") or ".0.bias" in name
        assert shift or parameter.grad.abs().max() > 0, name


def test_training_is_determined_by_its_seed_and_lowers_the_error():
    def train():
        torch.manual_seed(3)
        denoiser = PoseDenoiser(width=64, dropout=0.0)
        optimiser = torch.optim.Adam(denoiser.parameters(), lr=3e-3)
        directions = torch.randn(2, POINTS, 3)
        for _ in range(100):
            truth = torch.einsum("nr,rkx->nkx", torch.randn(64, 2), directions)
            mask = torch.rand(64, POINTS) > 0.2
            error = denoiser.denoise(truth + 0.1 * torch.randn_like(truth), mask) - truth
            optimiser.zero_grad()
            error.norm(dim=-1).mean().backward()
            optimiser.step()
        truth = torch.einsum("nr,rkx->nkx", torch.randn(200, 2), directions)
        mask = torch.rand(200, POINTS) > 0.2
        noisy = truth + 0.1 * torch.randn_like(truth)
        with torch.no_grad():
            after = (denoiser.eval().denoise(noisy, mask) - truth).norm(dim=-1).mean()
        before = (torch.where(mask[..., None], noisy, 0) - truth).norm(dim=-1).mean()
        return before, after, denoiser

    before, after, first = train()
    second = train()[2]
    assert after < 0.7 * before
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert one.equal(other)


def test_the_state_is_all_that_is_needed():
    denoiser = trained(dtype=torch.float32)
    copy = PoseDenoiser(width=32).eval()
    copy.load_state_dict(denoiser.state_dict())
    points = people(3, dtype=torch.float32)
    assert copy.denoise(points).equal(denoiser.denoise(points))
    assert (denoiser.num_points, denoiser.width, denoiser.dropout, denoiser.root) == (14, 32, 0.2, (2, 3))


def test_wrong_arguments_are_refused_by_name():
    denoiser = trained()
    with refuses("points"):
        denoiser.denoise(torch.zeros(13, 3))
    with refuses("mask"):
        denoiser.denoise(torch.zeros(14, 3), torch.ones(13, dtype=torch.bool))
    with refuses("keypoints"):
        denoiser.lift(torch.zeros(14, 3))
    with refuses("confidence"):
        denoiser.lift(torch.zeros(14, 2), torch.ones(13))
    with refuses("root"):
        PoseDenoiser(root=(14,))
