"""Train `GaussianMixturePrior` on a pool, and say how likely held-out poses are to it."""

from __future__ import annotations

import torch
from physique.bodymodel import BodyModel
from physique.priors import GaussianMixturePrior, PosePool

from .impostors import told_apart

COMPONENTS = 8
# Neighbouring frames are alike: the poses count for far fewer, and single components would be thin.
SHARED = 300.0
FLOOR = 0.05


def train(pool: PosePool, body: BodyModel, *, seed: int) -> GaussianMixturePrior:
    """Return the mixture of the poses and their mirror images."""
    del body
    poses = pool.mirrored().body_pose
    return GaussianMixturePrior.fit(poses, COMPONENTS, seed=seed, floor=FLOOR, shared=SHARED)


def report(prior: GaussianMixturePrior, held: PosePool, body: BodyModel, *, seed: int) -> dict[str, float]:
    """Return how likely held-out poses are, next to one Gaussian of the same marginals, and how impostors fare."""
    del body
    poses = held.body_pose
    with torch.no_grad():
        likelihood = prior.log_prob(poses)
        flat = _single(prior).log_prob(poses)
    return {
        "held-out mean log-likelihood, per pose of 69 numbers": float(likelihood.mean()),
        "held-out mean log-likelihood of one Gaussian of the mixture's moments": float(flat.mean()),
        **told_apart(prior.energy, poses, seed),
    }


def _single(prior: GaussianMixturePrior) -> GaussianMixturePrior:
    """Return the Gaussian of the mixture's mean and covariance."""
    factors = torch.linalg.inv(prior.whitening.double())
    away = prior.means.double() - prior.mean_pose.double().flatten()
    each = factors @ factors.mT + away.unsqueeze(-1) * away.unsqueeze(-2)
    covariance = (prior.weights.double()[:, None, None] * each).sum(0, keepdim=True)
    mean = prior.mean_pose.flatten().unsqueeze(0)
    return GaussianMixturePrior.from_moments(mean.double(), covariance, mean.new_ones(1).double()).to(mean.dtype)
