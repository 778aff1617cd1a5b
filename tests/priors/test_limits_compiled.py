"""JointLimits compile whole and export with a dynamic batch."""

import torch
from physique.priors import JointLimits
from torch.testing import assert_close


def random_limits():
    limits = JointLimits()
    limits.swing = torch.randn(23, 2, 3)
    limits.twist = torch.randn(23, 3)
    return limits


def test_energy_compiles_without_a_break():
    limits, pose = random_limits(), torch.randn(5, 23, 3, requires_grad=True)
    energy = torch.compile(limits.energy, fullgraph=True, backend="aot_eager")(pose)
    assert_close(energy, limits.energy(pose))
    (gradient,) = torch.autograd.grad(energy.sum(), pose)
    assert_close(gradient, torch.autograd.grad(limits.energy(pose).sum(), pose)[0])


def test_energy_exports_for_any_batch():
    limits = random_limits()
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(limits, (torch.randn(4, 23, 3),), dynamic_shapes=({0: batch},))
    pose = torch.randn(7, 23, 3)
    assert_close(program.module()(pose), limits(pose))
