"""The relaxed pose is symmetric, and each axis is held to it as firmly as people keep to it."""

import pytest
import torch
from physique.bodymodel.families import FAMILIES
from physique.bodymodel.limits import default_joint_limits
from physique.bodymodel.skeleton import swap_sides
from physique.fitting.relaxed import relaxed_pose

F64 = torch.zeros((), dtype=torch.float64)
SKELETON = FAMILIES["smpl"].skeleton
NAMES = SKELETON.names[1:]
MIRRORED = [NAMES.index(swap_sides(name)) for name in NAMES]


def stiffness(name):
    return relaxed_pose(SKELETON, 23, like=F64).stiffness[NAMES.index(name)].tolist()


def test_the_right_side_is_the_reflection_of_the_left():
    relaxed = relaxed_pose(SKELETON, 23, like=F64)
    reflected = relaxed.body_pose[MIRRORED] * torch.tensor([1.0, -1.0, -1.0])
    torch.testing.assert_close(relaxed.body_pose, reflected)
    assert torch.equal(relaxed.stiffness, relaxed.stiffness[MIRRORED])


@pytest.mark.parametrize(
    ("joint", "bends"), [("left_knee", 0), ("right_knee", 0), ("left_elbow", 1), ("right_elbow", 1)]
)
def test_a_hinge_bends_about_its_axis_and_hardly_across_it(joint, bends):
    held = stiffness(joint)
    across = [held[axis] for axis in range(3) if axis != bends]
    assert min(across) > 5 * held[bends]


def test_the_relaxed_pose_lies_within_the_joint_limits():
    relaxed = relaxed_pose(SKELETON, 23, like=F64)
    limits = default_joint_limits(23, dtype=torch.float64)
    assert ((limits.lower <= relaxed.body_pose) & (relaxed.body_pose <= limits.upper)).all()


def test_the_energy_is_the_sum_of_the_weighted_squares_over_axes():
    relaxed = relaxed_pose(SKELETON, 21, like=F64)
    off = torch.randn(2, 21, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(2, dtype=torch.float64)
    for person in range(2):
        for joint in range(21):
            for axis in range(3):
                expected[person] += relaxed.stiffness[joint, axis] * off[person, joint, axis] ** 2
    torch.testing.assert_close(relaxed.energy(relaxed.body_pose + off), expected)
    assert (relaxed.energy(relaxed.body_pose) == 0).all()
