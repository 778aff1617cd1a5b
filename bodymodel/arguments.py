"""The arguments of a body model: names, shapes, and how they become coefficients and joint rotations."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple, NoReturn

import torch
from torch import Tensor
from typing_extensions import TypedDict

from ..geometry import matrix_to_axis_angle, matrix_to_quaternion_wxyz, to_matrix
from ..geometry.axis_angle import (
    RodriguesConstants,
    axis_angle_to_matrix_and_bend,
    axis_angle_to_quaternion_wxyz,
    rodrigues_constants,
)
from ..geometry.checks import broadcast_batches, expect_finite, expect_shape
from .data import ARGUMENTS as SHAPE_ARGUMENTS
from .families import FAMILIES, Family

Rotation = Literal["axis_angle", "matrix", "rotation_6d", "quaternion_wxyz"]

ROTATION_SHAPES: dict[str, tuple[int, ...]] = {
    "axis_angle": (3,),
    "matrix": (3, 3),
    "rotation_6d": (6,),
    "quaternion_wxyz": (4,),
}
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


class Arguments(NamedTuple):
    """Checked arguments of one call, in the model's floating type.

    Attributes:
        coefficients: shape coefficients (*B, n), each with the row of its first direction; of segment_scale, s - 1.
        parts: the pose arguments that were given, (*B, count, *event), in joint order.
        rotation: how `parts` are written.
        transl: (*B, 3) or None.
        batches: batch shape of each argument by name; they broadcast.
        batch: the shape that they broadcast to.
    """

    coefficients: list[tuple[int, Tensor]]
    parts: dict[str, Tensor]
    rotation: Rotation
    transl: Tensor | None
    batches: dict[str, torch.Size]
    batch: torch.Size


class Signature:
    """Which arguments a model takes; reads and checks them.

    Args:
        row: the model's family.
        coefficients: its shape arguments, pairs (name, count) in the order of the shape directions.
        fixed: the pose arguments that it does not take, because their rotations are constants.
    """

    def __init__(self, row: Family, coefficients: Sequence[tuple[str, int]], fixed: Collection[str] = ()) -> None:
        """Number the shape directions; see the class for the arguments."""
        self.row = row
        self.coefficients: dict[str, tuple[int, int]] = {}
        start = 0
        for name, count in coefficients:
            if count:
                self.coefficients[name] = (start, count)
                start += count
        self.parts = tuple(name for name in row.part_names if name not in fixed)
        self.names = frozenset((*self.coefficients, *self.parts, "transl", "rotation"))
        # For each representation the parts: name, shape of one sample, and where a single joint lacks its dimension.
        self.events = {
            rotation: [
                (part.name, event if part.single else (part.count, *event), -1 - len(event) if part.single else 0)
                for part in row.parts
                if part.name in self.parts
            ]
            for rotation, event in ROTATION_SHAPES.items()
        }

    def read(self, arguments: Mapping[str, Any], dtype: torch.dtype) -> Arguments:
        """Check the arguments and bring them to `dtype`; None counts as left out.

        Raises:
            TypeError: a name that no body model knows, no tensor, or a floating type that does not fit.
            ValueError: a part that this model lacks, or a shape that does not fit.
        """
        if not self.names.issuperset(arguments):
            for name, value in arguments.items():
                if name not in self.names and value is not None:
                    self._refuse(name)
        batches: dict[str, torch.Size] = {}
        coefficients: list[tuple[int, Tensor]] = []
        for name, (start, count) in self.coefficients.items():
            value = arguments.get(name)
            if value is not None:
                value = self._as_coefficients(name, value, count)
                batches[name] = value.shape[:-1]
                coefficients.append((start, _ready(name, value, dtype)))
        rotation = arguments.get("rotation") or "axis_angle"
        events = self.events.get(rotation)
        if events is None:
            listed = ", ".join(ROTATION_SHAPES)
            raise ValueError(f"rotation: expected one of {listed}, got {rotation!r}; name the representation")
        parts: dict[str, Tensor] = {}
        for name, event, single in events:
            value = arguments.get(name)
            if value is not None:
                batches[name] = expect_shape(name, value, *event)
                value = _ready(name, value, dtype)
                parts[name] = value.unsqueeze(single) if single else value
        transl = arguments.get("transl")
        if transl is not None:
            batches["transl"] = expect_shape("transl", transl, 3)
            transl = _ready("transl", transl, dtype)
        return Arguments(coefficients, parts, rotation, transl, batches, broadcast_batches(batches))

    def _as_coefficients(self, name: str, value: Tensor, count: int) -> Tensor:
        """Return (*B, n), n at most `count`; segment scales must be complete, s - 1, and (*B, J, 3) is flattened."""
        if name == "segment_scale":
            joints = self.row.skeleton.num_joints
            if count == joints:
                expect_shape(name, value, joints)
                return value - 1
            expect_shape(name, value, joints, 3)
            return value.flatten(-2) - 1
        batch = expect_shape(name, value, "n")
        if value.shape[-1] > count:
            raise ValueError(
                f"{name}: expected at most {count} coefficients, got {value.shape[-1]} in "
                f"{(*batch, value.shape[-1])}; use {name}[..., :{count}]"
            )
        return value

    def _refuse(self, name: str) -> NoReturn:
        if name not in SHAPE_ARGUMENTS and name not in POSES:
            raise TypeError(f"{name}: expected an argument of a body model, got an unknown name; check its spelling")
        has = ", ".join((*self.coefficients, *self.parts, "transl"))
        raise ValueError(
            f"{name}: expected one of the arguments of this {self.row.name} model ({has}), got {name}; leave it out"
        )


def refuse_stage(stage: str, arguments: Mapping[str, Any], *, shape: bool) -> None:
    """Raise ValueError where a stage was given shape arguments (`shape` true), or any others (false)."""
    names = ", ".join(n for n, value in arguments.items() if value is not None and (n in SHAPE_ARGUMENTS) == shape)
    if names:
        raise ValueError(f"{names}: expected no such argument in {stage}(), got {names}; give it to the other stage")


def match_dtype(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `value` in the model's floating type: half precision is raised to it, any other type must equal it."""
    if value.dtype == dtype:
        return value
    if value.dtype in (torch.float16, torch.bfloat16):
        return value.to(dtype)
    other = f" or model.to({value.dtype})" if value.is_floating_point() else ""
    raise TypeError(f"{name}: expected {dtype}, got {value.dtype}; use {name}.to({dtype}){other}")


def _ready(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    expect_finite(name, value)
    return value if value.dtype == dtype else match_dtype(name, value, dtype)


def rotation_constants(dtype: torch.dtype, device: torch.device | None) -> dict[str, Tensor]:
    """Return what `local_rotations` reads: Rodrigues' constants, and (1, 3) zeros, the axis-angle of no turn."""
    rodrigues = rodrigues_constants(dtype, device)
    constants = {f"_{name}": value for name, value in rodrigues._asdict().items()}
    # Of the nine products u_a u_b and of three numbers c: K(c) + (u uᵀ - |u|² I) / 2, row by row.
    trace = rodrigues.identity.reshape(1, 9) * rodrigues.identity.reshape(9, 1)
    products = (torch.eye(9, dtype=dtype, device=device) - trace) / 2
    constants["_bend_mix"] = torch.cat((products, rodrigues.generators.t()), dim=1)
    return {**constants, "_still": torch.zeros(1, 3, dtype=dtype, device=device)}


def local_rotations(
    parts: Mapping[str, Tensor],
    rotation: Rotation,
    row: Family,
    constants: Mapping[str, Tensor],
    fixed: Collection[str] = (),
) -> tuple[Tensor, Tensor]:
    """Return the rotations of all joints, and the feature of each that drives the pose correctives.

    Args:
        parts: the pose arguments, as `Signature.read` returns them.
        rotation: how they are written.
        row: the family; its pose feature is R - I by rows, or STAR's (x, y, z, w - 1) of the quaternion. That one
            follows an axis-angle vector beyond half a turn, as STAR does; from other representations w >= 0.
        constants: those of `rotation_constants`, in the model's type and on its device, and of `fixed_constants`.
        fixed: parts that are constants.

    Returns:
        rotations (*B, J + 1, 3, 3) in joint order, with the identity at the end; feature (*B, P) of the joints but
        the root, zero in the rest pose and computed without cancellation wherever the representation allows.
    """
    if rotation == "axis_angle":
        joined = join_axis_angles(parts, row, constants, fixed)
        whole = RodriguesConstants(constants["_generators"], constants["_identity"], constants["_twice"])
        turned, bend = axis_angle_to_matrix_and_bend(joined, whole)
    else:
        identity = constants["_identity"]
        matrices = {name: to_matrix(value, rotation) for name, value in parts.items()}
        if fixed:
            matrices |= {name: constants[f"_matrix_of_{name}"] for name in fixed}
            matrices = {name: matrices[name] for name in row.part_names if name in matrices}
        turned = joined = _join(matrices, row, identity.unsqueeze(0))
        bend = turned - identity
    bodies = turned.shape[-3] - 2
    if row.pose_feature == "matrix":
        return turned, bend.narrow(-3, 1, bodies).flatten(-3)
    if rotation == "axis_angle":
        quaternion = axis_angle_to_quaternion_wxyz(joined.narrow(-2, 1, bodies))
    else:
        quaternion = matrix_to_quaternion_wxyz(turned.narrow(-3, 1, bodies))
    w, x, y, z = quaternion.unbind(-1)
    return turned, torch.stack((x, y, z, w - 1), dim=-1).flatten(-2)


def fixed_constants(poses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the constants of parts with fixed rotations (count, 3, 3): as matrices and in axis-angle."""
    matrices = {f"_matrix_of_{name}": matrix for name, matrix in poses.items()}
    return matrices | {f"_axis_angle_of_{name}": matrix_to_axis_angle(matrix) for name, matrix in poses.items()}


def join_axis_angles(
    parts: Mapping[str, Tensor], row: Family, constants: Mapping[str, Tensor], fixed: Collection[str] = ()
) -> Tensor:
    """Return the vectors (*B, J + 1, 3) of all joints in order, zero for parts left out and at the end."""
    if fixed:
        parts = {**parts, **{name: constants[f"_axis_angle_of_{name}"] for name in fixed}}
        parts = {name: parts[name] for name in row.part_names if name in parts}
    return _join(parts, row, constants["_still"])


def _join(parts: Mapping[str, Tensor], row: Family, still: Tensor) -> Tensor:
    """Return (*B, J + 1, *event): the parts in joint order, `still` (1, *event) for those left out and at the end."""
    joint = still.dim()
    shapes = [value.shape[:-joint] for value in parts.values()]
    if len(shapes) == len(row.parts) and all(shape == shapes[0] for shape in shapes):
        return torch.cat((*parts.values(), still.expand(*shapes[0], *still.shape)), dim=-joint)
    batch = torch.broadcast_shapes(*shapes)
    pieces = []
    for part in row.parts:
        value = parts.get(part.name)
        if value is None:
            value = still.expand(*batch, part.count, *still.shape[1:])
        elif value.shape[:-joint] != batch:
            value = value.expand(*batch, *value.shape[-joint:])
        pieces.append(value)
    pieces.append(still.expand(*batch, *still.shape))
    return torch.cat(pieces, dim=-joint)
