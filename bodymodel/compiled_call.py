"""One call of the compiled kernel, with its backward; and the same by operations of PyTorch where more is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..geometry.checks import values_are_checked
from .fused_chain import gradients_with_graph
from .keypoint_bases import KeypointBases, keypoints_pass
from .packed import pack_mixture, pack_points, packed_on
from .passes import joints_pass, subset_pass, whole_pass, without_autocast
from .skinning import VertexBases

if TYPE_CHECKING:
    from .compiled_passes import CompiledPasses


class Reading(NamedTuple):
    """Checked arguments of one call.

    Attributes:
        batch: of the call.
        bodies: how many there are.
        slots: for each place the address, the step from body to body, and how many numbers; zeros for none.
        given: the arguments, contiguous, by place; where gradients are disabled, only what had to be made so.
        wanted: whether any wants a gradient.
    """

    batch: tuple[int, ...]
    bodies: int
    slots: list[int]
    given: dict[int, Tensor] = {}
    wanted: bool = False


class CompiledCall:
    """One call: runs it, backward too, and can run it again by operations that PyTorch differentiates to any order.

    Args:
        kernel: the compiled one.
        passes: of the model.
        constants: of the model.
        reading: the arguments.
        wanted: bases of some vertices or of keypoints; or "vertices" for all, with joints and rotations; or "joints".
    """

    def __init__(
        self,
        kernel: Any,
        passes: CompiledPasses,
        constants: Mapping[str, Tensor],
        reading: Reading,
        wanted: str | VertexBases | KeypointBases,
    ) -> None:
        self.kernel, self.reading, self.wanted = kernel, reading, wanted
        self.passes, self.constants = passes, constants
        self.tree, self.points, self.count, self.mixture = passes.tree(constants), None, 0, None
        if isinstance(wanted, KeypointBases):
            points, weights, joint_weights = wanted
            self.points = packed_on(points.weights, points[:2], lambda: pack_points(kernel, points))
            self.mixture = packed_on(weights, (joint_weights,), lambda: pack_mixture(kernel, weights, joint_weights))
            self.count = len(weights)
        elif isinstance(wanted, VertexBases):
            self.points = packed_on(wanted.weights, wanted[:2], lambda: pack_points(kernel, wanted))
            self.count = wanted.weights.shape[-1]
        elif wanted == "vertices":
            self.points, self.count = passes.points(constants), passes.plan.num_vertices

    def run(self) -> tuple[Tensor, ...]:
        """Return what is wanted: keypoints; or joints; or vertices and joints, and with all vertices the rotations."""
        if not self.reading.wanted:
            return self.forward()
        self.constants = dict(self.constants)  # a graph outlives a move of the model
        return _Pass.apply(self, *self.reading.given.values())

    def forward(self) -> tuple[Tensor, ...]:
        """Run without a graph."""
        reading, joints, empty = self.reading, self.passes.plan.num_joints, self.constants["_template"].new_empty
        call = self.tree, self.points, reading.bodies, reading.slots, torch.get_num_threads()
        if self.mixture is not None:
            found = empty((*reading.batch, self.count, 3))
            self.kernel.mixed(*call, self.mixture, found.data_ptr())
            return (found,)
        placed = empty((*reading.batch, joints, 3))
        if self.points is None:
            self.kernel.forward(*call, 0, placed.data_ptr(), 0)
            return (placed,)
        posed = empty((*reading.batch, self.count, 3))
        if self.wanted != "vertices":
            self.kernel.forward(*call, posed.data_ptr(), placed.data_ptr(), 0)
            return posed, placed
        turned = empty((*reading.batch, joints, 3, 3))
        self.kernel.forward(*call, posed.data_ptr(), placed.data_ptr(), turned.data_ptr())
        return posed, placed, turned

    def backward(
        self, values: tuple[Tensor, ...], upstream: tuple[Tensor | None, ...], needed: tuple[bool, ...]
    ) -> list[Tensor | None]:
        """Return the gradients by the values, from those by what `forward` returned."""
        gradients = [torch.empty_like(value) if needs else None for value, needs in zip(values, needed, strict=True)]
        bodies, slots = self.reading.bodies, self.reading.slots.copy()
        wanted = [0] * (len(slots) // 3)
        for place, value, gradient in zip(self.reading.given, values, gradients, strict=True):
            slots[3 * place] = value.data_ptr()
            wanted[place] = 0 if gradient is None else gradient.data_ptr()
        call = self.tree, self.points, bodies, slots, torch.get_num_threads()
        # What is copied here stays in a variable until the kernel has read it.
        if self.mixture is not None:
            pull = _of_bodies(upstream[0], bodies)
            self.kernel.mixed_backward(*call, self.mixture, _steps(pull), wanted)
            return gradients
        if self.points is None:
            upstream = None, *upstream
        posed, placed = _of_bodies(upstream[0], bodies), _of_bodies(upstream[1], bodies)
        turned = upstream[2].contiguous() if len(upstream) > 2 and upstream[2] is not None else None
        if placed is not None and placed.stride()[1:] != (3, 1):
            placed = placed.contiguous()
        rotations = 0 if turned is None else turned.data_ptr()
        self.kernel.backward(*call, _steps(posed), _steps(placed)[:2], rotations, wanted)
        return gradients

    def plain(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Return what `run` returns, of the same arguments, by operations of PyTorch."""
        with without_autocast("cpu"):
            return self._plain(values)

    def _plain(self, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        plan, constants, wanted = self.passes.plan, self.constants, self.wanted
        given = self.passes.arguments(dict(zip(self.reading.given, values, strict=True)), self.reading.batch)
        if isinstance(wanted, KeypointBases):
            return (keypoints_pass(plan, constants, wanted, given),)
        if isinstance(wanted, VertexBases):
            return subset_pass(plan, constants, wanted, given, given.batch)
        if wanted == "joints":
            return (joints_pass(plan, constants, given),)
        return whole_pass(plan, constants, given)[:3]


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: CompiledCall, *values: Tensor) -> tuple[Tensor, ...]:
        ctx.call = call
        ctx.save_for_backward(*values)
        ctx.set_materialize_grads(False)
        return call.forward()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:
        call, values, needed = ctx.call, ctx.saved_tensors, ctx.needs_input_grad[1:]
        if not torch.is_grad_enabled() and not is_looked_into() and all(map(_has_memory, upstream)):
            return None, *call.backward(values, upstream, needed)
        with torch.enable_grad():
            return None, *gradients_with_graph(call.plain, values, upstream, needed)


def is_looked_into() -> bool:
    """Return whether something wants to see the operations, or the values checked."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack() > 0
        or values_are_checked()
    )


def _of_bodies(gradient: Tensor | None, bodies: int) -> Tensor | None:
    """Return a gradient (*B, N, 3) as (B, N, 3), a view where strides allow; None where there is nothing to read."""
    return None if gradient is None or not gradient.numel() else gradient.reshape(bodies, gradient.shape[-2], 3)


def _steps(gradient: Tensor | None) -> tuple[int, ...]:
    return (0, 0, 0, 0) if gradient is None else (gradient.data_ptr(), *gradient.stride())


def _has_memory(value: Tensor | None) -> bool:
    """Return whether this is no batch of gradients (`is_grads_batched`), which has no numbers of its own."""
    try:
        return value is None or value.data_ptr() >= 0
    except RuntimeError:
        return False
