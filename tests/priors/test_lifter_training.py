"""The lifter learns from photographs alone, the same from the same seed, and a bad photograph does not reach it."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import physique
import pytest
import torch
from physique.bodymodel import BodyModel, KeypointRegressor, keypoint_set, open_body
from physique.losses import bone_symmetry_loss
from physique.priors import heading_cues, heading_loss
from torch.testing import assert_close

TOOL = Path(physique.__file__).parent / "tools" / "training" / "lifter.py"


@pytest.fixture
def tool(monkeypatch):
    spec = importlib.util.spec_from_file_location("lifter_training", TOOL)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lifter_training", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "WIDTH", 32)
    return module


@pytest.fixture(scope="module")
def body():
    return BodyModel(open_body("low"))


@pytest.fixture(scope="module")
def pool():
    """Upright people, each joint a little bent."""
    generator = torch.Generator().manual_seed(0)
    return SimpleNamespace(
        body_pose=0.15 * torch.randn(40, 23, 3, generator=generator),
        global_orient=torch.zeros(40, 3),
        betas=torch.zeros(40, 10),
    )


def test_training_moves_every_parameter_and_repeats_itself(tool, body, pool):
    lifter, again = (tool.train(pool, body, seed=3, steps=3, batch=16) for _ in range(2))
    other = tool.train(pool, body, seed=4, steps=3, batch=16)
    untrained = tool.train(pool, body, seed=3, steps=0, batch=16)
    for name, value in lifter.named_parameters():
        assert torch.equal(value, dict(again.named_parameters())[name])
        assert not torch.equal(value, dict(other.named_parameters())[name])
        assert not torch.equal(value, dict(untrained.named_parameters())[name]), name
    assert lifter.bone_lengths.isfinite().all() and not lifter.training


def test_training_leaves_the_callers_random_numbers_alone(tool, body, pool):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tool.train(pool, body, seed=0, steps=1, batch=8)
    assert torch.equal(torch.rand(3), expected)


def test_photographs_are_flat_and_of_turned_people(tool, body, pool):
    points = tool.keypoints_of(pool, body)
    generator = torch.Generator().manual_seed(0)
    photographs = tool.Photographs(points, generator).take(500)
    assert photographs.shape == (500, 17, 2)
    seen = tool.view(points, generator)
    assert_close(torch.cdist(seen, seen), torch.cdist(points, points), atol=1e-4, rtol=1e-4)
    left, right = (keypoint_set("coco17").index(f"{side}_shoulder") for side in ("left", "right"))
    share = (photographs[:, left, 0] > photographs[:, right, 0]).float().mean()
    assert 0.4 < share < 0.6, "seen from the front as often as from the back"


def test_true_people_face_forward_and_are_alike_on_both_sides(tool, body, pool):
    points, bones = tool.keypoints_of(pool, body), tool.skeleton()
    assert (heading_loss(points, heading_cues(keypoint_set("coco17"))) < 0.1).all()
    assert (bone_symmetry_loss(bones.points(points), bones.pairs) < 0.003).all()
    names = (*keypoint_set("coco17").names, "pelvis", "neck", "head")
    assert {(names[a], names[b]) for pair in bones.pairs for a, b in pair} >= {
        ("left_hip", "left_knee"),
        ("neck", "right_shoulder"),
        ("right_eye", "nose"),
    }


def test_a_bad_photograph_does_not_reach_the_weights(tool, body, pool, monkeypatch):
    take = tool.Photographs.take

    def spoilt(self, count):
        poses = take(self, count)
        poses[0, 0] = torch.nan
        return poses

    monkeypatch.setattr(tool.Photographs, "take", spoilt)
    lifter = tool.train(pool, body, seed=0, steps=3, batch=16)
    assert all(value.isfinite().all() for value in lifter.parameters())


def test_the_report_of_the_truth_is_zero(tool, body, pool, monkeypatch):
    view, views = tool.view, []
    monkeypatch.setattr(tool, "view", lambda *arguments: views.append(view(*arguments)) or views[-1])

    class Oracle:
        root = (11, 12)

        def lift(self, keypoints):
            truth = torch.cat(views)
            return truth[torch.cdist(keypoints.flatten(1), truth[..., :2].flatten(1)).argmin(1)]

    figures = list(tool.report(Oracle(), pool, body, seed=5).values())
    assert max(figures[:3]) < 0.5 and figures[5] == 0
    assert figures[4] > 20, "without depths"


def test_mixed_poses_have_limbs_of_other_frames_and_trunks_of_their_own(tool, body, pool, monkeypatch):
    monkeypatch.setattr(tool, "SHAKEN", 0.0)
    poses = tool.mixed(pool, body, torch.Generator().manual_seed(0))
    own = (poses == pool.body_pose).all(-1)
    names = body.skeleton.names[1:]
    for i, name in enumerate(names):
        if name.startswith(("spine", "neck", "head")) or name.endswith("collar"):
            assert own[:, i].all()
        else:
            assert 0.3 < own[:, i].float().mean() < 0.8
    for limb in (("left_hip", "right_ankle"), ("left_elbow", "right_hand")):
        first, second = (own[:, names.index(name)] for name in limb)
        assert torch.equal(first, second)


def test_keypoints_are_the_bodys_about_its_hips_and_y_down(tool, body, pool):
    points = body.keypoints(KeypointRegressor("coco17", body.data), body_pose=pool.body_pose[:1])[0]
    expected = (points - points[[11, 12]].mean(0)) * torch.tensor([1.0, -1.0, -1.0])
    assert_close(tool.keypoints_of(pool, body)[0], expected)
