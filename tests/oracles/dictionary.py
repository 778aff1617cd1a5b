"""Lifting with a dictionary in plain NumPy: the prox by singular values, the relaxation by proximal gradient."""

import numpy as np


def spectral_prox(matrix, level):
    """Clip the singular values so that together they lose `level`, or are all zero."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    low, high = 0.0, values[0]
    for _ in range(200):
        limit = (low + high) / 2
        lost = np.maximum(values - limit, 0).sum()
        low, high = (limit, high) if lost > level else (low, limit)
    return left @ np.diag(np.minimum(values, high)) @ right


def objective(keypoints, basis, weight, matrices, outliers, translation, penalty, outlier_penalty):
    """½ Σ w |W − E − Σ M B − t|² + λ Σ ‖M‖₂ + β Σ w |E|, term by term."""
    total = 0.0
    for k in range(len(keypoints)):
        drawn = sum(matrices[i] @ basis[i, k] for i in range(len(basis)))
        off = keypoints[k] - outliers[k] - drawn - translation
        total += 0.5 * weight[k] * off @ off + outlier_penalty * weight[k] * np.abs(outliers[k]).sum()
    return total + penalty * sum(np.linalg.norm(matrix, 2) for matrix in matrices)


def relaxed_lift(keypoints, basis, weight, penalty, outlier_penalty=None, iterations=4000):
    """Minimise the relaxation by accelerated proximal gradient; returns matrices, outliers, translation."""
    atoms, points = basis.shape[:2]
    design = np.concatenate([basis[i].T for i in range(atoms)])  # (3A, K)
    design = np.concatenate((design, np.ones((1, points))))
    if outlier_penalty is not None:
        design = np.concatenate((design, np.eye(points)))
    step = 1 / np.linalg.norm(design * np.sqrt(weight), 2) ** 2
    x = np.zeros((2, len(design)))
    ahead, momentum = x, 1.0
    for _ in range(iterations):
        moved = ahead - step * (((ahead @ design) - keypoints.T) * weight) @ design.T
        for i in range(atoms):
            moved[:, 3 * i : 3 * i + 3] = spectral_prox_fast(moved[:, 3 * i : 3 * i + 3], step * penalty)
        if outlier_penalty is not None:
            soft = step * outlier_penalty * weight
            tail = moved[:, 3 * atoms + 1 :]
            moved[:, 3 * atoms + 1 :] = np.sign(tail) * np.maximum(np.abs(tail) - soft, 0)
        grown = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead, x, momentum = moved + (momentum - 1) / grown * (moved - x), moved, grown
    matrices = x[:, : 3 * atoms].reshape(2, atoms, 3).transpose(1, 0, 2)
    outliers = x[:, 3 * atoms + 1 :].T if outlier_penalty is not None else np.zeros_like(keypoints)
    return matrices, outliers, x[:, 3 * atoms]


def spectral_prox_fast(matrix, level):
    """Take the three cases of the singular values w1 ≥ w2 as they stand in the literature."""
    left, (w1, w2), right = np.linalg.svd(matrix, full_matrices=False)
    if w1 + w2 <= level:
        values = np.zeros(2)
    elif w1 - w2 <= level:
        values = np.full(2, (w1 + w2 - level) / 2)
    else:
        values = np.array([w1 - level, w2])
    return left @ np.diag(values) @ right
