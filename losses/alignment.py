"""Distances of points after the alignment of a protocol."""

from __future__ import annotations

import torch
from torch import Tensor

from ..bodymodel.keypoint_sets import keypoint_set
from ..geometry.procrustes import procrustes
from .protocols import ALIGNMENTS, Alignment, Protocol, protocol
from .robust import distance
from .weighting import expect_points, from_root, keep, read_weight


def read_protocol(given: Protocol | str) -> Protocol:
    """Return the protocol, or the preset of that name; an unknown alignment is refused."""
    rule = protocol(given) if isinstance(given, str) else given
    if rule.alignment not in ALIGNMENTS:
        raise ValueError(f"alignment: expected one of {', '.join(ALIGNMENTS)}, got {rule.alignment!r}; check the name")
    return rule


def errors_under(
    given: Protocol | str, predicted: Tensor, target: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the error of each joint that counts (*B, n) under a protocol, and where it is seen."""
    rule = read_protocol(given)
    expect_points(3, {"predicted": predicted, "target": target}, mask=mask)
    _expect_count(rule, predicted.shape[-2])
    _, seen = read_weight(mask, predicted)
    predicted, target = keep(predicted, seen), keep(target, seen)
    if rule.alignment in ("root", "scale"):
        predicted, has_root = from_root(predicted, seen, rule.root)
        target, _ = from_root(target, seen, rule.root)
        seen = seen & has_root
    if rule.joints is not None:
        ids = list(rule.joints)
        predicted, target, seen = predicted[..., ids, :], target[..., ids, :], seen[..., ids]
    return aligned_errors(keep(predicted, seen), keep(target, seen), seen, rule.alignment)


def aligned_errors(predicted: Tensor, target: Tensor, seen: Tensor, alignment: Alignment) -> tuple[Tensor, Tensor]:
    """Return distances (*B, K) after an alignment of points that are zero where not seen, and `seen` as broadcast."""
    if alignment in ("none", "root"):
        errors = distance(predicted - target)
        return errors, seen.expand(errors.shape)
    # In units of their own size neither set can overflow; sizes count as constants, and cancel in every derivative.
    size, goal = _size(predicted), _size(target)
    if alignment == "rigid":
        size = goal = torch.maximum(size, goal)
    predicted, target = predicted / size, target / goal
    if alignment == "scale":
        square = (predicted * predicted).sum((-2, -1), keepdim=True)
        product = (predicted * target).sum((-2, -1), keepdim=True)
        aligned = torch.where(square > 0, product / torch.where(square > 0, square, 1), 1) * predicted
    else:
        similarity = procrustes(predicted, target, weights=seen.to(predicted.dtype), scale=alignment == "procrustes")
        aligned = similarity.apply(predicted)
    errors = goal.squeeze(-1) * distance(keep(aligned - target, seen))
    return errors, seen.expand(errors.shape)


def _size(points: Tensor) -> Tensor:
    if not points.shape[-2]:
        return points.new_ones(())[None, None]
    largest = points.detach().abs().amax((-2, -1), keepdim=True)
    return torch.where(largest > 0, largest, 1)


def _expect_count(rule: Protocol, count: int) -> None:
    wanted = count if rule.keypoint_set is None else len(keypoint_set(rule.keypoint_set))
    if wanted != count:
        raise ValueError(
            f"predicted: expected (*batch, {wanted}, 3), got {count} joints; the protocol is for {rule.keypoint_set}, "
            "convert them or name another order"
        )
    if rule.joints is not None and not all(0 <= joint < count for joint in rule.joints):
        raise ValueError(f"protocol.joints: expected indices of the {count} joints, got {rule.joints}; check the order")
