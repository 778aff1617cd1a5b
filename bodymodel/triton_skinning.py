"""Blend and skin on the GPU in one launch, and its gradients in three; the twin of `fused_skinning`.

Forward runs one kernel, whatever the batch. Backward keeps the planes before skinning, and makes the transforms of the
vertices again: to keep the planes costs a body 166 KB of traffic, 0.04 us on an H200, to blend them again 9 million
operations, 0.055 us at best. Nothing here waits for the GPU, copies from the host or allocates by what the data are, so
that a CUDA graph can hold all of it. Derivatives of derivatives take the plain path.
"""

from __future__ import annotations

import bisect
import functools
from typing import Any

import torch
import triton
from jaxtyping import Float
from torch import Tensor

from .fused_skinning import skinning_by
from .gpu import PackedDirections, Precision, chosen_precision, launch
from .skinning import VertexBases
from .triton_kernels import blend_back_kernel, forward_kernel, planes_back_kernel, transforms_back_kernel

Tile = tuple[int, int, int, int]

# Programs that a sum over all vertices is cut into at least: several for each multiprocessor of a large GPU, and as
# many on a small one, so that both add in the same order.
PROGRAMS = 512
# Rows of directions, and vertices, that a program takes at a time.
STEP = 32
# Bodies, vertices (of BACK, directions), warps and pipeline stages of a tile; for up to 16, 32 and 64 bodies, and more.
# A tile is small where a few bodies must fill the device, else as large as registers allow without spilling in the
# loops that most time is spent in. The last is for matrix instructions of groups of warps, and for up to 32 joints.
FORWARD = ((16, 32, 4, 3), (32, 64, 8, 2), (64, 64, 8, 2), (128, 64, 8, 2))
PLANES = ((16, 32, 4, 2), (32, 64, 8, 2), (64, 64, 8, 2), (128, 64, 8, 2))
TRANSFORMS = ((16, 32, 4, 2), (32, 32, 8, 2), (64, 16, 8, 2), (128, 32, 8, 2))
BACK = ((16, 64, 4, 3), (32, 128, 8, 3), (64, 128, 8, 3), (128, 128, 8, 3))


def triton_skinning(
    bases: VertexBases,
    coefficients: Float[Tensor, "B K"] | None,
    transforms: Float[Tensor, "B 12 J"],
    packed: PackedDirections | None = None,
) -> Float[Tensor, "B 3 V"]:
    """Return posed vertices in float32, as `fused_skinning` does.

    Args:
        bases: one set for all bodies. The template may carry a gradient, and may be one row a body, (B, 3 V).
        coefficients: of the first K directions, those of all pose correctives among them; None for none.
        transforms: rotation and translation of each joint from rest to pose, row by row.
        packed: the directions of the pose correctives in 16 bits, to be read instead.
    """
    directions = bases.directions.narrow(0, 0, 0 if coefficients is None else coefficients.shape[-1])
    precision = chosen_precision()
    forward, backward = functools.partial(_forward, precision), functools.partial(_backward, precision)
    constants = (directions, bases.weights, *(packed or (None, None)))
    return skinning_by(forward, backward, (bases.template, coefficients, transforms), constants)


def _forward(
    precision: Precision,
    template: Tensor,
    coefficients: Tensor | None,
    transforms: Tensor,
    directions: Tensor,
    weights: Tensor,
    steps: Tensor | None,
    step: Tensor | None,
    *,
    keep: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return posed vertices (B, 3, V), and with `keep` the planes before skinning."""
    bodies, (joints, count) = len(transforms), weights.shape
    posed = transforms.new_empty(bodies, 3, count)
    corrected = transforms.new_empty(bodies, 3 * count) if keep else None
    if not posed.numel():
        return posed, corrected
    template, transforms = _rows(template), transforms.contiguous()
    directions, steps, weights = _rows(directions), _rows(steps), _rows(weights)
    coefficients = None if coefficients is None else coefficients.contiguous()
    strides = [template.stride(0) if template.dim() == 2 else 0]
    strides += [0 if value is None else value.stride(0) for value in (directions, steps, weights)]
    align = _alignment(count, *strides)
    size_b, size_v, warps, stages = _tile(FORWARD, transforms, precision, joints)
    grid = (triton.cdiv(bodies, size_b), triton.cdiv(count, size_v))
    launch(
        forward_kernel, grid,
        template, coefficients, transforms, directions, steps, step, weights, posed, corrected,
        bodies, count // align, joints, len(directions), 0 if steps is None else len(steps),
        *(stride // align for stride in strides),
        TILE_B=size_b, TILE_V=size_v, TILE_J=_padded(joints), STEP=STEP, PRECISION=precision, ALIGN=align,
        HAS_ROWS=coefficients is not None, PACKED=steps is not None, KEEP=keep,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return posed, corrected


def _backward(
    precision: Precision, inputs: list[Any], corrected: Tensor, to_posed: Tensor, needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of template, coefficients and transforms."""
    template, coefficients, transforms, directions, weights, steps, step = inputs
    to_template, to_coefficients, to_transforms = needed
    if not transforms.numel() or not weights.numel():
        pairs = zip((template, coefficients, transforms), needed, strict=True)
        return tuple(torch.zeros_like(value) if wants else None for value, wants in pairs)
    to_posed, transforms, weights = _reachable(to_posed), transforms.contiguous(), _rows(weights)
    found: list[Tensor | None] = [None] * 3
    if to_template or to_coefficients:
        pulled = _planes_back(precision, to_posed, transforms, weights)
        if to_template:
            found[0] = pulled if template.dim() == 2 else pulled.sum(0)
        if to_coefficients and steps is None:
            found[1] = _blend_back(precision, pulled, directions, None)
        elif to_coefficients:
            parts = (steps, step), (directions.narrow(0, len(steps), len(directions) - len(steps)), None)
            found[1] = torch.cat([_blend_back(precision, pulled, *part) for part in parts], dim=-1)
    if to_transforms:
        found[2] = _transforms_back(precision, to_posed, corrected, weights)
    return tuple(found)


def _planes_back(precision: Precision, upstream: Tensor, transforms: Tensor, weights: Tensor) -> Tensor:
    bodies, (joints, count) = len(transforms), weights.shape
    pulled = transforms.new_empty(bodies, 3 * count)
    align = _alignment(count, weights.stride(0))
    size_b, size_v, warps, stages = _tile(PLANES, transforms, precision, joints)
    grid = (triton.cdiv(bodies, size_b), triton.cdiv(count, size_v))
    launch(
        planes_back_kernel, grid,
        upstream, transforms, weights, pulled,
        bodies, count // align, joints, *upstream.stride(), weights.stride(0) // align,
        TILE_B=size_b, TILE_V=size_v, TILE_J=_padded(joints), PRECISION=precision, ALIGN=align,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return pulled


def _transforms_back(precision: Precision, upstream: Tensor, corrected: Tensor, weights: Tensor) -> Tensor:
    bodies, (joints, count) = len(corrected), weights.shape
    align = _alignment(count, weights.stride(0))
    size_b, size_v, warps, stages = _tile(TRANSFORMS, corrected, precision, joints)
    body_tiles = triton.cdiv(bodies, size_b)
    tiles, stretches = _stretches(triton.cdiv(count, size_v), 3 * body_tiles)
    partial = corrected.new_empty(stretches, bodies, 12, joints)
    launch(
        transforms_back_kernel, (body_tiles, stretches, 3),
        upstream, corrected, weights, partial,
        bodies, count // align, joints, tiles, *upstream.stride(), weights.stride(0) // align,
        TILE_B=size_b, TILE_V=size_v, TILE_J=_padded(joints), PRECISION=precision, ALIGN=align,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return partial.squeeze(0) if stretches == 1 else partial.sum(0)


def _blend_back(precision: Precision, pulled: Tensor, directions: Tensor, scales: Tensor | None) -> Tensor:
    """Return pulled (B, N) times the transposed directions (rows, N or more)."""
    (bodies, count), rows = pulled.shape, len(directions)
    if not rows:
        return pulled.new_zeros(bodies, 0)
    directions = _rows(directions)
    align = _alignment(count, directions.stride(0))
    size_b, size_k, warps, stages = _tile(BACK, pulled, precision)
    size_k = min(size_k, _padded(rows))
    tiles_b, tiles_k = triton.cdiv(bodies, size_b), triton.cdiv(rows, size_k)
    steps, stretches = _stretches(triton.cdiv(count, STEP), tiles_b * tiles_k)
    partial = pulled.new_empty(stretches, bodies, rows)
    launch(
        blend_back_kernel, (tiles_b, stretches, tiles_k),
        pulled, directions, scales, partial,
        bodies, count // align, rows, steps, directions.stride(0) // align,
        TILE_B=size_b, TILE_K=size_k, STEP=STEP, PRECISION=precision, ALIGN=align,
        SCALED=scales is not None,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return partial.squeeze(0) if stretches == 1 else partial.sum(0)


def _tile(table: tuple[Tile, ...], like: Tensor, precision: Precision, joints: int = 0) -> Tile:
    place = bisect.bisect_left((16, 32, 64), len(like))
    grouped, roomy = _about(like.device)
    if precision == "ieee" or joints > 32 or not grouped:
        place = min(place, 2)
    bodies, others, warps, stages = table[place]
    return bodies, others, warps, stages if roomy else 1


@functools.cache
def _about(device: torch.device) -> tuple[bool, bool]:
    """Return whether it multiplies by groups of warps, and whether it has room to load tiles ahead."""
    if device.type != "cuda":
        return True, True
    properties = torch.cuda.get_device_properties(device)
    return properties.major in (9, 10), properties.shared_memory_per_block_optin >= 160 * 1024


def _stretches(tiles: int, others: int) -> tuple[int, int]:
    """Return how many tiles a program sums, and how many stretches there are, beside `others` programs."""
    each = triton.cdiv(tiles, min(tiles, triton.cdiv(PROGRAMS, others)))
    return each, triton.cdiv(tiles, each)


def _alignment(*sizes: int) -> int:
    """Return how many numbers a thread can move at once: 4, 2 or 1, such that every row starts at a multiple."""
    return 4 if not any(size % 4 for size in sizes) else 2 if not any(size % 2 for size in sizes) else 1


def _padded(count: int) -> int:
    """Return the least width of a tile's side that holds so many."""
    return max(16, triton.next_power_of_2(count))


def _rows(values: Any) -> Any:
    """Return a matrix, vector or None whose rows are contiguous."""
    return values if values is None or values.stride(-1) == 1 else values.contiguous()


def _reachable(upstream: Tensor) -> Tensor:
    """Return gradients of any strides that 32-bit offsets within a tile can reach."""
    body, axis, vertex = upstream.stride()
    reach = PLANES[-1][0] * body + 2 * axis + upstream.shape[2] * vertex  # the largest tile's
    return upstream if reach < 2**31 else upstream.contiguous()
