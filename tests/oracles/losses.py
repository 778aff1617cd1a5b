"""Losses of one sample as loops in float64 NumPy, from their papers, and a table of every loss with its oracle."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import physique.losses as L
import torch
from physique.bodymodel.families import FAMILIES
from physique.bodymodel.limits import default_joint_limits

PARENTS = FAMILIES["smpl"].skeleton.parents
BODY = FAMILIES["smpl"].skeleton.names[1:]
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


@dataclass(frozen=True)
class Case:
    """A loss with an oracle of one sample and random inputs.

    `inputs` maps names to functions of (batch, generator); `points` names those that are differentiated, and `weight`
    the one that hides entries of them.
    """

    name: str
    loss: Callable
    oracle: Callable
    inputs: dict[str, Callable]
    points: tuple[str, ...]
    weight: str | None = None
    target: str | None = None
    step: float = 1e-3

    def draw(self, batch, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return {name: sample(batch, generator) for name, sample in self.inputs.items()}

    def expected(self, values, batch):
        flat = [value.flatten(0, len(batch) - 1) if batch else value[None] for value in values.values()]
        results = [
            self.oracle(**{name: value[n].numpy() for name, value in zip(values, flat, strict=True)})
            for n in range(len(flat[0]))
        ]
        return torch.tensor(results, dtype=torch.float64).reshape(batch)


def normal(*event, scale=1.0, mean=0.0):
    return lambda batch, g: mean + scale * torch.randn(*batch, *event, dtype=torch.float64, generator=g)


def uniform(*event):
    return lambda batch, g: 0.5 + torch.rand(*batch, *event, dtype=torch.float64, generator=g)


def turns(*event):
    def draw(batch, g):
        q = torch.linalg.qr(torch.randn(*batch, *event, 3, 3, dtype=torch.float64, generator=g)).Q
        return q * torch.linalg.det(q)[..., None, None]

    return draw


def labels(count):
    def draw(batch, g):
        r = torch.randint(-1, 3, (*batch, count, count), generator=g).double()
        return torch.where(r == 2, torch.nan, r)

    return draw


def _mask():
    mask = torch.zeros(12, 16)
    mask[3:9, 4:7] = mask[5:7, 4:13] = 1
    return mask


MASK = _mask()
SILHOUETTE = L.Silhouette.from_mask(MASK, 20, dtype=torch.float64)


def _penalised(name, loss, oracle, inputs, points, weight, target, penalties, sigma, step=1e-3):
    return [
        Case(
            f"{name} {penalty}",
            lambda penalty=penalty, **values: loss(**values, penalty=penalty, sigma=sigma),
            lambda penalty=penalty, **values: oracle(**values, penalty=penalty, sigma=sigma),
            inputs,
            points,
            weight,
            target,
            step,
        )
        for penalty in penalties
    ]


# To stay in a cell of the distance field, with the same nearest point and the same least confident frame.
SMALL_STEP = 1e-5
ALL = ("l1", "l2", "huber", "geman_mcclure")
SPACE = {"predicted": normal(6, 3), "target": normal(6, 3)}
MOTION = {"predicted": normal(5, 3, 3), "target": normal(5, 3, 3), "confidence": uniform(5, 3)}

CASES = [
    *_penalised(
        "reprojection",
        L.reprojection_loss,
        reprojection,
        {"projected": normal(6, 2, scale=2.0), "keypoints": normal(6, 2, scale=2.0), "confidence": uniform(6)},
        ("projected", "keypoints", "confidence"),
        "confidence",
        "keypoints",
        ALL,
        2.0,
    ),
    *_penalised(
        "dense",
        L.dense_correspondence_loss,
        lambda projected, pixels, weight, **kw: points(projected, pixels, weight, **kw),
        {"projected": normal(6, 2, scale=2.0), "pixels": normal(6, 2, scale=2.0), "weight": uniform(6)},
        ("projected", "pixels", "weight"),
        "weight",
        "pixels",
        ALL,
        2.0,
    ),
    *_penalised(
        "joint",
        L.joint_loss,
        lambda predicted, target, confidence, **kw: points(predicted, target, confidence, **kw),
        {**SPACE, "confidence": uniform(6)},
        ("predicted", "target", "confidence"),
        "confidence",
        "target",
        ALL,
        1.0,
    ),
    Case(
        "joint from roots",
        lambda **values: L.joint_loss(**values, root=(1, 2)),
        lambda predicted, target, confidence: points(predicted, target, confidence, "l2", 1.0, root=(1, 2)),
        {**SPACE, "confidence": uniform(6)},
        ("predicted", "target", "confidence"),
        "confidence",
        "target",
    ),
    Case(
        "vertex",
        L.vertex_loss,
        lambda predicted, target, weight: points(predicted, target, weight, "l2", 1.0),
        {**SPACE, "weight": uniform(6)},
        ("predicted", "target", "weight"),
        "weight",
        "target",
    ),
    *(
        Case(
            f"rotation {metric}",
            lambda metric=metric, **values: L.rotation_loss(**values, metric=metric),
            lambda metric=metric, **values: rotation(**values, metric=metric),
            {"predicted": turns(4), "target": turns(4), "weight": uniform(4)},
            ("predicted", "target", "weight"),
            "weight",
            "target",
        )
        for metric in ("chordal", "geodesic")
    ),
    *_penalised(
        "parameter",
        L.parameter_loss,
        parameter,
        {"predicted": normal(7), "target": normal(7), "weight": uniform(7)},
        ("predicted", "target", "weight"),
        "weight",
        "target",
        ALL,
        0.8,
    ),
    Case(
        "scale smoothness",
        lambda segment_scale: L.scale_smoothness_loss(segment_scale, PARENTS),
        lambda segment_scale: scale_smoothness(segment_scale, PARENTS),
        {"segment_scale": normal(24, scale=0.1, mean=1.0)},
        ("segment_scale",),
    ),
    Case(
        "scale smoothness per axis",
        lambda segment_scale: L.scale_smoothness_loss(segment_scale, PARENTS),
        lambda segment_scale: scale_smoothness(segment_scale, PARENTS),
        {"segment_scale": normal(24, 3, scale=0.1, mean=1.0)},
        ("segment_scale",),
    ),
    Case("joint angle", L.joint_angle_loss, joint_angle, {"body_pose": normal(23, 3)}, ("body_pose",)),
    Case("joint limit", L.joint_limit_loss, joint_limit, {"body_pose": normal(23, 3)}, ("body_pose",)),
    *(
        Case(
            f"hinge limit rate {rate:g}",
            lambda body_pose, rate=rate: L.hinge_limit_loss(body_pose, rate=rate),
            lambda body_pose, rate=rate: hinge_limit(body_pose, rate),
            {"body_pose": normal(23, 3)},
            ("body_pose",),
        )
        for rate in (1.0, 2.0)
    ),
    Case("determinant", L.determinant_loss, determinant, {"matrix": normal(3, 3)}, ("matrix",)),
    Case(
        "bone symmetry",
        lambda joints, mask: L.bone_symmetry_loss(joints, PAIRS, mask),
        bone_symmetry,
        {"joints": normal(7, 3), "mask": uniform(7)},
        ("joints",),
        "mask",
    ),
    Case(
        "bone ratio",
        lambda joints, mask: L.bone_ratio_loss(joints, BONES, RATIOS, TRUNK, mask),
        bone_ratio,
        {"joints": normal(7, 3), "mask": uniform(7)},
        ("joints",),
        "mask",
    ),
    Case(
        "ordinal depth",
        L.ordinal_depth_loss,
        ordinal_depth,
        {"depth": normal(5), "relations": labels(5)},
        ("depth",),
    ),
    *(
        case
        for order, name in ((1, "velocity"), (2, "acceleration"))
        for case in _penalised(
            name,
            {1: L.velocity_loss, 2: L.acceleration_loss}[order],
            lambda order=order, **values: motion(**values, order=order),
            MOTION,
            ("predicted", "target", "confidence"),
            "confidence",
            "target",
            ("l1", "l2"),
            1.0,
            SMALL_STEP,
        )
    ),
    *_penalised(
        "silhouette outside",
        lambda projected, weight, **kw: L.silhouette_outside_loss(projected, SILHOUETTE, weight, **kw),
        lambda projected, weight, **kw: outside(projected, MASK.numpy(), weight, **kw),
        {"projected": normal(9, 2, scale=8.0, mean=7.0), "weight": uniform(9)},
        ("projected", "weight"),
        "weight",
        None,
        ALL,
        5.0,
        SMALL_STEP,
    ),
    *_penalised(
        "silhouette coverage",
        lambda projected, weight, **kw: L.silhouette_coverage_loss(projected, SILHOUETTE, weight, **kw),
        lambda projected, weight, **kw: coverage(projected, SILHOUETTE.samples.numpy(), weight, **kw),
        {"projected": normal(9, 2, scale=4.0, mean=7.0), "weight": uniform(9)},
        ("projected",),
        "weight",
        None,
        ALL,
        5.0,
        SMALL_STEP,
    ),
]
