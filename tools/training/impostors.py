"""Poses that no one takes, and how well an energy tells them from real ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from physique.bodymodel import default_joint_limits
from torch import Tensor

NOISE = 0.3


def told_apart(energy: Callable[[Tensor], Tensor], real: Tensor, seed: int) -> dict[str, float]:
    """Return ROC-AUC of real poses (N, 23, 3) against three kinds of impostor, by name.

    Joints that never move in the real poses would give impostors away: they do not move in these either.
    """
    generator = torch.Generator().manual_seed(seed)
    moving = (real != 0).any(-1, keepdim=True).any(0)
    lower, upper = default_joint_limits(23, dtype=real.dtype)
    box = lower + (upper - lower) * torch.rand(real.shape, generator=generator)
    noisy = real + NOISE * torch.randn(real.shape, generator=generator)
    # Every joint keeps a real rotation, but each from another pose.
    order = torch.rand(real.shape[:2], generator=generator).argsort(0).unsqueeze(-1).expand(real.shape)
    impostors = {
        "ROC-AUC against uniform samples of the default box": torch.where(moving, box, 0),
        "ROC-AUC against 0.3 rad noise on every joint that moves": torch.where(moving, noisy, real),
        "ROC-AUC against each joint from another pose": real.gather(0, order),
    }
    with torch.no_grad():
        low = energy(real)
        return {name: auc(low, energy(poses)) for name, poses in impostors.items()}


def auc(real: Tensor, impostor: Tensor) -> float:
    """Return how often an impostor has more energy than a real pose; a tie counts half."""
    ordered = real.sort().values
    below = torch.searchsorted(ordered, impostor) + torch.searchsorted(ordered, impostor, right=True)
    return float(below.double().mean() / (2 * len(real)))
