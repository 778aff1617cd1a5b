"""Axis-angle to posed joints and transforms as one step, with a backward in closed form: forces up the tree.

Numbers lie component by component, then joint by joint, the bodies last, so that every operation is a long run over
plain numbers instead of many products of 3x3 matrices. Backward, what pulls on a joint's position and frame is a force
and a torque; each joint gathers those of its subtree, by one product with the tree's matrix, and the torque about it,
seen from its parent, is the gradient by a turn of it. The plain path is `local_rotations` and `chain_transforms`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry.axis_angle import axis_angle_to_matrix_and_bend
from .kinematics import chain_joints, chain_rotations, chain_transforms
from .skinning import joint_transforms

# From about this many numbers on, products of whole planes beat `torch.linalg.cross`, which goes vector by vector.
LONG = 2000
# Up to this many levers in all, the number of calls decides; beyond, the length of their runs.
FEW = 16 * 24
# Half angles start here, so that sin(x)/x is one at zero without a choice.
SMALLEST = 1e-30


class Chain(NamedTuple):
    """The posed tree; each in the batch of what it depends on.

    Attributes:
        joints: (*B, J, 3).
        turned: (*P, J, 3, 3) world rotations.
        transforms: (*B, 12, J) from rest to pose, see `joint_transforms`.
        feature: (*P, F) that drives the pose correctives.
    """

    joints: Tensor
    turned: Tensor
    transforms: Tensor
    feature: Tensor


def fused_chain(
    axis_angle: Float[Tensor, "B Jplus1 3"], lever: Float[Tensor, "S twoJ 3"], constants: Mapping[str, Tensor]
) -> Chain:
    """Return the posed tree of a flat batch, the feature that of rotation matrices.

    Args:
        axis_angle: of all joints, the root first, and at the end of one that never moves.
        lever: the bones, then the rest joints, of each body or of all (S = 1).
        constants: the model's.
    """
    return Chain(*_run(axis_angle, lever, constants))


def fused_joints(
    axis_angle: Float[Tensor, "B Jplus1 3"], bones: Float[Tensor, "S J 3"], constants: Mapping[str, Tensor]
) -> Float[Tensor, "B J 3"]:
    """Return the posed joints alone."""
    return _run(axis_angle, bones, constants)[0]


def _run(axis_angle: Tensor, lever: Tensor, constants: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    if torch.is_grad_enabled() and (axis_angle.requires_grad or lever.requires_grad):
        return _FusedChain.apply(axis_angle, lever, constants)
    return _forward(axis_angle, lever, constants, keep=False)[0]


def plain_chain(axis_angle: Tensor, lever: Tensor, constants: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Return what `fused_chain` and `fused_joints` do by operations that PyTorch differentiates to any order."""
    jumps, turners = constants["_tree_jumps"], constants["_tree_turners"]
    local, bend = axis_angle_to_matrix_and_bend(axis_angle)
    count = axis_angle.shape[1] - 1
    if lever.shape[1] == count:
        return (chain_joints(local, lever, jumps, turners, constants["_tree_path"]),)
    turned, joints, translations = chain_transforms(local, lever, jumps, turners, constants["_tree_placement"])
    return joints, turned, joint_transforms(turned, translations), bend.narrow(1, 1, count - 1).flatten(1)


class _FusedChain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, axis_angle: Tensor, lever: Tensor, constants: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        outputs, kept = _forward(axis_angle, lever, constants, keep=True)
        ctx.constants = constants
        ctx.save_for_backward(axis_angle, lever, *kept)
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:
        axis_angle, lever, *kept = ctx.saved_tensors
        needed = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():
            return *plain_chain_gradients((axis_angle, lever), ctx.constants, upstream, needed), None
        return *_backward(needed, lever, ctx.constants["_tree_path"], kept, upstream), None


def plain_chain_gradients(
    inputs: tuple[Tensor, Tensor],
    constants: Mapping[str, Tensor],
    upstream: tuple[Tensor | None, ...],
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Return the gradients by axis-angle and lever with a graph of their own, for derivatives of derivatives."""
    return gradients_with_graph(lambda vector, lever: plain_chain(vector, lever, constants), inputs, upstream, needed)


def gradients_with_graph(
    function: Callable[..., Sequence[Tensor | None]],
    inputs: Sequence[Tensor | None],
    upstream: Sequence[Tensor | None],
    needed: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Return gradients by inputs that can be differentiated again, None where not needed.

    Args:
        function: of the inputs, of operations that PyTorch differentiates to any order.
        inputs: of a step that is being differentiated.
        upstream: the gradients by the results; a result without one has no part.
        needed: by which inputs.
    """
    # Nodes of their own: one input may have been made from another, and each gradient is that of this step alone.
    own = [value if value is None else value.view_as(value) for value in inputs]
    pairs = zip(function(*own), upstream, strict=True)
    values, gradients = zip(*(pair for pair in pairs if pair[0] is not None and pair[1] is not None), strict=True)
    wanted = [value for value, wants in zip(own, needed, strict=True) if wants and value is not None]
    found = iter(torch.autograd.grad(values, wanted, gradients, create_graph=True, allow_unused=True))
    return tuple(next(found) if wants else None for wants in needed)


def _forward(
    axis_angle: Tensor, lever: Tensor, constants: Mapping[str, Tensor], *, keep: bool
) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """Return the outputs, and with `keep` what backward needs, component by component."""
    if len(axis_angle) * lever.shape[1] <= FEW:
        return _forward_of_few(axis_angle, lever, constants, keep=keep)
    return _forward_of_many(axis_angle, lever, constants)


def _forward_of_few(
    axis_angle: Tensor, lever: Tensor, constants: Mapping[str, Tensor], *, keep: bool
) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """Compute joint by joint with products of 3x3 matrices: the fewest calls."""
    joints, levers = axis_angle.shape[1] - 1, lever.shape[1]
    half = torch.linalg.vector_norm(axis_angle, dim=-1, keepdim=True).mul_(0.5).clamp_(min=SMALLEST)
    sinc, cosine = half.sin().div_(half), half.cos()
    vector = axis_angle * sinc
    terms = torch.cat((vector, cosine), dim=-1).unsqueeze(-1) * vector.unsqueeze(-2)
    bend = (terms.flatten(-2) @ constants["_bend_mix"].t()).view(*axis_angle.shape, 3)
    local = bend + constants["_identity"]
    world = chain_rotations(local, constants["_tree_jumps"])
    turning = world.index_select(1, constants["_tree_turners"].narrow(0, 0, levers))
    arms = (turning @ lever.unsqueeze(-1)).squeeze(-1)
    if levers == joints:
        at = constants["_tree_path"] @ arms
        outputs = (at,)
    else:
        at, shift = (constants["_tree_placement"] @ arms).split((joints, joints), dim=1)
        turned = turning.narrow(1, joints, joints)
        outputs = (at, turned, joint_transforms(turned, shift), bend.narrow(1, 1, joints - 1).flatten(1))
    if not keep:
        return outputs, []
    angles = (value.squeeze(-1).t() for value in (sinc, cosine, half))
    kept = [axis_angle.permute(2, 1, 0), *angles, turning.permute(2, 3, 1, 0), at.permute(2, 1, 0)]
    return outputs, kept if levers == joints else [*kept, arms.permute(2, 1, 0), local.permute(2, 3, 1, 0)]


def _forward_of_many(
    axis_angle: Tensor, lever: Tensor, constants: Mapping[str, Tensor]
) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """Compute component by component, the bodies last: the longest runs."""
    bodies, joints, levers = len(axis_angle), axis_angle.shape[1] - 1, lever.shape[1]
    vector = axis_angle.permute(2, 1, 0).contiguous()
    half = (vector * vector).sum(0).sqrt_().mul_(0.5).clamp_(min=SMALLEST)
    sinc, cosine = half.sin().div_(half), half.cos()
    # R - I = cos K + K²/2: the nine products of u = sinc r, and cos u, mixed by whole numbers and halves.
    terms = vector.new_empty(4, 3, joints + 1, bodies)
    turn = vector * sinc
    torch.mul(turn.unsqueeze(0), turn.unsqueeze(1), out=terms.narrow(0, 0, 3))
    torch.mul(turn, cosine, out=terms.select(0, 3))
    bend = (constants["_bend_mix"] @ terms.view(12, (joints + 1) * bodies)).view(3, 3, joints + 1, bodies)
    local = bend + constants["_identity"][:, :, None, None]
    world = local
    for jump in constants["_tree_jumps"].unbind(0):
        world = _product(world.index_select(2, jump), world)
    turning = world.index_select(2, constants["_tree_turners"].narrow(0, 0, levers))
    arms = (turning * lever.permute(2, 1, 0)).sum(1)
    kept = [vector, sinc, cosine, half, turning]
    if levers == joints:
        placed = constants["_tree_path"] @ arms
        return (placed.permute(2, 1, 0).contiguous(),), [*kept, placed]
    at, shift = (constants["_tree_placement"] @ arms).split((joints, joints), dim=1)
    frames = turning.narrow(2, joints, joints)
    transforms = torch.cat((frames, shift.unsqueeze(1)), dim=1).permute(3, 0, 1, 2).reshape(bodies, 12, joints)
    feature = bend.narrow(2, 1, joints - 1).permute(3, 2, 0, 1).reshape(bodies, 9 * (joints - 1))
    turned = frames.permute(3, 2, 0, 1).contiguous()
    return (at.permute(2, 1, 0).contiguous(), turned, transforms, feature), [*kept, at, arms, local]


def _backward(
    needed: tuple[bool, ...], lever: Tensor, path: Tensor, kept: list[Tensor], upstream: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, Tensor | None]:
    vector, sinc, cosine, half, turning, at, *others = kept
    joints, bodies = at.shape[1:]
    to_joints, to_turned, to_transforms, to_feature = (*upstream, None, None, None)[:4]
    # What pulls on each joint: force and torque.
    force = None if to_joints is None else to_joints.permute(2, 1, 0)
    shift_pull = None
    frame_pull = None if to_turned is None else to_turned.permute(2, 3, 1, 0)
    if to_transforms is not None:
        by_row = to_transforms.view(bodies, 3, 4, joints).permute(1, 2, 3, 0).contiguous()
        shift_pull = by_row.select(1, 3)
        force = shift_pull if force is None else force + shift_pull
        frame_pull = by_row.narrow(1, 0, 3) if frame_pull is None else by_row.narrow(1, 0, 3) + frame_pull
    if force is None:
        force = torch.zeros_like(at)
    torque = _cross(at, force)
    if frame_pull is not None:
        torque += _cross(turning.narrow(2, joints, joints), frame_pull).sum(1)
    if shift_pull is not None:
        torque -= _cross(others[0].narrow(1, joints, joints), shift_pull)
    # Those of its subtree, about the origin; then the torque about itself.
    force, torque = (path.t() @ torch.cat((force, torque))).split((3, 3))
    torque = torque - _cross(at, force)
    to_vector = to_lever = None
    if needed[0]:
        above = turning if turning.shape[2] == joints else turning.narrow(2, 0, joints)
        local_torque = torch.zeros_like(vector)
        torch.sum(above * torque.unsqueeze(1), 0, out=local_torque.narrow(1, 0, joints))
        if to_feature is not None:
            by_entry = to_feature.view(bodies, joints - 1, 3, 3).permute(2, 3, 1, 0)
            local_torque[:, 1:joints].add_(_cross(others[1].narrow(2, 1, joints - 1), by_entry).sum(1))
        to_vector = _exponential_pullback(vector, sinc, cosine, half, local_torque).permute(2, 1, 0).contiguous()
    if needed[1]:
        arms = force
        if lever.shape[1] > joints:
            arms = torch.cat((force, torch.zeros_like(force) if shift_pull is None else -shift_pull), dim=1)
        to_lever = (turning * arms.unsqueeze(1)).sum(0).permute(2, 1, 0)
        to_lever = to_lever.sum(0, keepdim=True) if len(lever) < bodies else to_lever.contiguous()
    return to_vector, to_lever


def _exponential_pullback(vector: Tensor, sinc: Tensor, cosine: Tensor, half: Tensor, torque: Tensor) -> Tensor:
    """Return the gradient by r of exp(r) from that by a turn from the left: the transposed left Jacobian's product."""
    once = _cross(vector, torque)
    twice = _cross(vector, once)
    # (1 - cos θ)/θ² and (1 - sin θ/θ)/θ²; the second is multiplied by θ², so that its digits near zero do not matter.
    first = sinc * sinc * -0.5
    second = (1 - sinc * cosine) / (half * half).mul_(4).clamp_(min=torch.finfo(half.dtype).eps)
    return torch.addcmul(torch.addcmul(torque, first, once), second, twice)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return the matrix products over the first two dimensions."""
    (column_x, column_y, column_z), (row_x, row_y, row_z) = left.split(1, dim=1), right.split(1, dim=0)
    return (column_x * row_x).addcmul_(column_y, row_y).addcmul_(column_z, row_z)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Return the cross products over the first dimension."""
    if a.numel() < LONG:
        return torch.linalg.cross(a, b, dim=0)
    return torch.addcmul(a.roll(-1, 0) * b.roll(-2, 0), a.roll(-2, 0), b.roll(-1, 0), value=-1)
