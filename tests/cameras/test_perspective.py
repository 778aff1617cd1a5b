"""The perspective camera against OpenCV's formulas, at the camera plane and on real cameras."""

import json

import numpy as np
import pytest
import torch
from oracles import cameras as oracle
from physique.cameras import PerspectiveCamera
from physique.cameras.perspective import NEAR
from physique.geometry.checks import check_values
from refusals import refuses
from torch.testing import assert_close

COEFFICIENTS = [-0.28, 0.07, 1e-3, -2e-3, 0.01, 0.02, -0.01, 0.003]


def numpy_projection(camera, points, distortion=()):
    tensors = [points, *camera[:4]]
    return torch.from_numpy(
        np.stack([oracle.opencv(*sample, distortion) for sample in zip(*(t.numpy() for t in tensors), strict=True)])
    )


def test_projection_is_opencv(camera, points):
    assert_close(camera.project(points), numpy_projection(camera, points))


@pytest.mark.parametrize("count", [4, 5, 8])
def test_distortion_is_opencv(camera, points, count):
    coefficients = COEFFICIENTS[:count]
    distorted = camera._replace(distortion=torch.tensor(coefficients, dtype=torch.float64))
    assert_close(distorted.project(points), numpy_projection(camera, points, coefficients))


@pytest.mark.parametrize("count", [0, 4, 5, 8])
def test_unproject_undoes_project(camera, points, count):
    if count:
        camera = camera._replace(distortion=torch.tensor(COEFFICIENTS[:count], dtype=torch.float64).expand(4, count))
    depth = camera.to_camera(points)[..., 2]
    assert_close(camera.unproject(camera.project(points), depth), points)


def test_moving_the_camera_and_the_world_together_changes_nothing(camera, points):
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    moved = camera._replace(rotation=camera.rotation @ turn.mT)
    assert_close(moved.project(points @ turn.mT), camera.project(points))


@pytest.mark.parametrize("distorted", [False, True])
def test_projection_is_right_to_second_order(camera, points, distorted):
    inputs = [t[:1].detach().requires_grad_() for t in camera[:4]]
    if distorted:
        inputs.append(torch.tensor([COEFFICIENTS], dtype=torch.float64, requires_grad=True))

    def project(points, *fields):
        return PerspectiveCamera(*fields).project(points)

    world = points[:1, :2].detach().requires_grad_()
    assert torch.autograd.gradcheck(project, (world, *inputs))
    assert torch.autograd.gradgradcheck(project, (world, *inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("depth", [0.0, -0.0, -3.0, 1e-30, NEAR, -1e20])
@pytest.mark.parametrize("distortion", [None, COEFFICIENTS])
def test_at_and_behind_the_camera_plane_everything_is_finite(dtype, depth, distortion):
    points = torch.tensor([[0.0, 0.0, depth], [2.0, -3.0, depth]], dtype=dtype, requires_grad=True)
    camera = PerspectiveCamera(
        torch.full((2,), 1000.0, dtype=dtype),
        torch.full((2,), 500.0, dtype=dtype),
        torch.eye(3, dtype=dtype),
        torch.zeros(3, dtype=dtype),
        None if distortion is None else torch.tensor(distortion, dtype=dtype),
    )
    pixels = camera.project(points)
    (gradient,) = torch.autograd.grad(pixels.sum(), points, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), points)
    assert pixels.isfinite().all() and gradient.isfinite().all() and second.isfinite().all()


def test_behind_the_camera_a_point_projects_as_one_millimetre_in_front(camera, points):
    camera = camera._replace(translation=torch.zeros(3, dtype=torch.float64))
    seen = camera.to_camera(points)
    in_front = torch.cat([seen[..., :2], seen[..., 2:].clamp(min=1e-3)], dim=-1)
    assert (seen[..., 2] < 0).any()
    assert_close(camera.project(points), camera._replace(rotation=torch.eye(3, dtype=torch.float64)).project(in_front))


def test_undistort_stays_finite_where_the_lens_model_has_no_inverse():
    camera = PerspectiveCamera(
        torch.ones(2), torch.zeros(2), torch.eye(3), torch.zeros(3), torch.tensor([-5.0, 0.0, 0.0, 0.0])
    )
    assert camera.unproject(torch.tensor([[3.0, 0.1], [1e6, -1e6]]), torch.ones(2)).isfinite().all()


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
def test_any_batch_shape(batch):
    camera = PerspectiveCamera(
        torch.ones(*batch, 2), torch.zeros(*batch, 2), torch.eye(3).expand(*batch, 3, 3), torch.zeros(*batch, 3)
    )
    assert camera.project(torch.ones(5, 3)).shape == (*batch, 5, 2)
    assert camera.unproject(torch.ones(*batch, 5, 2), torch.ones(5)).shape == (*batch, 5, 3)


def test_wrong_shapes_are_refused_by_name(camera):
    with refuses("points"):
        camera.project(torch.zeros(4, 5, 2, dtype=torch.float64))
    with refuses("rotation"):
        camera._replace(rotation=torch.zeros(4, 9, dtype=torch.float64)).project(torch.zeros(4, 5, 3).double())
    with refuses("distortion"):
        camera._replace(distortion=torch.zeros(4, 6, dtype=torch.float64)).project(torch.ones(4, 5, 3).double())


def test_a_matrix_that_is_no_rotation_is_refused_inside_check_values(camera, points):
    stretched = camera._replace(rotation=1.1 * camera.rotation)
    stretched.project(points)
    with check_values():
        camera.project(points)
        with refuses("rotation"):
            stretched.project(points)


@pytest.mark.parametrize("subject", [0, 1])
def test_real_network_output_reproduces_its_own_2d_points(shared_data, subject):
    """A published network's 3D points, camera translation and 2D points of people in a photograph."""
    with np.load(shared_data / f"sam3d/img_subj0{subject}.npz") as file:
        points, pixels, translation = (
            torch.from_numpy(file[key]) for key in ("pred_keypoints_3d", "pred_keypoints_2d", "pred_cam_t")
        )
    camera = PerspectiveCamera(
        torch.tensor([2535.27, 2535.27]), torch.tensor([960.0, 445.0]), torch.eye(3), translation
    )
    assert_close(camera.project(points), pixels, atol=0.02, rtol=0)


def test_real_four_camera_rig_sees_the_real_person(shared_data):
    """Lengths in a calibration file and a marker file of another lab: all markers fall inside all four images."""
    cameras = read_rig(shared_data / "multiview/Calib_qualisys.toml")
    track = next((shared_data / "multiview/static_single").glob("*.trc")).read_text().splitlines()[5:]
    numbers = np.array([[float(value or "nan") for value in line.split("\t")[2:]] for line in track if line.strip()])
    world = numbers[:, : numbers.shape[1] // 3 * 3].reshape(len(numbers), -1, 3)[..., [2, 0, 1]]
    world = torch.from_numpy(world[np.isfinite(world).all((1, 2))])
    assert len(world) > 5
    for camera, vector, size in cameras:
        got = camera.project(world)
        expected = [
            oracle.opencv(
                frame, *(f.numpy() for f in camera[:2]), oracle.rodrigues(vector), *(f.numpy() for f in camera[3:])
            )
            for frame in world.numpy()
        ]
        assert_close(got, torch.from_numpy(np.stack(expected)))
        assert (got > 0).all() and (got < torch.tensor(size)).all()
        depth = camera.to_camera(world)[..., 2]
        assert_close(camera.unproject(got, depth), world)


def read_rig(path):
    """Yield (camera, axis-angle, image size); the file is TOML, which Python 3.10 cannot read."""
    blocks = [block for block in path.read_text().split("[cam_")[1:]]
    for block in blocks:
        fields = dict(line.split(" = ", 1) for line in block.splitlines() if " = " in line)
        value = {
            key: np.array(json.loads(fields[key].replace(",]", "]")))
            for key in ("size", "matrix", "distortions", "rotation", "translation")
        }
        matrix = torch.from_numpy(value["matrix"])
        camera = PerspectiveCamera(
            matrix.diagonal()[:2],
            matrix[:2, 2],
            torch.from_numpy(oracle.rodrigues(value["rotation"])),
            torch.from_numpy(value["translation"]),
            torch.from_numpy(value["distortions"]),
        )
        yield camera, value["rotation"], value["size"]
