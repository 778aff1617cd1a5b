"""Scores in the image: pixels, keypoint similarity, part segmentation, dense correspondences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..bodymodel.keypoint_sets import keypoint_set
from ..geometry.checks import broadcast_batches, expect_shape
from .robust import distance
from .weighting import expect_points, keep, mean_of, read_weight

# DensePose's evaluator: coarse part of each of 24 fine parts (0: none), and its kappa in metres.
_COARSE = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 8, 8)
_KAPPA = (0.0, 0.351, 0.107, 0.126, 0.237, 0.173, 0.142, 0.128, 0.150)


def per_pixel_error(
    predicted: Float[Tensor, "*predicted N 2"],
    target: Float[Tensor, "*target N 2"],
    mask: Float[Tensor, "*mask N"] | Bool[Tensor, "*mask N"] | None = None,
) -> Float[Tensor, "*out"]:
    """Return the mean distance in the image between projected points, usually all vertices.

    The per-pixel error of Yoshiyasu & Gamez (2019).

    Args:
        predicted: (*B, N, 2) in pixels.
        target: (*B, N, 2) in pixels.
        mask: (*B, N), above 0 where a point counts; None: everywhere. Elsewhere it may be NaN.

    Returns:
        (*B,) in pixels; NaN where no point counts.

    Raises:
        ValueError: a shape that does not fit.

    Example:
        >>> per_pixel_error(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.zeros(2, 2))
        tensor(2.5000)
    """
    expect_points(2, {"predicted": predicted, "target": target}, mask=mask)
    _, seen = read_weight(mask, predicted)
    return mean_of(distance(keep(predicted, seen) - keep(target, seen)), seen)


def oks(
    predicted: Float[Tensor, "*predicted K 2"],
    target: Float[Tensor, "*target K 2"],
    mask: Float[Tensor, "*mask K"] | Bool[Tensor, "*mask K"] | None,
    area: int | float | Float[Tensor, "*area"],
    *,
    sigmas: str | Sequence[float] | Float[Tensor, " K"] = "coco17",
) -> Float[Tensor, "*out"]:
    """Return COCO's object keypoint similarity, 0 to 1: the mean of exp(−d²/(2 a k²)) with k = 2σ over labelled points.

    Args:
        predicted: (*B, K, 2) in pixels.
        target: (*B, K, 2) in pixels.
        mask: (*B, K), above 0 where the target is labelled (COCO's v > 0); None: everywhere. Elsewhere it may be NaN.
        area: (*B,) of the person's segment, in pixels²; at least 0.
        sigmas: (K,) constants of the keypoints, or the name of a keypoint set that has them.

    Returns:
        (*B,); NaN where nothing is labelled (COCO then compares boxes).

    Raises:
        ValueError: a shape that does not fit, or a set without constants.

    Example:
        >>> target = torch.zeros(17, 2)
        >>> oks(target, target, None, area=1e4)
        tensor(1.)
    """
    expect_points(2, {"predicted": predicted, "target": target}, mask=mask)
    if isinstance(sigmas, str):
        constants = keypoint_set(sigmas).sigmas
        if constants is None:
            raise ValueError(f"sigmas: expected a set with OKS constants, got {sigmas!r}; give one number a keypoint")
        sigmas = constants
    sigma = torch.as_tensor(sigmas, dtype=predicted.dtype, device=predicted.device)
    expect_shape("sigmas", sigma, predicted.shape[-2])
    area = torch.as_tensor(area, dtype=predicted.dtype, device=predicted.device).unsqueeze(-1)
    _, seen = read_weight(mask, predicted)
    away = distance(keep(predicted, seen) - keep(target, seen))
    unit = 2 * sigma * area.clamp(min=torch.finfo(area.dtype).tiny).sqrt()
    return mean_of(torch.exp(-(away / unit).square() / 2), seen)


def gps(
    distances: Float[Tensor, "*distances N"],
    mask: Float[Tensor, "*mask N"] | Bool[Tensor, "*mask N"] | None = None,
    *,
    kappa: int | float | Float[Tensor, "*kappa N"] = 0.255,
) -> Float[Tensor, "*out"]:
    """Return DensePose's geodesic point similarity, 0 to 1: the mean of exp(−g²/(2κ²)) over annotated points.

    Masked GPS is `(gps(...) * iou).sqrt()`, with the intersection over union of the person's masks.

    Args:
        distances: (*B, N) geodesic distance on the body between predicted and annotated points, in metres; infinite
            where nothing was predicted, which scores 0.
        mask: (*B, N), above 0 where a point is annotated; None: everywhere. Elsewhere it may be NaN.
        kappa: 0.255 as in the paper (Güler et al. 2018), or (*B, N), as `densepose_kappa` gives for the evaluator.

    Returns:
        (*B,); NaN where no point is annotated.

    Raises:
        ValueError: a shape that does not fit.

    Example:
        >>> gps(torch.tensor([0.0, float("inf")]))
        tensor(0.5000)
    """
    shapes = {"distances": expect_shape("distances", distances, "N")}
    count = distances.shape[-1]
    if mask is not None:
        shapes["mask"] = expect_shape("mask", mask, count)
    kappa = torch.as_tensor(kappa, dtype=distances.dtype, device=distances.device)
    if kappa.dim():
        shapes["kappa"] = expect_shape("kappa", kappa, count)
    broadcast_batches(shapes)
    _, seen = read_weight(mask, distances.unsqueeze(-1))
    return mean_of(torch.exp(-(torch.where(seen, distances, 0) / kappa).square() / 2), seen)


def densepose_kappa(parts: Int[Tensor, "*shape"], *, dtype: torch.dtype | None = None) -> Float[Tensor, "*shape"]:
    """Return the κ that DensePose's evaluator uses for points of the 24 parts, in metres.

    Args:
        parts: part numbers, 1 to 24.
        dtype: of the result; default: torch's default.

    Example:
        >>> densepose_kappa(torch.tensor([1, 23]))
        tensor([0.3510, 0.1500])
    """
    return torch.tensor([_KAPPA[coarse] for coarse in _COARSE], dtype=dtype, device=parts.device)[parts]


class SegmentationScores(NamedTuple):
    """How well a segmentation agrees with the truth.

    Attributes:
        accuracy: (*B,) share of pixels with the right label; NaN without pixels.
        f1: (*B,) mean of the F1 of the classes that occur in the prediction or in the truth.
        class_f1: (*B, C) 2·TP/(2·TP + FP + FN); NaN for a class that occurs in neither.
        confusion: (*B, C, C + 1) numbers of pixels by true class and predicted class, the last column for predicted
            labels that are none of the classes. Sum it over a data set and pass it to `scores_from_confusion`.
    """

    accuracy: Float[Tensor, "*batch"]
    f1: Float[Tensor, "*batch"]
    class_f1: Float[Tensor, "*batch C"]
    confusion: Int[Tensor, "*batch C D"]


def segmentation_scores(
    predicted: Int[Tensor, "*predicted H W"], target: Int[Tensor, "*target H W"], num_classes: int
) -> SegmentationScores:
    """Return pixel accuracy and F1 of label images, per image.

    Published numbers on LSP are over the whole set, 7 classes (six parts and background): sum the confusion. For
    foreground and background compare `labels > 0` with two classes.

    Args:
        predicted: (*B, H, W) labels.
        target: (*B, H, W) labels from 0 to num_classes − 1; others, such as 255, are not counted.
        num_classes: C.

    Returns:
        The scores and the confusion that they come from.

    Raises:
        ValueError: a shape that does not fit.

    Example:
        >>> target = torch.tensor([[0, 1], [1, 255]])
        >>> scores = segmentation_scores(torch.tensor([[0, 1], [0, 1]]), target, num_classes=2)
        >>> scores.accuracy, scores.class_f1
        (tensor(0.6667), tensor([0.6667, 0.6667]))
    """
    shapes = {"predicted": expect_shape("predicted", predicted, "H", "W")}
    shapes["target"] = expect_shape("target", target, *predicted.shape[-2:])
    batch = broadcast_batches(shapes)
    predicted, target = predicted.long().flatten(-2), target.long().flatten(-2)
    known = (predicted >= 0) & (predicted < num_classes)
    column = torch.where(known, predicted, num_classes)
    counted = (target >= 0) & (target < num_classes)
    place = torch.where(counted, target, 0) * (num_classes + 1) + column
    place, counted = place.expand(*batch, -1), counted.expand(*batch, -1)
    empty = torch.zeros(*batch, num_classes * (num_classes + 1), dtype=torch.long, device=target.device)
    confusion = empty.scatter_add(-1, place, counted.long())
    return scores_from_confusion(confusion.unflatten(-1, (num_classes, num_classes + 1)))


def scores_from_confusion(confusion: Int[Tensor, "*batch C D"]) -> SegmentationScores:
    """Return accuracy and F1 from counts of pixels by true and predicted class, such as the sum over a data set.

    Args:
        confusion: (*B, C, C + 1), as in `SegmentationScores`.

    Raises:
        ValueError: the last dimensions are not (C, C + 1).

    Example:
        >>> scores_from_confusion(torch.tensor([[3, 1, 0], [0, 4, 0]])).accuracy
        tensor(0.8750)
    """
    expect_shape("confusion", confusion, "C", "C + 1")
    classes = confusion.shape[-2]
    expect_shape("confusion", confusion, classes, classes + 1)
    right = confusion.diagonal(dim1=-2, dim2=-1).to(torch.get_default_dtype())
    pixels = confusion.sum((-2, -1))
    accuracy = torch.where(pixels > 0, right.sum(-1) / pixels.clamp(min=1), torch.nan)
    either = confusion.sum(-1) + confusion.sum(-2)[..., :classes]
    class_f1 = torch.where(either > 0, 2 * right / either.clamp(min=1), torch.nan)
    return SegmentationScores(accuracy, mean_of(class_f1, either > 0), class_f1, confusion)
