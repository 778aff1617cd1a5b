"""The arguments of a body model: names, shapes, and how they become coefficients and joint rotations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import TypedDict

from ..geometry import matrix_to_quaternion_wxyz, to_matrix
from ..geometry.axis_angle import axis_angle_to_matrix_and_bend, axis_angle_to_quaternion_wxyz
from ..geometry.checks import broadcast_batches, expect_finite, expect_shape
from .families import FAMILIES, Family

Rotation = Literal["axis_angle", "matrix", "rotation_6d", "quaternion_wxyz"]

ROTATION_SHAPES: dict[str, tuple[int, ...]] = {
    "axis_angle": (3,),
    "matrix": (3, 3),
    "rotation_6d": (6,),
    "quaternion_wxyz": (4,),
}
COEFFICIENTS = ("betas", "expression", "segment_scale")
POSES = tuple(dict.fromkeys(part.name for family in FAMILIES.values() for part in family.parts))


class ShapeArguments(TypedDict, total=False):
    """Arguments of the first stage; an argument left out is zero (segment_scale: one).

    Attributes:
        betas: (*B, n), any n up to the model's number of shape coefficients.
        expression: (*B, n), likewise (SMPL-X, FLAME).
        segment_scale: (*B, J), or (*B, J, 3) for a model made with per_axis=True; 1 is the template's size.
    """

    betas: Tensor | None
    expression: Tensor | None
    segment_scale: Tensor | None


class PoseArguments(TypedDict, total=False):
    """Arguments of the second stage; an argument left out is the identity (transl: zero).

    Shapes are for axis-angle in radians. Another representation replaces the last 3: "matrix" by (3, 3),
    "rotation_6d" by 6, "quaternion_wxyz" by 4. Rotations are relative to the parent joint.

    Attributes:
        global_orient: (*B, 3) rotation of the root, about the root joint.
        body_pose: (*B, 23, 3) for SMPL and STAR, (*B, 21, 3) for SMPL-H and SMPL-X.
        left_hand_pose: (*B, 15, 3), absolute: no mean is added (see HandPCA).
        right_hand_pose: (*B, 15, 3), likewise.
        hand_pose: (*B, 15, 3) for MANO.
        neck_pose: (*B, 3) for FLAME.
        jaw_pose: (*B, 3).
        leye_pose: (*B, 3).
        reye_pose: (*B, 3).
        transl: (*B, 3) in metres, added last.
        rotation: how all rotations are written, never guessed from shapes.
    """

    global_orient: Tensor | None
    body_pose: Tensor | None
    left_hand_pose: Tensor | None
    right_hand_pose: Tensor | None
    hand_pose: Tensor | None
    neck_pose: Tensor | None
    jaw_pose: Tensor | None
    leye_pose: Tensor | None
    reye_pose: Tensor | None
    transl: Tensor | None
    rotation: Rotation


class BodyArguments(ShapeArguments, PoseArguments, total=False):
    """All arguments: those of both stages."""


def split_arguments(arguments: Mapping[str, Any], row: Family, counts: Mapping[str, int]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split into shape and pose arguments, dropping None.

    Raises:
        TypeError: a name that no body model knows.
        ValueError: a part that this model lacks.
    """
    shape: dict[str, Tensor] = {}
    pose: dict[str, Any] = {}
    known = row.part_names
    for name, value in arguments.items():
        if value is None:
            continue
        if name in known or name in ("transl", "rotation"):
            pose[name] = value
        elif counts.get(name, 0):
            shape[name] = value
        elif name in COEFFICIENTS or name in POSES:
            has = ", ".join((*(name for name, count in counts.items() if count), *known, "transl"))
            raise ValueError(f"{name}: expected one of the arguments of this {row.name} model ({has}), got {name}; leave it out")
        else:
            raise TypeError(f"{name}: expected an argument of a body model, got an unknown name; check its spelling")
    return shape, pose


def match_dtype(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `value` in the model's floating type: half precision is raised to it, any other type must equal it."""
    if value.dtype == dtype:
        return value
    if value.dtype in (torch.float16, torch.bfloat16):
        return value.to(dtype)
    raise TypeError(f"{name}: expected {dtype}, got {value.dtype}; use {name}.to({dtype}) or model.to({value.dtype})")


def local_rotations(pose: Mapping[str, Any], row: Family, still: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rotations of all joints, and the feature of each that drives the pose correctives.

    Args:
        pose: the pose arguments.
        row: the family; its pose feature is R - I by rows, or STAR's (x, y, z, w - 1) of the quaternion. That one
            follows an axis-angle vector beyond half a turn, as STAR does; from other representations w >= 0.
        still: zeros (1, 3) of the model's type and device: the rotation of a joint that does not turn.

    Returns:
        rotations (*B, J + 1, 3, 3) in joint order, with the identity at the end; feature (*B, P) of the joints but
        the root, zero in the rest pose and computed without cancellation wherever the representation allows.
    """
    rotation = pose.get("rotation", "axis_angle")
    if rotation not in ROTATION_SHAPES:
        raise ValueError(f"rotation: expected one of {', '.join(ROTATION_SHAPES)}, got {rotation!r}; name the representation")
    given, batch = _given_parts(pose, row, ROTATION_SHAPES[rotation], still)
    if rotation == "axis_angle":
        joined = _join(given, batch, row, still)
        turned, bend = axis_angle_to_matrix_and_bend(joined)
    else:
        identity = torch.eye(3, dtype=still.dtype, device=still.device)
        matrices = {name: to_matrix(value, rotation) for name, value in given.items()}
        joined = _join(matrices, batch, row, identity.unsqueeze(0))
        turned, bend = joined, joined - identity
    bodies = turned.shape[-3] - 2
    if row.pose_feature == "matrix":
        return turned, bend.narrow(-3, 1, bodies).flatten(-3)
    if rotation == "axis_angle":
        quaternion = axis_angle_to_quaternion_wxyz(joined.narrow(-2, 1, bodies))
    else:
        quaternion = matrix_to_quaternion_wxyz(turned.narrow(-3, 1, bodies))
    w, x, y, z = quaternion.unbind(-1)
    return turned, torch.stack((x, y, z, w - 1), dim=-1).flatten(-2)


def _given_parts(
    pose: Mapping[str, Any], row: Family, event: tuple[int, ...], like: Tensor
) -> tuple[dict[str, Tensor], torch.Size]:
    """Return the parts that were given, checked, as (*B, count, *event), and the batch they broadcast to."""
    given: dict[str, Tensor] = {}
    batches: dict[str, torch.Size] = {}
    for part in row.parts:
        value = pose.get(part.name)
        if value is not None:
            shape = event if part.single else (part.count, *event)
            batches[part.name] = expect_shape(part.name, value, *shape)
            expect_finite(part.name, value)
            value = match_dtype(part.name, value, like.dtype)
            given[part.name] = value.unsqueeze(-1 - len(event)) if part.single else value
    return given, broadcast_batches(batches)


def _join(given: Mapping[str, Tensor], batch: torch.Size, row: Family, still: Tensor) -> Tensor:
    """Return (*B, J + 1, *event): the parts in joint order, `still` (1, *event) for those left out and at the end."""
    pieces = []
    for part in row.parts:
        value = given.get(part.name)
        if value is None:
            value = still.expand(part.count, *still.shape[1:])
        pieces.append(value)
    pieces.append(still)
    joint = still.dim()
    return torch.cat([p if p.shape[:-joint] == batch else p.expand(*batch, *p.shape[-joint:]) for p in pieces], dim=-joint)
