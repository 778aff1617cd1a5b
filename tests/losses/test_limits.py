"""The joint-limit loss: nothing inside the box, squared violations outside."""

import pytest
import torch
from physique.bodymodel.limits import default_joint_limits
from physique.losses import joint_limit_loss
from refusals import refuses
from torch.testing import assert_close

DOUBLE = torch.float64


@pytest.mark.parametrize("count", [21, 23])
def test_poses_inside_the_box_cost_nothing(count):
    lower, upper = default_joint_limits(count, dtype=DOUBLE)
    pose = (lower + (upper - lower) * torch.rand(100, count, 3, dtype=DOUBLE)).requires_grad_()
    loss = joint_limit_loss(pose)
    assert_close(loss, torch.zeros(100, dtype=DOUBLE))
    assert (torch.autograd.grad(loss.sum(), pose)[0] == 0).all()


def test_outside_it_is_the_sum_of_squared_violations():
    pose = 3 * torch.randn(4, 23, 3, dtype=DOUBLE)
    lower, upper = (bound.tolist() for bound in default_joint_limits(23, dtype=DOUBLE))
    expected = []
    for sample in pose.tolist():
        violations = [
            max(lower[j][axis] - sample[j][axis], 0.0, sample[j][axis] - upper[j][axis])
            for j in range(23)
            for axis in range(3)
        ]
        expected.append(sum(v * v for v in violations))
    assert_close(joint_limit_loss(pose), torch.tensor(expected, dtype=DOUBLE))


def test_gradient_points_back_into_the_box():
    pose = (3 * torch.randn(4, 23, 3, dtype=DOUBLE)).requires_grad_()
    (gradient,) = torch.autograd.grad(joint_limit_loss(pose).sum(), pose)
    nearest = pose - gradient / 2
    assert_close(joint_limit_loss(nearest), torch.zeros(4, dtype=DOUBLE))


def test_limits_of_ones_own():
    box = (torch.full((5, 3), -1.0), torch.full((5, 3), 1.0))
    assert_close(joint_limit_loss(torch.full((2, 5, 3), 3.0), box), torch.full((2,), 60.0))


def test_loss_is_right_to_second_order():
    pose = (3 * torch.randn(2, 23, 3, dtype=DOUBLE)).requires_grad_()
    assert torch.autograd.gradcheck(joint_limit_loss, pose)
    assert torch.autograd.gradgradcheck(joint_limit_loss, pose)


def test_float32_extremes_are_finite():
    pose = torch.full((23, 3), 1e20, requires_grad=True)
    loss = joint_limit_loss(pose)
    assert loss.isfinite() and torch.autograd.grad(loss, pose)[0].isfinite().all()


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
def test_any_batch_shape(batch):
    assert joint_limit_loss(torch.zeros(*batch, 21, 3)).shape == batch


def test_misuse_is_refused_by_name():
    with refuses("body_pose"):
        joint_limit_loss(torch.zeros(2, 69))
    with refuses("joints"):
        joint_limit_loss(torch.zeros(2, 22, 3))
    with refuses("limits"):
        joint_limit_loss(torch.zeros(2, 5, 3), (torch.zeros(4, 3), torch.zeros(5, 3)))
