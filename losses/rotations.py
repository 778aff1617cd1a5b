"""How far rotations are from others, and a free matrix from being a reflection."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..geometry.checks import broadcast_batches, expect_shape
from ..geometry.rotations import geodesic_angle
from .growth import growing_exp
from .robust import l2
from .weighting import keep, read_weight, weighted_mean


def rotation_loss(
    predicted: Float[Tensor, "*predicted n 3 3"],
    target: Float[Tensor, "*target n 3 3"],
    weight: Float[Tensor, "*weight n"] | Bool[Tensor, "*weight n"] | None = None,
    *,
    metric: Literal["geodesic", "chordal"] = "chordal",
) -> Float[Tensor, "*out"]:
    """Return the weighted mean over the joints of a distance between rotations.

    "chordal" is the squared Frobenius norm |R − R̂|² = 8 sin²(θ/2), which is 2θ² for small angles θ: smooth everywhere,
    also for matrices that are not rotations. HMR's term on rotations is a mean over the nine entries, halved: multiply
    by 1/18. "geodesic" is the angle θ itself, 0 to π, with a kink and zero derivatives at 0, and a kink at π where the
    gradient is finite; its entries must be proper rotations.

    A joint of weight 0 (or below, or NaN) has no say: it may be NaN, and its gradient is 0. Without any the loss is 0.

    Args:
        predicted: (*B, n, 3, 3).
        target: (*B, n, 3, 3).
        weight: (*B, n), at least 0, or a mask; None: all alike.
        metric: "chordal" or "geodesic".

    Returns:
        (*B,), one loss a sample; "geodesic" in radians.

    Raises:
        ValueError: a shape that does not fit, or an unknown metric.

    Example:
        >>> turned = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
        >>> rest = torch.eye(3).expand(1, 3, 3)
        >>> rotation_loss(turned, rest), rotation_loss(turned, rest, metric="geodesic")
        (tensor(4.), tensor(1.5708))
    """
    shapes = {"predicted": expect_shape("predicted", predicted, "n", 3, 3)}
    count = predicted.shape[-3]
    shapes["target"] = expect_shape("target", target, count, 3, 3)
    if weight is not None:
        shapes["weight"] = expect_shape("weight", weight, count)
    broadcast_batches(shapes)
    weight, seen = read_weight(weight, predicted.flatten(-2))
    predicted, target = (keep(each.flatten(-2), seen) for each in (predicted, target))
    if metric == "chordal":
        return weighted_mean(l2(predicted - target).sum(-1), weight)
    if metric == "geodesic":
        # No entry of a rotation exceeds 1; anything else must not overflow.
        predicted, target = (each.clamp(-2, 2).unflatten(-1, (3, 3)) for each in (predicted, target))
        return weighted_mean(geodesic_angle(predicted, target), weight)
    raise ValueError(f"metric: expected geodesic or chordal, got {metric!r}; check the name")


def determinant_loss(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Return exp(−det M): 1/e for a rotation, e for a reflection, and a slope towards larger determinants everywhere.

    The determinant term of Yoshiyasu & Gamez (2019), which keeps a free 3×3 matrix on the side of rotations, where
    orthonormalising three columns would keep a reflection. Their equation is not preserved; this is the form that the
    text fits. `physique.geometry.gram_schmidt` never returns a reflection, with or without this loss.

    Below a determinant of −20 it goes on as a straight line, and entries beyond finfo.max^0.15 (6e5 in float32) count
    as that, so that value and gradient stay finite.

    Args:
        matrix: (*B, 3, 3) before orthonormalising.

    Returns:
        (*B,), one loss a sample.

    Raises:
        ValueError: the last dimensions are not (3, 3).

    Example:
        >>> determinant_loss(torch.diag(torch.tensor([1.0, 1.0, -1.0])))
        tensor(2.7183)
    """
    expect_shape("matrix", matrix, 3, 3)
    largest = torch.finfo(matrix.dtype).max ** 0.15
    first, second, third = matrix.clamp(-largest, largest).unbind(-1)
    # A polynomial: unlike the derivatives of torch.linalg.det, its derivatives divide by nothing.
    return growing_exp(-(first * torch.linalg.cross(second, third)).sum(-1))
