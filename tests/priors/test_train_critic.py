"""How the shipped discriminator is trained and measured: on small pools, whose answers are known."""

import importlib
import math
import sys
from pathlib import Path

import physique
import pytest
import torch
from physique.bodymodel import default_joint_limits
from physique.geometry import axis_angle_to_matrix, geodesic_angle, matrix_to_axis_angle
from physique.priors import FactorizedDiscriminator, PosePool
from torch.testing import assert_close

FOOT, HEAD, WRIST = 9, 14, 19


@pytest.fixture(scope="module")
def critic():
    sys.path.insert(0, str(Path(physique.__file__).parent / "tools"))
    return importlib.import_module("training.critic")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pool(count=120, clips=3, seed=0):
    """Every joint nods about an axis of its own, all in step; feet, head, wrists and hands stay at rest."""
    angle = 0.6 * torch.randn(count, 1, 1, generator=generator(seed))
    axis = torch.nn.functional.normalize(torch.randn(23, 3, generator=generator(99)), dim=-1)
    pose = (0.8 + angle).clamp(min=0.3) * axis
    pose[:, [FOOT, FOOT + 1, HEAD, WRIST, WRIST + 1, 21, 22]] = 0
    clip = torch.arange(clips).repeat_interleave(count // clips)
    return PosePool(pose, torch.zeros(count, 3), None, clip, tuple("abcdefgh"[:clips]))


def test_training_is_the_same_for_the_same_seed_and_leaves_random_numbers_alone(critic):
    before = torch.get_rng_state()
    first, second, other = (critic.train(pool(), None, seed=seed, steps=2, batch=20) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert not torch.equal(first.joint_weight, other.joint_weight)
    assert isinstance(first, FactorizedDiscriminator) and not first.training


class Knowing(FactorizedDiscriminator):
    """Knows which rotations a pool has: a joint is real if one of the poses has it, a pose if all its joints are."""

    def __init__(self, known):
        super().__init__()
        self.known = known

    def pose_realness(self, rotations):
        joints = (rotations[:, None] == self.known).flatten(-2).all(-1).any(1).float()
        return torch.cat((joints, joints.amin(-1, keepdim=True)), dim=-1)

    def shape_realness(self, betas):
        return (betas.norm(dim=-1) < 5.5).float()


def test_who_knows_everything_makes_no_error(critic):
    held = pool(60)
    rotations = axis_angle_to_matrix(held.body_pose)
    figures = critic.report(Knowing(rotations), held, None, seed=0, repeats=2)
    assert figures.pop("ROC-AUC of N(0, 1) betas against three times as wide ones") > 0.9
    for name, value in figures.items():
        assert value == (100 if name.endswith("%") else 1), name
    assert len(figures) == 8 + 14


def test_a_short_training_tells_poses_from_impostors(critic):
    short = critic.train(pool(), None, seed=0, steps=80, batch=32)
    figures = critic.report(short, pool(60, seed=1), None, seed=0, repeats=2)
    assert figures["ROC-AUC against the default box"] > 0.95
    assert figures["ROC-AUC against 0.3 rad noise"] > 0.8
    assert figures["ROC-AUC against one replaced joint"] > 0.6


def test_joints_that_the_capture_does_not_show_are_not_held_at_rest(critic):
    poses = critic.Poses(pool(), generator())
    drawn = matrix_to_axis_angle(poses.take(400))
    assert 0.1 < drawn[:, HEAD].std() < 0.25
    assert not critic.shown_joints(axis_angle_to_matrix(pool().body_pose))[[FOOT, HEAD, WRIST, 22]].any()
    assert critic.shown_joints(axis_angle_to_matrix(pool().body_pose)).sum() == 16


def test_long_clips_do_not_outweigh_short_ones(critic):
    uneven = pool(100, 1)
    # Clip b has no joint turned: one pose in a hundred of the pool, one in eleven of the draws.
    pose = uneven.body_pose.clone()
    pose[-1] = 0
    clip = torch.zeros(100, dtype=torch.long)
    clip[-1] = 1
    poses = critic.Poses(PosePool(pose, torch.zeros(100, 3), None, clip, ("a", "b")), generator())
    turned = matrix_to_axis_angle(poses.take(4000))[:, :FOOT].norm(dim=-1).mean(-1)
    share = 1 / (1 + math.sqrt(99))
    assert abs((turned < 0.15).double().mean() - share) < 0.03


def test_impostors_are_as_fake_as_their_targets_say(critic):
    poses = critic.Poses(pool(), generator())
    shaken, boxed, swapped = critic.impostors(poses, 100, generator(1))
    assert [len(each.rotations) for each in (shaken, boxed, swapped)] == [15, 10, 75]
    assert not shaken.target.any() and not boxed.target.any()
    lower, upper = default_joint_limits(23)
    vectors = matrix_to_axis_angle(boxed.rotations)
    assert (vectors >= lower - 1e-4).all() and (vectors <= upper + 1e-4).all()
    wrong = swapped.target[:, :23] == 0
    assert (wrong.sum(-1) <= critic.MOST_REPLACED).all() and wrong.any(-1).double().mean() > 0.8
    assert torch.equal(swapped.target[:, 23] == 0, wrong.any(-1))
    assert (wrong.sum(-1) == 1).double().mean() > 0.4


def test_turning_turns_by_the_angle(critic):
    rotations = axis_angle_to_matrix(torch.randn(5, 23, 3))
    turned = critic.turn(rotations, torch.full((5, 23), 0.3), generator())
    assert_close(geodesic_angle(turned, rotations), torch.full((5, 23), 0.3), rtol=1e-3, atol=1e-3)


def test_one_joint_is_swapped_for_a_distant_one_of_another_clip(critic):
    source = pool()
    # Unlike each other in joints at rest too, so that a pose can be found again.
    rotations = axis_angle_to_matrix(source.body_pose + 1e-3 * torch.randn(120, 23, 3, generator=generator(2)))
    swapped, wrong = critic.swap_one(rotations, source.clip, generator())
    assert len(swapped) > 100
    for pose, joint in zip(swapped, wrong.tolist(), strict=True):
        # The pose is one of the pool but for that joint, whose rotation another clip has at another joint.
        others = [j for j in range(23) if j != joint]
        (origin,) = (rotations[:, others] == pose[others]).flatten(1).all(-1).nonzero().flatten().tolist()
        assert geodesic_angle(pose[joint], rotations[origin, joint]) >= math.pi / 6
        row, column = (rotations == pose[joint]).flatten(2).all(-1).nonzero().T
        assert ((column != joint) & (source.clip[row] != source.clip[origin])).any()


def test_auc_is_the_share_of_pairs_in_order(critic):
    real, impostor = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 3.0])
    pairs = [float(b > a) + 0.5 * float(b == a) for a in real for b in impostor]
    assert critic.auc(real, impostor) == pytest.approx(sum(pairs) / len(pairs))
    assert critic.auc(real, real) == 0.5
