"""Errors of joints and vertices in space and time, under an explicit protocol."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..geometry.checks import broadcast_batches, expect_shape
from .alignment import aligned_errors, errors_under, read_protocol
from .bones import Bone, bone_lengths
from .protocols import ALIGNMENTS, ROOT_RELATIVE, Alignment, Protocol
from .robust import distance
from .weighting import expect_points, keep, mean_of, read_weight


def joint_errors(
    predicted: Float[Tensor, "*predicted K 3"],
    target: Float[Tensor, "*target K 3"],
    mask: Float[Tensor, "*mask K"] | Bool[Tensor, "*mask K"] | None = None,
    *,
    protocol: Protocol | str = ROOT_RELATIVE,
) -> Float[Tensor, "*out n"]:
    """Return the distance of each joint that counts after the protocol's alignment; NaN where it is not seen.

    Alignments use the joints that count and are seen. Without a seen root joint (alignments "root" and "scale") all
    errors are NaN.

    Args:
        predicted: (*B, K, 3) in any unit; the errors are in the same.
        target: (*B, K, 3) in that unit.
        mask: (*B, K), above 0 where a joint is seen in the target; None: everywhere. Elsewhere it may be NaN.
        protocol: root, joints and alignment, or the name of a preset.

    Returns:
        (*B, n) for the n joints that count, in the protocol's order.

    Raises:
        ValueError: a shape that does not fit, or an unknown preset.

    Example:
        >>> target = torch.zeros(17, 3)
        >>> joint_errors(target + torch.eye(17, 3), target).shape
        torch.Size([17])
    """
    errors, counted = errors_under(protocol, predicted, target, mask)
    return torch.where(counted, errors, torch.nan)


def mpjpe(
    predicted: Float[Tensor, "*predicted K 3"],
    target: Float[Tensor, "*target K 3"],
    mask: Float[Tensor, "*mask K"] | Bool[Tensor, "*mask K"] | None = None,
    *,
    protocol: Protocol | str = ROOT_RELATIVE,
) -> Float[Tensor, "*out"]:
    """Return the mean per-joint position error, by default with joint 0 subtracted from both sets.

    It changes neither with a translation of one set nor with a rigid motion of both. Not every order has its root in
    place 0: name yours in the protocol.

    Args:
        predicted: (*B, K, 3) in any unit.
        target: (*B, K, 3) in that unit.
        mask: (*B, K), above 0 where a joint is seen in the target; None: everywhere. Elsewhere it may be NaN.
        protocol: root, joints and alignment, or the name of a preset such as "h36m_p1".

    Returns:
        (*B,) in the unit of the input; NaN where no joint, or no root, is seen. Average over samples with `nanmean`.

    Raises:
        ValueError: a shape that does not fit, or an unknown preset.

    Example:
        >>> target = torch.randn(5, 17, 3)
        >>> mpjpe(target + 1, target, protocol="h36m_p1").round(decimals=5)
        tensor([0., 0., 0., 0., 0.])
    """
    return mean_of(*errors_under(protocol, predicted, target, mask))


def pa_mpjpe(
    predicted: Float[Tensor, "*predicted K 3"],
    target: Float[Tensor, "*target K 3"],
    mask: Float[Tensor, "*mask K"] | Bool[Tensor, "*mask K"] | None = None,
    *,
    protocol: Protocol | str = ROOT_RELATIVE,
) -> Float[Tensor, "*out"]:
    """Return the mean per-joint position error after the similarity that takes the prediction nearest to the target.

    Also called the reconstruction error. The alignment is Procrustes' without reflections, in least squares over the
    joints that count and are seen; whatever alignment the protocol names is replaced. It does not change with a
    similarity of the prediction. Differentiable where `physique.geometry.procrustes` is.

    Args:
        predicted: (*B, K, 3) in any unit.
        target: (*B, K, 3) in the unit of the result.
        mask: (*B, K), above 0 where a joint is seen in the target; None: everywhere. Elsewhere it may be NaN.
        protocol: the joints that count, or the name of a preset such as "3dpw".

    Returns:
        (*B,) in the unit of the target; NaN where no joint is seen.

    Raises:
        ValueError: a shape that does not fit, or an unknown preset.

    Example:
        >>> target = torch.randn(5, 17, 3)
        >>> pa_mpjpe(2 * target + 1, target).round(decimals=4)
        tensor([0., 0., 0., 0., 0.])
    """
    return mpjpe(predicted, target, mask, protocol=read_protocol(protocol)._replace(alignment="procrustes"))


def scale_aligned_mpjpe(
    predicted: Float[Tensor, "*predicted K 3"],
    target: Float[Tensor, "*target K 3"],
    bones: Sequence[Bone] | None = None,
    mask: Float[Tensor, "*mask K"] | Bool[Tensor, "*mask K"] | None = None,
    *,
    length: int | float | Float[Tensor, "*length"] | None = None,
    protocol: Protocol | str = ROOT_RELATIVE,
) -> Float[Tensor, "*out"]:
    """Return the mean per-joint position error after scaling the prediction about its root.

    With `bones` the prediction is scaled so that their lengths sum to that of the target, or to `length`: the protocol
    of Yoshiyasu & Gamez (2019), who take the sum of an average skeleton. Without, the scale is the least-squares one,
    ⟨P, G⟩/⟨P, P⟩ of the root-relative joints that count.

    Args:
        predicted: (*B, K, 3) in any unit.
        target: (*B, K, 3) in the unit of the result.
        bones: pairs of indices of joints, such as `keypoint_set("h36m17").bones`; None: least squares. A bone counts
            when both its ends are seen.
        mask: (*B, K), above 0 where a joint is seen in the target; None: everywhere. Elsewhere it may be NaN.
        length: (*B,) what the bone lengths of the prediction shall sum to; None: the target's sum.
        protocol: root and joints, or the name of a preset; its alignment is replaced.

    Returns:
        (*B,) in the unit of the target; NaN where no joint, or no root, is seen.

    Raises:
        ValueError: a shape that does not fit, a bone that is none, or an unknown preset.

    Example:
        >>> from physique.bodymodel import keypoint_set
        >>> target = torch.randn(5, 17, 3)
        >>> bones = keypoint_set("h36m17").bones
        >>> scale_aligned_mpjpe(3 * target, target, bones, protocol="h36m_p1").round(decimals=5)
        tensor([0., 0., 0., 0., 0.])
    """
    rule = read_protocol(protocol)
    expect_points(3, {"predicted": predicted, "target": target}, mask=mask)
    if bones is None:
        return mpjpe(predicted, target, mask, protocol=rule._replace(alignment="scale"))
    _, seen = read_weight(mask, predicted)
    first, second = [bone[0] for bone in bones], [bone[1] for bone in bones]

    def total(joints: Tensor) -> Tensor:
        lengths = bone_lengths(keep(joints, seen), bones)
        return torch.where(seen[..., first] & seen[..., second], lengths, 0).sum(-1)

    wanted = total(target) if length is None else torch.as_tensor(length, dtype=target.dtype, device=target.device)
    found = total(predicted)
    scale = torch.where(found > 0, wanted / torch.where(found > 0, found, 1), 1)
    return mpjpe(scale[..., None, None] * predicted, target, mask, protocol=rule._replace(alignment="root"))


def pve(
    predicted: Float[Tensor, "*predicted V 3"],
    target: Float[Tensor, "*target V 3"],
    mask: Float[Tensor, "*mask V"] | Bool[Tensor, "*mask V"] | None = None,
    *,
    roots: tuple[Float[Tensor, "*predicted_root 3"], Float[Tensor, "*target_root 3"]] | None = None,
    alignment: Alignment = "none",
) -> Float[Tensor, "*out"]:
    """Return the mean distance of vertices, also called vertex-to-vertex error: absolute, root-relative or aligned.

    Args:
        predicted: (*B, V, 3) in any unit.
        target: (*B, V, 3) in that unit.
        mask: (*B, V), above 0 where a vertex counts; None: everywhere. Elsewhere it may be NaN.
        roots: (*B, 3) the root joint of the prediction and that of the target, for "root" and "scale"; published
            numbers on 3DPW subtract the pelvis.
        alignment: "none", "root", "scale", "rigid" or "procrustes", as in `Protocol`.

    Returns:
        (*B,) in the unit of the target; NaN where no vertex counts.

    Raises:
        ValueError: a shape that does not fit, an unknown alignment, or one that needs the roots that are not given.

    Example:
        >>> target = torch.randn(6890, 3)
        >>> pve(target + torch.tensor([0.0, 0.3, 0.4]), target).round(decimals=4)
        tensor(0.5000)
    """
    expect_points(3, {"predicted": predicted, "target": target}, mask=mask)
    if alignment not in ALIGNMENTS:
        raise ValueError(f"alignment: expected one of {', '.join(ALIGNMENTS)}, got {alignment!r}; check the name")
    _, seen = read_weight(mask, predicted)
    if alignment in ("root", "scale"):
        if roots is None:
            raise ValueError(f"roots: expected the two root joints, got None; alignment {alignment!r} needs them")
        expect_shape("roots", roots[0], 3)
        expect_shape("roots", roots[1], 3)
        predicted, target = predicted - roots[0].unsqueeze(-2), target - roots[1].unsqueeze(-2)
    return mean_of(*aligned_errors(keep(predicted, seen), keep(target, seen), seen, alignment))


def acceleration_error(
    predicted: Float[Tensor, "*predicted T K 3"],
    target: Float[Tensor, "*target T K 3"],
    mask: Float[Tensor, "*mask T K"] | Bool[Tensor, "*mask T K"] | None = None,
) -> Float[Tensor, "*out"]:
    """Return the mean length of the difference of accelerations, second differences in time.

    Args:
        predicted: (*B, T, K, 3) joints of a sequence, in any unit, root-relative or not.
        target: (*B, T, K, 3) in that unit.
        mask: (*B, T, K), above 0 where a joint is seen; None: everywhere. An acceleration counts when its three frames
            are seen; elsewhere the joints may be NaN.

    Returns:
        (*B,) in units per frame², as it is published; multiply by fps² for units per second². NaN where nothing counts,
        as with fewer than three frames.

    Raises:
        ValueError: a shape that does not fit.

    Example:
        >>> target = torch.zeros(3, 17, 3)
        >>> predicted = target + torch.tensor([0.0, 1.0, 3.0]).reshape(3, 1, 1)
        >>> acceleration_error(predicted, target)
        tensor(1.7321)
    """
    shapes = {"predicted": expect_shape("predicted", predicted, "T", "K", 3)}
    frames, count = predicted.shape[-3:-1]
    shapes["target"] = expect_shape("target", target, frames, count, 3)
    if mask is not None:
        shapes["mask"] = expect_shape("mask", mask, frames, count)
    broadcast_batches(shapes)
    _, seen = read_weight(predicted.new_ones(frames, count) if mask is None else mask, predicted)
    difference = keep(predicted, seen) - keep(target, seen)
    for _ in range(2):
        difference = difference[..., 1:, :, :] - difference[..., :-1, :, :]
        seen = seen[..., 1:, :] & seen[..., :-1, :]
    return mean_of(distance(keep(difference, seen)).flatten(-2), seen.flatten(-2))
