"""Derivatives of joints, vertices and surface points by the body model's arguments, in closed form through the tree."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .arguments import Arguments, local_rotations
from .kinematics import chain_rotations
from .passes import Constants, Plan, shape_lever
from .point_mixes import PointMix
from .skinning import VertexBases, add_blend, add_correctives, blend


class PointsJacobian(NamedTuple):
    """Points of a posed body, and how they move with its arguments.

    Attributes:
        points: (*B, N, 3) in metres.
        blocks: name of each argument given to its derivatives (*B, N, 3, n), n numbers of that argument: those of shape
            arguments and transl; for a pose argument 3 a joint, for turns of its local rotation from the left,
            R -> exp(d) R, whatever representation it was given in.
    """

    points: Float[Tensor, "*batch N 3"]
    blocks: dict[str, Float[Tensor, "..."]]

    def matrix(self, names: Iterable[str]) -> Float[Tensor, "*batch rows columns"]:
        """Return the blocks of `names` side by side: (*B, 3 N, D), the Jacobian of the flattened points."""
        return torch.cat([self.blocks[name] for name in names], dim=-1).flatten(-3, -2)


class _Chain(NamedTuple):
    """The posed tree, and what its derivatives need.

    Attributes:
        plan: of the model.
        constants: likewise.
        given: its arguments.
        turning: (*P, 2 J, 3, 3) world rotation of each joint's parent, then of each joint; P is the batch of the pose.
        joints: (*B, J, 3) posed, before transl.
        translations: (*B, J, 3) from rest to pose.
        local: (*P, J + 1, 3, 3).
        feature: (*P, F) that drives the pose correctives.
        wrt: names of the arguments whose derivatives are wanted.
        path: (J, J) whether joint [j, k] k is on the path from the root to j, both included.
    """

    plan: Plan
    constants: Constants
    given: Arguments
    turning: Tensor
    joints: Tensor
    translations: Tensor
    local: Tensor
    feature: Tensor
    wrt: Collection[str]
    path: Tensor

    @classmethod
    def of(cls, plan: Plan, constants: Constants, given: Arguments, wrt: Collection[str]) -> _Chain:
        count, placement = plan.num_joints, constants["_tree_placement"]
        local, feature = local_rotations(given.parts, given.rotation, plan.row, constants, plan.fixed)
        turning = chain_rotations(local, constants["_tree_jumps"]).index_select(-3, constants["_tree_turners"])
        lever = shape_lever(plan, constants, given, 2 * count)
        turned = (turning @ lever.unsqueeze(-1)).squeeze(-1)
        joints, translations = (placement @ turned).unflatten(-2, (2, -1)).unbind(-3)
        return cls(plan, constants, given, turning, joints, translations, local, feature, wrt, constants["_tree_path"])

    def axes(self, first: int, count: int) -> Tensor:
        """Return the axes (*P, 3, 3 count) that joints turn about: the columns of their parents' world rotations."""
        return self.turning.narrow(-3, first, count).transpose(-3, -2).flatten(-2)

    def shape_columns(self) -> list[tuple[str, int, int]]:
        """Return name, first direction and number of directions of the shape arguments given."""
        names = self.plan.shape_names
        named = ((names[start], start, value.shape[-1]) for start, value in self.given.coefficients)
        return [columns for columns in named if columns[0] in self.wrt]

    def pose_columns(self) -> list[tuple[str, int, int]]:
        """Return name, first joint and number of joints of the pose arguments given."""
        columns, first = [], 0
        for part in self.plan.row.parts:
            if part.name in self.given.parts and part.name in self.wrt:
                columns.append((part.name, first, part.count))
            first += part.count
        return columns

    def shape_moves(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        """Return how each turned bone, and each joint's translation, moves with shape: (*P, J, 3 n), (*P, J, 3 n)."""
        joints = self.joints.shape[-2]
        rows = self.constants["_lever_directions"].narrow(0, start, count)
        moved = self.turning @ rows.unflatten(-1, (2 * joints, 3)).permute(1, 2, 0)
        translations = self.constants["_tree_placement"].narrow(0, joints, joints) @ moved.flatten(-2)
        return moved.narrow(-3, 0, joints).flatten(-2), translations

    def finish(self, points: Tensor, blocks: dict[str, Tensor], mass: Tensor) -> PointsJacobian:
        """Add the translation, which moves each point by its `mass` (*set, N), and bring all to one batch."""
        transl = self.given.transl
        if transl is not None:
            points = points + mass.unsqueeze(-1) * transl.unsqueeze(-2)
            if "transl" in self.wrt:
                blocks["transl"] = mass[..., None, None] * torch.eye(3, dtype=points.dtype, device=points.device)
        batch = points.shape[:-2]
        return PointsJacobian(points, {name: block.expand(*batch, *block.shape[-3:]) for name, block in blocks.items()})


def joints_jacobian(
    plan: Plan, constants: Constants, given: Arguments, joint_ids: Tensor | None, wrt: Collection[str]
) -> PointsJacobian:
    """Return joints and their derivatives.

    A turn d of joint j's rotation moves joint k below it by (W d) x (t_k - t_j), with W the world rotation of j's
    parent; a shape coefficient moves it by the sum of the turned changes of the bones on its path. No joint is looped
    over.
    """
    chain = _Chain.of(plan, constants, given, wrt)
    path, joints = chain.path, chain.joints
    if joint_ids is not None:
        path, joints = path.index_select(0, joint_ids), joints.index_select(-2, joint_ids)
    blocks = {}
    for name, start, count in chain.shape_columns():
        moved = chain.shape_moves(start, count)[0]
        blocks[name] = (path @ moved).unflatten(-1, (3, count))
    for name, first, count in chain.pose_columns():
        pivots = _thrice(chain.joints.narrow(-2, first, count)).mT.unsqueeze(-3)
        below = _thrice(path.narrow(-1, first, count).mT).mT
        blocks[name] = _turned(chain.axes(first, count), (joints.unsqueeze(-1) - pivots) * below.unsqueeze(-2))
    return chain.finish(joints, blocks, joints.new_ones(joints.shape[-2]))


def points_jacobian(
    plan: Plan,
    constants: Constants,
    given: Arguments,
    mix: PointMix,
    joint_weights: Tensor | None,
    wrt: Collection[str],
    correctives: bool,
) -> PointsJacobian:
    """Return sums of vertices and their derivatives.

    What a joint's turn moves of a point is the part of it that hangs on the joints below: (W d) x (x - m t_j), with x
    the sum of where those joints would carry it and m that of their weights.

    Args:
        plan: of the model.
        constants: likewise.
        given: its arguments.
        mix: makes the points of vertices.
        joint_weights: (N, J) of the joints that are added to them; None: none are.
        wrt: names of the arguments whose derivatives are wanted.
        correctives: whether the pose correctives move.
    """
    chain = _Chain.of(plan, constants, given, wrt)
    bases, joints = mix.bases, plan.num_joints
    planes, shape_directions = bases.template, bases.shape_directions
    for start, value in given.coefficients:
        planes = add_blend(planes, value, shape_directions.narrow(-2, start, value.shape[-1]))
    if plan.has_correctives:
        feature = chain.feature.index_select(-1, constants["_moving_features"]) if plan.fixed else chain.feature
        planes = add_correctives(planes, feature, bases.pose_directions)
    turned, hold = chain.turning.narrow(-3, joints, joints), mix.hold
    carried = _carried(mix.at_rest(planes), hold, turned, chain.translations)
    mass = hold
    if joint_weights is not None:
        carried = torch.addcmul(carried, joint_weights.unsqueeze(-2), chain.joints.mT.unsqueeze(-3))
        mass = hold + joint_weights
    blocks = {}
    for name, start, count in chain.shape_columns():
        bones, translations = chain.shape_moves(start, count)
        block = (hold @ translations).unflatten(-1, (3, count))
        block = block + mix.turned(shape_directions.narrow(-2, start, count), turned)
        if joint_weights is not None:
            block = block + (joint_weights @ chain.path @ bones).unflatten(-1, (3, count))
        blocks[name] = block
    for name, first, count in chain.pose_columns():
        pivots = _thrice(chain.joints.narrow(-2, first, count)).mT.unsqueeze(-3)
        below = _thrice(chain.path.narrow(-1, first, count).mT).mT
        lever = torch.addcmul(blend(carried, below), (mass @ below).unsqueeze(-2), pivots, value=-1)
        block = _turned(chain.axes(first, count), lever)
        if correctives and plan.has_correctives and first > 0:
            # How each turn bends the rest shape: a product for each joint, of few numbers; then turned with the skin.
            directions = _corrective_directions(plan, constants, bases).narrow(-3, first - 1, count)
            pushes = torch.einsum("...jfi,...jfp->...jip", _feature_turns(chain, first, count), directions)
            block = block + mix.pushed(pushes.flatten(-3, -2), turned)
        blocks[name] = block
    return chain.finish(carried.sum(-1), blocks, mass.sum(-1))


def _carried(rest: tuple[Tensor, Tensor, Tensor], hold: Tensor, turned: Tensor, translations: Tensor) -> Tensor:
    """Return where each joint alone would carry each point, times its weight in it: (*B, N, 3, J)."""
    carried = hold.unsqueeze(-2) * translations.mT.unsqueeze(-3)
    for axis, coordinate in zip(turned.unbind(-1), rest, strict=True):
        carried = torch.addcmul(carried, axis.mT.unsqueeze(-3), coordinate.unsqueeze(-2))
    return carried


def _corrective_directions(plan: Plan, constants: Constants, bases: VertexBases) -> Tensor:
    """Return the directions of the pose correctives (*set, J - 1, features a joint, planes)."""
    directions = bases.pose_directions
    if plan.fixed:
        everywhere = directions.new_zeros(*directions.shape[:-2], plan.row.feature_width, directions.shape[-1])
        directions = everywhere.index_copy(-2, constants["_moving_features"], directions)
    return directions.unflatten(-2, (plan.num_joints - 1, -1))


def _turned(axes: Tensor, lever: Tensor) -> Tensor:
    """Return axis x lever, of axes (*B, 3, 3 J) and levers (*B, N, 3, 3 J): (*B, N, 3, 3 J)."""
    along_x, along_y, along_z = axes.unsqueeze(-3).unbind(-2)
    x, y, z = lever.unbind(-2)
    turned = (
        torch.addcmul(along_y * z, along_z, y, value=-1),
        torch.addcmul(along_z * x, along_x, z, value=-1),
        torch.addcmul(along_x * y, along_y, x, value=-1),
    )
    return torch.stack(turned, dim=-2)


def _thrice(rows: Tensor) -> Tensor:
    """Return (..., J, K) as (..., 3 J, K), each row three times: for the three axes of each joint."""
    return rows.repeat_interleave(3, dim=-2)


def _feature_turns(chain: _Chain, first: int, count: int) -> Tensor:
    """Return how the pose feature of joints changes as they turn from the left: (*P, count, features a joint, 3)."""
    if chain.plan.row.pose_feature == "matrix":
        # d R = [e_i] x R: column by column, e_i x column.
        local = chain.local.narrow(-3, first, count)
        eye = torch.eye(3, dtype=local.dtype, device=local.device)
        columns = local.mT.unsqueeze(-3).expand(*local.shape[:-2], 3, 3, 3)
        crossed = torch.linalg.cross(eye.unsqueeze(-2).expand_as(columns), columns, dim=-1)
        return crossed.movedim((-3, -2, -1), (-1, -2, -3)).flatten(-3, -2)
    x, y, z, w = chain.feature.unflatten(-1, (-1, 4)).narrow(-2, first - 1, count).unbind(-1)
    w = w + 1
    rows = ((w, z, -y), (-z, w, x), (y, -x, w), (-x, -y, -z))
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2) / 2
