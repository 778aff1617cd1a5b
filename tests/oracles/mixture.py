"""A mixture of Gaussians in plain NumPy, as SMPLify's code has it."""

import numpy as np


def smplify_energy(pose, means, covars, weights):
    """Return min over g of |√½ Lᵀ (x − μ)|² − log w̃, with L Lᵀ the precision."""
    sizes = [np.sqrt(np.linalg.det(covar)) for covar in covars]
    values = []
    for mean, covar, weight, size in zip(means, covars, weights, sizes, strict=True):
        factor = np.linalg.cholesky(np.linalg.inv(covar))
        residual = np.sqrt(0.5) * (pose - mean) @ factor
        scaled = weight / ((2 * np.pi) ** (len(mean) / 2) * (size / min(sizes)))
        values.append((residual**2).sum() - np.log(scaled))
    return min(values)


def random_moments(components, dims, seed=0):
    """Return means, covariances and weights of a mixture."""
    rng = np.random.default_rng(seed)
    factors = 0.05 * rng.normal(size=(components, dims, dims)) + 0.15 * np.eye(dims)
    weights = rng.uniform(0.5, 2, components)
    return 0.4 * rng.normal(size=(components, dims)), factors @ factors.swapaxes(1, 2), weights / weights.sum()
