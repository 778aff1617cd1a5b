"""Joints, vertices, parameters and rotations: what the losses know and what they do not."""

import math

import pytest
import torch
from physique.geometry import axis_angle_to_matrix
from physique.losses import (
    dense_correspondence_loss,
    joint_loss,
    parameter_loss,
    reprojection_loss,
    rotation_loss,
    vertex_loss,
)
from refusals import refuses
from torch.testing import assert_close

DOUBLE = torch.float64


@pytest.fixture
def pair():
    return torch.randn(2, 4, 9, 3, dtype=DOUBLE)


@pytest.mark.parametrize("penalty", ["l1", "l2", "huber", "geman_mcclure"])
def test_point_losses_know_no_axes(pair, penalty):
    predicted, target = pair
    turn = axis_angle_to_matrix(torch.randn(4, 1, 3, dtype=DOUBLE))
    for loss in (joint_loss, vertex_loss):
        turned = loss((turn @ predicted[..., None])[..., 0], (turn @ target[..., None])[..., 0], penalty=penalty)
        assert_close(turned, loss(predicted, target, penalty=penalty))


def test_rooted_joints_do_not_know_where_they_are(pair):
    predicted, target = pair
    shift = torch.randn(2, 4, 1, 3, dtype=DOUBLE)
    expected = joint_loss(predicted, target, root=0)
    assert_close(joint_loss(predicted + shift[0], target + shift[1], root=0), expected)
    assert not torch.allclose(joint_loss(predicted + shift[0], target + shift[1]), joint_loss(predicted, target))


def test_root_of_several_joints_is_their_mean_and_is_hmrs_term(pair):
    predicted, target = pair
    centred = [each - each[:, [2, 3]].mean(1, keepdim=True) for each in pair]
    hmr = 0.5 * (centred[0] - centred[1]).square().mean((-2, -1))
    assert_close(joint_loss(predicted, target, root=(2, 3)) / 6, hmr)


def test_root_that_is_not_seen_leaves_the_seen_one_or_nothing(pair):
    predicted, target = pair
    mask = torch.ones(4, 9, dtype=DOUBLE)
    mask[:, 2] = 0
    broken = torch.where(mask[..., None] > 0, target, torch.nan)
    assert_close(joint_loss(predicted, broken, mask, root=(2, 3)), joint_loss(predicted, target, mask, root=3))
    predicted = predicted.clone().requires_grad_()
    loss = joint_loss(predicted, broken, mask, root=2)
    assert (loss == 0).all() and (torch.autograd.grad(loss.sum(), predicted)[0] == 0).all()


def test_l1_of_joints_is_the_mean_distance(pair):
    predicted, target = pair
    assert_close(joint_loss(predicted, target, penalty="l1"), (predicted - target).norm(dim=-1).mean(-1))


def test_dense_outlier_is_a_whole_point():
    far = torch.tensor([[[30.0, 40.0]], [[50.0, 0.0]]])
    loss = dense_correspondence_loss(far, torch.zeros(1, 2), penalty="geman_mcclure", sigma=10.0)
    assert_close(loss, torch.full((2,), 100 * 2500 / 2600))


def test_parameters_by_default_are_torchs_smooth_l1():
    predicted, target = 2 * torch.randn(2, 5, 85, dtype=DOUBLE)
    expected = torch.nn.functional.smooth_l1_loss(predicted, target, reduction="none").mean(-1)
    assert_close(parameter_loss(predicted, target), expected)


def test_samples_are_switched_off_by_one_weight_each():
    predicted, target = torch.randn(2, 3, 10)
    has = torch.tensor([[True], [False], [True]])
    target[1] = torch.nan
    loss = parameter_loss(predicted, target, has)
    assert_close(loss[::2], parameter_loss(predicted, target)[::2])
    assert loss[1] == 0


@pytest.mark.parametrize("angle", [0.0, 1e-6, 0.5, math.pi / 2, 3.0, math.pi])
def test_rotation_losses_are_functions_of_the_angle(angle):
    axis = torch.tensor([2 / 3, -1 / 3, 2 / 3], dtype=DOUBLE)
    base = axis_angle_to_matrix(torch.randn(5, 3, dtype=DOUBLE))
    turned = axis_angle_to_matrix(angle * axis) @ base
    assert rotation_loss(turned, base, metric="geodesic").item() == pytest.approx(angle, rel=1e-7, abs=1e-12)
    assert rotation_loss(turned, base).item() == pytest.approx(8 * math.sin(angle / 2) ** 2, rel=1e-7, abs=1e-14)


def test_geodesic_gradient_at_pi_is_finite():
    turned = torch.diag(torch.tensor([1.0, -1.0, -1.0]))[None].requires_grad_()
    loss = rotation_loss(turned, torch.eye(3)[None], metric="geodesic")
    assert torch.autograd.grad(loss, turned)[0].isfinite().all()


def test_misuse_is_refused_by_name():
    points, pixels, matrices = torch.zeros(2, 5, 3), torch.zeros(2, 5, 2), torch.zeros(2, 5, 3, 3)
    for loss in (joint_loss, vertex_loss):
        with refuses("predicted"):
            loss(pixels, points)
        with refuses("target"):
            loss(points, torch.zeros(2, 4, 3))
        with refuses("batch shapes"):
            loss(points, torch.zeros(3, 5, 3))
        with refuses("penalty"):
            loss(points, points, penalty="cauchy")
    with refuses("confidence"):
        joint_loss(points, points, torch.zeros(2, 4))
    with refuses("weight"):
        vertex_loss(points, points, torch.zeros(2, 4))
    with refuses("root"):
        joint_loss(points, points, root=5)
    with refuses("root"):
        joint_loss(points, points, root=())
    with refuses("pixels"):
        dense_correspondence_loss(pixels, points)
    with refuses("penalty"):
        reprojection_loss(pixels, pixels, torch.ones(5), penalty="cauchy")
    with refuses("predicted"):
        rotation_loss(points, matrices)
    with refuses("target"):
        rotation_loss(matrices, matrices[:, :4])
    with refuses("weight"):
        rotation_loss(matrices, matrices, torch.zeros(4))
    with refuses("metric"):
        rotation_loss(matrices, matrices, metric="euler")
    with refuses("target"):
        parameter_loss(torch.zeros(2, 5), torch.zeros(2, 6))
    with refuses("weight"):
        parameter_loss(torch.zeros(2, 5), torch.zeros(2, 5), torch.zeros(2, 6))
    with refuses("predicted", TypeError):
        joint_loss([[0.0, 0.0, 0.0]], points)
