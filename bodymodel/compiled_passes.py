"""The passes of `passes` by the compiled kernel, for the calls that suit it; each returns None for those that do not.

It takes eager calls in float32 on the CPU with axis-angle rotations. What else there is (other types, rotations and
devices, compilers and function transforms, wrong arguments) is left to the plain reading and the passes of PyTorch, and
so are derivatives of derivatives. The kernel is called directly, not as a registered operator: on the way through
PyTorch's dispatcher, one body's joints take twice as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from ..geometry import checks
from .arguments import Arguments, Signature
from .backend import active_kernel
from .fused_chain import gradients_with_graph
from .keypoint_bases import KeypointBases, keypoints_pass
from .outputs import BodyOutput, RestBody, RestLater
from .packed import Packed, pack_mixture, pack_points, pack_tree, packed_on
from .passes import Plan, joints_pass, shape_pass, subset_pass, vertex_bases, whole_pass
from .skeleton import Skeleton
from .skinning import VertexBases

Constants = Mapping[str, Tensor]
_PLAIN_TENSORS = (Tensor, nn.Parameter)
_HALF = (torch.float16, torch.bfloat16)


class _Slot(NamedTuple):
    """Where an argument goes: its place, its shape without batch (of shape arguments: none), and how many numbers."""

    index: int
    event: tuple[int, ...]
    count: int


class _Reading(NamedTuple):
    """Checked arguments of one call.

    Attributes:
        batch: of the call.
        slots: for each place the address, the step from body to body, and how many numbers; zeros for none.
        places: of the arguments that were given.
        values: the arguments, contiguous.
        wanted: whether any wants a gradient.
    """

    batch: torch.Size
    slots: list[int]
    places: list[int]
    values: list[Tensor]
    wanted: bool


class CompiledPasses:
    """What a model needs to run on the kernel. Copies and pickles of it are empty and fill themselves again.

    Args:
        plan: the model's.
        signature: the model's.
        skeleton: the model's.
    """

    def __init__(self, plan: Plan, signature: Signature, skeleton: Skeleton) -> None:
        """Number the arguments."""
        self._plan, self._signature, self._skeleton = plan, signature, skeleton
        self._fits = plan.row.pose_feature == "matrix" or not plan.has_correctives
        self._shape_slots = len(signature.coefficients)
        self._starts = [start for start, _ in signature.coefficients.values()]
        slots = {name: _Slot(n, (), count) for n, (name, (_, count)) in enumerate(signature.coefficients.items())}
        for n, part in enumerate(plan.row.parts, self._shape_slots):
            if part.name not in plan.fixed:
                slots[part.name] = _Slot(n, (3,) if part.single else (part.count, 3), 3 * part.count)
        self._transl = self._shape_slots + len(plan.row.parts)
        self._slots = slots | {"transl": _Slot(self._transl, (3,), 3)}
        self._nothing = [0] * (3 * self._transl + 3)
        self._tree: Packed | None = None
        self._points: Packed | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._plan, self._signature, self._skeleton)

    def whole(self, constants: Constants, arguments: Mapping[str, Any]) -> BodyOutput | None:
        """Return what `whole_pass` returns; the rest body is made when it is first asked for."""
        reading = self._read(constants, arguments)
        if reading is None:
            return None
        call = _Call(self, constants, reading, "whole", None)
        posed, joints, rotations = call.run()
        return BodyOutput(posed.transpose(-1, -2), joints, rotations, RestLater(call.shape_later()))

    def joints(self, constants: Constants, arguments: Mapping[str, Any]) -> Tensor | None:
        """Return what `joints_pass` returns."""
        reading = self._read(constants, arguments)
        if reading is None:
            return None
        if reading.wanted:
            return _Call(self, constants, reading, "joints", None).run()[1]
        batch, slots, *_ = reading
        joints = constants["_rest_template"].new_empty((*batch, self._plan.num_joints, 3))
        kernel = active_kernel()
        assert kernel is not None
        kernel.forward(self.tree(constants), None, batch.numel(), slots, 1, 0, joints.data_ptr(), 0)
        return joints

    def subset(
        self, constants: Constants, bases: VertexBases, arguments: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor] | None:
        """Return what `subset_pass` returns, of one set for all bodies."""
        if not _is_one_set(bases):
            return None
        reading = self._read(constants, arguments)
        if reading is None:
            return None
        posed, joints, _ = _Call(self, constants, reading, "subset", bases).run()
        return posed.transpose(-1, -2), joints

    def keypoints(self, constants: Constants, bases: KeypointBases, arguments: Mapping[str, Any]) -> Tensor | None:
        """Return what `keypoints_pass` returns."""
        points, point_weights, joint_weights = bases
        if not _is_one_set(points):
            return None
        reading = self._read(constants, arguments)
        if reading is None:
            return None
        if reading.wanted or point_weights.requires_grad or point_weights.dtype != torch.float32:
            posed, joints, _ = _Call(self, constants, reading, "subset", points).run()
            found = (posed @ point_weights.mT).mT
            return found if joint_weights is None else found + joint_weights @ joints
        kernel = active_kernel()
        assert kernel is not None
        found = point_weights.new_empty((*reading.batch, len(point_weights), 3))
        kernel.mixed(
            self.tree(constants),
            packed_on(points.weights, (*points[:3],), lambda: pack_points(kernel, points)),
            reading.batch.numel(),
            reading.slots,
            torch.get_num_threads(),
            packed_on(point_weights, (joint_weights,), lambda: pack_mixture(kernel, point_weights, joint_weights)),
            found.data_ptr(),
        )
        return found

    def tree(self, constants: Constants) -> Any:
        """Return the packed tree."""
        source = constants["_rest_template"]
        if self._tree is None or self._tree.sources[0] is not source:
            plan = self._plan
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
            packed = pack_points(active_kernel(), vertex_bases(self._plan, constants))
            self._points = Packed(packed, (source,))
        return self._points.packed

    def _read(self, constants: Constants, arguments: Mapping[str, Any]) -> _Reading | None:
        """Check the arguments and take their addresses; None where anything is out of the ordinary."""
        if not self._fits or active_kernel() is None or _is_looked_into():
            return None
        source = constants["_rest_template"]
        if source.dtype is not torch.float32 or not source.is_cpu:
            return None
        places: list[int] = []
        values: list[Tensor] = []
        steps: list[int] = []
        batches: list[torch.Size] = []
        wanted = False
        for name, value in arguments.items():
            if value is None:
                continue
            slot = self._slots.get(name)
            if slot is None:
                if name == "rotation" and value == "axis_angle":
                    continue
                return None
            if type(value) not in _PLAIN_TENSORS or not value.is_cpu:
                return None
            if value.dtype is not torch.float32:
                if value.dtype not in _HALF:
                    return None
                value = value.float()
            if name == "segment_scale":
                value = _scale_coefficients(value, self._plan.num_joints, slot.count)
                if value is None:
                    return None
            shape, event = value.shape, slot.event
            start = len(shape) - (len(event) or 1)
            if start < 0 or (shape[start:] != event if event else shape[-1] > slot.count):
                return None
            if value.layout is not torch.strided or value.is_neg():
                return None
            if not value.is_contiguous():
                value = value.contiguous()
            wanted = wanted or value.requires_grad
            places.append(slot.index)
            values.append(value)
            steps.append(slot.count if event else shape[-1])
            batches.append(shape[:start])
        wanted = wanted and torch.is_grad_enabled()
        batch = batches[0] if batches else torch.Size()
        slots = self._nothing.copy()
        if any(other != batch for other in batches):
            try:
                batch = torch.broadcast_shapes(*batches)
            except RuntimeError:
                return None
            for n, other in enumerate(batches):
                if other != batch and (wanted or other.numel() != 1):
                    values[n] = values[n].expand(*batch, *values[n].shape[len(other) :]).contiguous()
                    batches[n] = batch
        for place, value, step, own in zip(places, values, steps, batches, strict=True):
            # One for all bodies is read again for each.
            slots[3 * place : 3 * place + 3] = value.data_ptr(), step if own == batch else 0, step
        return _Reading(batch, slots, places, values, wanted)


class _Call:
    """One call: runs it, backward too, and can run it again by operations that PyTorch differentiates to any order."""

    def __init__(
        self, passes: CompiledPasses, constants: Constants, reading: _Reading, kind: str, bases: VertexBases | None
    ) -> None:
        kernel = active_kernel()
        assert kernel is not None
        self.kernel, self.reading, self.kind, self.bases = kernel, reading, kind, bases
        self.passes, self.constants = passes, constants
        self.tree = passes.tree(constants)
        self.count = 0
        self.points = None
        if kind == "whole":
            self.points, self.count = passes.points(constants), passes._plan.num_vertices
        elif bases is not None:
            self.count = bases.weights.shape[-1]
            self.points = packed_on(bases.weights, (*bases[:3],), lambda: pack_points(kernel, bases))

    def run(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return planes (*B, 3, V), joints and rotations; what the kind does not have is empty."""
        return _Pass.apply(self, *self.reading.values) if self.reading.wanted else self.forward()

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        batch, joints = self.reading.batch, self.passes._plan.num_joints
        like = self.constants["_rest_template"]
        posed = like.new_empty((*batch, 3, self.count))
        placed = like.new_empty((*batch, joints, 3))
        turned = like.new_empty((*batch, joints, 3, 3) if self.kind == "whole" else (0,))
        addresses = posed.data_ptr(), placed.data_ptr(), turned.data_ptr()
        self.kernel.forward(
            self.tree, self.points, batch.numel(), self.reading.slots, torch.get_num_threads(), *addresses
        )
        return posed, placed, turned

    def backward(
        self, values: tuple[Tensor, ...], upstream: tuple[Tensor | None, ...], needed: tuple[bool, ...]
    ) -> list[Tensor | None]:
        """Return the gradients by the values."""
        batch, slots, places, *_ = self.reading
        bodies = batch.numel()
        posed, placed, turned = (None if grad is None or not grad.numel() else grad for grad in upstream)
        steps = (0, 0, 0, 0)
        if posed is not None:
            # With one batch dimension, whatever the strides: a view of what can be one.
            posed = posed.reshape(bodies, 3, self.count)
            steps = (posed.data_ptr(), *posed.stride())
        placed = None if placed is None else placed.contiguous()
        turned = None if turned is None else turned.contiguous()
        gradients = [value.new_empty(value.shape) if needs else None for value, needs in zip(values, needed, strict=True)]
        slots, addresses = slots.copy(), [0] * (len(slots) // 3)
        for place, value, gradient in zip(places, values, gradients, strict=True):
            slots[3 * place] = value.data_ptr()
            addresses[place] = 0 if gradient is None else gradient.data_ptr()
        self.kernel.backward(
            self.tree,
            self.points,
            bodies,
            slots,
            torch.get_num_threads(),
            steps,
            0 if placed is None else placed.data_ptr(),
            0 if turned is None else turned.data_ptr(),
            addresses,
        )
        return gradients

    def plain(self, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return what `run` returns, of the same arguments, by operations of PyTorch."""
        plan, constants, given = self.passes._plan, self.constants, self._arguments(values)
        if self.kind == "whole":
            out = whole_pass(plan, constants, given)
            return out.vertices.transpose(-1, -2), out.joints, out.joint_rotations
        if self.bases is None:
            return torch.empty(0), joints_pass(plan, constants, given), torch.empty(0)
        vertices, joints = subset_pass(plan, constants, self.bases, given, self.reading.batch)
        return vertices.transpose(-1, -2), joints, torch.empty(0)

    def shape_later(self) -> Any:
        """Return a function that makes the rest body as it is now, whatever the arguments are by then."""
        shapes = self.passes._shape_slots
        kept = [value.clone() if place < shapes else value for place, value in self._given()]
        given = self._arguments(tuple(kept))
        batches = [value.shape[:-1] for _, value in given.coefficients]
        given = given._replace(parts={}, transl=None, batches={}, batch=torch.broadcast_shapes(*batches))
        graph, plan, constants = torch.is_grad_enabled(), self.passes._plan, dict(self.constants)

        def make() -> RestBody:
            with torch.set_grad_enabled(graph), torch.autocast("cpu", enabled=False):
                return shape_pass(plan, constants, given)

        return make

    def _given(self) -> list[tuple[int, Tensor]]:
        return list(zip(self.reading.places, self.reading.values, strict=True))

    def _arguments(self, values: tuple[Tensor, ...]) -> Arguments:
        passes = self.passes
        by_place = dict(zip(self.reading.places, values, strict=True))
        coefficients, parts, batches = [], {}, {}
        for name, (place, event, _) in passes._slots.items():
            value = by_place.get(place)
            if value is None:
                continue
            batches[name] = value.shape[: value.dim() - (len(event) or 1)]
            if place < passes._shape_slots:
                coefficients.append((passes._starts[place], value))
            elif name != "transl":
                parts[name] = value.unsqueeze(-2) if len(event) == 1 else value
        transl = by_place.get(passes._transl)
        return Arguments(coefficients, parts, "axis_angle", transl, batches, self.reading.batch)


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
        if not torch.is_grad_enabled() and not _is_looked_into():
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


def _scale_coefficients(value: Tensor, joints: int, count: int) -> Tensor | None:
    """Return segment scales as coefficients (*B, count): s - 1."""
    event = (joints,) if count == joints else (joints, 3)
    if value.shape[max(value.dim() - len(event), 0) :] != event:
        return None
    return value - 1 if len(event) == 1 else value.flatten(-2) - 1
