"""Learn the shipped pose dictionary, and measure its lifting on poses that it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from physique.bodymodel import BodyModel
from physique.losses.metrics import pa_mpjpe
from physique.priors import PoseDictionary

from .varied_bodies import lifting_error, seen_points, varied_points

if TYPE_CHECKING:
    from physique.priors import PosePool

ATOMS, POSES, SPARSITY, ROUNDS = 128, 6000, 0.01, 30
PIXELS = 128.0  # a metre in an image of 224 pixels that a person fills
NOISE = 3.0  # pixels


def train(pool: PosePool, body: BodyModel, *, seed: int) -> PoseDictionary:
    """Return a dictionary of the poses, mirrored and mixed."""
    generator = torch.Generator().manual_seed(seed)
    points = varied_points(pool.mirrored(), body, POSES, generator)
    return PoseDictionary.learn(points, ATOMS, sparsity=SPARSITY, rounds=ROUNDS, seed=seed)


def report(prior: PoseDictionary, held: PosePool, body: BodyModel, *, seed: int) -> dict[str, float]:
    """Return errors of lifted points in millimetres, and how the steps of the lifting share in them."""
    generator = torch.Generator().manual_seed(seed)
    truth = seen_points(held, body, generator)
    keypoints = PIXELS * truth[..., :2]
    noisy = keypoints + NOISE * torch.randn(keypoints.shape, generator=generator)
    hidden = torch.rand(keypoints.shape[:-1], generator=generator) < 0.2
    exact, partial = prior.lift(keypoints), prior.lift(keypoints, (~hidden).float())
    return {
        "MPJPE of exact keypoints, mm": lifting_error(exact.points, truth),
        "MPJPE from the relaxation's rotation and its reflection alone, mm": lifting_error(
            prior.lift(keypoints, views=0).points, truth
        ),
        "MPJPE at 3 px noise of 224, mm": lifting_error(prior.lift(noisy, noise=NOISE / PIXELS).points, truth),
        "MPJPE with 20 % of the keypoints hidden, mm": lifting_error(partial.points, truth),
        "PA-MPJPE of exact keypoints, mm": 1000 * float(pa_mpjpe(exact.points, truth).mean()),
        "coefficients above zero": float((exact.coefficients > 0).double().sum(-1).mean()),
    }
