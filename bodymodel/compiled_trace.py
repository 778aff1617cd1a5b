"""A call that a compiler traces, as one of the operator `physique::pose` of `compiled_op`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from ..geometry.checks import values_are_checked
from .arguments import Arguments, Signature
from .families import family_by_name
from .passes import Constants, Plan
from .skeleton import Skeleton
from .skinning import VertexBases

if TYPE_CHECKING:
    from .compiled_passes import CompiledPasses

# Compilers keep programs on disk, and find them by what an operator is given: a new number for operators that take or
# return something else.
OPERATORS = 1
# PyTorch 2.7 has all that is used here. With an older one, compiled programs are made of the plain path.
HAS_OPERATORS = hasattr(torch.compiler, "is_exporting")


def is_compiled_to_run_here() -> bool:
    """Return whether `torch.compile` traces this call, and nothing else looks into it.

    What is exported loads without this package, and transforms are right to any order on the plain path.
    """
    return (
        HAS_OPERATORS
        and torch.compiler.is_dynamo_compiling()
        and not torch.compiler.is_exporting()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and not values_are_checked()
    )


def traced_pose(
    passes: CompiledPasses,
    constants: Constants,
    bases: VertexBases | None,
    arguments: Mapping[str, Any],
    given: Arguments,
    turned: bool,
) -> list[Tensor] | None:
    """Return vertices (*B, N, 3), joints (*B, J, 3) and, where wanted, rotations (*B, J, 3, 3), of the operator.

    Args:
        passes: the model's.
        constants: the model's.
        bases: what is posed; None for joints alone.
        arguments: those of the call.
        given: the same, read.
        turned: whether rotations are wanted.

    Returns:
        None where the kernel does not take what was given, or a constant has a gradient.
    """
    values = [arguments[name] for name in given.batches]
    tree = [constants[name] for name in passes.tree_names]
    points = [] if bases is None else [bases.template, bases.directions, bases.weights]
    if not values or not all(map(_is_plain, values)) or any(value.requires_grad for value in (*tree, *points)):
        return None
    flat = [_flat(value, own, given.batch) for value, own in zip(values, given.batches.values(), strict=True)]
    found = torch.ops.physique.pose(flat, tree, points, ",".join(given.batches), passes.description, turned)
    return [_unflat(value, given.batch) for value in (found if turned else found[:2])]


def _is_plain(value: Tensor) -> bool:
    return type(value) in (Tensor, nn.Parameter) and value.is_cpu and value.layout is torch.strided


def _flat(value: Tensor, own: torch.Size, batch: torch.Size) -> Tensor:
    """Return an argument of batch `own` in float32, with one batch dimension: that of the call."""
    value = value.to(torch.float32).expand(*batch, *value.shape[len(own) :])
    return value.flatten(0, len(batch) - 1) if batch else value.unsqueeze(0)


def _unflat(value: Tensor, batch: torch.Size) -> Tensor:
    return value if len(batch) == 1 else value.unflatten(0, batch) if batch else value.squeeze(0)


def describe(plan: Plan, signature: Signature) -> str:
    """Return what there is to know of a model beside its tensors, such as "1 flame 5023 1 betas:9,expression:9 ".

    Without quotes: PyTorch writes it into C++ programs as it is.
    """
    counts = [f"{name}:{count}" for name, (_, count) in signature.coefficients.items()]
    shape = plan.num_vertices, int(plan.has_correctives)
    return " ".join(map(str, (OPERATORS, plan.row.name, *shape, ",".join(counts), ",".join(plan.fixed))))


def read_description(text: str) -> tuple[Plan, Signature, Skeleton]:
    """Return what `describe` was given, and the tree."""
    _, family, vertices, has_correctives, counts, fixed = text.split(" ")
    row, parts = family_by_name(family), tuple(filter(None, fixed.split(",")))
    pairs = [pair.split(":") for pair in filter(None, counts.split(","))]
    signature = Signature(row, [(name, int(count)) for name, count in pairs], parts)
    starts = {start: name for name, (start, _) in signature.coefficients.items()}
    plan = Plan(row, int(vertices), row.skeleton.num_joints, has_correctives == "1", starts, parts)
    return plan, signature, row.skeleton
