"""How far a pose lies outside the range of motion: a box of angles, and swing and twist cones learnt from poses."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, radians, sin

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..bodymodel.limits import default_joint_limits
from ..bodymodel.model import BodyModel
from ..geometry import axis_angle_to_quaternion_wxyz
from ..geometry.checks import expect_finite, expect_shape
from .cones import fit_cones, vector_from

# Radians that a joint moves in all, where it is not at rest.
_STILL = radians(0.5)

_ROUNDS = 8


class JointLimits(nn.Module):
    """Limits of the joints of a body; energy and residuals are zero within them.

    Each joint has a box on the components of its axis-angle, as `default_joint_limits`, and two cones about the middle
    C of its range. With a the direction of the bone in the rest pose and q the unit quaternion of Cᵀ R, its vector part
    v = sin(θ/2)·axis splits into a (a·v), the twist about the bone, and the rest, the swing of the bone, whose length
    is sin(swing/2). The swing must lie in an ellipse, the twist in an interval. This is the swing-twist decomposition
    with half the twist before the swing and half after; unlike the one-sided ones it has no singularity, at a swing of
    half a turn neither: v is an entire function of the axis-angle, and its sign does not matter.

    A new object has the default box and no cones (they hold everything); `fit` learns all of it. The energy has a
    continuous derivative everywhere; value, gradient and second derivative are finite everywhere, and the second
    derivative jumps at the limits.

    Args:
        num_joints: 23, or 21 without SMPL's hands.

    Attributes:
        lower, upper: (n, 3) the box, radians.
        center: (n, 4) the unit quaternion of C, scalar first.
        axis: (n, 3) the direction of the bone.
        swing: (n, 2, 3) with |swing v| <= 1 within the limits.
        twist: (n, 3) with |twist·v| <= 1 within the limits.

    Example:
        >>> limits = JointLimits()
        >>> pose = torch.zeros(23, 3)
        >>> pose[3, 0] = -0.5  # a left knee bent half a radian the wrong way
        >>> limits.energy(pose)
        tensor(0.2500)
    """

    lower: Tensor
    upper: Tensor
    center: Tensor
    axis: Tensor
    swing: Tensor
    twist: Tensor

    def __init__(self, num_joints: int = 23) -> None:
        super().__init__()
        self.num_joints = num_joints
        box = default_joint_limits(num_joints)
        self.register_buffer("lower", box.lower)
        self.register_buffer("upper", box.upper)
        self.register_buffer("center", torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(num_joints, 1))
        self.register_buffer("axis", torch.tensor([0.0, 1.0, 0.0]).repeat(num_joints, 1))
        self.register_buffer("swing", torch.zeros(num_joints, 2, 3))
        self.register_buffer("twist", torch.zeros(num_joints, 3))

    @classmethod
    def fit(
        cls,
        body_pose: Float[Tensor, "N n 3"],
        body: BodyModel,
        *,
        joints: Sequence[str] | None = None,
        coverage: float | int = 1.0,
        margin: float | int = radians(5),
    ) -> JointLimits:
        """Return the limits that poses keep: the default box widened to hold them, and the smallest cones that do.

        Args:
            body_pose: (N, n, 3) axis-angle of real poses, in radians; mirror them for limits that are alike left and
                right.
            body: whose bones say which axis of a joint is twist.
            joints: names of the joints to learn; default: all that move in the poses. The others keep their default
                box and get no cones: capture without hands says nothing of wrists.
            coverage: share of the poses that each joint's limits hold; below 1 for poses with outliers.
            margin: radians by which limits are wider than the poses.

        Returns:
            Limits in the type and on the device of `body_pose`.

        Raises:
            ValueError: no pose, another number of joints than the body's, a coverage outside (0, 1], a margin that is
                not positive, or a name that is no joint of the body.

        Example:
            >>> from physique.bodymodel import BodyModel, open_body
            >>> poses = torch.zeros(20, 23, 3)
            >>> poses[:, 3, 0] = torch.linspace(0, 1, 20)  # a left knee
            >>> limits = JointLimits.fit(poses, BodyModel(open_body("low")))
            >>> poses[:, 3, 1] = 0.4  # twisted
            >>> bool(limits.energy(poses).min() > 0.05)
            True
        """
        count = body.skeleton.num_joints - 1
        expect_shape("body_pose", body_pose, "N", count, 3)
        expect_finite("body_pose", body_pose)
        if len(body_pose) == 0 or not 0 < coverage <= 1 or not 0 < margin < inf:
            raise ValueError(
                f"fit: expected poses, 0 < coverage <= 1 and a margin > 0, got {len(body_pose)} poses, coverage "
                f"{coverage} and margin {margin}; change what does not fit"
            )
        poses = body_pose.detach().double()
        if joints is None:
            learnt = (poses.amax(0) - poses.amin(0)).amax(-1).gt(_STILL).nonzero().flatten().tolist()
        else:
            learnt = [body.skeleton.index(name) - 1 for name in joints]
        limits = cls(count).to(poses)
        outside = (1 - coverage) / 2
        quaternions = axis_angle_to_quaternion_wxyz(poses)
        axes = _bone_axes(body).to(poses)
        for joint in learnt:
            lower, upper = poses[:, joint].quantile(outside, dim=0), poses[:, joint].quantile(1 - outside, dim=0)
            limits.lower[joint] = torch.minimum(limits.lower[joint], lower - margin)
            limits.upper[joint] = torch.maximum(limits.upper[joint], upper + margin)
            cones = fit_cones(quaternions[:, joint], axes[joint], coverage=float(coverage), margin=sin(margin / 2))
            limits.axis[joint] = axes[joint]
            limits.center[joint], limits.swing[joint], limits.twist[joint] = cones
        return limits.to(body_pose)

    def residuals(self, body_pose: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch R"]:
        """Return the violations, R = 5 n: the box's three components of each joint in turn, then swings, then twists.

        Those of the box are in radians; those of the cones are chords, 2 sin(angle/2), which are radians for small
        angles, from the limit along the swing.

        Args:
            body_pose: (*B, n, 3) axis-angle, in radians.

        Raises:
            ValueError: another shape.
        """
        expect_shape("body_pose", body_pose, self.num_joints, 3)
        box = (self.lower - body_pose).relu() + (body_pose - self.upper).relu()
        turned = vector_from(self.center, axis_angle_to_quaternion_wxyz(body_pose))
        along = (turned * self.axis).sum(-1, keepdim=True)
        across = turned - along * self.axis
        swing = _beyond(across.square().sum(-1), (self.swing @ turned.unsqueeze(-1)).square().sum((-2, -1)))
        twist = _beyond(along.square().squeeze(-1), (self.twist * turned).sum(-1).square())
        return torch.cat((box.flatten(-2), swing, twist), dim=-1)

    def energy(self, body_pose: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch"]:
        """Return the sum of the squared violations, in radians².

        Args:
            body_pose: (*B, n, 3) axis-angle, in radians.

        Raises:
            ValueError: another shape.
        """
        return self.residuals(body_pose).square().sum(-1)

    def forward(self, body_pose: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch"]:
        """Return the energy."""
        return self.energy(body_pose)


def _beyond(square: Tensor, form: Tensor) -> Tensor:
    """Return twice the length beyond the limit, along a vector of squared length `square`, where its form is above 1.

    On the ray through the vector the limit lies at the length divided by √form.
    """
    outside = form > 1
    length, ratio = torch.where(outside, square, 1).sqrt(), torch.where(outside, form, 1).sqrt()
    return torch.where(outside, 2 * (length - length / ratio), 0)


def _bone_axes(body: BodyModel) -> Float[Tensor, "n 3"]:
    """Return the direction from each joint but the root to the mean of its children; from its parent for a leaf."""
    joints, skeleton = body.rest().joints.detach(), body.skeleton
    rows = []
    for joint in range(1, skeleton.num_joints):
        children = list(skeleton.children[joint])
        bone = joints[children].mean(0) - joints[joint] if children else joints[joint] - joints[skeleton.parents[joint]]
        rows.append(bone / torch.linalg.vector_norm(bone))
    return torch.stack(rows)
