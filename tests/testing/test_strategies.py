import math

import pytest
import torch
from hypothesis import find, given, settings
from physique import testing
from physique.bodymodel import Skeleton
from physique.geometry import to_matrix
from physique.testing import betas, body_models, cameras, poses, rotations, segment_scales
from refusals import refuses

CHAIN = Skeleton(parents=(-1, 0, 1, 1), names=("pelvis", "spine", "left_arm", "right_arm"))
SEARCH = settings(max_examples=2000, database=None)


@given(rotations(batch=(2, 3)))
def test_rotations_are_double_tensors_of_the_batch(r):
    assert r.shape == (2, 3, 3) and r.dtype == torch.float64 and r.isfinite().all()


@pytest.mark.parametrize(
    "special",
    [
        lambda r: not r.any(),
        lambda r: r.eq(-1e-8).all(),
        lambda r: r.eq(1e-8).any() and r.abs().max() == 1e-8,
        lambda r: r.norm() == math.pi,
        lambda r: 0 < (r.norm() - math.pi).abs() < 1e-7,
        lambda r: r.norm() > 2 * math.pi,
        lambda r: (r != 0).all() and 0.1 < r.norm() < 3,
    ],
)
def test_rotations_reach_the_special_points(special):
    find(rotations(), special, settings=SEARCH)


@pytest.mark.parametrize("rotation", ["axis_angle", "matrix", "rotation_6d", "quaternion_wxyz"])
def test_rotations_come_in_every_format(rotation):
    @given(rotations(batch=(2,), rotation=rotation, dtype=torch.float32))
    def check(x):
        matrix = to_matrix(x, rotation)
        assert x.dtype == torch.float32 and matrix.shape == (2, 3, 3)
        assert (matrix @ matrix.mT - torch.eye(3)).abs().max() < 1e-5

    check()


@given(rotations(max_angle=1.0))
def test_the_largest_angle_is_kept(r):
    assert r.norm() <= 1 + 1e-12


@given(poses(CHAIN, batch=(2,)), segment_scales(CHAIN), segment_scales(CHAIN, batch=(3,), per_axis=True))
def test_poses_and_scales_fit_the_skeleton(pose, scale, per_axis):
    assert pose.shape == (2, 4, 3) and scale.shape == (4,) and per_axis.shape == (3, 4, 3)
    assert ((scale >= 0.5) & (scale <= 2)).all() and ((per_axis >= 0.5) & (per_axis <= 2)).all()


@given(betas(4, batch=(2,), bound=2.0, dtype=torch.float32), betas(batch=(0,)))
def test_betas_stay_within_their_bound(some, none):
    assert some.shape == (2, 4) and some.dtype == torch.float32 and some.abs().max() <= 2
    assert none.shape == (0, 10)


def test_betas_are_zero_often():
    assert find(betas(2), lambda b: not b.any(), settings=SEARCH).equal(torch.zeros(2, dtype=torch.float64))


@given(cameras(batch=(3,)))
def test_cameras_look_at_the_subject(camera):
    assert camera.scale.shape == (3,) and camera.translation.shape == (3, 2) and (camera.scale > 0).all()


@settings(max_examples=5)
@given(body_models(), body_models("mano", max_vertices=40, dtype=torch.float32))
def test_body_models_pose(model, hand):
    assert model().vertices.dtype == torch.float64
    assert hand().vertices.dtype == torch.float32 and hand().vertices.shape[-2] <= 40


def test_a_wrong_format_is_named():
    with refuses("rotation"):
        rotations(rotation="euler")


def test_strategies_are_fetched_by_name_and_nothing_else_is():
    assert {"rotations", "poses", "synthetic_correspondences"} <= set(dir(testing))
    with pytest.raises(AttributeError, match="no attribute 'bones'"):
        assert testing.bones
