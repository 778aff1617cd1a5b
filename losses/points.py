"""How far joints and vertices are from where they should be in space."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor

from .robust import Penalty, Sigma, penalise_length
from .weighting import expect_points, from_root, keep, read_weight, weighted_mean


def joint_loss(
    predicted: Float[Tensor, "*predicted K 3"],
    target: Float[Tensor, "*target K 3"],
    confidence: Float[Tensor, "*confidence K"] | Bool[Tensor, "*confidence K"] | None = None,
    *,
    root: int | Sequence[int] | None = None,
    penalty: Penalty = "l2",
    sigma: Sigma = 0.1,
) -> Float[Tensor, "*out"]:
    """Return the confidence-weighted mean over the joints of the penalty of their distance in space.

    Σ_k c_k ρ(|X_k − X̂_k|) / Σ_k c_k, absolute, or with both sets relative to their root. With "l2" and
    `root=(2, 3)`, the hips of LSP, it is HMR's term on 3D joints (whose code halves it and averages over coordinates:
    multiply by 1/6). With "l1" it is MPJPE as a loss.

    A joint of confidence 0 (or below, or NaN) has no say: it may be NaN, and its gradient is 0. Where none is seen, or
    no root joint is, the loss is 0 with zero gradient. Coincident joints have zero gradient, also under "l1".

    Args:
        predicted: (*B, K, 3) in metres.
        target: (*B, K, 3) in metres.
        confidence: (*B, K) weights, at least 0, or a mask; None: all alike.
        root: the joint that is subtracted, or several whose mean is (of those that are seen); None: absolute.
        penalty: "l1" (distances), "l2" (squares), "huber" or "geman_mcclure".
        sigma: scale of the last two, in metres.

    Returns:
        (*B,), one loss a sample, in metres² ("l1": metres).

    Raises:
        ValueError: a shape that does not fit, an unknown penalty or a root that is no joint.

    Example:
        >>> target = torch.randn(24, 3)
        >>> joint_loss(target + 0.5, target, root=0).round(decimals=5), joint_loss(target + 0.5, target)
        (tensor(0.), tensor(0.7500))
    """
    expect_points(3, {"predicted": predicted, "target": target}, confidence=confidence)
    weight, seen = read_weight(confidence, predicted)
    residual = keep(predicted, seen) - keep(target, seen)
    if root is not None:
        residual, has_root = from_root(residual, seen, root)
        weight = weight * has_root
    return weighted_mean(penalise_length(residual, penalty, sigma), weight)


def vertex_loss(
    predicted: Float[Tensor, "*predicted V 3"],
    target: Float[Tensor, "*target V 3"],
    weight: Float[Tensor, "*weight V"] | Bool[Tensor, "*weight V"] | None = None,
    *,
    penalty: Penalty = "l2",
    sigma: Sigma = 0.1,
) -> Float[Tensor, "*out"]:
    """Return the weighted mean over the vertices of the penalty of their distance in space.

    Σ_v w_v ρ(|P_v − P̂_v|) / Σ_v w_v. With "l2" it is the per-vertex loss of Pavlakos et al. (CVPR 2018) as a mean. A
    vertex of weight 0 has no say, as in `joint_loss`; weights may be vertex areas.

    Args:
        predicted: (*B, V, 3) in metres.
        target: (*B, V, 3) in metres; subtract a joint from both for root-relative vertices.
        weight: (*B, V), at least 0, or a mask; None: all alike.
        penalty: "l1" (distances), "l2" (squares), "huber" or "geman_mcclure".
        sigma: scale of the last two, in metres.

    Returns:
        (*B,), one loss a sample, in metres² ("l1": metres).

    Raises:
        ValueError: a shape that does not fit, or an unknown penalty.

    Example:
        >>> vertices = torch.zeros(6890, 3)
        >>> vertex_loss(vertices + torch.tensor([0.0, 0.3, 0.4]), vertices, penalty="l1")
        tensor(0.5000)
    """
    expect_points(3, {"predicted": predicted, "target": target}, weight=weight)
    weight, seen = read_weight(weight, predicted)
    return weighted_mean(penalise_length(keep(predicted, seen) - keep(target, seen), penalty, sigma), weight)
