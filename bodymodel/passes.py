"""What a body model computes, as functions of its constants and checked arguments: the two stages and their shortcuts.

Each runs on one of two paths with the same result. The plain path is made of operations that PyTorch differentiates to
any order and compilers trace. The fused one (`fused_chain`, `fused_skinning`) serves eager calls: all joints, and
vertices where there are many bodies or gradients are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from typing import NamedTuple

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
from .outputs import BodyOutput, RestBody
from .skinning import (
    VertexBases,
    add_blend,
    add_correctives,
    apply_transforms,
    blend_transforms,
    joint_transforms,
)

Constants = Mapping[str, Tensor]

# Without gradients, fused skinning gains from about this many bodies on.
MANY = 14


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


class Skinned(NamedTuple):
    """Posed vertices (*B, 3, V), joints and world rotations, and the shaped planes (*S, 3 V) that they came from."""

    posed: Tensor
    joints: Tensor
    turned: Tensor
    planes: Tensor


def whole_pass(plan: Plan, constants: Constants, given: Arguments) -> BodyOutput:
    """Shape and pose the body."""
    alone = is_alone()
    fuse = alone and _is_much(given.batch, _tensors(given))
    if fuse:
        lever = shape_lever(plan, constants, given, 2 * plan.num_joints)
        bases = vertex_bases(plan, constants)
    else:
        planes, lever = _shape(plan, constants, given)
        bases = _shaped(constants, planes)
    skinned = _skin(plan, constants, bases, _chain(plan, constants, given, lever, alone), given, given.batch, fuse)
    return _output(skinned, _rest(plan, skinned.planes, lever))


def shape_pass(plan: Plan, constants: Constants, given: Arguments) -> RestBody:
    """Shape the body: the first stage."""
    return _rest(plan, *_shape(plan, constants, given))


def pose_pass(plan: Plan, constants: Constants, rest: RestBody, given: Arguments, batch: torch.Size) -> BodyOutput:
    """Pose a rest body: the second stage. `batch` is that of everything."""
    alone = is_alone()
    lever = torch.cat((constants["_tree_bones"] @ rest.joints, rest.joints), dim=-2)
    planes = rest.vertices.transpose(-1, -2).flatten(-2)
    chain = _chain(plan, constants, given, lever, alone)
    fuse = alone and _is_much(batch, (*_tensors(given), *rest))
    return _output(_skin(plan, constants, _shaped(constants, planes), chain, given, batch, fuse), rest)


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
    fuse = alone and _is_much(batch, (*_tensors(given), bases.template))
    skinned = _skin(plan, constants, bases, chain, given, batch, fuse)
    return skinned.posed.transpose(-1, -2), skinned.joints


def vertex_bases(plan: Plan, constants: Constants) -> VertexBases:
    """Return the constants of all vertices."""
    count = 3 * plan.num_vertices
    return VertexBases(
        constants["_rest_template"].narrow(0, 0, count),
        constants["_rest_directions"].narrow(1, 0, count),
        constants["_pose_directions"],
        constants["_weights"],
    )


def _shaped(constants: Constants, planes: Tensor) -> VertexBases:
    """Return the constants of all vertices of bodies that are shaped already: no shape is added to their planes."""
    return VertexBases(planes, None, constants["_pose_directions"], constants["_weights"])


def shape_lever(plan: Plan, constants: Constants, given: Arguments, count: int) -> Tensor:
    """Return the first `count` of the bones and rest joints (*S, count, 3), without the vertices."""
    start = 3 * plan.num_vertices
    template = constants["_rest_template"].narrow(0, start, 3 * count)
    directions = constants["_rest_directions"].narrow(1, start, 3 * count)
    lever = _blend_shape(given, template, directions)
    return lever.view(*lever.shape[:-1], count, 3)


def is_alone() -> bool:
    """Return whether nothing looks into the operations of this call, so that it may take the fused path.

    While a compiler traces, inside a functorch transform and in forward mode, operations must be such as others know.
    """
    if torch.compiler.is_compiling():
        return False
    looked_into = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    return not looked_into and not is_tracing()


def _is_much(batch: torch.Size, inputs: Collection[Tensor]) -> bool:
    """Return whether fused skinning is worth its calls: for many bodies, where it saves a graph, and on a GPU."""
    if batch.numel() >= MANY or (torch.is_grad_enabled() and any(value.requires_grad for value in inputs)):
        return True
    return any(map(runs_on_gpu_kernels, inputs))


def _tensors(given: Arguments) -> list[Tensor]:
    return [*(value for _, value in given.coefficients), *given.parts.values()]


def _tree(constants: Constants, last: str) -> tuple[Tensor, Tensor, Tensor]:
    return constants["_tree_jumps"], constants["_tree_turners"], constants[f"_tree_{last}"]


def _blend_shape(given: Arguments, template: Tensor, directions: Tensor) -> Tensor:
    if not given.coefficients:
        return template.clone()  # the caller may write into what it gets, and the template is ours
    for start, value in given.coefficients:
        template = add_blend(template, value, directions.narrow(-2, start, value.shape[-1]))
    return template


def _planes(given: Arguments, bases: VertexBases) -> Tensor:
    """Return the shaped planes of `bases`."""
    directions = bases.shape_directions
    return bases.template if directions is None else _blend_shape(given, bases.template, directions)


def _shape(plan: Plan, constants: Constants, given: Arguments) -> tuple[Tensor, Tensor]:
    """Return the planes (*S, 3 V), and the bones followed by the rest joints (*S, 2 J, 3), from one product."""
    shaped = _blend_shape(given, constants["_rest_template"], constants["_rest_directions"])
    planes, lever = shaped.split_with_sizes((3 * plan.num_vertices, 6 * plan.num_joints), dim=-1)
    return planes, lever.view(*lever.shape[:-1], 2 * plan.num_joints, 3)


def _rest(plan: Plan, planes: Tensor, lever: Tensor) -> RestBody:
    vertices = planes.view(*planes.shape[:-1], 3, plan.num_vertices).transpose(-1, -2)
    return RestBody(vertices, lever.narrow(-2, plan.num_joints, plan.num_joints))


def _output(skinned: Skinned, rest: RestBody) -> BodyOutput:
    posed, joints, turned, _ = skinned
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
    fuse: bool,
) -> Skinned:
    """Shape, correct and pose the vertices of `bases`."""
    joints, turned, transforms, feature = chain
    if not plan.has_correctives:
        feature = None
    elif plan.fixed:
        feature = feature.index_select(-1, constants["_moving_features"])
    fused = None
    if fuse and turned.shape[:-3] == batch and bases.weights.dim() == 2:
        packed = packed_directions(constants, bases.pose_directions)
        fused = _fused_skinning(bases, given, feature, transforms, batch, packed)
    if fused is not None:
        posed, planes = fused
    else:
        planes = _planes(given, bases)
        blended = blend_transforms(bases.weights, transforms)
        corrected = planes
        if feature is not None:
            # As late as can be: for one body these directions are most of the memory that is read, and what has been
            # in the caches is gone after them.
            corrected = add_correctives(corrected, feature, bases.pose_directions)
        posed = apply_transforms(corrected, blended)
    if given.transl is not None:
        posed, joints = posed + given.transl.unsqueeze(-1), joints + given.transl.unsqueeze(-2)
    return Skinned(posed, joints, turned, planes)


def _joined(coefficients: list[tuple[int, Tensor]]) -> Tensor:
    """Return the coefficients (*B, n), each with the row of its first direction, as one, with zeros between them."""
    if len(coefficients) == 1:
        return coefficients[0][1]
    pieces = []
    for (start, value), (end, _) in pairwise(coefficients):
        pieces.append(pad(value, (0, end - start - value.shape[-1])))
    return torch.cat((*pieces, coefficients[-1][1]), dim=-1)


def _fused_skinning(
    bases: VertexBases,
    given: Arguments,
    feature: Tensor | None,
    transforms: Tensor,
    batch: torch.Size,
    packed: PackedDirections | None,
) -> tuple[Tensor, Tensor] | None:
    """Return posed vertices (*B, 3, V) and shaped planes; None where some poses, but not all, share a shape."""
    coefficients = planes = None
    directions = bases.shape_directions
    if directions is not None and given.coefficients and all(v.shape[:-1] == batch for _, v in given.coefficients):
        coefficients = _flat(_joined(given.coefficients), 1)
        start, count = given.coefficients[0][0], coefficients.shape[-1]
        bases = bases._replace(shape_directions=directions.narrow(0, start, count))
    else:
        planes = _planes(given, bases)
        if planes.shape[:-1] == batch:
            bases = bases._replace(template=_flat(planes, 1))
        elif planes.shape[:-1].numel() == 1:
            bases = bases._replace(template=planes.reshape(-1))
        else:
            return None
    if feature is not None:
        feature = _flat(feature, 1)
    transforms = _flat(transforms, 2)
    if runs_on_gpu_kernels(transforms):
        from .triton_skinning import triton_skinning

        posed, shaped = triton_skinning(bases, coefficients, feature, transforms, packed)
    else:
        posed, shaped = fused_skinning(bases, coefficients, feature, transforms)
    if planes is None:
        assert shaped is not None
        planes = _unflat(shaped, batch)
    return _unflat(posed, batch), planes
