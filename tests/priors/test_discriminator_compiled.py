"""Discriminator and losses under torch.compile(fullgraph=True) and export."""

import pytest
import torch
from physique.geometry import axis_angle_to_matrix
from physique.priors import (
    FactorizedDiscriminator,
    gradient_penalty,
    hinge_discriminator_loss,
    lsgan_discriminator_loss,
    lsgan_generator_loss,
    r1_penalty,
    wasserstein_discriminator_loss,
)
from torch.testing import assert_close


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()


def compiled(function):
    return torch.compile(function, fullgraph=True, backend="aot_eager")


def made():
    torch.manual_seed(0)
    discriminator = FactorizedDiscriminator()
    rotations = axis_angle_to_matrix(torch.randn(3, 23, 3))
    return discriminator, rotations, torch.randn(3, 10)


def test_the_discriminator_compiles_in_one_graph():
    discriminator, rotations, betas = made()
    assert_close(compiled(discriminator)(rotations, betas), discriminator(rotations, betas))


def test_the_energy_and_its_gradient_compile_in_one_graph():
    discriminator, _, _ = made()
    poses = [torch.full((2, 23, 3), 0.3, requires_grad=True) for _ in range(2)]
    for pose, energy in zip(poses, (compiled(discriminator.energy), discriminator.energy), strict=True):
        energy(pose).sum().backward()
    assert poses[1].grad.any()
    assert_close(poses[0].grad, poses[1].grad)


def test_the_discriminator_is_exported_for_any_batch():
    discriminator, rotations, betas = made()
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(discriminator, (rotations, betas), dynamic_shapes=({0: batch}, {0: batch}))
    more = rotations.repeat(4, 1, 1, 1), betas.repeat(4, 1)
    assert_close(program.module()(*more), discriminator(*more))


@pytest.mark.parametrize(
    "loss",
    [lsgan_discriminator_loss, hinge_discriminator_loss, wasserstein_discriminator_loss],
    ids=lambda f: f.__name__,
)
def test_losses_compile_in_one_graph(loss):
    real, fake = torch.randn(3, 4, 25), torch.randn(4, 25)
    assert_close(compiled(loss)(real, fake), loss(real, fake))
    assert_close(compiled(lsgan_generator_loss)(fake), lsgan_generator_loss(fake))


def test_penalties_compile_in_one_graph():
    discriminator, rotations, betas = made()
    real, fake, fraction = [rotations, betas], [rotations.mT, -betas], torch.rand(3)

    def penalties(fraction):
        return gradient_penalty(discriminator, real, fake, fraction) + r1_penalty(discriminator, real)

    assert_close(compiled(penalties)(fraction), penalties(fraction))
