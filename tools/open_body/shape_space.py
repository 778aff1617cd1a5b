"""Make the linear shape space whose measures follow a given population.

Bodies are regressed on sex and measures. With the regression, mean and covariance of the measures can be replaced by
those of the real population; what the measures do not explain stays as the bodies' own residual variety.
"""

from __future__ import annotations

import numpy as np

from .ansur import Population

MEASURE_WEIGHT = 30.0
"""How much the variance of the (standardised) measures counts against that of the surface when directions are kept."""


def shape_space(
    points: np.ndarray, measures: np.ndarray, population: Population, directions: int, residuals: int, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (D,) and directions (directions, D), one population standard deviation each, by falling variance.

    Args:
        points: (N, D) sampled bodies, flattened.
        measures: (N, M) sex and measures of the samples, in the order of `population.names`.
        population: what the measures shall follow.
        directions: how many to keep.
        residuals: how many principal components of the residual enter.
        spread: scale of the residual variety.
    """
    design = np.concatenate([np.ones((len(points), 1)), measures - population.mean], axis=1)
    coefficients = np.linalg.lstsq(design, points, rcond=None)[0]
    mean, slopes = coefficients[0], coefficients[1:]
    residual = points - design @ coefficients
    values, vectors = np.linalg.eigh(residual @ residual.T / len(points))
    largest = np.argsort(values)[::-1][:residuals]
    own = spread * (vectors[:, largest].T @ residual) / np.sqrt(len(points))

    variances, axes = np.linalg.eigh(population.covariance)
    root = axes * np.sqrt(np.maximum(variances, 0.0))
    latent = np.concatenate([root.T @ slopes, own])
    loads = np.concatenate([root.T / population.sd, np.zeros((residuals, len(population.names)))])
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
