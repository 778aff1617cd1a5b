"""The compiled kernel as operators of PyTorch, `physique::pose` and its backward, which compiled programs call.

An operator outlives its caller: in graphs, in their caches on disk, in other processes. So it takes all that it reads,
and no handle to something kept here: a model's constants as tensors, and what else there is to know of it as a text.
Constants are packed for the kernel when they first come, and stay packed as long as their memory lives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import forward_ad
from torch.utils._pytree import tree_leaves

from .arguments import rotation_constants
from .backend import built_kernel
from .compiled_call import CompiledCall
from .compiled_passes import CompiledPasses
from .compiled_trace import HAS_OPERATORS, read_description
from .fused_chain import gradients_with_graph
from .kinematics import KinematicTables, kinematic_tables
from .packed import pack_points, packed_with
from .passes import joints_pass, subset_pass, whole_pass, without_autocast
from .skinning import VertexBases

Tensors = Sequence[Tensor]


def pose(
    values: Tensors, tree: Tensors, points: Tensors, names: str, model: str, turned: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Pose bodies.

    Args:
        values: arguments of a body model, float32, (B, *event) each.
        tree: the constants that joints are made of, those of `CompiledPasses.tree_names`.
        points: template, directions and weights of what is posed; none for joints alone.
        names: of the arguments, with commas between them.
        model: its description.
        turned: whether rotations are wanted.

    Returns:
        vertices (B, N, 3), joints (B, J, 3), and rotations (B, J, 3, 3), or nothing (0,) where they are not wanted.
    """
    call = _Call(values, tree, points, names, model, turned)
    found = list(call.forward())
    if not points:
        found.insert(0, values[0].new_empty(len(values[0]), 0, 3))
    if not turned:
        found.append(values[0].new_empty(0))
    posed, joints, rotations = found
    return posed, joints, rotations


def pose_backward(
    posed: Tensor | None,
    joints: Tensor | None,
    rotations: Tensor | None,
    values: Tensors,
    tree: Tensors,
    points: Tensors,
    needed: Sequence[bool],
    names: str,
    model: str,
    turned: bool,
) -> list[Tensor]:
    """Return gradients by the `values` that are `needed`, of those by the results of `pose` (None: zero); then (0,)."""
    call = _Call(values, tree, points, names, model, turned)
    upstream = posed, joints, rotations
    for value, shape in zip(upstream, _shapes(values, points, model, turned), strict=True):
        if value is not None and (value.shape != shape or value.dtype != torch.float32):
            raise ValueError(
                f"posed, joints, rotations: expected {shape} in float32, got {value.dtype} "
                f"{tuple(value.shape)}; give what autograd gives"
            )
    upstream = upstream if turned else upstream[:2] if points else upstream[1:2]
    found = call.backward(tuple(call.reading.given.values()), upstream, tuple(needed))
    slopes = [slope.view(value.shape) for slope, value in zip(found, values, strict=True) if slope is not None]
    return [*slopes, values[0].new_empty(0)]  # PyTorch's C++ programs crash at a list of one


class _Call(CompiledCall):
    """One call of the kernel by an operator."""

    def __init__(self, values: Tensors, tree: Tensors, points: Tensors, names: str, model: str, turned: bool) -> None:
        kernel, passes = built_kernel(), _passes_of(model)
        if kernel is None:
            raise ValueError("backend: expected the compiled kernel, got none; compile the program where it runs")
        if forward_ad._current_level >= 0:  # tangents do not come this far
            raise ValueError("values: expected no forward mode, got a level of it; call a model instead")
        reading = passes.read(kernel, dict(zip(names.split(","), values, strict=True)), True)
        if reading is None or len(reading.batch) != 1 or any(len(value) != reading.bodies for value in values):
            shapes = [tuple(value.shape) for value in values]
            raise ValueError(f"values: expected {names} of one batch (B,), float32, got {shapes}; call a model instead")
        self.kernel, self.passes, self.reading, self.wanted = kernel, passes, reading, "joints"
        self.constants = {**dict(zip(passes.tree_names, tree, strict=True)), "_template": tree[0]}
        self.tree = packed_with(tree, lambda: passes.packed_tree(kernel, _checked(self.constants)), model)
        self.points, self.count, self.mixture = None, 0, None
        if points:
            template, directions, weights = points
            bases = VertexBases(template, directions, weights, passes.shapes)
            self.wanted = "vertices" if turned else bases
            self.points = packed_with(
                (directions, template, weights), lambda: _checked(bases._asdict()) and pack_points(kernel, bases)
            )
            self.count = weights.shape[-1]


@lru_cache(maxsize=64)
def _passes_of(model: str) -> CompiledPasses:
    """Return the passes of all models of this description. Nothing is packed on them."""
    return CompiledPasses(*read_description(model))


def _checked(constants: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return constants that are what the kernel reads."""
    for name, value in constants.items():
        if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float32:
            raise ValueError(f"{name}: expected float32, got {value.dtype}; call a model instead")
    return constants


def _shapes(values: Tensors, points: Tensors, model: str, turned: bool) -> tuple[tuple[Any, ...], ...]:
    """Return the shapes of what `pose` returns."""
    bodies, joints = values[0].shape[0], _passes_of(model).plan.num_joints
    posed = bodies, points[-1].shape[-1] if points else 0, 3
    return posed, (bodies, joints, 3), (bodies, joints, 3, 3) if turned else (0,)


def _made_shapes(
    values: Tensors, tree: Tensors, points: Tensors, names: str, model: str, turned: bool
) -> tuple[Tensor, ...]:
    return tuple(values[0].new_empty(shape) for shape in _shapes(values, points, model, turned))


def _backward_shapes(
    posed: Tensor | None, joints: Tensor | None, rotations: Tensor | None, values: Tensors, *others: Any
) -> list[Tensor]:
    needed = others[2]
    slopes = [value.new_empty(value.shape) for value, needs in zip(values, needed, strict=True) if needs]
    return [*slopes, values[0].new_empty(0)]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    values, tree, points, *ctx.rest = inputs
    ctx.counts = len(values), len(tree), len(points)
    ctx.save_for_backward(*values, *tree, *points)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, *upstream: Tensor | None) -> Any:
    saved, (count, joints, _) = list(ctx.saved_tensors), ctx.counts
    values, tree, points = saved[:count], saved[count : count + joints], saved[count + joints :]
    needed = list(ctx.needs_input_grad[0])
    # Derivatives of these gradients are wanted, or many of these at once.
    if torch.is_grad_enabled() or any(map(_is_batch_of_gradients, upstream)):

        def plainly(*values: Tensor) -> tuple[Tensor | None, ...]:
            return _pose_plainly(values, tree, points, *ctx.rest)

        with torch.enable_grad():
            slopes = list(gradients_with_graph(plainly, values, upstream, needed))
    else:
        found = iter(torch.ops.physique.pose_backward(*upstream, values, tree, points, needed, *ctx.rest))
        slopes = [next(found) if needs else None for needs in needed]
    return slopes, [None] * len(tree), [None] * len(points), None, None, None


def _is_batch_of_gradients(value: Tensor | None) -> bool:
    """Return whether this is one of `is_grads_batched`, which no rule of an operator is asked about."""
    return value is not None and is_legacy_batchedtensor(value)


def _pose_plainly(
    values: Tensors, tree: Tensors, points: Tensors, names: str, model: str, turned: bool
) -> tuple[Tensor | None, ...]:
    """Return what `pose` returns, None for what it leaves empty, by operations of PyTorch."""
    passes, like = _passes_of(model), values[0]
    tables = kinematic_tables(passes.plan.row.skeleton, dtype=like.dtype)
    constants = {f"_tree_{name}": table for name, table in zip(KinematicTables._fields, tables, strict=True)}
    constants |= rotation_constants(like.dtype, None) | dict(zip(passes.tree_names, tree, strict=True))
    given = passes.signature.read(dict(zip(names.split(","), values, strict=True)), like.dtype)
    with without_autocast("cpu"):
        if not points:
            return None, joints_pass(passes.plan, constants, given), None
        bases = VertexBases(points[0], points[1], points[2], passes.shapes)
        if not turned:
            vertices, joints = subset_pass(passes.plan, constants, bases, given, given.batch)
            return vertices, joints, None
        constants |= {f"_{name}": value for name, value in bases._asdict().items()}
        out = whole_pass(passes.plan, constants, given)
        return out.vertices, out.joints, out.joint_rotations


def _pose_of_all(info: Any, in_dims: tuple[Any, ...], values: Tensors, *others: Any) -> tuple[Any, Any]:
    """Pose what `vmap` maps as one batch."""
    _refuse_mapped(in_dims[1:3])
    flat = _as_one_batch(values, in_dims[0], info.batch_size)
    posed, joints, rotations = torch.ops.physique.pose(flat, *others)
    turned = others[-1]
    rotations = _mapped(rotations, info.batch_size) if turned else rotations
    return (_mapped(posed, info.batch_size), _mapped(joints, info.batch_size), rotations), (0, 0, 0 if turned else None)


def _backward_of_all(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
    """Differentiate what `vmap` maps as one batch."""
    _refuse_mapped(in_dims[4:6])
    upstream = _as_one_batch(inputs[:3], in_dims[:3], info.batch_size)
    values = _as_one_batch(inputs[3], in_dims[3], info.batch_size)
    found = torch.ops.physique.pose_backward(*upstream, values, *inputs[4:])
    *slopes, nothing = found
    return [*(_mapped(value, info.batch_size) for value in slopes), nothing], [*(0 for _ in slopes), None]


def _as_one_batch(values: Sequence[Any], dims: Sequence[int | None], size: int) -> list[Any]:
    """Return values (B, ...) of which some are mapped along `dims`, as (size B, ...)."""
    found = []
    for value, dim in zip(values, dims, strict=True):
        if value is not None:
            value = value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)
            value = value.flatten(0, 1)
        found.append(value)
    return found


def _mapped(value: Tensor, size: int) -> Tensor:
    """Undo `_as_one_batch`."""
    return value.unflatten(0, (size, value.shape[0] // size))


def _refuse_mapped(dims: Any) -> None:
    if any(dim is not None for dim in tree_leaves(dims)):
        raise ValueError("constants: expected one model for all samples, got some mapped by vmap; use a loop")


def _register() -> torch.library.Library:
    same = "Tensor[] values, Tensor[] tree, Tensor[] points"
    rest = "str names, str model, bool turned"
    upstream = "Tensor? posed, Tensor? joints, Tensor? rotations"
    library = torch.library.Library("physique", "DEF")
    library.define(f"pose({same}, {rest}) -> (Tensor, Tensor, Tensor)")
    library.define(f"pose_backward({upstream}, {same}, bool[] needed, {rest}) -> Tensor[]")
    for run, shapes, mapped in (
        (pose, _made_shapes, _pose_of_all),
        (pose_backward, _backward_shapes, _backward_of_all),
    ):
        name = f"physique::{run.__name__}"
        library.impl(run.__name__, run, "CPU")
        torch.library.register_fake(name, shapes, lib=library)
        torch.library.register_vmap(name, mapped, lib=library)
    torch.library.register_autograd("physique::pose", _differentiate, setup_context=_keep, lib=library)
    return library


# Not `torch.library.custom_op`, whose checks of every call take 8 µs, as long as what one body's joints are made in.
_LIBRARY = _register() if HAS_OPERATORS else None
