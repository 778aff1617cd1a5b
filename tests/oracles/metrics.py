"""Metrics of one sample as loops in float64 NumPy, from their papers and evaluation codes."""

import math

import numpy as np


def seen_rows(mask, count):
    return [k for k in range(count) if mask is None or mask[k] > 0]


def procrustes(source, target, scale=True):
    """Return the source after the similarity of Umeyama (1991), written out from the singular value decomposition."""
    x1, x2 = source.T - source.mean(0)[:, None], target.T - target.mean(0)[:, None]
    u, s, vt = np.linalg.svd(x1 @ x2.T)
    z = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = vt.T @ z @ u.T
    factor = np.trace(rotation @ x1 @ x2.T) / np.sum(x1**2) if scale else 1.0
    return (factor * rotation @ x1).T + target.mean(0)


def joint_errors(predicted, target, mask=None, root=(0,), joints=None, alignment="root"):
    """Return {joint: error} over the joints that count and are seen; empty without a seen root."""
    seen = seen_rows(mask, len(predicted))
    if alignment in ("root", "scale"):
        roots = [k for k in root if k in seen]
        if not roots:
            return {}
        predicted = predicted - sum(predicted[k] for k in roots) / len(roots)
        target = target - sum(target[k] for k in roots) / len(roots)
    ids = [k for k in (range(len(predicted)) if joints is None else joints) if k in seen]
    if not ids:
        return {}
    p, t = predicted[ids], target[ids]
    if alignment == "scale":
        p = p * (np.sum(p * t) / np.sum(p * p))
    if alignment in ("procrustes", "rigid"):
        p = procrustes(p, t, scale=alignment == "procrustes")
    return {k: math.dist(a, b) for k, a, b in zip(ids, p, t, strict=True)}


def average(errors):
    values = list(errors.values())
    return sum(values) / len(values) if values else math.nan


def scale_aligned(predicted, target, bones, mask=None, length=None, root=(0,)):
    seen = seen_rows(mask, len(predicted))
    bones = [(a, b) for a, b in bones if a in seen and b in seen]
    wanted = sum(math.dist(target[a], target[b]) for a, b in bones) if length is None else length
    found = sum(math.dist(predicted[a], predicted[b]) for a, b in bones)
    return average(joint_errors(predicted * (wanted / found), target, mask, root))


def pck(errors, threshold):
    values = list(errors.values())
    return sum(e < threshold for e in values) / len(values) if values else math.nan


def auc(errors, thresholds):
    return sum(pck(errors, t) for t in thresholds) / len(thresholds)


def acceleration(predicted, target, mask=None):
    terms = []
    for t in range(1, len(predicted) - 1):
        for k in range(predicted.shape[1]):
            if mask is None or all(mask[t + s, k] > 0 for s in (-1, 0, 1)):
                a = predicted[t + 1, k] - 2 * predicted[t, k] + predicted[t - 1, k]
                b = target[t + 1, k] - 2 * target[t, k] + target[t - 1, k]
                terms.append(math.dist(a, b))
    return sum(terms) / len(terms) if terms else math.nan


def oks(predicted, target, mask, area, sigmas):
    """COCO's computeOks for one pair of people, term by term."""
    variances = [(2 * s) ** 2 for s in sigmas]
    terms = []
    for k, variance in enumerate(variances):
        if mask is None or mask[k] > 0:
            dx, dy = predicted[k] - target[k]
            terms.append(math.exp(-((dx**2 + dy**2) / variance / area / 2)))
    return sum(terms) / len(terms) if terms else math.nan


def gps(distances, kappa):
    return sum(math.exp(-(g**2) / (2 * k**2)) for g, k in zip(distances, kappa, strict=True)) / len(distances)


def segmentation(predicted, target, classes):
    """Return accuracy and the F1 of each class by precision and recall; None where a class does not occur."""
    pairs = [(p, t) for p, t in zip(predicted.flat, target.flat, strict=True) if 0 <= t < classes]
    accuracy = sum(p == t for p, t in pairs) / len(pairs) if pairs else math.nan
    scores = []
    for c in range(classes):
        hits = sum(p == c == t for p, t in pairs)
        claimed, true = sum(p == c for p, _ in pairs), sum(t == c for _, t in pairs)
        if not claimed and not true:
            scores.append(None)
        elif not hits:
            scores.append(0.0)
        else:
            precision, recall = hits / claimed, hits / true
            scores.append(2 * precision * recall / (precision + recall))
    return accuracy, scores
