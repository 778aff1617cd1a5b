"""The critic sees poses, not where or how large they are; every parameter learns."""

import pytest
import torch
from physique.priors import PoseCritic, lifting_critic_loss
from refusals import refuses
from torch.testing import assert_close


def make_critic():
    torch.manual_seed(0)
    return PoseCritic("coco17", width=16).double()


def draw(*batch):
    return torch.randn(*batch, 17, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_it_has_eight_linear_layers():
    assert sum(isinstance(module, torch.nn.Linear) for module in make_critic().modules()) == 8


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
def test_one_logit_a_pose(batch):
    critic, poses = make_critic(), draw(*batch)
    logits = critic(poses)
    assert logits.shape == batch
    if logits.numel():
        first = (0,) * len(batch)
        assert_close(logits[first], critic(poses[first]))


def test_place_and_size_do_not_matter():
    critic, poses = make_critic(), draw(4)
    assert_close(critic(37 * poses + torch.tensor([5.0, -80.0])), critic(poses))
    assert not torch.allclose(critic(poses), critic(poses * torch.tensor([-1.0, 1.0])))


def test_gradients_reach_every_parameter_and_the_poses():
    critic, poses = make_critic(), draw(8).requires_grad_()
    real, fake = critic(poses).chunk(2)
    lifting_critic_loss(real, fake).mean().backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in critic.parameters())
    assert poses.grad is not None and (poses.grad != 0).any()


def test_it_learns_to_tell_people_from_upside_down_ones():
    critic, poses = make_critic(), draw(64).sort(dim=-2).values
    optimiser = torch.optim.Adam(critic.parameters(), 1e-2)
    for _ in range(30):
        loss = lifting_critic_loss(critic(poses), critic(-poses)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (critic(poses) > 0).all() and (critic(-poses) < 0).all()


def test_other_points_are_refused():
    with refuses("keypoints"):
        make_critic()(torch.randn(3, 14, 2, dtype=torch.float64))
    with refuses("keypoint_set"):
        PoseCritic("mano16")
