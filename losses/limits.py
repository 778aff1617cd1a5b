"""How far a pose is outside the range of motion."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ..bodymodel.limits import LimitBox, default_joint_limits
from ..geometry.checks import expect_shape
from .robust import l2


def joint_limit_loss(
    body_pose: Float[Tensor, "*batch n 3"], limits: LimitBox | tuple[Tensor, Tensor] | None = None
) -> Float[Tensor, "*batch"]:
    """Return the sum of squared violations of a box of joint limits, in radians².

    Zero with zero gradient inside the box; outside, the gradient is twice the violation. It has a continuous first
    derivative everywhere and a corner in it at the limits. mmhuman3d's (exp(violation) − 1)² is the same to second
    order at a limit and steeper far from it.

    The box bounds the three axis-angle components of each joint, one by one. That is how the tables of limits are
    commonly used, but it is not an anatomical coordinate: components couple in large rotations, and one rotation has
    several axis-angle vectors (2π apart along the axis) of which only the shortest is meant to lie in the box.

    Args:
        body_pose: (*B, n, 3) axis-angle of the joints after the root, in radians.
        limits: lower and upper bounds, each (n, 3) or broadcasting against `body_pose`, in radians; default: the
            box of `default_joint_limits` for n = 21 or 23 body joints.

    Returns:
        (*B,), one loss a sample.

    Raises:
        ValueError: a shape that does not fit, or another n without `limits`.

    Example:
        >>> import torch
        >>> pose = torch.zeros(23, 3)
        >>> pose[3, 0] = -0.5  # a left knee bent half a radian the wrong way
        >>> joint_limit_loss(pose)
        tensor(0.2500)
    """
    expect_shape("body_pose", body_pose, "n", 3)
    count = body_pose.shape[-2]
    if limits is None:
        limits = default_joint_limits(count, dtype=body_pose.dtype, device=body_pose.device)
    lower, upper = limits
    expect_shape("limits", lower, count, 3)
    expect_shape("limits", upper, count, 3)
    violation = (lower - body_pose).relu() + (body_pose - upper).relu()
    return l2(violation).sum((-2, -1))
