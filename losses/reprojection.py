"""How far projected keypoints are from the keypoints of the image."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry.checks import broadcast_batches, expect_shape
from .robust import Penalty, Sigma, penalise


def reprojection_loss(
    projected: Float[Tensor, "*projected K 2"],
    keypoints: Float[Tensor, "*keypoints K 2"],
    confidence: Float[Tensor, "*confidence K"],
    *,
    penalty: Penalty = "l1",
    sigma: Sigma = 100.0,
) -> Float[Tensor, "*out"]:
    """Return the confidence-weighted mean over the keypoints of the penalty of x plus that of y.

    Σ_k c_k (ρ(x_k − x̂_k) + ρ(y_k − ŷ_k)) / Σ_k c_k. With "l1" and confidences of 0 and 1 it is HMR's keypoint term
    (Kanazawa et al. 2018) as a mean over the visible points; the paper sums them: multiply by `confidence.sum(-1)`.
    With "geman_mcclure" it is SMPLify's data term (Bogo et al. 2016), where sigma is 100 pixels. Being a mean, it
    weighs a person seen in part like one seen whole, and scaling all confidences changes nothing.

    A keypoint of confidence 0 (or below, or NaN) has no say: its coordinates may be NaN, and its gradient is 0. With
    nothing visible the loss is 0 with zero gradient. A keypoint met exactly has a zero gradient, also under "l1",
    which has a corner there.

    Args:
        projected: (*B, K, 2) model keypoints in the image.
        keypoints: (*B, K, 2) detected keypoints in the same unit: pixels, or normalised by the caller.
        confidence: (*B, K) weights, at least 0.
        penalty: "l1", "l2" (squares), "huber" or "geman_mcclure".
        sigma: scale of the last two, in the unit of the keypoints.

    Returns:
        (*B,), one loss a sample.

    Raises:
        ValueError: a shape that does not fit, or an unknown penalty.

    Example:
        >>> projected = torch.tensor([[0.0, 0.0], [5.0, 5.0]])
        >>> keypoints = torch.tensor([[3.0, 4.0], [float("nan"), float("nan")]])
        >>> reprojection_loss(projected, keypoints, torch.tensor([0.9, 0.0]))
        tensor(7.)
    """
    shapes = {"projected": expect_shape("projected", projected, "K", 2)}
    shapes["keypoints"] = expect_shape("keypoints", keypoints, projected.shape[-2], 2)
    shapes["confidence"] = expect_shape("confidence", confidence, projected.shape[-2])
    broadcast_batches(shapes)
    seen = confidence > 0
    confidence = torch.where(seen, confidence, 0)
    total = confidence.sum(-1, keepdim=True)
    weight = confidence / torch.where(total > 0, total, 1)
    # What is not seen is replaced before any arithmetic, so that a NaN there reaches no gradient.
    residual = torch.where(seen[..., None], projected, 0) - torch.where(seen[..., None], keypoints, 0)
    return (weight * penalise(residual, penalty, sigma).sum(-1)).sum(-1)
