"""Blend and skin whole batches a few bodies at a time, so that what lies between stays in the processor's caches.

The plain path (`plain_skinning`) makes each intermediate for the whole batch: the transform of every vertex alone takes
four times the memory of the result. Here a few bodies pass through all steps before the next, and the backward pass
makes the transforms again instead of keeping them. Both paths are the same sums; derivatives of derivatives, and
everything that looks inside operations (functorch, forward mode, compilers), take the plain one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .fused_chain import gradients_with_graph
from .skinning import VertexBases, add_blend, apply_transforms, blend

# Vertices that pass together: 32 bodies of SMPL's size. More fall out of the caches, fewer make slow matrix products.
PIECE = 32 * 6890


def fused_skinning(
    bases: VertexBases,
    coefficients: Float[Tensor, "B S"] | None,
    feature: Float[Tensor, "B P"] | None,
    transforms: Float[Tensor, "B 12 J"],
) -> tuple[Float[Tensor, "B 3 V"], Float[Tensor, "B planes"] | None]:
    """Return posed vertices and shaped planes, as `plain_skinning` does, without keeping what lies between.

    Args:
        bases: one set for all bodies. The template may carry a gradient, and may be one row a body, (B, 3 V).
        coefficients: of the shape directions; None where the template is the shape of all, and then no planes are
            returned.
        feature: of the pose directions; None for none.
        transforms: rotation and translation of each joint from rest to pose, row by row.
    """
    inputs = (bases.template, coefficients, feature, transforms)
    if torch.is_grad_enabled() and any(value is not None and value.requires_grad for value in inputs):
        return _FusedSkinning.apply(*inputs, *bases[1:])
    posed, planes, _ = _in_pieces(*inputs, *bases[1:], keep=False)
    return posed, planes


def plain_skinning(
    bases: VertexBases,
    coefficients: Float[Tensor, "B S"] | None,
    feature: Float[Tensor, "B P"] | None,
    transforms: Float[Tensor, "B 12 J"],
) -> tuple[Float[Tensor, "B 3 V"], Float[Tensor, "B planes"] | None]:
    """Return posed vertices and shaped planes by operations that PyTorch differentiates to any order."""
    planes = None
    corrected = bases.template
    if coefficients is not None and bases.shape_directions is not None:
        corrected = planes = add_blend(corrected, coefficients, bases.shape_directions)
    if feature is not None:
        corrected = corrected + blend(feature, bases.pose_directions)
    return apply_transforms(corrected, blend(transforms, bases.weights)), planes


class _FusedSkinning(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        posed, planes, corrected = _in_pieces(*inputs, keep=True)
        ctx.save_for_backward(*inputs, corrected)
        ctx.set_materialize_grads(False)
        return posed, planes

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        *inputs, corrected = ctx.saved_tensors
        needed = ctx.needs_input_grad[:4]
        if torch.is_grad_enabled():
            return *_plain_gradients(inputs, upstream, needed), None, None, None
        return *_gradients_in_pieces(inputs, corrected, upstream, needed), None, None, None


def _bodies_a_piece(bodies: int, num_vertices: int) -> int:
    """Return how many bodies pass together: as many as fit, in pieces of about the same size."""
    pieces = max(1, math.ceil(bodies / max(1, PIECE // max(1, num_vertices))))
    return max(1, math.ceil(bodies / pieces))


def _in_pieces(
    template: Tensor,
    coefficients: Tensor | None,
    feature: Tensor | None,
    transforms: Tensor,
    shape_directions: Tensor | None,
    pose_directions: Tensor,
    weights: Tensor,
    *,
    keep: bool,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return posed vertices (B, 3, V), shaped planes (B, 3 V) or None, and with `keep` the planes before skinning."""
    bodies, count = len(transforms), weights.shape[-1]
    size = _bodies_a_piece(bodies, count)
    posed = transforms.new_empty(bodies, 3, count)
    planes = None if coefficients is None else transforms.new_empty(bodies, 3 * count)
    # What is skinned, of all bodies where it is kept, else of one piece at a time.
    corrected = transforms.new_empty(bodies if keep else min(size, bodies), 3 * count)
    blended = transforms.new_empty(12 * min(size, bodies), count)
    rows = transforms.reshape(12 * bodies, transforms.shape[-1])
    for start in range(0, bodies, size):
        n = min(size, bodies - start)
        shaped = template if template.dim() == 1 else template.narrow(0, start, n)
        if coefficients is not None and shape_directions is not None and planes is not None:
            mean, shaped = shaped, planes.narrow(0, start, n)
            torch.addmm(mean, coefficients.narrow(0, start, n), shape_directions, out=shaped)
        before = corrected.narrow(0, start if keep else 0, n)
        if feature is None:
            before.copy_(shaped)
        else:
            # The metre-sized template joins the sum last: its rounding is then made once.
            torch.mm(feature.narrow(0, start, n), pose_directions, out=before).add_(shaped)
        turn = torch.mm(rows.narrow(0, 12 * start, 12 * n), weights, out=blended.narrow(0, 0, 12 * n))
        turn_x, turn_y, turn_z, shift = turn.view(n, 3, 4, count).unbind(2)
        x, y, z = before.view(n, 3, 1, count).unbind(1)
        torch.addcmul(shift, turn_x, x, out=posed.narrow(0, start, n)).addcmul_(turn_y, y).addcmul_(turn_z, z)
    return posed, planes, corrected


def _gradients_in_pieces(
    inputs: list[Any], corrected: Tensor, upstream: tuple[Any, ...], needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of template, coefficients, feature and transforms."""
    template, coefficients, feature, transforms, shape_directions, pose_directions, weights = inputs
    posed_grad, planes_grad = upstream
    bodies, count = len(transforms), weights.shape[-1]
    size = _bodies_a_piece(bodies, count)
    to_template, to_coefficients, to_feature, to_transforms = needed
    gradients = [
        torch.zeros_like(template) if to_template else None,
        torch.empty_like(coefficients) if to_coefficients else None,
        torch.empty_like(feature) if to_feature else None,
        transforms.new_zeros(12 * bodies, transforms.shape[-1]) if to_transforms else None,
    ]
    rows = transforms.reshape(12 * bodies, transforms.shape[-1])
    most = min(size, bodies)
    blended, pulled = transforms.new_empty(12 * most, count), transforms.new_empty(most, 3, count)
    for start in range(0, bodies, size):
        n = min(size, bodies - start)
        pull = pulled.narrow(0, 0, n)
        if posed_grad is None:
            pull.zero_()
        else:
            turn = blended.narrow(0, 0, 12 * n)
            torch.mm(rows.narrow(0, 12 * start, 12 * n), weights, out=turn)
            turn = turn.view(n, 3, 4, count)
            turn_x, turn_y, turn_z = turn.narrow(2, 0, 3).unbind(1)
            # The shift has no part in it: its place takes the incoming gradient, which is the gradient by the shift.
            grad = turn.select(2, 3).copy_(posed_grad.narrow(0, start, n))
            grad_x, grad_y, grad_z = grad.unsqueeze(2).unbind(1)
            torch.mul(turn_x, grad_x, out=pull).addcmul_(turn_y, grad_y).addcmul_(turn_z, grad_z)
            if gradients[3] is not None:
                # The transforms of the vertices have served: their place takes the gradients by them.
                before = corrected.narrow(0, start, n).view(n, 1, 3, count)
                torch.mul(grad.unsqueeze(2), before, out=turn.narrow(2, 0, 3))
                torch.mm(turn.view(12 * n, count), weights.t(), out=gradients[3].narrow(0, 12 * start, 12 * n))
        pull = pull.view(n, 3 * count)
        if gradients[2] is not None:
            torch.mm(pull, pose_directions.t(), out=gradients[2].narrow(0, start, n))
        if planes_grad is not None:
            pull.add_(planes_grad.narrow(0, start, n))
        if gradients[1] is not None:
            torch.mm(pull, shape_directions.t(), out=gradients[1].narrow(0, start, n))
        if gradients[0] is not None and template.dim() == 1:
            gradients[0].add_(pull.sum(0))
        elif gradients[0] is not None:
            gradients[0].narrow(0, start, n).copy_(pull)
    if gradients[3] is not None:
        gradients[3] = gradients[3].view(transforms.shape)
    return tuple(gradients)


def _plain_gradients(
    inputs: list[Any], upstream: tuple[Any, ...], needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Return the same gradients with a graph of their own, for derivatives of derivatives."""
    template, coefficients, feature, transforms, *rest = inputs
    outputs = plain_skinning(VertexBases(template, *rest), coefficients, feature, transforms)
    wanted = [value for value, wants in zip(inputs, needed, strict=False) if wants]
    found = iter(gradients_with_graph(outputs, upstream, wanted))
    return tuple(next(found) if wants else None for wants in needed)
