"""How far parameter vectors are from others, and segment scales from those of their neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..geometry.checks import broadcast_batches, expect_shape
from .robust import Penalty, Sigma, l2, penalise
from .weighting import read_weight, weighted_mean


def parameter_loss(
    predicted: Float[Tensor, "*predicted P"],
    target: Float[Tensor, "*target P"],
    weight: Float[Tensor, "*weight #P"] | Bool[Tensor, "*weight #P"] | None = None,
    *,
    penalty: Penalty = "huber",
    sigma: Sigma = 1.0,
) -> Float[Tensor, "*out"]:
    """Return the weighted mean over the parameters of the penalty of their difference.

    Σ_p w_p ρ(Φ_p − Φ̂_p) / Σ_p w_p. By default it is the smooth L1 that Yoshiyasu & Gamez (2019) train their regressor
    with, as a mean; "l2" is HMR's and Pavlakos et al.'s (CVPR 2018). Both sum: multiply by P. Distances of axis-angle
    vectors mislead where angles are large; for rotations take `rotation_loss`.

    A parameter of weight 0 (or below, or NaN) has no say: it may be NaN, and its gradient is 0. A weight of (*B, 1)
    turns whole samples on and off.

    Args:
        predicted: (*B, P).
        target: (*B, P).
        weight: (*B, P) or (*B, 1), at least 0, or a mask; None: all alike.
        penalty: "l1", "l2" (squares), "huber" (with sigma 1: smooth L1) or "geman_mcclure".
        sigma: scale of the last two, in the unit of the parameters; a number or a tensor that broadcasts against them.

    Returns:
        (*B,), one loss a sample.

    Raises:
        ValueError: a shape that does not fit, or an unknown penalty.

    Example:
        >>> parameter_loss(torch.tensor([0.5, 3.0]), torch.zeros(2))
        tensor(1.3125)
    """
    shapes = {"predicted": expect_shape("predicted", predicted, "P")}
    count = predicted.shape[-1]
    shapes["target"] = expect_shape("target", target, count)
    if weight is not None:
        if weight.dim() and weight.shape[-1] == 1:
            weight = weight.expand(*weight.shape[:-1], count)
        shapes["weight"] = expect_shape("weight", weight, count)
    broadcast_batches(shapes)
    weight, seen = read_weight(weight, predicted.unsqueeze(-1))
    residual = torch.where(seen, predicted, 0) - torch.where(seen, target, 0)
    return weighted_mean(penalise(residual, penalty, sigma), weight)


def scale_smoothness_loss(
    segment_scale: Float[Tensor, "*scale J"] | Float[Tensor, "*scale J 3"], parents: Sequence[int]
) -> Float[Tensor, "*out"]:
    """Return the sum over the bones of the squared difference of the scales of the two segments that meet there.

    Σ_j (s_j − s_parent(j))², the scale-smoothness term of Yoshiyasu & Gamez (2019); their equation is not preserved,
    this is the form that the text fits. It does not see a common factor of all scales: hold that by another term.
    With three numbers a segment (`per_axis`) each is compared with the parent's of the same place, the first being
    along the bone.

    Args:
        segment_scale: (*B, J), or (*B, J, 3); with a skeleton of three joints only the first.
        parents: the parent of each joint, -1 first, such as `data.skeleton.parents`.

    Returns:
        (*B,), one loss a sample.

    Raises:
        ValueError: a shape that does not fit the skeleton, or parents that are no tree.

    Example:
        >>> scale_smoothness_loss(torch.tensor([1.0, 1.0, 1.5, 1.5]), parents=(-1, 0, 0, 1))
        tensor(0.5000)
    """
    parents = list(parents)
    count = len(parents)
    if not parents or parents[0] != -1 or not all(0 <= parent < j for j, parent in enumerate(parents[1:], start=1)):
        raise ValueError(
            f"parents: expected -1 first and each parent before its child, got {parents}; pass skeleton.parents"
        )
    per_axis = segment_scale.dim() > 1 and segment_scale.shape[-1] != count
    expect_shape("segment_scale", segment_scale, *((count, 3) if per_axis else (count,)))
    scale = segment_scale if per_axis else segment_scale.unsqueeze(-1)
    return l2(scale[..., 1:, :] - scale[..., parents[1:], :]).sum((-2, -1))
