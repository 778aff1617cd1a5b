"""One call of the compiled kernel, with its backward; and the same by operations of PyTorch where more is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..geometry.checks import values_are_checked
from .fused_chain import gradients_with_graph
from .packed import pack_points, packed_on
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
    """One call: runs it, backward too, and can run it again by operations that PyTorch differentiates to any order."""

    def __init__(
        self,
        kernel: Any,
        passes: CompiledPasses,
        constants: Mapping[str, Tensor],
        reading: Reading,
        kind: str,
        bases: VertexBases | None,
    ) -> None:
        self.kernel, self.reading, self.kind, self.bases = kernel, reading, kind, bases
        self.passes, self.constants = passes, constants
        self.tree, self.points, self.count = passes.tree(constants), None, 0
        if kind == "whole":
            self.points, self.count = passes.points(constants), passes.plan.num_vertices
        elif bases is not None:
            self.count = bases.weights.shape[-1]
            self.points = packed_on(bases.weights, bases[:2], lambda: pack_points(kernel, bases))

    def run(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return vertices (*B, V, 3), joints and rotations; what the kind does not have is empty."""
        if not self.reading.wanted:
            return self.forward()
        self.constants = dict(self.constants)  # a graph outlives a move of the model
        return _Pass.apply(self, *self.reading.given.values())

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        """Run without a graph."""
        reading, joints, like = self.reading, self.passes.plan.num_joints, self.constants["_template"]
        posed = like.new_empty((*reading.batch, self.count, 3))
        placed = like.new_empty((*reading.batch, joints, 3))
        turned = like.new_empty((*reading.batch, joints, 3, 3)) if self.kind == "whole" else like.new_empty(0)
        addresses = posed.data_ptr(), placed.data_ptr(), turned.data_ptr()
        threads = torch.get_num_threads()
        self.kernel.forward(self.tree, self.points, reading.bodies, reading.slots, threads, *addresses)
        return posed, placed, turned

    def backward(
        self, values: tuple[Tensor, ...], upstream: tuple[Tensor | None, ...], needed: tuple[bool, ...]
    ) -> list[Tensor | None]:
        """Return the gradients by the values."""
        posed, placed, turned = (None if grad is None or not grad.numel() else grad for grad in upstream)
        steps = (0, 0, 0, 0)
        if posed is not None:
            posed = posed.reshape(self.reading.bodies, self.count, 3)  # a view where strides allow
            steps = (posed.data_ptr(), *posed.stride())
        placed = None if placed is None else placed.contiguous()
        turned = None if turned is None else turned.contiguous()
        gradients = [torch.empty_like(value) if needs else None for value, needs in zip(values, needed, strict=True)]
        slots = self.reading.slots.copy()
        wanted = [0] * (len(slots) // 3)
        for place, value, gradient in zip(self.reading.given, values, gradients, strict=True):
            slots[3 * place] = value.data_ptr()
            wanted[place] = _address(gradient)
        call = self.tree, self.points, self.reading.bodies, slots, torch.get_num_threads()
        self.kernel.backward(*call, steps, _address(placed), _address(turned), wanted)
        return gradients

    def plain(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Return what `run` returns, of the same arguments, by operations of PyTorch."""
        with without_autocast("cpu"):
            return self._plain(values)

    def _plain(self, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        plan, constants = self.passes.plan, self.constants
        given = self.passes.arguments(dict(zip(self.reading.given, values, strict=True)), self.reading.batch)
        nothing = torch.empty(0)
        if self.kind == "whole":
            out = whole_pass(plan, constants, given)
            return out.vertices, out.joints, out.joint_rotations
        if self.bases is None:
            return nothing, joints_pass(plan, constants, given), nothing
        vertices, joints = subset_pass(plan, constants, self.bases, given, given.batch)
        return vertices, joints, nothing


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


def _address(value: Tensor | None) -> int:
    return 0 if value is None else value.data_ptr()


def _has_memory(value: Tensor | None) -> bool:
    """Return whether this is no batch of gradients (`is_grads_batched`), which has no numbers of its own."""
    try:
        return value is None or value.data_ptr() >= 0
    except RuntimeError:
        return False
