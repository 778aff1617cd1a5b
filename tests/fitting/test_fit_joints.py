"""Inverse kinematics: exact joints are reached, captured motion closely, and limits and neighbours are respected."""

import importlib
from pathlib import Path

import pytest
import torch
from physique.bodymodel import (
    BodyModel,
    KeypointRegressor,
    default_joint_limits,
    open_body,
    segment_scale_model,
    synthetic_model,
)
from physique.fitting import JointWeights, NormalEquations, Status, fit_joints, tangent_jacobian
from physique.fitting.body_unknowns import shape_arguments
from physique.fitting.joint_energy import joint_energy
from physique.geometry import axis_angle_to_matrix
from refusals import refuses

F64 = torch.float64
FREE = JointWeights(limits=0.0, pose=0.0, shape=0.0)


@pytest.fixture
def mocap(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    return importlib.import_module("mocap")


@pytest.fixture(scope="module")
def body():
    return BodyModel(open_body("low"), dtype=F64)


def someone(model, batch, spread=0.5):
    """Return arguments for poses inside the joint limits, turned and moved anywhere."""
    lower, upper = default_joint_limits(23, dtype=model.dtype)
    share = 0.5 + spread * (torch.rand(*batch, 23, 3, dtype=model.dtype) - 0.5)
    arguments = {
        "body_pose": lower + (upper - lower) * share,
        "global_orient": torch.randn(*batch, 3, dtype=model.dtype),
        "transl": torch.randn(*batch, 3, dtype=model.dtype),
    }
    if model.data.count("betas"):
        arguments["betas"] = 0.7 * torch.randn(*batch, model.data.num_betas, dtype=model.dtype)
    else:
        arguments["segment_scale"] = 1 + 0.05 * torch.randn(*batch, 24, dtype=model.dtype)
    return arguments


@pytest.mark.parametrize("kind", ["betas", "segment_scale"])
def test_exact_joints_are_reached(kind):
    data = open_body("low") if kind == "betas" else segment_scale_model(open_body("low"))
    model = BodyModel(data, dtype=F64)
    joints = model.joints(**someone(model, (8,)))
    solution = fit_joints(model, joints, terms=FREE, steps=60)
    assert solution.residuals.max() < 1e-6
    assert set(solution.params) == {kind, "global_orient", "body_pose", "transl"}
    torch.testing.assert_close(model.joints(**solution.params), joints, atol=1e-6, rtol=0)


def test_with_the_usual_terms_joints_are_millimetres_off_and_poses_natural(body):
    arguments = someone(body, (8,))
    solution = fit_joints(body, body.joints(**arguments))
    assert solution.residuals.mean() < 0.005
    lower, upper = default_joint_limits(23, dtype=F64)
    pose = solution.params["body_pose"]
    assert (pose - upper).clamp(min=0).max().rad2deg() < 10
    assert (lower - pose).clamp(min=0).max().rad2deg() < 10


def test_a_turned_and_moved_person_has_the_same_pose_and_shape(body, monkeypatch):
    # At the usual tolerance the flattest twists are still some hundredths of a radian from where they settle.
    monkeypatch.setattr("physique.fitting.joints.TOLERANCE", 1e-9)
    joints = body.joints(**someone(body, (3,)))
    turn = axis_angle_to_matrix(torch.tensor([0.4, -2.0, 1.0], dtype=F64))
    here = fit_joints(body, joints, steps=200)
    there = fit_joints(body, joints @ turn.mT + torch.tensor([3.0, -1.0, 2.0], dtype=F64), steps=200)
    for name in ("betas", "body_pose"):
        torch.testing.assert_close(here.params[name], there.params[name], atol=0.03, rtol=0)
    torch.testing.assert_close(here.residuals, there.residuals, atol=1e-4, rtol=0)


def test_knees_and_elbows_do_not_bend_backwards_to_please_a_target(body):
    pose = torch.zeros(23, 3, dtype=F64)
    pose[3, 0], pose[17, 1] = -0.6, 0.6
    found = fit_joints(body, body.joints(body_pose=pose)).params["body_pose"].rad2deg()
    assert found[3, 0] > -10
    assert found[17, 1] < 10


def test_a_bent_elbow_tells_how_the_upper_arm_is_twisted(body):
    pose = torch.zeros(23, 3, dtype=F64)
    pose[15], pose[17, 1] = torch.tensor([1.0, 0.0, 0.0], dtype=F64), -1.5
    found = fit_joints(body, body.joints(body_pose=pose)).params["body_pose"]
    torch.testing.assert_close(found[17], pose[17], atol=0.25, rtol=0)
    torch.testing.assert_close(found[15], pose[15], atol=0.25, rtol=0)


@pytest.mark.parametrize("name", ["coco17", "h36m17", "openpose25"])
def test_keypoint_sets_are_fitted(name):
    model = BodyModel(open_body("low"))
    regressor = KeypointRegressor(name, model.data)
    points = model.keypoints(regressor, **someone(model, (4,), spread=0.3))
    solution = fit_joints(model, points, keypoint_set=name)
    assert solution.residuals[:, regressor.valid].mean() < 0.015
    assert solution.residuals[:, ~regressor.valid].isnan().all()


def test_hands_are_found_where_joints_show_them():
    model = BodyModel(synthetic_model("smplx"), dtype=F64)
    pose = 0.3 * torch.randn(15, 3, dtype=F64)
    joints = model.joints(left_hand_pose=pose)
    solution = fit_joints(model, joints, terms=FREE._replace(pose=1e-4), steps=60)
    assert solution.residuals[25:40].max() < 1e-3
    assert {"left_hand_pose", "right_hand_pose"} < set(solution.params)
    assert "left_hand_pose" not in fit_joints(model, joints[:22], joint_ids=torch.arange(22)).params


def test_missing_joints_may_hold_anything_and_have_no_residual(body):
    joints = body.joints(**someone(body, (2,)))
    weights = torch.ones(24, dtype=F64)
    weights[[7, 20]] = 0
    spoilt = joints.clone()
    spoilt[:, 7], spoilt[:, 20] = float("nan"), 1e9
    plain, odd = (fit_joints(body, points, weights=weights) for points in (joints, spoilt))
    torch.testing.assert_close(odd.params, plain.params)
    assert odd.residuals[:, [7, 20]].isnan().all()
    assert odd.residuals.nansum() < 0.5


def test_a_bad_sample_is_told_and_leaves_the_others_alone(body):
    joints = body.joints(**someone(body, (4,)))
    weights = torch.ones(4, 24, dtype=F64)
    good = fit_joints(body, joints)
    spoilt = joints.clone()
    spoilt[1, 3] = float("nan")
    weights[2] = 0
    bad = fit_joints(body, spoilt, weights=weights)
    assert bad.status.tolist()[1:3] == [Status.INVALID] * 2
    for name, value in bad.params.items():
        assert value.isfinite().all()
        torch.testing.assert_close(value[[0, 3]], good.params[name][[0, 3]], atol=1e-6, rtol=0)


def test_a_previous_solution_is_a_good_start(body):
    joints = body.joints(**someone(body, (3,)))
    first = fit_joints(body, joints, steps=60)
    again = fit_joints(body, joints, init=first)
    assert again.steps < first.steps
    torch.testing.assert_close(again.loss, first.loss, rtol=1e-3, atol=1e-6)
    with refuses("init"):
        fit_joints(body, joints[:2], init=first)


def walk(model, frames=20, noise=0.01):
    """Return joints of one person swinging arms and legs, clean and with noise."""
    phase = torch.linspace(0, 3, frames, dtype=F64).sin()
    pose = torch.zeros(frames, 23, 3, dtype=F64)
    pose[:, 0, 0], pose[:, 1, 0] = -0.4 * phase - 0.2, 0.4 * phase - 0.2
    pose[:, 3, 0] = 0.3 + 0.2 * phase
    pose[:, 15, 2], pose[:, 16, 2] = -1.0, 1.0
    betas = torch.linspace(-1, 1, model.data.num_betas, dtype=F64)
    transl = torch.linspace(0, 1, frames, dtype=F64)[:, None] * torch.tensor([0.0, 0.0, 1.0], dtype=F64)
    clean = model.joints(betas=betas, body_pose=pose, transl=transl)
    return clean, clean + noise * torch.randn(clean.shape, dtype=F64)


def jerk(joints):
    return (joints[2:] - 2 * joints[1:-1] + joints[:-2]).norm(dim=-1).mean()


def test_a_sequence_shares_its_shape_and_is_smoothed_towards_the_truth(body):
    clean, noisy = walk(body)
    alone = fit_joints(body, noisy)
    together = fit_joints(body, noisy, sequence=True)
    betas = together.params["betas"]
    assert torch.equal(betas, betas[:1].expand_as(betas))
    found, separate = body.joints(**together.params), body.joints(**alone.params)
    assert jerk(found) < 0.5 * jerk(separate)
    assert (found - clean).norm(dim=-1).mean() < 0.8 * (separate - clean).norm(dim=-1).mean()


def test_sequences_of_a_batch_do_not_meet_and_bad_frames_are_left_out(body):
    clean, noisy = walk(body, frames=6)
    both = torch.stack((noisy, clean.flip(0)))
    both[1, 2, 5] = float("nan")
    together = fit_joints(body, both, sequence=True)
    alone = fit_joints(body, noisy, sequence=True)
    assert together.status[1, 2] == Status.INVALID
    assert (together.status != Status.INVALID).sum() == 11
    for name, value in together.params.items():
        assert value.isfinite().all()
        torch.testing.assert_close(value[0], alone.params[name], atol=1e-4, rtol=0)
    assert together.residuals[1, [0, 1, 3, 4, 5]].max() < 0.05


def energies():
    smpl, scales = synthetic_model("smpl"), segment_scale_model(synthetic_model("smpl"), per_axis=True)
    smplx = synthetic_model("smplx")
    yield smpl, None
    yield scales, None
    yield smplx, "smplx55"
    yield smplx, "openpose25"


@pytest.mark.parametrize(("data", "name"), list(energies()))
def test_the_equations_of_the_energy_are_those_by_differentiation(data, name):
    model = BodyModel(data, dtype=F64)
    regressor = None if name is None else KeypointRegressor(name, data, dtype=F64)
    ids = torch.tensor([0, 4, 9, 20])
    energy = joint_energy(model, regressor, ids, shape_arguments(model), None, JointWeights())
    params = {}
    for argument in energy.names:
        event = (3,) if argument in ("global_orient", "transl") else None
        if event is None and argument in energy.mean:
            event = energy.mean[argument].shape
        elif event is None:
            event = (next(part.count for part in data.table_row.parts if part.name == argument), 3)
        params[argument] = energy.mean.get(argument, 0) + 0.4 * torch.randn(2, *event, dtype=F64)
    count = energy.points(params).shape[-2]
    given = {"target": torch.randn(2, count, 3, dtype=F64), "trust": torch.rand(2, count, dtype=F64)}
    equations = energy.equations(params, given)
    rotations = [argument for argument in energy.names if argument in data.table_row.part_names]
    expected = tangent_jacobian(lambda p: energy.residuals(p, given), params, rotations)
    wanted = NormalEquations.of(*expected)
    torch.testing.assert_close(equations.slope, wanted.slope, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(equations.matrix, wanted.matrix, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("batch", [(), (1,), (2, 2), (0,)])
def test_any_batch(batch):
    model = BodyModel(open_body("low"))
    joints = model.joints().expand(*batch, 24, 3)
    solution = fit_joints(model, joints, steps=5)
    assert solution.params["body_pose"].shape == (*batch, 23, 3)
    assert solution.params["betas"].shape == (*batch, model.data.num_betas)
    assert solution.loss.shape == solution.status.shape == batch
    assert solution.residuals.shape == (*batch, 24)
    if batch:
        assert fit_joints(model, joints, sequence=True, steps=3).params["transl"].shape == (*batch, 3)


def test_what_does_not_fit_is_refused(body):
    joints = body.joints()
    with refuses("joints"):
        fit_joints(body, joints[:5])
    with refuses("joints"):
        fit_joints(body, joints, sequence=True)
    with refuses("joint_ids"):
        fit_joints(body, joints[:2], joint_ids=torch.tensor([0, 24]))
    with refuses("joint_ids"):
        fit_joints(body, joints[:2], joint_ids=torch.tensor([0, 1]), keypoint_set="coco17")
    with pytest.raises(ValueError, match="MAX_STEPS"):
        fit_joints(body, body.joints(body_pose=torch.full((23, 3), 0.5, dtype=F64)), steps=0, throw=True)


@pytest.mark.parametrize(("kind", "most"), [("betas", 0.025), ("segment_scale", 0.012)])
def test_captured_motion_is_followed_closely_without_overextension(mocap, shared_data, kind, most):
    clips = list(mocap.read_clips(shared_data / "mocap" / "cmu_joints_30fps.npz").values())
    frames = clips[0]._replace(joints=torch.cat([clip.joints[::15] for clip in clips]))
    model = BodyModel(open_body("low") if kind == "betas" else segment_scale_model(open_body("low")))
    solution = mocap.fit_clip(model, frames, sequence=False)
    assert (~solution.residuals[0].isnan()).sum() == 20
    assert solution.residuals.nanmean() < most
    pose = solution.params["body_pose"]
    over = torch.stack((-pose[:, 3, 0], -pose[:, 4, 0], pose[:, 17, 1], -pose[:, 18, 1]))
    assert over.max().rad2deg() < 10
    if kind == "betas":
        assert solution.params["betas"].abs().amax(-1).median() < 4
