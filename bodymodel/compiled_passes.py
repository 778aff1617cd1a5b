"""The passes of `passes` by the compiled kernel, for the calls that suit it; each returns None for those that do not.

It takes calls in float32 on the CPU with axis-angle rotations: eager ones directly, since the way through PyTorch's
dispatcher takes longer than one body's joints, and those that `torch.compile` traces as an operator (`compiled_trace`).
What else there is (other types, rotations and devices, exports and function transforms, wrong arguments) is left to the
plain reading and the passes of PyTorch, and so are derivatives of derivatives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .arguments import Arguments, Signature
from .backend import active_kernel
from .compiled_call import CompiledCall, Reading, is_looked_into
from .compiled_trace import describe, is_compiled_to_run_here, traced_pose
from .keypoint_bases import KeypointBases, mix_keypoints
from .outputs import BodyOutput
from .packed import Packed, pack_points, pack_tree, packed_with
from .passes import Plan, rest_later, shape_pass, vertex_bases, without_autocast
from .skeleton import Skeleton
from .skinning import VertexBases

Constants = Mapping[str, Tensor]
_PLAIN_TENSORS = (Tensor, nn.Parameter)
_FIXED = "_axis_angle_of_{}"
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


class CompiledPasses:
    """What a model needs to run on the kernel. Copies and pickles of it are empty and fill themselves again.

    Args:
        plan: the model's.
        signature: the model's.
        skeleton: the model's.
    """

    def __init__(self, plan: Plan, signature: Signature, skeleton: Skeleton) -> None:
        """Number the arguments."""
        self.plan, self.signature, self._skeleton = plan, signature, skeleton
        self._fits = plan.row.pose_feature == "matrix" or not plan.has_correctives
        self.shape_names = tuple(signature.coefficients)
        self.shapes = sum(count for _, count in signature.coefficients.values())
        moving = ("_moving_features",) if plan.fixed and plan.has_correctives else ()
        self.tree_names = "_lever_template", "_lever_directions", *map(_FIXED.format, plan.fixed), *moving
        self.description = describe(plan, signature)
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
        return type(self), (self.plan, self.signature, self._skeleton)

    def whole(self, constants: Constants, arguments: Mapping[str, Any]) -> BodyOutput | None:
        """Return what `whole_pass` returns; the rest body is made when it is first asked for."""
        kernel = self._suiting(constants)
        if kernel is None:
            return self._traced_whole(constants, arguments)
        reading = self.read(kernel, arguments, torch.is_grad_enabled())
        if reading is None:
            return None
        posed, joints, rotations = CompiledCall(kernel, self, constants, reading, "vertices").run()
        shape = {name: arguments.get(name) for name in self.shape_names}
        rest = rest_later(self.plan, constants, self.signature.read(shape, torch.float32))
        return BodyOutput(posed, joints, rotations, rest)

    def joints(self, constants: Constants, arguments: Mapping[str, Any]) -> Tensor | None:
        """Return what `joints_pass` returns."""
        kernel = self._suiting(constants)
        if kernel is None:
            found = self._traced(constants, None, arguments)
            return None if found is None else found[1]
        like = constants["_template"]
        joints = kernel.joints(self.tree(constants), self._slots, arguments, torch.is_grad_enabled(), like.new_empty)
        if joints is not None:
            return joints
        reading = self.read(kernel, arguments, torch.is_grad_enabled())
        return None if reading is None else CompiledCall(kernel, self, constants, reading, "joints").run()[0]

    def subset(
        self, constants: Constants, bases: VertexBases, arguments: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor] | None:
        """Return what `subset_pass` returns, of one set for all bodies."""
        kernel = self._suiting(constants)
        if kernel is None:
            found = self._traced(constants, bases, arguments)
            return None if found is None else (found[0], found[1])
        reading = self.read(kernel, arguments, torch.is_grad_enabled()) if _is_one_set(bases) else None
        if reading is None:
            return None
        posed, joints = CompiledCall(kernel, self, constants, reading, bases).run()
        return posed, joints

    def keypoints(self, constants: Constants, bases: KeypointBases, arguments: Mapping[str, Any]) -> Tensor | None:
        """Return what `keypoints_pass` returns."""
        kernel = self._suiting(constants)
        if kernel is None:
            found = self._traced(constants, bases.points, arguments)
            return None if found is None else _mixed(bases, found[0], found[1])
        reading = self.read(kernel, arguments, torch.is_grad_enabled()) if _is_one_set(bases.points) else None
        if reading is None:
            return None
        if _are_constant(bases):
            return CompiledCall(kernel, self, constants, reading, bases).run()[0]
        return _mixed(bases, *CompiledCall(kernel, self, constants, reading, bases.points).run())

    def _traced_whole(self, constants: Constants, arguments: Mapping[str, Any]) -> BodyOutput | None:
        found = self._traced(constants, vertex_bases(self.plan, constants), arguments, turned=True)
        if found is None:
            return None
        shape = {name: arguments.get(name) for name in self.shape_names}
        with without_autocast("cpu"):  # left out of the graph where nothing reads it
            rest = shape_pass(self.plan, constants, self.signature.read(shape, torch.float32))
        return BodyOutput(found[0], found[1], found[2], rest)

    def _traced(
        self, constants: Constants, bases: VertexBases | None, arguments: Mapping[str, Any], *, turned: bool = False
    ) -> list[Tensor] | None:
        """Return vertices, joints and rotations, by an operator of the program that is being compiled."""
        if not is_compiled_to_run_here() or self._suiting(constants, traced=True) is None:
            return None
        if (arguments.get("rotation") or "axis_angle") != "axis_angle" or not (bases is None or _is_one_set(bases)):
            return None
        return traced_pose(self, constants, bases, arguments, self.signature.read(arguments, torch.float32), turned)

    def _suiting(self, constants: Constants, *, traced: bool = False) -> Any:
        """Return the kernel where it may run this model in this call."""
        kernel = active_kernel()
        if kernel is None or not self._fits or (not traced and is_looked_into()):
            return None
        source = constants["_template"]
        return kernel if source.dtype is torch.float32 and source.is_cpu else None

    def tree(self, constants: Constants) -> Any:
        """Return the packed tree."""
        source = constants["_lever_template"]
        if self._tree is None or self._tree.sources[0] is not source:
            self._tree = Packed(self.packed_tree(active_kernel(), constants), (source,))
        return self._tree.packed

    def packed_tree(self, kernel: Any, constants: Constants) -> Any:
        """Pack the tree."""
        plan = self.plan
        fixed = {name: constants[_FIXED.format(name)] for name in plan.fixed}
        moving = constants["_moving_features"] if plan.fixed and plan.has_correctives else None
        lever = torch.cat((constants["_lever_template"][None], constants["_lever_directions"]))
        features = 9 * (plan.num_joints - 1) if plan.has_correctives else 0
        return pack_tree(kernel, lever, plan.row, self._skeleton, self._starts, fixed, moving, features)

    def points(self, constants: Constants) -> Any:
        """Return all vertices, packed."""
        source = constants["_directions"]
        if self._points is None or self._points.sources[0] is not source:
            bases = vertex_bases(self.plan, constants)
            packed = packed_with((source, bases.template, bases.weights), lambda: pack_points(active_kernel(), bases))
            self._points = Packed(packed, (source,))
        return self._points.packed

    def arguments(self, given: Mapping[int, Tensor], batch: tuple[int, ...]) -> Arguments:
        """Return arguments by place, all of the same batch, as the plain passes take them."""
        coefficients = [(start, given[place]) for place, start in enumerate(self._starts) if place in given]
        parts = {}
        for name, (place, event, _) in self._slots.items():
            if len(self._starts) <= place < self._transl and place in given:
                parts[name] = given[place].unsqueeze(-2) if len(event) == 1 else given[place]
        whole = torch.Size(batch)
        return Arguments(coefficients, parts, "axis_angle", given.get(self._transl), dict.fromkeys(parts, whole), whole)

    def read(self, kernel: Any, arguments: Mapping[str, Any], graph: bool) -> Reading | None:
        """Check the arguments and take their addresses; None for what the kernel does not take."""
        read: tuple[Any, Any, Any] | None = kernel.read(self._slots, arguments, self._transl + 1)
        if read is None:
            return self._read_with_care(arguments)
        if not graph:
            return Reading(*read)
        values = {self._slots[name][0]: value for name, value in arguments.items() if value is not None}
        return Reading(*read, values, any(value.requires_grad for value in values.values()))

    def _read_with_care(self, arguments: Mapping[str, Any]) -> Reading | None:
        """Read arguments that broadcast, are not contiguous, or in half precision; else return None."""
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
                if value is None:
                    return None
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
        return Reading(batch, batch.numel(), slots, given, wanted)


def _is_one_set(bases: VertexBases) -> bool:
    """Return whether these are unshaped points for all bodies, constants in float32 on the CPU."""
    template, directions, weights, _ = bases
    return (
        template.dim() == 1
        and weights.is_cpu
        and weights.dtype is torch.float32
        and not (template.requires_grad or directions.requires_grad or weights.requires_grad)
    )


def _are_constant(bases: KeypointBases) -> bool:
    """Return whether the weights are constants in float32."""
    weights = [weight for weight in bases[1:] if weight is not None]
    return not any(weight.requires_grad or weight.dtype != torch.float32 for weight in weights)


def _mixed(bases: KeypointBases, points: Tensor, joints: Tensor) -> Tensor:
    with without_autocast("cpu"):
        return mix_keypoints(bases, points, joints)


def _scale_coefficients(value: Tensor, joints: int, count: int) -> Tensor | None:
    """Return segment scales (*B, J), or (*B, J, 3) along axes, as coefficients (*B, count): s - 1; None for others."""
    event = (joints,) if count == joints else (joints, 3)
    if value.shape[max(value.dim() - len(event), 0) :] != event:
        return None
    return value - 1 if len(event) == 1 else value.flatten(-2) - 1
