"""Fit a mixture of Gaussians by expectation-maximisation, all components at once."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

TOLERANCE = 1e-5
"""Done when an iteration raises the mean log-likelihood by less."""


def fit_mixture(
    points: Float[Tensor, "N D"], count: int, *, seed: int, floor: float, shared: float, iterations: int
) -> tuple[Float[Tensor, "G D"], Float[Tensor, "G D D"], Float[Tensor, " G"]]:
    """Return means, covariances and weights of the mixture that explains the points.

    Args:
        points: (N, D) finite, double precision.
        count: G components.
        seed: of the start.
        floor: standard deviation added to every number.
        shared: as how many points the covariance of all components together counts in each of them.
        iterations: the most that are taken.
    """
    noise = floor**2 * torch.eye(points.shape[-1], dtype=points.dtype, device=points.device)
    nearest = torch.cdist(points, _spread_out(points, count, seed)).argmin(-1)
    shares = torch.nn.functional.one_hot(nearest, count).to(points)
    before = -math.inf
    means, covariances, weights = _moments(points, shares, noise, shared)
    for _ in range(iterations):
        each = _log_densities(points, means, covariances) + weights.log()
        total = each.logsumexp(-1)
        if float(total.mean()) < before + TOLERANCE:
            break
        before = float(total.mean())
        means, covariances, weights = _moments(points, (each - total.unsqueeze(-1)).exp(), noise, shared)
    return means, covariances, weights


def _spread_out(points: Tensor, count: int, seed: int) -> Tensor:
    """Return `count` of the points, each drawn by its squared distance from those before it (k-means++)."""
    generator = torch.Generator().manual_seed(seed)
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    distance = torch.full_like(points[:, 0], math.inf)
    for _ in range(count - 1):
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(-1))
        # Points that all coincide are drawn evenly.
        odds = (distance + torch.finfo(points.dtype).tiny).cpu()
        chosen.append(int(torch.multinomial(odds, 1, generator=generator)))
    return points[chosen]


def _moments(points: Tensor, shares: Tensor, noise: Tensor, shared: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return means, covariances and weights of points that belong to the components by `shares` (N, G)."""
    # A component that lost all its points keeps a trace, and with it the covariance of all.
    size = shares.sum(0) + 1e-6
    means = (shares.mT @ points) / size.unsqueeze(-1)
    means = means + (1e-6 / size).unsqueeze(-1) * points.mean(0)
    scatter = []
    for share, mean in zip(shares.unbind(-1), means, strict=True):
        away = points - mean
        scatter.append((away * share.unsqueeze(-1)).mT @ away)
    own = torch.stack(scatter)
    everywhere = own.sum(0) / len(points)
    covariances = (own + shared * everywhere) / (size + shared)[:, None, None] + noise
    return means, covariances, size / size.sum()


def _log_densities(points: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    """Return the log density (N, G) of each point in each component."""
    factors = torch.linalg.cholesky(covariances)
    away = (points - means.unsqueeze(1)).mT
    squares = torch.linalg.solve_triangular(factors, away, upper=False).square().sum(-2)
    sizes = factors.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
    return (-0.5 * squares - sizes - 0.5 * points.shape[-1] * math.log(2 * math.pi)).mT
