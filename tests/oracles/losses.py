"""Losses of one sample as loops in float64 NumPy, from their papers."""

import math

import numpy as np
import torch
from physique.bodymodel.limits import default_joint_limits

PAIRS = (((0, 1), (0, 2)), ((1, 3), (2, 4)))
BONES = ((0, 1), (1, 3), (2, 4))
TRUNK = (0, 5, 6)
RATIOS = (0.5, 0.9, 0.7)


def rho(penalty, r, sigma):
    if penalty == "l1":
        return abs(r)
    if penalty == "l2":
        return r * r
    if penalty == "huber":
        return r * r / 2 if abs(r) <= sigma else sigma * (abs(r) - sigma / 2)
    return sigma**2 * r**2 / (sigma**2 + r**2)


def mean(terms, weights):
    total = sum(weights)
    return sum(w * t for w, t in zip(weights, terms, strict=True)) / total if total > 0 else 0.0


def reprojection(projected, keypoints, confidence, penalty, sigma):
    terms, weights = [], []
    for p, q, c in zip(projected, keypoints, confidence, strict=True):
        if c > 0:
            terms.append(rho(penalty, p[0] - q[0], sigma) + rho(penalty, p[1] - q[1], sigma))
            weights.append(c)
    return mean(terms, weights)


def points(predicted, target, weight, penalty, sigma, root=()):
    seen = [k for k in range(len(weight)) if weight[k] > 0]
    roots = [k for k in root if k in seen]
    if root and not roots:
        return 0.0
    shift = np.zeros(predicted.shape[-1])
    for k in roots:
        shift = shift + (predicted[k] - target[k]) / len(roots)
    terms = [rho(penalty, math.dist(predicted[k] - shift, target[k]), sigma) for k in seen]
    return mean(terms, [weight[k] for k in seen])


def rotation(predicted, target, weight, metric):
    terms, weights = [], []
    for a, b, w in zip(predicted, target, weight, strict=True):
        if w > 0:
            norm = math.sqrt(sum((a[i, j] - b[i, j]) ** 2 for i in range(3) for j in range(3)))
            terms.append(norm**2 if metric == "chordal" else 2 * math.asin(norm / (2 * math.sqrt(2))))
            weights.append(w)
    return mean(terms, weights)


def parameter(predicted, target, weight, penalty, sigma):
    seen = [k for k in range(len(weight)) if weight[k] > 0]
    return mean([rho(penalty, predicted[k] - target[k], sigma) for k in seen], [weight[k] for k in seen])


def scale_smoothness(segment_scale, parents):
    total = 0.0
    for child, parent in enumerate(parents):
        if parent >= 0:
            total += float(np.sum((segment_scale[child] - segment_scale[parent]) ** 2))
    return total


def joint_angle(body_pose):
    return sum(x * x for joint in body_pose for x in joint)


def joint_limit(body_pose):
    lower, upper = (bound.tolist() for bound in default_joint_limits(len(body_pose), dtype=torch.float64))
    total = 0.0
    for j, joint in enumerate(body_pose):
        for axis in range(3):
            total += max(lower[j][axis] - joint[axis], 0.0, joint[axis] - upper[j][axis]) ** 2
    return total


def hinge_limit(body_pose, rate):
    """SMPLify's own indices and signs, into the full pose of 72 numbers."""
    full = [0.0, 0.0, 0.0, *body_pose.reshape(-1)]
    return sum(math.exp(rate * sign * full[index]) for index, sign in ((55, 1), (58, -1), (12, -1), (15, -1)))


def determinant(matrix):
    (a, b, c), (d, e, f), (g, h, i) = matrix
    return math.exp(-(a * e * i + b * f * g + c * d * h - c * e * g - b * d * i - a * f * h))


def bone_symmetry(joints, mask):
    total = 0.0
    for (a, b), (c, d) in PAIRS:
        if all(mask[k] > 0 for k in (a, b, c, d)):
            total += (math.dist(joints[a], joints[b]) - math.dist(joints[c], joints[d])) ** 2
    return total


def bone_ratio(joints, mask):
    if not all(mask[k] > 0 for k in TRUNK):
        return 0.0
    trunk = math.dist(joints[TRUNK[0]], joints[TRUNK[1]]) + math.dist(joints[TRUNK[1]], joints[TRUNK[2]])
    total = 0.0
    for (a, b), ratio in zip(BONES, RATIOS, strict=True):
        if mask[a] > 0 and mask[b] > 0:
            total += (math.dist(joints[a], joints[b]) / trunk - ratio) ** 2
    return total


def ordinal_depth(depth, relations):
    terms = []
    for i in range(len(depth)):
        for j in range(len(depth)):
            r = relations[i, j]
            if i == j or math.isnan(r):
                continue
            if r > 0:
                terms.append(math.log(1 + math.exp(depth[i] - depth[j])))
            elif r < 0:
                terms.append(math.log(1 + math.exp(depth[j] - depth[i])))
            else:
                terms.append((depth[i] - depth[j]) ** 2)
    return mean(terms, [1.0] * len(terms))


def motion(predicted, target, confidence, order, penalty, sigma):
    stencil = {1: (-1, 1), 2: (1, -2, 1)}[order]
    terms, weights = [], []
    for t in range(len(predicted) - order):
        for k in range(predicted.shape[1]):
            weight = min(confidence[t + s, k] for s in range(order + 1))
            if not weight > 0:
                continue
            difference = sum(c * (predicted[t + s, k] - target[t + s, k]) for s, c in enumerate(stencil))
            terms.append(rho(penalty, math.sqrt(sum(x * x for x in difference)), sigma))
            weights.append(weight)
    return mean(terms, weights)


def distance_field(mask):
    height, width = mask.shape
    inside = [(i, j) for i in range(height) for j in range(width) if mask[i, j] > 0.5]
    return [[min(math.dist((i, j), p) for p in inside) for j in range(width)] for i in range(height)]


def outside(projected, mask, weight, penalty, sigma):
    field = distance_field(mask)
    height, width = mask.shape
    terms, weights = [], []
    for (x, y), w in zip(projected, weight, strict=True):
        if not w > 0:
            continue
        column, row = min(max(x - 0.5, 0), width - 1), min(max(y - 0.5, 0), height - 1)
        left, top = min(int(column), width - 2), min(int(row), height - 2)
        u, v = column - left, row - top
        depth = 0.0
        for di, share_y in ((0, 1 - v), (1, v)):
            for dj, share_x in ((0, 1 - u), (1, u)):
                depth += share_x * share_y * field[top + di][left + dj]
        terms.append(rho(penalty, math.hypot(depth, x - 0.5 - column, y - 0.5 - row), sigma))
        weights.append(w)
    return mean(terms, weights)


def coverage(projected, samples, weight, penalty, sigma):
    kept = [p for p, w in zip(projected, weight, strict=True) if w > 0]
    if not kept:
        return 0.0
    return mean([rho(penalty, min(math.dist(s, p) for p in kept), sigma) for s in samples], [1.0] * len(samples))
