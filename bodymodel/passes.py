"""What a body model computes, as functions of its constants and checked arguments: the two stages and their shortcuts.

Each runs on one of two paths with the same result. The plain path is made of operations that PyTorch differentiates to
any order and compilers trace. The fused one (`fused_chain`, `fused_skinning`) is for eager calls that are large or want
gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.jit._trace import is_tracing

from .arguments import Arguments, join_axis_angles, local_rotations
from .families import Family
from .fused_chain import Chain, fused_chain, fused_joints
from .fused_skinning import fused_skinning
from .gpu import PackedDirections, packed_directions, runs_on_gpu_kernels
from .kinematics import chain_joints, chain_transforms
from .outputs import BodyOutput, RestBody
from .skinning import VertexBases, add_blend, apply_transforms, blend, blend_transforms, joint_transforms

Constants = Mapping[str, Tensor]

# Without gradients the fused path gains from about this many joints, or vertices, on.
MANY_JOINTS = 16 * 24
MANY_VERTICES = 14 * 6890


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
    fuse = prefers_fused(_tensors(given), given.batch, plan.num_vertices, MANY_VERTICES)
    if fuse:
        lever = shape_lever(plan, constants, given, 2 * plan.num_joints)
        skinned = _skin(plan, constants, vertex_bases(plan, constants), lever, given, given.batch, fuse)
    else:
        planes, lever = _shape(plan, constants, given)
        skinned = _skin(plan, constants, _shaped(constants, planes), lever, given, given.batch, fuse)
    return _output(skinned, _rest(plan, skinned.planes, lever))


def shape_pass(plan: Plan, constants: Constants, given: Arguments) -> RestBody:
    """Shape the body: the first stage."""
    return _rest(plan, *_shape(plan, constants, given))


def pose_pass(plan: Plan, constants: Constants, rest: RestBody, given: Arguments, batch: torch.Size) -> BodyOutput:
    """Pose a rest body: the second stage. `batch` is that of everything."""
    fuse = prefers_fused((*_tensors(given), *rest), batch, plan.num_vertices, MANY_VERTICES)
    lever = torch.cat((constants["_tree_bones"] @ rest.joints, rest.joints), dim=-2)
    planes = rest.vertices.transpose(-1, -2).flatten(-2)
    return _output(_skin(plan, constants, _shaped(constants, planes), lever, given, batch, fuse), rest)


def joints_pass(plan: Plan, constants: Constants, given: Arguments) -> Tensor:
    """Return the posed joints (*B, J, 3) alone."""
    bones = shape_lever(plan, constants, given, plan.num_joints)
    fuse = prefers_fused(_tensors(given), given.batch, plan.num_joints, MANY_JOINTS)
    if fuse and _can_fuse_chain(plan, given, bones):
        poses, levers, batch = _flat(plan, constants, given, bones)
        joints = _joints_and_chain(poses)[0](poses, levers, constants).view(*batch, plan.num_joints, 3)
    else:
        local, _ = local_rotations(given.parts, given.rotation, plan.row, constants, plan.fixed)
        joints = chain_joints(local, bones, *_tree(constants))
    return joints if given.transl is None else joints + given.transl.unsqueeze(-2)


def subset_pass(
    plan: Plan, constants: Constants, bases: VertexBases, given: Arguments, batch: torch.Size
) -> tuple[Tensor, Tensor]:
    """Return some posed vertices (*B, N, 3) and the posed joints. `batch` includes that of the sets of vertices."""
    fuse = prefers_fused((*_tensors(given), bases.template), batch, plan.num_joints, MANY_JOINTS)
    lever = shape_lever(plan, constants, given, 2 * plan.num_joints)
    skinned = _skin(plan, constants, bases, lever, given, batch, fuse)
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


def prefers_fused(inputs: Collection[Tensor], batch: torch.Size, each: int, many: int) -> bool:
    """Return whether a call with these inputs, of a batch of `each` joints or vertices a body, takes the fused path.

    It does when it is large, wants gradients or has GPU kernels, on plain tensors: while a compiler traces, inside a
    functorch transform and in forward mode, operations must be those that others can look into.
    """
    if torch.compiler.is_compiling():  # first of all: there sizes are symbols, and a comparison would fix them
        return False
    wanted = torch.is_grad_enabled() and any(value.requires_grad for value in inputs)
    if not wanted and batch.numel() * each < many and not any(map(runs_on_gpu_kernels, inputs)):
        return False
    looked_into = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    return not looked_into and not is_tracing()


def _tensors(given: Arguments) -> list[Tensor]:
    return [*(value for _, value in given.coefficients), *given.parts.values()]


def _tree(constants: Constants) -> tuple[Tensor, Tensor, Tensor]:
    return constants["_tree_jumps"], constants["_tree_turners"], constants["_tree_placement"]


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


def _chain(plan: Plan, constants: Constants, given: Arguments, lever: Tensor, fuse: bool) -> Chain:
    if fuse and _can_fuse_chain(plan, given, lever):
        poses, levers, batch = _flat(plan, constants, given, lever)
        chain = _joints_and_chain(poses)[1](poses, levers, constants)
        return Chain(*(value.view(*batch, *value.shape[1:]) for value in chain))
    local, feature = local_rotations(given.parts, given.rotation, plan.row, constants, plan.fixed)
    turned, joints, translations = chain_transforms(local, lever, *_tree(constants))
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
    pose_batch = torch.broadcast_shapes(*(given.batches[name] for name in given.parts))
    return lever.shape[:-2] == pose_batch or lever.shape[:-2].numel() == 1


def _flat(plan: Plan, constants: Constants, given: Arguments, lever: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
    """Return the axis-angle vectors (B, J + 1, 3) and levers with one batch dimension, and the batch that they had."""
    poses = join_axis_angles(given.parts, plan.row, constants, plan.fixed)
    batch = poses.shape[:-2]
    return (
        poses.reshape(batch.numel(), *poses.shape[-2:]),
        lever.reshape(lever.shape[:-2].numel(), *lever.shape[-2:]),
        batch,
    )


def _skin(
    plan: Plan,
    constants: Constants,
    bases: VertexBases,
    lever: Tensor,
    given: Arguments,
    batch: torch.Size,
    fuse: bool,
) -> Skinned:
    """Shape, correct and pose the vertices of `bases`."""
    joints, turned, transforms, feature = _chain(plan, constants, given, lever, fuse)
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
            corrected = corrected + blend(feature, bases.pose_directions)
        posed = apply_transforms(corrected, blended)
    if given.transl is not None:
        posed, joints = posed + given.transl.unsqueeze(-1), joints + given.transl.unsqueeze(-2)
    return Skinned(posed, joints, turned, planes)


def _fused_skinning(
    bases: VertexBases,
    given: Arguments,
    feature: Tensor | None,
    transforms: Tensor,
    batch: torch.Size,
    packed: PackedDirections | None,
) -> tuple[Tensor, Tensor] | None:
    """Return posed vertices (*B, 3, V) and shaped planes; None where some poses, but not all, share a shape."""
    bodies = batch.numel()
    coefficients = planes = None
    directions = bases.shape_directions
    if directions is not None and len(given.coefficients) == 1 and given.coefficients[0][1].shape[:-1] == batch:
        start, value = given.coefficients[0]
        coefficients = value.reshape(bodies, value.shape[-1])
        bases = bases._replace(shape_directions=directions.narrow(0, start, value.shape[-1]))
    else:
        planes = _planes(given, bases)
        if planes.shape[:-1] == batch:
            bases = bases._replace(template=planes.reshape(bodies, planes.shape[-1]))
        elif planes.shape[:-1].numel() == 1:
            bases = bases._replace(template=planes.reshape(-1))
        else:
            return None
    if feature is not None:
        feature = feature.reshape(bodies, feature.shape[-1])
    transforms = transforms.reshape(bodies, *transforms.shape[-2:])
    if runs_on_gpu_kernels(transforms):
        from .triton_skinning import triton_skinning

        posed, shaped = triton_skinning(bases, coefficients, feature, transforms, packed)
    else:
        posed, shaped = fused_skinning(bases, coefficients, feature, transforms)
    if planes is None:
        assert shaped is not None
        planes = shaped.view(*batch, shaped.shape[-1])
    return posed.view(*batch, *posed.shape[-2:]), planes
