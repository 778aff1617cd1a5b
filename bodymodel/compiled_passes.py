"""The passes of `passes` by the compiled kernel, for the calls that suit it; each returns None for those that do not.

It takes eager calls in float32 on the CPU with axis-angle rotations. What else there is (other types, rotations and
devices, compilers and function transforms, wrong arguments) is left to the plain reading and the passes of PyTorch, and
so are derivatives of derivatives. The kernel is called directly, not as a registered operator: on the way through
PyTorch's dispatcher, one body's joints take twice as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from ..geometry import checks
from .arguments import Arguments, Signature
from .backend import active_kernel
from .fused_chain import gradients_with_graph
from .keypoint_bases import KeypointBases
from .outputs import BodyOutput, RestBody, RestLater
from .packed import Packed, pack_mixture, pack_points, pack_tree, packed_on
from .passes import Plan, joints_pass, shape_pass, subset_pass, vertex_bases, whole_pass
from .skeleton import Skeleton
from .skinning import VertexBases

Constants = Mapping[str, Tensor]
_PLAIN_TENSORS = (Tensor, nn.Parameter)
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


class _Reading(NamedTuple):
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


class CompiledPasses:
    """What a model needs to run on the kernel. Copies and pickles of it are empty and fill themselves again.

    Args:
        plan: the model's.
        signature: the model's.
        skeleton: the model's.
    """

    def __init__(self, plan: Plan, signature: Signature, skeleton: Skeleton) -> None:
        """Number the arguments."""
        self.plan, self._signature, self._skeleton = plan, signature, skeleton
        self._fits = plan.row.pose_feature == "matrix" or not plan.has_correctives
        self.shape_names = tuple(signature.coefficients)
        self._starts = [start for start, _ in signature.coefficients.values()]
        # Of each argument its place, its shape without batch (of shape arguments any), and how many numbers at most.
        slots: dict[str, tuple[int, tuple[int, ...], int]] = {}
        for place, (name, (_, count)) in enumerate(signature.coefficients.items()):
            slots[name] = place, (-1,) if name == "segment_scale" else (), count
        for place, part in enumerate(plan.row.parts, len(slots)):
            if part.name not in plan.fixed:
                slots[part.name] = place, (3,) if part.single else (part.count, 3), 3 * part.count
        self._transl = len(self.shape_names) + len(plan.row.parts)
        self._slots = slots | {"transl": (self._transl, (3,), 3)}
        self._tree: Packed | None = None
        self._points: Packed | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.plan, self._signature, self._skeleton)

    def whole(self, constants: Constants, arguments: Mapping[str, Any]) -> BodyOutput | None:
        """Return what `whole_pass` returns; the rest body is made when it is first asked for."""
        kernel = self._suiting(constants)
        reading = None if kernel is None else self._read(kernel, arguments)
        if reading is None:
            return None
        call = _Call(kernel, self, constants, reading, "whole", None)
        posed, joints, rotations = call.run()
        return BodyOutput(posed.transpose(-1, -2), joints, rotations, RestLater.by(call.shape_later(arguments)))

    def joints(self, constants: Constants, arguments: Mapping[str, Any]) -> Tensor | None:
        """Return what `joints_pass` returns."""
        kernel = self._suiting(constants)
        if kernel is None:
            return None
        like = constants["_rest_template"]
        joints = kernel.joints(self.tree(constants), self._slots, arguments, torch.is_grad_enabled(), like.new_empty)
        if joints is not None:
            return joints
        reading = self._read_with_care(arguments)
        return None if reading is None else _Call(kernel, self, constants, reading, "joints", None).run()[1]

    def subset(
        self, constants: Constants, bases: VertexBases, arguments: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor] | None:
        """Return what `subset_pass` returns, of one set for all bodies."""
        kernel = self._suiting(constants)
        reading = self._read(kernel, arguments) if kernel is not None and _is_one_set(bases) else None
        if reading is None:
            return None
        posed, joints, _ = _Call(kernel, self, constants, reading, "subset", bases).run()
        return posed.transpose(-1, -2), joints

    def keypoints(self, constants: Constants, bases: KeypointBases, arguments: Mapping[str, Any]) -> Tensor | None:
        """Return what `keypoints_pass` returns."""
        points, point_weights, joint_weights = bases
        kernel = self._suiting(constants)
        if kernel is None or not _is_one_set(points):
            return None
        reading = self._read(kernel, arguments)
        if reading is None:
            return None
        if reading.wanted or point_weights.requires_grad or point_weights.dtype != torch.float32:
            posed, joints, _ = _Call(kernel, self, constants, reading, "subset", points).run()
            with torch.autocast("cpu", enabled=False):
                found = (posed @ point_weights.mT).mT
                return found if joint_weights is None else found + joint_weights @ joints
        packed = packed_on(points.weights, points[:3], lambda: pack_points(kernel, points))
        mixture = packed_on(point_weights, (joint_weights,), lambda: pack_mixture(kernel, point_weights, joint_weights))
        found = point_weights.new_empty((*reading.batch, len(point_weights), 3))
        call = self.tree(constants), packed, reading.bodies, reading.slots, torch.get_num_threads()
        kernel.mixed(*call, mixture, found.data_ptr())
        return found

    def _suiting(self, constants: Constants) -> Any:
        """Return the kernel where it may run this model in this call."""
        kernel = active_kernel()
        if kernel is None or not self._fits or _is_looked_into():
            return None
        source = constants["_rest_template"]
        return kernel if source.dtype is torch.float32 and source.is_cpu else None

    def tree(self, constants: Constants) -> Any:
        """Return the packed tree."""
        source = constants["_rest_template"]
        if self._tree is None or self._tree.sources[0] is not source:
            plan = self.plan
            fixed = {name: constants[f"_axis_angle_of_{name}"] for name in plan.fixed}
            moving = constants["_moving_features"] if plan.fixed and plan.has_correctives else None
            lever = torch.cat((source[None], constants["_rest_directions"]))[:, 3 * plan.num_vertices :]
            features = 9 * (plan.num_joints - 1) if plan.has_correctives else 0
            packed = pack_tree(active_kernel(), lever, plan.row, self._skeleton, self._starts, fixed, moving, features)
            self._tree = Packed(packed, (source,))
        return self._tree.packed

    def points(self, constants: Constants) -> Any:
        """Return all vertices, packed."""
        source = constants["_pose_directions"]
        if self._points is None or self._points.sources[0] is not source:
            packed = pack_points(active_kernel(), vertex_bases(self.plan, constants))
            self._points = Packed(packed, (source,))
        return self._points.packed

    def rest(self, constants: Constants, shape: Mapping[str, Tensor]) -> RestBody:
        """Return what `shape_pass` returns."""
        return shape_pass(self.plan, constants, self._signature.read(shape, torch.float32))

    def arguments(self, given: Mapping[int, Tensor], batch: tuple[int, ...]) -> Arguments:
        """Return arguments by place, all of the same batch, as the plain passes take them."""
        coefficients = [(start, given[place]) for place, start in enumerate(self._starts) if place in given]
        parts = {}
        for name, (place, event, _) in self._slots.items():
            if len(self._starts) <= place < self._transl and place in given:
                parts[name] = given[place].unsqueeze(-2) if len(event) == 1 else given[place]
        whole = torch.Size(batch)
        return Arguments(coefficients, parts, "axis_angle", given.get(self._transl), dict.fromkeys(parts, whole), whole)

    def _read(self, kernel: Any, arguments: Mapping[str, Any]) -> _Reading | None:
        """Check the arguments and take their addresses; None where anything is out of the ordinary."""
        read = kernel.read(self._slots, arguments, self._transl + 1)
        if read is None:
            return self._read_with_care(arguments)
        if not torch.is_grad_enabled():
            return _Reading(*read)
        values = {self._slots[name][0]: value for name, value in arguments.items() if value is not None}
        return _Reading(*read, values, any(value.requires_grad for value in values.values()))

    def _read_with_care(self, arguments: Mapping[str, Any]) -> _Reading | None:
        """Read arguments that want gradients, broadcast, are not contiguous, or in half precision; else return None."""
        given: dict[int, Tensor] = {}
        batches: list[torch.Size] = []
        steps: list[int] = []
        wanted = False
        for name, value in arguments.items():
            if value is None or (name == "rotation" and value == "axis_angle"):
                continue
            slot = self._slots.get(name)
            if slot is None or type(value) not in _PLAIN_TENSORS or value.layout is not torch.strided:
                return None
            if not value.is_cpu or value.dtype not in _FLOATS:
                return None
            place, event, count = slot
            if name == "segment_scale":
                value, event = _scale_coefficients(value, self.plan.num_joints, count), (count,)
            start = value.dim() - (len(event) or 1)
            if start < 0 or (value.shape[start:] != event if event else value.shape[-1] > count):
                return None
            given[place] = value = value.resolve_neg().to(torch.float32).contiguous()
            wanted = wanted or value.requires_grad
            batches.append(value.shape[:start])
            steps.append(value.shape[start:].numel())
        wanted = wanted and torch.is_grad_enabled()
        try:
            batch = torch.broadcast_shapes(*batches)
        except RuntimeError:
            return None
        slots = [0] * (3 * self._transl + 3)
        for (place, value), own, step in zip(given.items(), batches, steps, strict=True):
            shared = own != batch and own.numel() == 1 and not wanted  # read again for each body
            if own != batch and not shared:
                value = given[place] = value.expand(*batch, *value.shape[len(own) :]).contiguous()
            slots[3 * place : 3 * place + 3] = value.data_ptr(), 0 if shared else step, step
        return _Reading(batch, batch.numel(), slots, given, wanted)


class _Call:
    """One call: runs it, backward too, and can run it again by operations that PyTorch differentiates to any order."""

    def __init__(
        self,
        kernel: Any,
        passes: CompiledPasses,
        constants: Constants,
        reading: _Reading,
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
            self.points = packed_on(bases.weights, bases[:3], lambda: pack_points(kernel, bases))

    def run(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return planes (*B, 3, V), joints and rotations; what the kind does not have is empty."""
        if not self.reading.wanted:
            return self.forward()
        self.constants = dict(self.constants)  # a graph outlives a move of the model
        return _Pass.apply(self, *self.reading.given.values())

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        """Run without a graph."""
        reading, joints, like = self.reading, self.passes.plan.num_joints, self.constants["_rest_template"]
        posed = like.new_empty((*reading.batch, 3, self.count))
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
            posed = posed.reshape(self.reading.bodies, 3, self.count)  # a view where strides allow
            steps = (posed.data_ptr(), *posed.stride())
        placed = None if placed is None else placed.contiguous()
        turned = None if turned is None else turned.contiguous()
        gradients = [
            value.new_empty(value.shape) if needs else None for value, needs in zip(values, needed, strict=True)
        ]
        slots = self.reading.slots.copy()
        wanted = [0] * (len(slots) // 3)
        for place, value, gradient in zip(self.reading.given, values, gradients, strict=True):
            slots[3 * place] = value.data_ptr()
            wanted[place] = _address(gradient)
        call = self.tree, self.points, self.reading.bodies, slots, torch.get_num_threads()
        self.kernel.backward(*call, steps, _address(placed), _address(turned), wanted)
        return gradients

    def plain(self, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return what `run` returns, of the same arguments, by operations of PyTorch."""
        with torch.autocast("cpu", enabled=False):
            return self._plain(values)

    def _plain(self, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        plan, constants = self.passes.plan, self.constants
        given = self.passes.arguments(dict(zip(self.reading.given, values, strict=True)), self.reading.batch)
        nothing = torch.empty(0)
        if self.kind == "whole":
            out = whole_pass(plan, constants, given)
            return out.vertices.transpose(-1, -2), out.joints, out.joint_rotations
        if self.bases is None:
            return nothing, joints_pass(plan, constants, given), nothing
        vertices, joints = subset_pass(plan, constants, self.bases, given, given.batch)
        return vertices.transpose(-1, -2), joints, nothing

    def shape_later(self, arguments: Mapping[str, Any]) -> Callable[[], RestBody]:
        """Return a function that makes the rest body of the arguments as they are now, whatever they are by then."""
        names = self.passes.shape_names
        kept = {name: arguments[name].clone() for name in names if arguments.get(name) is not None}
        graph, passes, constants = torch.is_grad_enabled(), self.passes, dict(self.constants)

        def make() -> RestBody:
            with torch.set_grad_enabled(graph), torch.autocast("cpu", enabled=False):
                return passes.rest(constants, kept)

        return make


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *values: Tensor) -> tuple[Tensor, ...]:
        ctx.call = call
        ctx.save_for_backward(*values)
        ctx.set_materialize_grads(False)
        return call.forward()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:
        call, values, needed = ctx.call, ctx.saved_tensors, ctx.needs_input_grad[1:]
        if not torch.is_grad_enabled() and not _is_looked_into() and all(map(_has_memory, upstream)):
            return None, *call.backward(values, upstream, needed)
        with torch.enable_grad():
            outputs = call.plain(values)
            wanted = [value for value, needs in zip(values, needed, strict=True) if needs]
            found = iter(gradients_with_graph(outputs, upstream, wanted))
        return None, *(next(found) if needs else None for needs in needed)


def _is_looked_into() -> bool:
    """Return whether something wants to see the operations, or the values checked."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack() > 0
        or checks._checking_values
    )


def _is_one_set(bases: VertexBases) -> bool:
    """Return whether these are unshaped points for all bodies, constants in float32 on the CPU."""
    template, shape, pose, weights = bases
    return (
        weights.dim() == 2
        and shape is not None
        and weights.is_cpu
        and weights.dtype is torch.float32
        and not (template.requires_grad or shape.requires_grad or pose.requires_grad or weights.requires_grad)
    )


def _address(value: Tensor | None) -> int:
    return 0 if value is None else value.data_ptr()


def _has_memory(value: Tensor | None) -> bool:
    """Return whether this is no batch of gradients (`is_grads_batched`), which has no numbers of its own."""
    try:
        return value is None or value.data_ptr() >= 0
    except RuntimeError:
        return False


def _scale_coefficients(value: Tensor, joints: int, count: int) -> Tensor:
    """Return segment scales as coefficients (*B, count): s - 1. What has another shape keeps it, and will not fit."""
    return value.flatten(-2) - 1 if count != joints and value.shape[-2:] == (joints, 3) else value - 1
