"""How well projected points fill a silhouette and stay inside it, without a renderer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..geometry.checks import broadcast_batches, expect_shape
from .robust import Penalty, Sigma, penalise_length
from .weighting import expect_points, keep, read_weight, weighted_mean

# Distances between mask samples and points that are held at a time, per sample.
SEARCH_SIZE = 1 << 20


class Silhouette(NamedTuple):
    """What the loss needs of a mask, prepared once.

    Pixel (row i, column j) covers j ≤ x < j + 1, i ≤ y < i + 1, and its centre is (j + ½, i + ½).

    Attributes:
        distance: (*B, H, W) from each pixel's centre to that of the nearest pixel of the mask, in pixels; 0 inside.
        samples: (*B, M, 2) centres of pixels of the mask, spread evenly over it.
        weight: (*B,) 1, or 0 where the mask is empty: then the sample has no say.
    """

    distance: Float[Tensor, "*batch H W"]
    samples: Float[Tensor, "*batch M 2"]
    weight: Float[Tensor, "*batch"]

    @classmethod
    def from_mask(
        cls,
        mask: Bool[Tensor, "*batch H W"] | Float[Tensor, "*batch H W"] | Int[Tensor, "*batch H W"],
        num_samples: int = 256,
        *,
        dtype: torch.dtype | None = None,
    ) -> Silhouette:
        """Measure a mask: its exact distance transform and a fixed number of its pixels, by SciPy on the CPU.

        The same mask always gives the same samples. A mask of fewer pixels than samples has some more than once.

        Args:
            mask: (*B, H, W), the person where above ½.
            num_samples: pixels of the mask for the coverage term.
            dtype: of the result, which is on the mask's device; default: torch's default.

        Raises:
            ValueError: fewer than two dimensions, or no pixels or samples.

        Example:
            >>> mask = torch.zeros(4, 6, dtype=torch.bool)
            >>> mask[1:3, 1:3] = True
            >>> Silhouette.from_mask(mask).distance[1]
            tensor([1., 0., 0., 1., 2., 3.])
        """
        from scipy import ndimage

        batch = expect_shape("mask", mask, "H", "W")
        height, width = mask.shape[-2:]
        if not height * width or num_samples < 1:
            got = f"{height}x{width} and {num_samples}"
            raise ValueError(f"mask: expected pixels and num_samples >= 1, got {got}; give one or more of each")
        inside = (mask.detach() > 0.5).cpu().numpy().reshape(-1, height, width)
        distance = np.zeros(inside.shape)
        samples = np.zeros((len(inside), num_samples, 2))
        spread = np.random.default_rng(0).random(num_samples)
        for each, far, chosen in zip(inside, distance, samples, strict=True):
            ids = np.flatnonzero(each)
            if not len(ids):
                continue
            far[:] = ndimage.distance_transform_edt(~each)
            # One pixel of each of equal runs in reading order, at a random place so that no columns form.
            picked = ids[((np.arange(num_samples) + spread) * len(ids) / num_samples).astype(int)]
            chosen[:] = np.stack((picked % width, picked // width), axis=-1) + 0.5
        weight = inside.any((1, 2)).astype(float)
        kind = {"dtype": dtype or torch.get_default_dtype(), "device": mask.device}
        return cls(
            torch.as_tensor(distance, **kind).reshape(*batch, height, width),
            torch.as_tensor(samples, **kind).reshape(*batch, num_samples, 2),
            torch.as_tensor(weight, **kind).reshape(batch),
        )


def silhouette_loss(
    projected: Float[Tensor, "*projected V 2"],
    silhouette: Silhouette | Tensor,
    weight: Float[Tensor, "*weight V"] | Bool[Tensor, "*weight V"] | None = None,
    *,
    penalty: Penalty = "l2",
    sigma: Sigma = 100.0,
) -> Float[Tensor, "*out"]:
    """Return `silhouette_outside_loss` plus `silhouette_coverage_loss`: no point outside, no part of the mask empty.

    Args:
        projected: (*B, V, 2) vertices or surface points in the image, in pixels.
        silhouette: prepared by `Silhouette.from_mask`, once; or the mask (*B, H, W) itself, which is then measured in
            every call, on the CPU.
        weight: (*B, V), at least 0, or a mask of the points that count; None: all alike.
        penalty: "l1" (distances), "l2" (squares), "huber" or "geman_mcclure".
        sigma: scale of the last two, in pixels.

    Returns:
        (*B,), one loss a sample, in pixels² ("l1": pixels).

    Raises:
        ValueError: a shape that does not fit, or an unknown penalty.

    Example:
        >>> mask = torch.zeros(20, 20)
        >>> mask[5:15, 5:15] = 1
        >>> silhouette = Silhouette.from_mask(mask)
        >>> corners = torch.tensor([[5.0, 5.0], [5.0, 15.0], [15.0, 5.0], [15.0, 15.0], [10.0, 10.0]])
        >>> bool(silhouette_loss(corners, silhouette) < silhouette_loss(corners + 5, silhouette))
        True
    """
    if not isinstance(silhouette, Silhouette):
        silhouette = Silhouette.from_mask(silhouette, dtype=projected.dtype)
    outside = silhouette_outside_loss(projected, silhouette, weight, penalty=penalty, sigma=sigma)
    return outside + silhouette_coverage_loss(projected, silhouette, weight, penalty=penalty, sigma=sigma)


def silhouette_outside_loss(
    projected: Float[Tensor, "*projected V 2"],
    silhouette: Silhouette,
    weight: Float[Tensor, "*weight V"] | Bool[Tensor, "*weight V"] | None = None,
    *,
    penalty: Penalty = "l2",
    sigma: Sigma = 100.0,
) -> Float[Tensor, "*out"]:
    """Return the weighted mean over the points of the penalty of their distance to the mask.

    The distance field is interpolated between the centres of four pixels. A point outside the image is measured from
    its nearest place inside, and the way there is the other leg of a right triangle: never more than the true distance,
    and pulling back from anywhere. Value, gradient and second derivatives are finite everywhere; the gradient jumps
    from one cell of the interpolation to the next, as that of the true distance does halfway between two limbs.

    A point of weight 0 (or below, or NaN) has no say. An empty mask, or no point, gives 0 with zero gradient.

    Args:
        projected: (*B, V, 2) points in the image, in pixels.
        silhouette: prepared by `Silhouette.from_mask`.
        weight: (*B, V), at least 0, or a mask of the points that count; None: all alike.
        penalty: "l1" (distances), "l2" (squares), "huber" or "geman_mcclure".
        sigma: scale of the last two, in pixels.

    Returns:
        (*B,), one loss a sample, in pixels² ("l1": pixels).

    Raises:
        ValueError: a shape that does not fit, or an unknown penalty.
    """
    _expect(projected, silhouette, weight)
    weight, seen = read_weight(weight, projected)
    weight = weight * (silhouette.weight > 0).unsqueeze(-1)
    projected = keep(projected, seen)
    field = silhouette.distance.to(projected.dtype)
    height, width = field.shape[-2:]
    x, y = projected.unbind(-1)
    inner_x, inner_y = x.clamp(0.5, width - 0.5), y.clamp(0.5, height - 0.5)
    depth = _interpolate(field, inner_x - 0.5, inner_y - 0.5)
    residual = torch.stack((depth, x - inner_x, y - inner_y), dim=-1)
    return weighted_mean(penalise_length(residual, penalty, sigma), weight)


def silhouette_coverage_loss(
    projected: Float[Tensor, "*projected V 2"],
    silhouette: Silhouette,
    weight: Float[Tensor, "*weight V"] | Bool[Tensor, "*weight V"] | None = None,
    *,
    penalty: Penalty = "l2",
    sigma: Sigma = 100.0,
) -> Float[Tensor, "*out"]:
    """Return the mean over samples of the mask of the penalty of the distance to the nearest point.

    It is right to second order wherever the nearest point is unique; with a tie, one of them is pulled. With points as
    dense as vertices it is near 0 for a body that fills the mask; half the spacing of sparse points remains.

    A point of weight 0 (or below, or NaN) covers nothing; other weights make no difference. An empty mask, or no point,
    gives 0 with zero gradient.

    Args:
        projected: (*B, V, 2) points in the image, in pixels.
        silhouette: prepared by `Silhouette.from_mask`.
        weight: (*B, V), above 0 for the points that count; None: all of them.
        penalty: "l1" (distances), "l2" (squares), "huber" or "geman_mcclure".
        sigma: scale of the last two, in pixels.

    Returns:
        (*B,), one loss a sample, in pixels² ("l1": pixels).

    Raises:
        ValueError: a shape that does not fit, or an unknown penalty.
    """
    batch = _expect(projected, silhouette, weight)
    _, seen = read_weight(weight, projected)
    samples = silhouette.samples.to(projected.dtype)
    if not projected.shape[-2]:
        return projected.sum((-2, -1)).expand(batch) * 0
    projected = keep(projected, seen).expand(*batch, *projected.shape[-2:])
    nearest = _nearest(samples, projected.detach(), seen)
    found = torch.gather(projected, -2, nearest.unsqueeze(-1).expand(*batch, -1, 2))
    counted = (silhouette.weight > 0) & seen.any(-1)
    residual = keep(samples - found, counted.unsqueeze(-1))
    return penalise_length(residual, penalty, sigma).mean(-1)


def _expect(projected: Tensor, silhouette: Silhouette, weight: Tensor | None) -> torch.Size:
    shapes = {"points": expect_points(2, {"projected": projected}, weight=weight)}
    shapes["silhouette"] = expect_shape("silhouette.distance", silhouette.distance, "H", "W")
    expect_points(2, {"silhouette.samples": silhouette.samples})
    return broadcast_batches(shapes)


def _interpolate(field: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return (*B, H, W) at columns x and rows y (*B, V), bilinearly; both must lie inside."""
    height, width = field.shape[-2:]
    # Clamped once more as integers, because NaN has none.
    left = x.detach().floor().long().clamp(0, max(width - 2, 0))
    top = y.detach().floor().long().clamp(0, max(height - 2, 0))
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    right_share, bottom_share = x - left, y - top
    batch = torch.broadcast_shapes(field.shape[:-2], x.shape[:-1])
    flat = field.flatten(-2).expand(*batch, height * width)

    def at(row: Tensor, column: Tensor) -> Tensor:
        return torch.gather(flat, -1, (row * width + column).expand(*batch, x.shape[-1]))

    upper = (1 - right_share) * at(top, left) + right_share * at(top, right)
    lower = (1 - right_share) * at(bottom, left) + right_share * at(bottom, right)
    return (1 - bottom_share) * upper + bottom_share * lower


def _nearest(samples: Tensor, points: Tensor, seen: Tensor) -> Tensor:
    """Return the index (*B, M) of the point that counts nearest to each sample."""
    # |s − p|² less |s|², and halved: one product. About the middle of the mask little is lost to rounding.
    middle = samples.mean(-2, keepdim=True)
    samples, points = samples - middle, points - middle
    size = torch.where(seen, points.square().sum(-1) / 2, torch.inf).unsqueeze(-2)
    chunks = samples.split(max(1, SEARCH_SIZE // points.shape[-2]), dim=-2)
    return torch.cat([(size - some @ points.mT).argmin(-1) for some in chunks], dim=-1)
