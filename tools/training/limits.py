"""Train `JointLimits`: the cones that hold every training pose, and how held-out poses and impostors fare."""

from __future__ import annotations

import torch
from physique.bodymodel import BodyModel
from physique.priors import JointLimits, PosePool

from .impostors import told_apart
from .pool import UNSEEN_JOINTS


def train(pool: PosePool, body: BodyModel, *, seed: int) -> JointLimits:
    """Return the limits of the poses and their mirror images; nothing is random."""
    del seed
    learnt = [name for name in body.skeleton.names[1:] if name not in UNSEEN_JOINTS]
    return JointLimits.fit(pool.mirrored().body_pose, body, joints=learnt)


def report(prior: JointLimits, held: PosePool, body: BodyModel, *, seed: int) -> dict[str, float]:
    """Return how many held-out poses and joints lie within the limits, and how well limits tell impostors."""
    del body
    real = held.body_pose
    box_part, cones = prior.residuals(real).split((69, 46), dim=-1)
    violations = torch.cat((box_part.unflatten(-1, (23, 3)), cones.unflatten(-1, (2, 23)).mT), dim=-1)
    worst = violations.amax(-1)
    return {
        "held-out poses within the limits, %": 100 * float((worst.amax(-1) == 0).double().mean()),
        "held-out joints within the limits, %": 100 * float((worst == 0).double().mean()),
        "99th percentile of a pose's worst violation, degrees": float(worst.amax(-1).quantile(0.99).rad2deg()),
        **told_apart(prior.energy, real, seed),
    }
