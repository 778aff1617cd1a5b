"""Face landmarks against smplx, and the turning of the contour."""

import numpy as np
import pytest
import smplx
import torch
from official_files import write_official_file
from physique.bodymodel import BodyModel, FaceContour, SurfacePoints, face_landmarks, load_body_model, synthetic_model
from physique.geometry import axis_angle_to_matrix


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_official_file(tmp_path_factory.mktemp("landmarks"), "smplx", "npz")


def test_all_68_landmarks_equal_smplx(path):
    count = 64
    theirs = smplx.SMPLX(
        str(path), use_face_contour=True, use_pca=False, flat_hand_mean=True, batch_size=count, dtype=torch.float64
    )
    theirs.vertex_joint_selector.extra_joints_idxs = torch.zeros(21, dtype=torch.long)
    arguments = {
        "betas": torch.randn(count, 10, dtype=torch.float64),
        "global_orient": 0.6 * torch.randn(count, 3, dtype=torch.float64),
        "jaw_pose": 0.3 * torch.randn(count, 3, dtype=torch.float64),
        "transl": torch.randn(count, 3, dtype=torch.float64),
    }
    pose = 0.2 * torch.randn(count, 21, 3, dtype=torch.float64)
    expected = theirs(**arguments, body_pose=pose.flatten(1)).joints[:, 76:144]

    data = load_body_model(path)
    model = BodyModel(data, dtype=torch.float64)
    static, contour = face_landmarks(data, dtype=torch.float64), FaceContour(data, dtype=torch.float64)
    moving = contour(model(**arguments, body_pose=pose).joint_rotations)
    both = SurfacePoints(
        torch.cat([static.faces.expand(count, -1), moving.faces], dim=-1),
        torch.cat([static.barycentric.expand(count, -1, -1), moving.barycentric], dim=-2),
    )
    assert len(moving.faces.unique(dim=0)) > 20, "many rows of the table are met"
    torch.testing.assert_close(model.points(both, **arguments, body_pose=pose), expected, rtol=0, atol=1e-6)


def yaw(degrees: torch.Tensor, joints: int) -> torch.Tensor:
    """Rotations of every joint by `degrees` about the body's up axis."""
    vectors = torch.deg2rad(degrees)[..., None] * torch.tensor([0.0, 1, 0], dtype=degrees.dtype)
    return axis_angle_to_matrix(vectors).unsqueeze(-3).expand(*degrees.shape, joints, 3, 3)


@pytest.fixture
def numbered() -> FaceContour:
    """A contour whose faces are the number of their row."""
    faces = np.arange(79)[:, None].repeat(17, 1)
    weights = np.full((79, 17, 3), 1 / 3)
    data = synthetic_model("flame", num_vertices=100)
    return FaceContour(data, dynamic_lmk_faces_idx=faces, dynamic_lmk_bary_coords=weights, dtype=torch.float64)


def test_rows_follow_the_yaw_degree_by_degree(numbered):
    degrees = torch.arange(-89, 90, dtype=torch.float64)
    rows = numbered(yaw(degrees, 5)).faces[:, 0].tolist()
    assert rows == [min(-d, 39) if d <= 0 else 39 + min(d, 39) for d in range(-89, 90)]


def test_pitch_and_roll_do_not_choose_another_row(numbered):
    turn = yaw(torch.tensor(-20.0, dtype=torch.float64), 5)
    roll = axis_angle_to_matrix(torch.tensor([0.0, 0, 0.5], dtype=torch.float64))
    pitch = axis_angle_to_matrix(torch.tensor([0.5, 0.0, 0], dtype=torch.float64))
    assert numbered(roll @ turn @ pitch).faces.unique().tolist() == [20]


@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)])
def test_any_batch(numbered, batch):
    surface = numbered(torch.eye(3, dtype=torch.float64).expand(*batch, 5, 3, 3))
    assert surface.faces.shape == (*batch, 17) and surface.barycentric.shape == (*batch, 17, 3)


def test_a_nan_rotation_gives_the_frontal_row_and_leaves_others_alone(numbered):
    rotations = yaw(torch.tensor([-10.0, -20.0], dtype=torch.float64), 5).clone()
    rotations[0] = float("nan")
    assert numbered(rotations).faces[:, 0].tolist() == [0, 20]


def test_it_runs_under_vmap(numbered):
    rotations = yaw(torch.linspace(-30, 30, 6, dtype=torch.float64), 5)
    assert torch.equal(torch.vmap(numbered)(rotations).faces, numbered(rotations).faces)


def test_points_are_differentiable_through_the_body(path):
    data = load_body_model(path)
    model = BodyModel(data, dtype=torch.float64)
    contour = FaceContour(data, dtype=torch.float64)

    def points(jaw_pose):
        return model.points(contour(model(jaw_pose=jaw_pose).joint_rotations), jaw_pose=jaw_pose)

    assert torch.autograd.gradcheck(points, torch.full((3,), 0.1, dtype=torch.float64, requires_grad=True))


def test_arrays_of_a_separate_file_can_be_given():
    data = synthetic_model("flame", num_vertices=100)
    faces, weights = np.arange(51), np.eye(3)[np.arange(51) % 3]
    surface = face_landmarks(data, lmk_faces_idx=faces, lmk_bary_coords=weights)
    model = BodyModel(data)
    expected = model().vertices[model.faces[torch.arange(51), torch.arange(51) % 3]]
    torch.testing.assert_close(model.points(surface), expected)


def test_errors_say_what_to_do(path):
    data = load_body_model(path)
    flame = synthetic_model("flame")
    with pytest.raises(ValueError, match=r"lmk_faces_idx: expected \(51,\), got nothing in the model file; pass"):
        face_landmarks(flame)
    with pytest.raises(ValueError, match=r"dynamic_lmk_faces_idx: expected \(79, 17\), got nothing in the model file"):
        FaceContour(flame)
    with pytest.raises(ValueError, match=r"lmk_bary_coords: expected \(51, 3\) finite numbers, got \(50, 3\)"):
        face_landmarks(data, lmk_bary_coords=np.zeros((50, 3)))
    with pytest.raises(ValueError, match=r"lmk_faces_idx: expected faces 0 to \d+, got 999999 to 999999"):
        face_landmarks(data, lmk_faces_idx=np.full(51, 999_999))
    with pytest.raises(ValueError, match="lmk_faces_idx: expected faces"):
        face_landmarks(data, lmk_faces_idx=np.full(51, 0.5))
    with pytest.raises(ValueError, match="joint: expected one of .*got 'neck'"):
        hand = synthetic_model("mano")
        FaceContour(hand, dynamic_lmk_faces_idx=np.zeros((79, 17), int), dynamic_lmk_bary_coords=np.zeros((79, 17, 3)))
    with pytest.raises(ValueError, match=r"joint_rotations: expected \(\*batch, 55, 3, 3\), got \(5, 3, 3\)"):
        FaceContour(data)(torch.eye(3).expand(5, 3, 3))
