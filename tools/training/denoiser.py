"""Train the shipped pose denoiser, and measure repair and lifting on poses that it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from physique.bodymodel import BodyModel
from physique.priors import PoseDenoiser
from torch import Tensor

from .varied_bodies import HIPS, lifting_error, random_views, seen_points, varied_points

if TYPE_CHECKING:
    from physique.priors import PosePool

WIDTH, DROPOUT = 512, 0.05
BODIES, STEPS, BATCH, RATE, DECAY = 40_000, 12_000, 256, 2e-3, 1e-4
LIFTED = 0.6  # share of a batch whose depths are missing
# Standard deviations up to these, in metres, on repaired and on lifted points; shares of the points that are missing.
REPAIR_NOISE, LIFT_NOISE = 0.045, 0.025
REPAIR_DROPPED, LIFT_DROPPED = 0.2, 0.25
PIXELS, NOISE = 128.0, 3.0  # a metre, and a detector's error, in an image of 224 pixels


class Damaged(NamedTuple):
    """Points as they are given.

    Attributes:
        points: (N, K, 3) with noise.
        given: (N, K) which of them.
    """

    points: Tensor
    given: Tensor


def train(pool: PosePool, body: BodyModel, *, seed: int) -> PoseDenoiser:
    """Return a denoiser in evaluation mode, trained to undo damage that is drawn anew at every step."""
    generator = torch.Generator().manual_seed(seed)
    bodies = varied_points(pool.mirrored(), body, BODIES, generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # initial weights and dropout have no generator of their own
        denoiser = PoseDenoiser(bodies.shape[1], WIDTH, DROPOUT, HIPS)
        optimiser = torch.optim.AdamW(denoiser.parameters(), lr=RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS, pct_start=0.1)
        for _ in range(STEPS):
            chosen = bodies[torch.randint(len(bodies), (BATCH,), generator=generator)]
            loss = batch_loss(denoiser, chosen @ random_views(BATCH, generator).mT, generator)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return denoiser.eval()


def batch_loss(denoiser: PoseDenoiser, truth: Tensor, generator: torch.Generator) -> Tensor:
    """Return the mean distance of repaired and lifted points from true points (N, K, 3), in metres.

    Both tasks go through the network as one batch, because the batch statistics that it will use know but one.
    """
    count = round(LIFTED * len(truth))
    lifted = damage(truth[:count], LIFT_NOISE, LIFT_DROPPED, generator, spare=0.5)
    repaired = damage(truth[count:], REPAIR_NOISE, REPAIR_DROPPED, generator)
    given = torch.cat((lifted.given, repaired.given))[..., None].expand(-1, -1, 3).clone()
    given[:count, :, 2] = False
    error = denoiser.complete(torch.cat((lifted.points, repaired.points)), given) - truth
    # What is lifted may lie at any depth.
    depth = error[:count, list(HIPS), 2:].mean(1, keepdim=True) * error.new_tensor([0.0, 0.0, 1.0])
    return torch.cat((error[:count] - depth, error[count:])).norm(dim=-1).mean()


def damage(
    truth: Tensor, most_noise: float, dropped: float, generator: torch.Generator, *, spare: float = 0.0
) -> Damaged:
    """Return points with noise of up to `most_noise`, some not given; a share `spare` of the people keeps all."""
    count, points = truth.shape[:2]
    noise = most_noise * torch.rand(count, 1, 1, generator=generator)
    whole = torch.rand(count, 1, generator=generator) < spare
    given = whole | (torch.rand(count, points, generator=generator) >= dropped)
    return Damaged(truth + noise * torch.randn(truth.shape, generator=generator), given)


def report(prior: PoseDenoiser, held: PosePool, body: BodyModel, *, seed: int) -> dict[str, float]:
    """Return errors in millimetres of repaired and of lifted points."""
    generator = torch.Generator().manual_seed(seed)
    truth = seen_points(held, body, generator)
    noisy = truth + 0.03 * torch.randn(truth.shape, generator=generator)
    given = torch.rand(truth.shape[:-1], generator=generator) >= 0.2
    keypoints = PIXELS * truth[..., :2]
    blurred = keypoints + NOISE * torch.randn(keypoints.shape, generator=generator)
    with torch.no_grad():
        repaired = prior.denoise(noisy, given)
        lifted, lifted_blurred = prior.lift(keypoints), prior.lift(blurred)
        lifted_hidden = prior.lift(keypoints, given.float())
    at_hips = torch.where(given[..., None], noisy, 0)
    at_average = torch.where(given[..., None], noisy, truth.mean(0))
    return {
        "lifting: MPJPE of exact keypoints, mm": lifting_error(lifted, truth),
        "lifting: MPJPE at 3 px noise of 224, mm": lifting_error(lifted_blurred, truth),
        "lifting: MPJPE with 20 % of the keypoints hidden, mm": lifting_error(lifted_hidden, truth),
        "repair: error with missing points at the hips, mm": _distance(at_hips, truth),
        "repair: error with missing points at their average place, mm": _distance(at_average, truth),
        "repair: error after, mm": _distance(repaired, truth),
        "repair: error of the given points before, mm": _distance(noisy[given], truth[given]),
        "repair: error of the given points after, mm": _distance(repaired[given], truth[given]),
        "repair: error of the missing points after, mm": _distance(repaired[~given], truth[~given]),
    }


def _distance(points: Tensor, truth: Tensor) -> float:
    return 1000 * float((points - truth).norm(dim=-1).mean())
