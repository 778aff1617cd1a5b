"""The default range of motion: the anatomy that its signs must show."""

import math

import pytest
import torch
from physique.bodymodel.families import FAMILIES
from physique.bodymodel.limits import default_joint_limits
from refusals import refuses
from torch.testing import assert_close

NAMES = FAMILIES["smpl"].skeleton.names[1:]


def allows(joint, **degrees):
    lower, upper = default_joint_limits([joint], dtype=torch.float64)
    angles = torch.tensor([[math.radians(degrees.get(axis, 0)) for axis in "xyz"]], dtype=torch.float64)
    return bool(((lower <= angles) & (angles <= upper)).all())


@pytest.mark.parametrize("count", [21, 23])
def test_rest_pose_is_inside(count):
    lower, upper = default_joint_limits(count)
    assert lower.shape == upper.shape == (count, 3)
    assert (lower <= 0).all() and (upper >= 0).all()


def test_reflection_of_a_pose_inside_is_inside():
    """Reflection in the sagittal plane keeps x, negates y and z, and exchanges the sides."""
    lower, upper = default_joint_limits()
    mirror = [joint - 1 for joint in FAMILIES["smpl"].skeleton.mirror[1:]]
    signs = torch.tensor([1.0, -1.0, -1.0])
    reflected = signs * lower[mirror], signs * upper[mirror]
    assert_close(torch.minimum(*reflected), lower)
    assert_close(torch.maximum(*reflected), upper)


def test_bodies_without_hands_take_the_first_21_joints():
    whole, part = default_joint_limits(23), default_joint_limits(21)
    assert_close(whole.lower[:21], part.lower)
    assert_close(whole.upper[:21], part.upper)


def test_names_pick_joints_in_order():
    names = ["right_elbow", "neck"]
    whole, part = default_joint_limits(), default_joint_limits(names)
    assert_close(part.lower, whole.lower[[NAMES.index(name) for name in names]])


@pytest.mark.parametrize("side", ["left", "right"])
def test_joints_bend_the_way_they_do(side):
    left = 1 if side == "left" else -1
    assert allows(f"{side}_knee", x=130) and not allows(f"{side}_knee", x=-10)
    assert allows(f"{side}_hip", x=-110) and not allows(f"{side}_hip", x=40)
    assert allows(f"{side}_hip", z=40 * left) and not allows(f"{side}_hip", z=-40 * left)
    assert allows(f"{side}_elbow", y=-140 * left) and not allows(f"{side}_elbow", y=20 * left)
    assert allows(f"{side}_shoulder", z=-80 * left) and allows(f"{side}_shoulder", y=-120 * left)
    assert not allows(f"{side}_shoulder", y=90 * left)
    assert allows(f"{side}_ankle", x=45) and not allows(f"{side}_ankle", x=-45)
    assert allows(f"{side}_foot", x=-60) and not allows(f"{side}_foot", y=5)


def test_trunk_bends_forward_farther_than_back():
    for joint in ("spine1", "spine2", "spine3", "neck", "head"):
        lower, upper = default_joint_limits([joint])
        assert upper[0, 0] > -lower[0, 0] > 0


def test_type_is_the_callers():
    assert default_joint_limits(dtype=torch.float64).lower.dtype == torch.float64
    assert default_joint_limits().lower.dtype == torch.get_default_dtype()


def test_unknown_joints_are_refused():
    with refuses("joints"):
        default_joint_limits(22)
    with refuses("joints"):
        default_joint_limits(["left_knee", "tail"])
