"""How far a pose is from the rest pose, and outside the range of motion."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from ..bodymodel.families import FAMILIES
from ..bodymodel.limits import LimitBox, default_joint_limits
from ..geometry.checks import expect_shape
from .growth import growing_exp
from .robust import l2

# The component of each hinge's axis-angle vector that bends it, and the sign that bends it backward.
_HINGES = {"left_elbow": (1, 1), "right_elbow": (1, -1), "left_knee": (0, -1), "right_knee": (0, -1)}


def joint_angle_loss(body_pose: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch"]:
    """Return the sum of the squared joint angles, in radians²: a pull towards the rest pose.

    Σ_k |θ_k|², the first part of the joint term of Yoshiyasu & Gamez (2019).

    Args:
        body_pose: (*B, n, 3) axis-angle, in radians.

    Returns:
        (*B,), one loss a sample.

    Raises:
        ValueError: the last dimensions are not (n, 3).

    Example:
        >>> joint_angle_loss(torch.full((23, 3), 0.1))
        tensor(0.6900)
    """
    expect_shape("body_pose", body_pose, "n", 3)
    return l2(body_pose).sum((-2, -1))


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


def hinge_limit_loss(
    body_pose: Float[Tensor, "*batch n 3"], joints: Sequence[str] | None = None, *, rate: int | float = 1.0
) -> Float[Tensor, "*batch"]:
    """Return the sum over elbows and knees of the exponential of the angle by which they bend backward.

    Σ_k exp(rate · c_k θ_k), with θ_k the y component of an elbow and the x component of a knee, and c_k = +1 for the
    left elbow and −1 for the others. At rate 1 it is the second part of the joint term of Yoshiyasu & Gamez (2019), at
    rate 2 the bending energy of SMPLify (Bogo et al. 2016) and of SPIN's fits, whose residual exp(c θ) is squared. A
    straight hinge costs 1, a bent one less but never 0; beyond an exponent of 20 it goes on as a straight line.

    Args:
        body_pose: (*B, n, 3) axis-angle of the joints after the root, in radians.
        joints: the names of the n joints; default: the 21 or 23 body joints of the SMPL family.
        rate: the exponent's, in 1/radian.

    Returns:
        (*B,), one loss a sample.

    Raises:
        ValueError: a shape that does not fit, another n without `joints`, or names without an elbow or a knee.

    Example:
        >>> pose = torch.zeros(23, 3)
        >>> hinge_limit_loss(pose)
        tensor(4.)
        >>> pose[3, 0] = -1.0  # a left knee bent one radian the wrong way
        >>> hinge_limit_loss(pose)
        tensor(5.7183)
    """
    if joints is None:
        expect_shape("body_pose", body_pose, "n", 3)
        count = body_pose.shape[-2]
        if count not in (21, 23):
            raise ValueError(
                f"body_pose: expected (*batch, 21 or 23, 3), got {tuple(body_pose.shape)}; name the joints"
            )
        joints = FAMILIES["smpl"].skeleton.names[1 : count + 1]
    expect_shape("body_pose", body_pose, len(joints), 3)
    hinges = [(k, *_HINGES[name]) for k, name in enumerate(joints) if name in _HINGES]
    if not hinges:
        raise ValueError(
            f"joints: expected one of {', '.join(_HINGES)} among them, got {list(joints)}; check the names"
        )
    rows, axes, signs = zip(*hinges, strict=True)
    backward = body_pose[..., rows, axes] * body_pose.new_tensor(signs)
    return growing_exp(rate * backward).sum(-1)
