"""A table of every loss with its oracle and random inputs, for tests of what holds for all of them."""

from collections.abc import Callable
from dataclasses import dataclass

import physique.losses as L
import torch
from oracles import losses as oracle
from oracles.losses import BONES, PAIRS, RATIOS, TRUNK
from physique.bodymodel.families import FAMILIES

PARENTS = FAMILIES["smpl"].skeleton.parents


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
        oracle.reprojection,
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
        lambda projected, pixels, weight, **kw: oracle.points(projected, pixels, weight, **kw),
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
        lambda predicted, target, confidence, **kw: oracle.points(predicted, target, confidence, **kw),
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
        lambda predicted, target, confidence: oracle.points(predicted, target, confidence, "l2", 1.0, root=(1, 2)),
        {**SPACE, "confidence": uniform(6)},
        ("predicted", "target", "confidence"),
        "confidence",
        "target",
    ),
    Case(
        "vertex",
        L.vertex_loss,
        lambda predicted, target, weight: oracle.points(predicted, target, weight, "l2", 1.0),
        {**SPACE, "weight": uniform(6)},
        ("predicted", "target", "weight"),
        "weight",
        "target",
    ),
    *(
        Case(
            f"rotation {metric}",
            lambda metric=metric, **values: L.rotation_loss(**values, metric=metric),
            lambda metric=metric, **values: oracle.rotation(**values, metric=metric),
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
        oracle.parameter,
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
        lambda segment_scale: oracle.scale_smoothness(segment_scale, PARENTS),
        {"segment_scale": normal(24, scale=0.1, mean=1.0)},
        ("segment_scale",),
    ),
    Case(
        "scale smoothness per axis",
        lambda segment_scale: L.scale_smoothness_loss(segment_scale, PARENTS),
        lambda segment_scale: oracle.scale_smoothness(segment_scale, PARENTS),
        {"segment_scale": normal(24, 3, scale=0.1, mean=1.0)},
        ("segment_scale",),
    ),
    Case("joint angle", L.joint_angle_loss, oracle.joint_angle, {"body_pose": normal(23, 3)}, ("body_pose",)),
    Case("joint limit", L.joint_limit_loss, oracle.joint_limit, {"body_pose": normal(23, 3)}, ("body_pose",)),
    *(
        Case(
            f"hinge limit rate {rate:g}",
            lambda body_pose, rate=rate: L.hinge_limit_loss(body_pose, rate=rate),
            lambda body_pose, rate=rate: oracle.hinge_limit(body_pose, rate),
            {"body_pose": normal(23, 3)},
            ("body_pose",),
        )
        for rate in (1.0, 2.0)
    ),
    Case("determinant", L.determinant_loss, oracle.determinant, {"matrix": normal(3, 3)}, ("matrix",)),
    Case(
        "bone symmetry",
        lambda joints, mask: L.bone_symmetry_loss(joints, PAIRS, mask),
        oracle.bone_symmetry,
        {"joints": normal(7, 3), "mask": uniform(7)},
        ("joints",),
        "mask",
    ),
    Case(
        "bone ratio",
        lambda joints, mask: L.bone_ratio_loss(joints, BONES, RATIOS, TRUNK, mask),
        oracle.bone_ratio,
        {"joints": normal(7, 3), "mask": uniform(7)},
        ("joints",),
        "mask",
    ),
    Case(
        "ordinal depth",
        L.ordinal_depth_loss,
        oracle.ordinal_depth,
        {"depth": normal(5), "relations": labels(5)},
        ("depth",),
    ),
    *(
        case
        for order, name in ((1, "velocity"), (2, "acceleration"))
        for case in _penalised(
            name,
            {1: L.velocity_loss, 2: L.acceleration_loss}[order],
            lambda order=order, **values: oracle.motion(**values, order=order),
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
        lambda projected, weight, **kw: oracle.outside(projected, MASK.numpy(), weight, **kw),
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
        lambda projected, weight, **kw: oracle.coverage(projected, SILHOUETTE.samples.numpy(), weight, **kw),
        {"projected": normal(9, 2, scale=4.0, mean=7.0), "weight": uniform(9)},
        ("projected",),
        "weight",
        None,
        ALL,
        5.0,
        SMALL_STEP,
    ),
]
