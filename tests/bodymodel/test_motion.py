"""Motion: slices, rates, up axes, and what a body model makes of it."""

import numpy as np
import pytest
import torch
from physique.bodymodel import BodyModel, Motion, Skeleton, load_motion, synthetic_model
from physique.geometry import axis_angle_to_matrix, geodesic_angle
from refusals import refuses

ARM = Skeleton((-1, 0, 1), ("shoulder", "elbow", "wrist"))
REST = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.2, 0.3], [0.6, 0.2, 0.35]], dtype=torch.float64)


def arm(frames=6, fps=60.0, **more):
    poses = torch.randn(frames, 3, 3, dtype=torch.float64)
    translation = torch.randn(frames, 3, dtype=torch.float64)
    return Motion(ARM, fps, poses, translation, **{"rest_joints": REST, **more})


def amass(tmp_path, family="smplh", frames=5, **more):
    joints = {"smpl": 24, "smplh": 52, "smplx": 55}[family]
    random = np.random.default_rng(1)
    arrays = {
        "poses": random.normal(0, 0.4, (frames, 3 * joints)),
        "trans": random.normal(0, 1, (frames, 3)),
        "betas": random.normal(0, 1, 16),
        "gender": np.array("female"),
        "mocap_framerate": np.array(120.0),
    }
    path = tmp_path / "clip_poses.npz"
    np.savez(path, **{key: value for key, value in (arrays | more).items() if value is not None})
    return path


def test_a_rotation_turns_the_bones_that_leave_its_joint():
    motion = arm()
    shoulder, elbow = motion.rotations[:, 0], motion.rotations[:, 0] @ motion.rotations[:, 1]
    root = REST[0] + motion.translation
    torch.testing.assert_close(motion.joints[:, 0], root)
    torch.testing.assert_close(motion.joints[:, 1], root + shoulder @ (REST[1] - REST[0]))
    torch.testing.assert_close(motion.joints[:, 2], motion.joints[:, 1] + elbow @ (REST[2] - REST[1]))


def test_a_bone_that_ends_in_a_joint_turns_with_it_where_the_file_means_that():
    motion = arm(turns="bone")
    elbow = motion.rotations[:, 0] @ motion.rotations[:, 1]
    wrist = elbow @ motion.rotations[:, 2]
    root = REST[0] + motion.translation
    torch.testing.assert_close(motion.joints[:, 0], root)
    torch.testing.assert_close(motion.joints[:, 1], root + elbow @ (REST[1] - REST[0]))
    torch.testing.assert_close(motion.joints[:, 2], motion.joints[:, 1] + wrist @ (REST[2] - REST[1]))


@pytest.mark.parametrize("turns", ["children", "bone"])
def test_joints_may_slide_in_their_parents_frames(turns):
    places = REST + 0.1 * torch.randn(6, 3, 3, dtype=torch.float64)
    motion = arm(rest_joints=places, turns=turns)
    one = Motion(ARM, 60.0, motion.poses[2:3], motion.translation[2:3], places[2], turns=turns)
    torch.testing.assert_close(motion.joints[2], one.joints[0])
    assert motion[2:4].rest_joints.shape == (2, 3, 3)


def test_slices_keep_speed():
    motion = arm(frames=10)
    part = motion[2:9:3]
    assert len(part) == 3 and part.fps == 20.0
    torch.testing.assert_close(part.joints, motion.joints[2:9:3])
    assert len(motion[:0]) == 0 and motion[:0].joints.shape == (0, 3, 3)
    assert len(motion[:0].resample(30)) == 0 and len(motion[4:5].resample(30)) == 1
    with refuses("frames", TypeError):
        motion[3]
    with refuses("frames"):
        motion[::-1]


def test_resampling_to_a_divisor_takes_every_nth_frame():
    motion = arm(frames=13, fps=120.0)
    slow = motion.resample(30)
    assert slow.fps == 30.0 and len(slow) == 4
    assert torch.equal(slow.poses, motion[::4].poses) and torch.equal(slow.translation, motion[::4].translation)


def test_resampling_goes_along_the_shortest_arcs():
    motion = arm(frames=3, fps=10.0)
    fast = motion.resample(40)
    assert len(fast) == 9
    for k, share in enumerate((0.25, 0.5, 0.75), start=1):
        whole = geodesic_angle(motion.rotations[0], motion.rotations[1])
        torch.testing.assert_close(geodesic_angle(motion.rotations[0], fast.rotations[k]), share * whole)
        torch.testing.assert_close(geodesic_angle(fast.rotations[k], motion.rotations[1]), (1 - share) * whole)
        torch.testing.assert_close(
            fast.translation[k], torch.lerp(motion.translation[0], motion.translation[1], share), rtol=1e-6, atol=1e-6
        )
    torch.testing.assert_close(fast.joints[::4], motion.joints)


@pytest.mark.parametrize("fps, count", [(29.97, 30), (30, 31), (60, 61), (24, 25), (7, 8), (0.5, 1)])
def test_resampling_ends_at_the_last_frame_or_before(fps, count):
    assert len(arm(frames=31, fps=30.0).resample(fps)) == count


def test_resampling_moves_sliding_joints_along_lines():
    places = REST + 0.1 * torch.randn(2, 3, 3, dtype=torch.float64)
    middle = arm(frames=2, rest_joints=places).resample(120).rest_joints[1]
    torch.testing.assert_close(middle, places.mean(0))


def test_slow_turns_resample_without_noise():
    poses = torch.zeros(101, 3, 3)
    poses[:, 0, 2] = torch.linspace(0, 1e-3, 101)
    fast = Motion(ARM, 100.0, poses, torch.zeros(101, 3), REST.float()).resample(1000)
    torch.testing.assert_close(fast.poses[:, 0, 2], torch.linspace(0, 1e-3, 1001), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("turns", ["children", "bone"])
def test_turning_a_skeleton_upright_turns_every_joint(turns):
    motion = arm(up="z", turns=turns)
    upright = motion.to_y_up()
    x, y, z = motion.joints.unbind(-1)
    assert upright.up == "y" and upright.to_y_up() is upright
    torch.testing.assert_close(upright.joints, torch.stack((x, z, -y), dim=-1))


def test_turning_a_body_upright_turns_every_vertex(tmp_path):
    motion = load_motion(amass(tmp_path), dtype=torch.float64)
    model = BodyModel(synthetic_model("smplh", num_vertices=60, num_betas=16), dtype=torch.float64)
    root = model.rest(betas=motion.betas).joints[0]
    x, y, z = model(**motion.arguments()).vertices.unbind(-1)
    upright = motion.to_y_up(root)
    torch.testing.assert_close(model(**upright.arguments()).vertices, torch.stack((x, z, -y), dim=-1))
    with refuses("root"):
        motion.to_y_up()
    shifted = model(**motion.to_y_up(torch.zeros_like(root)).arguments()).vertices
    shift = shifted - torch.stack((x, z, -y), dim=-1)
    torch.testing.assert_close(shift, shift[:1, :1].expand_as(shift))


@pytest.mark.parametrize("family", ["smpl", "smplh", "smplx"])
def test_arguments_are_the_numbers_of_the_file(family, tmp_path):
    path = amass(tmp_path, family)
    motion = load_motion(path, dtype=torch.float64)
    model = BodyModel(synthetic_model(family, num_vertices=60, num_betas=16), dtype=torch.float64)
    with np.load(path) as arrays:
        poses = torch.tensor(arrays["poses"])
        betas = torch.tensor(arrays["betas"])
        trans = torch.tensor(arrays["trans"])
    arguments = motion.arguments()
    assert torch.equal(arguments["global_orient"], poses[:, :3]) and torch.equal(arguments["transl"], trans)
    joints = 23 if family == "smpl" else 21
    assert torch.equal(arguments["body_pose"].flatten(1), poses[:, 3 : 3 + 3 * joints])
    assert torch.equal(arguments["betas"], betas)
    if family == "smplx":
        assert torch.equal(arguments["jaw_pose"], poses[:, 66:69]) and torch.equal(
            arguments["reye_pose"], poses[:, 72:75]
        )
    if family != "smpl":
        assert torch.equal(arguments["left_hand_pose"].flatten(1), poses[:, -90:-45])
        assert torch.equal(arguments["right_hand_pose"].flatten(1), poses[:, -45:])
    assert model(**arguments).vertices.shape == (5, 60, 3)


@pytest.mark.parametrize("source", ["smpl", "smplh", "smplx"])
@pytest.mark.parametrize("target", ["smpl", "smplh", "smplx", "star"])
def test_poses_go_over_to_other_families_by_joint_name(source, target, tmp_path):
    motion = load_motion(amass(tmp_path, source), dtype=torch.float64)
    arguments = motion.arguments(target)
    model = BodyModel(synthetic_model(target, num_vertices=60, num_betas=16), dtype=torch.float64)
    world = model(**arguments).joint_rotations
    for joint, parent in enumerate(model.skeleton.parents):
        name = model.skeleton.names[joint]
        local = world[:, joint] if parent < 0 else world[:, parent].mT @ world[:, joint]
        known = name in motion.skeleton.names
        own = motion.poses[:, motion.skeleton.index(name)] if known else torch.zeros(5, 3, dtype=torch.float64)
        torch.testing.assert_close(local, axis_angle_to_matrix(own))
    same_shapes = {source, target} <= {"smpl", "smplh"} or source == target
    assert ("betas" in arguments) == same_shapes


def test_betas_are_cut_or_left_out_on_request(tmp_path):
    motion = load_motion(amass(tmp_path))
    assert torch.equal(motion.arguments(num_betas=10)["betas"], motion.betas[:10])
    assert "betas" not in motion.arguments(num_betas=0)
    assert "betas" not in load_motion(amass(tmp_path, betas=None)).arguments()


def test_a_body_models_motion_has_no_joints_of_its_own(tmp_path):
    motion = load_motion(amass(tmp_path))
    with refuses("joints"):
        _ = motion.joints
    with refuses("family"):
        motion.arguments("mano")
    with refuses("family"):
        motion.arguments("human")
    with refuses("motion"):
        arm().arguments()


def test_slices_and_rates_keep_the_body(tmp_path):
    motion = load_motion(amass(tmp_path))
    for part in (motion[1:3], motion.resample(60), motion.to_y_up(torch.zeros(3))):
        assert (part.family, part.gender) == ("smplh", "female") and part.betas is motion.betas


def test_wrong_shapes_and_rates_are_refused():
    poses, translation = torch.zeros(4, 3, 3), torch.zeros(4, 3)
    with refuses("fps"):
        Motion(ARM, 0.0, poses, translation)
    with refuses("fps"):
        arm().resample(float("nan"))
    with refuses("fps"):
        arm(frames=31, fps=1e-300).resample(30)
    with refuses("fps"):
        arm(frames=31, fps=5e-324).resample(1e300)
    with refuses("poses"):
        Motion(ARM, 30.0, torch.zeros(2, 4, 3, 3), translation)
    with refuses("poses"):
        Motion(ARM, 30.0, torch.zeros(4, 2, 3), translation)
    with refuses("translation"):
        Motion(ARM, 30.0, poses, torch.zeros(3, 3))
    with refuses("rest_joints"):
        Motion(ARM, 30.0, poses, translation, rest_joints=torch.zeros(3, 3, 3))
