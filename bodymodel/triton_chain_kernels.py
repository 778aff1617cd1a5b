"""The GPU kernels of the tree, in Triton: axis-angle to posed joints and transforms, and the gradients of that.

A program holds all joints of `TILE_B` bodies side by side, one plane of numbers a component. World rotations and
positions come from pointer doubling, as on the plain path, where each joint reads its ancestor's numbers within the
program. Backward makes the rotations again, and is that of `fused_chain`: forces and torques gathered up the tree.
"""

from __future__ import annotations

from typing import no_type_check  # import hooks that check types wrap functions, which Triton could not compile

import triton
import triton.language as tl

from .triton_kernels import load_three, store_three


@triton.jit
@no_type_check
def _cross(ax, ay, az, bx, by, bz):
    return ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx


@triton.jit
@no_type_check
def _turn(m00, m01, m02, m10, m11, m12, m20, m21, m22, x, y, z):
    """Return the matrix times the vector."""
    return m00 * x + m01 * y + m02 * z, m10 * x + m11 * y + m12 * z, m20 * x + m21 * y + m22 * z


@triton.jit
@no_type_check
def _turn_back(m00, m01, m02, m10, m11, m12, m20, m21, m22, x, y, z):
    """Return the transposed matrix times the vector."""
    return m00 * x + m10 * y + m20 * z, m01 * x + m11 * y + m21 * z, m02 * x + m12 * y + m22 * z


@triton.jit
@no_type_check
def _of_ancestors(index, m00, m01, m02, m10, m11, m12, m20, m21, m22):
    return (
        tl.gather(m00, index, axis=1), tl.gather(m01, index, axis=1), tl.gather(m02, index, axis=1),
        tl.gather(m10, index, axis=1), tl.gather(m11, index, axis=1), tl.gather(m12, index, axis=1),
        tl.gather(m20, index, axis=1), tl.gather(m21, index, axis=1), tl.gather(m22, index, axis=1),
    )  # fmt: skip


@triton.jit
@no_type_check
def _load_ancestors(table, joint, last, TILE_B: tl.constexpr, TILE_J: tl.constexpr):
    """Return, for each joint, whose numbers to read: `last`, which never moves, above the root and beside the tree."""
    index = tl.load(table + joint, mask=joint < last, other=last).to(tl.int32)
    return tl.broadcast_to(index[None, :], (TILE_B, TILE_J))


@triton.jit
@no_type_check
def _rotate(axis_angle, place, mask):
    """Return the vectors, sin(θ/2)/(θ/2), cos(θ/2) and θ² as `half_angle_factors` does, and R - I by rows."""
    x, y, z = load_three(axis_angle + place, 1, mask)
    square = x * x + y * y + z * z
    above = tl.maximum(square, 0.0027621358)  # 8 times the root of float32's epsilon
    below = square - above
    half = 0.5 * tl.sqrt_rn(above)
    sinc = tl.div_rn(tl.sin(half), half) - 0.041666668 * below
    cosine = tl.cos(half) - 0.125 * below
    # R - I = cos(θ/2) K + K²/2, where K is the cross product with u = 2 sin(θ/2) axis.
    u, v, w = sinc * x, sinc * y, sinc * z
    uv, uw, vw = 0.5 * u * v, 0.5 * u * w, 0.5 * v * w
    uu, vv, ww = 0.5 * u * u, 0.5 * v * v, 0.5 * w * w
    u, v, w = cosine * u, cosine * v, cosine * w
    bend = (-vv - ww, uv - w, uw + v, uv + w, -uu - ww, vw - u, uw - v, vw + u, -uu - vv)
    return x, y, z, sinc, cosine, square, bend


@triton.jit
@no_type_check
def _world(bend, jumps, levels, joint, joints, TILE_B: tl.constexpr, TILE_J: tl.constexpr):
    """Return the world rotations, by rows."""
    a, b, c, d, e, f, g, h, i = bend
    a, e, i = a + 1.0, e + 1.0, i + 1.0
    for level in range(0, levels):
        index = _load_ancestors(jumps + level * (joints + 1), joint, joints, TILE_B, TILE_J)
        m00, m01, m02, m10, m11, m12, m20, m21, m22 = _of_ancestors(index, a, b, c, d, e, f, g, h, i)
        a, d, g = _turn(m00, m01, m02, m10, m11, m12, m20, m21, m22, a, d, g)
        b, e, h = _turn(m00, m01, m02, m10, m11, m12, m20, m21, m22, b, e, h)
        c, f, i = _turn(m00, m01, m02, m10, m11, m12, m20, m21, m22, c, f, i)
    return a, b, c, d, e, f, g, h, i


@triton.jit
@no_type_check
def _positions(parents, bones, mask, jumps, levels, joint, joints, TILE_B: tl.constexpr, TILE_J: tl.constexpr):
    """Return where the joints are: the sum of the turned bones on the path from the root."""
    x, y, z = load_three(bones, 1, mask)
    x, y, z = _turn(*parents, x, y, z)
    for level in range(0, levels):
        index = _load_ancestors(jumps + level * (joints + 1), joint, joints, TILE_B, TILE_J)
        x += tl.gather(x, index, axis=1)
        y += tl.gather(y, index, axis=1)
        z += tl.gather(z, index, axis=1)
    return x, y, z


@triton.jit
@no_type_check
def _posed(axis_angle, lever, jumps, turners, place, body, mask, joint, joints, levels, lever_stride,
           TILE_B: tl.constexpr, TILE_J: tl.constexpr):  # fmt: skip
    """Return what `_rotate` does; then the world rotations of joints and of their parents; bones; and the joints."""
    rotated = _rotate(axis_angle, 3 * (place + body), mask)
    world = _world(rotated[6], jumps, levels, joint, joints, TILE_B, TILE_J)
    parents = _of_ancestors(_load_ancestors(turners, joint, joints, TILE_B, TILE_J), *world)
    bones = lever + body * lever_stride + 3 * joint[None, :]
    at = _positions(parents, bones, mask, jumps, levels, joint, joints, TILE_B, TILE_J)
    return rotated, world, parents, bones, at


@triton.jit(do_not_specialize=["bodies"])
@no_type_check
def chain_kernel(
    axis_angle, lever, jumps, turners, at, turned, transforms, feature,
    bodies, joints, levels, lever_stride,
    TILE_B: tl.constexpr, TILE_J: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Write the joints (B, J, 3); with WHOLE rotations (B, J, 3, 3), transforms (B, 12, J) and the feature too."""
    body = tl.program_id(0).to(tl.int64) * TILE_B + tl.arange(0, TILE_B)[:, None]
    joint = tl.arange(0, TILE_J)
    mask = (body < bodies) & (joint < joints)[None, :]
    place = body * joints + joint[None, :]
    rotated, world, parents, bones, (x, y, z) = _posed(
        axis_angle, lever, jumps, turners, place, body, mask, joint, joints, levels, lever_stride, TILE_B, TILE_J
    )
    store_three(at + 3 * place, x, y, z, 1, mask)
    if WHOLE:
        rest_x, rest_y, rest_z = load_three(bones + 3 * joints, 1, mask)
        rest_x, rest_y, rest_z = _turn(*world, rest_x, rest_y, rest_z)
        a, b, c, d, e, f, g, h, i = world
        frame = turned + 9 * place
        store_three(frame, a, b, c, 1, mask)
        store_three(frame + 3, d, e, f, 1, mask)
        store_three(frame + 6, g, h, i, 1, mask)
        own = transforms + 12 * body * joints + joint[None, :]
        store_three(own, a, b, c, joints, mask)
        store_three(own + 4 * joints, d, e, f, joints, mask)
        store_three(own + 8 * joints, g, h, i, joints, mask)
        store_three(own + 3 * joints, x - rest_x, y - rest_y, z - rest_z, 4 * joints, mask)
        # The root drives no correctives.
        mask = mask & (joint > 0)[None, :]
        a, b, c, d, e, f, g, h, i = rotated[6]
        drive = feature + 9 * (place - body - 1)
        store_three(drive, a, b, c, 1, mask)
        store_three(drive + 3, d, e, f, 1, mask)
        store_three(drive + 6, g, h, i, 1, mask)


@triton.jit(do_not_specialize=["bodies"])
@no_type_check
def chain_back_kernel(
    axis_angle, lever, jumps, turners, path, to_at, to_turned, to_transforms, to_feature, to_vector, to_lever,
    bodies, joints, levels, lever_stride, path_stride,
    TILE_B: tl.constexpr, TILE_J: tl.constexpr, WHOLE: tl.constexpr, FROM_AT: tl.constexpr, FROM_TURNED: tl.constexpr,
    FROM_TRANSFORMS: tl.constexpr, FROM_FEATURE: tl.constexpr, TO_VECTOR: tl.constexpr, TO_LEVER: tl.constexpr,
):  # fmt: skip
    """Write the gradients by the vectors (B, J + 1, 3) and by the lever of each body."""
    body = tl.program_id(0).to(tl.int64) * TILE_B + tl.arange(0, TILE_B)[:, None]
    joint = tl.arange(0, TILE_J)
    mask = (body < bodies) & (joint < joints)[None, :]
    place = body * joints + joint[None, :]
    rotated, world, parents, bones, (at_x, at_y, at_z) = _posed(
        axis_angle, lever, jumps, turners, place, body, mask, joint, joints, levels, lever_stride, TILE_B, TILE_J
    )
    x, y, z, sinc, cosine, square, bend = rotated
    nothing = tl.zeros((TILE_B, TILE_J), dtype=tl.float32)
    f_x, f_y, f_z, t_x, t_y, t_z = nothing, nothing, nothing, nothing, nothing, nothing
    shift_x, shift_y, shift_z = nothing, nothing, nothing
    if FROM_AT:
        f_x, f_y, f_z = load_three(to_at + 3 * place, 1, mask)
    if FROM_TRANSFORMS:
        # What pulls on the shift pulls on the joint, and the other way on the turned rest joint.
        own = to_transforms + 12 * body * joints + joint[None, :]
        shift_x, shift_y, shift_z = load_three(own + 3 * joints, 4 * joints, mask)
        f_x, f_y, f_z = f_x + shift_x, f_y + shift_y, f_z + shift_z
    t_x, t_y, t_z = _cross(at_x, at_y, at_z, f_x, f_y, f_z)
    if FROM_TRANSFORMS or FROM_TURNED:
        a, b, c, d, e, f, g, h, i = world
        for column in tl.static_range(3):
            p_x, p_y, p_z = nothing, nothing, nothing
            if FROM_TURNED:
                p_x, p_y, p_z = load_three(to_turned + 9 * place + column, 3, mask)
            if FROM_TRANSFORMS:
                own = to_transforms + 12 * body * joints + joint[None, :]
                q_x, q_y, q_z = load_three(own + column * joints, 4 * joints, mask)
                p_x, p_y, p_z = p_x + q_x, p_y + q_y, p_z + q_z
            if column == 0:
                q_x, q_y, q_z = _cross(a, d, g, p_x, p_y, p_z)
            elif column == 1:
                q_x, q_y, q_z = _cross(b, e, h, p_x, p_y, p_z)
            else:
                q_x, q_y, q_z = _cross(c, f, i, p_x, p_y, p_z)
            t_x, t_y, t_z = t_x + q_x, t_y + q_y, t_z + q_z
    if FROM_TRANSFORMS:
        q_x, q_y, q_z = load_three(bones + 3 * joints, 1, mask)
        q_x, q_y, q_z = _turn(*world, q_x, q_y, q_z)
        q_x, q_y, q_z = _cross(q_x, q_y, q_z, shift_x, shift_y, shift_z)
        t_x, t_y, t_z = t_x - q_x, t_y - q_y, t_z - q_z

    # Each joint gathers what pulls on its subtree: times 1 where the row's joint hangs on the column's.
    inside = (joint < joints)[:, None] & (joint < joints)[None, :]
    subtree = tl.load(path + joint[:, None] * path_stride + joint[None, :], mask=inside, other=0.0)
    f_x = tl.dot(f_x, subtree, input_precision="ieee")
    f_y = tl.dot(f_y, subtree, input_precision="ieee")
    f_z = tl.dot(f_z, subtree, input_precision="ieee")
    if TO_LEVER:
        q_x, q_y, q_z = _turn_back(*parents, f_x, f_y, f_z)
        if WHOLE:
            to = to_lever + 6 * body * joints + 3 * joint[None, :]
            store_three(to, q_x, q_y, q_z, 1, mask)
            q_x, q_y, q_z = _turn_back(*world, shift_x, shift_y, shift_z)
            store_three(to + 3 * joints, -q_x, -q_y, -q_z, 1, mask)
        else:
            store_three(to_lever + 3 * place, q_x, q_y, q_z, 1, mask)
    if TO_VECTOR:
        t_x = tl.dot(t_x, subtree, input_precision="ieee")
        t_y = tl.dot(t_y, subtree, input_precision="ieee")
        t_z = tl.dot(t_z, subtree, input_precision="ieee")
        q_x, q_y, q_z = _cross(at_x, at_y, at_z, f_x, f_y, f_z)
        t_x, t_y, t_z = _turn_back(*parents, t_x - q_x, t_y - q_y, t_z - q_z)
        if FROM_FEATURE:
            own_mask = mask & (joint > 0)[None, :]
            a, b, c, d, e, f, g, h, i = bend
            drive = to_feature + 9 * (place - body - 1)
            for column in tl.static_range(3):
                p_x, p_y, p_z = load_three(drive + column, 3, own_mask)
                if column == 0:
                    q_x, q_y, q_z = _cross(a + 1.0, d, g, p_x, p_y, p_z)
                elif column == 1:
                    q_x, q_y, q_z = _cross(b, e + 1.0, h, p_x, p_y, p_z)
                else:
                    q_x, q_y, q_z = _cross(c, f, i + 1.0, p_x, p_y, p_z)
                t_x, t_y, t_z = t_x + q_x, t_y + q_y, t_z + q_z
        # From a turn from the left to the vector: the transposed left Jacobian.
        p_x, p_y, p_z = _cross(x, y, z, t_x, t_y, t_z)
        q_x, q_y, q_z = _cross(x, y, z, p_x, p_y, p_z)
        once = -0.5 * sinc * sinc
        twice = tl.div_rn(1.0 - sinc * cosine, tl.maximum(square, 1.1920929e-07))
        # The joint that never moves gets the zero that its masked numbers come to.
        mask = (body < bodies) & (joint <= joints)[None, :]
        store_three(
            to_vector + 3 * (place + body),
            t_x + once * p_x + twice * q_x,
            t_y + once * p_y + twice * q_y,
            t_z + once * p_z + twice * q_z,
            1,
            mask,
        )
