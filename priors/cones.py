"""Learn the swing and twist cones of a joint: the smallest that hold given rotations."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_ROUNDS = 4
_STEPS = 200


class Cones(NamedTuple):
    """Limits of one joint, on the vector part v of conj(center)·q; see `JointLimits`.

    Attributes:
        center: (4,) unit quaternion, scalar first.
        swing: (2, 3) with |swing v| <= 1 inside.
        twist: (3,) with |twist·v| <= 1 inside.
    """

    center: Float[Tensor, "4"]
    swing: Float[Tensor, "2 3"]
    twist: Float[Tensor, "3"]


def fit_cones(quaternions: Float[Tensor, "N 4"], axis: Float[Tensor, "3"], *, coverage: float, margin: float) -> Cones:
    """Return the smallest cones that hold a share of the rotations, widened by a margin.

    The center starts at the mean rotation and moves to the middle of the ellipse of least area and of the interval of
    twist; after a few rounds both are centred at it to a fraction of a degree, and what is left is held by the size.

    Args:
        quaternions: (N, 4) unit quaternions, scalar first, of any sign.
        axis: (3,) the direction of the bone, of length 1.
        coverage: the share.
        margin: of the half axes, as the sine of half an angle.
    """
    # An orthonormal frame whose last row is the bone.
    frame = torch.cat((torch.linalg.svd(axis[None]).Vh[1:], axis[None]))
    _, vectors = torch.linalg.eigh(quaternions.mT @ quaternions)
    center = vectors[:, -1]  # the mean rotation, in the sense of Frobenius
    quaternions = _without_outliers(quaternions, center, coverage)
    for _ in range(_ROUNDS):
        local = _vector_parts(center, quaternions) @ frame.mT
        middle = _enclosing_center(_outline(local[:, :2], margin))
        along = (local[:, 2].min() + local[:, 2].max())[None] / 2
        center = _turned(center, torch.cat((middle, along)) @ frame)
    local = _vector_parts(center, quaternions) @ frame.mT
    # Half axes of the smallest ellipse, each longer by the margin.
    values, turns = torch.linalg.eigh(_enclosing_form(_outline(local[:, :2], margin)))
    swing = (turns / (values.rsqrt() + margin)).mT @ frame[:2]
    return Cones(center, swing, axis / (local[:, 2].abs().max() + margin))


def vector_from(
    center: Float[Tensor, "*#batch 4"], quaternion: Float[Tensor, "*#batch 4"]
) -> Float[Tensor, "*batch 3"]:
    """Return the vector part of conj(center)·quaternion, both scalar first."""
    w, v = center[..., :1], center[..., 1:]
    other_w, other = quaternion[..., :1], quaternion[..., 1:]
    return w * other - other_w * v - torch.linalg.cross(v.expand_as(other), other)


def _outline(points: Tensor, margin: float) -> Tensor:
    """Return the corners of the hull of points in the plane, and of a small square that keeps it from being flat."""
    from scipy.spatial import ConvexHull  # only for learning, and slow to import

    corners = margin * torch.tensor([[1, 0], [-1, 0], [0, 1], [0, -1]]).to(points)
    points = torch.cat((points, corners))
    return points[torch.as_tensor(ConvexHull(points.cpu().numpy()).vertices, device=points.device).long()]


def _enclosing_form(points: Tensor) -> Tensor:
    """Return the M of the ellipsoid pᵀ M p <= 1 of least volume about zero that holds all points (N, D).

    Points weigh 1/N at first; weights then grow where the form exceeds its mean, which converges to the dual of the
    least volume (Silvey, Titterington & Torsney 1978). The last form is scaled to hold every point.
    """
    weights = points.new_full((len(points),), 1 / len(points))
    for _ in range(_STEPS):
        weights = weights * _values(points, _dual(points, weights)) / points.shape[1]
    form = _dual(points, weights)
    return form / _values(points, form).max()


def _dual(points: Tensor, weights: Tensor) -> Tensor:
    return torch.linalg.inv(points.mT @ (weights[:, None] * points))


def _values(points: Tensor, form: Tensor) -> Tensor:
    """Return pᵀ M p of each point."""
    return ((points @ form) * points).sum(-1)


def _enclosing_center(points: Tensor) -> Tensor:
    """Return the centre of the ellipsoid of least volume that holds all points (N, D)."""
    # Lift the points to height 1: the ellipsoid about zero up there cuts that plane in the one looked for.
    form = _enclosing_form(torch.cat((points, points.new_ones(len(points), 1)), dim=-1))
    return -torch.linalg.solve(form[:-1, :-1], form[:-1, -1])


def _without_outliers(quaternions: Tensor, center: Tensor, coverage: float) -> Tensor:
    """Return the share of rotations that is least unusual, by a normal distribution of their vector parts."""
    local = _vector_parts(center, quaternions)
    spread = local.mT @ local / len(local) + 1e-6 * torch.eye(3).to(local)
    unusual = (local * torch.linalg.solve(spread, local.mT).mT).sum(-1)
    return quaternions[unusual <= unusual.quantile(coverage)]


def _vector_parts(center: Tensor, quaternions: Tensor) -> Tensor:
    """Return the vector parts relative to the center, of the quaternions with positive scalar part."""
    sign = torch.where(quaternions @ center < 0, -1.0, 1.0).to(center)
    return vector_from(center, quaternions * sign[:, None])


def _turned(center: Tensor, vector: Tensor) -> Tensor:
    """Return center·(√(1 − v²), v), normalised."""
    w, v = center[0], center[1:]
    scalar = (1 - vector @ vector).clamp(min=0).sqrt()
    product = torch.cat(((w * scalar - v @ vector)[None], w * vector + scalar * v + torch.linalg.cross(v, vector)))
    return product / torch.linalg.vector_norm(product)
