"""A mirrored segment looks the same; the rest of the body stays; each limb chooses for itself."""

import numpy as np
import pytest
import torch
from physique.bodymodel import BodyModel, forward_kinematics, open_body
from physique.fitting.depth_flips import FLIPS, choose_by_limb, flipped_rotations, limbs_of, try_depth_flips
from physique.geometry import axis_angle_to_matrix, matrix_to_axis_angle
from torch.testing import assert_close

BODY = BodyModel(open_body("low"), dtype=torch.float64)
SKELETON = BODY.skeleton
LIMBS = limbs_of(SKELETON, torch.device("cpu"))
MIRROR = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
NAMES = ("left arm", "right arm", "left leg", "right leg")


def posed(seed=0, batch=(3,)):
    generator = torch.Generator().manual_seed(seed)
    pose = 0.5 * torch.randn(*batch, SKELETON.num_joints, 3, generator=generator, dtype=torch.float64)
    return axis_angle_to_matrix(pose), BODY.joints().expand(*batch, -1, -1)


def flipped_joints(local, rest):
    """World rotations (4, ..., J, 3, 3) and joints of the four flips."""
    return forward_kinematics(flipped_rotations(local, rest, SKELETON, LIMBS), rest.expand(4, *rest.shape), SKELETON)


def segment(joints, limb, part):
    start, end = LIMBS.chains[limb, part], LIMBS.chains[limb, part + 1]
    return joints[..., end, :] - joints[..., start, :]


def test_limbs_are_the_arms_and_legs_with_all_that_hangs_on_them():
    for limb, (start, end) in enumerate((("shoulder", "hand"), ("shoulder", "hand"), ("hip", "foot"), ("hip", "foot"))):
        side = "left" if limb % 2 == 0 else "right"
        members = {SKELETON.names[joint] for joint in np.flatnonzero(LIMBS.of_joint.numpy() == limb)}
        assert {f"{side}_{start}", f"{side}_{end}"} <= members
        assert all(name.startswith(side) for name in members)
    trunk = {SKELETON.names[joint] for joint in np.flatnonzero(LIMBS.of_joint.numpy() == 4)}
    assert trunk == {"pelvis", "spine1", "spine2", "spine3", "neck", "head", "left_collar", "right_collar"}


def test_flipped_rotations_are_rotations():
    result = flipped_rotations(*posed(), SKELETON, LIMBS)
    identity = torch.eye(3, dtype=torch.float64).expand(result.shape)
    assert_close(result.mT @ result, identity)
    assert_close(torch.linalg.det(result), torch.ones(result.shape[:-2], dtype=torch.float64))


@pytest.mark.parametrize("limb", range(4), ids=NAMES)
@pytest.mark.parametrize("part", (0, 1), ids=("upper", "lower"))
def test_chosen_segments_are_mirrored_and_the_others_keep_their_direction(limb, part):
    local, rest = posed()
    _, before = forward_kinematics(local, rest, SKELETON)
    _, after = flipped_joints(local, rest)
    for index, flip in enumerate(FLIPS):
        expected = segment(before, limb, part) * (MIRROR if flip[part] else 1)
        assert_close(segment(after[index], limb, part), expected)


def test_no_flip_changes_nothing():
    local, rest = posed()
    assert_close(flipped_rotations(local, rest, SKELETON, LIMBS)[0], local)


def test_every_other_bone_keeps_its_rotation():
    local, rest = posed()
    before, _ = forward_kinematics(local, rest, SKELETON)
    after, _ = flipped_joints(local, rest)
    moved = set(LIMBS.chains[:, :2].flatten().tolist())
    others = [joint for joint in range(SKELETON.num_joints) if joint not in moved]
    for index in range(4):
        assert_close(after[index][:, others], before[:, others])


def test_the_image_of_the_limbs_does_not_change():
    local, rest = posed()
    _, before = forward_kinematics(local, rest, SKELETON)
    _, after = flipped_joints(local, rest)
    ends = LIMBS.chains.flatten()
    assert_close(after[..., ends, :2], before[..., ends, :2].expand(4, -1, -1, -1))
    assert ((after[3] - before)[:, ends, 2].abs().amax(-1) > 0.05).all()


def test_a_segment_is_turned_the_short_way():
    local, rest = posed()
    before, joints = forward_kinematics(local, rest, SKELETON)
    after, _ = flipped_joints(local, rest)
    upper = LIMBS.chains[:, 0]
    turn = after[1][:, upper] @ before[:, upper].mT
    bone = joints[:, LIMBS.chains[:, 1]] - joints[:, upper]
    angle = ((torch.diagonal(turn, dim1=-2, dim2=-1).sum(-1) - 1) / 2).acos()
    assert_close(angle, 2 * (bone[..., 2] / bone.norm(dim=-1)).asin().abs())


def test_a_segment_that_points_at_the_camera_stays():
    local, rest = posed(batch=())
    world, joints = forward_kinematics(local, rest, SKELETON)
    bone = segment(joints, 0, 0)
    shoulder = int(LIMBS.chains[0, 0])
    toward = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
    axis = torch.linalg.cross(bone / bone.norm(), toward)
    angle = torch.atan2(axis.norm(), (bone / bone.norm()) @ toward)
    wanted = axis_angle_to_matrix(axis / axis.norm() * angle) @ world[shoulder]
    local[shoulder] = world[SKELETON.parents[shoulder]].mT @ wanted
    after, _ = flipped_joints(local, rest)
    assert after.isfinite().all()
    assert_close(after[1][shoulder], wanted)


def test_flips_of_one_sample_are_those_of_the_batch():
    local, rest = posed(batch=(2, 3))
    together = flipped_rotations(local, rest, SKELETON, LIMBS)
    assert together.shape == (4, 2, 3, SKELETON.num_joints, 3, 3)
    assert_close(flipped_rotations(local[1, 2], rest[1, 2], SKELETON, LIMBS), together[:, 1, 2])


def test_each_limb_takes_its_cheapest_candidate_and_the_trunk_the_first():
    candidates = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 2, 4, 3)
    cost = torch.ones(4, 2, 2)
    cost[2, 0, 0] = cost[3, 0, 1] = cost[1, 1, 1] = 0
    chosen = choose_by_limb(candidates, cost, torch.tensor([0, 0, 1, 2]))
    assert chosen[..., 0].tolist() == [[2, 2, 3, 0], [0, 0, 1, 0]]


def test_every_limb_finds_its_own_way_back_and_what_is_no_number_loses():
    local, rest = posed(batch=(3, 1))
    root, (_, truth) = local[..., 0, :, :], forward_kinematics(local, rest, SKELETON)
    poses = matrix_to_axis_angle(flipped_rotations(local, rest, SKELETON, LIMBS)[..., 1:, :, :])
    wrong = torch.ones(4, 3, 1, 4)
    for limb, flip in enumerate((1, 0, 0, 2)):  # the left arm and the right leg, each in its own way
        wrong[flip, ..., limb] = 0
    start = {"body_pose": choose_by_limb(poses, wrong, LIMBS.of_joint[1:])}
    right_arm = LIMBS.of_joint == 1

    def total(unknowns):
        turns = axis_angle_to_matrix(unknowns["body_pose"])
        many = len(turns) // 3
        turns = torch.cat((root.repeat(many, 1, 1, 1).unsqueeze(-3), turns), dim=-3)
        _, joints = forward_kinematics(turns, rest.repeat(many, 1, 1, 1), SKELETON)
        off = (joints - truth.repeat(many, 1, 1, 1)).norm(dim=-1)
        return off.sum((-2, -1)).where((off[..., right_arm] < 1e-3).all(-1).all(-1), torch.nan)

    assert (total(start) > 0.05).all()
    found = try_depth_flips(start, root, rest, SKELETON, lambda unknowns: unknowns, total)
    assert (total(found) < 1e-6).all()
