"""Axis-angle to posed joints and transforms on the GPU, one launch each way; the twin of `fused_chain`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import triton
from jaxtyping import Float
from torch import Tensor

from .fused_chain import Chain, plain_chain_gradients
from .gpu import launch
from .triton_chain_kernels import chain_back_kernel, chain_kernel

# Bodies of a program. The products with the tree take 16 rows at least.
TILE_B = 16


def triton_chain(
    axis_angle: Float[Tensor, "B Jplus1 3"], lever: Float[Tensor, "S twoJ 3"], constants: Mapping[str, Tensor]
) -> Chain:
    """Return the posed tree of a flat batch, as `fused_chain` does."""
    return Chain(*_run(axis_angle, lever, constants))


def triton_joints(
    axis_angle: Float[Tensor, "B Jplus1 3"], bones: Float[Tensor, "S J 3"], constants: Mapping[str, Tensor]
) -> Float[Tensor, "B J 3"]:
    """Return the posed joints alone."""
    return _run(axis_angle, bones, constants)[0]


def _run(axis_angle: Tensor, lever: Tensor, constants: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    axis_angle, lever = axis_angle.contiguous(), lever.contiguous()
    if torch.is_grad_enabled() and (axis_angle.requires_grad or lever.requires_grad):
        return _TritonChain.apply(axis_angle, lever, constants)
    return _forward(axis_angle, lever, constants)


class _TritonChain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, axis_angle: Tensor, lever: Tensor, constants: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        ctx.constants = constants
        ctx.save_for_backward(axis_angle, lever)
        ctx.set_materialize_grads(False)
        return _forward(axis_angle, lever, constants)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:
        inputs, needed = ctx.saved_tensors, ctx.needs_input_grad[:2]
        gradients = plain_chain_gradients if torch.is_grad_enabled() else _backward
        return *gradients(inputs, ctx.constants, upstream, needed), None


def _forward(axis_angle: Tensor, lever: Tensor, constants: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    jumps, turners = constants["_tree_jumps"], constants["_tree_turners"]
    bodies, joints = len(axis_angle), axis_angle.shape[1] - 1
    whole = lever.shape[1] > joints
    shapes = [(joints, 3)]
    if whole:
        shapes += [(joints, 3, 3), (12, joints), (9 * (joints - 1),)]
    outputs = [axis_angle.new_empty(bodies, *shape) for shape in shapes]
    if bodies:
        launch(
            chain_kernel, (triton.cdiv(bodies, TILE_B),),
            axis_angle, lever, jumps, turners, *outputs, *[None] * (4 - len(outputs)),
            bodies, joints, len(jumps), _stride(lever),
            TILE_B=TILE_B, TILE_J=_padded(joints), WHOLE=whole, num_warps=8,
        )  # fmt: skip
    return tuple(outputs)


def _backward(
    inputs: tuple[Tensor, Tensor],
    constants: Mapping[str, Tensor],
    upstream: tuple[Tensor | None, ...],
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    axis_angle, lever = inputs
    jumps, turners, path = (constants[f"_tree_{name}"] for name in ("jumps", "turners", "path"))
    bodies, joints = len(axis_angle), axis_angle.shape[1] - 1
    given = [None if value is None else value.contiguous() for value in (*upstream, None, None, None)[:4]]
    to_vector = torch.empty_like(axis_angle) if needed[0] else None
    to_lever = lever.new_empty(bodies, *lever.shape[1:]) if needed[1] else None
    if bodies:
        launch(
            chain_back_kernel, (triton.cdiv(bodies, TILE_B),),
            axis_angle, lever, jumps, turners, path, *given, to_vector, to_lever,
            bodies, joints, len(jumps), _stride(lever), path.stride(0),
            TILE_B=TILE_B, TILE_J=_padded(joints), WHOLE=lever.shape[1] > joints,
            FROM_AT=given[0] is not None, FROM_TURNED=given[1] is not None, FROM_TRANSFORMS=given[2] is not None,
            FROM_FEATURE=given[3] is not None, TO_VECTOR=needed[0], TO_LEVER=needed[1], num_warps=8,
        )  # fmt: skip
    if to_lever is not None and len(lever) != bodies:
        to_lever = to_lever.sum(0, keepdim=True)
    return to_vector, to_lever


def _stride(lever: Tensor) -> int:
    """Return how far the lever of the next body is: nowhere, where all have one."""
    return 0 if len(lever) == 1 else lever.shape[1] * 3


def _padded(joints: int) -> int:
    """Return the width of a tile that holds all joints and one that never moves."""
    return max(16, triton.next_power_of_2(joints + 1))
