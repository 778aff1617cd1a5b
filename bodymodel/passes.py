"""What a body model computes, as functions of its constants and checked arguments: the two stages and their shortcuts.

Each runs on one of two paths with the same result. The plain path is made of operations that PyTorch differentiates to
any order and compilers trace. The fused one (`fused_chain`, `fused_skinning`) serves eager calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.jit._trace import is_tracing
from torch.nn.functional import pad

from ..geometry.checks import broadcast_batches
from .arguments import Arguments, join_axis_angles, local_rotations
from .families import Family
from .fused_chain import Chain, fused_chain, fused_joints
from .fused_skinning import fused_skinning
from .gpu import PackedDirections, packed_directions, runs_on_gpu_kernels
from .kinematics import chain_joints, chain_transforms
from .outputs import BodyOutput, RestBody, RestLater
from .skinning import (
    VertexBases,
    add_blend,
    add_correctives,
    apply_transforms,
    blend_transforms,
    joint_transforms,
)

Constants = Mapping[str, Tensor]


class Plan(NamedTuple):
    """What never changes about a model, whatever its type and device.

    Attributes:
        row: its family.
        num_vertices: V.
        num_joints: J.
        has_correctives: whether the pose moves vertices before skinning.
        shape_names: the shape argument that starts at each of these directions.
        fixed: the parts whose rotations are constants. The template has their correctives.
    """

    row: Family
    num_vertices: int
    num_joints: int
    has_correctives: bool
    shape_names: Mapping[int, str]
    fixed: tuple[str, ...] = ()


def whole_pass(plan: Plan, constants: Constants, given: Arguments) -> BodyOutput:
    """Shape and pose the body."""
    alone = is_alone()
    lever = shape_lever(plan, constants, given, 2 * plan.num_joints)
    if alone:
        bases, rest = vertex_bases(plan, constants), rest_later(plan, constants, given)
    else:
        rest = _rest(plan, constants, given, lever)
        bases, given = _shaped(plan, constants, rest), given._replace(coefficients=[])
    chain = _chain(plan, constants, given, lever, alone)
    return _output(*_skin(plan, constants, bases, chain, given, given.batch, alone), chain.turned, rest)


def shape_pass(plan: Plan, constants: Constants, given: Arguments) -> RestBody:
    """Shape the body: the first stage."""
    return _rest(plan, constants, given, shape_lever(plan, constants, given, 2 * plan.num_joints))


def pose_pass(plan: Plan, constants: Constants, rest: RestBody, given: Arguments, batch: torch.Size) -> BodyOutput:
    """Pose a rest body: the second stage. `batch` is that of everything."""
    alone = is_alone()
    lever = torch.cat((constants["_tree_bones"] @ rest.joints, rest.joints), dim=-2)
    chain = _chain(plan, constants, given, lever, alone)
    skinned = _skin(plan, constants, _shaped(plan, constants, rest), chain, given, batch, alone)
    return _output(*skinned, chain.turned, rest)


def rest_later(plan: Plan, constants: Constants, given: Arguments) -> RestLater:
    """Return what `shape_pass` returns of the arguments as they are now, made when it is first looked at."""
    kept = given._replace(coefficients=[(start, value.clone()) for start, value in given.coefficients])
    graph, constants = torch.is_grad_enabled(), dict(constants)

    def make() -> RestBody:
        with torch.set_grad_enabled(graph), without_autocast(constants["_template"].device.type):
            return shape_pass(plan, constants, kept)

    return RestLater.by(make)


def joints_pass(plan: Plan, constants: Constants, given: Arguments) -> Tensor:
    """Return the posed joints (*B, J, 3) alone."""
    bones = shape_lever(plan, constants, given, plan.num_joints)
    if is_alone() and _can_fuse_chain(plan, given, bones):
        poses, levers, batch = _poses_and_levers(plan, constants, given, bones)
        joints = _unflat(_joints_and_chain(poses)[0](poses, levers, constants), batch)
    else:
        local, _ = local_rotations(given.parts, given.rotation, plan.row, constants, plan.fixed)
        joints = chain_joints(local, bones, *_tree(constants, "path"))
    return joints if given.transl is None else joints + given.transl.unsqueeze(-2)


def subset_pass(
    plan: Plan, constants: Constants, bases: VertexBases, given: Arguments, batch: torch.Size
) -> tuple[Tensor, Tensor]:
    """Return some posed vertices (*B, N, 3) and the posed joints. `batch` includes that of the sets of vertices."""
    alone = is_alone()
    chain = _chain(plan, constants, given, shape_lever(plan, constants, given, 2 * plan.num_joints), alone)
    posed, joints = _skin(plan, constants, bases, chain, given, batch, alone)
    return posed.transpose(-1, -2), joints


def vertex_bases(plan: Plan, constants: Constants) -> VertexBases:
    """Return the constants of all vertices."""
    shapes = len(constants["_lever_directions"])
    return VertexBases(constants["_template"], constants["_directions"], constants["_weights"], shapes)


def shape_lever(plan: Plan, constants: Constants, given: Arguments, count: int) -> Tensor:
    """Return the first `count` of the bones and rest joints (*S, count, 3), without the vertices."""
    template = constants["_lever_template"].narrow(0, 0, 3 * count)
    directions = constants["_lever_directions"].narrow(1, 0, 3 * count)
    lever = _blend_shape(given, template, directions)
    return lever.view(*lever.shape[:-1], count, 3)


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """Keep autocast out: millimetres are lost in half precision, and the arguments are small."""
    try:
        casting = torch.is_autocast_enabled(device)
    except RuntimeError:  # a device that knows no autocast, such as meta
        casting = False
    return torch.autocast(device, enabled=False) if casting else nullcontext()


def is_alone() -> bool:
    """Return whether nothing looks into the operations of this call, so that it may take the fused path.

    While a compiler traces, inside a functorch transform and in forward mode, operations must be such as others know.
    """
    if torch.compiler.is_compiling():
        return False
    looked_into = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    return not looked_into and not is_tracing()


def _tree(constants: Constants, last: str) -> tuple[Tensor, Tensor, Tensor]:
    return constants["_tree_jumps"], constants["_tree_turners"], constants[f"_tree_{last}"]


def _blend_shape(given: Arguments, template: Tensor, directions: Tensor) -> Tensor:
    if not given.coefficients:
        return template.clone()  # the caller may write into what it gets, and the template is ours
    for start, value in given.coefficients:
        template = add_blend(template, value, directions.narrow(-2, start, value.shape[-1]))
    return template


def _rest(plan: Plan, constants: Constants, given: Arguments, lever: Tensor) -> RestBody:
    bases = vertex_bases(plan, constants)
    planes = _blend_shape(given, bases.template, bases.shape_directions)
    vertices = planes.view(*planes.shape[:-1], 3, plan.num_vertices).transpose(-1, -2)
    return RestBody(vertices, lever.narrow(-2, plan.num_joints, plan.num_joints))


def _shaped(plan: Plan, constants: Constants, rest: RestBody) -> VertexBases:
    """Return the constants of all vertices of bodies that have their shape."""
    return vertex_bases(plan, constants)._replace(template=rest.vertices.transpose(-1, -2).flatten(-2))


def _output(posed: Tensor, joints: Tensor, turned: Tensor, rest: RestBody) -> BodyOutput:
    batch = posed.shape[:-2]
    if not batch == turned.shape[:-3] == joints.shape[:-2]:
        turned = turned.expand(*batch, *turned.shape[-3:])
        joints = joints.expand(*batch, *joints.shape[-2:])
    return BodyOutput(posed.transpose(-1, -2), joints, turned, rest)


def _chain(plan: Plan, constants: Constants, given: Arguments, lever: Tensor, alone: bool) -> Chain:
    if alone and _can_fuse_chain(plan, given, lever):
        poses, levers, batch = _poses_and_levers(plan, constants, given, lever)
        return Chain(*(_unflat(value, batch) for value in _joints_and_chain(poses)[1](poses, levers, constants)))
    local, feature = local_rotations(given.parts, given.rotation, plan.row, constants, plan.fixed)
    turned, joints, translations = chain_transforms(local, lever, *_tree(constants, "placement"))
    return Chain(joints, turned, joint_transforms(turned, translations), feature)


def _joints_and_chain(poses: Tensor) -> tuple[Callable[..., Tensor], Callable[..., Chain]]:
    """Return what makes the joints alone, and the chain. Triton is loaded with the first tensor on a GPU."""
    if runs_on_gpu_kernels(poses):
        from .triton_chain import triton_chain, triton_joints

        return triton_joints, triton_chain
    return fused_joints, fused_chain


def _can_fuse_chain(plan: Plan, given: Arguments, lever: Tensor) -> bool:
    """Return whether the poses are axis-angle, and each has its own shape or all have one."""
    if given.rotation != "axis_angle" or plan.row.pose_feature != "matrix" or not given.parts:
        return False
    pose_batch = broadcast_batches({name: given.batches[name] for name in given.parts})
    return lever.shape[:-2] == pose_batch or lever.shape[:-2].numel() == 1


def _poses_and_levers(
    plan: Plan, constants: Constants, given: Arguments, lever: Tensor
) -> tuple[Tensor, Tensor, torch.Size]:
    """Return the axis-angle vectors (B, J + 1, 3) and levers with one batch dimension, and the batch that they had."""
    poses = join_axis_angles(given.parts, plan.row, constants, plan.fixed)
    return _flat(poses, 2), _flat(lever, 2), poses.shape[:-2]


def _flat(value: Tensor, event: int) -> Tensor:
    """Return `value`, of `event` dimensions a sample, with one batch dimension; no node where it has one."""
    if value.dim() == event + 1:
        return value
    return value.reshape(value.shape[: value.dim() - event].numel(), *value.shape[value.dim() - event :])


def _unflat(value: Tensor, batch: torch.Size) -> Tensor:
    """Undo `_flat`."""
    return value if len(batch) == 1 else value.view(*batch, *value.shape[1:])


def _skin(
    plan: Plan,
    constants: Constants,
    bases: VertexBases,
    chain: Chain,
    given: Arguments,
    batch: torch.Size,
    alone: bool,
) -> tuple[Tensor, Tensor]:
    """Shape, correct and pose the vertices of `bases`: (*B, 3, V); and return the joints (*B, J, 3) beside them."""
    joints, turned, transforms, feature = chain
    if not plan.has_correctives:
        feature = None
    elif plan.fixed:
        feature = feature.index_select(-1, constants["_moving_features"])
    posed = None
    if alone and turned.shape[:-3] == batch and bases.weights.dim() == 2:
        packed = packed_directions(constants, bases.directions)
        posed = _fused_skinning(bases, given, feature, transforms, batch, packed)
    if posed is None:
        corrected = _blend_shape(given, bases.template, bases.shape_directions)
        if feature is not None:
            corrected = add_correctives(corrected, feature, bases.pose_directions)
        posed = apply_transforms(corrected, blend_transforms(bases.weights, transforms))
    if given.transl is not None:
        posed, joints = posed + given.transl.unsqueeze(-1), joints + given.transl.unsqueeze(-2)
    return posed, joints


def _fused_skinning(
    bases: VertexBases,
    given: Arguments,
    feature: Tensor | None,
    transforms: Tensor,
    batch: torch.Size,
    packed: PackedDirections | None,
) -> Tensor | None:
    """Return posed vertices (*B, 3, V); None where some poses, but not all, share a shape."""
    blocks = [] if feature is None else [_flat(feature, 1)]
    template = bases.template
    if given.coefficients and all(value.shape[:-1] == batch for _, value in given.coefficients):
        end = 0
        for start, value in given.coefficients:
            blocks.append(pad(_flat(value, 1), (start - end, 0)) if start > end else _flat(value, 1))
            end = start + value.shape[-1]
    elif given.coefficients:
        template = _blend_shape(given, template, bases.shape_directions)
    if template.dim() > 1 and template.shape[:-1] == batch:
        template = _flat(template, 1)
    elif template.shape[:-1].numel() == 1:
        template = template.reshape(-1)
    else:
        return None
    bases = bases._replace(template=template)
    coefficients = torch.cat(blocks, dim=-1) if blocks else None
    transforms = _flat(transforms, 2)
    if runs_on_gpu_kernels(transforms):
        from .triton_skinning import triton_skinning

        posed = triton_skinning(bases, coefficients, transforms, packed)
    else:
        posed = fused_skinning(bases, coefficients, transforms)
    return _unflat(posed, batch)
