"""Train `JointLimits`: the cones that hold every training pose, and how held-out poses and impostors fare."""

from __future__ import annotations

import torch
from physique.bodymodel import BodyModel, default_joint_limits
from physique.priors import JointLimits, PosePool
from torch import Tensor

from .pool import UNSEEN_JOINTS


def train(pool: PosePool, body: BodyModel, *, seed: int) -> JointLimits:
    """Return the limits of the poses and their mirror images; nothing is random."""
    del seed
    learnt = [name for name in body.skeleton.names[1:] if name not in UNSEEN_JOINTS]
    return JointLimits.fit(pool.mirrored().body_pose, body, joints=learnt)


def report(prior: JointLimits, held: PosePool, body: BodyModel, *, seed: int) -> dict[str, float]:
    """Return how many held-out poses and joints lie within the limits, and how well limits tell impostors."""
    del body
    generator = torch.Generator().manual_seed(seed)
    real = held.body_pose
    # Joints that never move in the capture tell impostors too easily: they do not move there either.
    moving = (real != 0).any(-1, keepdim=True).any(0)
    lower, upper = default_joint_limits(23, dtype=real.dtype, device=real.device)
    box = lower + (upper - lower) * torch.rand(real.shape, generator=generator)
    box = torch.where(moving, box, 0)
    noisy = real + 0.3 * moving * torch.randn(real.shape, generator=generator)
    box_part, cones = prior.residuals(real).split((69, 46), dim=-1)
    violations = torch.cat((box_part.unflatten(-1, (23, 3)), cones.unflatten(-1, (2, 23)).mT), dim=-1)
    worst = violations.amax(-1)
    energy = prior.energy(real)
    return {
        "held-out poses within the limits, %": 100 * float((worst.amax(-1) == 0).double().mean()),
        "held-out joints within the limits, %": 100 * float((worst == 0).double().mean()),
        "99th percentile of a pose's worst violation, degrees": float(worst.amax(-1).quantile(0.99).rad2deg()),
        "ROC-AUC against uniform samples of the default box": _auc(energy, prior.energy(box)),
        "ROC-AUC against 0.3 rad noise on every joint that moves": _auc(energy, prior.energy(noisy)),
    }


def _auc(real: Tensor, impostor: Tensor) -> float:
    """Return how often an impostor has more energy than a real pose; a tie counts half."""
    above, equal = impostor[:, None] > real, impostor[:, None] == real
    return float((above.double() + 0.5 * equal.double()).mean())
