"""The GPU kernels, in Triton: blend and skin a tile of bodies and vertices at once, and the gradients of that.

A program holds a tile of `TILE_B` bodies by `TILE_V` vertices, three planes of it. All sums are matrix products of such
tiles, those with the skinning weights too: dense weights cost 4 of the 13 million operations of a body, but run on the
matrix units, where gathering the few weights that are not zero would load 48 numbers a vertex and body one by one.
Nothing is summed across programs by atomics, so that results are the same in every run: where a sum runs over all
vertices, each program sums a stretch of them, and the stretches are added up afterwards.
"""

from __future__ import annotations

from typing import no_type_check  # import hooks that check types wrap functions, which Triton could not compile

import triton
import triton.language as tl


@triton.jit
@no_type_check
def load_three(place, step, mask):
    """Return three tiles, each `step` numbers after the one before."""
    x = tl.load(place, mask=mask, other=0.0)
    y = tl.load(place + step, mask=mask, other=0.0)
    z = tl.load(place + 2 * step, mask=mask, other=0.0)
    return x, y, z


@triton.jit
@no_type_check
def store_three(place, x, y, z, step, mask):
    """Write three tiles, each `step` numbers after the one before."""
    tl.store(place, x, mask=mask)
    tl.store(place + step, y, mask=mask)
    tl.store(place + 2 * step, z, mask=mask)


@triton.jit
@no_type_check
def _weights(weights, stride, joint, joints, at, at_mask):
    """Return the skinning weights (J, V) of a tile of vertices."""
    mask = (joint < joints)[:, None] & at_mask[None, :]
    return tl.load(weights + (joint[:, None] * stride + at[None, :]), mask=mask, other=0.0)


@triton.jit
@no_type_check
def _add_products(acc_x, acc_y, acc_z, left, left_mask, directions, scales, stride, rows, at, at_mask, plane,
                  PRECISION: tl.constexpr, STEP: tl.constexpr, SCALED: tl.constexpr):  # fmt: skip
    """Add left (bodies, rows) times directions (rows, 3 planes of vertices) to the accumulators."""
    for start in range(0, rows, STEP):
        row = start + tl.arange(0, STEP)
        inside = row < rows
        factor = tl.load(left + row[None, :], mask=left_mask & inside[None, :], other=0.0)
        if SCALED:
            factor *= tl.load(scales + row, mask=inside, other=0.0)[None, :]
        place = directions + (row[:, None] * stride + at[None, :])
        mask = inside[:, None] & at_mask[None, :]
        x = tl.load(place, mask=mask, other=0).to(tl.float32)
        y = tl.load(place + plane, mask=mask, other=0).to(tl.float32)
        z = tl.load(place + 2 * plane, mask=mask, other=0).to(tl.float32)
        acc_x = tl.dot(factor, x, acc_x, input_precision=PRECISION)
        acc_y = tl.dot(factor, y, acc_y, input_precision=PRECISION)
        acc_z = tl.dot(factor, z, acc_z, input_precision=PRECISION)
    return acc_x, acc_y, acc_z


@triton.jit
@no_type_check
def _entry(transforms, tile, mask, weights, PRECISION: tl.constexpr):
    """Return an entry of the 3x4 transforms of a tile of vertices: that of the joints (bodies, J) times weights."""
    return tl.dot(tl.load(transforms + tile, mask=mask, other=0.0), weights, input_precision=PRECISION)


@triton.jit(do_not_specialize=["bodies"])
@no_type_check
def forward_kernel(
    template, coefficients, transforms, directions, steps, scales, weights, posed, corrected,
    bodies, count, joints, rows, packed_rows, template_stride, directions_stride, steps_stride, weights_stride,
    TILE_B: tl.constexpr, TILE_V: tl.constexpr, TILE_J: tl.constexpr, STEP: tl.constexpr,
    PRECISION: tl.constexpr, ALIGN: tl.constexpr, HAS_ROWS: tl.constexpr, PACKED: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Write posed (B, 3, V), and with KEEP the planes before skinning; with PACKED the first directions are `steps`."""
    count, weights_stride, template_stride = count * ALIGN, weights_stride * ALIGN, template_stride * ALIGN
    directions_stride, steps_stride = directions_stride * ALIGN, steps_stride * ALIGN
    first = tl.program_id(0).to(tl.int64) * TILE_B
    row = tl.arange(0, TILE_B)[:, None]
    at = tl.program_id(1) * TILE_V + tl.arange(0, TILE_V)
    row_mask, at_mask = first + row < bodies, at < count
    mask = row_mask & at_mask[None, :]
    tile = row * (3 * count) + at[None, :]
    before = first * (3 * count)

    # The metre-sized template joins the sum of the millimetre-sized blends last: its rounding is then made once.
    mean = template + first * template_stride
    mean_tile = row * template_stride + at[None, :]
    x = tl.zeros((TILE_B, TILE_V), dtype=tl.float32)
    y = tl.zeros((TILE_B, TILE_V), dtype=tl.float32)
    z = tl.zeros((TILE_B, TILE_V), dtype=tl.float32)
    if HAS_ROWS:
        left = coefficients + first * rows + row * rows
        if PACKED:
            x, y, z = _add_products(
                x, y, z, left, row_mask, steps, scales, steps_stride,
                packed_rows, at, at_mask, count, PRECISION, STEP, True,
            )  # fmt: skip
            left += packed_rows
            directions += packed_rows * directions_stride
        x, y, z = _add_products(
            x, y, z, left, row_mask, directions, scales, directions_stride,
            rows - packed_rows, at, at_mask, count, PRECISION, STEP, False,
        )  # fmt: skip
    mean_x, mean_y, mean_z = load_three(mean + mean_tile, count, mask)
    x, y, z = x + mean_x, y + mean_y, z + mean_z
    if KEEP:
        store_three(corrected + before + tile, x, y, z, count, mask)

    joint = tl.arange(0, TILE_J)
    weight = _weights(weights, weights_stride, joint, joints, at, at_mask)
    own = transforms + first * (12 * joints)
    own_tile = row * (12 * joints) + joint[None, :]
    own_mask = row_mask & (joint < joints)[None, :]
    for axis in range(3):
        out = _entry(own + (4 * axis + 3) * joints, own_tile, own_mask, weight, PRECISION)
        out += _entry(own + 4 * axis * joints, own_tile, own_mask, weight, PRECISION) * x
        out += _entry(own + (4 * axis + 1) * joints, own_tile, own_mask, weight, PRECISION) * y
        out += _entry(own + (4 * axis + 2) * joints, own_tile, own_mask, weight, PRECISION) * z
        tl.store(posed + before + axis * count + tile, out, mask=mask)


@triton.jit(do_not_specialize=["bodies"])
@no_type_check
def planes_back_kernel(
    upstream, transforms, weights, pulled,
    bodies, count, joints, body_stride, axis_stride, vertex_stride, weights_stride,
    TILE_B: tl.constexpr, TILE_V: tl.constexpr, TILE_J: tl.constexpr, PRECISION: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    """Write the gradients by the planes before skinning (B, 3 V): those by the result, turned back."""
    count, weights_stride = count * ALIGN, weights_stride * ALIGN
    first = tl.program_id(0).to(tl.int64) * TILE_B
    row = tl.arange(0, TILE_B)[:, None]
    at = tl.program_id(1) * TILE_V + tl.arange(0, TILE_V)
    row_mask, at_mask = first + row < bodies, at < count
    mask = row_mask & at_mask[None, :]
    joint = tl.arange(0, TILE_J)
    weight = _weights(weights, weights_stride, joint, joints, at, at_mask)
    given = upstream + first * body_stride
    given_tile = row * body_stride + at[None, :] * vertex_stride
    g_x, g_y, g_z = load_three(given + given_tile, axis_stride, mask)
    own = transforms + first * (12 * joints)
    own_tile = row * (12 * joints) + joint[None, :]
    own_mask = row_mask & (joint < joints)[None, :]
    tile = row * (3 * count) + at[None, :]
    to = pulled + first * (3 * count)
    for axis in range(3):
        pull = _entry(own + axis * joints, own_tile, own_mask, weight, PRECISION) * g_x
        pull += _entry(own + (4 + axis) * joints, own_tile, own_mask, weight, PRECISION) * g_y
        pull += _entry(own + (8 + axis) * joints, own_tile, own_mask, weight, PRECISION) * g_z
        tl.store(to + axis * count + tile, pull, mask=mask)


@triton.jit(do_not_specialize=["bodies"])
@no_type_check
def transforms_back_kernel(
    upstream, corrected, weights, partial,
    bodies, count, joints, tiles, body_stride, axis_stride, vertex_stride, weights_stride,
    TILE_B: tl.constexpr, TILE_V: tl.constexpr, TILE_J: tl.constexpr, PRECISION: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    """Write the gradients by the transforms (stretches, B, 12, J), each the sum over a stretch of `tiles` tiles.

    A program has one axis: the column of the transforms that multiplies its plane, and the shift along it.
    """
    count, weights_stride = count * ALIGN, weights_stride * ALIGN
    first = tl.program_id(0).to(tl.int64) * TILE_B
    stretch, axis = tl.program_id(1), tl.program_id(2)
    row = tl.arange(0, TILE_B)[:, None]
    row_mask = first + row < bodies
    joint = tl.arange(0, TILE_J)
    before = corrected + first * (3 * count) + axis * count
    given = upstream + first * body_stride
    by_x = tl.zeros((TILE_B, TILE_J), dtype=tl.float32)
    by_y = tl.zeros((TILE_B, TILE_J), dtype=tl.float32)
    by_z = tl.zeros((TILE_B, TILE_J), dtype=tl.float32)
    by_shift = tl.zeros((TILE_B, TILE_J), dtype=tl.float32)
    for step in range(0, tiles):
        at = (stretch * tiles + step) * TILE_V + tl.arange(0, TILE_V)
        at_mask = at < count
        mask = row_mask & at_mask[None, :]
        weight = tl.trans(_weights(weights, weights_stride, joint, joints, at, at_mask))
        given_tile = row * body_stride + at[None, :] * vertex_stride
        moved = tl.load(before + (row * (3 * count) + at[None, :]), mask=mask, other=0.0)
        g_x, g_y, g_z = load_three(given + given_tile, axis_stride, mask)
        g_axis = tl.load(given + axis * axis_stride + given_tile, mask=mask, other=0.0)
        by_x = tl.dot(g_x * moved, weight, by_x, input_precision=PRECISION)
        by_y = tl.dot(g_y * moved, weight, by_y, input_precision=PRECISION)
        by_z = tl.dot(g_z * moved, weight, by_z, input_precision=PRECISION)
        by_shift = tl.dot(g_axis, weight, by_shift, input_precision=PRECISION)
    tile = row * (12 * joints) + joint[None, :]
    mask = row_mask & (joint < joints)[None, :]
    to = partial + (stretch.to(tl.int64) * bodies + first) * (12 * joints)
    tl.store(to + (4 * axis + 3) * joints + tile, by_shift, mask=mask)
    store_three(to + axis * joints + tile, by_x, by_y, by_z, 4 * joints, mask)


@triton.jit(do_not_specialize=["bodies"])
@no_type_check
def blend_back_kernel(
    pulled, directions, scales, partial,
    bodies, count, rows, steps, stride,
    TILE_B: tl.constexpr, TILE_K: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr, ALIGN: tl.constexpr,
    SCALED: tl.constexpr,
):  # fmt: skip
    """Write pulled (B, N) times the transposed directions (rows, N or more): (stretches, B, rows)."""
    count, stride = count * ALIGN, stride * ALIGN
    first = tl.program_id(0).to(tl.int64) * TILE_B
    stretch = tl.program_id(1)
    k = tl.program_id(2) * TILE_K + tl.arange(0, TILE_K)
    row = tl.arange(0, TILE_B)[:, None]
    row_mask, k_mask = first + row < bodies, k < rows
    acc = tl.zeros((TILE_B, TILE_K), dtype=tl.float32)
    for step in range(0, steps):
        at = (stretch * steps + step) * STEP + tl.arange(0, STEP)
        at_mask = at < count
        mask = row_mask & at_mask[None, :]
        pull = tl.load(pulled + first * count + (row * count + at[None, :]), mask=mask, other=0.0)
        place = directions + (k[:, None] * stride + at[None, :])
        direction = tl.load(place, mask=k_mask[:, None] & at_mask[None, :], other=0).to(tl.float32)
        acc = tl.dot(pull, tl.trans(direction), acc, input_precision=PRECISION)
    if SCALED:
        acc *= tl.load(scales + k, mask=k_mask, other=0.0)[None, :]
    to = partial + (stretch.to(tl.int64) * bodies + first) * rows
    tl.store(to + (row * rows + k[None, :]), acc, mask=row_mask & k_mask[None, :])
