"""Train `PoseVAE` on a pool, and say how well held-out poses come back."""

from __future__ import annotations

import torch
from physique.bodymodel import BodyModel
from physique.geometry import axis_angle_to_matrix, geodesic_angle
from physique.priors import PosePool, PoseVAE
from physique.priors.mixture_fit import fit_mixture
from torch import Tensor

from .impostors import told_apart

WIDTH, LATENTS, STARTS = 256, 32, 8
STEPS, BATCH, RATE = 2500, 128, 2e-3
# Reconstructions are expected this far off, in radians: the smaller, the more of z is used.
UNIT = 0.06
# Radians on every number that goes in; what comes out is compared without. Poses come back less exactly, but those
# beside the training poses are led to them: single-view fits end 14 mm nearer.
NOISE = 0.15
JOINTS = 21


def train(pool: PosePool, body: BodyModel, *, seed: int) -> PoseVAE:
    """Return the autoencoder of the poses and their mirror images: the evidence lower bound, by Adam."""
    del body
    poses = pool.mirrored().body_pose
    target = axis_angle_to_matrix(poses[:, :JOINTS])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = PoseVAE(WIDTH, LATENTS, STARTS)
        optimiser = torch.optim.Adam(prior.parameters(), RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, STEPS)
        for _ in range(STEPS):
            ids = torch.randint(len(poses), (BATCH,))
            latent = prior.encode(poses[ids] + NOISE * torch.randn_like(poses[ids]))
            found = prior.decode_matrices(latent.rsample())
            # |R − S|² / 2 is the squared angle between them, to second order.
            error = (found - target[ids]).square().sum((-3, -2, -1)) / (4 * UNIT**2)
            surprise = 0.5 * (latent.mean.square() + latent.variance - 1) - latent.stddev.log()
            optimiser.zero_grad()
            (error + surprise.sum(-1)).mean().backward()
            optimiser.step()
            schedule.step()
    prior.eval()
    with torch.no_grad():
        latents = prior.encode(poses).mean
        prior.spread.copy_(_angles(prior, poses).square().mean(0).sqrt().clamp(min=UNIT))
        # The middle of each of as many clusters is where a fit may start.
        middles, _, _ = fit_mixture(latents.double(), STARTS, seed=seed, floor=0.3, shared=100.0, iterations=50)
        prior.start_latents.copy_(middles)
    return prior


def report(prior: PoseVAE, held: PosePool, body: BodyModel, *, seed: int) -> dict[str, float]:
    """Return how far off held-out poses come back, and how impostors fare."""
    poses = held.body_pose
    with torch.no_grad():
        angles = _angles(prior, poses).rad2deg()
        latents = prior.encode(poses).mean
        hands = poses[:, JOINTS:]
        back = torch.cat((prior.decode(latents), hands), dim=1)
        moved = (body.joints(body_pose=back) - body.joints(body_pose=poses)).norm(dim=-1)
    return {
        "held-out reconstruction error, degrees per joint": float(angles.mean()),
        "held-out reconstruction error, degrees, 95th percentile": float(angles.flatten().quantile(0.95)),
        "held-out reconstruction error, mm per joint, root fixed": float(1000 * moved.mean()),
        "held-out mean squared latent (1 under the prior)": float(latents.square().mean()),
        **told_apart(prior.energy, poses, seed),
    }


def _angles(prior: PoseVAE, poses: Tensor) -> Tensor:
    """Return the angle (N, 21) between each joint and its reconstruction, in radians."""
    found = prior.decode_matrices(prior.encode(poses).mean)
    return geodesic_angle(found, axis_angle_to_matrix(poses[:, :JOINTS]))
