"""Make the linear shape space whose measures follow a given population.

Bodies are regressed on sex and measures. With the regression, mean and covariance of the measures can be replaced by
those of the real population; what the measures do not explain stays as the bodies' own residual variety.
"""

from __future__ import annotations

import numpy as np

from .ansur import Population

MEASURING_NOISE = 0.15
"""Noise of the measures in the regression, in standard deviations. It keeps the regression from reproducing, by
grotesque shapes, differences that bodies hardly show, such as that of two heights a hand's breadth apart."""
MEASURE_WEIGHT = 30.0
"""How much the variance of the claimed measures counts against that of the surface when directions are kept."""


def shape_space(
    points: np.ndarray,
    measures: np.ndarray,
    population: Population,
    claimed: np.ndarray,
    directions: int,
    residuals: int,
    spread: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (D,) and directions (directions, D), one population standard deviation each, by falling variance.

    Args:
        points: (N, D) sampled bodies, flattened.
        measures: (N, M) sex and measures of the samples, in the order of `population.names`.
        population: what the measures shall follow.
        claimed: (M,) which measures the kept directions must reproduce.
        directions: how many to keep.
        residuals: how many principal components of the residual enter.
        spread: scale of the residual variety.
    """
    standard = (measures - population.mean) / population.sd
    design = np.concatenate([np.ones((len(points), 1)), standard], axis=1)
    noise = np.diag(np.r_[0.0, np.full(standard.shape[1], MEASURING_NOISE**2)]) * len(points)
    coefficients = np.linalg.solve(design.T @ design + noise, design.T @ points)
    mean, slopes = coefficients[0], coefficients[1:]
    residual = points - design @ coefficients
    values, vectors = np.linalg.eigh(residual @ residual.T / len(points))
    largest = np.argsort(values)[::-1][:residuals]
    own = spread * (vectors[:, largest].T @ residual) / np.sqrt(len(points))

    variances, axes = np.linalg.eigh(population.covariance)
    root = axes * np.sqrt(np.maximum(variances, 0.0)) / population.sd[:, None]
    latent = np.concatenate([root.T @ slopes, own])
    loads = np.concatenate([root.T, np.zeros((residuals, len(population.names)))])[:, claimed]
    surface = latent @ latent.T
    kept = _leading(surface / np.trace(surface) + MEASURE_WEIGHT / loads.shape[1] * loads @ loads.T, directions)
    kept = kept @ _leading(kept.T @ surface @ kept, directions)
    loads = kept.T @ loads
    # a fixed sign: the measure that a direction moves most, grows with it
    signs = np.sign(loads[np.arange(directions), np.abs(loads).argmax(axis=1)])
    return mean, (kept * signs).T @ latent


def _leading(matrix: np.ndarray, count: int) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors[:, np.argsort(values)[::-1][:count]]
