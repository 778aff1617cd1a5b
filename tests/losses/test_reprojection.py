"""The reprojection loss: a weighted mean that unseen keypoints cannot touch."""

import math

import pytest
import torch
from physique.losses import reprojection_loss
from refusals import refuses
from torch.testing import assert_close

PENALTIES = {
    "l1": lambda r, sigma: abs(r),
    "l2": lambda r, sigma: r * r,
    "huber": lambda r, sigma: r * r / 2 if abs(r) <= sigma else sigma * (abs(r) - sigma / 2),
    "geman_mcclure": lambda r, sigma: sigma**2 * r**2 / (sigma**2 + r**2),
}
DOUBLE = torch.float64


@pytest.fixture
def sample():
    projected, keypoints = 30 * torch.randn(2, 4, 9, 2, dtype=DOUBLE)
    confidence = torch.rand(4, 9, dtype=DOUBLE)
    confidence[:, ::4] = 0
    return projected, keypoints, confidence


@pytest.mark.parametrize("penalty", PENALTIES)
def test_loss_is_the_confidence_weighted_mean(sample, penalty):
    rho, sigma = PENALTIES[penalty], 20.0
    expected = []
    for projected, keypoints, confidence in zip(*(t.tolist() for t in sample), strict=True):
        terms = [
            c * sum(rho(a - b, sigma) for a, b in zip(p, q, strict=True))
            for p, q, c in zip(projected, keypoints, confidence, strict=True)
        ]
        expected.append(sum(terms) / sum(confidence))
    assert_close(reprojection_loss(*sample, penalty=penalty, sigma=sigma), torch.tensor(expected, dtype=DOUBLE))


def test_l1_with_visibility_is_hmrs_mean_over_visible_points(sample):
    projected, keypoints, confidence = sample
    visible = confidence > 0
    got = reprojection_loss(projected, keypoints, visible.double())
    assert_close(got[0], (projected - keypoints)[0][visible[0]].abs().sum(-1).mean())


@pytest.mark.parametrize("penalty", PENALTIES)
def test_unseen_keypoints_have_no_say_even_as_nan(sample, penalty):
    projected, keypoints, confidence = sample
    broken = torch.where((confidence > 0)[..., None], keypoints, torch.nan)
    leaves = [leaf.clone().requires_grad_() for leaf in (projected, broken, confidence)]
    loss = reprojection_loss(*leaves, penalty=penalty)
    assert_close(loss, reprojection_loss(*sample, penalty=penalty))
    first = torch.autograd.grad(loss.sum(), leaves, create_graph=True)
    assert all(g.isfinite().all() for g in first)
    assert (first[0][:, ::4] == 0).all()
    second = torch.autograd.grad(sum(g.sum() for g in first), leaves, allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in second)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_nothing_visible_is_zero_with_zero_gradient(sample, penalty):
    projected = sample[0].requires_grad_()
    loss = reprojection_loss(
        projected, torch.full_like(projected, torch.nan), torch.zeros(4, 9, dtype=DOUBLE), penalty=penalty
    )
    assert_close(loss, torch.zeros(4, dtype=DOUBLE))
    assert (torch.autograd.grad(loss.sum(), projected)[0] == 0).all()


@pytest.mark.parametrize("penalty", PENALTIES)
def test_coincident_points_cost_nothing_and_pull_nowhere(sample, penalty):
    projected = sample[0].requires_grad_()
    loss = reprojection_loss(projected, projected.detach(), sample[2], penalty=penalty)
    (gradient,) = torch.autograd.grad(loss.sum(), projected)
    assert (loss == 0).all() and (gradient == 0).all()


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("size", [1e-30, 1e20])
def test_float32_extremes_are_finite(penalty, size):
    projected = (size * torch.randn(4, 9, 2)).requires_grad_()
    loss = reprojection_loss(projected, -projected.detach(), torch.ones(4, 9), penalty=penalty)
    (gradient,) = torch.autograd.grad(loss.sum(), projected)
    assert loss.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("penalty", PENALTIES)
def test_loss_is_right_to_second_order(sample, penalty):
    inputs = [t[:2, 1:4].clone().requires_grad_() for t in sample]

    def loss(*inputs):
        return reprojection_loss(*inputs, penalty=penalty, sigma=20.0)

    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)


def test_scaling_confidences_and_shuffling_keypoints_change_nothing(sample):
    projected, keypoints, confidence = sample
    order = torch.randperm(9)
    shuffled = reprojection_loss(projected[:, order], keypoints[:, order], confidence[:, order])
    assert_close(shuffled, reprojection_loss(*sample))
    assert_close(reprojection_loss(projected, keypoints, 1e-9 * confidence), reprojection_loss(*sample))


def test_loss_only_knows_differences(sample):
    projected, keypoints, confidence = sample
    shift = torch.tensor([100.0, -50.0], dtype=DOUBLE)
    assert_close(reprojection_loss(projected + shift, keypoints + shift, confidence), reprojection_loss(*sample))
    assert_close(reprojection_loss(keypoints, projected, confidence), reprojection_loss(*sample))


def test_bad_confidence_counts_as_unseen():
    points = torch.tensor([[1.0, 1.0], [3.0, 4.0], [9.0, 9.0]])
    confidence = torch.tensor([math.nan, 1.0, -1.0])
    assert reprojection_loss(points, torch.zeros(3, 2), confidence) == 7


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
def test_any_batch_shape_and_broadcasting(batch):
    assert reprojection_loss(torch.ones(*batch, 5, 2), torch.zeros(5, 2), torch.ones(5)).shape == batch


def test_wrong_shapes_are_refused_by_name():
    points, ones = torch.ones(2, 5, 2), torch.ones(2, 5)
    with refuses("projected"):
        reprojection_loss(torch.ones(2, 5, 3), points, ones)
    with refuses("keypoints"):
        reprojection_loss(points, torch.ones(2, 4, 2), ones)
    with refuses("confidence"):
        reprojection_loss(points, points, torch.ones(2, 4))
    with refuses("batch shapes"):
        reprojection_loss(points, torch.ones(3, 5, 2), ones)
