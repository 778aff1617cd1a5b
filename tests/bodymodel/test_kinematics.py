"""Forward kinematics equals the recursion down the tree, for any tree."""

import numpy as np
import pytest
import torch
from oracles import body as oracle
from oracles.finite_differences import assert_right_to_second_order
from physique.bodymodel import Skeleton, forward_kinematics
from physique.bodymodel.families import FAMILIES
from physique.geometry import axis_angle_to_matrix
from refusals import refuses

TREES = {
    "one joint": (-1,),
    "one bone": (-1, 0),
    "chain of nine": (-1, 0, 1, 2, 3, 4, 5, 6, 7),
    "star": (-1, 0, 0, 0, 0),
    "mixed": (-1, 0, 1, 0, 2, 2, 3, 6, 5, 8),
    **{name: family.skeleton.parents for name, family in FAMILIES.items()},
}


def skeleton_of(parents):
    return Skeleton(parents, tuple(f"joint{index}" for index in range(len(parents))))


def random_body(parents, *batch):
    rotations = axis_angle_to_matrix(torch.randn(*batch, len(parents), 3, dtype=torch.float64))
    return rotations, torch.randn(*batch, len(parents), 3, dtype=torch.float64)


@pytest.mark.parametrize("parents", TREES.values(), ids=TREES)
def test_it_is_the_recursion_down_the_tree(parents):
    rotations, rest = random_body(parents)
    world, joints = forward_kinematics(rotations, rest, skeleton_of(parents))
    expected_world, expected_joints = oracle.chain(rotations.numpy(), rest.numpy(), parents)
    np.testing.assert_allclose(world.numpy(), expected_world, rtol=0, atol=1e-12)
    np.testing.assert_allclose(joints.numpy(), expected_joints, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "turns, rests", [((), ()), ((2, 3), (2, 3)), ((3,), ()), ((), (3,)), ((2, 1), (3,)), ((0,), (1,))]
)
def test_batches_broadcast(turns, rests):
    parents = TREES["mixed"]
    rotations, rest = random_body(parents, *turns)[0], random_body(parents, *rests)[1]
    world, joints = forward_kinematics(rotations, rest, skeleton_of(parents))
    batch = torch.broadcast_shapes(turns, rests)
    assert world.shape == (*batch, 10, 3, 3) and joints.shape == (*batch, 10, 3)
    all_rotations, all_rests = rotations.expand(*batch, 10, 3, 3), rest.expand(*batch, 10, 3)
    for index in np.ndindex(*batch):
        alone = forward_kinematics(all_rotations[index], all_rests[index], skeleton_of(parents))
        torch.testing.assert_close(world[index], alone[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(joints[index], alone[1], rtol=0, atol=1e-12)


def test_it_is_right_to_second_order():
    parents = TREES["mixed"]
    weights = torch.randn(10, 4, 3, dtype=torch.float64)

    def f(flat):
        rotations, rest = flat.split((90, 30))
        world, joints = forward_kinematics(rotations.reshape(10, 3, 3), rest.reshape(10, 3), skeleton_of(parents))
        return (torch.cat((world, joints.unsqueeze(-2)), dim=-2) * weights).sum()

    assert_right_to_second_order(f, torch.randn(120, dtype=torch.float64))


def test_bone_lengths_are_kept():
    parents = TREES["smplx"]
    rotations, rest = random_body(parents, 4)
    _, joints = forward_kinematics(rotations, rest, skeleton_of(parents))
    above = list(parents[1:])
    before, after = ((points[:, 1:] - points[:, above]).norm(dim=-1) for points in (rest, joints))
    torch.testing.assert_close(after, before)


def test_a_nan_stays_in_its_sample():
    rotations, rest = random_body(TREES["smpl"], 3)
    rotations[1, 4] = torch.nan
    world, joints = forward_kinematics(rotations, rest, skeleton_of(TREES["smpl"]))
    assert world[[0, 2]].isfinite().all() and joints[[0, 2]].isfinite().all()
    assert not joints[1].isfinite().all()


def test_shapes_that_do_not_fit_the_skeleton_are_refused():
    skeleton = skeleton_of(TREES["mixed"])
    rotations, rest = random_body(TREES["mixed"])
    with refuses("rotations"):
        forward_kinematics(rotations[1:], rest, skeleton)
    with refuses("rest_joints"):
        forward_kinematics(rotations, rest[1:], skeleton)
