"""Blend and skin whole batches a few bodies at a time, so that what lies between stays in the processor's caches.

The plain path (`plain_skinning`) makes each intermediate for the whole batch: the transform of every vertex alone takes
four times the memory of the result. Here a few bodies pass through all steps before the next, and the backward pass
makes the transforms again instead of keeping them. Both paths are the same sums; derivatives of derivatives, and
everything that looks inside operations (functorch, forward mode, compilers), take the plain one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .fused_chain import gradients_with_graph
from .skinning import VertexBases, add_correctives, apply_transforms, blend

# Bodies that are blended together, so that the directions, most of the memory that is read, are read seldom.
BLENDED = 64
# Vertices that are skinned together: a few bodies, whose transforms stay in the caches.
SKINNED = 8 * 6890


def fused_skinning(
    bases: VertexBases, coefficients: Float[Tensor, "B K"] | None, transforms: Float[Tensor, "B 12 J"]
) -> Float[Tensor, "B 3 V"]:
    """Return posed vertices, as `plain_skinning` does, without keeping what lies between.

    Args:
        bases: one set for all bodies. The template may carry a gradient, and may be one row a body, (B, 3 V).
        coefficients: of the first K directions; None for none.
        transforms: rotation and translation of each joint from rest to pose, row by row.
    """
    directions = bases.directions.narrow(0, 0, 0 if coefficients is None else coefficients.shape[-1])
    inputs = bases.template, coefficients, transforms
    return skinning_by(_in_pieces, _gradients_in_pieces, inputs, (directions, bases.weights))


def skinning_by(
    forward: Callable[..., tuple[Tensor, Tensor | None]],
    backward: Callable[..., tuple[Tensor | None, ...]],
    inputs: tuple[Tensor, Tensor | None, Tensor],
    constants: tuple[Any, ...],
) -> Float[Tensor, "B 3 V"]:
    """Return posed vertices by an implementation of skinning, with a graph where one is wanted.

    Args:
        forward: maps the inputs, the constants and `keep` to posed vertices, and with `keep` what backward needs.
        backward: maps both as one list, what was kept, the gradient by the result and which gradients are wanted to
            those by the inputs.
        inputs: template, coefficients and transforms.
        constants: directions, weights, and whatever else the implementation takes.
    """
    if torch.is_grad_enabled() and any(value is not None and value.requires_grad for value in inputs):
        return _FusedSkinning.apply(*inputs, forward, backward, constants)
    return forward(*inputs, *constants, keep=False)[0]


def plain_skinning(
    template: Tensor, coefficients: Tensor | None, transforms: Tensor, directions: Tensor, weights: Tensor
) -> Float[Tensor, "B 3 V"]:
    """Return posed vertices by operations that PyTorch differentiates to any order."""
    if coefficients is not None:
        template = add_correctives(template, coefficients, directions.narrow(-1, 0, template.shape[-1]))
    return apply_transforms(template, blend(transforms, weights))


class _FusedSkinning(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Any:
        *inputs, forward, backward, constants = given
        posed, kept = forward(*inputs, *constants, keep=True)
        ctx.run, ctx.constants = backward, constants
        ctx.save_for_backward(*inputs, kept)
        return posed

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        *inputs, kept = ctx.saved_tensors
        inputs += ctx.constants
        needed = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():
            return *plain_skinning_gradients(inputs[:5], upstream, needed), None, None, None
        return *ctx.run(inputs, kept, upstream[0], needed), None, None, None


def _runs(bodies: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield start and length of as few runs as `size` allows, of about the same length."""
    length = math.ceil(bodies / max(1, math.ceil(bodies / size)))
    for start in range(0, bodies, max(1, length)):
        yield start, min(length, bodies - start)


def _rows(value: Tensor, start: int, count: int) -> Tensor:
    """Return rows of `value`; all of them without a call, since calls are what a small batch costs."""
    return value if count == len(value) else value.narrow(0, start, count)


def _together(bodies: int, num_vertices: int) -> int:
    """Return how many bodies are skinned together."""
    return max(1, min(bodies, SKINNED // max(1, num_vertices)))


def _in_pieces(
    template: Tensor,
    coefficients: Tensor | None,
    transforms: Tensor,
    directions: Tensor,
    weights: Tensor,
    *,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """Return posed vertices (B, 3, V), and with `keep` the planes before skinning.

    Planes before skinning are as wide as the directions: their end means nothing.
    """
    bodies, count = len(transforms), weights.shape[-1]
    size = _together(bodies, count)
    posed = transforms.new_empty(bodies, 3, count)
    # What is skinned, of all bodies where it is kept, else of one group at a time.
    corrected = transforms.new_empty(bodies if keep else min(BLENDED, bodies), directions.shape[-1])
    blended = transforms.new_empty(12 * size, count)
    matrices = transforms.reshape(12 * bodies, transforms.shape[-1])
    for start, n in _runs(bodies, BLENDED):
        mean = template if template.dim() == 1 else _rows(template, start, n)
        whole = _rows(corrected, start if keep else 0, n)
        before = whole.narrow(1, 0, 3 * count)
        if coefficients is None:
            before.copy_(mean)
        else:
            torch.mm(_rows(coefficients, start, n), directions, out=whole)
            before.add_(mean)  # the metre-sized template last: its rounding is then made once
        for inner, k in _runs(n, size):
            first = start + inner
            turn = torch.mm(_rows(matrices, 12 * first, 12 * k), weights, out=_rows(blended, 0, 12 * k))
            turn_x, turn_y, turn_z, shift = turn.view(k, 3, 4, count).unbind(2)
            x, y, z = _rows(before, inner, k).view(k, 3, 1, count).unbind(1)
            torch.addcmul(shift, turn_x, x, out=_rows(posed, first, k)).addcmul_(turn_y, y).addcmul_(turn_z, z)
    return posed, corrected


def _gradients_in_pieces(
    inputs: list[Any], corrected: Tensor, posed_grad: Tensor, needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of template, coefficients and transforms."""
    template, coefficients, transforms, directions, weights = inputs
    bodies, count = len(transforms), weights.shape[-1]
    to_template, to_coefficients, to_transforms = needed
    template_grad = torch.zeros_like(template) if to_template else None
    coefficients_grad = torch.empty_like(coefficients) if to_coefficients else None
    transforms_grad = transforms.new_zeros(12 * bodies, transforms.shape[-1]) if to_transforms else None
    matrices = transforms.reshape(12 * bodies, transforms.shape[-1])
    size = _together(bodies, count)
    blended = transforms.new_empty(12 * size, count)
    pulled = transforms.new_empty(min(BLENDED, bodies), directions.shape[-1])
    pulled.narrow(1, 3 * count, pulled.shape[1] - 3 * count).zero_()
    for start, n in _runs(bodies, BLENDED):
        whole = _rows(pulled, 0, n)
        pull = whole.narrow(1, 0, 3 * count)
        for inner, k in _runs(n, size):
            first = start + inner
            turn = torch.mm(_rows(matrices, 12 * first, 12 * k), weights, out=_rows(blended, 0, 12 * k))
            turn = turn.view(k, 3, 4, count)
            turn_x, turn_y, turn_z = turn.narrow(2, 0, 3).unbind(1)
            # The shift has no part in it: its place takes the incoming gradient, which is the gradient by it.
            grad = turn.select(2, 3).copy_(_rows(posed_grad, first, k))
            grad_x, grad_y, grad_z = grad.unsqueeze(2).unbind(1)
            out = _rows(pull, inner, k).view(k, 3, count)
            torch.mul(turn_x, grad_x, out=out).addcmul_(turn_y, grad_y).addcmul_(turn_z, grad_z)
            if transforms_grad is not None:
                # The transforms of the vertices have served: their place takes the gradients by them.
                before = _rows(corrected, first, k).narrow(1, 0, 3 * count).view(k, 1, 3, count)
                torch.mul(grad.unsqueeze(2), before, out=turn.narrow(2, 0, 3))
                torch.mm(turn.view(12 * k, count), weights.t(), out=_rows(transforms_grad, 12 * first, 12 * k))
        if coefficients_grad is not None:
            torch.mm(whole, directions.t(), out=_rows(coefficients_grad, start, n))
        if template_grad is not None and template.dim() == 1:
            template_grad.add_(pull.sum(0))
        elif template_grad is not None:
            _rows(template_grad, start, n).copy_(pull)
    if transforms_grad is not None:
        transforms_grad = transforms_grad.view(transforms.shape)
    return template_grad, coefficients_grad, transforms_grad


def plain_skinning_gradients(
    inputs: list[Any], upstream: tuple[Any, ...], needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Return the gradients with a graph of their own, for derivatives of derivatives."""
    constants = inputs[3:]
    return gradients_with_graph(lambda *own: (plain_skinning(*own, *constants),), inputs[:3], upstream, needed)
