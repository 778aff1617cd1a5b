"""Where a body stands: its translation from matching 3D and 2D points, by least squares."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry.checks import broadcast_batches, expect_shape
from .arguments import PerAxis, per_axis

FALLBACK_DEPTH = 1.0


def translation_from_points(
    points3d: Float[Tensor, "*points3d N 3"],
    points2d: Float[Tensor, "*points2d N 2"],
    confidence: Float[Tensor, "*confidence N"] | None = None,
    *,
    focal: PerAxis,
    center: PerAxis,
) -> Float[Tensor, "*out 3"]:
    """Return the translation T for which a perspective camera sees `points3d + T` at `points2d`, by least squares.

    With a = (u − cx)/f each point asks that Tx − a·Tz = a·Z − X, and the same in y, weighted by its confidence: the
    linear system of SPIN's `estimate_translation` (Kolotouros et al. 2019), solved in closed form about the weighted
    means, which keeps float32 accurate at a depth of 50 m. Differentiable in every argument. It weighs a near point
    and a far one alike in metres at their depth, not in pixels.

    Two distinct visible pixels fix T. With only one (or several at one place) the depth is free: T's depth is then 1
    and the points lie on their ray in the mean. With none, T = (0, 0, 1).

    Args:
        points3d: (*B, N, 3) in camera axes, in metres: rotate them first.
        points2d: (*B, N, 2) pixels; any value, NaN included, where the confidence is 0.
        confidence: (*B, N) weights, at least 0; default 1.
        focal: focal length in pixels: a number, a pair, (*B,) or (*B, 2).
        center: (2,) or (*B, 2) principal point in pixels.

    Returns:
        (*B, 3) in metres.

    Raises:
        ValueError: a shape that does not fit.

    Example:
        >>> points = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        >>> pixels = torch.tensor([[100.0, 100.0], [350.0, 100.0]])
        >>> translation_from_points(points, pixels, focal=1000.0, center=(100.0, 100.0))
        tensor([0., 0., 4.])
    """
    shapes = {
        "points3d": expect_shape("points3d", points3d, "N", 3),
        "points2d": expect_shape("points2d", points2d, points3d.shape[-2], 2),
    }
    if confidence is None:
        confidence = points2d.new_ones(points2d.shape[:-1])
    shapes["confidence"] = expect_shape("confidence", confidence, points3d.shape[-2])
    batch = broadcast_batches(shapes)
    focals = per_axis("focal", focal, len(batch), points2d)[..., None, :]
    centers = per_axis("center", center, 0, points2d)[..., None, :]

    seen = confidence > 0
    total = torch.where(seen, confidence, 0).sum(-1, keepdim=True)
    weight = torch.where(seen, confidence / torch.where(total > 0, total, 1), 0)[..., None]
    # What is not seen is replaced before any arithmetic, so that a NaN there reaches no gradient.
    points2d = torch.where(seen[..., None], points2d, 0)
    points3d = torch.where(seen[..., None], points3d, 0)
    slope = (points2d - centers) / focals
    offset = slope * points3d[..., 2:] - points3d[..., :2]

    mean_slope = (weight * slope).sum(-2, keepdim=True)
    mean_offset = (weight * offset).sum(-2, keepdim=True)
    spread = slope - mean_slope
    variance = (weight * spread.square()).sum((-2, -1))
    covariance = (weight * spread * (offset - mean_offset)).sum((-2, -1))
    # Rounding alone spreads equal slopes by eps times their size.
    eps = torch.finfo(slope.dtype).eps
    fixed = variance > (16 * eps) ** 2 * (mean_slope.square().sum((-2, -1)) + eps)
    depth = torch.where(fixed, -covariance / torch.where(fixed, variance, 1), FALLBACK_DEPTH)
    across = mean_offset[..., 0, :] + mean_slope[..., 0, :] * depth[..., None]
    return torch.cat([across, depth[..., None]], dim=-1)
