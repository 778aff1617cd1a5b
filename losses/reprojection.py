"""How far projected keypoints and surface points are from where the image shows them."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from .robust import Penalty, Sigma, penalise, penalise_length
from .weighting import expect_points, keep, read_weight, weighted_mean


def reprojection_loss(
    projected: Float[Tensor, "*projected K 2"],
    keypoints: Float[Tensor, "*keypoints K 2"],
    confidence: Float[Tensor, "*confidence K"] | Bool[Tensor, "*confidence K"],
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
        confidence: (*B, K) weights, at least 0, or a mask.
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
    expect_points(2, {"projected": projected, "keypoints": keypoints}, confidence=confidence)
    weight, seen = read_weight(confidence, projected)
    residual = keep(projected, seen) - keep(keypoints, seen)
    return weighted_mean(penalise(residual, penalty, sigma).sum(-1), weight)


def dense_correspondence_loss(
    projected: Float[Tensor, "*projected N 2"],
    pixels: Float[Tensor, "*pixels N 2"],
    weight: Float[Tensor, "*weight N"] | Bool[Tensor, "*weight N"] | None = None,
    *,
    penalty: Penalty = "l2",
    sigma: Sigma = 100.0,
) -> Float[Tensor, "*out"]:
    """Return the weighted mean over surface points of the penalty of the distance to the pixel that shows each.

    Σ_i w_i ρ(|v̂_i − x_i|) / Σ_i w_i. With "l2" it is the dense term of Yoshiyasu & Gamez (2019), a mean squared
    distance. A penalty acts on the whole distance, so that one wrong correspondence is one outlier however the image
    axes lie; use "geman_mcclure" where left and right hands or feet may be exchanged.

    A correspondence of weight 0 (or below, or NaN) has no say: it may be NaN, and its gradient is 0. Without any the
    loss is 0 with zero gradient.

    Args:
        projected: (*B, N, 2) points of the model's surface in the image, in pixels.
        pixels: (*B, N, 2) where the image shows them.
        weight: (*B, N), at least 0, or a mask; None: all alike.
        penalty: "l1" (distances), "l2" (squares), "huber" or "geman_mcclure".
        sigma: scale of the last two, in pixels.

    Returns:
        (*B,), one loss a sample, in pixels² ("l1": pixels).

    Raises:
        ValueError: a shape that does not fit, or an unknown penalty.

    Example:
        >>> projected = torch.tensor([[0.0, 0.0], [5.0, 5.0]])
        >>> pixels = torch.tensor([[3.0, 4.0], [5.0, 5.0]])
        >>> dense_correspondence_loss(projected, pixels, torch.ones(2))
        tensor(12.5000)
    """
    expect_points(2, {"projected": projected, "pixels": pixels}, weight=weight)
    weight, seen = read_weight(weight, projected)
    residual = keep(projected, seen) - keep(pixels, seen)
    return weighted_mean(penalise_length(residual, penalty, sigma), weight)
