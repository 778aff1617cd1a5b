"""JointLimits: zero inside the range of motion, radians beyond it outside, finite everywhere."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from physique.bodymodel import BodyModel, default_joint_limits, open_body
from physique.priors import JointLimits
from physique.testing import assert_right_to_second_order
from refusals import refuses
from scipy.spatial.transform import Rotation
from torch.testing import assert_close

DOUBLE = torch.float64
KNEE, SHOULDER, HIP = 3, 15, 0  # rows of body_pose


@pytest.fixture(scope="module")
def body():
    return BodyModel(open_body("low"), dtype=DOUBLE)


def swings(count=400):
    """Poses whose left shoulder swings within an ellipse of 60° by 25°, and twists by 20° either way."""
    generator = torch.Generator().manual_seed(0)
    angle = 2 * math.pi * torch.rand(count, generator=generator, dtype=DOUBLE)
    radius = torch.rand(count, generator=generator, dtype=DOUBLE).sqrt()
    radius[: count // 4] = 1
    half = torch.tensor([60.0, 25.0]).deg2rad().div(2).sin().double()
    swing = half * radius[:, None] * torch.stack((angle.cos(), angle.sin()), -1)
    twist = math.sin(math.radians(10)) * (2 * torch.rand(count, 1, generator=generator, dtype=DOUBLE) - 1)
    vector = torch.cat((swing, twist), -1)
    poses = torch.zeros(count, 23, 3, dtype=DOUBLE)
    sine = vector.norm(dim=-1, keepdim=True)
    poses[:, SHOULDER] = (2 * sine.asin() / sine * vector) @ shoulder_frame()
    return poses


def shoulder_frame():
    """Rows: two directions across the upper arm of the built-in body, and along it."""
    joints = BodyModel(open_body("low"), dtype=DOUBLE).rest().joints
    bone = torch.nn.functional.normalize(joints[18] - joints[16], dim=0)
    first = torch.nn.functional.normalize(torch.linalg.cross(bone, torch.tensor([0.0, 0.0, 1.0], dtype=DOUBLE)), dim=0)
    return torch.stack((first, torch.linalg.cross(bone, first), bone))


@pytest.fixture(scope="module")
def learnt(body):
    return JointLimits.fit(swings(), body, margin=math.radians(0.5))


# The box alone.


@pytest.mark.parametrize("count", [21, 23])
def test_a_new_object_is_the_default_box(count):
    limits = JointLimits(count).double()
    lower, upper = default_joint_limits(count, dtype=DOUBLE)
    inside = lower + (upper - lower) * torch.rand(50, count, 3, dtype=DOUBLE)
    # The box is stored in single precision.
    assert (limits.energy(inside) < 1e-12).all()
    pose = 3 * torch.randn(4, count, 3, dtype=DOUBLE)
    violation = (lower - pose).clamp(min=0) + (pose - upper).clamp(min=0)
    assert_close(limits.energy(pose), violation.square().sum((-2, -1)), rtol=1e-5, atol=1e-5)


# Learnt cones.


def test_poses_that_limits_were_learnt_from_lie_within_them(learnt):
    assert not learnt.energy(swings()).any()


def test_the_ellipse_and_the_interval_are_recovered(learnt):
    half_axes = 2 * torch.asin(1 / torch.linalg.svdvals(learnt.swing[SHOULDER]))
    assert_close(half_axes.rad2deg(), torch.tensor([25.5, 60.5], dtype=DOUBLE), rtol=0, atol=1.0)
    twist = 2 * torch.asin(1 / learnt.twist[SHOULDER].norm())
    assert_close(twist.rad2deg(), torch.tensor(20.5, dtype=DOUBLE), rtol=0, atol=0.5)
    assert learnt.center[SHOULDER, 0].abs() > math.cos(math.radians(1))


def test_violations_are_chords_beyond_the_limit_along_swing_and_twist(learnt):
    frame, center = shoulder_frame().numpy(), learnt.center[SHOULDER].numpy()
    middle = Rotation.from_quat(center, scalar_first=True)
    swing_form, twist_form = learnt.swing[SHOULDER].numpy(), learnt.twist[SHOULDER].numpy()
    random = np.random.default_rng(0)
    for _ in range(20):
        pose = torch.zeros(23, 3, dtype=DOUBLE)
        pose[SHOULDER] = torch.from_numpy(random.normal(size=3) * 1.5)
        relative = middle.inv() * Rotation.from_rotvec(pose[SHOULDER].numpy())
        vector = relative.as_quat()[:3]
        along = float(vector @ frame[2])
        across = np.linalg.norm(vector - along * frame[2])
        ratio = max(1.0, np.linalg.norm(swing_form @ vector))
        expected_swing = 2 * across * (1 - 1 / ratio)
        expected_twist = 2 * max(0.0, abs(along) - abs(along) / max(1e-12, abs(float(twist_form @ vector))))
        got = learnt.residuals(pose)
        assert_close(got[69 + SHOULDER].item(), expected_swing, rtol=1e-9, atol=1e-9)
        assert_close(got[92 + SHOULDER].item(), expected_twist, rtol=1e-9, atol=1e-9)


def test_swing_is_the_angle_of_the_bone_and_twist_leaves_it(body, learnt):
    """The swing beyond the cone is seen in the bone's own direction, which twist does not change."""
    frame, center = shoulder_frame(), learnt.center[SHOULDER]
    turn = Rotation.from_quat(center.numpy(), scalar_first=True)
    for degrees in (70, 100, 179):
        swing = Rotation.from_rotvec(math.radians(degrees) * frame[0].numpy())
        for twist in (-15, 0, 15):
            half = Rotation.from_rotvec(math.radians(twist / 2) * frame[2].numpy())
            pose = torch.zeros(23, 3, dtype=DOUBLE)
            pose[SHOULDER] = torch.from_numpy((turn * half * swing * half).as_rotvec())
            residual = learnt.residuals(pose)[69 + SHOULDER]
            limit = 2 * torch.asin(1 / (learnt.swing[SHOULDER] @ frame[0]).norm())
            expected = 2 * math.sin(math.radians(degrees / 2)) - 2 * torch.sin(limit / 2)
            assert_close(residual, expected, rtol=1e-6, atol=1e-6)
            bone = torch.from_numpy((turn * half * swing * half).apply(frame[2].numpy()))
            rest = torch.from_numpy(turn.apply(frame[2].numpy()))
            assert_close(torch.acos(bone @ rest).rad2deg().item(), float(degrees), rtol=1e-6, atol=1e-6)


def test_joints_that_do_not_move_keep_their_default_box_and_no_cone(learnt):
    lower, upper = default_joint_limits(23, dtype=DOUBLE)
    still = [joint for joint in range(23) if joint != SHOULDER]
    assert_close(learnt.lower[still], lower[still], rtol=0, atol=1e-6)
    assert_close(learnt.upper[still], upper[still], rtol=0, atol=1e-6)
    assert not learnt.swing[still].any() and not learnt.twist[still].any()


def test_only_named_joints_are_learnt(body):
    poses = swings()
    poses[:, KNEE, 0] = torch.linspace(0, 1, len(poses)).double()
    limits = JointLimits.fit(poses, body, joints=["left_knee"])
    assert limits.swing[KNEE].any() and not limits.swing[SHOULDER].any()
    with refuses("joint"):
        JointLimits.fit(poses, body, joints=["left_wing"])


def test_outliers_are_left_outside_when_asked(body):
    poses = swings(1000)
    poses[::250, SHOULDER] = torch.tensor([0.0, 0.0, 3.0], dtype=DOUBLE)
    held = JointLimits.fit(poses, body, coverage=0.99)
    assert (held.energy(poses[::250]) > 0.5).all()
    assert 0.95 < float((held.energy(poses) == 0).double().mean()) < 1
    assert not JointLimits.fit(poses, body).energy(poses).any()


def test_fitting_refuses_what_it_cannot_use(body):
    for arguments in ({"coverage": 0.0}, {"coverage": 1.5}, {"margin": 0.0}):
        with refuses("fit"):
            JointLimits.fit(swings(4), body, **arguments)
    with refuses("fit"):
        JointLimits.fit(torch.zeros(0, 23, 3), body)
    with refuses("body_pose"):
        JointLimits.fit(torch.zeros(4, 21, 3), body)


# Derivatives and shapes.


def special_poses():
    """The shoulder at zero, at tiny angles, at swings and turns of π and 2π, at its own center and a half turn off."""
    frame = shoulder_frame()
    vectors = [torch.zeros(3, dtype=DOUBLE)]
    for angle in (1e-8, math.pi / 2, math.pi, math.pi + 1e-8, 2 * math.pi, 3 * math.pi):
        vectors += [angle * row for row in frame]
    pose = torch.zeros(len(vectors), 23, 3, dtype=DOUBLE)
    pose[:, SHOULDER] = torch.stack(vectors)
    return pose


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_value_gradient_and_hessian_are_finite_everywhere(learnt, dtype):
    limits = JointLimits().to(dtype)
    limits.load_state_dict(learnt.state_dict())
    poses = torch.cat((special_poses(), torch.full((1, 23, 3), 1e4, dtype=DOUBLE))).to(dtype)
    hessian = torch.func.vmap(torch.func.hessian(limits.energy))(poses)
    assert limits.energy(poses).isfinite().all() and hessian.isfinite().all()


def test_cones_are_right_to_second_order_off_the_limits(learnt):
    turns = special_poses()[:, SHOULDER] + 0.05 * torch.randn(19, 3, dtype=DOUBLE)

    def cones(turns):
        pose = torch.nn.functional.pad(turns.unsqueeze(-2), (0, 0, SHOULDER, 22 - SHOULDER))
        return learnt.residuals(pose)[..., [69 + SHOULDER, 92 + SHOULDER]]

    off = ((cones(turns) == 0) | (cones(turns) > 0.01)).all(-1)
    assert off.sum() > 15 and cones(turns[off]).any()
    assert_right_to_second_order(lambda turns: cones(turns).square().sum(-1), turns[off], step=1e-4)


@given(angle=st.floats(-6, 6), share=st.floats(0.0, 1.0))
def test_whole_turns_do_not_change_what_the_cones_say(learnt, angle, share):
    axis = torch.nn.functional.normalize(torch.tensor([share, 1 - share, 0.3], dtype=DOUBLE), dim=0)
    pose = torch.zeros(2, 23, 3, dtype=DOUBLE)
    pose[0, SHOULDER], pose[1, SHOULDER] = angle * axis, (angle + 2 * math.pi) * axis
    cones = learnt.residuals(pose)[:, 69:]
    assert_close(cones[0], cones[1], rtol=1e-9, atol=1e-9)


def test_energy_is_the_sum_of_squared_residuals(learnt):
    pose = torch.randn(5, 23, 3, dtype=DOUBLE)
    assert_close(learnt(pose), learnt.residuals(pose).square().sum(-1))


def test_stepping_against_the_gradient_returns_to_the_cone(learnt):
    pose = torch.zeros(23, 3, dtype=DOUBLE)
    pose[SHOULDER] = 2.2 * shoulder_frame()[1]
    for _ in range(60):
        pose.requires_grad_()
        (gradient,) = torch.autograd.grad(learnt.energy(pose), pose)
        pose = (pose - 0.5 * gradient).detach()
    assert learnt.energy(pose) < 1e-6 and pose.norm() > math.radians(20)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
def test_any_batch_shape(learnt, batch):
    pose = torch.randn(*batch, 23, 3, dtype=DOUBLE)
    assert learnt.energy(pose).shape == batch and learnt.residuals(pose).shape == (*batch, 115)


def test_vmap_and_jacobians_agree(learnt):
    pose = special_poses()[:6] + 0.3
    jacobian = torch.func.vmap(torch.func.jacfwd(learnt.residuals))(pose)
    assert_close(jacobian, torch.func.vmap(torch.func.jacrev(learnt.residuals))(pose))


def test_misuse_is_refused_by_name(learnt):
    with refuses("body_pose"):
        learnt.energy(torch.zeros(2, 69))
    with refuses("body_pose"):
        learnt.energy(torch.zeros(2, 21, 3))
