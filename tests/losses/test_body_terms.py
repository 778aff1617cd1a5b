"""Terms on the body itself: hinges, segment scales, the determinant, bones and depth order."""

import math

import pytest
import torch
from physique.bodymodel import BodyModel, keypoint_set, open_body
from physique.bodymodel.families import FAMILIES
from physique.geometry import axis_angle_to_matrix
from physique.losses import (
    acceleration_loss,
    bone_lengths,
    bone_ratio_loss,
    bone_ratios,
    bone_symmetry_loss,
    determinant_loss,
    hinge_limit_loss,
    joint_angle_loss,
    ordinal_depth_loss,
    scale_smoothness_loss,
    symmetric_bones,
    velocity_loss,
)
from refusals import refuses
from torch.testing import assert_close

DOUBLE = torch.float64
SMPL = FAMILIES["smpl"].skeleton


@pytest.mark.parametrize("joint", ["left_elbow", "right_elbow", "left_knee", "right_knee"])
def test_hinges_cost_more_when_the_limb_bends_backward(joint):
    """Judged by where the built-in body's wrist or ankle goes: forward for elbows, backward for knees."""
    model = BodyModel(open_body("low"), dtype=DOUBLE)
    tip = joint.replace("elbow", "wrist").replace("knee", "ankle")
    component, sign = (1, -1 if "left" in joint else 1) if "elbow" in joint else (0, 1)
    pose = torch.zeros(2, 23, 3, dtype=DOUBLE)
    pose[:, SMPL.index(joint) - 1, component] = torch.tensor([0.5 * sign, -0.5 * sign])
    forward = model.joints(body_pose=pose)[:, SMPL.index(tip), 2]
    bent, overextended = (0, 1) if (forward[0] > forward[1]) == ("elbow" in joint) else (1, 0)
    loss = hinge_limit_loss(pose)
    assert_close(loss[bent].item(), 3 + math.exp(-0.5))
    assert_close(loss[overextended].item(), 3 + math.exp(0.5))


def test_hinges_are_found_by_name():
    pose = torch.randn(4, 23, 3, dtype=DOUBLE)
    expected = hinge_limit_loss(pose)
    assert_close(hinge_limit_loss(pose[:, :21]), expected)
    order = torch.randperm(23)
    assert_close(hinge_limit_loss(pose[:, order], [SMPL.names[1 + int(i)] for i in order]), expected)
    assert_close(hinge_limit_loss(pose[:, 3:4], ["left_knee"]), (-pose[:, 3, 0]).exp())


def test_hinge_repels_without_overflow():
    pose = torch.zeros(23, 3)
    pose[3, 0] = -1000
    pose.requires_grad_()
    loss = hinge_limit_loss(pose)
    (gradient,) = torch.autograd.grad(loss, pose)
    assert loss.isfinite() and gradient[3, 0] < -1e8 and gradient.isfinite().all()


def test_scales_that_are_alike_cost_nothing_whatever_they_are():
    for value in (0.3, 1.0, 7.0):
        assert_close(scale_smoothness_loss(torch.full((2, 24), value), SMPL.parents), torch.zeros(2))
    assert scale_smoothness_loss(torch.full((24, 3), 1.5), SMPL.parents) == 0


def test_one_longer_segment_costs_once_per_neighbour():
    scale = torch.ones(24, dtype=DOUBLE)
    scale[9] += 0.5
    assert_close(scale_smoothness_loss(scale, SMPL.parents).item(), 0.25 * 4)


def test_determinant_loss_is_a_third_for_rotations_and_falls_as_the_determinant_grows():
    rotation = axis_angle_to_matrix(torch.randn(5, 3, dtype=DOUBLE))
    assert_close(determinant_loss(rotation), torch.full((5,), math.exp(-1), dtype=DOUBLE))
    mirrored = (rotation * torch.tensor([1.0, 1.0, -1.0], dtype=DOUBLE)).requires_grad_()
    loss = determinant_loss(mirrored)
    assert_close(loss, torch.full((5,), math.e, dtype=DOUBLE))
    (gradient,) = torch.autograd.grad(loss.sum(), mirrored)
    assert (torch.linalg.det(mirrored - 0.1 * gradient) > torch.linalg.det(mirrored)).all()


def test_symmetric_bones_of_the_skeleton_mirror_by_name():
    pairs = symmetric_bones(SMPL)
    assert len(pairs) == 9
    for first, second in pairs:
        assert [SMPL.names[SMPL.mirror[end]] for end in first] == [SMPL.names[end] for end in second]


@pytest.mark.parametrize("name", ["coco17", "h36m17", "lsp14", "openpose25", "smpl24", "smplx55", "mpi_inf_3dhp28"])
def test_symmetric_bones_of_keypoint_sets_mirror_by_name(name):
    points = keypoint_set(name)
    pairs = symmetric_bones(points)
    met = [frozenset(bone) for pair in pairs for bone in pair]
    assert len(pairs) >= 4 and len(met) == len(set(met))
    for first, second in pairs:
        assert tuple(points.flip[end] for end in first) == tuple(second)


def test_symmetric_body_in_any_pose_costs_nothing():
    model = BodyModel(open_body("low"), dtype=DOUBLE)
    joints = model.joints(body_pose=torch.randn(3, 23, 3, dtype=DOUBLE))
    assert_close(bone_symmetry_loss(joints, symmetric_bones(SMPL)), torch.zeros(3, dtype=DOUBLE), atol=1e-6, rtol=0)
    stretched = joints + 0.1 * torch.randn_like(joints)
    assert (bone_symmetry_loss(stretched, symmetric_bones(SMPL)) > 1e-4).all()


def test_ratios_of_a_body_know_neither_pose_nor_size():
    joints = BodyModel(open_body("low"), dtype=DOUBLE).joints()
    bones = [(1, 4), (4, 7), (16, 18), (18, 20)]
    trunk = (0, 3, 6, 9)
    ratios = bone_ratios(joints, bones, trunk)
    assert_close(ratios, bone_lengths(joints, bones) / bone_lengths(joints, [(0, 3), (3, 6), (6, 9)]).sum())
    assert_close(bone_ratio_loss(1e-3 * joints, bones, ratios, trunk).item(), 0.0, atol=1e-20, rtol=0)
    half = bone_ratio_loss(joints, bones, (0.5 * ratios).tolist(), trunk)
    assert_close(half, (0.25 * ratios.square()).sum())


def test_body_without_extent_has_ratios_of_zero_and_no_gradient():
    joints = torch.ones(2, 5, 3, requires_grad=True)
    loss = bone_ratio_loss(joints, [(0, 1)], [0.5], (2, 3))
    assert_close(loss, torch.full((2,), 0.25))
    assert (torch.autograd.grad(loss.sum(), joints)[0] == 0).all()


def test_unlabelled_pairs_may_be_nan_and_the_diagonal_is_never_read():
    depth = torch.tensor([0.3, -0.2, torch.nan], dtype=DOUBLE, requires_grad=True)
    relations = torch.full((3, 3), torch.nan, dtype=DOUBLE)
    relations[0, 1] = -1
    loss = ordinal_depth_loss(depth, relations)
    assert_close(loss.item(), math.log(1 + math.exp(-0.5)))
    (gradient,) = torch.autograd.grad(loss, depth)
    assert gradient.isfinite().all() and gradient[2] == 0
    relations.fill_diagonal_(1)
    assert ordinal_depth_loss(depth, relations) == loss


def test_without_labels_depth_costs_nothing():
    depth = torch.randn(2, 4, requires_grad=True)
    loss = ordinal_depth_loss(depth, torch.full((4, 4), torch.nan))
    assert (loss == 0).all() and (torch.autograd.grad(loss.sum(), depth)[0] == 0).all()


def test_integer_labels_are_all_labels():
    depth = torch.randn(3, 5, dtype=DOUBLE)
    relations = torch.randint(-1, 2, (3, 5, 5))
    assert_close(ordinal_depth_loss(depth, relations), ordinal_depth_loss(depth, relations.double()))


def test_descending_the_ordinal_loss_puts_joints_in_order():
    relations = torch.full((4, 4), torch.nan)
    for closer, farther in ((2, 0), (0, 3), (3, 1)):
        relations[closer, farther] = 1
    depth = torch.zeros(4, requires_grad=True)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(ordinal_depth_loss(depth, relations), depth)
        depth = (depth - gradient).detach().requires_grad_()
    assert depth.argsort().tolist() == [2, 0, 3, 1]


def test_rest_and_uniform_motion_cost_nothing():
    start, speed = torch.randn(2, 4, 1, 6, 3, dtype=DOUBLE)
    still, uniform = start.expand(4, 5, 6, 3), start + speed * torch.arange(5.0).reshape(5, 1, 1)
    assert_close(velocity_loss(still), torch.zeros(4, dtype=DOUBLE))
    assert_close(acceleration_loss(uniform), torch.zeros(4, dtype=DOUBLE))
    assert_close(velocity_loss(uniform), speed.square().sum(-1).mean((-2, -1)))
    assert_close(velocity_loss(uniform, uniform + 3), torch.zeros(4, dtype=DOUBLE))


def test_missing_frame_takes_out_its_differences_only():
    motion = torch.randn(6, 1, 2, dtype=DOUBLE)
    confidence = torch.ones(6, 1, dtype=DOUBLE)
    confidence[3] = 0
    motion[3] = torch.nan
    steps = (motion[1:] - motion[:-1]).square().sum(-1)[:, 0]
    assert_close(velocity_loss(motion, confidence=confidence), steps[[0, 1, 4]].mean())
    bend = (motion[2:] - 2 * motion[1:-1] + motion[:-2]).square().sum(-1)[:, 0]
    assert_close(acceleration_loss(motion, confidence=confidence), bend[0])


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_sequences_too_short_cost_nothing(frames):
    motion = torch.randn(3, frames, 4, 2)
    assert (acceleration_loss(motion) == 0).all()
    assert frames == 2 or (velocity_loss(motion) == 0).all()


def test_misuse_is_refused_by_name():
    joints = torch.zeros(2, 5, 3)
    with refuses("body_pose"):
        joint_angle_loss(torch.zeros(2, 69))
    with refuses("body_pose"):
        hinge_limit_loss(torch.zeros(2, 22, 3))
    with refuses("body_pose"):
        hinge_limit_loss(torch.zeros(2, 2, 3), ["left_knee"])
    with refuses("joints"):
        hinge_limit_loss(torch.zeros(2, 1, 3), ["pelvis"])
    with refuses("segment_scale"):
        scale_smoothness_loss(torch.ones(2, 23), SMPL.parents)
    with refuses("segment_scale"):
        scale_smoothness_loss(torch.ones(2, 24, 2), SMPL.parents)
    with refuses("parents"):
        scale_smoothness_loss(torch.ones(2, 3), (-1, 2, 0))
    with refuses("matrix"):
        determinant_loss(torch.zeros(2, 9))
    with refuses("joints"):
        bone_symmetry_loss(torch.zeros(3), [])
    with refuses("pairs"):
        bone_symmetry_loss(joints, [((0, 1), (0, 5))])
    with refuses("pairs"):
        bone_symmetry_loss(joints, [((0, 1), (0, 1, 2))])
    with refuses("mask"):
        bone_symmetry_loss(joints, [((0, 1), (0, 2))], torch.ones(4))
    with refuses("bones"):
        bone_ratio_loss(joints, [(0, -1)], [1.0], (0, 1))
    with refuses("ratios"):
        bone_ratio_loss(joints, [(0, 1)], [1.0, 2.0], (0, 1))
    with refuses("trunk"):
        bone_ratio_loss(joints, [(0, 1)], [1.0], (0,))
    with refuses("trunk"):
        bone_ratio_loss(joints, [(0, 1)], [1.0], (0, 7))
    with refuses("relations"):
        ordinal_depth_loss(torch.zeros(2, 5), torch.zeros(2, 5, 4))
    with refuses("batch shapes"):
        ordinal_depth_loss(torch.zeros(2, 5), torch.zeros(3, 5, 5))
    with refuses("predicted"):
        velocity_loss(torch.zeros(5, 3))
    with refuses("target"):
        velocity_loss(torch.zeros(5, 4, 3), torch.zeros(4, 4, 3))
    with refuses("confidence"):
        acceleration_loss(torch.zeros(5, 4, 3), confidence=torch.zeros(5, 3))
