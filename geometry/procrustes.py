"""The similarity transform that best aligns one set of points with another."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .checks import broadcast_batches, expect_shape
from .orthonormal import nearest_rotation


class Similarity(NamedTuple):
    """The map x → scale · rotation x + translation.

    Attributes:
        scale: (*batch) positive factor.
        rotation: (*batch, 3, 3) proper rotation.
        translation: (*batch, 3).
    """

    scale: Float[Tensor, "*batch"]
    rotation: Float[Tensor, "*batch 3 3"]
    translation: Float[Tensor, "*batch 3"]

    def apply(self, points: Float[Tensor, "*#batch N 3"]) -> Float[Tensor, "*#batch N 3"]:
        """Return the transformed points, (*batch, N, 3)."""
        expect_shape("points", points, "N", 3)
        return self.scale[..., None, None] * (points @ self.rotation.mT) + self.translation[..., None, :]


def procrustes(
    source: Float[Tensor, "*#batch N 3"],
    target: Float[Tensor, "*#batch N 3"],
    *,
    weights: Float[Tensor, "*#batch N"] | None = None,
    scale: bool = True,
) -> Similarity:
    """Return the similarity that takes `source` nearest to `target` in (weighted) least squares; never a reflection.

    Right to second order where the rotation is unique (see `nearest_rotation`): at least three points that are not on a
    line. Elsewhere value and gradient are finite: points on a line leave the turn about it open, a source that is one
    point leaves the scale at 1 and the rotation at the identity, and weights that sum to zero give the identity map.

    Args:
        source: (*batch, N, 3).
        target: (*batch, N, 3) corresponding points.
        weights: (*batch, N), not negative; all one when None. Zero leaves a point out, provided it is finite.
        scale: whether to fit the scale; otherwise it is 1.

    Returns:
        The similarity; `result.apply(source)` is the aligned source.

    Raises:
        ValueError: the last dimensions are not (N, 3), the numbers of points differ, or the batches do not broadcast.

    Source: Umeyama (1991), "Least-squares estimation of transformation parameters between two point patterns".

    Example:
        >>> points = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> procrustes(points, 2 * points + 1).scale.round(decimals=5)
        tensor(2.)
    """
    count = source.shape[-2] if source.ndim > 1 else 0
    batches = {"source": expect_shape("source", source, "N", 3), "target": expect_shape("target", target, count, 3)}
    if weights is None:
        weights = source.new_ones(count)
    batches["weights"] = expect_shape("weights", weights, count)
    batch = broadcast_batches(batches)
    total = weights.sum(-1, keepdim=True)
    share = (weights / torch.where(total > 0, total, 1)).unsqueeze(-1)
    source_mean, target_mean = (share * source).sum(-2, keepdim=True), (share * target).sum(-2, keepdim=True)
    source_offset, target_offset = source - source_mean, target - target_mean
    covariance = (share * target_offset).mT @ source_offset
    rotation = nearest_rotation(covariance)
    if scale:
        factor = _scale(rotation, covariance, share, source, source_offset)
    else:
        factor = torch.ones_like(rotation[..., 0, 0])
    moved = factor[..., None] * (rotation @ source_mean.mT).squeeze(-1)
    translation = target_mean.squeeze(-2) - moved
    return Similarity(factor.expand(batch), rotation.expand(*batch, 3, 3), translation.expand(*batch, 3))


def _scale(rotation: Tensor, covariance: Tensor, share: Tensor, source: Tensor, offset: Tensor) -> Tensor:
    variance = (share * offset * offset).sum((-2, -1))
    # Offsets this small beside the coordinates are their rounding: the source is a single point, without a size.
    rounding = (8 * torch.finfo(source.dtype).eps) ** 2 * (share * source * source).sum((-2, -1))
    sized = variance > rounding.detach()
    return torch.where(sized, (rotation * covariance).sum((-2, -1)) / torch.where(sized, variance, 1), 1)
