"""Laws of metrics and losses: what similarities, translations, order, thresholds and reversal do to them."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from physique.geometry import axis_angle_to_matrix
from physique.losses import (
    acceleration_loss,
    bone_ratio_loss,
    bone_symmetry_loss,
    dense_correspondence_loss,
    joint_loss,
    ordinal_depth_loss,
    rotation_loss,
    velocity_loss,
)
from physique.losses.metrics import Protocol, auc, joint_errors, mpjpe, oks, pa_mpjpe, pck, scale_aligned_mpjpe
from physique.testing import rotations
from torch.testing import assert_close

COUNT = 7
BONES = [(0, 1), (1, 2), (3, 4), (5, 6)]


def number(low, high):
    return st.floats(low, high, allow_subnormal=False)


def tensor(*shape, low=-1.0, high=1.0):
    size = 1
    for side in shape:
        size *= side
    values = st.lists(number(low, high), min_size=size, max_size=size)
    return values.map(lambda numbers: torch.tensor(numbers, dtype=torch.float64).reshape(shape))


def spread(points):
    """Whether the points are far from lying on a line, where a rotation is not unique."""
    return torch.linalg.svdvals(points - points.mean(0))[1] > 0.1


people = tensor(COUNT, 3)
solid_people = people.filter(spread)
shifts = tensor(3, low=-10.0, high=10.0)
scales = number(0.01, 100.0)
alignments = st.sampled_from(["none", "root", "scale", "rigid", "procrustes"])
signs = st.sampled_from([-1.0, 0.0, 1.0, float("nan")])
relations = st.lists(signs, min_size=25, max_size=25).map(lambda r: torch.tensor(r, dtype=torch.float64).reshape(5, 5))
depths = tensor(5, low=-5.0, high=5.0)


def moved(points, turn, shift, scale=1.0):
    return scale * points @ axis_angle_to_matrix(turn).mT + shift


@given(solid_people, solid_people, rotations(), shifts, scales)
def test_pa_mpjpe_does_not_see_a_similarity_of_the_prediction(predicted, target, turn, shift, scale):
    assert_close(
        pa_mpjpe(moved(predicted, turn, shift, scale), target), pa_mpjpe(predicted, target), rtol=1e-5, atol=1e-7
    )


@given(solid_people, rotations(), shifts, scales)
def test_pa_mpjpe_of_a_similar_body_is_zero_and_of_its_mirror_image_is_not_less(target, turn, shift, scale):
    assert pa_mpjpe(moved(target, turn, shift, scale), target) < 1e-6
    mirrored = target * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    assert pa_mpjpe(mirrored, target) >= 0


@given(people, people, shifts, shifts)
def test_mpjpe_does_not_see_translations(predicted, target, first, second):
    assert_close(mpjpe(predicted + first, target + second), mpjpe(predicted, target), rtol=1e-8, atol=1e-8)


@given(solid_people, solid_people, rotations(), shifts, alignments)
def test_no_metric_sees_a_rigid_motion_of_both(predicted, target, turn, shift, alignment):
    rule = Protocol(alignment=alignment)
    got = mpjpe(moved(predicted, turn, shift), moved(target, turn, shift), protocol=rule)
    assert_close(got, mpjpe(predicted, target, protocol=rule), rtol=1e-5, atol=1e-7)


@given(solid_people, solid_people, scales, alignments)
def test_metrics_are_in_the_unit_of_their_input(predicted, target, unit, alignment):
    rule = Protocol(alignment=alignment)
    got = mpjpe(unit * predicted, unit * target, protocol=rule)
    assert_close(got, unit * mpjpe(predicted, target, protocol=rule), rtol=1e-6, atol=1e-9)
    for bones in (BONES, None):
        got = scale_aligned_mpjpe(unit * predicted, target, bones)
        assert_close(got, scale_aligned_mpjpe(predicted, target, bones), rtol=1e-6, atol=1e-9)


@given(solid_people, solid_people)
def test_aligning_more_never_costs_more_squared_error(predicted, target):
    def error(alignment):
        """Root mean square error about the centroid, which is what the alignments minimise."""
        points = [each - each.mean(0) for each in (predicted, target)]
        rule = Protocol(root=tuple(range(COUNT)), alignment=alignment)
        return joint_errors(*points, protocol=rule).square().mean().sqrt()

    assert error("procrustes") <= error("rigid") + 1e-9 <= error("root") + 2e-9
    assert error("scale") <= error("root") + 1e-9
    if ((predicted - predicted.mean(0)) * (target - target.mean(0))).sum() >= 0:  # otherwise the scale is negative
        assert error("procrustes") <= error("scale") + 1e-9


@given(people, people, number(0.0, 2.0), number(0.0, 2.0))
def test_pck_grows_with_its_threshold_and_auc_is_below_it(predicted, target, first, second):
    low, high = sorted((first, second))
    assert pck(predicted, target, threshold=low) <= pck(predicted, target, threshold=high)
    thresholds = torch.linspace(0, high, 11, dtype=torch.float64)
    assert 0 <= auc(predicted, target, thresholds=thresholds) <= pck(predicted, target, threshold=high) + 1e-12


@given(people, people, st.permutations(range(COUNT)))
def test_order_of_joints_does_not_matter(predicted, target, order):
    order = list(order)
    rule = Protocol(root=(order.index(0),))
    assert_close(mpjpe(predicted[order], target[order], protocol=rule), mpjpe(predicted, target))
    assert_close(joint_loss(predicted[order], target[order]), joint_loss(predicted, target))


@given(tensor(17, 2, low=0.0, high=100.0), tensor(17, 2, low=0.0, high=100.0), number(10.0, 1e5), scales)
def test_keypoint_similarity_does_not_know_the_resolution(predicted, target, area, zoom):
    got = oks(zoom * predicted, zoom * target, None, zoom * zoom * area)
    assert_close(got, oks(predicted, target, None, area), rtol=1e-8, atol=1e-12)
    assert 0 <= got <= 1


@given(depths, relations, number(-100.0, 100.0))
def test_ordinal_loss_sees_only_who_is_closer(depth, relations, shift):
    loss = ordinal_depth_loss(depth, relations)
    assert_close(ordinal_depth_loss(-depth, -relations), loss)
    assert_close(ordinal_depth_loss(-depth, relations.mT), loss)
    assert_close(ordinal_depth_loss(depth + shift, relations), loss, rtol=1e-6, atol=1e-9)


@given(depths, relations)
def test_ordinal_loss_reads_a_pair_once_or_twice_alike(depth, relations):
    upper = torch.where(torch.ones(5, 5).triu(1) > 0, relations, torch.nan)
    both = torch.where(upper.isnan(), -upper.mT, upper)
    assert_close(ordinal_depth_loss(depth, both), ordinal_depth_loss(depth, upper))


@given(rotations((4,)), rotations((4,)), rotations(), st.sampled_from(["chordal", "geodesic"]))
def test_distance_of_rotations_is_bi_invariant_and_symmetric(first, second, turn, metric):
    a, b, q = axis_angle_to_matrix(first), axis_angle_to_matrix(second), axis_angle_to_matrix(turn)
    loss = rotation_loss(a, b, metric=metric)
    for pair in ((q @ a, q @ b), (a @ q, b @ q), (b, a), (a.mT, b.mT)):
        assert_close(rotation_loss(*pair, metric=metric), loss, rtol=1e-6, atol=1e-7)


@given(people, rotations(), shifts, scales)
def test_bones_know_no_pose_and_ratios_no_size(joints, turn, shift, scale):
    pairs = [(BONES[0], BONES[1]), (BONES[2], BONES[3])]
    loss = bone_symmetry_loss(joints, pairs)
    assert_close(bone_symmetry_loss(moved(joints, turn, shift), pairs), loss, rtol=1e-6, atol=1e-9)
    grown = bone_symmetry_loss(moved(joints, turn, shift, scale), pairs)
    assert_close(grown, scale**2 * loss, rtol=1e-6, atol=1e-6)
    if (joints[1] - joints[0]).norm() > 0.01:
        ratio = bone_ratio_loss(joints, BONES, [1.0] * 4, trunk=(0, 1))
        assert_close(bone_ratio_loss(scale * joints, BONES, [1.0] * 4, trunk=(0, 1)), ratio, rtol=1e-6, atol=1e-9)


@given(tensor(5, 3, 2), tensor(3, 2), tensor(5, 3))
def test_motion_backward_costs_the_same_and_a_drift_only_its_speed(motion, drift, confidence):
    for loss in (velocity_loss, acceleration_loss):
        expected = loss(motion, confidence=confidence)
        assert_close(loss(motion.flip(0), confidence=confidence.flip(0)), expected)
        assert_close(loss(motion + drift, confidence=confidence), expected, rtol=1e-8, atol=1e-12)
    steady = motion + drift * torch.arange(5.0).reshape(5, 1, 1)
    assert_close(acceleration_loss(steady), acceleration_loss(motion), rtol=1e-8, atol=1e-12)


@given(tensor(6, 2), tensor(6, 2), number(0.0, 6.28), tensor(6, low=0.0))
def test_dense_loss_does_not_know_how_the_image_is_turned(projected, pixels, angle, weight):
    turn = axis_angle_to_matrix(torch.tensor([0.0, 0.0, angle], dtype=torch.float64))[:2, :2]
    for penalty in ("l1", "l2", "huber", "geman_mcclure"):
        expected = dense_correspondence_loss(projected, pixels, weight, penalty=penalty, sigma=0.5)
        got = dense_correspondence_loss(projected @ turn, pixels @ turn, weight, penalty=penalty, sigma=0.5)
        assert_close(got, expected, rtol=1e-6, atol=1e-9)
