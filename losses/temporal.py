"""How smoothly points move, or how close to a given motion."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..geometry.checks import broadcast_batches, expect_shape
from .robust import Penalty, Sigma, penalise_length
from .weighting import keep, read_weight, weighted_mean


def velocity_loss(
    predicted: Float[Tensor, "*predicted T K D"],
    target: Float[Tensor, "*target T K D"] | None = None,
    confidence: Float[Tensor, "*confidence T K"] | Bool[Tensor, "*confidence T K"] | None = None,
    *,
    penalty: Penalty = "l2",
    sigma: Sigma = 0.1,
) -> Float[Tensor, "*out"]:
    """Return the weighted mean over frames and points of the penalty of the first difference in time.

    Mean of ρ(|(x_{t+1} − x_t) − (x̂_{t+1} − x̂_t)|): without a target, of ρ(|x_{t+1} − x_t|), which prefers rest. The
    points may be joints, vertices, keypoints, or pose and shape numbers.

    A point of confidence 0 (or below, or NaN) in one frame takes out the differences that it is part of, and may be
    NaN; a difference weighs as much as its least confident point. Where nothing is left (fewer than two frames, too)
    the loss is 0 with zero gradient.

    Args:
        predicted: (*B, T, K, D), frames third from the end; the differences are per frame, not per second.
        target: (*B, T, K, D) motion to follow; None: rest.
        confidence: (*B, T, K) weights, at least 0, or a mask; None: all alike.
        penalty: "l1" (lengths), "l2" (squares), "huber" or "geman_mcclure".
        sigma: scale of the last two, in units of the points.

    Returns:
        (*B,), one loss a sequence, in units² ("l1": units).

    Raises:
        ValueError: a shape that does not fit, or an unknown penalty.

    Example:
        >>> steps = torch.tensor([0.0, 1.0, 3.0]).reshape(3, 1, 1)
        >>> velocity_loss(steps)
        tensor(2.5000)
    """
    return _difference_loss(1, predicted, target, confidence, penalty, sigma)


def acceleration_loss(
    predicted: Float[Tensor, "*predicted T K D"],
    target: Float[Tensor, "*target T K D"] | None = None,
    confidence: Float[Tensor, "*confidence T K"] | Bool[Tensor, "*confidence T K"] | None = None,
    *,
    penalty: Penalty = "l2",
    sigma: Sigma = 0.1,
) -> Float[Tensor, "*out"]:
    """Return the weighted mean over frames and points of the penalty of the second difference in time.

    As `velocity_loss`, with x_{t+2} − 2 x_{t+1} + x_t: without a target it prefers uniform motion, and it takes three
    frames.

    Args:
        predicted: (*B, T, K, D), frames third from the end; the differences are per frame².
        target: (*B, T, K, D) motion to follow; None: uniform motion.
        confidence: (*B, T, K) weights, at least 0, or a mask; None: all alike.
        penalty: "l1" (lengths), "l2" (squares), "huber" or "geman_mcclure".
        sigma: scale of the last two, in units of the points.

    Returns:
        (*B,), one loss a sequence, in units² ("l1": units).

    Raises:
        ValueError: a shape that does not fit, or an unknown penalty.

    Example:
        >>> steps = torch.tensor([0.0, 1.0, 3.0]).reshape(3, 1, 1)
        >>> acceleration_loss(steps)
        tensor(1.)
    """
    return _difference_loss(2, predicted, target, confidence, penalty, sigma)


def _difference_loss(
    order: int, predicted: Tensor, target: Tensor | None, confidence: Tensor | None, penalty: Penalty, sigma: Sigma
) -> Tensor:
    shapes = {"predicted": expect_shape("predicted", predicted, "T", "K", "D")}
    frames, count, width = predicted.shape[-3:]
    if target is not None:
        shapes["target"] = expect_shape("target", target, frames, count, width)
    if confidence is not None:
        shapes["confidence"] = expect_shape("confidence", confidence, frames, count)
    broadcast_batches(shapes)
    weight, seen = read_weight(predicted.new_ones(frames, count) if confidence is None else confidence, predicted)
    residual = keep(predicted, seen)
    if target is not None:
        residual = residual - keep(target, seen)
    for _ in range(order):
        residual = residual[..., 1:, :, :] - residual[..., :-1, :, :]
        weight = torch.minimum(weight[..., 1:, :], weight[..., :-1, :])
    return weighted_mean(penalise_length(residual, penalty, sigma).flatten(-2), weight.flatten(-2))
