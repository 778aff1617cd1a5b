"""Lifter, critic and losses compile without a graph break."""

import pytest
import torch
from physique.bodymodel import keypoint_set
from physique.priors import (
    DepthLifter,
    PoseCritic,
    heading_cues,
    heading_loss,
    lifting_critic_loss,
    lifting_generator_loss,
    turned_views,
)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()


def compiled(function):
    return torch.compile(function, fullgraph=True, backend="eager")


@pytest.mark.parametrize("method", ["forward", "lift", "metric_depths"])
def test_the_lifter_compiles(method):
    lifter = DepthLifter("coco17", width=8)
    lifter.bone_lengths.fill_(0.3)
    points, confidence = torch.randn(4, 17, 2), (torch.rand(4, 17) > 0.2).float()
    function = getattr(lifter, method)
    torch.testing.assert_close(compiled(function)(points, confidence), function(points, confidence), equal_nan=True)


def test_a_step_of_training_compiles():
    lifter, critic, cues = DepthLifter(width=8), PoseCritic(width=8), heading_cues(keypoint_set("coco17"))

    def losses(points, real, angles):
        lifted = lifter.lift(points)
        fake = critic(turned_views(lifted, angles))
        verdict = lifting_critic_loss(critic(real).unsqueeze(-1), fake)
        return lifting_generator_loss(fake).sum(-1) + verdict.sum(-1) + heading_loss(lifted, cues)

    arguments = torch.randn(4, 17, 2), torch.randn(4, 17, 2), torch.rand(4, 3)
    torch.testing.assert_close(compiled(losses)(*arguments), losses(*arguments))
